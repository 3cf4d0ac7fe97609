"""The sizes of images in tables: stated, or else those of the files; images that share a calibration must have one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from frustum.data.pixels import read_image, upright_size
from frustum.errors import DataError
from frustum.files import inside


def image_sizes(folder: Path, files: list[dict[str, Any]], calibration: np.ndarray, is_camera: np.ndarray) -> np.ndarray:
    """(height, width) of each file (F, 2) int32, zeros for those of other sensors.

    Args:
        folder: of the tables, which lies in the root of the data set.
        files: rows of sample_data.json. Where one states no size, the header of its image is read; of an image that is not on the disk the
            size is that of the others of its calibration.
        calibration: (F,) int, row of the calibrated_sensor of each file.
        is_camera: (F,) bool.

    Raises:
        DataError: images of two sizes share one calibration, whose intrinsics belong to one of them, or a file lies outside the data set.
    """
    sizes = np.zeros((len(files), 2), np.int32)
    first: dict[int, int] = {}  # the first file of each calibration whose size is known
    unknown: list[int] = []
    for i in np.flatnonzero(is_camera).tolist():
        size = _stated(files[i])
        if size is None and (path := inside(folder.parent, files[i]["filename"])).is_file():
            size = read_image(path, upright_size)
        if size is None:
            unknown.append(i)
            continue
        sizes[i] = size
        if min(size) < 0:  # refused when it is read
            continue
        other = first.setdefault(int(calibration[i]), i)
        if (sizes[other] != sizes[i]).any():
            raise _two_sizes(folder, files[other], files[i], sizes[other], sizes[i])
    for i in unknown:
        if int(calibration[i]) in first:
            sizes[i] = sizes[first[int(calibration[i])]]
    return sizes


def _stated(row: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) of a row; None where it does not say, or says 0."""
    height, width = int(row.get("height") or 0), int(row.get("width") or 0)
    return (height, width) if height and width else None


def _two_sizes(folder: Path, one: dict[str, Any], other: dict[str, Any], size: np.ndarray, other_size: np.ndarray) -> DataError:
    named = " and ".join(f"{w}x{h} ({row['filename']})" for row, (h, w) in ((one, size.tolist()), (other, other_size.tolist())))
    return DataError(
        f"two images of {folder / 'sample_data.json'} share one calibrated_sensor and have different sizes, {named}, but its "
        "camera_intrinsic belongs to one. Scale the others to that size, or give them a calibrated_sensor of their own, whose "
        "camera_intrinsic is scaled alike."
    )
