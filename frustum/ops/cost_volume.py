"""Plane-sweep cost volume: how much each pixel differs from the previous frame, if it lies at each of D depths.

    cost[d, y, x] = sum over channels |current[y, x] - previous[lookup[d, y, x]]|        (bilinear, zeros outside)

plus `unseen` where the place lies outside the previous frame. As in BEVStereo4D and FlashOCC's stereo variant, this is read from
the features: the first of the last four channels is sampled as exactly 0. Backends: `torch`, the readable reference, one depth at a
time on any device, and `numba` on the CPU, one pass without the C x D x h x w intermediate that makes the plain form slow.

Shape letters: M images, C channels, D depth bins, h w feature map.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.geometry.transforms import without_autocast
from frustum.ops import cost_volume_numba

CostBackend = Literal["auto", "torch", "numba"]


@torch.no_grad()
def cost_volume(current: Tensor, previous: Tensor, lookup: Tensor, unseen: float = 5.0, backend: CostBackend = "auto") -> Tensor:
    """Matching cost of every pixel at every depth; no gradient.

    Args:
        current, previous: (M, C, h, w) features of two frames, C at least 4.
        lookup: (M, D, h, w, 2) where pixels at these depths lie in the previous frame: x, y from -1 (centre of the first feature) to 1
            (centre of the last one); anything beyond is outside.
        unseen: cost added where the place lies outside the previous frame.
        backend: `auto` takes numba on the CPU and torch elsewhere.

    Returns:
        (M, D, h, w) float32.

    Raises:
        ShapeError: shapes do not fit together. ConfigError: unknown backend, or numba for tensors that are not on the CPU.
    """
    m, c, h, w = current.shape
    if previous.shape != current.shape or c < 4:
        shapes = f"{tuple(current.shape)}, {tuple(previous.shape)}"
        raise ShapeError(f"features of two frames must have one shape (M, C >= 4, h, w), got {shapes}.")
    if lookup.dim() != 5 or (lookup.shape[0], *lookup.shape[2:]) != (m, h, w, 2):
        raise ShapeError(f"lookup must have shape ({m}, D, {h}, {w}, 2), got {tuple(lookup.shape)}.")
    on_cpu = current.device.type == "cpu"
    if backend not in ("auto", "torch", "numba") or (backend == "numba" and not on_cpu):
        raise ConfigError(f"cost_volume has backends auto, torch and (on the CPU) numba, got {backend!r} for {current.device}.")
    with without_autocast(current):
        current, previous, lookup = current.float(), previous.float(), lookup.float()
        if backend == "torch" or not on_cpu or torch.compiler.is_compiling():
            return _torch(current, previous, lookup, unseen)
        return _numba(current, previous, lookup, unseen)


def _torch(current: Tensor, previous: Tensor, lookup: Tensor, unseen: float) -> Tensor:
    costs = []
    for d in range(lookup.shape[1]):
        sampled = F.grid_sample(previous, lookup[:, d], mode="bilinear", padding_mode="zeros", align_corners=True)  # (M, C, h, w)
        costs.append((current - sampled).abs_().sum(1) + unseen * (sampled[:, -4] == 0))
    return torch.stack(costs, 1)


@torch.compiler.disable
def _numba(current: Tensor, previous: Tensor, lookup: Tensor, unseen: float) -> Tensor:
    out = current.new_empty(lookup.shape[:-1])
    now, then = (x.permute(0, 2, 3, 1).contiguous().numpy() for x in (current, previous))  # channels last
    cost_volume_numba.sweep(now, then, lookup.contiguous().numpy(), unseen, out.numpy())
    return out
