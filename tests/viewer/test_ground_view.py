"""The stitched ground: cameras that look at a known pattern show it from above, and one that is turned by 12 degrees tears it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.sample import CameraFrame, Sample
from frustum.geometry import rotation_xyz
from frustum.viewer.ground_view import BARE, ground_picture, stitch

SIZE, FOCAL, HEIGHT = (240, 320), 130.0, 1.6
AHEAD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
BEARINGS = {"CAM_FRONT": 0, "CAM_LEFT": 90, "CAM_BACK": 180, "CAM_RIGHT": -90}
SCALE, REACH = 4, 12.0


def pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """RGB of the ground: slow waves, so that sampling matters little."""
    return np.stack([128 + 100 * np.sin(x / 2), 128 + 100 * np.sin(y / 2), 128 + 100 * np.cos((x + y) / 3)], -1)


def cast(folder: Path, channel: str, bearing: float, pitch: float = 25, height: float = HEIGHT) -> CameraFrame:
    """A camera and its photograph of the pattern: each pixel's ray is followed to the ground, the other way than `stitch` goes."""
    rotation = rotation_xyz(0, np.radians(pitch), np.radians(bearing)) @ AHEAD
    origin = np.array([np.cos(np.radians(bearing)), np.sin(np.radians(bearing)), height])
    rows, columns = np.indices(SIZE) + 0.5
    rays = np.stack([(columns - SIZE[1] / 2) / FOCAL, (rows - SIZE[0] / 2) / FOCAL, np.ones(SIZE)], -1) @ rotation.T
    far = height / np.maximum(-rays[..., 2], 1e-3)
    image = pattern(origin[0] + far * rays[..., 0], origin[1] + far * rays[..., 1])
    image[rays[..., 2] >= 0] = 255
    file = folder / f"{channel}.png"
    Image.fromarray(np.rint(image).astype(np.uint8)).save(file)
    cam2ego = np.eye(4)
    cam2ego[:3, :3], cam2ego[:3, 3] = rotation, origin
    intrinsics = np.array([[FOCAL, 0, SIZE[1] / 2], [0, FOCAL, SIZE[0] / 2], [0, 0, 1]])
    return CameraFrame(channel, file, size=SIZE, intrinsics=intrinsics, cam2ego=cam2ego, ego2global=np.eye(4), timestamp=0.0)


def rig(*cameras: CameraFrame) -> Sample:
    return Sample(token="t", scene="s", timestamp=0.0, ego2global=np.eye(4), cameras=cameras)


def turned(camera: CameraFrame, matrix: np.ndarray) -> CameraFrame:
    cam2ego = camera.cam2ego.copy()
    cam2ego[:3, :3] = matrix @ cam2ego[:3, :3]
    return dataclasses.replace(camera, cam2ego=cam2ego)


def moved(camera: CameraFrame, *at: float) -> CameraFrame:
    cam2ego = camera.cam2ego.copy()
    cam2ego[:3, 3] = at
    return dataclasses.replace(camera, cam2ego=cam2ego)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return rig(*(cast(tmp_path, channel, bearing) for channel, bearing in BEARINGS.items()))


def places() -> tuple[np.ndarray, np.ndarray]:
    """x and y of the middles of the picture's pixels."""
    along = REACH - (np.arange(round(2 * REACH * SCALE)) + 0.5) / SCALE
    return np.meshgrid(along, along, indexing="ij")


def error(sample: Sample) -> np.ndarray:
    """Mean difference to the pattern of each pixel that a camera shows."""
    stitched = stitch(sample, REACH, SCALE)
    return np.abs(stitched.image - pattern(*places())).mean(-1)[stitched.camera >= 0]


def test_the_pattern_on_the_ground_is_shown_from_above(sample: Sample) -> None:
    stitched = stitch(sample, REACH, SCALE)
    assert stitched.unseen == {}
    assert (stitched.camera >= 0).mean() > 0.9
    assert error(sample).mean() < 2
    assert (stitched.image[stitched.camera < 0] == BARE).all()


