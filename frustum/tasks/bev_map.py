"""Where vehicles are, seen from above: IoU of a map of 100 m x 100 m in the convention of Lift-Splat-Shoot (docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from frustum.data.labels.bev_map import vehicle_label
from frustum.data.source import as_rig_source
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.metrics.bev_iou import BevIoU
from frustum.tasks.task import Figure, Task, grid_from, without_nan
from frustum.types.layers import Layer, Legend, MapLayer
from frustum.types.predictions import PredictedMap

if TYPE_CHECKING:
    from typing_extensions import Self

VEHICLE = "vehicle"
_LABELS = VoxelGrid(lower=(-50.0, -50.0, -10.0), upper=(50.0, 50.0, 10.0), cell=(0.5, 0.5, 20.0))


class BevMapTask(Task):
    """IoU of the class `vehicle`, or of the only class of a map, under the rule "lss" (metrics/bev_iou.py, data/labels/bev_map.py).

    `compute` gives what `BevIoU.compute` does.
    """

    name = "bev_map"
    part = "bev_map"
    protocol: ClassVar[Mapping[str, str]] = {
        "iou": "sum of intersections / sum of unions over all frames, positive where the logit exceeds 0; truth: boxes of all vehicles "
        "drawn from above as Lift-Splat-Shoot draws them",
        "image_mean": "mean over frames of the same; a frame without vehicles and without a prediction counts 1",
    }

    def __init__(self, order: Sequence[str] = (), slow: bool = True):
        super().__init__(order, slow)
        self._metric = BevIoU("lss")

    def truth(self, source: Any, token: str) -> np.ndarray:
        """Where vehicles are, (Y, X) bool."""
        sample = as_rig_source(source, "maps of vehicles").sample(token, with_boxes=True, occupancy=False)
        return vehicle_label(sample, "lss").mask.T  # rows of the label run along x, those of a map along y

    def add(self, token: str, part: PredictedMap, truth: np.ndarray) -> None:
        """See `Task.add`."""
        names = part.class_names
        if len(names) > 1 and VEHICLE not in names:
            raise DataError(f"the map of {token} has the classes {', '.join(names)}; what is scored is {VEHICLE!r}, or the only class.")
        if any(getattr(part.grid, name)[:2] != getattr(_LABELS, name)[:2] for name in ("lower", "upper", "cell")):
            raise DataError(
                f"the map of {token} covers {part.grid}; labels are drawn on 100 m x 100 m around the vehicle in cells of 0.5 m "
                f"({_LABELS.shape[0]} x {_LABELS.shape[1]}). Set the map's grid to that."
            )
        self._metric.add(part.logits[names.index(VEHICLE) if VEHICLE in names else 0], truth)

    def merge(self, other: Self) -> Self:
        """See `Task.merge`."""
        self._metric.merge(other._metric)
        return self

    def compute(self) -> dict[str, Any]:
        """See `Task.compute`, and the class."""
        return without_nan(self._metric.compute())

    @classmethod
    def figures(cls, metrics: Mapping[str, Any]) -> list[Figure]:
        """See `Task.figures`."""
        cells, rule = "all cells", "logit > 0 (Lift-Splat-Shoot)"
        meaning = "overlap of predicted and true vehicles, from above"
        return [
            Figure("iou", "vehicle IoU", metrics["iou"], "%", cells, f"{rule}, pooled", "vehicle IoU", meaning, "Map", True),
            Figure("image_mean", "vehicle IoU of single frames", metrics["image_mean"], "%", cells, f"{rule}, mean over frames"),
        ]

    @classmethod
    def layers(cls, part: PredictedMap) -> list[Layer]:
        """Of each cell, the likeliest class."""
        best, free = part.logits.max(0), len(part.class_names)
        labels = torch.where(best.values > 0, best.indices, free).to(torch.uint8).numpy()
        return [MapLayer(labels, Legend.of(part.class_names), free, part.grid)]

    @classmethod
    def truth_layers(cls, truth: np.ndarray, part: PredictedMap | None = None) -> list[Layer]:
        """Where vehicles are, in the prediction's colours."""
        names = part.class_names if part is not None else (VEHICLE,)
        vehicle = names.index(VEHICLE) if VEHICLE in names else 0
        return [MapLayer(np.where(truth, vehicle, len(names)).astype(np.uint8), Legend.of(names), len(names), _LABELS)]

    @classmethod
    def arrays(cls, part: PredictedMap) -> dict[str, np.ndarray]:
        """`logits` float32 (K, Y, X), `class_names` (K,) text, the grid as `lower`, `upper` and `cell` (3,) in metres."""
        grid = {name: np.array(value) for name, value in part.grid}
        return {"logits": part.logits.float().numpy(), "class_names": np.array(part.class_names), **grid}

    @classmethod
    def restored(cls, stored: Mapping[str, np.ndarray]) -> PredictedMap:
        """The inverse of `arrays`."""
        return PredictedMap(torch.from_numpy(stored["logits"]), grid_from(stored), tuple(stored["class_names"].tolist()))
