import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.geometry import pose, rotation_z
from frustum.worlds.street.terrain import Terrain, poses_on_ground


def terrain(seed: int = 0, hilliness: float = 1.0) -> Terrain:
    return Terrain.random(np.random.default_rng(seed), hilliness)


@pytest.mark.parametrize("seed", range(6))
def test_slopes_are_bounded_everywhere(seed):
    t = terrain(seed)
    xy = np.random.default_rng(seed).uniform(-300, 300, (4000, 2))
    slope = np.linalg.norm(t.gradient(xy), axis=1)
    assert slope.max() <= 0.055 + 1e-9
    assert slope.max() > 0.01  # not flat either


@pytest.mark.parametrize("seed", range(4))
def test_waves_are_long(seed):
    length = 2 * np.pi / np.linalg.norm(terrain(seed).wave, axis=1)
    assert (length >= 60).all()


def test_no_hills_is_flat():
    t = terrain(1, hilliness=0.0)
    xy = np.random.default_rng(0).uniform(-100, 100, (50, 2))
    assert abs(t.height(xy)).max() == 0


def test_gradient_is_the_derivative_of_the_height():
    t = terrain(2)
    xy = np.random.default_rng(1).uniform(-100, 100, (200, 2))
    h = 1e-4
    for axis in (0, 1):
        e = np.zeros(2)
        e[axis] = h
        numeric = (t.height(xy + e) - t.height(xy - e)) / (2 * h)
        assert np.allclose(numeric, t.gradient(xy)[:, axis], atol=1e-7)


def test_grid_equals_pointwise_heights():
    t = terrain(3)
    xs, ys = np.linspace(-80, 120, 41), np.linspace(-50, 60, 33)
    grid = t.grid(xs, ys)
    points = np.stack(np.meshgrid(xs, ys, indexing="ij"), -1)
    assert grid.dtype == np.float32
    assert np.allclose(grid, t.height(points), atol=2e-5)


@settings(deadline=None)
@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(-3.1, 3.1), st.floats(0, 0.3))
def test_poses_are_rigid_and_stand_on_the_ground(x, y, yaw, lift):
    t = terrain(4)
    pose = poses_on_ground(t, np.array([[x, y]]), np.array([yaw]), lift)[0]
    r = pose[:3, :3]
    assert np.allclose(r @ r.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(r) == pytest.approx(1)
    assert pose[2, 3] == pytest.approx(t.height(np.array([x, y])) + lift)
    # the vehicle's vertical axis is the ground's normal, its heading the wanted one
    gx, gy = t.gradient(np.array([x, y]))
    assert np.allclose(np.cross(r[:, 2], [-gx, -gy, 1.0]), 0, atol=1e-12)
    assert np.arctan2(r[1, 0], r[0, 0]) == pytest.approx(yaw, abs=2e-3)


def test_upright_poses_keep_the_vertical():
    t = terrain(5)
    found = poses_on_ground(t, np.array([[3.0, 4.0]]), np.array([0.7]), upright=True)[0]
    at = np.array([3.0, 4.0, t.height(np.array([3.0, 4.0]))])
    assert np.allclose(found, pose(rotation_z(0.7), at))


def test_climbing_lifts_the_nose():
    t = terrain(6)
    xy = np.random.default_rng(0).uniform(-100, 100, (100, 2))
    yaw = np.arctan2(*t.gradient(xy).T[::-1])  # uphill
    poses = poses_on_ground(t, xy, yaw)
    assert (poses[:, 2, 0] > 0).all()
    assert np.allclose(np.tan(np.arcsin(poses[:, 2, 0])), np.linalg.norm(t.gradient(xy), axis=1), atol=1e-9)
