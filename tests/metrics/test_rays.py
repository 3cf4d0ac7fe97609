"""The ray table and the LiDAR origins of RayIoU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from frustum.errors import ShapeError
from frustum.geometry import VoxelGrid, pose, quaternion_to_matrix
from frustum.metrics.rays import lidar_origins, ray_cells, ray_directions

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "metrics" / "ray_origins.json").read_text())


def matrix(info, name):
    return pose(quaternion_to_matrix(np.array(info[f"{name}_rotation"])), np.array(info[f"{name}_translation"]))


def test_ray_table_equals_the_reference(shared):
    with np.load(shared / "golden" / "metrics" / "occ_street.npz") as golden:
        np.testing.assert_array_equal(ray_directions(), golden["rays"])


def test_ray_table_covers_the_lidar_fan():
    rays = ray_directions().reshape(39, 360, 3)
    assert rays.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-6)
    pitch = np.rad2deg(np.arcsin(rays[:, 0, 2].astype(np.float64)))
    assert pitch[0] == pytest.approx(-45, abs=1e-4)
    assert pitch[-1] == pytest.approx(12.5478, abs=1e-3)
    np.testing.assert_allclose(1 / np.tan(np.deg2rad(-pitch[:10])), np.arange(1, 11), rtol=1e-5)
    np.testing.assert_allclose(np.diff(pitch[9:]), 0.6296, atol=1e-3)
    with pytest.raises(ValueError, match="read-only"):
        ray_directions()[0] = 0


def test_origins_equal_the_reference_for_every_frame():
    for scene in sorted({i["scene_name"] for i in GOLDEN["infos"]}):
        infos = [i for i in GOLDEN["infos"] if i["scene_name"] == scene]
        lidar2ego = np.stack([matrix(i, "lidar2ego") for i in infos])
        ego2global = np.stack([matrix(i, "ego2global") for i in infos])
        for index, info in enumerate(infos):
            origins = lidar_origins(lidar2ego, ego2global, index)
            np.testing.assert_allclose(origins, GOLDEN["origins"][info["token"]], rtol=0, atol=1e-9)
            assert len(origins) <= 8


def test_origins_along_a_straight_drive():
    ego2global = np.tile(np.eye(4), (30, 1, 1))
    ego2global[:, 0, 3] = 100 + np.arange(30) * 5.0
    mount = np.eye(4)
    mount[:3, 3] = 1.0, 0.0, 1.8
    origins = lidar_origins(mount, ego2global, 10, max_origins=100)
    expected = 1.0 + (np.arange(30) - 10) * 5.0
    np.testing.assert_allclose(origins[:, 0], expected[np.abs(expected) < 39], atol=1e-5)
    np.testing.assert_allclose(origins[:, 1:], np.tile([0, 1.8], (len(origins), 1)), atol=1e-6)
    few = lidar_origins(mount, ego2global, 10)
    np.testing.assert_array_equal(few, origins[np.round(np.linspace(0, len(origins) - 1, 8)).astype(int)])
    np.testing.assert_array_equal(lidar_origins(mount, ego2global[:1], 0), [[1.0, 0.0, 1.8]])


@pytest.mark.parametrize(("poses", "index"), [(np.eye(4), 0), (np.eye(4)[None], 1), (np.eye(4)[None], -1)])
def test_bad_poses_are_named(poses, index):
    with pytest.raises(ShapeError, match="ego2global"):
        lidar_origins(np.eye(4), poses, index)


def test_cells_of_rays_keep_metres():
    grid = VoxelGrid(lower=(-4.0, -2.0, 0.0), upper=(4.0, 2.0, 3.0), cell=(0.5, 0.25, 1.0))
    directions = ray_directions()[::997]
    starts, ends, per_cell = ray_cells(np.array([[0.5, -0.5, 1.5]]), directions, grid)
    np.testing.assert_allclose(starts, [[9, 6, 1.5]], rtol=1e-6)
    # One metre along the ray is the unit direction, whatever the cells' shape.
    lengths = np.linalg.norm(ends[0].astype(np.float64) - starts[0], axis=1)
    np.testing.assert_allclose(lengths * per_cell, 1, rtol=1e-5)
    assert float(ray_cells(np.zeros((1, 3)), directions, VoxelGrid.occ3d())[2]) == np.float32(0.4)
