"""Batch: what a model receives. Models see nothing else, and return Predictions."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor

from frustum.errors import ShapeError
from frustum.geometry import CameraRig
from frustum.types.arrays import ArrayReader, network_images

_GEOMETRY = ("rig", "key_ego2global", "bev_aug", "frame_ego2global", "is_present")


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
