"""The nouns that everything shares: Sample (one keyframe, numpy), Batch (collated, torch) and Prediction.

A Sample is what a reader finds on disk; `data.pipeline` turns samples into a Batch, models see nothing else, and return Predictions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frustum.errors import DataError, ShapeError
from frustum.geometry import CameraRig, VoxelGrid


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

    def open(self) -> Image.Image:
        """The image, RGB. Raises DataError when the file is missing or unreadable."""
        try:
            with Image.open(self.path) as image:
                return image.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(
                f"cannot read the image {self.path}: {error}. Restore the file or run `frustum check` to list all such files."
            ) from error


@dataclass(frozen=True)
class LidarFrame:
    """One LiDAR sweep."""

    path: Path
    timestamp: float  # seconds
    lidar2ego: np.ndarray  # (4, 4)
    ego2global: np.ndarray  # (4, 4) at the sweep's timestamp

    def load(self) -> np.ndarray:
        """Points (P, 5) float32: x, y, z in the sensor frame in metres, intensity, ring. Raises DataError."""
        try:
            raw = np.fromfile(self.path, np.float32)
        except OSError as error:
            raise DataError(f"cannot read the LiDAR file {self.path}: {error}.") from error
        if raw.size % 5:
            raise DataError(
                f"the LiDAR file {self.path} holds {raw.size} floats, which is not a multiple of 5 (x, y, z, intensity, ring): truncated?"
            )
        return raw.reshape(-1, 5)


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
    """Labels of one keyframe as in Occ3D, all uint8 (X, Y, Z); masks are 1 where observed, `instances` 0 where none."""

    semantics: np.ndarray
    mask_lidar: np.ndarray
    mask_camera: np.ndarray
    instances: np.ndarray | None = None


@dataclass(frozen=True)
class Sample:
    """One keyframe as found on disk; images and points are read when asked for."""

    token: str
    scene: str
    timestamp: float  # seconds
    ego2global: np.ndarray  # (4, 4) at the keyframe's LIDAR_TOP time; the frame of boxes and occupancy
    cameras: tuple[CameraFrame, ...]
    lidar: LidarFrame | None = None
    boxes: Boxes | None = None
    occupancy: Occupancy | None = None
    history: tuple[tuple[CameraFrame, ...], ...] = ()  # cameras of past keyframes, newest first
    lidar_sweeps: tuple[LidarFrame, ...] = ()  # sweeps before the keyframe, newest first


@dataclass(frozen=True)
class Batch:
    """What a model receives. Shape letters: B batch, T time (0 = keyframe, then the past), N cameras, H W image, X Y Z voxels.

    Attributes:
        images: (B, T, N, 3, H, W) float, normalised as the model's recipe says.
        rig: CameraRig with leading dimensions (B, T).
        key_ego2global: (B, 4, 4) ego pose at the keyframe: the frame of all labels and predictions.
        bev_aug: (B, 4, 4) ego frame to augmented ego frame (labels and boxes are already in it).
        semantics, mask_camera, mask_lidar: (B, X, Y, Z), uint8 and bool, or None.
        instances: (B, X, Y, Z) uint8, or None.
        depth: (B, N, H, W) metres along the optical axis of the keyframe's cameras, 0 where unknown, or None.
        boxes, box_classes: per sample (M, 9) float and (M,) int64 ids in DETECTION_CLASSES, or None.
        tokens: sample tokens.
    """

    images: Tensor
    rig: CameraRig
    key_ego2global: Tensor
    bev_aug: Tensor
    semantics: Tensor | None = None
    mask_camera: Tensor | None = None
    mask_lidar: Tensor | None = None
    instances: Tensor | None = None
    depth: Tensor | None = None
    boxes: list[Tensor] | None = None
    box_classes: list[Tensor] | None = None
    tokens: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device."""

        def move(value):
            if isinstance(value, (Tensor, CameraRig)):
                return value.to(device)
            if isinstance(value, list) and value and isinstance(value[0], Tensor):
                return [v.to(device) for v in value]
            return value

        return replace(self, **{f.name: move(getattr(self, f.name)) for f in fields(self)})

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray | Tensor,
        intrinsics: np.ndarray | Tensor,
        cam2ego: np.ndarray | Tensor,
        ego2global: np.ndarray | Tensor | None = None,
        image_aug: np.ndarray | Tensor | None = None,
        bev_aug: np.ndarray | Tensor | None = None,
        *,
        key_ego2global: np.ndarray | Tensor | None = None,
        semantics: np.ndarray | Tensor | None = None,
        mask_camera: np.ndarray | Tensor | None = None,
        mask_lidar: np.ndarray | Tensor | None = None,
        depth: np.ndarray | Tensor | None = None,
        tokens: list[str] | None = None,
    ) -> Batch:
        """Build a batch from plain arrays, for use outside our data loaders.

        Args:
            images: float, normalised network input: (N, 3, H, W), (B, N, 3, H, W) or (B, T, N, 3, H, W).
            intrinsics: (*, N, 3, 3) in pixels of the original image. Leading dimensions (*) may be left out here and below: they broadcast.
            cam2ego: (*, N, 4, 4).
            ego2global: (*, N, 4, 4) ego pose at each camera's time; identity if None.
            image_aug: (*, N, 3, 3) from original to network pixels, last row (0, 0, 1); identity if None.
            bev_aug: (*B, 3, 3) or (*B, 4, 4) from ego to augmented ego; identity if None.
            key_ego2global: (*B, 4, 4); by default the ego pose of camera 0 of the keyframe, as in FlashOCC.
            semantics, mask_camera, mask_lidar: (*B, X, Y, Z) labels.
            depth: (*B, N, H, W) metres.

        Raises:
            ShapeError: a shape does not fit.
            DataError: a calibration matrix is not finite, singular, or not rigid; or images are not float.
        """
        images = torch.as_tensor(images)
        if not images.is_floating_point():
            raise DataError(f"images must be float and normalised, got {images.dtype}. Use data.pipeline for raw 8-bit images.")
        if images.dim() not in (4, 5, 6) or images.shape[-3] != 3:
            raise ShapeError(f"images must have shape (N, 3, H, W), (B, N, 3, H, W) or (B, T, N, 3, H, W), got {tuple(images.shape)}.")
        if images.dim() == 4:
            images = images[None]
        if images.dim() == 5:
            images = images[:, None]
        batch, time, cameras = images.shape[:3]

        def per_camera(value, size: int, name: str) -> Tensor:
            value = torch.as_tensor(value, dtype=torch.float64)
            if value.shape[-3:] != (cameras, size, size) or value.dim() > 5:
                raise ShapeError(f"{name} must have shape (*, {cameras}, {size}, {size}), got {tuple(value.shape)}.")
            if value.dim() == 4:  # (B, N, ., .)
                value = value[:, None]
            return value.expand(batch, time, cameras, size, size)

        def per_sample(value, size: int) -> Tensor:
            value = torch.as_tensor(value, dtype=torch.float64)
            if value.shape[-1] == 3 and size == 4:
                full = torch.eye(4, dtype=torch.float64).repeat(*value.shape[:-2], 1, 1)
                full[..., :3, :3] = value
                value = full
            return value.expand(batch, size, size)

        def labels(value, lead: int, dtype: torch.dtype) -> Tensor | None:
            if value is None:
                return None
            value = torch.as_tensor(value)
            value = value[None] if value.dim() == lead else value
            return value.expand(batch, *value.shape[1:]).to(dtype)

        rig = CameraRig.create(
            per_camera(intrinsics, 3, "intrinsics"),
            per_camera(cam2ego, 4, "cam2ego"),
            (images.shape[-2], images.shape[-1]),
            None if ego2global is None else per_camera(ego2global, 4, "ego2global"),
            None if image_aug is None else per_camera(image_aug, 3, "image_aug"),
        )
        return cls(
            images=images,
            rig=rig,
            key_ego2global=rig.ego2global[:, 0, 0] if key_ego2global is None else per_sample(key_ego2global, 4),
            bev_aug=per_sample(torch.eye(4), 4) if bev_aug is None else per_sample(bev_aug, 4),
            semantics=labels(semantics, 3, torch.uint8),
            mask_camera=labels(mask_camera, 3, torch.bool),
            mask_lidar=labels(mask_lidar, 3, torch.bool),
            depth=labels(depth, 3, torch.float32),
            tokens=tokens or [f"sample-{i}" for i in range(batch)],
        )


@dataclass(frozen=True)
class Prediction:
    """What a model says about one sample, in the ego frame of its keyframe and SI units.

    Attributes:
        token: sample token.
        semantics: (X, Y, Z) uint8 class ids, or None.
        grid, class_names: what the voxels and ids mean.
        scores: optional (X, Y, Z) float32 probability of the named class.
    """

    token: str
    semantics: Tensor | None = None
    grid: VoxelGrid | None = None
    class_names: tuple[str, ...] = ()
    scores: Tensor | None = None
