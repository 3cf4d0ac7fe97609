"""Occupancy label files: exact round trips, equal bytes, and every way in which one can be broken."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from frustum.data.occ3d.label_files import labels_path, read_labels, write_both_labels, write_labels
from frustum.data.sample import Occupancy
from frustum.errors import DataError
from tests.data.toy import random_labels

SMALL = (20, 10, 4)


def test_round_trip_with_and_without_instances(tmp_path: Path) -> None:
    for labels in (random_labels(0, SMALL), replace(random_labels(1, SMALL), instances=None)):
        write_labels(tmp_path / "labels.npz", labels)
        back = read_labels(tmp_path / "labels.npz")
        for name in ("semantics", "mask_lidar", "mask_camera", "instances"):
            np.testing.assert_array_equal(getattr(back, name), getattr(labels, name))
        assert back.semantics.dtype == back.mask_camera.dtype == np.uint8


def test_equal_labels_are_equal_files_and_compressed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_labels(tmp_path / name, random_labels(3))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").stat().st_size < random_labels(3).semantics.size


def test_both_files_of_a_keyframe_are_those_of_two_calls(tmp_path: Path) -> None:
    labels = random_labels(2, SMALL)
    write_both_labels(tmp_path, "scene-1", "t", labels)
    for panoptic, wanted in ((True, labels), (False, replace(labels, instances=None))):
        write_labels(tmp_path / "single", wanted)
        path = labels_path(tmp_path, "scene-1", "t", panoptic)
        assert path.read_bytes() == (tmp_path / "single").read_bytes()
        assert (read_labels(path).instances is not None) == panoptic


def test_reads_what_numpy_wrote(tmp_path: Path) -> None:
    labels = random_labels(0, SMALL)
    masks = {"mask_lidar": labels.mask_lidar.astype(bool), "mask_camera": labels.mask_camera * 255}
    np.savez_compressed(tmp_path / "x.npz", semantics=labels.semantics.astype(np.int64), **masks)
    back = read_labels(tmp_path / "x.npz")
    np.testing.assert_array_equal(back.semantics, labels.semantics)
    np.testing.assert_array_equal(back.mask_camera, labels.mask_camera)
    np.testing.assert_array_equal(back.mask_lidar, labels.mask_lidar)
    assert back.instances is None


@pytest.mark.parametrize("dtype", [np.uint16, np.int64])
@pytest.mark.parametrize(("numbers", "kept"), [([1, 256, 257], np.uint8), ([0, 5, 255], np.uint8), (range(1, 800, 2), np.int32)])
def test_instances_above_255_stay_apart(tmp_path: Path, dtype: type, numbers: Sequence[int], kept: type) -> None:
    labels = random_labels(0, SMALL)
    given = np.resize(np.array(numbers, dtype), SMALL)
    np.savez(tmp_path / "x.npz", **{k: v for k, v in vars(labels).items() if k != "instances"}, instances=given)
    found = read_labels(tmp_path / "x.npz").instances
    assert found is not None
    assert found.dtype == kept
    assert len(np.unique(np.stack([found.ravel(), given.ravel()]), axis=1)[0]) == len(numbers)  # one to one
    assert ((found == 0) == (given == 0)).all()
    write_labels(tmp_path / "y.npz", replace(labels, instances=given))
    np.testing.assert_array_equal(read_labels(tmp_path / "y.npz").instances, found)


def test_numbers_that_the_file_cannot_hold(tmp_path: Path) -> None:
    labels = random_labels(0, SMALL)
    given = np.full(SMALL, -1, np.int16)
    np.savez(tmp_path / "x.npz", **{k: v for k, v in vars(labels).items() if k != "instances"}, instances=given)
    with pytest.raises(DataError, match=r"instances in .*x\.npz holds the number -1"):
        read_labels(tmp_path / "x.npz")
    for name, array in (
        ("instances", given),
        ("instances", given.astype(int) + 70000),
        ("semantics", given + 300),
        ("mask_lidar", given + 0.5),
    ):
        with pytest.raises(DataError, match=f"{name} of labels must be integers from 0"):
            write_labels(tmp_path / "y.npz", replace(labels, **{name: array}))


@pytest.mark.parametrize(
    ("mask", "is_read"), [([0, 1], True), ([False, True], True), ([0, 255], True), ([-1, 1], False), ([0, 2], False), ([1, 255], False)]
)
def test_masks_say_yes_or_no(tmp_path: Path, mask: Sequence[int], is_read: bool) -> None:
    """-1 for unknown would count as observed."""
    path, semantics = tmp_path / "labels.npz", np.full((1, 1, 2), 17, np.uint8)
    np.savez(path, semantics=semantics, mask_lidar=semantics > 0, mask_camera=np.array(mask).reshape(1, 1, 2))
    if is_read:
        assert read_labels(path).mask_camera.ravel().tolist() == [int(value != 0) for value in mask]
    else:
        with pytest.raises(DataError, match="a mask is 1 where something was observed, else 0"):
            read_labels(path)


def test_where_labels_lie() -> None:
    assert labels_path("r", "scene-1", "t") == Path("r/gts/scene-1/t/labels.npz")
    assert labels_path(Path("r"), "scene-1", "t", panoptic=True) == Path("r/occ3d_panoptic/scene-1/t/labels.npz")


@pytest.mark.parametrize("keep", [0, 10, 100, 0.5, 0.99])
def test_truncated_files_are_explained(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "labels.npz"
    write_labels(path, random_labels(0, SMALL))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep >= 1 or keep == 0 else keep * len(content))])
    with pytest.raises(DataError, match="damaged") as caught:
        read_labels(path)
    assert str(path) in str(caught.value)


def test_flipped_bits_are_found(tmp_path: Path) -> None:
    path = tmp_path / "labels.npz"
    write_labels(path, random_labels(0, SMALL))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="damaged"):
        read_labels(path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", semantics=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="damaged"):
        read_labels(tmp_path / "x.npz")


def _saved(path: Path, **changes: np.ndarray | None) -> Path:
    labels = random_labels(0, SMALL)
    arrays = {"semantics": labels.semantics, "mask_lidar": labels.mask_lidar, "mask_camera": labels.mask_camera} | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})  # type: ignore[arg-type]
    return path


def test_wrong_content_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(DataError, match="does not exist"):
        read_labels(path)
    with pytest.raises(DataError, match="lacks mask_camera"):
        read_labels(_saved(path, mask_camera=None))
    with pytest.raises(DataError, match=r"mask_lidar .* shape \(3, 3, 3\)"):
        read_labels(_saved(path, mask_lidar=np.zeros((3, 3, 3), np.uint8)))
    with pytest.raises(DataError, match="float64"):
        read_labels(_saved(path, semantics=np.zeros(SMALL)))
    for value in (18, 254):
        with pytest.raises(DataError, match=f"label {value}"):
            read_labels(_saved(path, semantics=np.full(SMALL, value, np.uint8)))
    with pytest.raises(DataError, match="label -1"):
        read_labels(_saved(path, semantics=np.full(SMALL, -1)))
    assert (read_labels(_saved(path, semantics=np.full(SMALL, 255, np.uint8))).semantics == 255).all()


def test_write_refuses_nonsense_and_full_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = random_labels(0, SMALL)
    with pytest.raises(DataError, match="one shape"):
        write_labels(tmp_path / "x.npz", replace(labels, mask_lidar=labels.mask_lidar[:-1]))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match="disk is full"):
        write_labels(tmp_path / "x.npz", labels)
    assert not list(tmp_path.iterdir())


@pytest.mark.data
def test_real_occ3d_frame(shared: Path) -> None:
    path = shared / "data" / "occ3d_frame" / "labels.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    labels: Occupancy = read_labels(path)
    assert labels.semantics.shape == (200, 200, 16)
    assert labels.semantics.max() == 17
    assert round(float((labels.semantics != 17).mean()), 3) == 0.061
    assert not (labels.mask_camera & ~labels.mask_lidar & 1).any()
