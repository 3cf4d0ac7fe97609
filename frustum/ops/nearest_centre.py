"""Grouping voxels into objects: each voxel of a class goes to the nearest centre that serves this class (Panoptic-FlashOcc, section 3.3).

Distances are squared and counted in cells, z included; of equally near centres the first wins; there is no limit to the distance.
Backends: `torch` (the readable reference, any device) and `numba` (CPU). Everything is integer, so both give the same result.
Shape letters: B batch, Q centres, X Y Z voxels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.ops import nearest_centre_numba as kernels

Backend = Literal["auto", "torch", "numba"]
_CHUNK = 1 << 22  # distances at a time


def nearest_centre(semantics: Tensor, cells: Tensor, serves: Tensor, backend: Backend = "auto") -> Tensor:
    """Index of the nearest centre of each voxel's class.

    Args:
        semantics: (B, X, Y, Z) uint8 class ids.
        cells: (B, Q, 3) integers, the cell of each centre; it may lie outside the grid.
        serves: (B, Q) integers, the class id whose voxels a centre collects; -1 for none.
        backend: `auto` takes numba on the CPU.

    Returns:
        (B, X, Y, Z) int16; -1 where no centre serves the voxel's class.

    Raises:
        ShapeError: shapes do not fit together, or there are more than 32767 centres. ConfigError: a backend that cannot compute here.
    """
    batch, count = serves.shape
    if semantics.dim() != 4 or len(semantics) != batch or cells.shape != (batch, count, 3):
        shapes = f"{tuple(semantics.shape)}, {tuple(cells.shape)} and {tuple(serves.shape)}"
        raise ShapeError(f"nearest_centre needs semantics (B, X, Y, Z), cells (B, Q, 3) and serves (B, Q), got {shapes}.")
    if count > 32767:
        raise ShapeError(f"nearest_centre numbers at most 32767 centres, got {count}.")
    on_cpu = semantics.device.type == "cpu"
    if backend == "numba" and not on_cpu:
        raise ConfigError(f"the numba backend of nearest_centre needs CPU tensors, got {semantics.device}; use backend='auto'.")
    if backend == "numba" or (backend == "auto" and on_cpu):
        result = torch.empty(semantics.shape, dtype=torch.int16)
        volume, places, classes = (t.contiguous().numpy() for t in (semantics, cells.long(), serves.long()))
        kernels.assign(volume, places, classes, result.numpy())
        return result
    return torch.stack([_with_torch(*sample) for sample in zip(semantics, cells.long(), serves.long(), strict=True)])


def _with_torch(semantics: Tensor, cells: Tensor, serves: Tensor) -> Tensor:
    """The reference for one sample: all distances between the voxels of served classes and the centres, a part at a time."""
    result = torch.full(semantics.shape, -1, dtype=torch.int16, device=semantics.device)
    used = (serves >= 0).nonzero()[:, 0]
    if not len(used):
        return result
    is_served = torch.zeros(256, dtype=torch.bool, device=semantics.device)
    is_served[serves[used]] = True
    voxels = is_served[semantics.long()].nonzero()  # (n, 3)
    for part in voxels.split(max(1, _CHUNK // len(used))):
        x, y, z = part.unbind(1)
        distance = sum((part[:, i, None] - cells[used, i]) ** 2 for i in range(3))  # (n, q)
        other_class = semantics[x, y, z].long()[:, None] != serves[used]
        # Distance first, position second, in one number: the smallest one is the nearest centre, and of equals the first.
        rank = distance.masked_fill(other_class, 1 << 40) * len(used) + torch.arange(len(used), device=part.device)
        result[x, y, z] = used[rank.amin(1) % len(used)].short()
    return result
