"""What the numbers of a data set can be: one check per kind of value, for readers, importers and arrays from anybody (docs/data.md).

A check returns None, or where the first value is that cannot be, and why in a sentence; the caller says in front of it whose it is.
NaN and infinity are outside all bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from frustum.errors import DataError

NEAR = 1e4
"""Metres from the vehicle within which its sensors sit, and what they measure lies, along each axis."""
WORLD = 4e7
"""Metres from the origin of a global frame, along each axis: the Earth's circumference, so that any map projection fits."""


class Bounds(NamedTuple):
    """What one number can be, both ends included."""

    name: str
    low: float
    high: float
    unit: str = ""
    may_be_nan: bool = False

    def refusal(self, value: float) -> str:
        """Why a value is refused."""
        if self.low == self.high:
            return f"{self.name} is {value:.10g}, which must be {self.low:g}."
        unknown = ", or NaN where unknown" if self.may_be_nan else ""
        return f"{self.name} is {value:,.10g}{self.unit}, which must be {self.low:,.10g} to {self.high:,.10g}{self.unit}{unknown}."


class Fault(NamedTuple):
    """The place of the first value that cannot be among the leading dimensions, and why in words."""

    place: tuple[int, ...]
    words: str


def _metres(names: str, limit: float) -> tuple[Bounds, ...]:
    return tuple(Bounds(name, -limit, limit, " m") for name in names.split())


POINT = _metres("x y z", NEAR)
PLACE = _metres("x y", WORLD)
"""On a map."""
BOX = (
    *_metres("x y z", NEAR),
    *(Bounds(name, 1e-3, 200, " m") for name in ("length", "width", "height")),
    Bounds("yaw", -100, 100, " rad"),
    *(Bounds(name, -300, 300, " m/s", may_be_nan=True) for name in ("vx", "vy")),
)
"""Of the columns of `BOX_FIELDS`, in the ego frame."""
COUNTS = (Bounds("num_lidar_pts", 0, 1e9), Bounds("num_radar_pts", 0, 1e9))
IMAGE_SIZE = (Bounds("the height", 1, 1e5, " pixels"), Bounds("the width", 1, 1e5, " pixels"))
DISTORTION = (Bounds("a coefficient", -1e6, 1e6),)
DEPTH = (Bounds("a depth", 0, NEAR, " m"),)
DETECTED = WORLD
"""The largest number of a detection, whatever it is of: a network may err further than true boxes lie."""
_PIXELS = 1e6
_INTRINSICS = (
    Bounds("fx", 1, _PIXELS, " pixels"), Bounds("the skew", -_PIXELS, _PIXELS, " pixels"), Bounds("cx", -_PIXELS, _PIXELS, " pixels"),
    Bounds("the entry below fx", 0, 0), Bounds("fy", 1, _PIXELS, " pixels"), Bounds("cy", -_PIXELS, _PIXELS, " pixels"),
    Bounds("the last row's first entry", 0, 0), Bounds("the last row's second entry", 0, 0), Bounds("the last row's third entry", 1, 1),
)  # fmt: skip
_OTHER = 1e9  # the largest intensity, ring or time of a LiDAR point, whatever its unit
_ROUNDING = 1e-6  # of entries that must be 0 or 1


def first_fault(values: Any, bounds: Sequence[Bounds]) -> Fault | None:
    """The first of values (*, K) that is outside the bounds of its column."""
    array = _array(values)
    low, high = (np.array([getattr(b, end) for b in bounds]) for end in ("low", "high"))
    is_good = (array >= low - _ROUNDING) & (array <= high + _ROUNDING)  # False for NaN
    is_good |= np.isnan(array) & [b.may_be_nan for b in bounds]
    if is_good.all():
        return None
    *index, column = (int(i) for i in np.argwhere(~is_good)[0])
    return Fault(tuple(index), bounds[column].refusal(float(array[(*index, column)])))


def intrinsics_fault(intrinsics: Any) -> Fault | None:
    """Of pinhole intrinsics (*, 3, 3): [[fx, skew, cx], [0, fy, cy], [0, 0, 1]] in pixels of the image."""
    array = _array(intrinsics)
    return first_fault(array.reshape(*array.shape[:-2], 9), _INTRINSICS)


