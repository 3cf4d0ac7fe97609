"""What a network sees of photographs: random windows in training; in evaluation all of them at once, or windows all over them."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from frustum.data.augment import draw_image
from frustum.data.images.section import ImageFolderData
from frustum.data.images.windows import mirrored, window_starts, windowed
from frustum.data.labels.pixels import PixelLabels
from frustum.data.source import AugmentConfig
from frustum.errors import ConfigError, FrustumWarning, ShapeError
from frustum.types.batch import Batch
from frustum.types.classes import IGNORE
from frustum.types.contract import ModelConfig, Reads
from frustum.types.predictions import PredictedSegmentation, Prediction
from tests.data.images.folder import CLASSES, COLOURS, SIZE, class_map, write_folder

LABELS = PixelLabels(CLASSES)
STILL = AugmentConfig(resize=(0.0, 0.0), rotate_deg=(0.0, 0.0), flip=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("images"))
    Image.fromarray(COLOURS[class_map(9, (40, 64))]).save(folder / "images" / "val" / "small.png")
    return folder


def section(root: Path, **settings: object) -> ImageFolderData:
    return ImageFolderData(root=str(root), **settings)


# ---- training ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (60, 96)])
def test_a_random_window_shows_each_pixel_with_its_label(root: Path, size: tuple[int, int]) -> None:
    """At scale 1 pixel for pixel; where the window leaves the photograph the colour is the mean and the label ignored."""
    data, augment = section(root, image_size=size, evaluation="whole"), STILL.model_copy(update={"scale": (1.0, 1.0), "flip": True})
    pipeline, corners = data.pipeline(Reads(), (LABELS,), augment, training=True), set()
    for seed in range(12):
        moved = draw_image(augment, np.random.default_rng(seed), SIZE, size)
        item = pipeline(data.open(), "train-002", np.random.default_rng(seed))
        ids = np.full((max(SIZE[0], size[0]), max(SIZE[1], size[1])), IGNORE, np.uint8)
        ids[: SIZE[0], : SIZE[1]] = class_map(62)
        ids = ids[moved.top :, moved.left :][: size[0], : size[1]]
        ids = ids[:, ::-1] if moved.flip else ids
        corners.add((moved.top, moved.left, moved.flip))
        np.testing.assert_array_equal(item["labels"][0], ids)
        pixels = item["image"].permute(1, 2, 0).numpy() * data.std + data.mean
        expected = np.append(COLOURS, [[124, 116, 104]], 0)[np.where(ids == IGNORE, len(COLOURS), ids)]
        np.testing.assert_allclose(pixels, expected, atol=1e-3)
        assert np.abs(item["image"].numpy()[:, ids == IGNORE]).max(initial=0) < 0.01
    assert len(corners) > (8 if size[0] < SIZE[0] else 1)


def test_scales_are_those_of_the_photograph(root: Path) -> None:
    augment = STILL.model_copy(update={"scale": (0.5, 2.0)})
    drawn = [draw_image(augment, np.random.default_rng(seed), (100, 200), (80, 80)) for seed in range(200)]
    scales = np.array([moved.resized for moved in drawn]) / (100, 200)
    assert 0.5 <= scales.min() < 0.55
    assert 1.9 < scales.max() <= 2.0
    np.testing.assert_allclose(scales[:, 0], scales[:, 1], atol=0.006)
    for moved in drawn:
        for start, have in zip((moved.top, moved.left), moved.resized, strict=True):
            assert 0 <= start <= max(0, have - 80)
    assert augment.moves_pixels
    with pytest.raises(ValueError, match=r"a range is low,high, but 2 is above 0\.5"):
        AugmentConfig(scale=(2.0, 0.5))


def test_training_scales_what_evaluation_sees(root: Path) -> None:
    """`short_side` comes first in both: scale 1 shows the photograph as large as evaluation does."""
    augment = STILL.model_copy(update={"scale": (1.0, 1.0)})
    data = section(root, evaluation="whole", short_side=24, image_size=(24, 40))
    source = data.open()
    for token in ("train-002", "val-small"):
        seen, trained = (
            data.pipeline(Reads(), (LABELS,), augment, training)(source, token, np.random.default_rng(0)) for training in (0, 1)
        )
        assert seen["image"].shape == (3, 24, 40 if token == "train-002" else 38)
        width = seen["image"].shape[2]
        torch.testing.assert_close(trained["image"][..., :width], seen["image"])
        assert (trained["image"][..., width:].abs() < 0.01).all()
    assert data.trained(STILL, SIZE) is STILL
    assert data.trained(augment.model_copy(update={"scale": (0.5, 2.0)}), (48, 80)).scale == (0.25, 1.0)


@pytest.mark.parametrize(
    ("settings", "scale", "is_said"),
    [
        ({"image_size": (12, 20)}, (0.5, 2.0), True),  # fitted to a quarter
        ({"image_size": (24, 40)}, (0.5, 2.0), False),
        ({"evaluation": "whole"}, (0.5, 2.0), False),
        ({"evaluation": "whole"}, (1.5, 2.0), True),
        ({"evaluation": "whole", "short_side": 12}, (0.5, 2.0), False),
    ],
)
def test_another_scale_in_evaluation_is_said(root: Path, settings: dict[str, object], scale: tuple[float, float], is_said: bool) -> None:
    data = section(root, **settings)
    pipeline = data.pipeline(Reads(), (), STILL.model_copy(update={"scale": scale}), training=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", FrustumWarning)
        pipeline.load(data.open(), "train-002")
    assert ["augment.scale does not reach" in str(warning.message) for warning in said] == [True] * is_said


# ---- evaluation -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"evaluation": "whole"}, SIZE),
        ({"evaluation": "whole", "multiple_of": 32}, (64, 96)),
        ({"evaluation": "windows", "image_size": (50, 40)}, (50, 80)),
        ({"evaluation": "whole", "short_side": 96}, (96, 160)),
        ({"image_size": (24, 40)}, (24, 40)),
    ],
)
def test_what_is_seen_comes_back_to_the_photograph(root: Path, settings: dict[str, object], seen: tuple[int, int]) -> None:
    data = section(root, **settings)
    source = data.open()
    pipeline = data.pipeline(Reads(), (LABELS,), STILL, training=False)
    item = pipeline(source, "train-002")
    assert tuple(item["image"].shape) == (3, *seen)
    labels = item["labels"][0]
    assert labels.shape == seen
    assert (labels == IGNORE).sum() == (0 if seen[0] / SIZE[0] == seen[1] / SIZE[1] else seen[0] * seen[1] - SIZE[0] * SIZE[1])
    found = Prediction("train-002", segmentation=PredictedSegmentation(torch.from_numpy(labels), CLASSES))
    again = data.back_to_source(source, found, STILL).segmentation.labels.numpy()
    np.testing.assert_array_equal(again, class_map(62))


def test_photographs_of_several_sizes_need_batches_of_one(root: Path) -> None:
    data = section(root, evaluation="whole")
    pipeline = data.pipeline(Reads(), (), STILL, training=False)
    items = [pipeline(data.open(), token) for token in ("val-small", "val-000")]
    assert pipeline.collate(items[:1]).images.shape == (1, 1, 1, 3, 40, 64)
    with pytest.raises(ConfigError, match=r"photographs of 40 x 64 and 48 x 80 pixels do not fit in one batch .* eval\.batch_size=1"):
        pipeline.collate(items)


def test_windows_cover_a_side() -> None:
    assert window_starts(2048, 512, 1 / 3) == [0, 342, 684, 1026, 1368, 1536]
    assert window_starts(512, 512, 0.5) == [0]
    assert window_starts(513, 512, 0.0) == [0, 1]
    for length in range(10, 60):
        starts = window_starts(length, 10, 0.4)
        assert starts[0] == 0
        assert starts[-1] == length - 10
        assert all(0 < b - a <= 6 for a, b in itertools.pairwise(starts))


def pixelwise(batch: Batch) -> dict[str, torch.Tensor]:
    """A network that sees one pixel at a time: windows do not change what it says."""
    return {"logits": torch.cat([batch.images[:, 0, 0], -batch.images[:, 0, 0, :1]], 1)}


def placed(batch: Batch) -> dict[str, torch.Tensor]:
    """Logits at a quarter of the size that depend on where a pixel lies in the window."""
    images = F.avg_pool2d(batch.images[:, 0, 0], 4)
    return {"logits": images * torch.arange(1, images.shape[-1] + 1)}


def test_windows_are_averaged() -> None:
    batch = Batch.of_images(torch.randn(2, 3, 20, 28), ["a", "b"])
    torch.testing.assert_close(windowed(pixelwise, (8, 12), 0.4, False, batch)["logits"], pixelwise(batch)["logits"])
    for is_aligned in (False, True):
        total, count = torch.zeros(2, 3, 20, 28), torch.zeros(20, 28)
        for top in (0, 6, 12):
            for left in (0, 9, 16):
                part = replace(batch, images=batch.images[..., top : top + 8, left : left + 12])
                found = F.interpolate(placed(part)["logits"], (8, 12), mode="bilinear", align_corners=is_aligned)
                total[:, :, top : top + 8, left : left + 12] += found
                count[top : top + 8, left : left + 12] += 1
        torch.testing.assert_close(windowed(placed, (8, 12), 0.25, is_aligned, batch)["logits"], total / count)
    with pytest.raises(ShapeError, match="an image of 20 x 28 pixels does not hold a window of 8 x 32"):
        windowed(placed, (8, 32), 0.25, False, batch)
    with pytest.raises(ShapeError, match=r"need a network whose output `logits` is \(B, K, h, w\)\. Set data\.evaluation=whole"):
        windowed(lambda part: {"map": part.images}, (8, 12), 0.25, False, batch)


def test_the_mirror_image_is_averaged() -> None:
    batch = Batch.of_images(torch.randn(2, 3, 8, 12), ["a", "b"])
    turned = replace(batch, images=batch.images.flip(-1))
    both = mirrored(placed, False, batch)["logits"]
    torch.testing.assert_close(both, mirrored(placed, False, turned)["logits"].flip(-1))
    straight, other = (F.interpolate(placed(b)["logits"], (8, 12), mode="bilinear") for b in (batch, turned))
    torch.testing.assert_close(both, (straight + other.flip(-1)) / 2)


def test_the_section_says_how_to_infer(root: Path) -> None:
    batch, model = Batch.of_images(torch.randn(1, 3, 20, 28), ["a"]), ModelConfig()
    assert section(root).infer(placed, batch, model)["logits"].shape == (1, 3, 5, 7)
    data = section(root, evaluation="windows", image_size=(8, 12), overlap=0.25, mirror=True)
    expected = mirrored(lambda part: windowed(placed, (8, 12), 0.25, False, part), False, batch)["logits"]
    torch.testing.assert_close(data.infer(placed, batch, model)["logits"], expected)
