"""2D labels kept in a folder: `TOKEN.npz` of each keyframe, beside `views.json`, which says how they were made.

Each file also holds what its labels were made of: two worlds have keyframes of the same tokens, and a data set may be made anew in its
place. So labels of other cameras or other points are refused instead of read.

Shape letters: N cameras, P points of all images.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frustum.data.labels.depth import lidar2camera
from frustum.data.labels.view_points import ImagePoints, Views, truth_images, view_points
from frustum.data.sample import Sample
from frustum.errors import DataError
from frustum.files import atomic_path, read_json, write_json
from frustum.geometry.plausible import NEAR
from frustum.locks import owning
from frustum.npz import open_npz

ABOUT = "views.json"
"""The file of a folder that says how its labels were made."""

_SIZE, _LENS, _POSE, _FILES = slice(0, 2), slice(2, 11), slice(11, 27), slice(27, 31)  # of a row of origins
_OTHER = {"intrinsics": _LENS, "pose of the camera to the LiDAR": _POSE, "files of points or pixels": _FILES}
_SAME = 1e-6  # of intrinsics and poses, relative
_HEAD = 65536  # bytes of a file that are looked at, beside its size


@owning("folder", "frustum data labels-2d")
def write_views(source: Any, tokens: Iterable[str], folder: Path, views: Views) -> int:
    """Write the 2D labels of keyframes; how many are new.

    What is there already is not made again, but for damaged files and those of versions that did not say what they were made of.

    Raises:
        DataError: labels cannot be made; the folder holds labels that were made otherwise, or of another data set, or anything else.
    """
    about = folder / ABOUT
    if about.is_file():
        check_cache(folder, views)
    else:
        require_empty(folder)
        write_json(about, made_of(views), indent=2)
    new = 0
    for token in tokens:
        path, sample = folder / f"{token}.npz", source.sample(token, with_boxes=False, occupancy=False)
        found = origins(source, sample, views)
        if path.is_file() and _is_there(path, sample, found):
            continue
        images, channels = view_points(source, sample, views), np.array([camera.channel for camera in sample.cameras])
        arrays = {name: np.concatenate([getattr(image, name) for image in images]) for name in ImagePoints._fields}
        with atomic_path(path, ".npz") as temporary:
            arrays["counts"] = np.array([len(image.depth) for image in images])
            np.savez_compressed(temporary, **arrays, channels=channels, origins=found)  # type: ignore[arg-type]
        new += 1
    return new


def require_empty(folder: Path) -> None:
    """Raise DataError if a folder without `views.json` holds anything: a data set, or labels that do not say how they were made."""
    found = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
    if found:
        raise DataError(
            f"{folder} is no folder of 2D labels: it holds {', '.join(found[:3])}{' and more' * (len(found) > 3)}, but no views.json, "
            "which says how labels were made. Choose a new folder with --out."
        )


def check_cache(folder: Path, views: Views) -> None:
    """Raise DataError unless the folder holds labels that are made as these settings say."""
    about, wanted = folder / ABOUT, made_of(views)
    if not about.is_file():
        raise DataError(f"{folder} holds no 2D labels. Write them: {_command('FOLDER' if folder.exists() else folder, wanted)}")
    if (made := read_json(about, "settings of 2D labels")) != wanted:
        train = f"; to train with these, set {as_settings(made)}" if isinstance(made, dict) and set(made) == set(wanted) else ""
        raise DataError(
            f"the 2D labels in {folder} were made with {made}, but {wanted} is wanted. To write others, choose another --out folder{train}."
        )


def read_cache(folder: Path, source: Any, sample: Sample, views: Views) -> list[ImagePoints]:
    """What `write_views` wrote of a keyframe, up to `views.max_depth`.

    Raises:
        DataError: the file is missing or damaged, lacks a camera, or is of another data set.
    """
    path = folder / f"{sample.token}.npz"
    rows, stored = _compared(path, sample, origins(source, sample, views))
    return [_up_to(stored.images[row], views.max_depth) for row in rows]


def origins(source: Any, sample: Sample, views: Views) -> np.ndarray:
    """What the labels of each image depend on, (N, 31) float64; NaN where something is not there, or does not matter.

    Height and width; intrinsics (9) of pixels; LiDAR to camera (16), row by row; size and check sum of two files: LiDAR points and their
    classes, or the truth images of a street world.
    """
    rows = np.full((len(sample.cameras), _FILES.stop), np.nan)
    lidar, files = sample.lidar, [np.nan] * 4
    if lidar is not None and views.source != "dense":
        find = getattr(source, "point_label_file", lambda _: None) if views.source == "lidarseg" else lambda _: None
        files = [*file_sum(lidar.path), *file_sum(find(sample.token))]
    for row, camera in zip(rows, sample.cameras, strict=True):
        row[_SIZE], row[_LENS], row[_FILES] = camera.size, camera.intrinsics.ravel(), files
        if views.source == "dense":
            row[_FILES] = [number for path in truth_images(camera) for number in file_sum(path)]
        elif lidar is not None:
            row[_POSE] = lidar2camera(lidar, camera).ravel()
    return rows


class _Stored(NamedTuple):
    channels: list[str]
    origins: np.ndarray
    images: list[ImagePoints]


class _DamagedError(DataError):
    """A file that can be made again."""


def _read(path: Path, with_points: bool) -> _Stored:
    about = path.with_name(ABOUT)
    made = read_json(about, "settings of 2D labels") if about.is_file() else {}
    advice = f"Write them again: {_command(path.parent, made if isinstance(made, dict) else {})}"
    if not path.is_file():
        raise _DamagedError(f"there are no 2D labels of keyframe {path.stem} in {path.parent}. {advice}")
    try:
        with open_npz(path) as archive:
            if "origins" not in archive:
                raise _DamagedError(f"the 2D labels {path} do not say what they were made of: they are of an earlier version. {advice}")
            images = []
            if with_points:
                ends = np.cumsum(archive["counts"])[:-1]
                columns = {name: archive[name] for name in ImagePoints._fields}
                if columns["pixels"].ndim != 2 or {len(column) for column in columns.values()} != {archive["counts"].sum()}:
                    raise ValueError("its arrays are of other numbers of points")
                if not (np.isfinite(columns["pixels"]).all() and (np.abs(columns["depth"]) <= NEAR).all()):
                    raise ValueError("a point has a place or depth that cannot be")
                parts = zip(*(np.split(columns[name], ends) for name in ImagePoints._fields), strict=True)
                images = [ImagePoints(*part) for part in parts]
            stored = _Stored(archive["channels"].tolist(), archive["origins"], images)
        if len(stored.channels) != len(stored.origins) or (with_points and len(images) != len(stored.channels)):
            raise ValueError("its arrays are of other numbers of cameras")
    except _DamagedError:
        raise
    except Exception as error:  # zipfile, zlib, KeyError, ValueError: whatever a damaged file leads to
        raise _DamagedError(f"cannot read the 2D labels {path}: {error}. {advice}") from error
    return stored


def _compared(path: Path, sample: Sample, wanted: np.ndarray, with_points: bool = True) -> tuple[list[int], _Stored]:
    """What is stored, and which of its cameras are those of the sample. Raises DataError."""
    stored, channels = _read(path, with_points), [camera.channel for camera in sample.cameras]
    if missing := [channel for channel in channels if channel not in stored.channels]:
        raise DataError(f"{path} holds no labels of {', '.join(missing)}. Write them with these cameras into another --out folder.")
    rows = [stored.channels.index(channel) for channel in channels]
    tolerance = np.zeros(_FILES.stop)
    tolerance[: _FILES.start] = _SAME
    is_other = np.abs(stored.origins[rows] - wanted) > tolerance * (1 + np.abs(wanted))  # False for NaN
    if is_other.any():
        camera = int(is_other.any(1).argmax())
        there, here = (f"{row[0]:.0f}x{row[1]:.0f}" for row in (stored.origins[rows][camera], wanted[camera]))
        what = [f"images of {there} pixels where this data set has {here}"] * bool(is_other[camera, _SIZE].any())
        what += [f"other {name}" for name, part in _OTHER.items() if is_other[camera, part].any()]
        raise DataError(
            f"the 2D labels {path} are of another data set: {channels[camera]} had {', '.join(what)}. Write those of this one into another "
            "folder, and train with it: frustum data labels-2d ROOT --out OTHER, model.views.cache=OTHER"
        )
    return rows, stored


def _is_there(path: Path, sample: Sample, wanted: np.ndarray) -> bool:
    """Whether a file holds the labels of a keyframe, undamaged. Raises DataError if they are of another data set."""
    try:
        _compared(path, sample, wanted, with_points=False)
    except _DamagedError:
        return False
    return True


def made_of(views: Views) -> dict[str, Any]:
    """What all files of a folder have in common."""
    return {"source": views.source, "hidden": 0.0 if views.source == "dense" else views.hidden}  # nothing of dense is hidden


def _command(folder: Path | str, made: dict[str, Any]) -> str:
    """What writes labels as `made_of` says."""
    return " ".join([f"frustum data labels-2d ROOT --out {folder}", *(f"--{name} {value}" for name, value in made.items())])


def as_settings(made: dict[str, Any]) -> str:
    """`made_of` as it is typed behind `frustum train RECIPE`."""
    return " ".join(f"model.views.{name}={value}" for name, value in made.items())


def file_sum(path: Path | None) -> tuple[float, float]:
    """Size in bytes and CRC-32 of the beginning of a file; NaN where there is none: labels can be read without what they were made of."""
    if path is None:
        return np.nan, np.nan
    try:
        with path.open("rb", buffering=0) as file:
            return path.stat().st_size, zlib.crc32(file.read(_HEAD))
    except OSError:
        return np.nan, np.nan


def _up_to(points: ImagePoints, max_depth: float) -> ImagePoints:
    return ImagePoints(*(array[points.depth <= max_depth] for array in points))