def pose_fault(a2b: Any, farthest: float = WORLD) -> Fault | None:
    """Of transforms (*, 4, 4): a rotation, no more than 1e-3 off, a translation of at most `farthest` along each axis, and 0, 0, 0, 1.

    A scale of 1.0005 is the largest that passes: it moves a point 40 m ahead by 2 cm.
    """
    array = _array(a2b)
    rotation, last = array[..., :3, :3], array[..., 3, :]
    if fault := first_fault(array[..., :3, 3], _metres("x y z", farthest)):
        return fault
    size = np.where(np.isfinite(rotation).all((-1, -2)), np.abs(rotation).max((-1, -2)), np.inf)
    rotation = np.where((size <= 2)[..., None, None], rotation, 0.0)  # products of what is larger overflow
    off = np.abs(rotation @ np.swapaxes(rotation, -1, -2) - np.eye(3)).max((-1, -2))
    bad = (off > 1e-3) | (np.linalg.det(rotation) < 0) | ~(np.abs(last - [0, 0, 0, 1]).max(-1) <= _ROUNDING)
    if not bad.any():
        return None
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    return Fault(index, _why_no_pose(array[index]))


def pose_row_fault(rows: Any, farthest: float = WORLD) -> Fault | None:
    """Of poses as the tables hold them (*, 7): x, y, z of at most `farthest`, and a quaternion w, x, y, z of length 1, within 1 %."""
    array = _array(rows)
    with np.errstate(over="ignore"):
        length = np.sqrt((array[..., 3:] ** 2).sum(-1, keepdims=True))
    bounds = (*_metres("x y z", farthest), Bounds("the length of its quaternion", 0.99, 1.01))
    return first_fault(np.concatenate([array[..., :3], length], -1), bounds)


def plausible_points(points: np.ndarray, path: Path) -> np.ndarray:
    """Which points (P, 3 or more) of a scan can be: x, y, z within NEAR, the others finite. Drivers write missing returns as NaN.

    Raises:
        DataError: the scan holds no point, none but missing returns, or of the others fewer than half can be.
    """
    good = (np.abs(points[:, :3]) <= NEAR).all(-1) & (np.abs(points[:, 3:]) <= _OTHER).all(-1)  # False for NaN
    returns = len(points) - np.count_nonzero(np.isnan(points[:, :3]).all(-1))  # of the sky there may be few
    if not returns or 2 * np.count_nonzero(good) < returns:
        what = f"{len(points) - np.count_nonzero(good)} of its {len(points)} points are not finite or over {NEAR / 1e3:g} km away"
        raise DataError(f"the LiDAR file {path} cannot be a scan: {what if len(points) else 'it is empty'}. Restore it from its source.")
    return good


def _why_no_pose(pose: np.ndarray) -> str:
    """What is wrong with a matrix (4, 4) that is no pose, and what to do."""
    rotation = pose[:3, :3]
    if not np.isfinite(pose).all():
        return "it holds NaN or infinity."
    if not np.allclose(pose[3], [0, 0, 0, 1], atol=_ROUNDING):
        return "it is not a rigid transform: its last row must be (0, 0, 0, 1). Is it transposed?"
    with np.errstate(all="ignore"):
        volume = float(np.linalg.det(rotation))
        unscaled = rotation / max(abs(volume), 1e-9) ** (1 / 3)
        is_scaled = volume > 0 and np.abs(unscaled @ unscaled.T - np.eye(3)).max() <= 1e-3
    if is_scaled:
        why = (
            f"its 3x3 part is a rotation scaled by {volume ** (1 / 3):.5g}; divide it by that, or normalise the quaternion it was made of."
        )
    elif volume < 0:
        why = "its 3x3 part mirrors. Check the handedness: camera axes are x right, y down, z forward."
    else:
        why = "its 3x3 part must be a rotation. Check the quaternion order (w, x, y, z), or write the matrix with more digits."
    return f"it is not a rigid transform: {why}"


def _array(values: Any) -> np.ndarray:
    """As float64 in numpy, wherever it lies."""
    return values.detach().cpu().double().numpy() if isinstance(values, torch.Tensor) else np.asarray(values, np.float64)
