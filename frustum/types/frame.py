"""One moment of a batch: the images, the cameras that took them, and the frame of the map that is made of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from frustum.geometry import CameraRig
from frustum.types.batch import Batch


class Frame(NamedTuple):
    """The images of B samples at one time, and what places them in space.

    Attributes:
        images: (B, N, 3, H, W).
        rig: cameras (B,).
        ego2global: (B, 4, 4) ego pose of the map.
        bev_aug: (B, 4, 4) ego frame to augmented ego frame.
        is_present: (B,) bool, False where the sample does not have this frame and another stands in for it.
    """

    images: Tensor
    rig: CameraRig
    ego2global: Tensor
    bev_aug: Tensor
    is_present: Tensor


def frames_of(batch: Batch, count: int = 0) -> list[Frame]:
    """The keyframe and `count` past frames, newest first; those that the batch does not have are the keyframe, marked as missing."""
    size, have = len(batch), batch.images.shape[1]
    poses = batch.rig.ego2global[:, :, 0] if batch.frame_ego2global is None else batch.frame_ego2global
    frames = []
    for t in range(count + 1):
        index = t if t < have else 0
        pose = poses[:, index] if t else batch.key_ego2global
        is_present = batch.is_present[:, t].cpu() if batch.is_present is not None and 0 < t < have else torch.full((size,), t < have)
        frames.append(Frame(batch.images[:, index], batch.rig[:, index], pose, batch.bev_aug, is_present))
    return frames


def keyframe_of(batch: Batch) -> Frame:
    """The keyframe."""
    return frames_of(batch)[0]
