"""Is a rig like the one that a network was trained on? Weights transfer poorly between rigs, in ways that look plausible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from frustum.data.check.rig import mounting_angles
from frustum.data.sample import CameraFrame

NUMBERS = ("view", "heading", "elevation", "height")
_WIDER = 0.15  # share by which a field of view may differ
_TURNED = 15.0  # degrees, of heading and of elevation
_HIGHER = 0.3  # metres


def described(cameras: Sequence[CameraFrame]) -> list[dict[str, Any]]:
    """What weights keep of the rig of their training: channel, field of view, heading, elevation in degrees, height in metres of each."""
    found = []
    for camera in cameras:
        view = 2 * np.degrees(np.arctan(camera.size[1] / 2 / camera.intrinsics[0, 0]))
        heading = np.degrees(np.arctan2(camera.cam2ego[1, 2], camera.cam2ego[0, 2]))
        numbers = (view, heading, mounting_angles(camera.cam2ego)[0], camera.cam2ego[2, 3])
        found.append({"channel": camera.channel} | {name: round(float(n), 2) for name, n in zip(NUMBERS, numbers, strict=True)})
    return found


def differences(trained: Sequence[Mapping[str, Any]], rig: Sequence[Mapping[str, Any]]) -> list[str]:
    """How a rig differs from the one of a training, in words; empty for one like it. Both as `described` gives them."""
    found = [] if len(rig) == len(trained) else [f"{len(rig)} cameras instead of {len(trained)}"]
    for camera in rig:
        other = min(trained, key=lambda one: _apart(one["heading"], camera["heading"]))
        name = camera["channel"]
        if _apart(other["heading"], camera["heading"]) > _TURNED:
            found.append(f"{name} looks to {camera['heading']:.0f} degrees, where no camera looked (nearest: {other['heading']:.0f})")
        elif abs(other["elevation"] - camera["elevation"]) > _TURNED:
            found.append(f"{name} looks {camera['elevation']:+.0f} degrees up instead of {other['elevation']:+.0f}")
        if abs(camera["view"] / other["view"] - 1) > _WIDER:
            found.append(f"{name} sees {camera['view']:.0f} degrees instead of {other['view']:.0f}")
        if abs(camera["height"] - other["height"]) > _HIGHER:
            found.append(f"{name} is {camera['height']:.2f} m high instead of {other['height']:.2f} m")
    return found


def _apart(one: float, other: float) -> float:
    """The angle between two headings in degrees."""
    return abs((one - other + 180) % 360 - 180)
