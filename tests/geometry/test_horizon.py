"""Where the horizon lies: against points that are really level and far away."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.geometry import horizon_line, horizon_row, invert, pose, rotation_xyz

INTRINSICS = np.array([[800.0, 0, 330], [0, 790.0, 250], [0, 0, 1]])
AHEAD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
SIZE = (480, 640)


@pytest.mark.parametrize(("pitch", "yaw", "roll"), [(0, 0, 0), (12, 55, 0), (-20, -110, 8), (5, 180, -30)])
def test_level_points_far_away_lie_on_the_line(pitch: float, yaw: float, roll: float) -> None:
    rotation = rotation_xyz(0, *np.radians([pitch, yaw])) @ AHEAD @ rotation_xyz(0, 0, np.radians(roll))
    cam2ego = pose(rotation, np.array([1.0, 0.5, 1.6]))
    line = horizon_line(INTRINSICS, cam2ego)
    for bearing in np.radians([yaw - 20, yaw, yaw + 15]):
        far = np.array([1e9 * np.cos(bearing), 1e9 * np.sin(bearing), 0, 1])
        pixel = INTRINSICS @ (invert(cam2ego) @ far)[:3]
        assert line @ (pixel / pixel[2]) == pytest.approx(0, abs=1e-5)
    row = horizon_row(INTRINSICS, cam2ego, SIZE)
    assert row is not None
    assert line @ [320, row, 1] == pytest.approx(0, abs=1e-9)
    if roll == 0:
        assert row == pytest.approx(250 - 790 * np.tan(np.radians(pitch)))


def test_where_the_horizon_is_no_row() -> None:
    for rotation in (np.eye(3), rotation_xyz(0, np.pi / 2, 0) @ AHEAD, AHEAD @ rotation_xyz(0, 0, np.pi / 2), np.full((3, 3), np.nan)):
        assert horizon_row(INTRINSICS, pose(rotation, np.zeros(3)), SIZE) is None
