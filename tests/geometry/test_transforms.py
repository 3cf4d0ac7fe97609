import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from frustum.geometry import (
    invert,
    matrix_to_quaternion,
    pose,
    quaternion_to_matrix,
    rotation_xyz,
    rotation_z,
    transform_points,
    yaw_of,
)

angles = st.floats(-3.1, 3.1)


def random_poses(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return pose(Rotation.random(n, random_state=seed).as_matrix(), rng.uniform(-50, 50, (n, 3)))


def test_quaternions_agree_with_scipy():
    matrices = Rotation.random(200, random_state=1).as_matrix()
    scipy_wxyz = Rotation.from_matrix(matrices).as_quat()[:, [3, 0, 1, 2]]
    ours = matrix_to_quaternion(matrices)
    np.testing.assert_allclose(ours * np.sign((ours * scipy_wxyz).sum(1))[:, None], scipy_wxyz, atol=1e-12)
    np.testing.assert_allclose(quaternion_to_matrix(ours), matrices, atol=1e-12)


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_have_a_stable_quaternion(axis):
    matrix = -np.eye(3)
    matrix[axis, axis] = 1
    np.testing.assert_allclose(quaternion_to_matrix(matrix_to_quaternion(matrix)), matrix, atol=1e-12)


@given(angles, angles, angles)
@settings(max_examples=50, deadline=None)
def test_roll_pitch_yaw_is_scipys_extrinsic_xyz(roll, pitch, yaw):
    np.testing.assert_allclose(rotation_xyz(roll, pitch, yaw), Rotation.from_euler("xyz", [roll, pitch, yaw]).as_matrix(), atol=1e-12)


@given(angles)
@settings(max_examples=30, deadline=None)
def test_yaw_of_a_rotation_about_z(angle):
    assert yaw_of(rotation_z(angle)) == pytest.approx(angle)
    assert float(yaw_of(rotation_z(torch.tensor(angle, dtype=torch.float64)))) == pytest.approx(angle)


@pytest.mark.parametrize("kind", ["numpy", "torch32", "torch64"])
def test_inverse_and_points_for_every_kind_of_array(kind):
    poses = random_poses(6).reshape(2, 3, 4, 4)
    points = np.random.default_rng(2).uniform(-9, 9, (2, 3, 5, 3))
    tolerance = 1e-12
    if kind != "numpy":
        dtype = torch.float32 if kind == "torch32" else torch.float64
        poses, points, tolerance = torch.tensor(poses, dtype=dtype), torch.tensor(points, dtype=dtype), 1e-4 if kind == "torch32" else 1e-12
    there = transform_points(poses, points)
    back = transform_points(invert(poses), there)
    assert type(there) is type(points)
    assert there.dtype == points.dtype
    np.testing.assert_allclose(np.asarray(back), np.asarray(points), atol=tolerance * 50)
    np.testing.assert_allclose(np.asarray(invert(poses) @ poses), np.broadcast_to(np.eye(4), (2, 3, 4, 4)), atol=tolerance * 50)


def test_chains_read_right_to_left():
    a2b, b2c = random_poses(2)
    point = np.array([[1.0, 2.0, 3.0]])
    np.testing.assert_allclose(transform_points(b2c @ a2b, point), transform_points(b2c, transform_points(a2b, point)), atol=1e-10)
