"""Pictures of voxels: right places, right colours, and robust to odd volumes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from frustum.errors import ConfigError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.types.classes import OCC3D_COLOURS, OCC3D_FREE
from frustum.viewer.ego_shape import ego_shape
from frustum.viewer.voxels import ground_height, render_voxels, top_view
from tests.viewer.volumes import layer

GRID = VoxelGrid(lower=(-8.0, -8.0, -1.0), upper=(8.0, 8.0, 3.0), cell=(0.5, 0.5, 0.5))
CAR, ROAD, TREE = 4, 11, 16


def empty():
    return np.full(GRID.shape, OCC3D_FREE, np.uint8)


def placed(volume, mask=None):
    return layer(volume, mask, grid=GRID)


def is_colour(picture, label, tolerance=0.12):
    """Pixels whose hue is that of a class, whatever the light: the direction of the linear RGB vector."""
    linear = (picture / 255.0) ** 2.2
    expected = (np.array(OCC3D_COLOURS[label]) / 255.0) ** 2.2
    cosine = (linear @ expected) / np.maximum(np.linalg.norm(linear, axis=-1) * np.linalg.norm(expected), 1e-6)
    return cosine > 1 - tolerance**2 / 2


def centre_of(mask):
    rows, columns = np.nonzero(mask)
    return rows.mean() / mask.shape[0], columns.mean() / mask.shape[1]


def test_the_view_shows_the_voxels():
    volume = empty()
    volume[:, :, 0] = ROAD
    volume[14:20, 14:18, 1:4] = CAR
    picture = render_voxels(placed(volume), size=(90, 120), ego=False)
    assert picture.shape == (90, 120, 3)
    assert picture.dtype == np.uint8
    assert is_colour(picture, CAR).mean() > 0.004
    assert is_colour(picture, ROAD).mean() > 0.15


def test_axes_of_the_3d_view():
    """Seen from behind, forward is up in the picture, left is left, and high is above low."""
    positions = {
        "ahead": (28, 16, 1),
        "behind": (4, 16, 1),
        "left": (16, 28, 1),
        "right": (16, 4, 1),
        "high": (16, 16, 7),
        "low": (16, 16, 0),
    }
    found = {}
    for name, (x, y, z) in positions.items():
        volume = empty()
        volume[x - 1 : x + 2, y - 1 : y + 2, z] = CAR
        found[name] = centre_of(is_colour(render_voxels(placed(volume), size=(120, 160), ego=False), CAR))
    assert found["ahead"][0] < found["behind"][0] - 0.2
    assert found["left"][1] < found["right"][1] - 0.2
    assert found["high"][0] < found["low"][0] - 0.03


def test_the_whole_grid_is_in_the_picture_at_any_aspect():
    volume = empty()
    volume[:, :, 0] = CAR
    for size in ((100, 100), (80, 200), (200, 80)):
        covered = is_colour(render_voxels(placed(volume), size=size, ego=False), CAR)
        border = np.concatenate([covered[0], covered[-1], covered[:, 0], covered[:, -1]])
        assert not border.any()
        rows, columns = np.nonzero(covered)
        assert max(np.ptp(rows) / size[0], np.ptp(columns) / size[1]) > 0.85


def test_a_beam_hides_what_is_behind_it_and_throws_a_shadow():
    """The sun stands behind on the right: the shadow lies ahead and to the left of the ground under the beam."""
    volume = empty()
    volume[:, :, 0] = ROAD
    beam, strip = volume.copy(), volume.copy()
    beam[10, 8:24, 5:8] = strip[10, 8:24, 0] = TREE
    before, after, marked = (render_voxels(placed(v), size=(120, 160), ego=False).astype(int) for v in (volume, beam, strip))
    assert is_colour(after, TREE).mean() > 0.03
    assert is_colour(after, ROAD).sum() < is_colour(before, ROAD).sum()
    is_ground = is_colour(after, ROAD, 0.3) & is_colour(before, ROAD, 0.3) & ~is_colour(after, TREE)
    shadow = is_ground & ((before - after).mean(-1) > 15)
    assert shadow.sum() > 300
    (row, column), (row_below, column_below) = centre_of(shadow), centre_of(is_colour(marked, TREE))
    assert row < row_below - 0.02
    assert column < column_below - 0.02


def test_masked_voxels_are_not_drawn():
    volume = empty()
    volume[14:20, 14:20, 1:4] = CAR
    mask = np.ones(volume.shape, bool)
    mask[14:20] = False
    hidden = render_voxels(placed(volume, mask), size=(60, 80), ego=False)
    np.testing.assert_array_equal(hidden, render_voxels(placed(empty()), size=(60, 80), ego=False))
    np.testing.assert_array_equal(
        top_view(placed(volume, ~mask), ego=False)[38:53, 38:53],
        top_view(placed(volume), ego=False)[38:53, 38:53],
    )


def test_the_ego_vehicle_stands_on_the_ground():
    volume = empty()
    volume[:, :, :2] = ROAD
    assert ground_height(volume, GRID, [ROAD]) == 0.0
    volume[:, :, 2] = ROAD
    assert ground_height(volume, GRID, [ROAD]) == 0.5
    assert ground_height(empty(), GRID, [ROAD]) == 0.0
    with_car, without = (render_voxels(placed(volume), size=(120, 160), ego=e).astype(int) for e in (True, False))
    changed = np.abs(with_car - without).max(-1) > 40
    row, column = centre_of(changed)
    assert 0.1 < row < 0.6
    assert 0.3 < column < 0.7


def test_ego_shape_is_made_of_closed_pieces():
    planes, starts, colours = ego_shape(0.5)
    assert len(starts) == len(colours) + 1
    assert starts[-1] == len(planes)
    np.testing.assert_allclose(np.linalg.norm(planes[:, :3], axis=1), 1, atol=1e-9)
    rng = np.random.default_rng(0)
    points = rng.uniform((-3, -2, -0.5), (6, 2, 3), (20000, 3))
    inside = np.zeros(len(points), bool)
    for a, b in itertools.pairwise(starts):
        inside |= (points @ planes[a:b, :3].T <= planes[a:b, 3]).all(1)
    volume = inside.mean() * 9 * 4 * 3.5
    assert 6 < volume < 11  # cubic metres of a car
    assert points[inside][:, 2].min() > 0.5 - 1e-9
    assert points[inside][:, 2].max() < 0.5 + 1.6
    assert len(ego_shape(None)[0]) == 0


def test_empty_tiny_and_unknown_volumes():
    assert render_voxels(placed(empty()), size=(30, 40)).std() > 0  # the floor and the car
    assert render_voxels(layer(np.full((2, 3, 1), 200, np.uint8)), size=(30, 40)).shape == (30, 40, 3)
    assert top_view(layer(np.full((2, 3, 1), OCC3D_FREE)), scale=2).shape == (4, 6, 3)
    full = np.zeros((6, 6, 3), np.uint8)
    assert render_voxels(layer(full), size=(31, 41)).shape == (31, 41, 3)


def test_the_picture_does_not_depend_on_threads(monkeypatch):
    volume = empty()
    volume[:, :, 0] = ROAD
    volume[3:9, 20:25, 1:5] = TREE
    many = render_voxels(placed(volume), size=(50, 70))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    np.testing.assert_array_equal(render_voxels(placed(volume), size=(50, 70)), many)


def test_top_view_orientation_and_highest_voxel():
    volume = empty()
    volume[:, :, 0] = ROAD
    volume[30, 29, 2] = CAR  # front left
    volume[2, 5, 1] = TREE  # back right
    volume[16, 16, 1], volume[16, 16, 5] = TREE, CAR
    picture = top_view(placed(volume), scale=3, ego=False)
    assert picture.shape == (96, 96, 3)
    car, tree = is_colour(picture, CAR), is_colour(picture, TREE)
    assert car[3:6, 6:9].all()  # row (31 - 30) * 3, column (31 - 29) * 3
    assert tree[87:90, 78:81].all()
    assert car[45:48, 45:48].all()
    assert not tree[45:48, 45:48].any()
    assert is_colour(picture, ROAD).mean() > 0.9


def test_top_view_hatches_what_was_not_observed():
    mask = np.zeros(GRID.shape, bool)
    mask[16:] = True
    picture = top_view(placed(empty(), mask), scale=4, ego=False).astype(int)
    assert picture[:60].std(axis=(0, 1)).max() < 0.5  # observed and free: plain
    assert picture[68:].std(axis=(0, 1)).min() > 1  # not observed: hatched
    with_car = top_view(placed(empty()), scale=4)
    assert (with_car.astype(int).sum(-1) < 200).any()


def test_only_the_named_free_class_is_left_out():
    volume = np.zeros(GRID.shape, np.uint8)
    volume[:, :, 0] = CAR
    above = top_view(replace(placed(volume), free=0), ego=False)
    assert is_colour(above, CAR).all()
    assert not np.array_equal(above, top_view(placed(volume), ego=False)), "class 0 is drawn where it is not free"


def test_bad_input_is_named():
    with pytest.raises(ShapeError, match="mask"):
        render_voxels(placed(empty(), np.ones((2, 2, 2))))
    with pytest.raises(ShapeError, match="semantics"):
        top_view(layer(np.zeros((4, 4))))
    with pytest.raises(ConfigError, match="grid"):
        render_voxels(placed(np.zeros((4, 4, 4), np.uint8)))


@pytest.mark.data
def test_a_real_frame_looks_like_a_street(shared):
    with np.load(shared / "data" / "occ3d_frame" / "labels.npz") as frame:
        semantics, mask = frame["semantics"], frame["mask_camera"]
    frame = layer(semantics, mask, grid=VoxelGrid.occ3d())
    picture = render_voxels(replace(frame, mask=None), size=(240, 320))
    assert is_colour(picture, ROAD).mean() > 0.05
    assert is_colour(picture, TREE).mean() > 0.05
    above = top_view(frame, scale=1)
    assert above.shape == (200, 200, 3)
