"""Checks on how cameras are mounted: signs of a wrong rotation or a swapped axis, found without LiDAR."""

from __future__ import annotations

import numpy as np

from frustum.data.check.findings import Finding
from frustum.data.sample import CameraFrame

_STEEP = 45.0  # degrees that an optical axis may point up or down, and that an image may be rolled by
_FAR = 10.0  # metres from the origin of the ego frame
_FAR_HINT = "Right for a very long vehicle; else check cam2ego: translations are in metres, from the origin of the ego frame."
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
    findings = [Finding("warning", "", f"{camera.channel}: {what}", _HINT) for what in found]
    distance = float(np.linalg.norm(camera.cam2ego[:3, 3]))
    if distance > _FAR:
        what = f"{camera.channel}: it sits {distance:,.1f} m away from the origin of the ego frame"
        metres = f" If these are millimetres, multiply them by 0.001 ({distance / 1000:.2f} m)." if distance > 100 else ""
        findings.append(Finding("warning", "", what, _FAR_HINT + metres))
    return findings


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
