"""Are the times of calibration.json seconds and its positions metres? Others are refused before anything is written, with the factor."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from frustum.errors import DataError, FrustumWarning

TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Seconds of each unit that `time_unit` may name."""
_LAST_DATE = 4.2e9  # seconds since 1970: the year 2103
_GAPS = 1e-3, 5.0  # seconds between frames that recordings have
_LONGEST_GAP = 1e5  # seconds: more than a day
_FARTHEST_CAMERA = 30.0  # metres from the origin of the ego frame
_FASTEST = 100.0  # metres per second
_CRAWL = 0.02  # metres per second


def require_times(given: Sequence[float], unit: str | None, path: Path) -> None:
    """Refuse times that are not in the unit that they are said to be in, and two frames at one time.

    Args:
        given: the ascending timestamps as `path` has them.
        unit: its `time_unit`; None where it does not say, which means seconds. A stated unit is believed where frames are far apart.

    Raises:
        DataError: naming the unit that they seem to have, and its factor.
    """
    stamps = np.array(given, np.float64)
    seconds = stamps * TIME_UNITS[unit or "s"]
    gaps = np.diff(seconds)
    equal = np.flatnonzero(np.diff(np.rint(seconds * 1e6)) == 0)
    if len(equal):
        raise DataError(
            f"two frames in {path} have the timestamp {stamps[equal[0]]:.10g}, to the microsecond. Each moment is one entry of "
            '"frames", with the images of all its cameras; is the "time_unit" right?'
        )
    gap = float(np.median(gaps)) if len(gaps) else 0.0
    if (farthest := float(np.abs(seconds).max())) > _LAST_DATE:
        problem = f"the timestamp {stamps[np.abs(seconds).argmax()]:.10g} would be {farthest / 3.156e7:,.0f} years from 1970"
    elif gap > _GAPS[1] and unit is None:
        problem = f"frames would be {gap:,.10g} seconds apart"
    elif 0 < gap < _GAPS[0]:
        problem = f"frames would be {gap:.2g} seconds apart"
    elif len(gaps) and gaps.max() > _LONGEST_GAP and unit is None:
        raise DataError(
            f"the frames in {path} jump by {gaps.max() / 86400:,.1f} days after the timestamp {stamps[gaps.argmax()]:.10g}: one of them is "
            'in another unit, or they are of two recordings. Correct it, or import two folders. If it is right, write "time_unit": "s".'
        )
    else:
        return
    likely = _likely_unit(float(np.abs(stamps).max()), float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0)
    if TIME_UNITS[likely] == TIME_UNITS[unit or "s"]:
        raise DataError(
            f"the timestamps in {path} are not {_NAMES[unit or 's']}: {problem}. Minutes, hours or days are multiplied by 60, 3600 or "
            '86400; without "timestamp" frames are half a second apart.'
        )
    stays = ' If they are right, write "time_unit": "s".' if unit is None and farthest <= _LAST_DATE else ""
    raise DataError(
        f"the timestamps in {path} are not {'seconds' if unit in (None, 's') else unit}: {problem}. They look like {_NAMES[likely]}: write "
        f'"time_unit": "{likely}" beside "frames", or multiply them by {TIME_UNITS[likely]:g}.{stays}'
    )


_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def _likely_unit(largest: float, gap: float) -> str:
    """The unit in which frames are as far apart as in recordings; else the one in which the times are dates."""
    for unit, factor in TIME_UNITS.items():
        if _GAPS[0] <= gap * factor <= _GAPS[1] and largest * factor <= _LAST_DATE:
            return unit
    return next(unit for unit, factor in TIME_UNITS.items() if largest * factor <= _LAST_DATE or unit == "ns")


def require_metres(cam2ego: np.ndarray, what: str) -> None:
    """Refuse a sensor that is farther from the ego origin than any vehicle is large. Raises DataError with the factor."""
    distance = float(np.linalg.norm(cam2ego[:3, 3]))
    if distance > _FARTHEST_CAMERA:
        raise DataError(
            f"{what} puts the sensor {distance:,.1f} m away from the origin of the ego frame, which is on the vehicle; translations are in "
            f"metres. If these are millimetres, multiply them by 0.001 ({0.001 * distance:.2f} m), centimetres by 0.01 "
            f"({0.01 * distance:.2f} m)."
        )


def require_speed(seconds: Sequence[float], ego2global: Sequence[np.ndarray | None], path: Path) -> None:
    """Refuse poses between which the vehicle is faster than any: they are not in metres. Raises DataError with the factor.

    Warns of a single jump, and of a vehicle that hardly moves, which is what kilometres and degrees of a GPS look like.
    """
    positions = [pose[:3, 3] for pose in ego2global if pose is not None]
    if len(positions) < 2 or len(positions) < len(ego2global):
        return
    speeds = np.linalg.norm(np.diff(positions, axis=0), axis=1) / np.diff(seconds)
    speed, fastest = float(np.median(speeds)), int(speeds.argmax())
    if speed > _FASTEST:
        raise DataError(
            f"by the ego2global of {path} the vehicle moves at {speed:,.0f} m/s; translations are in metres. If these are millimetres, "
            f"multiply them by 0.001 ({0.001 * speed:.1f} m/s), centimetres by 0.01 ({0.01 * speed:.1f} m/s); if they are metres, the "
            "timestamps are wrong: they are in seconds."
        )
    if speeds[fastest] > _FASTEST:
        jump = speeds[fastest] * (seconds[fastest + 1] - seconds[fastest])
        warnings.warn(
            f"by the ego2global of {path} the vehicle jumps by {jump:,.1f} m between the frames {fastest} and {fastest + 1}. Networks that "
            "join frames over time put what was before it in a wrong place: correct that pose, or import two recordings.",
            FrustumWarning,
            stacklevel=2,
        )
    elif 0 < speed < _CRAWL:
        warnings.warn(
            f"by the ego2global of {path} the vehicle hardly moves, {speed:.2g} m/s. Right for one that stands; else translations are not "
            "in metres but in kilometres, or degrees of a GPS.",
            FrustumWarning,
            stacklevel=2,
        )
