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

from frustum.data.arrays import ArrayReader, network_images
from frustum.errors import DataError, ShapeError
from frustum.geometry import CameraRig, VoxelGrid

_GEOMETRY = ("rig", "key_ego2global", "bev_aug", "frame_ego2global", "is_present")


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
    history_ego2global: tuple[np.ndarray, ...] = ()  # (4, 4) each: what `ego2global` was at these keyframes
    lidar_sweeps: tuple[LidarFrame, ...] = ()  # sweeps before the keyframe, newest first
    has_poses: bool = True  # False: ego2global is unknown, and an identity stands in for it


@dataclass(frozen=True)
class Batch:
    """What a model receives. Shape letters: B batch, T time (0 = keyframe, then the past), N cameras, H W image, X Y Z voxels.

    Attributes:
        images: (B, T, N, 3, H, W) float, normalised as the model's recipe says.
        rig: CameraRig with leading dimensions (B, T).
        key_ego2global: (B, 4, 4) ego pose at the keyframe: the frame of all labels and predictions. With `data.map_frame=camera0` it is the
            pose at the first camera's time, as published FlashOCC weights expect; labels ignore the difference.
        bev_aug: (B, 4, 4) ego frame to augmented ego frame (labels and boxes are already in it).
        semantics, mask_camera, mask_lidar: (B, X, Y, Z), uint8 and bool, or None.
        instances: (B, X, Y, Z) uint8, or None.
        depth: (B, N, H, W) metres along the optical axis of the keyframe's cameras, 0 where unknown, or None.
        boxes, box_classes: per sample (M, 9) float and (M,) int64 ids in DETECTION_CLASSES, or None.
        tokens: sample tokens.
        frame_ego2global: (B, T, 4, 4) the ego pose that `key_ego2global` was when each frame was the newest; entry 0 is `key_ego2global`.
            None: the pose of the first camera of each past frame.
        is_present: (B, T) bool, False where a scene has no such frame and the keyframe's images were repeated; None: all are real.
        scenes: name of each sample's scene, or empty where unknown: a history must not cross from one scene to the next.
        has_poses: False when ego poses are unknown: nothing can be aligned over time then.
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
    frame_ego2global: Tensor | None = None
    is_present: Tensor | None = None
    scenes: list[str] = field(default_factory=list)
    has_poses: bool = True

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device, except its geometry: rig, poses, bev_aug and is_present stay where they are, on the CPU.

        Geometry is a few small matrices that need float64, which not every device has. Who computes with them moves the results.
        """

        def move(value):
            if isinstance(value, Tensor):
                return value.to(device)
            if isinstance(value, list) and value and isinstance(value[0], Tensor):
                return [v.to(device) for v in value]
            return value

        return replace(self, **{f.name: move(getattr(self, f.name)) for f in fields(self) if f.name not in _GEOMETRY})

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
        timestamps: np.ndarray | Tensor | None = None,
        scenes: list[str] | None = None,
    ) -> Batch:
        """Build a batch from plain arrays, for use outside our data loaders.

        Args:
            images: float, normalised network input: (N, 3, H, W), (B, N, 3, H, W) or (B, T, N, 3, H, W); cast to float32.
            intrinsics: (*, N, 3, 3) in pixels of the original image. Leading dimensions (*) may be left out here and below: they broadcast.
            cam2ego: (*, N, 4, 4).
            ego2global: (*, N, 4, 4) ego pose at each camera's time; identity if None, which networks with a memory refuse.
            image_aug: (*, N, 3, 3) from original to network pixels, last row (0, 0, 1); identity if None.
            bev_aug: (*B, 3, 3) or (*B, 4, 4) from ego to augmented ego; identity if None.
            key_ego2global: (*B, 4, 4); by default the ego pose of camera 0 of the keyframe, as in FlashOCC.
            semantics, mask_camera, mask_lidar: (*B, X, Y, Z) labels.
            depth: (*B, N, H, W) metres.
            tokens: B names.
            timestamps: (B, T) or (T,) seconds, the same for all cameras; newest first. With them, frames out of order are noticed.
            scenes: B names; with them, a history from another scene is noticed.

        The arguments may lie on different devices: labels and depth follow the images, calibration goes to the CPU (see `to`).

        Raises:
            ShapeError: a shape does not fit.
            DataError: a value is not finite, a calibration matrix is singular, not rigid or has a wrong last row, images are not float,
                or labels hold something else than class ids, masks something else than 0 and 1.
        """
        images = network_images(images)
        batch, time, cameras, _, height, width = images.shape
        read = ArrayReader((batch, time, cameras), (height, width), images.device)
        for what, names in (("tokens", tokens), ("scenes", scenes)):
            if names is not None and len(names) != batch:
                raise ShapeError(f"{what} must name the {batch} samples of the batch, got {len(names)}.")
        rig = CameraRig.create(
            read.per_camera(intrinsics, 3, "intrinsics"),
            read.per_camera(cam2ego, 4, "cam2ego"),
            (height, width),
            None if ego2global is None else read.per_camera(ego2global, 4, "ego2global"),
            None if image_aug is None else read.per_camera(image_aug, 3, "image_aug"),
            None if timestamps is None else read.times(timestamps),
        )
        voxels = read.voxels({"semantics": semantics, "mask_camera": mask_camera, "mask_lidar": mask_lidar})
        return cls(
            images=images,
            rig=rig,
            key_ego2global=rig.ego2global[:, 0, 0] if key_ego2global is None else read.pose(key_ego2global, "key_ego2global"),
            bev_aug=read.transform(torch.eye(4) if bev_aug is None else bev_aug, "bev_aug"),
            semantics=voxels["semantics"],
            mask_camera=voxels["mask_camera"],
            mask_lidar=voxels["mask_lidar"],
            depth=read.depth(depth),
            tokens=tokens or [f"sample-{i}" for i in range(batch)],
            scenes=scenes or [],
            has_poses=ego2global is not None,
        )


@dataclass(frozen=True)
class Prediction:
    """What a model says about one sample, in the ego frame of its keyframe and SI units.

    Attributes:
        token: sample token.
        semantics: (X, Y, Z) uint8 class ids, or None.
        grid, class_names: what the voxels and ids mean.
        instances: (X, Y, Z) integers from 0 to 65535, or None. Voxels of one class that share a number are one segment; so all voxels of a
            class without objects, such as driveable_surface, share one.
    """

    token: str
    semantics: Tensor | None = None
    grid: VoxelGrid | None = None
    class_names: tuple[str, ...] = ()
    instances: Tensor | None = None


@dataclass(frozen=True)
class PanopticOccupancy(Prediction):
    """Occupancy whose objects are told apart.

    Attributes:
        instance_ids: (I,) the numbers in `instances` that are objects.
        instance_classes: (I,) int64 class ids.
        instance_centres: (I, 3) metres.
        instance_scores: (I,) confidence, 0..1.
    """

    instance_ids: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    instance_classes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    instance_centres: Tensor = field(default_factory=lambda: torch.zeros(0, 3))
    instance_scores: Tensor = field(default_factory=lambda: torch.zeros(0))
