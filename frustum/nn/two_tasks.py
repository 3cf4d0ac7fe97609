"""Two heads on one map: where the cells of one grid lie in the other, and what the heads tell each other.

Shape letters: B batch, C channels, X Y map cells, x y columns of voxels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from frustum.geometry import VoxelGrid

Priority = Literal["detection", "occupancy", "equal", "none"]


@dataclass(frozen=True)
class Window:
    """A map whose cells are a whole number of voxels wide and which looks farther than the voxels, as far on each side.

    Attributes:
        grid: the voxels.
        ratio: voxels along the side of a map cell.
        margin: map cells on each side beyond the voxels.
    """

    grid: VoxelGrid
    ratio: int
    margin: int

    @property
    def cells(self) -> tuple[int, int]:
        """How many map cells (x, y) lie over voxels."""
        return self.grid.shape[0] // self.ratio, self.grid.shape[1] // self.ratio

    def check(self) -> None:
        """Raise ValueError, for a config, unless the map has an even number of cells along x and y."""
        if any(count % (2 * self.ratio) for count in self.grid.shape[:2]):
            x, y, _ = self.grid.shape
            raise ValueError(
                f"cells of the map that are {self.ratio} voxels wide need a grid whose numbers of voxels along x and y are multiples of "
                f"{2 * self.ratio}, got {x} x {y}; set model.grid or model.map_ratio"
            )

    def map_grid(self, z: tuple[float, float], bins: int = 1) -> VoxelGrid:
        """The cells of the map, with `bins` of them from z[0] to z[1] metres."""
        size = [self.ratio * self.grid.cell[i] for i in range(2)]
        low_x, low_y = (self.grid.lower[i] - self.margin * size[i] for i in range(2))
        high_x, high_y = (self.grid.upper[i] + self.margin * size[i] for i in range(2))
        cell = (size[0], size[1], (z[1] - z[0]) / bins)
        return VoxelGrid(lower=(low_x, low_y, z[0]), upper=(high_x, high_y, z[1]), cell=cell)

    def cut(self, bev: Tensor) -> Tensor:
        """(B, C, Y, X) -> its part over the voxels, (B, C, y / ratio, x / ratio)."""
        (num_x, num_y), first = self.cells, self.margin
        return bev[:, :, first : first + num_y, first : first + num_x]

    def to_voxels(self, bev: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B, C, y, x), bilinear between the centres of cells."""
        part = self.cut(bev)
        if self.ratio == 1:
            return part
        return F.interpolate(part, scale_factor=self.ratio, mode="bilinear", align_corners=False)

    def to_map(self, columns: Tensor) -> Tensor:
        """(B, C, y, x) at the voxels or at the map's resolution -> (B, C, Y, X), zero where there are no voxels."""
        if (factor := columns.shape[-1] // self.cells[0]) > 1:
            columns = F.avg_pool2d(columns, factor)
        return F.pad(columns, (self.margin,) * 4)


class Exchange(nn.Module):
    """What the features of each head add to those of the other, by one 1x1 convolution per direction.

    Both begin at zero: a fresh network is two heads that know nothing of each other, whose published weights fit.

    Args:
        detection, occupancy: channels of the features of the heads.
        priority: whose loss decides. With `equal`, the loss of either task trains the features that the other one sends. With
            `detection`, that of occupancy does not reach the features of detection (the shared map apart), while that of detection does
            shape what occupancy sends; with `occupancy` the reverse.
    """

    def __init__(self, detection: int, occupancy: int, priority: Priority):
        super().__init__()
        self.priority = priority
        self.to_detection = _silent(occupancy, detection)
        self.to_occupancy = _silent(detection, occupancy)

    def forward(self, detection: Tensor, occupancy: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, c, Y, X) of both heads -> what is added to those of detection, and to those of occupancy."""
        sent_by_occupancy = occupancy.detach() if self.priority == "occupancy" else occupancy
        sent_by_detection = detection.detach() if self.priority == "detection" else detection
        return self.to_detection(sent_by_occupancy), self.to_occupancy(sent_by_detection)


def _silent(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    nn.init.zeros_(conv.weight)
    return conv


def freeze(parts: Iterable[nn.Module | None]) -> tuple[nn.Module, ...]:
    """Make parts constant: no gradient. The ones that are there are returned; they must be kept in eval mode, too."""
    return tuple(part.requires_grad_(False) for part in parts if part is not None)
