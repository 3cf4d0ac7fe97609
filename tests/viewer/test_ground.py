"""The picture that shows a calibration without LiDAR: lines land where geometry says, and a wrong calibration moves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.pixels import ImageTransform
from frustum.data.sample import CameraFrame, Sample
from frustum.geometry import rotation_xyz
from frustum.viewer.ground import GRID, HORIZON, X_AXIS, Y_AXIS, clip_near, draw_fields_of_view, draw_ground, field_of_view, horizon

SIZE, HEIGHT, FOCAL = (200, 300), 1.6, 150.0
INTRINSICS = np.array([[FOCAL, 0, 150], [0, FOCAL, 100], [0, 0, 1]])
AHEAD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
PLAIN = ImageTransform.fit(SIZE, SIZE)


def mounted(rotation: np.ndarray = AHEAD, at: tuple[float, float, float] = (1.0, 0.0, HEIGHT), channel: str = "CAM_A") -> CameraFrame:
    cam2ego = np.eye(4)
    cam2ego[:3, :3], cam2ego[:3, 3] = rotation, at
    return CameraFrame(channel, Path("none.jpg"), size=SIZE, intrinsics=INTRINSICS, cam2ego=cam2ego, ego2global=np.eye(4), timestamp=0.0)


def sample_of(*cameras: CameraFrame) -> Sample:
    return Sample(token="t", scene="s", timestamp=0.0, ego2global=np.eye(4), cameras=cameras)


def drawn(camera: CameraFrame, transform: ImageTransform = PLAIN) -> np.ndarray:
    picture = Image.new("RGB", (transform.size[1], transform.size[0]))
    draw_ground(picture, sample_of(camera), camera, transform)
    return np.asarray(picture)


def rows_of(picture: np.ndarray, colour: tuple[int, int, int], column: int) -> np.ndarray:
    return np.flatnonzero((picture[:, column] == colour).all(-1))


def test_rings_and_the_horizon_of_a_level_camera() -> None:
    """A point d metres before the camera lies f * height / d below the middle; the horizon in the middle."""
    picture = drawn(mounted())
    column = 150  # straight ahead, where the rings cross the x axis: look beside it
    for radius in (5, 10, 20, 40):
        expected = 100 + FOCAL * HEIGHT / (radius - 1.0)
        rows = rows_of(picture, GRID, column - 6)
        assert np.abs(rows - expected).min() < 2, (radius, rows)
    assert np.abs(rows_of(picture, HORIZON, 250) - 100).max() <= 1
    assert (picture[150:, 149:152] == X_AXIS).all(-1).any(-1).all(), "the x axis runs straight ahead"
    assert not (picture[:96] != 0).any(-1)[:, 80:].any(), "nothing above the horizon but its name"


def test_a_camera_to_the_left_sees_the_y_axis() -> None:
    picture = drawn(mounted(rotation_xyz(0, 0, np.pi / 2) @ AHEAD, (0.0, 0.5, HEIGHT)))
    assert (picture == Y_AXIS).all(-1).any()
    assert not (picture == X_AXIS).all(-1).any()


def test_pitch_moves_the_horizon() -> None:
    """10 degrees down: the horizon rises by f * tan(10 degrees)."""
    tilted = mounted(rotation_xyz(0, np.radians(10), 0) @ AHEAD)
    ends = horizon(np.linalg.inv(tilted.cam2ego), INTRINSICS, SIZE)
    assert ends is not None
    np.testing.assert_allclose(ends[:, 1], 100 - FOCAL * np.tan(np.radians(10)), atol=1e-9)
    assert sorted(ends[:, 0]) == [0, 300]


def test_roll_turns_the_horizon() -> None:
    rolled = mounted(AHEAD @ rotation_xyz(0, 0, np.radians(20)))  # about the optical axis
    ends = horizon(np.linalg.inv(rolled.cam2ego), INTRINSICS, SIZE)
    assert ends is not None
    run = ends[1] - ends[0]
    assert abs(np.degrees(np.arctan(run[1] / run[0]))) == pytest.approx(20)


@pytest.mark.parametrize("pitch", [90, -90, 60])
def test_a_camera_that_does_not_see_the_horizon(pitch: float) -> None:
    camera = mounted(rotation_xyz(0, np.radians(pitch), 0) @ AHEAD)
    assert horizon(np.linalg.inv(camera.cam2ego), INTRINSICS, SIZE) is None
    assert drawn(camera).shape == (*SIZE, 3)


def test_the_ground_follows_the_image() -> None:
    """At twice the size, the horizon is twice as far down."""
    double = ImageTransform.scaled(SIZE, (400, 600), 2.0)
    assert np.abs(rows_of(drawn(mounted(), double), HORIZON, 500) - 200).max() <= 1


def test_fields_of_view() -> None:
    camera = mounted(rotation_xyz(0, np.radians(5), np.pi / 2) @ AHEAD, (0.5, 0.7, HEIGHT))
    origin, directions = field_of_view(sample_of(camera), camera)
    np.testing.assert_allclose(origin, [0.5, 0.7])
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    angles = np.degrees(np.arctan2(directions[:, 1], directions[:, 0]))
    assert angles[16] == pytest.approx(90)
    assert (np.diff(angles) < 0).all(), "from the left of the image to its right"
    assert angles[0] - angles[-1] == pytest.approx(2 * np.degrees(np.arctan(1.0 / np.cos(np.radians(5)))), abs=0.01)
    down = mounted(rotation_xyz(0, np.pi / 2, 0) @ AHEAD)
    assert len(field_of_view(sample_of(down), down)[1]) == 0


def test_the_view_from_above_shows_where_a_camera_looks() -> None:
    def panel(*cameras: CameraFrame) -> np.ndarray:
        image = Image.new("RGB", (400, 400))
        draw_fields_of_view(image, sample_of(*cameras), lambda p: np.stack([200 - 5 * p[:, 1], 200 - 5 * p[:, 0]], -1))
        return np.asarray(image).astype(int)

    left = mounted(rotation_xyz(0, 0, np.pi / 2) @ AHEAD, (0, 0, HEIGHT))
    changed = np.abs(panel(left) - panel()).sum(-1) > 0
    assert changed[:, :190].mean() > 0.3
    assert not changed[:, 260:].any()


def test_edges_behind_the_camera_are_cut() -> None:
    front, behind = np.array([1.0, 0, 4.0]), np.array([1.0, 0, -4.0])
    kept = clip_near(front, behind)
    assert kept is not None
    assert kept[0] is front
    np.testing.assert_allclose(kept[1], [1, 0, 0.2])
    assert clip_near(behind, behind) is None
