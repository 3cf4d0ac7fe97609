"""First-hit ray casting through label volumes, with the exact semantics of the RayIoU evaluation.

A ray starts at an origin and walks from cell to cell (Amanatides and Woo, 1987). What it reports follows the CUDA kernel behind the
published RayIoU figures (SparseOcc, `dvr.cu`), quirks included, because the numbers depend on them:

- the distance of a hit is that of the EXIT face of the hit cell;
- a ray that hits nothing reports the exit distance and the label of its last cell inside the grid;
- a ray that never enters the grid reports distance -1 and the label of cell (0, 0, 0);
- the start cell is rounded towards zero, so a coordinate in (-1, 0) starts in cell 0;
- equal boundary distances prefer z, then y, then x; a ray ends after 1001 steps, those outside the grid included.

Every label other than `free` stops a ray. The arithmetic is float64 with accumulated additions in the reference's order, so both
backends are equal to it bit for bit. All volumes (up to eight) are traversed at once: they share the rays.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from frustum.errors import DataError, ShapeError
from frustum.ops.raycast_numba import cast_rays

Backend = Literal["auto", "numba", "torch"]
Array = np.ndarray | Tensor
MAX_STEPS = 1001
_FAR = torch.finfo(torch.float64).max


class RayHits(NamedTuple):
    """Where rays ended, per volume V, origin K and ray R; numpy or torch as the volumes were.

    Attributes:
        labels: (V, K, R) uint8.
        distances: (V, K, R) float32, in cells.
        coords: (V, K, R, 3) int16, the cell whose label was read.
    """

    labels: Array
    distances: Array
    coords: Array


def raycast(volumes: Array, origins: Array, ends: Array, *, free: int = 17, backend: Backend = "auto", threads: int = 1) -> RayHits:
    """Cast rays from `origins` towards `ends` and report the first cell that is not `free`.

    Args:
        volumes: (V, X, Y, Z) uint8 labels, at most eight volumes.
        origins: (K, 3) in cell coordinates (cell i spans [i, i + 1)).
        ends: (K, R, 3), or (R, 3) for the same end points from each origin; only the direction counts. Both are rounded to float32 first.
        free: the label that lets rays pass.
        backend: `numba` on the CPU, `torch` anywhere (lockstep; the readable reference). `auto` takes torch for CUDA tensors.
        threads: threads of the numba backend; the result does not depend on it.

    Raises:
        ShapeError: a shape does not fit.
        DataError: volumes are not uint8, or an origin or end is not finite.
    """
    home = volumes.device if isinstance(volumes, Tensor) else None
    if backend == "auto":
        backend = "numba" if home is None or home.type == "cpu" else "torch"
    if backend == "torch":
        device = home or torch.device("cpu")
        volume_t, origin_t, end_t = (torch.as_tensor(a).to(device) for a in (volumes, origins, ends))
        origin_t, end_t = origin_t.to(torch.float32), end_t.to(torch.float32)
        _require(volume_t, origin_t, end_t, bool(torch.isfinite(origin_t).all() and torch.isfinite(end_t).all()))
        hits = _lockstep(volume_t, origin_t, end_t.expand(len(origin_t), *end_t.shape[-2:]), free)
        return RayHits(*hits) if home is not None else RayHits(*(t.numpy() for t in hits))
    # No torch operation on this path: its threads would contend with those of other processes for work of a millisecond.
    volume, origin, end = _to_numpy(volumes), _to_numpy(origins).astype(np.float32), _to_numpy(ends).astype(np.float32)
    _require(volume, origin, end, bool(np.isfinite(origin).all() and np.isfinite(end).all()))
    arrays = cast_rays(volume, origin, np.broadcast_to(end, (len(origin), *end.shape[-2:])), free, MAX_STEPS, threads)
    return RayHits(*arrays) if home is None else RayHits(*(torch.from_numpy(a).to(home) for a in arrays))


def _to_numpy(array: Array) -> np.ndarray:
    return array.cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)


def _require(volumes: Array, origins: Array, ends: Array, is_finite: bool) -> None:
    if volumes.dtype not in (np.uint8, torch.uint8):
        raise DataError(f"raycast needs uint8 labels, got {volumes.dtype}. Convert them with .to(torch.uint8).")
    if len(volumes.shape) != 4 or not 1 <= volumes.shape[0] <= 8 or 0 in volumes.shape:
        raise ShapeError(f"volumes must be (V, X, Y, Z) with V from 1 to 8, got {tuple(volumes.shape)}.")
    if len(origins.shape) != 2 or origins.shape[1] != 3:
        raise ShapeError(f"origins must be (K, 3), got {tuple(origins.shape)}.")
    if len(ends.shape) not in (2, 3) or ends.shape[-1] != 3 or (len(ends.shape) == 3 and ends.shape[0] != origins.shape[0]):
        raise ShapeError(f"ends must be (R, 3) or (K, R, 3) with K = {origins.shape[0]} origins, got {tuple(ends.shape)}.")
    if not is_finite:
        raise DataError("an origin or end point of a ray is not finite. Check the ego poses and the LiDAR calibration of this sample.")


def _lockstep(volumes: Tensor, origins: Tensor, ends: Tensor, free: int) -> tuple[Tensor, Tensor, Tensor]:
    """All rays take their n-th step together; rays that are done leave the batch when there are many of them."""
    num, num_origins, num_rays = volumes.shape[0], origins.shape[0], ends.shape[1]
    device = volumes.device
    shape = torch.tensor(volumes.shape[1:], device=device)[:, None]
    _, size_y, size_z = volumes.shape[1:]
    weights = 2 ** torch.arange(num, device=device)
    occupied = ((volumes != free).flatten(1) * weights[:, None]).sum(0)  # bit v: volume v stops rays here
    all_hit = 2**num - 1

    start = origins.double()[:, None].expand_as(ends).reshape(-1, 3).T.contiguous()  # (3, P): one row per axis is quicker to step
    direction = ends.double().reshape(-1, 3).T - start
    norm = (direction[0] * direction[0] + direction[1] * direction[1] + direction[2] * direction[2]).sqrt()
    direction = direction / norm
    cell = start.trunc().long()
    step = torch.where(direction >= 0, 1, -1)
    still = direction == 0
    t = torch.where(still, _FAR, (cell + (step > 0) - start) / direction)  # distance to the next face of each axis
    delta = torch.where(still, _FAR, step / direction)

    total = start.shape[1]
    last_distance = torch.full((num, total), -1.0, dtype=torch.float64, device=device)
    last_cell = torch.zeros((num, total), dtype=torch.int64, device=device)
    rays = torch.nonzero(norm > 0)[:, 0]  # indices of the rays still under way; one without a direction goes nowhere
    cell, step, t, delta = cell[:, rays], step[:, rays], t[:, rays], delta[:, rays]
    distance, last = last_distance[:, rays], last_cell[:, rays]
    hit = torch.zeros_like(rays)  # bit v: volume v was hit
    entered = torch.zeros_like(rays, dtype=torch.bool)
    for _ in range(MAX_STEPS):
        inside = ((cell >= 0) & (cell < shape)).all(0)
        flat = torch.where(inside, (cell[0] * size_y + cell[1]) * size_z + cell[2], 0)
        unhit = inside & (hit & weights[:, None] == 0)  # (V, P)
        distance = torch.where(unhit, torch.minimum(torch.minimum(t[0], t[1]), t[2]), distance)
        last = torch.where(unhit, flat, last)
        hit = torch.where(inside, hit | occupied[flat], hit)
        entered |= inside

        along_x = (t[0] < t[1]) & (t[0] < t[2])
        along_y = ~along_x & (t[1] < t[2])
        along = torch.stack([along_x, along_y, ~(along_x | along_y)])
        cell = torch.where(along, cell + step, cell)
        t = torch.where(along, t + delta, t)
        gone = ((cell < 0) & (step < 0)) | ((cell >= shape) & (step > 0))  # outside and leaving: it can never come (back) in
        going = (hit != all_hit) & ~gone.any(0) & ~(entered & ((cell < 0) | (cell >= shape)).any(0))
        if int(going.sum()) < 0.8 * len(going):  # those that are done may walk on unharmed; leaving them behind costs copies
            last_distance[:, rays], last_cell[:, rays] = distance, last
            rays, hit, entered, distance, last = rays[going], hit[going], entered[going], distance[:, going], last[:, going]
            cell, step, t, delta = cell[:, going], step[:, going], t[:, going], delta[:, going]
        if rays.numel() == 0:
            break
    last_distance[:, rays], last_cell[:, rays] = distance, last

    labels = torch.gather(volumes.flatten(1), 1, last_cell)
    coords = torch.stack([last_cell // (size_y * size_z), last_cell // size_z % size_y, last_cell % size_z], -1)
    lead = (num, num_origins, num_rays)
    return labels.reshape(lead), last_distance.float().reshape(lead), coords.to(torch.int16).reshape(*lead, 3)
