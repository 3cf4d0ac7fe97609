"""Moves a bird's-eye-view map from one ego frame into another: where did what lies here now lie in the past map?

Two conventions. `warp_map(..., centres=True)` is correct: the value of a cell belongs to its centre. With `centres=False` cell i stands at
its lower corner, as in BEVDet and FlashOCC, so that a turn happens about a point half a cell off, as published weights expect.
Shape letters: B batch, C channels, Y X cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.geometry import VoxelGrid
from frustum.geometry.transforms import send, without_autocast
from frustum.types.frame import Frame


def key_to_past(key: Frame, past: Frame) -> Tensor:
    """Where a point of the keyframe's (augmented) ego frame lies in that of a past frame: (B, 4, 4), float64, from the poses of both."""
    augment = key.bev_aug.double()
    motion = torch.linalg.inv(past.ego2global.double()) @ key.ego2global.double()
    return augment @ motion @ torch.linalg.inv(augment)


def key_to_past_by_camera(key: Frame, past: Frame) -> Tensor:
    """As `key_to_past`, but as BEVDet computes it: from where the first camera is now and where it was, in the keyframe's ego frame.

    The two agree if the first camera keeps its place on the vehicle and the maps stand in the ego frame at its time.
    """
    augment = key.bev_aug.double()
    now, then = (augment @ rig.cam2key(key.ego2global)[..., 0, :, :].double() for rig in (key.rig, past.rig))
    return now @ torch.linalg.inv(then)


def warp_map(past: Tensor, key2past: Tensor, grid: VoxelGrid, centres: bool = True) -> Tensor:
    """Look up a past map in the keyframe's frame, bilinearly; cells beyond the past map are 0.

    Args:
        past: (B, C, Y, X) map of the past frame over `grid`, any float type.
        key2past: (B, 4, 4) from keyframe to past frame; heights are ignored.
        grid: the cells of both maps.
        centres: see the module.

    Returns:
        (B, C, Y, X) float32.
    """
    plane = key2past.double()[:, [0, 1, 3]][:, :, [0, 1, 3]]  # (B, 3, 3): x, y, 1
    frame = _sampling_frame(grid, centres)
    theta = send((torch.linalg.inv(frame) @ plane @ frame)[:, :2], past.device, torch.float32)  # on the CPU until here
    with without_autocast(past):
        lookup = F.affine_grid(theta, list(past.shape), align_corners=not centres)
        return F.grid_sample(past.float(), lookup, mode="bilinear", padding_mode="zeros", align_corners=not centres)


def _sampling_frame(grid: VoxelGrid, centres: bool) -> Tensor:
    """(3, 3) float64: from torch's normalised sampling coordinates, -1 to 1, to metres."""
    frame = torch.eye(3, dtype=torch.float64)
    for axis in range(2):
        low, cell, count = grid.lower[axis], grid.cell[axis], grid.shape[axis]
        span = cell * (count if centres else count - 1)
        frame[axis, axis], frame[axis, 2] = span / 2, low + span / 2
    return frame
