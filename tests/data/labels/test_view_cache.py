"""2D labels in a folder: those of another world are refused, though its keyframes have the same tokens; damaged ones are made again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from frustum.data.labels.view_cache import check_cache, origins, read_cache, write_views
from frustum.data.labels.view_points import Views, truth_images, view_points
from frustum.data.labels.views import ViewLabels
from frustum.data.nuscenes.reader import NuScenes
from frustum.errors import DataError

LIDARSEG, DENSE = Views(), Views(source="dense")


@pytest.fixture
def other(other_root: Path, tmp_path: Path) -> NuScenes:
    """A copy that may be changed."""
    return NuScenes(shutil.copytree(other_root, tmp_path / "other"))


def read(world: NuScenes, token: str, folder: Path, views: Views = LIDARSEG):
    return read_cache(folder, world, world.sample(token, with_boxes=False, occupancy=False), views)


def test_labels_of_another_world_are_refused(street_root: Path, other: NuScenes, tmp_path: Path) -> None:
    """By who reads, who begins to train, and who would write into that folder."""
    world, folder = NuScenes(street_root), tmp_path / "labels"
    token = other.scenes[0].tokens[0]
    assert world.scenes[0].tokens[0] == token, "worlds share their tokens"
    assert write_views(world, [token], folder, Views()) == 1
    before = (folder / f"{token}.npz").read_bytes()
    refused = (
        r"other data set: CAM_\w+ had images of 96x256 pixels where this data set has 64x176, other intrinsics, .*"
        r"labels-2d ROOT --out OTHER, model\.views\.cache=OTHER"
    )
    with pytest.raises(DataError, match=refused):
        read(other, token, folder)
    with pytest.raises(DataError, match=refused):
        ViewLabels(Views(cache=str(folder))).require(other, [token])
    with pytest.raises(DataError, match=refused):
        write_views(other, [token], folder, Views())
    assert (folder / f"{token}.npz").read_bytes() == before
    assert write_views(world, [token], folder, Views()) == 0


def test_labels_are_written_into_a_folder_of_their_own(street_root: Path, tmp_path: Path) -> None:
    """Not into a data set, and not beside labels that do not say how they were made."""
    world = NuScenes(street_root)
    token, before = world.tokens("val")[0], sorted(street_root.iterdir())
    with pytest.raises(
        DataError, match=r"no folder of 2D labels: it holds complete, gts, lidarseg and more, but no views\.json.*new folder with --out"
    ):
        write_views(world, [token], street_root, Views())
    assert sorted(street_root.iterdir()) == before
    assert write_views(world, [token], tmp_path / "labels", Views()) == 1
    (tmp_path / "labels" / "views.json").unlink()
    with pytest.raises(DataError, match=rf"it holds {token}\.npz, but no views\.json"):
        write_views(world, [token], tmp_path / "labels", Views(hidden=0.5))


def test_the_same_cameras_with_other_points_are_refused(other: NuScenes, tmp_path: Path) -> None:
    first, second = other.scenes[0].tokens[:2]
    folder = tmp_path / "labels"
    write_views(other, (first, second), folder, Views())
    scan = other.sample(first).lidar.path
    scan.write_bytes(scan.read_bytes()[20:])
    with pytest.raises(DataError, match=r"CAM_\w+ had other files of points or pixels\."):
        read(other, first, folder)
    classes = other.point_label_file(second)
    content = np.fromfile(classes, np.uint8)
    read(other, second, folder)
    content[::7] = content[0]
    content.tofile(classes)
    with pytest.raises(DataError, match="other files of points or pixels"):
        write_views(other, [second], folder, Views())
    for path in (scan, classes):
        path.unlink()
    assert len(read(other, first, folder)) == len(read(other, second, folder)) == 6, "labels are all that is needed to learn from"


@pytest.mark.parametrize(("views", "pose_counts"), [(Views(), True), (Views(source="lidar"), True), (DENSE, False)])
def test_a_camera_that_was_moved_or_calibrated_anew(other: NuScenes, tmp_path: Path, views: Views, pose_counts: bool) -> None:
    folder = tmp_path / "labels"
    token = other.scenes[0].tokens[0]
    write_views(other, [token], folder, views)
    sample = other.sample(token)
    moved, zoomed = np.eye(4), np.diag([1.001, 1, 1])
    moved[0, 3] = 0.001
    for name, changed, matters in (
        ("pose of the camera", {"cam2ego": sample.cameras[2].cam2ego @ moved}, pose_counts),
        ("intrinsics", {"intrinsics": zoomed @ sample.cameras[2].intrinsics}, True),
    ):
        cameras = list(sample.cameras)
        cameras[2] = replace(cameras[2], **changed)
        if matters:
            with pytest.raises(DataError, match=rf"{cameras[2].channel} had other {name}"):
                read_cache(folder, other, replace(sample, cameras=tuple(cameras)), views)
        else:
            read_cache(folder, other, replace(sample, cameras=tuple(cameras)), views)
    some = replace(sample, cameras=sample.cameras[4:1:-1])
    for found, made in zip(read_cache(folder, other, some, views), view_points(other, some, views), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(found, made, strict=True))


def test_truth_images_that_were_made_anew(other: NuScenes, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    token = other.scenes[0].tokens[0]
    write_views(other, [token], folder, DENSE)
    assert write_views(other, [token], folder, DENSE) == 0
    images = [truth_images(camera)[1] for camera in other.sample(token).cameras]
    shutil.copy(images[1], images[4])
    with pytest.raises(DataError, match=rf"{other.cameras[4]} had other files of points or pixels"):
        read(other, token, folder, DENSE)


def test_damaged_files_and_those_of_earlier_versions_are_made_again(other: NuScenes, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    tokens = other.scenes[0].tokens
    write_views(other, tokens, folder, Views())
    wanted = [read(other, token, folder) for token in tokens]
    (folder / f"{tokens[0]}.npz").write_bytes(b"no archive")
    with np.load(folder / f"{tokens[1]}.npz") as stored:
        arrays = {name: stored[name] for name in stored if name != "origins"}
    np.savez(folder / f"{tokens[1]}.npz", **arrays)
    with pytest.raises(DataError, match="cannot read the 2D labels"):
        read(other, tokens[0], folder)
    with pytest.raises(DataError, match=r"do not say what they were made of.*Write them again: frustum data labels-2d"):
        read(other, tokens[1], folder)
    (folder / f"{tokens[1]}.npz").unlink()
    with pytest.raises(DataError, match=rf"no 2D labels of keyframe {tokens[1]} in .*--out \S+ --source lidarseg --hidden 0"):
        read(other, tokens[1], folder)
    assert write_views(other, tokens, folder, Views()) == 2
    for token, images in zip(tokens, wanted, strict=True):
        for a, b in zip(read(other, token, folder), images, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_nothing_of_dense_labels_is_hidden(other: NuScenes, tmp_path: Path) -> None:
    """So a cache of them fits whatever `hidden` a recipe has for LiDAR points."""
    token, folder = other.scenes[0].tokens[0], tmp_path / "labels"
    write_views(other, [token], folder, DENSE)
    assert read(other, token, folder, DENSE.model_copy(update={"hidden": 0.5}))
    check_cache(folder, DENSE.model_copy(update={"hidden": 0.5}))


def test_what_labels_are_made_of(other: NuScenes) -> None:
    sample = other.sample(other.scenes[0].tokens[0])
    rows, alone, dense = (origins(other, sample, views) for views in (Views(), Views(source="lidar"), DENSE))
    assert rows.shape == (6, 31)
    assert not np.isnan(rows).any()
    assert np.isnan(alone[:, 29:]).all(), "classes do not matter"
    assert np.array_equal(alone[:, :29], rows[:, :29])
    assert np.isnan(dense[:, 11:27]).all(), "nor does the LiDAR"
    assert len(np.unique(dense[:, 28])) == 6
    without = origins(other, replace(sample, lidar=None), Views())
    assert np.array_equal(without[:, :11], rows[:, :11])
    assert np.isnan(without[:, 11:]).all()
