"""Poses, calibrations and annotations of the index, held to what they can be (`geometry.plausible`); an error names table and record."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from frustum.data.nuscenes.index_build import Arrays
from frustum.errors import DataError
from frustum.geometry import pose, quaternion_to_matrix
from frustum.geometry.plausible import BOX, COUNTS, IMAGE_SIZE, NEAR, Fault, first_fault, intrinsics_fault, pose_row_fault


def sensor_poses(folder: Path, frames: Arrays, rows: np.ndarray) -> np.ndarray:
    """sensor2ego (*, 4, 4) of rows of calibration. Raises DataError for one that cannot be."""
    poses = frames["calibration_pose"][rows]
    _check_calibration(folder, frames, rows, pose_row_fault(poses, NEAR))
    return _matrices(poses)


def camera_intrinsics(folder: Path, frames: Arrays, rows: np.ndarray) -> np.ndarray:
    """Intrinsics (*, 3, 3) of rows of calibration, of cameras. Raises DataError for some that cannot be."""
    intrinsics = frames["calibration_intrinsics"][rows]
    _check_calibration(folder, frames, rows, intrinsics_fault(intrinsics))
    return intrinsics


def _check_calibration(folder: Path, frames: Arrays, rows: np.ndarray, found: Fault | None) -> None:
    if found is not None:
        row = rows[found.place]
        channel, token = frames["channel"][frames["calibration_channel"][row]].decode(), frames["calibration_token"][row].decode()
        where = f"the calibration {token} of {channel} in {folder / 'calibrated_sensor.json'}"
        raise DataError(f"{where} cannot be right: {found.words} Correct it.")


def ego_poses(folder: Path, files: Arrays, rows: np.ndarray) -> np.ndarray:
    """ego2global (*, 4, 4) of rows of files. Raises DataError for one that cannot be."""
    poses = files["file_pose"][rows]
    if (found := pose_row_fault(poses)) is not None:
        name = files["file_name"][rows[found.place]].decode()
        raise DataError(f"the pose of {name} in {folder / 'ego_pose.json'} cannot be right: {found.words} Correct it.")
    return _matrices(poses)


def image_sizes(folder: Path, files: Arrays, rows: np.ndarray) -> np.ndarray:
    """Height and width (*, 2) of rows of files, 0 where the tables do not say. Raises DataError for what no image has."""
    sizes = files["file_size"][rows]
    if (found := first_fault(np.where(sizes == 0, 1, sizes), IMAGE_SIZE)) is not None:
        name = files["file_name"][rows[found.place]].decode()
        raise DataError(f"the size of {name} in {folder / 'sample_data.json'} cannot be right: {found.words} Correct it.")
    return sizes


def box_poses(folder: Path, boxes: Arrays, ego2global: np.ndarray) -> np.ndarray:
    """box2global (M, 4, 4) of the annotations of a keyframe (`index_build.build_boxes`), whose vehicle stands at `ego2global` (4, 4).

    Raises:
        DataError: a size, centre, rotation, velocity or number of points cannot be. An unknown velocity is NaN.
    """
    place, size, rest = boxes["pose"][:, :3] - ego2global[:3, 3], boxes["size"], np.zeros((len(boxes["size"]), 1))
    counts = np.stack([boxes[bounds.name] for bounds in COUNTS], 1)
    faults = (
        first_fault(np.concatenate([place, size, rest, boxes["velocity"][:, :2]], 1), BOX),
        pose_row_fault(boxes["pose"]),
        first_fault(counts, COUNTS),
    )
    for found in filter(None, faults):
        token = boxes["token"][found.place].decode()
        where = f"the box {token} in {folder / 'sample_annotation.json'}"
        raise DataError(f"{where} cannot be right: {found.words} Correct it, or remove it.")
    return _matrices(boxes["pose"])


def _matrices(rows: np.ndarray) -> np.ndarray:
    """Transforms (*, 4, 4) of pose rows (*, 7)."""
    return pose(quaternion_to_matrix(rows[..., 3:]), rows[..., :3])
