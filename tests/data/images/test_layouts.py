"""The layouts of public sets: read as published, and what is said of wrong files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.images.opening import holds_images, open_images
from frustum.data.images.section import ImageFolderData
from frustum.data.labels.pixels import PixelLabels
from frustum.data.opening import open_root
from frustum.engine.overrides import apply
from frustum.engine.recipe import Recipe
from frustum.errors import DataError, FrustumWarning
from frustum.types.pixel_classes import ADE20K, CAMVID, CITYSCAPES, VOC
from tests.data.images.test_section import SegmentationConfig

SIZE = (4, 6)


def write(path: Path, ids: list[int] | np.ndarray | None = None, palette: bool = False) -> Path:
    """A grey photograph, or a label map whose rows hold these ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if ids is None:
        Image.new("RGB", SIZE[::-1], (90, 90, 90)).save(path)
        return path
    pixels = np.asarray(ids)
    image = Image.fromarray(np.resize(pixels, SIZE).astype(np.uint8) if pixels.ndim == 1 else pixels)
    if palette:
        image.putpalette([5, 6, 7] * 256)
    image.save(path)
    return path


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    for split in ("train", "val", "test"):
        write(tmp_path / split / f"{split}_0.png")
        write(tmp_path / f"{split}annot" / f"{split}_0.png", [0, 10, 11])
        (tmp_path / f"{split}.txt").write_text(f"/SegNet/CamVid/{split}/{split}_0.png /SegNet/CamVid/{split}annot/{split}_0.png\n\n")
    return tmp_path


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, names in (("train", "a"), ("val", "b"), ("trainaug", "ac"), ("trainval", "ab")):
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
    for name, folder in (("a", "SegmentationClass"), ("b", "SegmentationClass"), ("c", "SegmentationClassAug")):
        write(tmp_path / "JPEGImages" / f"{name}.jpg")
        write(tmp_path / folder / f"{name}.png", [0, 20, 255], palette=True)
    return tmp_path


def test_camvid(camvid: Path) -> None:
    source = open_root(camvid)
    assert source.class_names == CAMVID.names
    assert source.splits() == ["train", "val", "test"]
    assert source.tokens("val") == ["val_0"]
    assert source.sample("val_0").size == SIZE
    assert source.labels("val_0")[0].tolist() == [0, 10, 255, 0, 10, 255]
    write(camvid / "valannot" / "val_0.png", [12])
    with pytest.raises(DataError, match=r"val_0\.png holds 12, but CamVid has the ids 0 to 11, the last .* Choose the release with 11"):
        source.labels("val_0")
    (camvid / "val.txt").write_text("val/val_0.png\n")
    with pytest.raises(DataError, match=r"val\.txt has the line 'val/val_0\.png'\. It needs one image and its label map"):
        open_images(camvid)
    (camvid / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"the list of a split .*val\.txt is empty"):
        open_images(camvid)
    (camvid / "val.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read the list of a split .*val\.txt: .* It needs one image and its label map"):
        open_images(camvid)


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes(tmp_path: Path, kind: str) -> None:
    for split, city in (("train", "aachen"), ("val", "ulm"), ("test", "bonn")):
        write(tmp_path / "leftImg8bit" / split / city / f"{city}_0_1_leftImg8bit.png")
        if split != "test":
            write(tmp_path / "gtFine" / split / city / f"{city}_0_1_gtFine_{kind}.png", [7, 33, 0] if kind == "labelIds" else [0, 18, 255])
    source = open_root(tmp_path)
    assert source.class_names == CITYSCAPES.names
    assert source.tokens() == ["bonn_0_1", "aachen_0_1", "ulm_0_1"]
    assert source.labels("ulm_0_1")[0].tolist() == [0, 18, 255, 0, 18, 255]
    assert source.labels("bonn_0_1") is None
    write(tmp_path / "gtFine" / "val" / "ulm" / f"ulm_0_1_gtFine_{kind}.png", [40])
    with pytest.raises(DataError, match=f"holds 40, but {kind} of Cityscapes are 0 to {33 if kind == 'labelIds' else 18}, and 255"):
        source.labels("ulm_0_1")


def test_voc(voc: Path) -> None:
    source = open_root(voc)
    assert source.class_names == VOC.names
    assert source.splits() == ["train", "trainaug", "trainval", "val"]
    assert (source.tokens("trainaug"), source.tokens("trainval"), sorted(source.tokens())) == (["a", "c"], ["a", "b"], ["a", "b", "c"])
    for token in "ac":
        assert source.labels(token)[0].tolist() == [0, 20, 255, 0, 20, 255], "ids of a palette image, not its colours"
    with pytest.raises(DataError, match=r"has no split 'tran'; did you mean 'train'"):
        source.tokens("tran")
    for path in (voc / "ImageSets" / "Segmentation").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"Segmentation has no lists of splits, such as train\.txt and val\.txt\. Restore them"):
        open_images(voc)


