"""Volume rendering of a voxel field by samples along each ray, as NeRF and RenderOcc do; `ops.voxel_render` is exact and quicker.

Two ways. By default the field is what `voxel_render` takes: a density per metre, linear between the centres of the cells, sampled at
equal steps; depth is metric. `march_reference` is RenderOcc's renderer (pmj110119/RenderOcc, `nerf_head.py`), with what is odd in it:

- depth is contracted: s = t / (1 + t) is blended in place of t, so that a wall at 40 m has the depth 19.75 m;
- the outermost cell CENTRES lie on the border of the range, so that the field is stretched by up to half a cell, and fades out beyond;
- the range along z is taken as that share of the range along x, in units of the radius: 3.12 m in place of 3.2 m to either side;
- the density is shifted and its step is half a unit, whatever the size of a cell; far samples are pulled into the outermost metre.

Plain torch on any device, with gradients. Shape letters: X Y Z voxels, C channels, R rays, S samples of a ray, n samples of all rays
that count.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.geometry.grids import VoxelGrid
from frustum.geometry.transforms import without_autocast
from frustum.ops.voxel_render import RayColours

ACT_SHIFT = math.log(1 / (1 - 1e-6) - 1)  # RenderOcc: a density of 0 has an alpha of 5e-7
_FAINT = 1e-7  # alphas and weights up to here are left out
_DARK = 1e-3  # of the light: a ray of RenderOcc ends behind the sample that leaves less
_RAYS = 1024  # at a time


class Samples(NamedTuple):
    """Samples that count, ray by ray.

    Attributes:
        rays: (n,) int64, the ray of each.
        weights: (n,)
        t: (n,) distance along the ray in radii of the scene (39 m in RenderOcc).
    """

    rays: Tensor
    weights: Tensor
    t: Tensor


def voxel_march(
    density: Tensor, features: Tensor, grid: VoxelGrid, origins: Tensor, directions: Tensor, *, step: float = 0.2, far: float = 80.0
) -> RayColours:
    """Render rays by samples at equal steps.

    Args:
        density: (X, Y, Z) 1/m, at least 0.
        features: (X, Y, Z, C).
        grid: where the voxels lie. Between the centres of its cells both are linear, up to its border constant, outside 0.
        origins: (R, 3) metres.
        directions: (R, 3) of any length but 0; depth is in lengths of the direction.
        step: metres between samples.
        far: metres that a ray is long.

    Returns:
        RayColours of (R, ...).

    Raises:
        ShapeError: shapes do not fit together. ConfigError: a step that is not above 0.
    """
    _check(density, features, grid, origins, directions)
    if not 0 < step <= far < math.inf:
        raise ConfigError(f"voxel_march needs 0 < step <= far, got step={step} and far={far}.")
    exact = _exact(density, features)
    with without_autocast(density):
        density, features, origins, directions = (x.to(exact) for x in (density, features, origins, directions))
        count = max(1, round(far / step))
        t = (torch.arange(count, dtype=exact, device=density.device) + 0.5) * (far / count)  # (S,)
        found = []
        for o, d in zip(origins.split(_RAYS), directions.split(_RAYS), strict=True):
            length = d.norm(dim=1, keepdim=True)
            cells = grid.to_cells(o[:, None] + t[:, None] * (d / length)[:, None])  # (r, S, 3)
            shape = cells.new_tensor(grid.shape)
            inside = ((cells >= 0) & (cells < shape)).all(2)
            places = 2 * cells / shape - 1
            ray, sample = inside.nonzero().unbind(1)
            thickness = cells.new_zeros(inside.shape).index_put((ray, sample), _read(density[..., None], places[inside], False)[:, 0])
            thickness = thickness * (far / count)
            before = thickness.cumsum(1) - thickness
            weights = (-before).exp() * -(-thickness).expm1()
            ray, sample = (weights > _FAINT).nonzero().unbind(1)
            seen = _read(features, places[ray, sample], False)
            rows = torch.cat([seen, (t[sample, None] / length[ray]), torch.ones_like(seen[:, :1])], 1)
            found.append(rows.new_zeros(len(o), rows.shape[1]).index_add(0, ray, weights[ray, sample, None] * rows))
        out = torch.cat(found) if found else features.new_zeros(0, features.shape[-1] + 2)
        return RayColours(out[:, :-2], out[:, -2], out[:, -1])


def march_reference(
    density: Tensor, features: Tensor, grid: VoxelGrid, origins: Tensor, directions: Tensor, *, step: float = 0.5, radius: float = 39.0
) -> tuple[RayColours, Samples]:
    """Render rays as RenderOcc does.

    Args:
        density: (X, Y, Z), before the shift: alpha is 1 - (1 + exp(density - 13.8)) ** -0.5 at a step of 0.5.
        features: (X, Y, Z, C).
        grid: as far to either side in x as in y.
        origins: (R, 3) metres.
        directions: (R, 3) of any length but 0.
        step: in cells.
        radius: metres from the middle of the grid, up to which space is not contracted.

    Returns:
        RayColours of (R, ...), with the contracted depth in metres, and the samples. Metric depth, as RenderOcc's samples have it, is the
        sum of weights times t times radius.

    Raises:
        ShapeError: shapes do not fit together. ConfigError: a step that is not above 0, or a radius outside the grid.
    """
    _check(density, features, grid, origins, directions)
    half = (grid.upper[0] - grid.lower[0]) / 2
    if step <= 0 or not 0 < radius < half:
        raise ConfigError(f"march_reference needs a step above 0 and a radius between 0 and {half} m, got step={step} and radius={radius}.")
    exact = _exact(density, features)
    with without_autocast(density):
        density, features, origins, directions = (x.to(exact) for x in (density, features, origins, directions))
        border = (half - radius) / radius  # what is left for all that lies beyond the radius
        num_inner = int(2 / (2 + 2 * border) * grid.shape[0] / step) + 1
        far = torch.linspace(1, 1 / 64, num_inner // 15 + 1, dtype=exact, device=density.device)
        edges = torch.linspace(0, 2, num_inner + 1, dtype=exact, device=density.device), 2 / far
        t = torch.cat([(e[1:] + e[:-1]) / 2 for e in edges])  # (S,)
        middle = density.new_tensor([(low + high) / 2 for low, high in zip(grid.lower, grid.upper, strict=True)])
        upper = density.new_tensor([1 + border, 1 + border, (grid.upper[2] - grid.lower[2]) / (2 * half)])
        gap = (2 + 2 * border) / grid.shape[0] * step * 0.95

        ends = (0, *range(_RAYS, len(origins), _RAYS)) if len(origins) else ()
        parts = []
        for first in ends:
            some = slice(first, first + _RAYS)
            ray_start, ray_way = (origins[some] - middle) / radius, F.normalize(directions[some], dim=1)
            points = ray_start[:, None] + t[:, None] * ray_way[:, None]  # (r, S, 3)
            norm = points.norm(dim=2, keepdim=True)
            points = torch.where(norm <= 1, points, points / norm * (1 + border - border / norm))
            kept = (norm[..., 0] <= 1) | _far_enough(points, gap)
            ray, sample = kept.nonzero().unbind(1)
            places = points[kept] / upper
            alpha = 1 - (1 + (_read(density[..., None], places, True)[:, 0] + ACT_SHIFT).exp()) ** -step
            alpha = points.new_zeros(kept.shape).index_put((ray, sample), torch.where(alpha > _FAINT, alpha, 0))
            left = (1 - alpha).cumprod(1)
            before = torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], 1)
            weights = torch.where(before >= _DARK, alpha * before, 0)
            ray, sample = (weights > _FAINT).nonzero().unbind(1)
            chosen = weights[ray, sample]
            seen = _read(features, points[ray, sample] / upper, True)
            rows = torch.cat([seen, (t / (1 + t))[sample, None] * radius], 1)
            sums = rows.new_zeros(len(kept), rows.shape[1]).index_add(0, ray, chosen[:, None] * rows)
            alphas = 1 - torch.where(before >= _DARK, 1 - alpha, 1).prod(1, keepdim=True)
            parts.append((torch.cat([sums, alphas], 1), ray + first, chosen, t[sample]))
        if not parts:
            none = features.new_zeros(0)
            parts = [(features.new_zeros(0, features.shape[-1] + 2), none.long(), none, none)]
        out, *samples = (torch.cat(p) for p in zip(*parts, strict=True))
        return RayColours(out[:, :-2], out[:, -2] + radius * _FAINT, out[:, -1]), Samples(*samples)


def _far_enough(points: Tensor, gap: float) -> Tensor:
    """Samples (r, S) before which their ray has moved by more than `gap` since the last one that was taken."""
    moves = (points[:, 1:] - points[:, :-1]).detach().norm(dim=2)
    taken = torch.zeros(points.shape[:2], dtype=torch.bool, device=points.device)
    run = moves.new_zeros(len(points))
    for k in range(moves.shape[1]):
        run = run + moves[:, k]
        taken[:, k + 1] = run > gap
        run = torch.where(taken[:, k + 1], 0, run)
    return taken


def _read(field: Tensor, places: Tensor, centres_on_border: bool) -> Tensor:
    """Values (n, C) of a field (X, Y, Z, C), linear between cells, at places (n, 3) from -1 to 1 along x, y, z."""
    volume = field.permute(3, 0, 1, 2)[None]
    where = places.flip(-1)[None, None, None]
    found = F.grid_sample(
        volume, where, mode="bilinear", padding_mode="zeros" if centres_on_border else "border", align_corners=centres_on_border
    )
    return found[0, :, 0, 0].T


def _exact(density: Tensor, features: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(density.dtype, features.dtype), torch.float32)


def _check(density: Tensor, features: Tensor, grid: VoxelGrid, origins: Tensor, directions: Tensor) -> None:
    shapes = tuple(density.shape), tuple(features.shape), tuple(origins.shape), tuple(directions.shape)
    rays = origins.shape[0]
    if shapes[0] != grid.shape or shapes[1][:-1] != grid.shape or shapes[2:] != ((rays, 3), (rays, 3)):
        needed = f"density {grid.shape}, features (*{grid.shape}, C), origins and directions (R, 3)"
        raise ShapeError(f"marching needs {needed}, got {', '.join(map(str, shapes))}.")
