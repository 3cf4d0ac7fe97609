"""LiDAR points as labels: where they are in the ego frame, several scans joined, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from frustum.data.augment import BevTransform, Draw
from frustum.data.labels.depth import aggregate_sweeps
from frustum.data.labels.lidar_points import VEHICLE, LidarPoints
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.source import labelled
from frustum.errors import DataError
from frustum.geometry import invert, transform_points
from frustum.worlds.street.generate import WorldConfig, generate


@pytest.fixture(scope="module")
def with_scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with LiDAR scans between its keyframes."""
    root = tmp_path_factory.mktemp("scans")
    generate(WorldConfig(train_scenes=1, val_scenes=0, frames=2, image_size=(64, 176), sweeps=2), root, workers=1)
    return root


def test_points_are_in_the_ego_frame_without_those_of_the_vehicle(street_root: Path) -> None:
    source = NuScenes(street_root)
    token = source.tokens("train")[1]
    found, sizes, reference = LidarPoints().read(source, token)
    np.testing.assert_array_equal(sizes, [[96, 256]] * 6)
    assert reference == -1
    lidar = source.sample(token, with_boxes=False, occupancy=False).lidar
    assert lidar is not None
    raw = lidar.load()[:, :3].astype(np.float64)
    kept = raw[(abs(raw[:, :2]) >= VEHICLE).any(1)]
    np.testing.assert_allclose(found, transform_points(lidar.lidar2ego, kept), atol=1e-4)
    assert 500 < len(found) <= len(raw)
    assert abs(np.median(found[found[:, 2] < 0.3][:, 2])) < 0.3, "the ground lies at the height of the wheels"


def test_they_move_with_the_map(street_root: Path) -> None:
    source = NuScenes(street_root)
    found = LidarPoints().read(source, source.tokens("train")[0])
    bev = BevTransform(rotate=0.3, scale=1.1, flip_y=True)
    moved = LidarPoints().apply(found, Draw((), bev, (9, 16)))
    np.testing.assert_allclose(moved.points, transform_points(bev.matrix(), found.points.astype(np.float64)), atol=1e-4)
    assert moved.points.dtype == np.float32
    batch = LidarPoints().collate([moved, moved._replace(points=moved.points[:7], reference=3)])
    assert batch is not None
    assert [len(points) for points in batch.points] == [len(found.points), 7]
    assert batch.references == [-1, 3]
    assert LidarPoints().collate([moved, None]) is None


def test_scans_are_joined_through_the_ego_motion(with_scans: Path) -> None:
    source = NuScenes(with_scans)
    token = source.tokens("train")[1]
    one, three = (LidarPoints(scans).read(source, token).points for scans in (1, 3))
    sample = source.sample(token, with_boxes=False, occupancy=False, num_sweeps=2)
    assert len(sample.lidar_sweeps) == 2
    assert len(three) > 2.5 * len(one)
    np.testing.assert_array_equal(three[: len(one)], one)
    joined = aggregate_sweeps(sample, VEHICLE)[:, :3].astype(np.float64)
    to_ego = invert(sample.ego2global) @ sample.lidar.ego2global @ sample.lidar.lidar2ego
    np.testing.assert_allclose(three, transform_points(to_ego, joined), atol=1e-4)
    LidarPoints(3).require(source, source.tokens("train"))
    assert LidarPoints(3).described(source, [token], {}) == "LiDAR points of 3 scans a keyframe"


def test_what_cannot_be_learned_from_is_refused(street_root: Path, other_root: Path, tmp_path: Path) -> None:
    source = NuScenes(street_root)
    with pytest.raises(DataError, match=r"no LiDAR scans between keyframes, but 4 scans are to be joined.*model.scans=1"):
        LidarPoints(4).require(source, source.tokens("train"))
    few = NuScenes(street_root)
    few.hide_labels("train", 0.5, by="keyframe")
    with pytest.raises(DataError, match=r"labelled_share hides voxel and map labels, .* from LiDAR points.*data.labelled_only=true"):
        LidarPoints().require(few, few.tokens("train"))
    LidarPoints().require(few, labelled(few, few.tokens("train")))
    root = shutil.copytree(other_root, tmp_path / "other")
    world = NuScenes(root)
    token = world.tokens("train")[0]
    scan = world.sample(token).lidar
    assert scan is not None
    near = np.zeros((5, 5), np.float32)
    scan.path.write_bytes(near.tobytes())
    with pytest.raises(DataError, match=r"keyframe \w+ holds no point beyond the vehicle itself"):
        LidarPoints().read(world, token)
    assert token != world.tokens("train")[-1]
    with pytest.raises(DataError, match="holds no point beyond the vehicle itself"):
        LidarPoints().require(world, world.tokens("train"))
    table = root / "v1.0-trainval" / "sample_data.json"
    rows = [row for row in json.loads(table.read_text()) if "LIDAR" not in row["filename"]]
    table.write_text(json.dumps(rows))
    shutil.rmtree(root / "cache", ignore_errors=True)
    with pytest.raises(DataError, match=r"has no LiDAR scan, from whose points this network learns"):
        LidarPoints().require(NuScenes(root), [token])


def test_the_camera_of_the_map_is_drawn_with_everything_else(street_root: Path) -> None:
    """Any but the first, as SimpleBEV does; without a draw, the one that evaluation takes."""
    source = NuScenes(street_root)
    token = source.tokens("train")[0]
    label = LidarPoints(reference=1, draw_reference=True)
    found = label.read(source, token)
    draws = [Draw((), BevTransform(), (9, 16), seed=seed) for seed in range(40)]
    assert {label.apply(found, draw).reference for draw in draws} == {1, 2, 3, 4, 5}
    assert label.apply(found, Draw((), BevTransform(), (9, 16))).reference == 1
    still = LidarPoints(reference=1)
    assert {still.apply(still.read(source, token), draw).reference for draw in draws} == {1}
    assert label.apply(found._replace(sizes=found.sizes[:1]), draws[0]).reference == 0
    with pytest.raises(DataError, match=r"CAM_FRONT, which should be camera 4 .* is camera 1"):
        LidarPoints(reference=4).read(source, token)
