import numpy as np
import pytest
import torch

from frustum.geometry import (
    box_corners,
    box_poses,
    invert,
    points_in_boxes,
    pose,
    rotation_xyz,
    rotation_z,
    transform_boxes,
    transform_points,
)

BOXES = np.array([[10.0, 5.0, 1.0, 4.0, 2.0, 1.5, 0.3, 3.0, 1.0], [-7.0, 2.0, 0.5, 0.8, 0.6, 1.8, -2.0, 0.0, -1.0]])


def test_corners_span_the_size_and_face_the_heading():
    corners = box_corners(box_poses(BOXES), BOXES[:, 3:6])
    assert corners.shape == (2, 8, 3)
    np.testing.assert_allclose(corners.mean(1), BOXES[:, :3], atol=1e-12)
    forward = corners[:, 0] - corners[:, 1]  # front left minus rear left
    np.testing.assert_allclose(np.linalg.norm(forward, axis=1), BOXES[:, 3])
    np.testing.assert_allclose(np.arctan2(forward[:, 1], forward[:, 0]), BOXES[:, 6])
    assert (corners[:, :4, 2] < corners[:, 4:, 2]).all()


def test_points_in_boxes_against_the_signed_distance_of_each_face():
    rng = np.random.default_rng(0)
    points = BOXES[rng.integers(0, 2, 500), :3] + rng.uniform(-3, 3, (500, 3))
    inside = points_in_boxes(points, box_poses(BOXES), BOXES[:, 3:6])
    for m, box in enumerate(BOXES):
        c, s = np.cos(box[6]), np.sin(box[6])
        d = points - box[:3]
        along, across = d[:, 0] * c + d[:, 1] * s, -d[:, 0] * s + d[:, 1] * c
        expected = (abs(along) <= box[3] / 2) & (abs(across) <= box[4] / 2) & (abs(d[:, 2]) <= box[5] / 2)
        assert (inside[:, m] == expected).all()
    assert inside.any()
    assert not inside.all()


@pytest.mark.parametrize("as_torch", [False, True])
def test_moving_boxes_and_points_together_keeps_who_is_inside(as_torch):
    a2b = pose(rotation_z(1.1), np.array([3.0, -2.0, 0.7]))
    points = BOXES[0, :3] + np.random.default_rng(1).uniform(-2, 2, (100, 3))
    moved = transform_boxes(a2b, BOXES)
    if as_torch:
        moved = transform_boxes(torch.tensor(a2b), torch.tensor(BOXES)).numpy()
    before = points_in_boxes(points, box_poses(BOXES), BOXES[:, 3:6])
    after = points_in_boxes(transform_points(a2b, points), box_poses(moved), moved[:, 3:6])
    assert (before == after).all()
    np.testing.assert_allclose(np.linalg.norm(moved[:, 7:], axis=1), np.linalg.norm(BOXES[:, 7:], axis=1))
    np.testing.assert_allclose(transform_boxes(invert(a2b), moved), BOXES, atol=1e-9)


def test_a_tilted_frame_keeps_the_centre_exact_and_the_yaw_to_second_order():
    a2b = pose(rotation_xyz(0.02, -0.03, 0.5), np.zeros(3))
    moved = transform_boxes(a2b, BOXES)
    np.testing.assert_allclose(moved[:, :3], transform_points(a2b, BOXES[:, :3]), atol=1e-12)
    np.testing.assert_allclose(moved[:, 6], BOXES[:, 6] + 0.5, atol=2e-3)
