"""Batch: what a model receives. Models read nothing else, and return Predictions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from frustum.errors import DataError, FrustumWarning, ShapeError
from frustum.geometry import CameraRig
from frustum.geometry.transforms import send
from frustum.types.arrays import ArrayReader, network_images
from frustum.types.contract import Label
from frustum.types.tensors import count_samples, moved, part, pinned

Value = TypeVar("Value")


class ImageScale(NamedTuple):
    """How photographs, 0..255, became network input: channels in `order`, then (x - mean) / std of each; by default ImageNet's."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    order: str = "rgb"


IMAGENET = ImageScale()
_FAR = 10.0  # metres from the origin of the ego frame, as `data.check.rig` has it


@dataclass(frozen=True)
class Batch:
    """What a model receives. Shape letters: B batch, T time (0 = keyframe, then the past), N cameras, H W image.

    Attributes:
        images: (B, T, N, 3, H, W) float, normalised as the model's recipe says; a set of single images has T = N = 1.
        calibration: CameraRig with leading dimensions (B, T), or None where cameras are not calibrated; `rig` is the same, and never None.
        key_ego2global: (B, 4, 4) ego pose at the keyframe: the frame of all labels and predictions. With `data.map_frame=camera0` it is the
            pose at the first camera's time, as published FlashOCC weights expect; labels ignore the difference.
        bev_aug: (B, 4, 4) ego frame to augmented ego frame (labels are already in it).
        labels: the value of each kind of label that is there, by its class; `need` finds them.
        tokens: sample tokens.
        frame_ego2global: (B, T, 4, 4) the ego pose that `key_ego2global` was when each frame was the newest; entry 0 is `key_ego2global`.
            None: the pose of the first camera of each past frame.
        is_present: (B, T) bool, False where a scene does not have such a frame and the keyframe's images were repeated; None: all are real.
        scenes: name of each sample's scene, or empty where unknown: a history must not cross from one scene to the next.
        has_poses: False when ego poses are unknown: nothing can be aligned over time then.
        lidar2ego: (B, 4, 4) the frame of LIDAR_TOP to the frame of `key_ego2global`, for networks that work in the former; None where a
            sample does not have such a sensor.
        image_scale: how the images were normalised; `photographs` undoes it.
    """

    images: Tensor
    calibration: CameraRig | None
    key_ego2global: Tensor
    bev_aug: Tensor
    labels: Mapping[type[Label[Any]], Any] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    frame_ego2global: Tensor | None = None
    is_present: Tensor | None = None
    scenes: list[str] = field(default_factory=list)
    has_poses: bool = True
    lidar2ego: Tensor | None = None
    image_scale: ImageScale = IMAGENET

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def rig(self) -> CameraRig:
        """The cameras, with leading dimensions (B, T). Raises DataError for images of uncalibrated cameras."""
        if self.calibration is None:
            raise DataError("this network needs calibrated cameras, but the data set holds single images. Choose another recipe or data.")
        return self.calibration

    def photographs(self) -> Tensor:
        """The keyframe's images (B, N, 3, H, W) before they were normalised: RGB, 0..255, float."""
        mean, std = (send(torch.tensor(values)[:, None, None], self.images.device) for values in self.image_scale[:2])
        images = self.images[:, 0] * std + mean
        return images.flip(-3) if self.image_scale.order == "bgr" else images

    def scaled_as(self, scale: ImageScale) -> Batch:
        """The batch with its images normalised in another way: for a network that was trained so."""
        if scale == self.image_scale:
            return self
        mean, std, to_mean, to_std = (
            send(torch.tensor(values)[:, None, None], self.images.device) for values in (*self.image_scale[:2], *scale[:2])
        )
        images = self.images * std + mean
        images = images if scale.order == self.image_scale.order else images.flip(-3)
        return replace(self, images=(images - to_mean) / to_std, image_scale=scale)

    def newest(self, count: int) -> Batch:
        """The batch with its `count` newest frames alone."""
        if count >= self.images.shape[1]:
            return self
        poses, present = (None if value is None else value[:, :count] for value in (self.frame_ego2global, self.is_present))
        rig = None if self.calibration is None else self.calibration[:, :count]
        return replace(self, images=self.images[:, :count], calibration=rig, frame_ego2global=poses, is_present=present)

    def need(self, kind: type[Label[Value]]) -> Value:
        """The labels of a kind: `batch.need(OccupancyLabels).semantics`. Raises DataError if the batch does not have them."""
        if kind not in self.labels:
            raise DataError(f"this network's loss needs {kind.what} in the batch, but there are none. {kind.advice}".rstrip())
        return self.labels[kind]

    def with_labels(self, labels: Mapping[type[Label[Any]], Any]) -> Batch:
        """The batch with labels added, or replaced, on the device of the images. Raises ShapeError for another number of samples."""
        for kind, value in labels.items():
            if (count := count_samples(value)) not in (None, len(self)):
                raise ShapeError(f"the labels {kind.__name__} are of {count} samples, but the batch has {len(self)}.")
        return replace(self, labels={**self.labels, **{kind: moved(value, self.images.device) for kind, value in labels.items()}})

    def __getitem__(self, samples: slice) -> Batch:
        """Some samples as a batch: `batch[1:2]`."""
        cut = {f.name: part(getattr(self, f.name), samples) for f in fields(self) if f.name not in ("calibration", "labels")}
        rig = None if self.calibration is None else self.calibration[samples]
        return replace(self, **cut, calibration=rig, labels={kind: part(value, samples) for kind, value in self.labels.items()})

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device, except its geometry: rig, poses, bev_aug and is_present stay where they are, on the CPU.

        Geometry is a few small matrices that need float64, which not every device has. Who computes with them moves the results.
        """
        labels = {kind: moved(value, device) for kind, value in self.labels.items()}
        return replace(self, images=moved(self.images, device), labels=labels)

    def pin_memory(self) -> Batch:
        """The batch with images and labels in page-locked memory; torch's loaders call it when there is a GPU."""
        return replace(self, images=pinned(self.images), labels={kind: pinned(value) for kind, value in self.labels.items()})

    @classmethod
    def of_images(cls, images: Tensor, tokens: list[str] | None = None) -> Batch:
        """A batch of single images (B, 3, H, W), float and normalised, without calibration."""
        eye = torch.eye(4, dtype=torch.float64).repeat(len(images), 1, 1)
        return cls(images[:, None, None], None, eye, eye, tokens=tokens or [f"sample-{i}" for i in range(len(images))], has_poses=False)

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
        labels: Mapping[type[Label[Any]], Any] | None = None,
        tokens: list[str] | None = None,
        timestamps: np.ndarray | Tensor | None = None,
        scenes: list[str] | None = None,
        lidar2ego: np.ndarray | Tensor | None = None,
        image_scale: ImageScale = IMAGENET,
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
            labels: values by the class of label, for training: {OccupancyLabels: OccupancyTruth.from_arrays(semantics, ...)}.
            tokens: B names.
            timestamps: (B, T) or (T,) seconds, the same for all cameras; newest first. With them, frames out of order are noticed.
            scenes: B names; with them, a history from another scene is noticed.
            lidar2ego: (*B, 4, 4) where LIDAR_TOP is, which official files of PETR and 3DPPE need (`model.frame=lidar`).
            image_scale: how the images were normalised, for a teacher that undoes it.

        The arguments may lie on different devices: labels follow the images, calibration goes to the CPU (see `to`).

        Raises:
            ShapeError: a shape does not fit, or the labels are of another number of samples.
            DataError: a value cannot be (geometry.plausible), a matrix is singular, not rigid or has a wrong last row, or images are not
                float. A camera more than 10 m away from the ego origin is a warning.
        """
        images = network_images(images)
        batch, time, cameras, _, height, width = images.shape
        read = ArrayReader((batch, time, cameras))
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
        _question(rig)
        made = cls(
            images=images,
            calibration=rig,
            key_ego2global=rig.ego2global[:, 0, 0] if key_ego2global is None else read.pose(key_ego2global, "key_ego2global"),
            bev_aug=read.transform(torch.eye(4) if bev_aug is None else bev_aug, "bev_aug"),
            tokens=tokens or [f"sample-{i}" for i in range(batch)],
            scenes=scenes or [],
            has_poses=ego2global is not None,
            lidar2ego=None if lidar2ego is None else read.pose(lidar2ego, "lidar2ego"),
            image_scale=image_scale,
        )
        for kind, value in (labels or {}).items():
            kind.check(value)
        return made.with_labels(labels or {})


def _question(rig: CameraRig) -> None:
    """Warn of a camera that is farther away than vehicles are long: its position is not in metres."""
    farthest = float(rig.cam2ego[..., :3, 3].norm(dim=-1).max()) if rig.cam2ego.numel() else 0.0
    if farthest > _FAR:
        warnings.warn(
            f"cam2ego puts a camera {farthest:,.1f} m away from the origin of the ego frame, which is on the vehicle; translations are in "
            f"metres. If these are millimetres, multiply them by 0.001 ({0.001 * farthest:.2f} m).",
            FrustumWarning,
            stacklevel=3,
        )
