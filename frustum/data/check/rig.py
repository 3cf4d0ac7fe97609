"""Checks on how cameras are mounted: signs of a wrong rotation or a swapped axis, found without LiDAR."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frustum.data.check.findings import Finding
from frustum.data.sample import CameraFrame
from frustum.geometry import matrix_to_quaternion, quaternion_to_matrix

_STEEP = 45.0  # degrees that an optical axis may point up or down, and that an image may be rolled by
_HIGH, _LOW = 5.0, 0.1  # metres above the ground
_ASIDE = np.sin(np.radians(10))  # of an axis that points to the other side than the name says
_BESIDE = 0.2  # metres from the middle of the vehicle, on the other side than the name says
_LEVEL = 30.0  # degrees of elevation and roll, within which a camera counts as level
_AHEAD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # axes of a camera (x right, y down, z forward) in those of a body
_FAR = 10.0  # metres from the origin of the ego frame
_FAR_HINT = "Right for a very long vehicle; else check cam2ego: translations are in metres, from the origin of the ego frame."
_HIGH_HINT = "Right for a very high vehicle; else check cam2ego: translations are in metres, and z = 0 is the ground."
_NAME_HINT = "Cameras are exchanged, or the sign of y or of the yaw is wrong: y and yaw are positive to the left."
_HINT = (
    "Right for a camera that is really mounted so; else check cam2ego: quaternion w, x, y, z; camera (x right, y down, z forward) to "
    "ego (x forward, y left, z up) and not back. The pictures show the ground as this calibration has it."
)


def inspect_mounting(camera: CameraFrame) -> list[Finding]:
    """Warnings about a camera that points steeply up or down, whose image is rolled, or that sits below the ground (z < 0) or far away."""
    elevation, roll = mounting_angles(camera.cam2ego)
    found = []
    if abs(elevation) > _STEEP:
        found.append(f"its optical axis looks {abs(elevation):.0f} degrees {'up' if elevation > 0 else 'down'}")
    if abs(roll) > _STEEP:
        found.append(f"its image is rolled by {abs(roll):.0f} degrees {'clockwise' if roll > 0 else 'counter-clockwise'}")
    height = float(camera.cam2ego[2, 3])
    if height < 0:
        found.append(f"it sits {-height:.2f} m below the ground (z = 0 of the ego frame)")
    elif height < _LOW:
        found.append(f"it sits on the ground, {100 * height:.1f} cm above z = 0 of the ego frame")
    findings = [Finding("warning", "", f"{camera.channel}: {what}", _HINT) for what in found]
    if height > _HIGH:
        metres = f" If these are millimetres, multiply them by 0.001 ({height / 1000:.2f} m)." if height > 100 else ""
        findings.append(Finding("warning", "", f"{camera.channel}: it sits {height:,.1f} m above the ground", _HIGH_HINT + metres))
    if told := _against_its_name(camera):
        findings.append(Finding("warning", "", f"{camera.channel}: {told}", _NAME_HINT))
    distance = float(np.linalg.norm(camera.cam2ego[:3, 3]))
    if distance > _FAR:
        what = f"{camera.channel}: it sits {distance:,.1f} m away from the origin of the ego frame"
        metres = f" If these are millimetres, multiply them by 0.001 ({distance / 1000:.2f} m)." if distance > 100 else ""
        findings.append(Finding("warning", "", what, _FAR_HINT + metres))
    return findings


def _against_its_name(camera: CameraFrame) -> str:
    """What an optical axis, or the place of a camera, says that its name denies; "" where they agree, or the name says nothing."""
    forward, left = camera.cam2ego[0, 2], camera.cam2ego[1, 2]
    words = camera.channel.lower().replace("-", "_").split("_")
    sides = {"left": left, "right": -left, "front": forward, "back": -forward, "rear": -forward}
    wrong = [word for word in words if sides.get(word, 1.0) < -_ASIDE]
    if not wrong:
        y = float(camera.cam2ego[1, 3])
        side = "left" if "left" in words else "right" if "right" in words else ""
        if side and (y if side == "right" else -y) > _BESIDE:
            return f"its name says {side}, but it sits {abs(y):.2f} m to the {'left' if y > 0 else 'right'} of the middle"
        return ""
    bearing = float(np.degrees(np.arctan2(left, forward)))
    where = f"{abs(bearing):.0f} degrees to the {'left' if bearing > 0 else 'right'} of straight ahead"
    return f"its name says {' and '.join(wrong)}, but its optical axis points {where}"


def same_poses(cameras: Sequence[CameraFrame]) -> list[Finding]:
    """Warnings about cameras that stand where another one does and look the same way: a pose was copied, or is missing."""
    found = []
    for i, camera in enumerate(cameras):
        twin = next((other for other in cameras[:i] if np.allclose(other.cam2ego, camera.cam2ego, rtol=0, atol=1e-6)), None)
        if twin is not None:
            what = f"{camera.channel} stands where {twin.channel} stands and looks the same way"
            found.append(Finding("warning", "", what, "Give each camera its own cam2ego."))
    return found


def likely_mistake(cameras: Sequence[CameraFrame]) -> Finding | None:
    """The usual mistake without which all cameras of a rig are level, where most of them are not; None where no single one explains it."""

    def is_level(rotation: np.ndarray) -> bool:
        pose = np.eye(4)
        pose[:3, :3] = rotation
        elevation, roll = mounting_angles(pose)
        return abs(elevation) < _LEVEL and abs(roll) < _LEVEL

    rotations = [camera.cam2ego[:3, :3] for camera in cameras if np.isfinite(camera.cam2ego).all()]
    if 2 * sum(is_level(rotation) for rotation in rotations) >= len(rotations):  # one camera may really look down
        return None
    mended = {
        "quaternions were written x, y, z, w": [quaternion_to_matrix(np.roll(matrix_to_quaternion(r), 1)) for r in rotations],
        "poses are ego to camera, not camera to ego": [r.T for r in rotations],
        "camera axes are x forward, y left, z up": [r @ _AHEAD for r in rotations],
        "camera axes are those of OpenGL, x right, y up, z backward": [r * [1, -1, -1] for r in rotations],
    }
    likely = [name for name, found in mended.items() if all(is_level(rotation) for rotation in found)]
    if not likely:
        return None
    what = f"the cameras are not level, but all of them would be if {', or if '.join(likely)}"
    return Finding("warning", "", what, "Write rotations as w, x, y, z, camera to ego, for camera axes x right, y down, z forward.")


def mounting_angles(cam2ego: np.ndarray) -> tuple[float, float]:
    """Elevation of the optical axis, positive upwards, and roll of the camera about it, positive clockwise as viewed from behind; degrees.

    The roll is 0 for an axis within 10 degrees of the vertical, where there is no level direction to compare with.
    """
    right, axis = cam2ego[:3, 0], cam2ego[:3, 2]
    elevation = float(np.degrees(np.arcsin(np.clip(axis[2], -1, 1))))
    if abs(elevation) > 80:
        return elevation, 0.0
    level = np.cross(axis, [0.0, 0.0, 1.0])
    level /= np.linalg.norm(level)
    return elevation, float(np.degrees(np.arctan2(right @ np.cross(axis, level), right @ level)))
