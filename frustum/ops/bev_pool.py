"""Bird's-eye-view pooling: sum the features of lifted pixels, weighted by depth probability, in the cell that each point falls into.

    out[cell] = sum over frustum points p in the cell of depth[p] * features[pixel of p]

This is the "splat" of Lift-Splat-Shoot and what BEVPoolv2 computes. Which point lies in which cell depends on calibration alone: a
`PoolPlan` holds it, sorted by cell, and is made once for a fixed rig. Backends: `torch` (the readable reference, any device), `numba`
(CPU) and `triton` (GPU). On a CPU and with CUDA a result has the same bits every time: nothing is added concurrently.

Shape letters: B batch, N cameras, M = B * N images, D depth bins, h w feature map, C channels, X Y Z cells, P = M * D * h * w points.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.geometry.grids import Rounding, VoxelGrid

Backend = Literal["auto", "torch", "numba", "triton"]


@dataclass(frozen=True)
class PoolPlan:
    """Where every frustum point goes.

    Cells are numbered `((b * Y + y) * X + x) * Z + z`, so that Z joins the channels without a copy.

    Attributes:
        cells: (P,) int32 cell of each point in (M, D, h, w) order, -1 outside the grid.
        order: (K,) int32 the K points inside, sorted by cell, ascending within a cell.
        pixels: (K,) int32 pixel in (M, h, w) order of each entry of `order`.
        occupied: (I,) int32 the cells that hold a point, ascending.
        starts: (I + 1,) int32 first entry in `order` of each occupied cell, then K.
        frustum: (M, D, h, w).
        batch: B.
        shape: (X, Y, Z) of the grid.
    """

    cells: Tensor
    order: Tensor
    pixels: Tensor
    occupied: Tensor
    starts: Tensor
    frustum: tuple[int, int, int, int]
    batch: int
    shape: tuple[int, int, int]

    @classmethod
    def create(cls, points: Tensor, grid: VoxelGrid, rounding: Rounding = "floor") -> PoolPlan:
        """Plan for frustum points (B, N, D, h, w, 3) in the frame of `grid`; see `VoxelGrid.indices` for `rounding`."""
        if points.dim() != 6 or points.shape[-1] != 3:
            raise ShapeError(f"frustum points must have shape (B, N, D, h, w, 3), got {tuple(points.shape)}.")
        batch, cameras, depth, height, width = points.shape[:5]
        num_cells = batch * grid.num_cells
        if max(num_cells, points.numel() // 3) >= 2**31:
            raise ShapeError(f"{num_cells} cells and {points.numel() // 3} points do not fit 32-bit indices. Use a smaller batch.")
        cells = _cells(points, grid, rounding)
        order, occupied, starts = _sorted_by_cell(cells, num_cells)
        pixels = order // (depth * height * width) * (height * width) + order % (height * width)
        return cls(cells, order, pixels, occupied, starts, (batch * cameras, depth, height, width), batch, grid.shape)

    @cached_property
    def kept_cells(self) -> Tensor:
        """(K,) int64 cell of each entry of `order`."""
        return self.cells[self.order.long()].long()

    def points_per_cell(self) -> Tensor:
        """Number of points in each cell, int64 (B, Z, Y, X)."""
        x, y, z = self.shape
        return torch.bincount(self.kept_cells, minlength=self.batch * x * y * z).view(self.batch, y, x, z).permute(0, 3, 1, 2)

    def to(self, device: torch.device | str) -> PoolPlan:
        """The plan on another device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "Tensor"}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


