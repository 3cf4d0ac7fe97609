"""Volume rendering of a field that is constant in each voxel: rays walk from cell to cell, exactly, with gradients.

    out = integral over the ray of T(t) * density(t) * features(t) dt        T(t) = exp(-integral of the density up to t)

Within a cell this has a closed form, so that nothing depends on a number of samples: a cell that a ray crosses over a length l gets the
weight T * (1 - exp(-density * l)), and its depth is where in the cell the light ends in the mean (its face, if it is opaque; its middle,
if it is thin). What lies behind 1 - 1e-6 of a ray's light is left out. Backends: `torch`, the readable reference, which writes down all
faces that a ray meets, on any device; `numba` on the CPU walks (Amanatides and Woo, 1987), with the same bits for any number of threads.

Shape letters: * leading dimensions, X Y Z voxels, C channels, R rays.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.geometry.grids import VoxelGrid
from frustum.geometry.transforms import send, without_autocast
from frustum.ops import voxel_render_numba as kernels

VoxelBackend = Literal["auto", "torch", "numba"]
_RAYS = 1024  # that the reference takes at a time; what it needs for a gradient is computed again


class RayColours(NamedTuple):
    """What rays meet.

    Attributes:
        features: (*, R, C) sum of weights times features.
        depth: (*, R) sum of weights times depth, in lengths of the ray's direction; divide by alpha for a mean.
        alpha: (*, R) sum of weights: the share of the light that ends in the grid, 0..1.
    """

    features: Tensor
    depth: Tensor
    alpha: Tensor


def voxel_render(
    density: Tensor, features: Tensor, grid: VoxelGrid, origins: Tensor, directions: Tensor, *,
    near: float | Tensor = 0.0, far: float | Tensor = math.inf, backend: VoxelBackend = "auto",
) -> RayColours:  # fmt: skip
    """Render rays through a voxel field.

    Args:
        density: (*, X, Y, Z) 1/m, at least 0. A cell whose opacity is o if crossed straight has the density -log(1 - o) / cell size.
        features: (*, X, Y, Z, C).
        grid: where the voxels lie.
        origins: (*, R, 3) metres, in the frame of the grid; inside or outside.
        directions: (*, R, 3) of any length but 0. With unit vectors depth is the distance; with 1 along a camera's axis its depth.
        near, far: the part of the rays that counts, in lengths of the direction; a number, or one for each ray (*, R). `alpha` up to `far`
            is exact, so that the light that ends within a window is a difference of two calls.
        backend: `auto` takes numba on the CPU and torch elsewhere. Gradients flow to density and features, not to the rays.

    Returns:
        RayColours in float32, or float64 if density or features are.

    Raises:
        ShapeError: shapes do not fit together. DataError: a density below 0 or not finite, a ray that is not finite or has no direction,
            `near` that is not finite, `far` that is no number.
        ConfigError: a backend that cannot compute here.
    """
    lead, rays = _check(density, features, grid, origins, directions)
    device = density.device
    on_cpu = device.type == "cpu"
    if backend not in ("auto", "torch", "numba") or (backend == "numba" and not on_cpu):
        raise ConfigError(f"voxel_render has backends auto, torch and (on the CPU) numba, got {backend!r} for {device}.")
    dtype = torch.promote_types(torch.promote_types(density.dtype, features.dtype), torch.float32)
    render = _torch if backend == "torch" or not on_cpu else _numba
    with without_autocast(density):
        _check_numbers(density, origins, directions)
        exact = torch.float32 if device.type == "mps" else torch.float64  # of the places: a face belongs to one cell
        starts, ways = (send(t.detach(), device, exact) for t in (origins, directions))
        starts, lengths, ways = grid.to_cells(starts), ways.norm(dim=-1), ways / send(torch.tensor(grid.cell, dtype=exact), device)
        spans = [torch.as_tensor(limit).to(ways).expand(lengths.shape) for limit in (near, far)]
        if not spans[0].isfinite().all() or spans[1].isnan().any():
            raise DataError("voxel_render needs a near that is finite, and a far that is a number or infinite.")
        lines = torch.stack([*starts.unbind(-1), *ways.unbind(-1), lengths, *spans], -1)  # (*, R, 9), in cells
        count = math.prod(lead)
        fields = density.to(dtype).reshape(count, *grid.shape), features.to(dtype).reshape(count, *grid.shape, features.shape[-1])
        found = [render(*entry) for entry in zip(*fields, lines.reshape(count, rays, 9), strict=True)]
    out = torch.stack(found) if found else density.new_zeros(0, dtype=dtype)
    out = out.reshape(*lead, rays, features.shape[-1] + 2)  # depth and alpha last
    return RayColours(out[..., :-2], out[..., -2], out[..., -1])


def _torch(density: Tensor, features: Tensor, lines: Tensor) -> Tensor:
    """The reference: (X, Y, Z), (X, Y, Z, C), (R, 9) -> (R, C + 2)."""
    out = []
    for some in lines.split(_RAYS):
        out.append(checkpoint(_few_rays, density, features, some, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(out) if out else features.new_zeros(0, features.shape[-1] + 2)


def _few_rays(density: Tensor, features: Tensor, lines: Tensor) -> Tensor:
    start, way, (length, near, far) = lines[:, :3], lines[:, 3:6], lines[:, 6:].T
    shape = torch.tensor(density.shape, device=lines.device)
    meets = []  # where a ray meets the faces of an axis (R, X + 1)
    low, high = near.clone(), far.clone()
    for axis, size in enumerate(density.shape):
        faces = torch.arange(size + 1, dtype=lines.dtype, device=lines.device)
        here = (faces - start[:, axis, None]) / way[:, axis, None]
        moves = way[:, axis] != 0
        beside = ~moves & ((start[:, axis] < 0) | (start[:, axis] >= size))
        meets.append(torch.where(moves[:, None], here, near[:, None]))  # a ray along the faces meets none
        low = torch.where(moves, torch.maximum(low, here[:, [0, -1]].amin(1)), low)
        high = torch.where(beside, low, torch.where(moves, torch.minimum(high, here[:, [0, -1]].amax(1)), high))
    high = torch.maximum(low, high)
    cuts = torch.cat(meets, 1).clamp(low[:, None], high[:, None]).sort(1).values  # (R, X + Y + Z + 3)
    middle = (cuts[:, 1:] + cuts[:, :-1]) / 2
    cell = (start[:, None] + middle[..., None] * way[:, None]).floor().long().clamp(torch.zeros_like(shape), shape - 1)
    cell = (cell[..., 0] * shape[1] + cell[..., 1]) * shape[2] + cell[..., 2]

    here = density.flatten()[cell]
    part = cuts.diff(dim=1)
    thickness = here * (part * length[:, None]).to(here)
    before = thickness.cumsum(1) - thickness
    weight = torch.where(before < kernels.OPAQUE, (-before).exp() * -(-thickness).expm1(), 0)
    depth = cuts[:, :-1].to(here) + part.to(here) * _mean_place(thickness)
    colours = (weight[:, None] @ features.flatten(0, 2)[cell])[:, 0]
    return torch.cat([colours, (weight * depth).sum(1, keepdim=True), weight.sum(1, keepdim=True)], 1)


def _mean_place(thickness: Tensor) -> Tensor:
    """Where in a cell, 0..1, the light that ends in it does so in the mean: 1 / x - 1 / (exp(x) - 1)."""
    is_thin = thickness < kernels.THIN
    thin, thick = torch.where(is_thin, thickness, 0), torch.where(is_thin, 1, thickness)
    squared = thin * thin
    series = sum(c * squared**k for k, c in enumerate(kernels.SERIES))
    return torch.where(is_thin, 0.5 + thin * series, 1 / thick + (-thick).exp() / (-thick).expm1())


@torch.compiler.disable
def _numba(density: Tensor, features: Tensor, lines: Tensor) -> Tensor:
    return _Walk.apply(density, features, lines)


class _Walk(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density: Tensor, features: Tensor, lines: Tensor) -> Tensor:
        density, features, lines = (t.detach().contiguous() for t in (density, features, lines))
        out = features.new_zeros(len(lines), features.shape[-1] + 2)
        steps = torch.zeros(len(lines), dtype=torch.int64)
        kernels.walk(*(t.numpy() for t in (density, features, lines, out, steps)))
        ctx.save_for_backward(density, features, lines, out, steps)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        density, features, lines, out, steps = (t.numpy() for t in ctx.saved_tensors)
        grad_density, grad_features = (torch.zeros_like(t) for t in ctx.saved_tensors[:2])
        above, strips = grad.contiguous().numpy(), torch.get_num_threads()
        found = kernels.walk_back(density, features, lines, out, steps, above, strips)
        rows = grad_density.view(-1).numpy(), grad_features.flatten(0, 2).numpy()
        kernels.gather(*found, above, strips, *rows)
        return grad_density, grad_features, None


def _check(density: Tensor, features: Tensor, grid: VoxelGrid, origins: Tensor, directions: Tensor) -> tuple[tuple[int, ...], int]:
    """The leading dimensions and the number of rays. Raises ShapeError."""
    if density.dim() < 3 or features.dim() < 4 or origins.dim() < 2:
        given = f"{tuple(density.shape)}, {tuple(features.shape)} and {tuple(origins.shape)}"
        raise ShapeError(f"voxel_render needs density (*, X, Y, Z), features (*, X, Y, Z, C) and origins (*, R, 3), got {given}.")
    lead, rays = tuple(density.shape[:-3]), origins.shape[-2]
    needed = [
        ("density", density, (*lead, *grid.shape)),
        ("features", features, (*lead, *grid.shape, features.shape[-1])),
        ("origins", origins, (*lead, rays, 3)),
        ("directions", directions, (*lead, rays, 3)),
    ]
    for name, tensor, shape in needed:
        if tuple(tensor.shape) != shape:
            raise ShapeError(f"{name} must have shape {shape} for a grid of {grid.shape} and {rays} rays, got {tuple(tensor.shape)}.")
    return lead, rays


def _check_numbers(density: Tensor, origins: Tensor, directions: Tensor) -> None:
    low, high = density.detach().aminmax() if density.numel() else (0, 0)
    if not 0 <= float(low) <= float(high) < math.inf:
        raise DataError("voxel_render needs a density that is finite and at least 0; pass it through a softplus.")
    if not (origins.isfinite().all() and directions.isfinite().all() and directions.any(-1).all()):
        raise DataError("voxel_render got a ray that is not finite or has no direction. Check the calibration of the cameras.")
