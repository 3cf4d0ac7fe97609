"""Where LiDAR points are, found by cameras: what OccFeat pretrains with (docs/metrics.md). It says how well the pretraining went.

Features are drawn in colours and not scored: they are a teacher's, and another teacher has others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from frustum.data.labels.lidar_points import LidarPoints
from frustum.data.source import spread
from frustum.errors import DataError
from frustum.geometry import VoxelGrid, invert, transform_points
from frustum.tasks.blind_map import best_threshold
from frustum.tasks.task import Figure, Predictor, Progress, Task, grid_from, silent, without_nan
from frustum.types.layers import Colour, Layer, Legend, PointLayer, VoxelLayer
from frustum.types.predictions import PredictedVolume, Prediction

if TYPE_CHECKING:
    from typing_extensions import Self

_LEVELS = 6  # of each of red, green and blue
_CUBE: tuple[Colour, ...] = tuple(
    (255 * r // 5, 255 * g // 5, 255 * b // 5) for r in range(_LEVELS) for g in range(_LEVELS) for b in range(_LEVELS)
)
_FREE, _PLAIN = len(_CUBE), 3 * 36 + 3 * 6 + 3  # the latter is grey
_COLOURS = Legend(("",) * (_FREE + 1), (*_CUBE, (255, 255, 255)))  # without names: no list of them is shown


class VolumeTask(Task):
    """`compute` gives `iou`, `precision` and `recall` of voxels that hold a point of the keyframe's scan, ratios 0..1."""

    name = "volume"
    part = "volume"
    protocol: ClassVar[Mapping[str, str]] = {
        "iou": "of voxels that hold at least one point of the keyframe's LiDAR scan, those of the vehicle itself left out, counts pooled",
        "precision": "share of the predicted voxels that hold one",
        "recall": "share of the voxels that hold one and are predicted",
    }

    grid: VoxelGrid | None = None
    _grid2ego: np.ndarray | None = None

    def __init__(self, order: Any = (), slow: bool = True):
        super().__init__(order, slow)
        self._counts = np.zeros(3, np.int64)  # predicted and true, predicted alone, true alone

    def truth(self, source: Any, token: str) -> np.ndarray:
        """See `Task.truth`: LiDAR points (P, 3) in the ego frame. Raises DataError without LiDAR."""
        return LidarPoints().read(source, token).points

    def add(self, token: str, part: PredictedVolume, truth: np.ndarray) -> None:
        """See `Task.add`."""
        if self.grid is None:
            self.grid, self._grid2ego = part.grid, part.grid2ego.numpy()
        if part.grid != self.grid:
            raise DataError(f"the volume of {token} has another grid than those before it: {part.grid} and {self.grid}.")
        found, true = part.occupied.numpy(), filled(truth, part.grid, part.grid2ego.numpy())
        self._counts += [int((found & true).sum()), int((found & ~true).sum()), int((~found & true).sum())]

    def merge(self, other: Self) -> Self:
        """See `Task.merge`."""
        self.require_alike(other, "grid")
        self._counts += other._counts
        return self

    def compute(self) -> dict[str, Any]:
        """See `Task.compute`, and the class."""
        both, predicted, true = self._counts.tolist()

        def share(of: int) -> float:
            return both / of if of else float("nan")

        return without_nan({"iou": share(both + predicted + true), "precision": share(both + predicted), "recall": share(both + true)})

    def baselines(self, source: Any, split: str, progress: Progress = silent) -> list[Predictor]:
        """The most likely volume."""
        return [] if self.grid is None else [LikelyVolume.fit(source, split, self.grid, self._grid2ego, progress)]

    @classmethod
    def figures(cls, metrics: Mapping[str, Any]) -> list[Figure]:
        """See `Task.figures`."""
        on, group = "voxels with a LiDAR point", "LiDAR volume"
        meaning = "overlap of the voxels where a LiDAR point is predicted with those where one is"
        return [
            Figure("iou", "volume IoU", metrics["iou"], "%", on, "one scan, pooled", "", meaning, group, True),
            Figure("precision", "volume precision", metrics["precision"], "%", on, "one scan, pooled"),
            Figure("recall", "volume recall", metrics["recall"], "%", on, "one scan, pooled"),
        ]

    @classmethod
    def layers(cls, part: PredictedVolume) -> list[Layer]:
        """The occupied voxels around the vehicle; in one colour where there are no features."""
        return [_around_the_vehicle(_ids(part), part.grid, part.grid2ego.numpy())]

    @classmethod
    def truth_layers(cls, truth: np.ndarray, part: PredictedVolume | None = None) -> list[Layer]:
        """The voxels that hold a point, in the colours of the prediction where it has them, else grey; without one the points alone."""
        if part is None:
            return [PointLayer(truth, np.full((len(truth), 3), 60, np.uint8))]
        true, predicted = filled(truth, part.grid, part.grid2ego.numpy()), _ids(part)
        ids = np.where(true, np.where(predicted == _FREE, np.uint8(_PLAIN), predicted), np.uint8(_FREE))
        return [_around_the_vehicle(ids, part.grid, part.grid2ego.numpy())]

    @classmethod
    def arrays(cls, part: PredictedVolume) -> dict[str, np.ndarray]:
        """`occupied` (X * Y * Z) as packed bits, `colours` float16 (P, 3), `grid2ego` (4, 4); `lower`, `upper` and `cell` (3,) metres."""
        grid = {name: np.array(value) for name, value in part.grid}
        packed, colours = np.packbits(part.occupied.numpy()), part.colours.numpy().astype(np.float16)
        return {"occupied": packed, "colours": colours, "grid2ego": part.grid2ego.numpy(), **grid}

    @classmethod
    def restored(cls, stored: Mapping[str, np.ndarray]) -> PredictedVolume:
        """The inverse of `arrays`."""
        grid = grid_from(stored)
        if len(stored["occupied"]) != (grid.num_cells + 7) // 8:  # before memory is taken for what a grid claims
            raise ValueError(f"{len(stored['occupied'])} bytes of {grid.num_cells} voxels")
        occupied = np.unpackbits(stored["occupied"], count=grid.num_cells).reshape(grid.shape).astype(bool)
        colours, grid2ego = torch.from_numpy(stored["colours"]).float(), torch.from_numpy(stored["grid2ego"])
        if len(colours) not in (0, int(occupied.sum())) or tuple(grid2ego.shape) != (4, 4):
            raise ValueError(f"{len(colours)} colours of {int(occupied.sum())} voxels")
        return PredictedVolume(torch.from_numpy(occupied), colours, grid, grid2ego)


