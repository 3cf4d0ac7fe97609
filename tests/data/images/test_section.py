"""Folders of images with label maps: read, augmented alike, loaded, fed; and what is said of wrong ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from frustum.data.images.section import ImageFolderData
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.data.labels.pixels import PixelLabels
from frustum.data.loader import EpochBatches, SampleDataset, build_loader
from frustum.data.source import AugmentConfig
from frustum.engine.feed import TrainingFeed, evaluation_batches
from frustum.engine.recipe import ModelConfig, Recipe, TrainConfig
from frustum.errors import ConfigError, DataError
from frustum.geometry import VoxelGrid
from frustum.types.classes import IGNORE
from frustum.types.contract import Label, Reads, Shapes
from frustum.types.predictions import PredictedSegmentation, Prediction
from tests.data.images.folder import CLASSES, COLOURS, SIZE, class_map, write_folder

LABELS = PixelLabels(CLASSES)
STRONG = AugmentConfig(resize=(-0.1, 0.3), rotate_deg=(-8, 8), crop_h=(0.0, 0.1), colour_jitter=0.05)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


class SegmentationConfig(ModelConfig):
    """Learns from label maps; without a network."""

    def learns_from(self) -> tuple[Label[Tensor], ...]:
        return (LABELS,)

    def build(self) -> nn.Module:
        return nn.Identity()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("images"), unlabelled=("val-002",))


def section(root: Path, size: tuple[int, int] = SIZE) -> ImageFolderData:
    return ImageFolderData(root=str(root), image_size=size, **PLAIN)


def recipe(root: Path, **augment: object) -> Recipe:
    train = TrainConfig(epochs=None, steps=3, batch_size=2, num_workers=0)
    return Recipe(name="pixels", model=SegmentationConfig(), data=section(root, (32, 64)), augment=AugmentConfig(**augment), train=train)


def test_images_and_label_maps_are_read(root: Path) -> None:
    source = section(root).open()
    assert source.tokens("train") == [f"train-{i:03d}" for i in range(6)]
    assert source.tokens() == source.tokens("all") == source.tokens("train") + source.tokens("val")
    assert source.class_names == CLASSES
    sample = source.sample("train-004")
    assert (sample.token, sample.scene, sample.size) == ("train-004", "", SIZE)
    assert sample.path == root / "images" / "train" / "004.jpg"
    assert source.neighbours("train-004") == ("train-004",)
    np.testing.assert_array_equal(source.labels("train-004"), class_map(64))
    assert source.labels("val-002") is None
    ((name, image),) = section(root).show(source, "train-001")
    assert name == "image"
    np.testing.assert_array_equal(image, COLOURS[class_map(61)])


def test_without_augmentation_nothing_changes(root: Path) -> None:
    source = section(root).open()
    pipeline = section(root).pipeline(Reads(), (LABELS,), STRONG.model_copy(update={"crop_h": (0.0, 0.0)}), training=False)
    batch = pipeline.collate([pipeline(source, token) for token in ("train-000", "val-001")])
    assert batch.images.shape == (2, 1, 1, 3, *SIZE)
    assert batch.need(PixelLabels).dtype == torch.uint8
    for i, number in enumerate((60, 31)):
        np.testing.assert_array_equal(batch.images[i, 0, 0].permute(1, 2, 0).numpy(), COLOURS[class_map(number)])
        np.testing.assert_array_equal(batch.need(PixelLabels)[i].numpy(), class_map(number))
    assert (batch.tokens, batch.calibration, batch.has_poses, batch.scenes) == (["train-000", "val-001"], None, False, [])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(32, 64), (60, 80), (96, 144)])
def test_images_and_label_maps_move_alike(root: Path, seed: int, size: tuple[int, int]) -> None:
    """The colour of each pixel that is not at an edge between classes is that of its class; what is black is ignored."""
    source, data = section(root).open(), section(root, size)
    pipeline = data.pipeline(Reads(), (LABELS,), STRONG, training=True)
    item = pipeline(source, "train-002", np.random.default_rng(seed))
    image, ids = item["image"].permute(1, 2, 0).numpy(), item["labels"][0]
    assert (image.shape, ids.shape) == ((*size, 3), size)
    around = np.stack([np.roll(ids, (dy, dx), (0, 1)) for dy in (-2, -1, 0, 1, 2) for dx in (-2, -1, 0, 1, 2)])
    clear = (around == ids).all(0)
    clear[[0, 1, -2, -1]] = clear[:, [0, 1, -2, -1]] = False
    shown = clear & (ids != IGNORE)
    assert shown.sum() > 100
    nearest = np.abs(image[shown][:, None].astype(float) - COLOURS.astype(float)).sum(-1).argmin(-1)
    np.testing.assert_array_equal(nearest, ids[shown])
    assert image[clear & (ids == IGNORE)].max(initial=0) < 20
    again = pipeline(source, "train-002", np.random.default_rng(seed))
    assert torch.equal(again["image"], item["image"])
    np.testing.assert_array_equal(again["labels"][0], ids)


def test_a_mirrored_image_has_mirrored_labels(root: Path) -> None:
    source = section(root).open()
    flipping = AugmentConfig(resize=(0.0, 0.0), rotate_deg=(0.0, 0.0), flip=True)
    pipeline = section(root).pipeline(Reads(), (LABELS,), flipping, training=True)
    flips = 0
    for seed in range(8):
        item = pipeline(source, "train-003", np.random.default_rng(seed))
        ids = class_map(63)
        if item["labels"][0][0, 0] != ids[0, 0] or not np.array_equal(item["labels"][0], ids):
            flips, ids = flips + 1, ids[:, ::-1]
        np.testing.assert_array_equal(item["labels"][0], ids)
        np.testing.assert_array_equal(item["image"].permute(1, 2, 0).numpy(), COLOURS[ids])
    assert 0 < flips < 8


def test_grid_mask_hides_pixels_and_leaves_labels(root: Path) -> None:
    source, still = section(root).open(), {"resize": (0.0, 0.0), "rotate_deg": (0.0, 0.0), "flip": False}
    masked, plain = (
        section(root).pipeline(Reads(), (LABELS,), AugmentConfig(grid_mask=share, **still), training=True)(
            source, "train-003", np.random.default_rng(1)
        )
        for share in (1.0, 0.0)
    )
    hidden = (masked["image"] == 0).all(0)
    assert 0.1 < hidden.float().mean() < 0.6
    assert torch.equal(masked["image"], plain["image"] * ~hidden)
    np.testing.assert_array_equal(masked["labels"][0], class_map(63))


def test_an_enlarged_prediction_comes_back_to_its_place(root: Path) -> None:
    """Of an image that evaluation enlarges, the sides and the top are not seen: those are scored as misses."""
    data, augment = section(root), AugmentConfig(eval_resize=0.5)
    source = data.open()
    item = data.pipeline(Reads(), (LABELS,), augment, training=False)(source, "train-002")
    part = PredictedSegmentation(torch.from_numpy(item["labels"][0]), CLASSES)
    labels = data.back_to_source(source, Prediction("train-002", segmentation=part), augment).segmentation.labels.numpy()
    seen = labels != IGNORE
    assert 0.4 < seen.mean() < 0.5  # (2 / 3) ** 2
    assert seen[-1, SIZE[1] // 2]
    assert not seen[0].any()
    assert not seen[:, [0, -1]].any()
    assert (labels == class_map(62))[seen].mean() > 0.97


def test_images_without_a_label_map_are_ignored_or_unlabelled(root: Path) -> None:
    source = section(root).open()
    pipeline = section(root).pipeline(Reads(), (LABELS,), AugmentConfig(), training=False)
    items = [pipeline(source, token) for token in ("val-001", "val-002")]
    labels = pipeline.collate(items).need(PixelLabels)
    np.testing.assert_array_equal(labels[0].numpy(), class_map(31))
    assert (labels[1] == IGNORE).all()
    alone = pipeline.collate(items[1:])
    with pytest.raises(DataError, match=r"needs label maps in the batch, but there are none\. Use a data set that has labels/SPLIT/"):
        alone.need(PixelLabels)
    training = section(root).pipeline(Reads(), (LABELS,), AugmentConfig(), training=True)
    batch = training.collate([training(source, "val-002", np.random.default_rng(seed)) for seed in range(2)])
    assert batch.need(PixelLabels).shape == (2, *section(root).image_size)
    assert (batch.need(PixelLabels) == IGNORE).all(), "a batch of unlabelled images does not stop a training"


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_the_loader_takes_images_like_keyframes(root: Path, cache: str) -> None:
    source = section(root).open()
    pipeline = section(root, (32, 64)).pipeline(Reads(), (LABELS,), STRONG, training=True)
    dataset = SampleDataset(source, source.tokens("train"), pipeline, cache=cache)  # type: ignore[arg-type]
    loaders = [build_loader(dataset, 2, shuffle=True, num_workers=workers) for workers in (0, 0 if cache == "memory" else 1)]
    for epoch in (0, 1):
        batches = []
        for loader in loaders:
            assert isinstance(loader.batch_sampler, EpochBatches)
            loader.batch_sampler.go_to(epoch)
            batches.append(list(loader))
        assert sorted(token for batch in batches[0] for token in batch.tokens) == dataset.tokens
        for a, b in zip(*batches, strict=True):
            assert a.tokens == b.tokens
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.need(PixelLabels), b.need(PixelLabels))
    loaded = pipeline.load(source, "train-000")
    assert loaded.num_bytes == SIZE[0] * SIZE[1] * 4
    assert set(loaded.images) == {root / "images" / "train" / "000.png"}


def test_the_engine_feeds_images(root: Path) -> None:
    asked = recipe(root)
    source = asked.data.open()
    feed = TrainingFeed(asked, source)
    assert feed.steps_per_epoch == 3
    (batch,) = feed.next_batches()
    assert batch.images.shape == (2, 1, 1, 3, 32, 64)
    assert batch.need(PixelLabels).shape == (2, 32, 64)
    batches = list(evaluation_batches(asked, source, source.tokens("val")))
    assert [token for batch in batches for token in batch.tokens] == source.tokens("val")
    assert all(batch.labels == {} for batch in batches)
    with pytest.raises(DataError, match="needs calibrated cameras, but the data set holds single images"):
        batch.rig  # noqa: B018


# ---- what does not fit ------------------------------------------------------------------------------------------------------


def test_bare_photographs_can_be_predicted_and_no_more(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.png"):
        Image.new("RGB", (6, 4), (90, 90, 90)).save(tmp_path / name)
    source = section(tmp_path).open()
    assert (source.class_names, source.splits(), source.tokens()) == ((), ["all"], ["a", "b"])
    assert source.sample("b").size == (4, 6)
    assert source.labels("b") is None
    with pytest.raises(DataError, match="has no split 'train'"):
        TrainingFeed(recipe(tmp_path), source)
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="two images have the token 'a'"):
        section(tmp_path).open()


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_of_a_turned_camera_are_upright(tmp_path: Path, orientation: int, name: str) -> None:
    """Written as a camera does: pixels as they came, and a note how to turn them."""
    upright = Image.fromarray(np.kron(COLOURS[[[0, 1, 2], [3, 3, 0]]], np.ones((16, 16, 1), np.uint8)))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's transposes
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / name, exif=exif, quality=95)
    sample = section(tmp_path).open().sample("a")
    assert sample.size == (32, 48)
    assert np.abs(np.asarray(sample.open()).astype(int) - np.asarray(upright))[8::16, 8::16].max() < 20


def test_photographs_that_cannot_be_read_as_they_are_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 48), 4095, np.uint16)).save(tmp_path / "deep.png")  # as 8 bits all of it was white
    with pytest.raises(DataError, match="has more than 8 bits per colour"):
        section(tmp_path).open().sample("deep").open()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (48, 32)).save(tmp_path / "late.png", exif=exif)
    content = (tmp_path / "late.png").read_bytes()
    start = content.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(content[start : start + 4], "big")
    end = content.index(b"IEND") - 4
    (tmp_path / "late.png").write_bytes(content[:start] + content[stop:end] + content[start:stop] + content[end:])
    with pytest.raises(DataError, match="note behind its pixels to turn it"):
        section(tmp_path).open().sample("late").open()


def test_wrong_folders_are_explained(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not a data set of images: .* needs images/SPLIT/NAME\.png or \.jpg"):
        section(tmp_path / "nowhere").open()
    bare = tmp_path / "bare"
    (bare / "images" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match=r'list of class names, such as \["road", "sky"\], .*classes\.json does not exist'):
        section(bare).open()
    for wrong in ({"road": 0}, [], ["a", "a"], [1, 2], [str(i) for i in range(256)]):
        (bare / "classes.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=r"classes\.json must be a list of 1 to 255 different names"):
            section(bare).open()
    (bare / "classes.json").write_text(json.dumps(CLASSES))
    with pytest.raises(DataError, match="there is no image in"):
        section(bare).open()
    (bare / "images" / "val").mkdir()
    shutil.copy(next((root / "images" / "val").iterdir()), bare / "images" / "val")
    with pytest.raises(DataError, match="there are no samples to load"):
        TrainingFeed(recipe(bare), section(bare).open())
    source = section(root).open()
    with pytest.raises(DataError, match=r"has no split 'vall'; did you mean 'val'"):
        source.tokens("vall")
    for token in ("train-099", "../secret", "train/000"):
        with pytest.raises(DataError, match=r"has no image .*\. Tokens are SPLIT-NAME"):
            source.sample(token)
    Image.new("RGB", (4, 4)).save(bare / "images" / "train" / "x.png")
    Image.new("RGB", (4, 4)).save(bare / "images" / "train" / "x.jpg")
    with pytest.raises(DataError, match=r"two images have the token 'train-x': .*x\.jpg and .*x\.png\. Rename one"):
        section(bare).open()


def test_wrong_files_are_explained(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data")
    source = section(folder).open()
    label, image = (folder / kind / "train" / "000.png" for kind in ("labels", "images"))

    def refused(ids: np.ndarray, text: str) -> None:
        Image.fromarray(ids).save(label)
        with pytest.raises(DataError, match=text):
            source.labels("train-000")

    refused(class_map(0, (40, 80)), r"000\.png has 40 x 80 pixels, but its image 48 x 80\. Make them alike")
    refused(np.full(SIZE, 4, np.uint8), r"holds 4, but .*classes\.json lists the classes 0 to 3\. Add the class, or write 255")
    refused(COLOURS[class_map(0)], "has pixels of the kind RGB, but class ids need one channel of 8 bits")
    refused(class_map(0).astype(np.uint16), "but class ids need one channel of 8 bits")
    label.write_bytes(label.read_bytes()[:60])
    with pytest.raises(DataError, match=r"cannot read the image .*labels/train/000\.png: .* Restore the file"):
        source.labels("train-000")
    image.write_bytes(b"not an image")
    pipeline = section(folder).pipeline(Reads(), (), AugmentConfig(), training=False)
    with pytest.raises(DataError, match=r"cannot read the image .*images/train/000\.png: .* Restore the file"):
        pipeline(source, "train-000")
    palette = Image.fromarray(class_map(61))
    palette.putpalette(COLOURS.ravel().tolist())
    palette.save(folder / "labels" / "train" / "001.png")
    np.testing.assert_array_equal(source.labels("train-001"), class_map(61))  # colours for people to look at do not matter
    ignored = np.where(class_map(61) == 2, IGNORE, class_map(61)).astype(np.uint8)
    Image.fromarray(ignored).save(folder / "labels" / "train" / "001.png")
    np.testing.assert_array_equal(source.labels("train-001"), ignored)


def test_other_classes_and_missing_labels_stop_before_training(root: Path, tmp_path: Path) -> None:
    source = section(root).open()
    tokens = source.tokens("train")
    LABELS.require(source, tokens)
    with pytest.raises(
        DataError,
        match=r"the network learns the classes road, sky, but the labels in .* have road, sky, car, tree\. Set model.class_names='",
    ):
        PixelLabels(("road", "sky")).require(source, tokens)
    bare = section(write_folder(tmp_path / "bare", unlabelled=tuple(tokens))).open()
    with pytest.raises(DataError, match=r"none of the 6 training images in .* has a label map\. Add some"):
        LABELS.require(bare, tokens)


def test_labels_of_rigs_and_pasts_are_refused(root: Path, toy_root: Path) -> None:
    source, data = section(root).open(), section(root)
    occupancy = data.pipeline(Reads(), (OccupancyLabels(VoxelGrid.occ3d()),), AugmentConfig(), training=False)
    with pytest.raises(DataError, match=r"occupancy labels need keyframes of a camera rig, but .* Choose other data"):
        occupancy(source, "train-000")
    with pytest.raises(ConfigError, match=r"reads 2 past frames, but single images have no past\. Choose another data set"):
        data.pipeline(Reads(past=2), (), AugmentConfig(), training=False)
    from frustum.data.nuscenes.reader import NuScenes

    rigs = NuScenes(toy_root, "v1.0-toy")
    with pytest.raises(DataError, match=r"label maps are read from sets of images, but .* is a NuScenes"):
        LABELS.read(rigs, rigs.tokens()[0])


def test_the_example_is_as_declared() -> None:
    example = LABELS.example(np.random.default_rng(0), Shapes(2, 1, (32, 64)))
    assert (example.shape, example.dtype) == ((2, 32, 64), torch.uint8)
    assert set(example.unique().tolist()) == {*range(len(CLASSES)), IGNORE}


def test_choosing_the_section_needs_no_torch() -> None:
    code = "import sys; import frustum.data.images.section; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_learned_from_is_said():
    assert LABELS.described(None, [], {}) == f"class of each pixel, one of {len(CLASSES)}"