def test_ade20k(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        write(tmp_path / "images" / split / f"ADE_{split}_1.jpg")
        write(tmp_path / "annotations" / split / f"ADE_{split}_1.png", [0, 1, 150])
    source = open_root(tmp_path)
    assert source.class_names == ADE20K.names
    assert (source.tokens("train"), source.tokens("val")) == (["ADE_training_1"], ["ADE_validation_1"])
    assert source.labels("ADE_validation_1")[0].tolist() == [255, 0, 149, 255, 0, 149]
    write(tmp_path / "annotations" / "training" / "ADE_training_1.png", [151])
    with pytest.raises(DataError, match="holds 151, but the 150 classes of ADE20K have the ids 1 to 150"):
        source.labels("ADE_training_1")


def test_label_maps_that_are_none(camvid: Path) -> None:
    source, path = open_images(camvid), camvid / "trainannot" / "train_0.png"
    write(path, np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(DataError, match=r"of the kind RGB, but class ids need one channel of 8 bits\. Replace its colours by class ids"):
        source.labels("train_0")
    write(path, np.zeros(SIZE, np.uint16))
    with pytest.raises(DataError, match=r"of the kind I;16, .* Replace its numbers by class ids, and write them with .*astype\('uint8'\)"):
        source.labels("train_0")
    write(path, np.zeros((5, 6), np.uint8))
    with pytest.raises(DataError, match=r"has 5 x 6 pixels, but its image 4 x 6\. Make them alike"):
        source.labels("train_0")


def test_images_without_label_maps_are_named(voc: Path) -> None:
    source, labels = open_images(voc), PixelLabels(VOC.names)
    labels.require(source, source.tokens())
    (voc / "SegmentationClass" / "b.png").unlink()
    with pytest.warns(FrustumWarning, match=r"1 of the 3 training images in .* have no label map, b first: nothing is learned from them"):
        labels.require(source, source.tokens())
    with pytest.raises(DataError, match="none of the 1 training images"):
        labels.require(source, ["b"])


def test_a_pair_of_folders_without_splits(tmp_path: Path) -> None:
    """All images are to be trained with; what would be passed over is refused."""
    (tmp_path / "images").mkdir()
    (tmp_path / "classes.json").write_text('["road", "sky"]')
    with pytest.raises(DataError, match="there is no image in"):
        open_root(tmp_path)
    write(tmp_path / "images/a.png")
    write(tmp_path / "images/b.JPG")
    write(tmp_path / "labels/a.PNG", [0, 1])
    source = open_root(tmp_path)
    assert (source.splits(), source.tokens("train")) == (["train"], ["train-a", "train-b"])
    assert source.label_file("train-a") == tmp_path / "labels/a.PNG"
    assert source.label_file("train-b") is None
    (tmp_path / "images/val").mkdir()
    with pytest.raises(DataError, match="and in its folder val, too"):
        open_root(tmp_path)
    (tmp_path / "images/val").rmdir()
    write(tmp_path / "images/c.webp")
    with pytest.raises(DataError, match=r"c\.webp would be passed over.*Write it as one of these"):
        open_root(tmp_path)
    for name in ("a.png", "b.JPG", "c.webp"):
        (tmp_path / "images" / name).unlink()
    write(tmp_path / "images/train/city/a.png")
    with pytest.raises(DataError, match="city would be passed over"):
        open_root(tmp_path)
    write(tmp_path / "images/train/b.png")
    (tmp_path / "images/train/city/a.png").unlink()
    write(tmp_path / "labels/train/z.png", [0])
    with pytest.warns(FrustumWarning, match=r"1 label maps in .* belong to no image"):
        open_root(tmp_path)
    write(tmp_path / "labels/train/b.jpg", [0])
    with pytest.raises(DataError, match=r"label maps are \.png"):
        open_root(tmp_path)
    (tmp_path / "classes.json").unlink()
    with pytest.raises(DataError, match=r"list of class names.*classes\.json does not exist"):
        open_root(tmp_path)


def test_a_set_is_chosen_by_its_name(tmp_path: Path) -> None:
    recipe = Recipe(name="pixels", model=SegmentationConfig(), data=ImageFolderData())
    assert apply(recipe, ["data=camvid"]).data.root == "data/camvid"
    assert apply(recipe, ["data=voc", "data.train_split=trainaug"]).data.train_split == "trainaug"
    assert not holds_images(tmp_path)


@pytest.mark.data
def test_real_camvid(shared: Path) -> None:
    source = open_images(shared / "data" / "camvid")
    assert [len(source.tokens(split)) for split in source.splits()] == [367, 101, 233]
    token = source.tokens("test")[0]
    labels = source.labels(token)
    assert labels.shape == source.sample(token).size == (360, 480)
    assert set(np.unique(labels)) <= {*range(11), 255}
