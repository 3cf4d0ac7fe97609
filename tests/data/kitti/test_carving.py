"""Observed masks: beams against dense sampling, camera sight against hand-made scenes."""

from __future__ import annotations

import numpy as np

from frustum.data.kitti.carving import camera_mask, carve
from frustum.geometry import VoxelGrid, invert, pose, rotation_z, transform_points

GRID = VoxelGrid(lower=(-4.0, -4.0, -1.0), upper=(4.0, 4.0, 2.2), cell=(0.4, 0.4, 0.4))
AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
INTRINSICS = np.array([[100.0, 0, 100], [0, 100.0, 60], [0, 0, 1]])


def beams(seen: np.ndarray, origin, end) -> None:
    """One beam from `origin` to `end`, of a sensor that is turned by some angle."""
    sensor2grid = pose(rotation_z(0.7), np.asarray(origin, float))
    carve(seen, GRID, sensor2grid, transform_points(invert(sensor2grid), np.asarray(end, float)[None]))


def sampled(origin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Voxels on a line, by many samples; misses corners that are cut by less than a thousandth of the line."""
    points = origin + np.linspace(0, 1, 4001)[:, None] * (end - origin)
    index = np.floor((points - GRID.lower) / np.array(GRID.cell)).astype(int)
    seen = np.zeros(GRID.shape, bool)
    seen[tuple(index[((index >= 0) & (index < np.array(GRID.shape))).all(1)].T)] = True
    return seen


def test_a_beam_marks_the_voxels_it_crosses():
    rng = np.random.default_rng(0)
    for origin, end in rng.uniform(-6, 6, (200, 2, 3)) * [1, 1, 0.4]:
        seen = np.zeros(GRID.shape, np.uint8)
        beams(seen, origin, end)
        dense = sampled(origin, end)
        assert not (dense & (seen == 0)).any()
        assert ((seen == 1) & ~dense).sum() <= 2  # corners that sampling misses


def test_axis_parallel_and_outside_beams():
    seen = np.zeros(GRID.shape, np.uint8)
    beams(seen, [-3.9, 0.1, 0.1], [1.1, 0.1, 0.1])
    assert seen[:13, 10, 2].all()
    assert seen.sum() == 13
    seen[:] = 0
    beams(seen, [-9.0, 9.0, 0.1], [9.0, 9.0, 0.1])
    assert not seen.any()
    beams(seen, [-9.0, 0.1, 0.1], [9.0, 0.1, 0.1])  # through the whole grid
    assert seen.sum() == GRID.shape[0]


def view(occupied: np.ndarray, candidates: np.ndarray | None = None, height: float = 0.6) -> np.ndarray:
    camera = (INTRINSICS, pose(AXES, np.array([-3.8, 0.2, height])), (120, 200))
    return camera_mask(occupied, np.ones(GRID.shape, bool) if candidates is None else candidates, GRID, [camera])


def test_a_wall_hides_what_is_behind_it():
    occupied = np.zeros(GRID.shape, bool)
    occupied[12, :, :] = True
    mask = view(occupied)
    assert mask[12, 8:13, 2:6].all()
    assert mask[5:12, 10, 3:5].all()
    assert not mask[13:].any()


def test_only_the_image_counts():
    mask = view(np.zeros(GRID.shape, bool))
    assert not mask[0].any()  # at the camera and behind it
    assert mask[10, 10, 4]
    assert not mask[3, 0, 4]  # 45 degrees is the edge of the image
    assert not mask[3, 19, 4]


def test_flat_ground_does_not_hide_itself():
    """At grazing angles the centre of a ground voxel is behind its neighbours, but its top face is in sight."""
    grid = VoxelGrid.occ3d()
    occupied = np.zeros(grid.shape, bool)
    occupied[:, :, 2] = True
    camera = (np.array([[700.0, 0, 600], [0, 700, 180], [0, 0, 1]]), pose(AXES, np.array([0.0, 0.2, 1.6])), (370, 1200))
    mask = camera_mask(occupied, occupied, grid, [camera])
    ahead = mask[120:199, 100, 2]
    assert ahead.all()
    assert not mask[:100].any()


def test_candidates_bound_the_result_and_cameras_add_up():
    rng = np.random.default_rng(0)
    occupied = rng.random(GRID.shape) < 0.02
    candidates = rng.random(GRID.shape) < 0.5
    mask = view(occupied, candidates)
    assert mask.any()
    assert not (mask.astype(bool) & ~candidates).any()
    np.testing.assert_array_equal(mask.astype(bool), view(occupied).astype(bool) & candidates)
    left = (INTRINSICS, pose(AXES, np.array([-3.8, 2.2, 0.6])), (120, 200))
    both = camera_mask(occupied, np.ones(GRID.shape, bool), GRID, [(INTRINSICS, pose(AXES, np.array([-3.8, 0.2, 0.6])), (120, 200)), left])
    alone = camera_mask(occupied, np.ones(GRID.shape, bool), GRID, [left])
    np.testing.assert_array_equal(both, view(occupied) | alone)
