"""What a reader finds on disk of one keyframe: Sample and its parts, numpy. `data.pipeline` turns samples into a Batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from frustum.data.pixels import photograph, read_image
from frustum.errors import DataError
from frustum.files import check_is_file
from frustum.geometry import VoxelGrid
from frustum.geometry.plausible import plausible_points
from frustum.types.classes import FLAT_CLASSES, OCC3D_CLASSES, OCC3D_COLOURS, OCC3D_FREE
from frustum.types.layers import Legend, VoxelLayer


@dataclass(frozen=True)
class CameraFrame:
    """One image of one camera with its own time, calibration and ego pose."""

    channel: str
    path: Path
    timestamp: float  # seconds
    intrinsics: np.ndarray  # (3, 3)
    cam2ego: np.ndarray  # (4, 4)
    ego2global: np.ndarray  # (4, 4) at this camera's timestamp
    size: tuple[int, int]  # (height, width) in pixels
    is_own_rig: bool = False  # imported from a rig folder: see `augment.window`

    def open(self) -> Image.Image:
        """The image, RGB and upright. Raises DataError when the file is missing, unreadable, or of more than 8 bits per colour."""
        advice = (
            "Restore the file. `frustum data status ROOT` says which scenes have all their images and how to train on these alone; "
            "`frustum check` finds damaged ones."
        )
        return read_image(self.path, photograph, advice)


@dataclass(frozen=True)
class LidarFrame:
    """One LiDAR sweep."""

    path: Path
    timestamp: float  # seconds
    lidar2ego: np.ndarray  # (4, 4)
    ego2global: np.ndarray  # (4, 4) at the sweep's timestamp

    def load(self) -> np.ndarray:
        """Points (P, 5) float32: x, y, z in the sensor frame in metres, intensity, ring, without those that cannot be. Raises DataError."""
        points, can_be = self.load_all()
        return points if can_be.all() else points[can_be]

    def load_all(self) -> tuple[np.ndarray, np.ndarray]:
        """The points (P, 5) as they are in the file, as `load`, and which of them can be (P,), bool: `geometry.plausible_points`.

        Raises:
            DataError: the file is missing or damaged, or no scan: most of its points cannot be.
        """
        check_is_file(self.path, "LiDAR file")
        try:
            raw = np.fromfile(self.path, np.float32)
        except OSError as error:
            raise DataError(f"cannot read the LiDAR file {self.path}: {error}.") from error
        if raw.size % 5:
            raise DataError(f"the LiDAR file {self.path} holds {raw.size} floats, not a multiple of 5 (x, y, z, intensity, ring).")
        points = raw.reshape(-1, 5)
        return points, plausible_points(points, self.path)


@dataclass(frozen=True)
class Boxes:
    """M annotated boxes of one keyframe, ego frame at the keyframe."""

    boxes: np.ndarray  # (M, 9) float64, geometry.BOX_FIELDS; velocity NaN where unknown
    box2ego: np.ndarray  # (M, 4, 4) full pose: the ego vehicle pitches and rolls, `boxes` keeps the heading only
    names: list[str]  # detection class, or the raw category where it is none of the ten
    tokens: list[str]
    instances: list[str]  # instance tokens
    attributes: list[str]  # attribute name or ""
    visibility: np.ndarray  # (M,) int, 1..4, 0 unknown
    num_lidar_pts: np.ndarray  # (M,) int
    num_radar_pts: np.ndarray  # (M,) int

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Occupancy:
    """Labels of one keyframe as in Occ3D, all uint8 (X, Y, Z); masks are 1 where observed, `instances` 0 where none.

    `instances` of more than 255 objects are int32.
    """

    semantics: np.ndarray
    mask_lidar: np.ndarray
    mask_camera: np.ndarray
    instances: np.ndarray | None = None

    def layer(self, grid: VoxelGrid) -> VoxelLayer:
        """The labels as something to draw, inside the camera mask; objects are left out."""
        flat = tuple(OCC3D_CLASSES.index(name) for name in FLAT_CLASSES)
        return VoxelLayer(self.semantics, Legend(OCC3D_CLASSES, OCC3D_COLOURS), OCC3D_FREE, grid, flat, self.mask_camera)


@dataclass(frozen=True)
class Sample:
    """One keyframe as stored on disk; images and points are read later."""

    token: str
    scene: str
    timestamp: float  # seconds
    ego2global: np.ndarray  # (4, 4) at the keyframe's LIDAR_TOP time; the frame of boxes and occupancy
    cameras: tuple[CameraFrame, ...]
    lidar: LidarFrame | None = None
    boxes: Boxes | None = None
    occupancy: Occupancy | None = None
    history: tuple[tuple[CameraFrame, ...], ...] = ()  # cameras of past keyframes, newest first
    history_ego2global: tuple[np.ndarray, ...] = ()  # (4, 4) each: what `ego2global` was at these keyframes
    lidar_sweeps: tuple[LidarFrame, ...] = ()  # sweeps before the keyframe, newest first
    camera_sweeps: tuple[tuple[CameraFrame, ...], ...] | None = None  # at moments before, newest first; None: not read, or keyframes alone
    has_poses: bool = True  # False: ego2global is unknown, and an identity stands in for it

    @property
    def name(self) -> str:
        """Scene and time in milliseconds: what pictures of it are called, and how people are told of it."""
        return f"{self.scene}_{round(self.timestamp * 1e3)}"
