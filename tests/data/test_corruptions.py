"""Corruptions: each does what its name says, harder levels do more, and a draw depends on the image alone."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frustum.data.corruption_names import CORRUPTIONS, LEVELS, OF_RIGS, Corruption
from frustum.data.corruptions import Corrupter, corrupted, plasma, streak
from frustum.data.images.section import ImageFolderData
from frustum.data.loader import SampleDataset, build_loader
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.pipeline import RigPipeline
from frustum.data.source import AugmentConfig
from frustum.errors import ConfigError
from frustum.types.contract import Reads
from tests.data.toy import VERSION
from tools.corruptions_figure import draw

RIG = ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "BACK", "BACK_LEFT", "BACK_RIGHT")
PIXELWISE = [name for name in CORRUPTIONS if name not in OF_RIGS]
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def photograph(height: int = 90, width: int = 160) -> Image.Image:
    """Smooth colours with dark and bright blocks."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([60 + 120 * x / width, 40 + 140 * y / height, 150 - 80 * x / width], -1)
    pixels[(x // 20 + y // 20) % 3 == 0] *= 0.4
    pixels[: height // 5, : width // 4] = 235
    return Image.fromarray(pixels.round().astype(np.uint8))


def change(name: str, level: int, image: Image.Image | None = None, file: str = "a.jpg") -> np.ndarray:
    return np.asarray(Corrupter(Corruption(name, level))(image or photograph(), file, "FRONT", RIG))


def gradient(pixels: np.ndarray) -> float:
    return float(np.square(np.diff(pixels.astype(float), axis=1)).mean())


@pytest.mark.parametrize("size", [(90, 160), (37, 61), (16, 32)], ids=str)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_size_and_type_stay(name: str, size: tuple[int, int]) -> None:
    image = photograph(*size)
    before = np.asarray(image).copy()
    found = change(name, 3, image)
    assert (found.shape, found.dtype) == ((*size, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(image), before)


@pytest.mark.parametrize("name", PIXELWISE)
def test_harder_levels_change_more(name: str) -> None:
    image = photograph(180, 320)
    true = np.asarray(image, float)
    changes = [np.abs(change(name, level, image) - true).mean() for level in LEVELS]
    assert 0.5 < changes[0] < changes[1] < changes[2] * (1.02 if name == "snow" else 1)  # as published, its flakes grow, not its whiteness


@pytest.mark.parametrize("level", LEVELS)
def test_each_goes_in_its_direction(level: int) -> None:
    image = photograph(180, 320)
    true = np.asarray(image)
    assert change("brightness", level, image).mean() > true.mean() + 20
    assert change("dark", level, image).mean() < 0.4 * true.mean()
    assert change("fog", level, image).std() < 0.7 * true.std()
    assert gradient(change("motion_blur", level, image)) < 0.8 * gradient(true)
    assert (change("snow", level, image) >= 250).all(-1).mean() > (true >= 250).all(-1).mean() + 0.002
    assert change("snow", level, image).mean() > true.mean()
    values = np.unique(change("colour_quant", level, image))
    assert len(values) <= 2 ** (6 - level)
    assert (values % (1 << (2 + level)) == 0).all()


def test_brightness_is_that_of_hsv() -> None:
    """Against Pillow's conversion, which rounds to whole numbers."""
    image = photograph()
    hsv = np.asarray(image.convert("HSV")).copy()
    hsv[..., 2] = np.minimum(hsv[..., 2] + 0.4 * 255, 255)
    expected = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"), float)
    assert np.abs(change("brightness", 2) - expected).max() <= 6
    assert (change("brightness", 2, Image.new("RGB", (4, 4))) == 102).all(), "black becomes grey"


def test_fog_is_the_formula_on_its_fractal() -> None:
    flat = Image.new("RGB", (64, 64), (100, 100, 100))
    found = change("fog", 1, flat).astype(float)[..., 0] / 255
    value = 100 / 255  # also the brightest: (v + 2 f) v / (v + 2), f in 0..1
    assert found.min() == pytest.approx(value * value / (value + 2), abs=1 / 255)
    assert found.max() == pytest.approx(value, abs=1 / 255)


def test_a_fractal_fades_with_the_size_of_its_structures() -> None:
    smooth, rough = (plasma(128, decay, np.random.default_rng(0)) for decay in (3.0, 1.2))
    for field in (smooth, rough):
        assert (field.min(), field.max()) == (0.0, pytest.approx(1.0))
        assert np.abs(field[:, 0] - field[:, -1]).mean() < 0.5, "edges fit together"
    assert np.abs(np.diff(smooth, axis=0)).mean() < 0.3 * np.abs(np.diff(rough, axis=0)).mean()


def test_a_streak_is_a_weighted_mean_along_a_line() -> None:
    point = np.zeros((9, 9, 1), np.float32)
    point[4, 6] = 1
    found = streak(point, 2, 1.5, 0)[..., 0]
    weights = np.exp(-0.5 * (np.arange(5) / 1.5) ** 2)
    np.testing.assert_allclose(found[4, 6:1:-1], weights / weights.sum(), rtol=1e-5)
    assert found.sum() == pytest.approx(1)
    assert streak(point, 2, 1.5, -90)[4:9, 6, 0] == pytest.approx(found[4, 6:1:-1])
    flat = np.full((5, 6, 3), 0.3, np.float32)
    np.testing.assert_allclose(streak(flat, 4, 3, 33), flat, rtol=1e-5)


def test_lengths_go_with_the_size_of_the_image() -> None:
    """An image of half the size, blurred, is the blurred image in half the size, nearly."""
    large = photograph(360, 640)
    small = large.resize((320, 180), Image.Resampling.BOX)
    one = np.asarray(Image.fromarray(change("motion_blur", 3, large)).resize((320, 180), Image.Resampling.BOX), float)
    two = change("motion_blur", 3, small).astype(float)
    sharp = np.asarray(small, float)
    assert np.abs(one - two).mean() < 0.3 * np.abs(one - sharp).mean()


def test_a_draw_depends_on_image_camera_and_seed() -> None:
    image, corruption = photograph(), Corruption("snow", 2)
    once = np.asarray(Corrupter(corruption)(image, "a.jpg", "FRONT"))
    np.testing.assert_array_equal(once, np.asarray(Corrupter(corruption)(image, "a.jpg", "FRONT")))
    for other in (
        Corrupter(corruption)(image, "b.jpg", "FRONT"),
        Corrupter(corruption)(image, "a.jpg", "BACK"),
        Corrupter(corruption, seed=1)(image, "a.jpg", "FRONT"),
    ):
        assert (np.asarray(other) != once).any()


@pytest.mark.parametrize(("cameras", "counts"), [(6, (2, 4, 5)), (4, (1, 3, 3)), (5, (2, 3, 4)), (2, (1, 1, 1)), (8, (3, 5, 7))])
def test_crashed_cameras_stay_black(cameras: int, counts: tuple[int, ...]) -> None:
    rig = [f"CAM_{i}" for i in range(cameras)]
    crashed = [Corrupter(Corruption("camera_crash", level)).crashed(rig) for level in LEVELS]
    assert tuple(map(len, crashed)) == counts
    assert crashed[0] <= crashed[1] <= crashed[2] < set(rig)
    assert crashed[0] == Corrupter(Corruption("camera_crash", 1)).crashed(rig[::-1])
    for file in ("a.jpg", "b.jpg"):
        for camera in rig:
            found = np.asarray(Corrupter(Corruption("camera_crash", 2))(photograph(), file, camera, rig))
            assert (found == 0).all() == (camera in crashed[1])
    with pytest.raises(ConfigError, match="rig of several cameras, not 1"):
        Corrupter(Corruption("camera_crash", 1)).crashed(rig[:1])


def test_frames_are_lost_by_chance() -> None:
    image, lost = photograph(8, 16), []
    for level in LEVELS:
        corrupter = Corrupter(Corruption("frame_lost", level))
        lost.append({(f, c) for f in range(100) for c in RIG if not np.asarray(corrupter(image, f"{f}.jpg", c, RIG)).any()})
    assert [len(found) / 600 for found in lost] == pytest.approx([2 / 6, 4 / 6, 5 / 6], abs=0.06)
    assert lost[0] < lost[1] < lost[2], "harder levels lose more of the same draw"
    assert {c for _, c in lost[0]} == set(RIG)


# ---- in a pipeline --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader(toy_root: Path) -> NuScenes:
    return NuScenes(toy_root, VERSION)


def pipe(past: int = 0) -> RigPipeline:
    return RigPipeline(NuScenesData(image_size=(45, 80), **PLAIN), Reads(past=past), (), AugmentConfig(), training=False)


def images(reader: NuScenes, tokens: list[str], size: int, workers: int = 0, past: int = 0, of: str = "snow:3") -> dict[str, torch.Tensor]:
    dataset = SampleDataset(reader, tokens, corrupted(pipe(past), Corruption.parse(of)))
    return {t: i for batch in build_loader(dataset, size, num_workers=workers) for t, i in zip(batch.tokens, batch.images, strict=True)}


def test_neither_order_nor_batch_nor_process_matters(reader: NuScenes) -> None:
    tokens = reader.tokens()
    one = images(reader, tokens, 1)
    for other in (images(reader, tokens[::-1], 4), images(reader, tokens, 2, workers=2)):
        assert all(torch.equal(one[token], other[token]) for token in tokens)
    clean = pipe()(reader, tokens[0])["images"]
    assert (one[tokens[0]] - clean).abs().mean() > 5


@pytest.mark.parametrize("name", ["frame_lost:2", "snow:2"])
def test_the_past_is_corrupted_as_it_was_when_it_was_the_keyframe(reader: NuScenes, name: str) -> None:
    tokens = [t for t in reader.tokens() if reader.sample(t).scene == reader.sample(reader.tokens()[0]).scene]
    found = images(reader, tokens, 1, past=1, of=name)
    for earlier, token in itertools.pairwise(tokens):
        assert torch.equal(found[token][1], found[earlier][0])
        assert not torch.equal(found[token][0], pipe()(reader, token)["images"][0])


def test_single_images_have_no_failing_cameras(tmp_path: Path) -> None:
    pipeline = ImageFolderData(root=str(tmp_path)).pipeline(Reads(), (), AugmentConfig(), training=False)
    for name in OF_RIGS:
        with pytest.raises(ConfigError, match=f"{name}:1 makes cameras of a rig fail, but these are single images"):
            corrupted(pipeline, Corruption(name, 1))
    with pytest.raises(ConfigError, match="object cannot corrupt images"):
        corrupted(object(), Corruption("fog", 1))


def test_a_sheet_shows_all_of_them(reader: NuScenes) -> None:
    sample = reader.sample(reader.tokens()[0])
    sheet = draw(sample, sample.cameras[0].channel, 3, width=320)
    assert sheet.width == 320
    assert sheet.height > 3 * 30


# ---- names ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fgo:3", "did you mean 'fog'"),
        ("fog", "level '', but the levels are 1"),
        ("fog:4", "level '4'"),
        ("fog:03", "level '03'"),
        (":1", "''"),
    ],
)
def test_wrong_names_and_levels(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Corruption.parse(text)


def test_names_are_read_back() -> None:
    assert [str(Corruption.parse(f"{name}:{level}")) for name in CORRUPTIONS for level in LEVELS][:2] == ["brightness:1", "brightness:2"]


def test_names_import_nothing_heavy() -> None:
    code = "import sys, frustum.data.corruption_names; print([m for m in ('torch', 'numpy', 'scipy', 'PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