def bev_pool(depth: Tensor, features: Tensor, plan: PoolPlan, backend: Backend = "auto") -> Tensor:
    """Pool features into cells.

    Args:
        depth: (M, D, h, w) weight of each point, usually a soft-max over D.
        features: (M, C, h, w).
        plan: made for the same M, D, h, w.
        backend: `auto` takes what `default_backend` says. Gradients flow to depth and features in all.

    Returns:
        (B, C, Z, Y, X); zero where no point fell. Half-precision inputs are added up, and returned, in float32.

    Raises:
        ShapeError: depth, features and plan do not fit together.
        ConfigError: unknown backend, or one that cannot compute on the device of the tensors.
    """
    images, _, height, width = plan.frustum
    if tuple(depth.shape) != plan.frustum:
        raise ShapeError(f"depth must have shape (M, D, h, w) = {plan.frustum} as the plan, got {tuple(depth.shape)}.")
    if features.dim() != 4 or (features.shape[0], *features.shape[2:]) != (images, height, width):
        raise ShapeError(f"features must have shape ({images}, C, {height}, {width}), got {tuple(features.shape)}.")
    device = depth.device.type
    if backend == "auto" and (torch.onnx.is_in_onnx_export() or device not in ("cpu", "cuda")):
        backend = "torch"
    pool = _pool_torch if backend == "torch" and device != "cuda" else functools.partial(_pool_kernels, backend=backend)
    dtype = torch.promote_types(torch.promote_types(depth.dtype, features.dtype), torch.float32)
    channels = features.shape[1]
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels).to(dtype)  # (M*h*w, C)
    weights = depth.reshape(-1).to(dtype)  # (P,)
    out = pool(weights, rows, plan)
    x, y, z = plan.shape
    return out.view(plan.batch, y, x, z, channels).permute(0, 4, 3, 1, 2)


def _pool_torch(weights: Tensor, rows: Tensor, plan: PoolPlan) -> Tensor:
    """The reference: (P,), (M*h*w, C) -> (B*Y*X*Z, C)."""
    x, y, z = plan.shape
    points = rows.index_select(0, plan.pixels) * weights.index_select(0, plan.order)[:, None]  # (K, C)
    return points.new_zeros(plan.batch * x * y * z, rows.shape[1]).index_add(0, plan.kept_cells, points)


@torch.compiler.disable
def _pool_kernels(weights: Tensor, rows: Tensor, plan: PoolPlan, backend: Backend) -> Tensor:
    """As `_pool_torch`, by the `forward` and `backward` of a backend."""
    chosen = default_backend(weights.device) if backend == "auto" else backend
    return _KernelPool.apply(weights, rows, plan, _kernels(chosen, weights.device))


class _KernelPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, rows: Tensor, plan: PoolPlan, kernels: Any) -> Tensor:
        x, y, z = plan.shape
        weights, rows = weights.detach().contiguous(), rows.detach().contiguous()
        out = rows.new_zeros(plan.batch * x * y * z, rows.shape[1])
        kernels.forward(weights, rows, plan, out)
        ctx.save_for_backward(weights, rows)
        ctx.plan, ctx.kernels = plan, kernels
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        weights, rows = ctx.saved_tensors
        grad_weights, grad_rows = torch.zeros_like(weights), torch.zeros_like(rows)
        ctx.kernels.backward(grad.contiguous(), weights, rows, ctx.plan, grad_weights, grad_rows)
        return grad_weights, grad_rows, None, None


class _Segments:
    """Plain torch that adds in a fixed order: with CUDA, index_add and the gradient of index_select add in any order."""

    @staticmethod
    def forward(weights: Tensor, rows: Tensor, plan: PoolPlan, out: Tensor) -> None:
        if len(plan.order):
            points = rows.index_select(0, plan.pixels) * weights.index_select(0, plan.order)[:, None]  # (K, C), sorted by cell
            out[plan.occupied.long()] = torch.segment_reduce(points, "sum", lengths=plan.starts.diff().long(), axis=0, unsafe=True)

    @staticmethod
    def backward(grad: Tensor, weights: Tensor, rows: Tensor, plan: PoolPlan, grad_weights: Tensor, grad_rows: Tensor) -> None:
        images, bins, height, width = plan.frustum
        cells, depth, by_bin = (t.view(images, bins, height * width) for t in (plan.cells, weights, grad_weights))
        for d in range(bins):  # a pixel has one point per bin: nothing is added concurrently
            cell, weight = cells[:, d].flatten().long(), depth[:, d].flatten()
            g = torch.where((cell >= 0)[:, None], grad.index_select(0, cell.clamp(min=0)), 0)  # (M*h*w, C)
            by_bin[:, d] = (g * rows).sum(1).view(images, -1)
            grad_rows += weight[:, None] * g


