import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.worlds.street.paths import Path, Rect
from frustum.worlds.street.roads import winding_path


def circle(radius: float = 60.0, left: bool = True) -> Path:
    a = np.linspace(0, 1.2, 400) * (1 if left else -1)
    return Path.through(np.stack([radius * np.sin(a) * (1 if left else -1), radius * (1 - np.cos(a)) * (1 if left else -1)], 1))


def test_through_measures_arc_length_and_heading():
    path = circle()
    assert path.s[-1] == pytest.approx(60 * 1.2, rel=1e-4)
    assert path.yaw[200] == pytest.approx(1.2 * 200 / 399, abs=1e-3)


def test_offset_points_lie_on_concentric_circles():
    path = circle()
    for d in (-8.0, 0.0, 8.0):
        xy, _ = path.at(np.linspace(5, 60, 30), d)
        radius = np.linalg.norm(xy - np.array([0, 60.0]), axis=1)
        assert np.allclose(radius, 60 - d, atol=2e-3)


def test_paths_go_on_straight_beyond_their_ends():
    path = Path.through(np.stack([np.linspace(0, 10, 21), np.zeros(21)], 1))
    xy, yaw = path.at(np.array([-5.0, 15.0]), 2.0)
    assert np.allclose(xy, [[-5, 2], [15, 2]])
    assert np.allclose(yaw, 0)


@settings(deadline=None)
@given(st.floats(-40, 90), st.floats(-12, 12), st.integers(0, 5))
def test_nearest_inverts_at(s, d, seed):
    path = winding_path(np.random.default_rng(seed), -60.0, 120.0)
    xy, _ = path.at(s, d)
    s2, d2 = path.nearest(xy)
    assert s2 == pytest.approx(s, abs=0.15)
    assert d2 == pytest.approx(d, abs=0.05)


@pytest.mark.parametrize("seed", range(8))
def test_main_roads_wind_gently_and_start_at_the_origin(seed):
    path = winding_path(np.random.default_rng(seed), -80.0, 220.0)
    step = np.linalg.norm(np.diff(path.xy, axis=0), axis=1)
    assert np.allclose(step, 0.5, atol=1e-6)
    assert np.allclose(path.at(0.0)[0], 0, atol=0.3)
    curvature = abs(np.diff(path.yaw)) / 0.5
    assert curvature.max() < 1 / 45
    assert abs(path.yaw).max() < np.radians(16)
    assert np.ptp(path.yaw) > np.radians(3)


def test_offset_paths_may_run_backwards():
    path = circle()
    back = path.offset(3.0, 50.0, 10.0)
    assert back.s[0] == 0
    assert np.allclose(back.xy[0], path.at(50.0, 3.0)[0])
    assert np.allclose(back.xy[-1], path.at(10.0, 3.0)[0])
    assert back.s[-1] == pytest.approx(40 * 57 / 60, rel=1e-3)


def test_rect_sorts_its_corners():
    rect = Rect(1, 5.0, 2.0, 3.0, -4.0, "marking", dash=1.0, period=2.0)
    assert rect.row == (1, 2.0, 5.0, -4.0, 3.0, 1.0, 2.0)
