"""Which lifted pixel falls into which cell: what `bev_pool` needs of the calibration, made once for a fixed rig.

Shape letters: B batch, N cameras, M = B * N images, D depth bins, h w feature map, X Y Z cells, P = M * D * h * w points.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from frustum.errors import ShapeError
from frustum.geometry.grids import Rounding, VoxelGrid
from frustum.ops import bev_pool_numba as kernels


@dataclass(frozen=True)
class PoolPlan:
    """Where every frustum point goes.

    Cells are numbered `((b * Y + y) * X + x) * Z + z`, so that Z joins the channels without a copy. A plan made on the CPU holds neither
    points outside nor empty cells. How many there are of them is not known in advance; on a GPU, where asking would wait for the answer,
    all points and all cells are in it.

    Attributes:
        cells: (P,) int32 cell of each point in (M, D, h, w) order, -1 outside the grid.
        order: (K,) int32 points, sorted by cell, ascending within a cell; those inside come first.
        pixels: (K,) int32 pixel in (M, h, w) order of each entry of `order`.
        occupied: (I,) int32 cells, ascending, all that hold a point among them.
        starts: (I + 1,) int32 first entry in `order` of each of these cells, then the number of points inside.
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
        on_cpu = points.device.type == "cpu"
        cells = _cells_numba(points, grid, rounding) if on_cpu else cells_torch(points, grid, rounding)
        sort = map(torch.from_numpy, kernels.sort_by_cell(cells.numpy(), num_cells)) if on_cpu else sort_by_cell_torch(cells, num_cells)
        order, occupied, starts = sort
        pixels = order // (depth * height * width) * (height * width) + order % (height * width)
        return cls(cells, order, pixels, occupied, starts, (batch * cameras, depth, height, width), batch, grid.shape)

    @cached_property
    def kept_cells(self) -> Tensor:
        """(K,) int64 cell of each entry of `order`, of a plan without points outside."""
        with torch.inference_mode(False):  # what is kept must serve training, too
            return self.cells[self.order.long()].long()

    def to(self, device: torch.device | str) -> PoolPlan:
        """The plan on another device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "Tensor"}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


def _cells_numba(points: Tensor, grid: VoxelGrid, rounding: Rounding) -> Tensor:
    rows = points.detach().reshape(-1, 3).contiguous()
    lower, cell = (rows.new_tensor(triple).numpy() for triple in (grid.lower, grid.cell))
    cells = torch.empty(len(rows), dtype=torch.int32)
    per_sample = max(1, len(rows) // points.shape[0])
    kernels.find_cells(rows.numpy(), per_sample, lower, cell, grid.shape, rounding == "floor", cells.numpy())
    return cells


def cells_torch(points: Tensor, grid: VoxelGrid, rounding: Rounding = "floor") -> Tensor:
    """(P,) cells of PoolPlan of points (B, N, D, h, w, 3), int32; the reference, and the path of GPUs."""
    x_cells, y_cells, z_cells = grid.shape
    index, inside = grid.indices(points, rounding)
    x, y, z = index.unbind(-1)
    first = torch.arange(points.shape[0], device=points.device).view(-1, 1, 1, 1, 1) * y_cells
    return torch.where(inside, ((first + y) * x_cells + x) * z_cells + z, -1).flatten().int()


def sort_by_cell_torch(cells: Tensor, num_cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """Order, occupied and starts of PoolPlan from cells (P,), int32, with all points and all cells; the path of GPUs."""
    outside_last = torch.where(cells < 0, num_cells, cells)
    values, order = torch.sort(outside_last, stable=True)
    every = torch.arange(num_cells + 1, dtype=torch.int32, device=cells.device)
    return order.int(), every[:-1], torch.searchsorted(values, every, out_int32=True)
