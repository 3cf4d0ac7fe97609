"""The map of still points: merging, ground and its kinds, what was built, and what has moved on."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.data.kitti.point_map import FINE, PointMap, Relief, Traffic, cell_keys, classify, find_ground, structure
from frustum.geometry import points_in_boxes, pose, rotation_xyz
from frustum.ops.box_points import in_box
from frustum.types.classes import OCC3D_CLASSES


def test_points_of_a_cell_are_averaged_whatever_the_order_of_scans():
    rng = np.random.default_rng(0)
    scans = [rng.uniform(-3, 3, (400, 3)) for _ in range(12)]
    small, large = PointMap(compact_at=500), PointMap()
    for a, b in zip(scans, reversed(scans), strict=True):
        small.add(a)
        large.add(b)
    first, second = small.points(1), large.points(1)
    np.testing.assert_allclose(first, second, atol=1e-12)
    everything = np.concatenate(scans)
    keys = cell_keys(everything, FINE)
    assert len(first) == len(np.unique(keys))
    for key in np.unique(keys)[:20]:
        mean = everything[keys == key].mean(0)
        assert np.abs(first - mean).sum(1).min() < 1e-9


def test_single_echoes_are_dropped_and_an_empty_map_is_empty():
    still = PointMap()
    assert still.points().shape == (0, 3)
    still.add(np.array([[1.01, 2.01, 0.51], [1.02, 2.02, 0.52], [7.0, 7.0, 7.0]]))
    np.testing.assert_allclose(still.points(min_hits=2), [[1.015, 2.015, 0.515]])


def test_keys_separate_cells_also_below_zero():
    points = np.array([[-0.05, 0, 0], [0.05, 0, 0], [0, -0.05, 0.0], [0, 0, -0.05], [0.01, 0.01, 0.01]])
    keys = cell_keys(points, 0.1)
    assert len(np.unique(keys)) == 4
    assert keys[1] == keys[4]


@pytest.fixture(scope="module")
def street():
    """Road |y| < 4, a kerb of 12 cm, a pavement to |y| < 7, rough grass beyond on the left, a wall at y = -7 and a bush at (6, 10)."""
    rng = np.random.default_rng(3)
    xy = rng.uniform(
        [
            -10,
            -7,
        ],
        [20, 16],
        (260_000, 2),
    )
    y = xy[:, 1]
    noise = rng.normal(0, 1, len(xy))
    z = np.where(np.abs(y) < 4, 0.008 * noise, np.where(y < 7, 0.12 + 0.008 * noise, 0.12 + 0.06 * noise))
    ground = np.column_stack([xy, z])
    wall = np.column_stack([rng.uniform(-10, 20, 30_000), -7 + rng.normal(0, 0.01, 30_000), rng.uniform(0.1, 4, 30_000)])
    bush = np.array([6.0, 11.0, 1.4]) + rng.normal(0, 0.55, (20_000, 3)) * [1, 1, 0.7]
    points = np.concatenate([ground, wall, bush[bush[:, 2] > 0.5]])
    path = np.column_stack([np.arange(0, 12.0), np.zeros(12), np.zeros(12)])
    relief = Relief(np.array([-12.0, -9, 0]), np.array([22.0, 18, 0]))
    for part in np.array_split(rng.permutation(points), 4):
        relief.add(part)
    still = PointMap()
    still.add(points)
    merged = still.points(1)
    found = find_ground(merged, path, relief)
    return merged, found, classify(merged, found)


def share(street, label: str, where) -> float:
    points, _, classes = street
    chosen = where(*points.T)
    assert chosen.sum() > 50
    return float((classes[chosen] == OCC3D_CLASSES.index(label)).mean())


def test_kinds_of_ground(street):
    assert share(street, "driveable_surface", lambda x, y, z: (np.abs(y) < 3.4) & (z < 0.1) & (np.abs(x - 5) < 12)) > 0.97
    assert share(street, "sidewalk", lambda x, y, z: (y > 5) & (y < 6.3) & (z < 0.3) & (np.abs(x - 5) < 12)) > 0.8
    assert share(street, "terrain", lambda x, y, z: (y > 8) & (y < 14) & (z < 0.2) & (np.abs(x - 5) < 12)) > 0.9
    height = street[1].height[street[1].cells(np.array([[5.0, 0.0], [5.0, 5.5]]))]
    np.testing.assert_allclose(height, [0, 0.12], atol=0.02)


def test_built_and_grown(street):
    assert share(street, "manmade", lambda x, y, z: (y < -6.8) & (z > 0.6) & (np.abs(x - 5) < 12)) > 0.97
    assert share(street, "vegetation", lambda x, y, z: (np.hypot(x - 6, y - 11) < 1) & (z > 0.7)) > 0.9


def test_a_pole_is_built():
    rng = np.random.default_rng(0)
    pole = np.column_stack([rng.normal(0, 0.03, 500), rng.normal(0, 0.03, 500), rng.uniform(0.5, 4, 500)])
    assert structure(pole, np.ones(len(pole), bool)).mean() > 0.9
    assert not structure(pole, np.zeros(len(pole), bool)).any()


def test_what_has_moved_on_is_told_from_what_stays():
    """Beams to a far wall: at first a car is in the way, later they pass; a post is hit by every scan."""
    traffic = Traffic(np.array([-1.0, -6, -1]), np.array([22.0, 6, 4]))
    azimuth, elevation = np.meshgrid(np.radians(np.arange(-12, 12, 0.4)), np.radians(np.arange(-3, 3, 0.5)))
    rays = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], -1).reshape(-1, 3)
    origin = np.array([0.0, 0.0, 1.0])
    car, post = np.array([9.0, 1.0, 1.0]), np.array([9.0, -1.0, 1.0])
    for scan in range(20):
        distance = np.full(len(rays), 18.0)
        if scan < 3:
            distance[np.arctan2(rays[:, 1], rays[:, 0]) > 0.02] = 9.0
        distance[np.abs(np.arctan2(rays[:, 1], rays[:, 0]) + np.arctan2(1, 9)) < 0.03] = 9.1
        traffic.add(origin, origin + rays * distance[:, None])
    gone = traffic.is_gone(np.stack([car, post, [17.9, 0.0, 1.0], [50.0, 0, 0]]))
    np.testing.assert_array_equal(gone, [True, False, False, False])


def test_points_in_an_enlarged_box_equal_the_plain_way():
    rng = np.random.default_rng(0)
    points = rng.uniform(-6, 6, (3000, 3))
    for _ in range(9):
        box, size = pose(rotation_xyz(*rng.uniform(-1, 1, 3)), rng.uniform(-4, 4, 3)), rng.uniform(0.5, 5, 3)
        grown = in_box(points, box, size, (0.2, 0.3, 0.4))
        np.testing.assert_array_equal(grown, points_in_boxes(points, box[None], size[None] + [[0.4, 0.6, 0.8]])[:, 0])
