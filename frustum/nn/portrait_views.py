"""What a head is described from: crops of portraits, and portraits whose owner cannot be told any more.

Portraits are square boxes of 1.8 times the face, so that the face is their middle. Shape letters: B batch, H W image, S side of a crop.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.geometry.transforms import send
from frustum.types.batch import Batch, ImageScale

SIGNED = ImageScale((127.5,) * 3, (127.5,) * 3)
"""RGB from -1 to 1: what all networks of head swapping read and make."""

_AROUND = 0.4 / 1.8  # of a portrait's side, on every side of the face


def signed(batch: Batch) -> Tensor:
    """The portraits of a batch (B, 3, H, W) from -1 to 1, however they were normalised."""
    return batch.scaled_as(SIGNED).images[:, 0, 0]


def as_bytes(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) from -1 to 1 as uint8."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def face_crop(portraits: Tensor, side: int) -> Tensor:
    """The face of portraits (*, 3, H, W), without 22.2 % on every side: (*, 3, side, side), by means over areas."""
    height, width = portraits.shape[-2:]
    top, left = int(height * _AROUND), int(width * _AROUND)
    return resized(portraits[..., top : height - top, left : width - left], side)


def resized(portraits: Tensor, side: int) -> Tensor:
    """Portraits (*, 3, H, W) as (*, 3, side, side), by means over areas."""
    flat = F.adaptive_avg_pool2d(portraits.reshape(-1, *portraits.shape[-3:]), side)
    return flat.view(*portraits.shape[:-2], side, side)


Disguise = Literal["none", "colours", "all"]


def disguised(portraits: Tensor, disguise: Disguise = "all") -> Tensor:
    """Portraits (B, 3, H, W) from -1 to 1 that show pose and expression, but neither colours nor proportions, of who is on them.

    The colours of each are mixed by a random matrix; with `all` it is stretched by 0.8 to 1.2 along each axis about its middle, too.
    Without that a network that reads pose from a frame of the same person reads the person, too: it then fails with another person's frame.
    Drawn from torch's random state, in training only.
    """
    if disguise == "none":
        return portraits
    count, device, moved = len(portraits), portraits.device, portraits.float()
    if disguise == "all":
        stretch = send(torch.empty(count, 2).uniform_(0.8, 1.2), device)
        affine = torch.zeros(count, 2, 3, device=device)
        affine[:, 0, 0], affine[:, 1, 1] = 1 / stretch[:, 0], 1 / stretch[:, 1]
        grid = F.affine_grid(affine, list(portraits.shape), align_corners=False)
        moved = F.grid_sample(moved, grid, padding_mode="border", align_corners=False)
    mix = send(torch.eye(3) + torch.empty(count, 3, 3).uniform_(-0.4, 0.4), device)
    shift = send(torch.empty(count, 3, 1).uniform_(-0.2, 0.2), device)
    return (mix @ moved.flatten(2) + shift).clamp(-1, 1).view_as(moved)