def test_each_camera_has_the_sector_of_its_bearing(sample: Sample) -> None:
    x, y = places()
    bearing = np.degrees(np.arctan2(y, x))
    away = np.abs((bearing[..., None] - list(BEARINGS.values()) + 180) % 360 - 180)
    shown = stitch(sample, REACH, SCALE).camera
    clear = (shown >= 0) & (np.sort(away, -1)[..., 1] - away.min(-1) > 20) & (np.hypot(x, y) > 4)  # not at a seam
    np.testing.assert_array_equal(shown[clear], away.argmin(-1)[clear])


def test_the_vehicle_moves_between_keyframe_and_image(sample: Sample) -> None:
    """The ground is that of the keyframe: poses that both carry the same drive change nothing."""
    drive = np.eye(4)
    drive[:3, :3], drive[:3, 3] = rotation_xyz(0, 0, 0.7), (30, -20, 1)
    later = np.eye(4)
    later[0, 3] = 0.5  # m ahead of the keyframe, so the camera stood 0.5 m further back on the vehicle
    cameras = [dataclasses.replace(c, ego2global=drive @ later, cam2ego=np.linalg.inv(later) @ c.cam2ego) for c in sample.cameras]
    assert error(dataclasses.replace(rig(*cameras), ego2global=drive)).mean() < 2


@pytest.mark.parametrize("fault", ["yaw", "exchanged"])
def test_a_wrong_calibration_tears_it(sample: Sample, fault: str) -> None:
    front, left, back, right = sample.cameras
    if fault == "yaw":
        wrong = rig(turned(front, rotation_xyz(0, 0, np.radians(12))), left, back, right)
    else:
        wrong = rig(front, dataclasses.replace(left, cam2ego=right.cam2ego), back, dataclasses.replace(right, cam2ego=left.cam2ego))
    assert error(wrong).mean() > 3 * error(sample).mean() + 2
    x, y = places()
    stitched = stitch(wrong, REACH, SCALE)
    apart = np.abs(stitched.image - pattern(x, y)).mean(-1)
    at_fault = (0,) if fault == "yaw" else (1, 3)
    assert apart[np.isin(stitched.camera, at_fault)].mean() > 8
    assert apart[(stitched.camera >= 0) & ~np.isin(stitched.camera, at_fault)].mean() < 2, "the others are right"


def test_a_camera_without_ground_says_why(sample: Sample, tmp_path: Path) -> None:
    front, left, back, _ = sample.cameras
    up = turned(front, rotation_xyz(0, np.radians(-115), 0))  # 25 degrees down before
    gone = dataclasses.replace(left, path=tmp_path / "gone.png")
    wrong = [up, gone, moved(back, -1000, 0, 1600), moved(back, -1, 0, -0.5), moved(back, -90, 0, 1.6)]
    assert stitch(rig(*wrong), REACH, SCALE).unseen == {
        0: "looks 90 degrees up: no ground in view",
        1: "cannot be shown: its image gone.png cannot be read",
        2: "sits 1,600 m above the ground: no ground in view",
        3: "sits 0.5 m below the ground: no ground in view",
        4: "sits 90 m away: no ground in view",
    }


def test_the_picture_holds_names_and_a_line_for_each_camera_without_ground(sample: Sample) -> None:
    plain = ground_picture(sample, REACH, 20)
    assert plain.size == (480, 480)
    assert (np.asarray(plain)[236:244, 238:242] == 255).all(), "the vehicle in the middle"
    front = sample.cameras[0]
    twins = rig(front, dataclasses.replace(front, channel="CAM_TWIN"), moved(front, 0, 0, 1600))
    with_line = np.asarray(ground_picture(twins, REACH, 20))
    assert with_line.shape[:2] == (480 + 26, 480)
    assert with_line[480:].any()
