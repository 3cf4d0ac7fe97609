"""Mountings that are almost always a mistake in the calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from frustum.data.check.rig import inspect_mounting, likely_mistake, mounting_angles, same_poses
from frustum.data.sample import CameraFrame
from frustum.geometry import matrix_to_quaternion, quaternion_to_matrix, rotation_xyz

AHEAD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def camera(rotation: np.ndarray, height: float = 1.5) -> CameraFrame:
    cam2ego = np.eye(4)
    cam2ego[:3, :3], cam2ego[2, 3] = rotation, height
    return CameraFrame(
        "CAM_A", Path("none.jpg"), size=(90, 120), intrinsics=np.eye(3), cam2ego=cam2ego, ego2global=np.eye(4), timestamp=0.0
    )


def words(rotation: np.ndarray, height: float = 1.5) -> str:
    return "; ".join(finding.what for finding in inspect_mounting(camera(rotation, height)))


@pytest.mark.parametrize("yaw", [0, 55, 110, 180, -70])
def test_usual_mountings_are_fine(yaw: float) -> None:
    for pitch, roll in ((0, 0), (30, 0), (-20, 10)):
        rotation = rotation_xyz(0, np.radians(pitch), np.radians(yaw)) @ AHEAD @ rotation_xyz(0, 0, np.radians(roll))
        assert words(rotation) == ""
        elevation, found = mounting_angles(camera(rotation).cam2ego)
        assert elevation == pytest.approx(-pitch)
        assert found == pytest.approx(roll)


def test_an_axis_that_looks_up_or_down() -> None:
    assert words(rotation_xyz(0, np.radians(60), 1.0) @ AHEAD) == "CAM_A: its optical axis looks 60 degrees down"
    assert words(rotation_xyz(0, np.radians(-50), 1.0) @ AHEAD) == "CAM_A: its optical axis looks 50 degrees up"


def test_an_image_on_its_side() -> None:
    assert words(AHEAD @ rotation_xyz(0, 0, np.pi / 2)) == "CAM_A: its image is rolled by 90 degrees clockwise"
    assert "rolled by 60 degrees counter-clockwise" in words(AHEAD @ rotation_xyz(0, 0, -np.pi / 3))
    assert "rolled by 180 degrees" in words(AHEAD @ rotation_xyz(0, 0, np.pi))


def test_a_camera_below_the_ground() -> None:
    assert words(AHEAD, -1.6) == "CAM_A: it sits 1.60 m below the ground (z = 0 of the ego frame)"
    assert words(AHEAD, 0.2) == ""


def test_common_mistakes_are_seen() -> None:
    """Ego to camera instead of camera to ego, and no rotation at all; the hint says what to check."""
    assert "rolled" in words(AHEAD.T)
    assert "90 degrees up" in words(np.eye(3))
    (finding,) = inspect_mounting(camera(np.eye(3)))
    assert finding.severity == "warning"
    assert "w, x, y, z" in finding.hint
    assert "not back" in finding.hint


def test_a_camera_high_above_the_ground() -> None:
    assert words(AHEAD, 5.5) == "CAM_A: it sits 5.5 m above the ground"
    found = inspect_mounting(camera(AHEAD, 1600.0))
    assert "If these are millimetres, multiply them by 0.001 (1.60 m)" in found[0].hint


@pytest.mark.parametrize("height", [0.0, 0.0015])
def test_a_camera_on_the_ground(height: float) -> None:
    """A translation that was left out, or is in kilometres."""
    assert "it sits on the ground" in words(AHEAD, height)


@pytest.mark.parametrize(("channel", "y", "wrong"), [("CAM_LEFT", -0.5, True), ("CAM_LEFT", 0.5, False), ("CAM_RIGHT", 0.5, True)])
def test_names_and_sides(channel: str, y: float, wrong: bool) -> None:
    """The sign of y is wrong, and the camera looks where it should."""
    yaw = 90 if channel == "CAM_LEFT" else -90
    found = replace(camera(rotation_xyz(0, 0, np.radians(yaw)) @ AHEAD), channel=channel)
    found.cam2ego[1, 3] = y
    assert ["but it sits 0.50 m to the" in finding.what for finding in inspect_mounting(found)] == [True] * wrong


def test_two_cameras_with_one_pose() -> None:
    one = camera(AHEAD)
    turned = camera(rotation_xyz(0, 0, 0.1) @ AHEAD)
    assert same_poses([one, turned]) == []
    (finding,) = same_poses([one, turned, replace(one, channel="CAM_B")])
    assert finding.what == "CAM_B stands where CAM_A stands and looks the same way"


@pytest.mark.parametrize(
    ("channel", "yaw", "wrong"),
    [
        ("CAM_FRONT_LEFT", -55, "says left, but its optical axis points 55 degrees to the right"), ("CAM_FRONT_LEFT", 55, ""),
        ("CAM_BACK_RIGHT", -110, ""), ("CAM_BACK_RIGHT", 70, "says back and right"), ("CAM_REAR", 0, "says rear"), ("CAM_BACK", 180, ""),
        ("CAM_LEFT", 0, ""), ("CAM_RIGHT", 5, ""), ("CAM_FRONT", 12, ""), ("CAM_UPRIGHT", 90, ""),
    ],
)  # fmt: skip
def test_names_and_axes(channel: str, yaw: float, wrong: str) -> None:
    found = inspect_mounting(replace(camera(rotation_xyz(0, 0, np.radians(yaw)) @ AHEAD), channel=channel))
    assert [wrong in finding.what for finding in found] == ([True] if wrong else [])


def _xyzw(rotation: np.ndarray) -> np.ndarray:
    return quaternion_to_matrix(np.roll(matrix_to_quaternion(rotation), -1))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_xyzw, "written x, y, z, w"),
        (lambda r: r.T, "ego to camera"),
        (lambda r: r @ AHEAD.T, "x forward, y left, z up"),
        (lambda r: r @ np.diag([1.0, -1, -1]), "OpenGL"),
    ],
)
def test_the_mistake_that_would_level_all_cameras_is_named(spoil: Callable[[np.ndarray], np.ndarray], named: str) -> None:
    yaws = (0, 55, -55, 110, -110, 180)
    right = [rotation_xyz(0, np.radians(3), np.radians(yaw)) @ AHEAD for yaw in yaws]
    assert likely_mistake([camera(r) for r in right]) is None
    found = likely_mistake([camera(spoil(r)) for r in right])
    assert found is not None
    assert named in found.what
    assert likely_mistake([camera(rotation_xyz(0, np.pi / 2, 0) @ AHEAD), camera(AHEAD)]) is None  # one really looks down