class _Numba:
    """The kernels of bev_pool_numba, which are imported, and compiled, when first used."""

    @staticmethod
    def forward(weights: Tensor, rows: Tensor, plan: PoolPlan, out: Tensor) -> None:
        from frustum.ops import bev_pool_numba as kernels

        kernels.forward(*(t.numpy() for t in (weights, rows, plan.order, plan.pixels, plan.occupied, plan.starts, out)))

    @staticmethod
    def backward(grad: Tensor, weights: Tensor, rows: Tensor, plan: PoolPlan, grad_weights: Tensor, grad_rows: Tensor) -> None:
        from frustum.ops import bev_pool_numba as kernels

        _, bins, height, width = plan.frustum
        g, w, r, cells = (t.numpy() for t in (grad, weights, rows, plan.cells))
        kernels.backward(g, w, r, cells, bins, height * width, grad_weights.numpy(), grad_rows.numpy())


def default_backend(device: torch.device) -> Literal["torch", "numba", "triton"]:
    """What `auto` means for tensors on `device`: numba on a CPU, triton on a GPU where it is installed and works, else torch."""
    if device.type == "cpu":
        return "numba"
    return "triton" if device.type == "cuda" and _triton_works(device) else "torch"


@functools.cache
def _triton_works(device: torch.device) -> bool:
    if importlib.util.find_spec("triton") is None:
        return False
    from frustum.ops import bev_pool_triton

    if reason := bev_pool_triton.why_not(device):
        warnings.warn(f"bev_pool takes plain torch, because Triton does not work on {device}: {reason}", stacklevel=2)
    return not reason


def _kernels(backend: str, device: torch.device) -> Any:
    """What has the `forward` and `backward` of a backend. Raises ConfigError if it cannot compute on `device`."""
    if backend == "torch":
        return _Segments
    if backend == "numba":
        if device.type != "cpu":
            raise ConfigError(f"the numba backend of bev_pool needs CPU tensors, got {device}; use backend='auto'.")
        return _Numba
    if backend != "triton":
        raise ConfigError(f"unknown bev_pool backend {backend!r}; choose auto, torch, numba or triton.")
    if importlib.util.find_spec("triton") is None:
        raise ConfigError("the triton backend of bev_pool needs the package triton (Linux): pip install triton; or use backend='auto'.")
    from frustum.ops import bev_pool_triton

    if device.type != "cuda" and not bev_pool_triton.INTERPRETED:
        raise ConfigError(f"the triton backend of bev_pool needs CUDA tensors, got {device}; use backend='auto'.")
    return bev_pool_triton


def _cells(points: Tensor, grid: VoxelGrid, rounding: Rounding) -> Tensor:
    """(P,) cells of PoolPlan of points (B, N, D, h, w, 3)."""
    if points.device.type != "cpu":
        return cells_torch(points, grid, rounding)
    from frustum.ops import bev_pool_numba as kernels

    rows = points.detach().reshape(-1, 3).contiguous()
    lower, cell = (rows.new_tensor(triple).numpy() for triple in (grid.lower, grid.cell))
    cells = torch.empty(len(rows), dtype=torch.int32)
    kernels.find_cells(rows.numpy(), max(1, len(rows) // points.shape[0]), lower, cell, grid.shape, rounding == "floor", cells.numpy())
    return cells


def cells_torch(points: Tensor, grid: VoxelGrid, rounding: Rounding = "floor") -> Tensor:
    """(P,) cells of PoolPlan of points (B, N, D, h, w, 3), int32; the reference and the path of other devices."""
    x_cells, y_cells, z_cells = grid.shape
    index, inside = grid.indices(points, rounding)
    x, y, z = index.unbind(-1)
    first = torch.arange(points.shape[0], device=points.device).view(-1, 1, 1, 1, 1) * y_cells
    return torch.where(inside, ((first + y) * x_cells + x) * z_cells + z, -1).flatten().int()


def _sorted_by_cell(cells: Tensor, num_cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """Order, occupied and starts of PoolPlan from cells (P,)."""
    if cells.device.type == "cpu":
        from frustum.ops import bev_pool_numba as kernels

        order, occupied, starts = kernels.sort_by_cell(cells.numpy(), num_cells)
        return torch.from_numpy(order), torch.from_numpy(occupied), torch.from_numpy(starts)
    return sort_by_cell_torch(cells)


def sort_by_cell_torch(cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Order, occupied and starts of PoolPlan from cells (P,), int32; the reference and the path of other devices."""
    values, order = torch.sort(cells, stable=True)
    outside = int((values < 0).sum())
    occupied, lengths = torch.unique_consecutive(values[outside:], return_counts=True)
    starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return order[outside:].int(), occupied.int(), starts.int()