@dataclass(frozen=True)
class LikelyVolume(Predictor):
    """The same volume in every frame: what a network must beat."""

    part: PredictedVolume

    name = "most likely volume"
    note = "answers every frame with the same volume, the voxels that hold a LiDAR point often enough in the training split"

    def answer(self, token: str) -> Prediction:
        """The prediction for a sample."""
        return Prediction(token, volume=self.part)

    @classmethod
    def fit(
        cls, source: Any, split: str, grid: VoxelGrid, grid2ego: np.ndarray | None, progress: Progress = silent, frames: int = 200
    ) -> LikelyVolume:
        """Count in how many of at most `frames` keyframes of a training split each voxel is filled. Raises DataError without LiDAR."""
        tokens, place = spread(source.tokens(split), frames), np.eye(4) if grid2ego is None else grid2ego
        counts = np.zeros(grid.shape)
        for token in progress(cls.name, tokens):
            counts += filled(LidarPoints().read(source, token).points, grid, place)
        share = counts / max(1, len(tokens))
        flat = share.reshape(len(share), -1)
        occupied = share > best_threshold(flat, np.full(flat.shape, float(len(tokens))))
        return cls(PredictedVolume(torch.from_numpy(occupied), torch.zeros(0, 3), grid, torch.from_numpy(place)))


def filled(points: np.ndarray, grid: VoxelGrid, grid2ego: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: voxels that hold one of the points (P, 3) of the ego frame."""
    own = transform_points(invert(grid2ego), points.astype(np.float64))
    cells, inside = grid.indices(torch.from_numpy(own))
    found = np.zeros(grid.shape, bool)
    found[tuple(cells[inside].numpy().T)] = True
    return found


def cube_ids(colours: Tensor) -> np.ndarray:
    """(P,) uint8: the colour of the legend that is nearest to each of (P, 3), from -1 to 1."""
    level = ((colours.clamp(-1, 1) + 1) / 2 * (_LEVELS - 1)).round().long()
    return (level @ torch.tensor([_LEVELS**2, _LEVELS, 1])).to(torch.uint8).numpy()


def _ids(part: PredictedVolume) -> np.ndarray:
    """(X, Y, Z) uint8 ids of the legend."""
    found = np.full(part.grid.shape, _FREE, np.uint8)
    found[part.occupied.numpy()] = _PLAIN if not len(part.colours) else cube_ids(part.colours)
    return found


def _around_the_vehicle(ids: np.ndarray, grid: VoxelGrid, grid2ego: np.ndarray) -> VoxelLayer:
    """Voxels of a grid that may be a camera's, in one of the same cells whose axes are the ego frame's."""
    raised = grid2ego[2, 3]
    around = VoxelGrid(lower=(*grid.lower[:2], grid.lower[2] + raised), upper=(*grid.upper[:2], grid.upper[2] + raised), cell=grid.cell)
    if np.allclose(grid2ego, np.eye(4)):
        return VoxelLayer(ids, _COLOURS, _FREE, grid)
    own = transform_points(invert(grid2ego), around.centres(torch.float64).flatten(0, 2).numpy())
    cells, inside = grid.indices(torch.from_numpy(own))
    found = np.full(ids.size, _FREE, np.uint8)
    found[inside.numpy()] = ids[tuple(cells[inside].numpy().T)]
    return VoxelLayer(found.reshape(ids.shape), _COLOURS, _FREE, around)
