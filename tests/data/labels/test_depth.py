"""Depth maps and aggregated sweeps against plain loops and formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from frustum.data.augment import BevTransform, Draw
from frustum.data.labels.depth import DepthLabels, aggregate_sweeps, depth_map, lidar2camera
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.pixels import ImageTransform
from frustum.data.sample import Sample
from frustum.errors import DataError
from frustum.geometry import invert, transform_points
from frustum.types.contract import Shapes
from tests.data.toy import CAM2EGO, INTRINSICS, LIDAR2EGO, VERSION, ego2global


@pytest.fixture(scope="module")
def sample(toy_root: Path) -> Sample:
    reader = NuScenes(toy_root, VERSION)
    return reader.sample(reader.scenes[1].tokens[2], num_sweeps=4)


def test_chain_goes_through_both_ego_poses(sample: Sample) -> None:
    assert sample.lidar is not None
    time = 1_000_000
    expected = invert(CAM2EGO["CAM_BACK"]) @ invert(ego2global(1, time + 16000)) @ ego2global(1, time) @ LIDAR2EGO
    np.testing.assert_allclose(lidar2camera(sample.lidar, sample.cameras[1]), expected, atol=1e-9)


@pytest.mark.parametrize("size", [(90, 160), (48, 128)])
def test_depth_map_equals_a_loop(sample: Sample, size: tuple[int, int]) -> None:
    assert sample.lidar is not None
    camera = sample.cameras[0]
    rng = np.random.default_rng(0)
    points = rng.uniform(-20, 20, (6000, 3))
    points[:, 2] = rng.uniform(-2, 2, 6000)
    transform = ImageTransform.scaled(camera.size, size, size[1] / 160 * 1.1, crop_w=0.3, flip=True, rotate_deg=4)
    result = depth_map(points, sample.lidar, camera, transform.matrix(), size)
    expected = np.zeros(size)
    for point in transform_points(lidar2camera(sample.lidar, camera), points):
        if point[2] < 1:
            continue
        u, v, _ = transform.matrix() @ (INTRINSICS @ point / point[2])
        column, row = int(np.floor(u)), int(np.floor(v))
        if 0 <= row < size[0] and 0 <= column < size[1] and (expected[row, column] == 0 or point[2] < expected[row, column]):
            expected[row, column] = point[2]
    assert (expected > 0).sum() > 300
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert result.dtype == np.float32


def test_no_points_give_an_empty_map(sample: Sample) -> None:
    assert sample.lidar is not None
    assert not depth_map(np.zeros((0, 3)), sample.lidar, sample.cameras[0], np.eye(3), (9, 16)).any()


def test_sweeps_land_in_the_keyframe(sample: Sample) -> None:
    points = aggregate_sweeps(sample)
    assert sample.lidar is not None
    assert points.shape[1] == 6
    assert len(sample.lidar_sweeps) == 4
    for k, frame in enumerate((sample.lidar, *sample.lidar_sweeps)):
        raw = frame.load()
        raw = raw[(abs(raw[:, 0]) >= 1) | (abs(raw[:, 1]) >= 1)]
        time = 1_000_000 - 250_000 * k
        moved = transform_points(invert(ego2global(1, 1_000_000) @ LIDAR2EGO) @ ego2global(1, time) @ LIDAR2EGO, raw[:, :3].astype(float))
        mine = points[np.isclose(points[:, 5], 0.25 * k, atol=1e-4)]
        np.testing.assert_allclose(mine[:, :3], moved, atol=1e-3)
        np.testing.assert_array_equal(mine[:, 3:5], raw[:, 3:])


def test_without_lidar_is_explained(sample: Sample) -> None:
    with pytest.raises(DataError, match="no LiDAR scan"):
        aggregate_sweeps(replace(sample, lidar=None))


def test_maps_that_are_kept_equal_those_that_are_made_anew(sample: Sample, toy_root: Path) -> None:
    """Of images that never move, `read` makes sparse maps once; else `apply` makes them for each draw."""
    reader, size = NuScenes(toy_root, VERSION), (48, 96)
    draw = Draw(tuple(ImageTransform.fit(camera.size, size) for camera in sample.cameras), BevTransform(), size)
    labels = DepthLabels()
    dense, sparse = labels.read(reader, sample.token), labels.read(reader, sample.token, draw)
    assert dense.points is not None
    assert sparse.points is None
    maps = labels.apply(dense, draw)
    assert maps.shape == (2, *size)
    assert maps.dtype == np.float32
    assert (maps > 0).sum() > 50
    np.testing.assert_array_equal(labels.apply(sparse, draw), maps)
    assert sample.lidar is not None
    for made, camera, transform in zip(maps, sample.cameras, draw.images, strict=True):
        np.testing.assert_array_equal(made, depth_map(sample.lidar.load(), sample.lidar, camera, transform.matrix(), size))


def test_batches_of_depth() -> None:
    labels, maps = DepthLabels(), np.ones((2, 3, 4), np.float32)
    joined = labels.collate([maps, 2 * maps])
    assert joined is not None
    assert joined[:, 1, 2, 3].tolist() == [1, 2]
    assert labels.collate([maps, None]) is None
    assert labels.collate([None]) is None
    example = labels.example(np.random.default_rng(0), Shapes(2, 6, (20, 30)))
    assert (example.shape, example.dtype) == ((2, 6, 20, 30), torch.float32)
    assert 0.2 < (example > 0).float().mean() < 0.4
    assert example.max() <= 30


def test_depth_without_lidar_says_how_to_train_without(toy_root: Path) -> None:
    reader = NuScenes(toy_root, VERSION, camera_only=True)
    token = reader.tokens()[0]
    with pytest.raises(DataError, match=rf"keyframe {token} has no LiDAR scan, .* Train without: model\.depth_loss=0\.$"):
        DepthLabels(without="model.depth_loss=0").read(reader, token)
    with pytest.raises(DataError, match=r"has no LiDAR scan, which depth supervision needs\.$"):
        DepthLabels().read(reader, token)
    oracle = (
        rf"keyframe {token} has no LiDAR scan, which this network reads to predict, an oracle\. Train one that predicts without: a=b\.$"
    )
    with pytest.raises(DataError, match=oracle):
        DepthLabels(without="a=b", to_predict=True).read(reader, token)


def test_what_is_learned_from_is_said() -> None:
    assert DepthLabels().described(None, [], {}) == "depth maps of LiDAR points"
