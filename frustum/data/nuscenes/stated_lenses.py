"""Distortion that tables state beside the intrinsics: images of the nuScenes format are read as if they had none.

tier4's tables have `camera_distortion`; others write it under other names, and name the model of the lens.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frustum.errors import DataError

_COEFFICIENTS = ("dist", "d", "k1", "k2", "k3", "p1", "p2")
_MODELS = ("camera_model", "lens_model", "projection_model", "camera_type")
_STRAIGHT = ("", "pinhole", "perspective", "none", "plumb_bob", "radtan", "brown_conrady", "rational", "rational_polynomial", "opencv")


def require_pinhole(folder: Path, calibrations: list[dict[str, Any]], sensors: list[dict[str, Any]]) -> None:
    """Check that calibrated_sensor.json states neither coefficients of a distortion that are not zero nor a lens that is no pinhole.

    Raises:
        DataError: it does; images of this format are read as those of a pinhole camera.
    """
    channels = {s["token"]: s["channel"] for s in sensors}
    for row in calibrations:
        for key, given in row.items():
            name = key.lower()
            is_model = name in _MODELS or ("dist" in name and "model" in name)
            if not (is_model or "distort" in name or name.startswith("dist_coef") or name in _COEFFICIENTS):
                continue
            if _says_lens(given, is_model):
                raise DataError(
                    f"{folder / 'calibrated_sensor.json'} states a {key} for {channels.get(row['sensor_token'], 'a camera')}: {given}. "
                    "Images in this format are read as those of a pinhole camera. Undistort them, for example with OpenCV, and write "
                    f"{key}: {'null' if is_model else '[]'} beside the new camera_intrinsic; if they are undistorted already, write that "
                    "alone."
                )


def _says_lens(given: Any, is_model: bool) -> bool:
    """Whether a value says that images are distorted: a model that is none of a straight lens, or a number that is not 0."""
    if isinstance(given, str):
        word = given.strip().lower().replace("-", "_").replace(" ", "_")
        return (
            word not in _STRAIGHT if is_model or word in _STRAIGHT else any(_number(part) != 0 for part in word.replace(",", " ").split())
        )
    return any(_says_lens(value, is_model) if isinstance(value, str) else value != 0 for value in _leaves(given))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _leaves(value: Any) -> Iterator[Any]:
    """The values in nested lists and objects; nothing for null."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    elif value is not None:
        yield value
