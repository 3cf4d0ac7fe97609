"""The CPU backend of `ops.splat`: what runs between its numba kernels, camera by camera, and its gradient."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from frustum.geometry.transforms import quaternion_to_matrix
from frustum.ops import splat_numba as kernels

_SMALL_IMAGE = 2**16  # pixels, up to which tiles of 8 x 8 are quicker than 16 x 16


@torch.compiler.disable
def render(
    means: Tensor, scales: Tensor, quats: Tensor | None, opacities: Tensor, features: Tensor,
    views: Tensor, intrinsics: Tensor, points: Tensor, limits: Tensor, near: float, far: float, size: tuple[int, int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(N, P, C + 1 + K) and (N, P); arguments as `rasterize` without leading dimensions."""
    if quats is None:
        spreads = scales * scales
    else:
        axes = quaternion_to_matrix(quats) * scales[:, None]
        spreads = (axes @ axes.mT).flatten(1)[:, [0, 1, 2, 4, 5, 8]]
    return _Render.apply(means, spreads, opacities, features, views, intrinsics, points, limits, near, far, size)


class _Camera(NamedTuple):
    """What the forward pass leaves for the backward pass; shapes as the kernels name them."""

    size: tuple[int, int]
    matrices: tuple[np.ndarray, ...]  # view, intrinsics
    ids: np.ndarray
    shapes: np.ndarray
    colours: np.ndarray
    tiles: tuple[np.ndarray, ...]  # positions, limits, starts
    lists: tuple[np.ndarray, ...]  # firsts, members, slots, owners
    order: np.ndarray
    seen: np.ndarray
    left: np.ndarray
    last: np.ndarray


class _Render(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, spreads, opacities, features, views, intrinsics, points, limits, near, far, size):
        size = int(size[0]), int(size[1])  # one compilation for all
        splats = [t.detach().contiguous().numpy() for t in (means, spreads, opacities, features)]
        kept = np.flatnonzero(splats[2] >= splats[2].dtype.type(kernels.MIN_ALPHA)).astype(np.int32)
        side = 8 if size[0] * size[1] <= _SMALL_IMAGE else 16
        cameras, layouts = [], {}
        for view, lens, places, depths in zip(views, intrinsics, points, limits, strict=True):
            if places.data_ptr() not in layouts:  # cameras share the centres of their pixels
                layouts[places.data_ptr()] = _lay_out(places.numpy(), size, side)
            matrices = tuple(np.ascontiguousarray(m.numpy(), np.float64) for m in (view, lens))
            cameras.append(_look(splats, kept, matrices, layouts[places.data_ptr()], depths.numpy(), near, far, size, side))
        ctx.splats, ctx.cameras = splats, cameras
        ctx.save_for_backward(means, spreads, opacities, features)  # so that torch notices when one of them is written to
        out = means.new_zeros(*points.shape[:2], features.shape[1] + 1 + limits.shape[2])
        alpha = means.new_zeros(*points.shape[:2])
        for camera, pixels, total in zip(cameras, out.numpy(), alpha.numpy(), strict=True):
            pixels[camera.order], total[camera.order] = camera.seen, 1 - camera.left
        return out, alpha

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out: Tensor, grad_alpha: Tensor):
        means, spreads, opacities, features = (t.detach() for t in ctx.saved_tensors)
        grads = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (means, spreads, opacities, features)]
        for camera, above, above_alpha in zip(ctx.cameras, grad_out.numpy(), grad_alpha.numpy(), strict=True):
            _trace_back(camera, ctx.splats, above, above_alpha, [g.numpy() for g in grads])
        return *grads, None, None, None, None, None, None, None


def _lay_out(places: np.ndarray, size: tuple[int, int], side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions inside the image sorted by tile (P, 2), where those of each tile start (T + 1), and where each stood."""
    height, width = size
    rows, columns = -(-height // side), -(-width // side)
    inside = np.flatnonzero(((places >= 0) & (places <= (width, height))).all(1))  # not where it is NaN
    u, v = (places[inside] / side).astype(np.int64).T
    tiles = np.minimum(v, rows - 1) * columns + np.minimum(u, columns - 1)
    order = inside[np.argsort(tiles, kind="stable")]
    starts = np.concatenate([[0], np.bincount(tiles, minlength=rows * columns).cumsum()])
    return np.ascontiguousarray(places[order]), starts, order


def _look(splats, kept, matrices, layout, depths, near, far, size, side) -> _Camera:
    """What a camera sees at its positions."""
    places, starts, order = layout
    ahead = kept[kernels.find_ahead(kept, *splats[:2], *matrices, near, far, size)]
    shapes, depth, boxes = kernels.project(ahead, *splats[:3], *matrices, size, side, places, starts)
    visible = np.flatnonzero(boxes[:, 0] < boxes[:, 1])
    visible = visible[np.argsort(depth[visible], kind="stable")]
    ids, shapes, boxes = ahead[visible], shapes[visible], boxes[visible]
    colours = np.concatenate([splats[3][ids], depth[visible, None]], 1)
    lists = kernels.bin_into_tiles(shapes, boxes, places, starts, -(-size[1] // side))
    limits = np.ascontiguousarray(depths[order])
    seen = np.zeros((len(places), colours.shape[1] + limits.shape[1]), colours.dtype)
    left, last = np.ones(len(places), colours.dtype), np.zeros(len(places), np.int64)
    kernels.composite(shapes, colours, places, limits, starts, *lists[:2], seen, left, last)
    return _Camera(size, matrices, ids, shapes, colours, (places, limits, starts), lists, order, seen, left, last)


def _trace_back(camera: _Camera, splats, above: np.ndarray, above_alpha: np.ndarray, grads: list[np.ndarray]) -> None:
    """Add what a camera says about the splats to their gradients."""
    above, above_alpha = above[camera.order], above_alpha[camera.order]
    firsts, members, slots, owners = camera.lists
    sums = np.zeros((len(members), 6 + camera.colours.shape[1]), camera.colours.dtype)
    state = camera.seen, camera.left, camera.last, above, above_alpha
    kernels.composite_backward(camera.shapes, camera.colours, *camera.tiles, firsts, members, slots, *state, sums)
    kernels.project_backward(camera.ids, sums, owners, *splats[:3], *camera.matrices, camera.size, *grads)
