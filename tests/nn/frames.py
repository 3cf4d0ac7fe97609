"""Frames for the tests of blocks that need cameras and poses only."""

from __future__ import annotations

import torch
from torch import Tensor

from frustum.geometry import CameraRig
from frustum.types.frame import Frame

EYE = torch.eye(4, dtype=torch.float64)[None]


def frame_of(rig: CameraRig, ego2global: Tensor = EYE, bev_aug: Tensor = EYE) -> Frame:
    """A frame without images; `rig` leads with (B,)."""
    batch = len(rig.intrinsics)
    return Frame(torch.empty(batch, 0), rig, ego2global, bev_aug, torch.ones(batch, dtype=torch.bool))


def frame_at(ego2global: Tensor, bev_aug: Tensor = EYE) -> Frame:
    """A frame of one camera that is the ego vehicle, at a pose (B, 4, 4)."""
    batch = len(ego2global)
    intrinsics = torch.eye(3, dtype=torch.float64).expand(batch, 1, 3, 3)
    rig = CameraRig.create(intrinsics, EYE.expand(batch, 1, 4, 4), (8, 8), ego2global[:, None])
    return frame_of(rig, ego2global, bev_aug)
