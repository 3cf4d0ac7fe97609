"""What a check finds in images with label maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.check.images import inspect_images
from frustum.data.images.opening import open_images
from frustum.data.images.status import ImageSplit, image_status
from frustum.errors import DataError
from tests.data.images.folder import CLASSES, class_map, write_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images")


def test_shares_of_a_sound_folder(root: Path) -> None:
    source = open_images(root)
    found = inspect_images(source, source.tokens("val"))
    ids = np.stack([class_map(30 + i) for i in range(3)])
    assert not found.findings
    assert found.labelled == 3
    assert list(found.shares) == list(found.images) == list(CLASSES)
    assert found.shares == pytest.approx({name: (ids == i).mean() for i, name in enumerate(CLASSES)})
    assert found.images == {name: sum((ids == i).any((1, 2))) for i, name in enumerate(CLASSES)}


def test_what_is_wrong_is_named_and_the_worst_comes_first(root: Path) -> None:
    labels = root / "labels" / "train"
    Image.fromarray(np.full((48, 80), 9, np.uint8)).save(labels / "000.png")
    Image.fromarray(np.zeros((48, 79), np.uint8)).save(labels / "001.png")
    Image.fromarray(np.zeros((48, 80), np.uint16)).save(labels / "002.png")
    Image.fromarray(np.full((48, 80), 255, np.uint8)).save(labels / "003.png")
    (root / "images" / "train" / "004.jpg").write_bytes(b"no image")
    (labels / "005.png").unlink()
    for path in (root / "labels" / "val").iterdir():
        path.unlink()
    source = open_images(root)
    found = inspect_images(source, source.tokens())
    said = [(f.severity, f.sample, f.what) for f in found.findings]
    assert [(severity, sample) for severity, sample, _ in said] == [
        *(("error", f"train-00{i}") for i in (0, 1, 2, 4)), ("warning", "train-003"), ("warning", ""), ("note", ""), ("note", "")
    ]  # fmt: skip
    words = ("holds 9", "48 x 79", "of the kind I;16", "004.jpg", "003.png counts", "1 of 6 images of the split train", "of the split val")
    for word, (*_, what) in zip(words, said, strict=False):
        assert word in what
    assert "4 of 4 classes do not occur" in said[-1][2]
    assert not any(found.shares.values())


def test_no_image_at_all(root: Path) -> None:
    (finding,) = inspect_images(open_images(root), []).findings
    assert finding.severity == "error"
    assert "no image to check" in finding.what


def test_status(root: Path) -> None:
    found = image_status(root)
    assert (found.layout, found.class_names) == ("ImageFolder", CLASSES)
    assert found.splits == [ImageSplit("train", 6, 6), ImageSplit("val", 3, 3)]
    assert found.advice == f"Ready. Look at it: frustum check {root}"
    (root / "labels" / "val" / "001.png").unlink()
    assert "Some images of a split have no label map" in image_status(root).advice
    for path in root.glob("images/*/*"):
        path.unlink()
    with pytest.raises(DataError, match="there is no image in"):
        image_status(root)
