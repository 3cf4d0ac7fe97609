"""Instance labels from boxes: the published rule's own output, and hand cases of its order of events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from frustum.data.occ3d import instances
from frustum.data.occ3d.instances import instances_from_boxes
from frustum.errors import ShapeError
from frustum.geometry import VoxelGrid, pose, quaternion_to_matrix, rotation_z
from frustum.geometry.boxes import box_poses
from frustum.types.classes import OCC3D_CLASSES

GRID = VoxelGrid(lower=(0.0, 0.0, 0.0), upper=(8.0, 4.0, 2.0), cell=(0.4, 0.4, 0.4))
CAR, ROAD, MANMADE, CONE = (OCC3D_CLASSES.index(name) for name in ("car", "driveable_surface", "manmade", "traffic_cone"))


def test_equals_the_published_labels(monkeypatch):
    with np.load(Path(__file__).parents[1] / "metrics" / "occ_instances.npz") as golden:
        lidar2ego = pose(quaternion_to_matrix(golden["lidar2ego_rotation"]), golden["lidar2ego_translation"])
        boxes, names = golden["gt_boxes_lidar"], [str(name) for name in golden["gt_names"]]
        found = instances_from_boxes(golden["semantics"], lidar2ego @ box_poses(boxes), boxes[:, 3:6], names)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, golden["instances"])
        assert found.max() == 36, "several boxes, several classes"
        monkeypatch.setattr(instances, "MARGIN", 0.0)
        without_margin = instances_from_boxes(golden["semantics"], lidar2ego @ box_poses(boxes), boxes[:, 3:6], names)
        assert (without_margin != found).sum() > 1000, "the margin matters here"


def boxes(*centres: tuple[float, float, float]) -> np.ndarray:
    return np.stack([pose(np.eye(3), np.array(centre)) for centre in centres])


def label(*parts: tuple[int, slice]) -> np.ndarray:
    """Voxels of y, z index 1 labelled along x."""
    semantics = np.full(GRID.shape, 17, np.uint8)
    for value, where in parts:
        semantics[where, 1, 1] = value
    return semantics


def test_the_first_box_takes_what_two_contain_and_boxes_without_voxels_have_no_number():
    semantics = label((CAR, slice(2, 12)))
    size = np.array([[2.0, 0.4, 0.4]] * 3)
    # x 2 to 4 m are cells 5 to 9; 3 to 5 m cells 8 to 12 in part; the second box is elsewhere
    found = instances_from_boxes(semantics, boxes((3.0, 0.6, 0.6), (3.0, 3.0, 0.6), (4.0, 0.6, 0.6)), size, ["car"] * 3, GRID)
    row = found[:, 1, 1]
    assert row[5:10].tolist() == [1] * 5
    assert row[10:12].tolist() == [2] * 2
    assert found.max() == 2


def test_leftovers_go_to_the_nearest_centre_within_the_margin_or_to_nobody():
    semantics = label((CAR, slice(2, 14)))
    size = np.array([[0.8, 0.4, 0.4], [0.8, 0.4, 0.4]])
    found = instances_from_boxes(semantics, boxes((2.0, 0.6, 0.6), (3.6, 0.6, 0.6)), size, ["car", "car"], GRID)[:, 1, 1]
    assert found[4:6].tolist() == [1, 1]
    assert found[8:10].tolist() == [2, 2]
    assert found[[3, 6, 7, 10]].tolist() == [1, 1, 2, 2]  # 0.4 m beyond the faces
    assert found[[2, 11, 12, 13]].tolist() == [0, 0, 0, 0]


def test_other_classes_are_one_segment_and_boxes_only_take_their_own():
    semantics = label((CAR, slice(2, 4)), (ROAD, slice(5, 8)), (MANMADE, slice(9, 11)), (CONE, slice(12, 13)), (ROAD, slice(14, 16)))
    size = np.array([[8.0, 4.0, 2.0], [8.0, 4.0, 2.0]])
    found = instances_from_boxes(semantics, boxes((4.0, 2.0, 1.0), (4.0, 2.0, 1.0)), size, ["animal", "car"], GRID)[:, 1, 1]
    assert found[2:4].tolist() == [1, 1]
    assert found[[5, 6, 7, 14, 15]].tolist() == [2] * 5, "classes without boxes follow in the order of their ids"
    assert found[9:11].tolist() == [3, 3]
    assert found[12] == 0, "a cone without a box is nobody's"
    assert found[[0, 4]].tolist() == [0, 0]


def test_turned_boxes_and_too_many_of_them(monkeypatch):
    monkeypatch.setattr(instances, "MARGIN", 0.0)
    semantics = label((CAR, slice(0, 20)))
    across = pose(rotation_z(np.array(np.pi / 2)), np.array([4.0, 0.6, 0.6]))[None]
    found = instances_from_boxes(semantics, across, np.array([[8.0, 0.8, 0.4]]), ["car"], GRID)[:, 1, 1]
    assert np.flatnonzero(found).tolist() == [9, 10], "its length lies across"
    many = np.full((20, 10, 5), CAR, np.uint8)
    centres = (np.argwhere(many == CAR) + 0.5)[:300] * 0.4
    found = instances_from_boxes(many, boxes(*centres), np.full((300, 3), 0.2), ["car"] * 300, GRID)
    assert np.unique(found).tolist() == list(range(256))
    assert (found.ravel()[:255] > 0).all()
    assert (found.ravel()[255:] == 0).all(), "the file has no room for numbers beyond 255"


def test_bad_shapes_are_named():
    semantics = label((CAR, slice(0, 2)))
    with pytest.raises(ShapeError, match="instances need"):
        instances_from_boxes(semantics, np.zeros((2, 4, 4)), np.zeros((2, 3)), ["car"], GRID)
    with pytest.raises(ShapeError, match="instances need"):
        instances_from_boxes(semantics, np.zeros((0, 4, 4)), np.zeros((0, 3)), [])
