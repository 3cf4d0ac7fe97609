"""Where classes are, seen from above: IoU of a map of 100 m x 100 m under the published rules (docs/metrics.md).

A prediction names the rule that it was made for: the truth is drawn by it, and cells count by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np
import torch

from frustum.data.augment import BevTransform
from frustum.data.labels.bev_map import BevConvention
from frustum.data.labels.map_classes import MAP_GRID, OBJECTS, Drawn, MapLabels
from frustum.data.source import as_rig_source
from frustum.errors import ConfigError, DataError, nearest_names
from frustum.metrics.bev_iou import BevIoU
from frustum.tasks.blind_map import LikelyMap
from frustum.tasks.task import (
    ClassFigures,
    Figure,
    Predictor,
    Progress,
    Task,
    grid_from,
    names_from,
    require_names,
    silent,
    tensor_from,
    without_nan,
)
from frustum.types.classes import IGNORE
from frustum.types.layers import Layer, Legend, MapLayer
from frustum.types.predictions import PredictedMap

if TYPE_CHECKING:
    from typing_extensions import Self

_NEVER = -1e4  # a logit
_NAMES = {
    "lss": "logit > 0 (Lift-Splat-Shoot)", "simplebev": "sigmoid > 0.5 (SimpleBEV)", "pointbev": "sigmoid >= 0.5 (PointBeV)",
    "cvt": "sigmoid >= 0.5 (CVT)",
}  # fmt: skip


@dataclass(frozen=True)
class TrueMap:
    """The truth about a keyframe: drawn when it is known by which rule, and of which classes."""

    source: Any
    token: str

    def drawn(self, class_names: tuple[str, ...], rule: str) -> Drawn:
        """Classes (K, Y, X) and where they count. Raises DataError for a class or a rule that the data set has nothing for."""
        labels = labels_of(self.source, self.token, class_names, rule)
        return labels.draw(labels.read(self.source, self.token), BevTransform(), labels.reference if rule == "simplebev" else -1)


def labels_of(source: Any, token: str, class_names: tuple[str, ...], rule: str) -> MapLabels:
    """The labels of a rule, for rigs like that of a keyframe. Raises ConfigError for an unknown rule."""
    if rule not in get_args(BevConvention):
        raise ConfigError(f"unknown rule {rule!r} of a map; {nearest_names(rule, get_args(BevConvention))}")
    channels = [camera.channel for camera in as_rig_source(source, "maps").sample(token, with_boxes=False, occupancy=False).cameras]
    place = channels.index("CAM_FRONT") if "CAM_FRONT" in channels else 0
    return MapLabels(class_names, rule, reference=place)  # type: ignore[arg-type]


class BevMapTask(Task):
    """`compute` gives `class_iou` by the rule of the prediction, and `class_iou_all` over all cells, those of barely visible objects too;
    their means `miou` and `miou_all`; `at`, `image_mean` and `counts` (tp, fp, fn) of the classes; `rule` and `min_visibility`.
    """

    name = "bev_map"
    part = "bev_map"
    protocol: ClassVar[Mapping[str, str]] = {
        "class_iou": "sum of intersections / sum of unions over all frames, by the rule that the prediction names: how boxes are drawn, "
        "where a cell is positive, and which cells count",
        "class_iou_all": "the same over all cells, those of barely visible objects among them",
        "image_mean": "mean over frames of the same; under lss and simplebev a frame without the class and without a prediction counts 1",
        "at": "class_iou by the probability from which a cell is positive, where a rule has several; class_iou is that of the last",
        "miou": "mean over the classes",
    }

    rule: str = ""
    class_names: tuple[str, ...] = ()

    def __init__(self, order: Sequence[str] = (), slow: bool = True):
        super().__init__(order, slow)
        self._filtered: list[BevIoU] = []
        self._all: list[BevIoU] = []

    def truth(self, source: Any, token: str) -> TrueMap:
        """Where classes are. Raises DataError where the data set is not of camera rigs."""
        as_rig_source(source, "maps")
        return TrueMap(source, token)

    def add(self, token: str, part: PredictedMap, truth: TrueMap) -> None:
        """See `Task.add`."""
        if not self._all:
            self.rule, self.class_names = part.rule, part.class_names
            rule: Any = part.rule
            self._filtered = [BevIoU(rule, "published" if name in OBJECTS else None) for name in part.class_names]
            self._all = [BevIoU(rule, None) for _ in part.class_names]
        require_names(token, part.class_names, self.class_names)
        if part.rule != self.rule:
            raise DataError(f"the map of {token} follows the rule {part.rule!r}, but others {self.rule!r}: predict all of them in one way.")
        if any(getattr(part.grid, name)[:2] != getattr(MAP_GRID, name)[:2] for name in ("lower", "upper", "cell")):
            raise DataError(
                f"the map of {token} covers {part.grid}; labels are drawn on 100 m x 100 m in cells of 0.5 m "
                f"({MAP_GRID.shape[0]} x {MAP_GRID.shape[1]}). Set the map's grid to that."
            )
        true = truth.drawn(part.class_names, part.rule)
        logits = part.logits.cpu().float()
        for i, (name, kept, every) in enumerate(zip(self.class_names, self._filtered, self._all, strict=True)):
            is_object, counts = name in OBJECTS, true.counts[i]
            # where a map is not known, nothing is true or predicted
            score = logits[i] if is_object else logits[i].where(torch.from_numpy(counts), _NEVER)
            kept.add(score, true.classes[i], np.where(counts, 4, 1) if is_object else None)
            every.add(score, true.classes[i])

    def merge(self, other: Self) -> Self:
        """See `Task.merge`."""
        if not self._all:
            return other
        if other._all:
            self.require_alike(other, "rule", "class_names")
            for mine, theirs in zip(self._filtered + self._all, other._filtered + other._all, strict=True):
                mine.merge(theirs)
        return self

    def compute(self) -> dict[str, Any]:
        """See `Task.compute`, and the class."""
        kept, every = ([metric.compute() for metric in metrics] for metrics in (self._filtered, self._all))

        def of(found: list[dict[str, Any]], key: str) -> dict[str, Any]:
            return dict(zip(self.class_names, (one[key] for one in found), strict=True))

        counts = {name: {key: of(kept, key)[name][-1] for key in ("tp", "fp", "fn")} for name in self.class_names}
        figures = {
            "class_iou": of(kept, "iou"),
            "class_iou_all": of(every, "iou"),
            "miou": _mean(of(kept, "iou")),
            "miou_all": _mean(of(every, "iou")),
            "at": of(kept, "at"),
            "image_mean": of(kept, "image_mean"),
            "counts": counts,
            "rule": self.rule,
            "min_visibility": max((one["min_visibility"] or 0 for one in kept), default=0) or None,
        }
        return without_nan(figures)

    def baselines(self, source: Any, split: str, progress: Progress = silent) -> list[Predictor]:
        """The most likely map."""
        labels = labels_of(source, source.tokens(split)[0], self.class_names, self.rule)
        return [LikelyMap.fit(source, split, labels, progress)]

    @classmethod
    def figures(cls, metrics: Mapping[str, Any]) -> list[Figure]:
        """See `Task.figures`."""
        rule, lowest = metrics["rule"], metrics["min_visibility"]
        of_rule = f"rule {rule}: {_NAMES.get(rule, rule)}, pooled"
        visible = f"background, and objects of visibility {lowest} and more" if lowest else "all cells"
        found = []
        for name, value in metrics["class_iou"].items():
            counted = visible if name in OBJECTS else "cells where the map is known"
            meaning = f"overlap of predicted and true {name}, from above"
            found.append(Figure(f"iou.{name}", f"{name} IoU", value, "%", counted, of_rule, f"{name} IoU", meaning, "Map", True))
            for threshold, at in list(metrics["at"][name].items())[:-1]:
                where = f"rule {rule}: sigmoid >= {threshold}, pooled"
                found.append(Figure(f"iou_{threshold}.{name}", f"{name} IoU at {threshold}", at, "%", counted, where))
            if lowest and name in OBJECTS:
                everywhere = metrics["class_iou_all"][name]
                found.append(Figure(f"iou_all.{name}", f"{name} IoU", everywhere, "%", "all cells", of_rule, f"{name} IoU, all cells"))
            mean, over = metrics["image_mean"][name], f"rule {rule}, mean over frames"
            found.append(Figure(f"image_mean.{name}", f"{name} IoU of single frames", mean, "%", counted, over))
        if len(metrics["class_iou"]) > 1:
            count = len(metrics["class_iou"])
            found.append(
                Figure("miou", "map mIoU", metrics["miou"], "%", "cells of each class", f"{count} classes, {of_rule}", group="Map")
            )
        return found

    @classmethod
    def classes(cls, metrics: Mapping[str, Any]) -> ClassFigures | None:
        """See `Task.classes`."""
        values = metrics["class_iou"]
        if len(values) < 2:
            return None
        return ClassFigures("IoU by class, from above", Legend.of(list(values)), {"IoU": values}, {"IoU": metrics["miou"]})

    @classmethod
    def notes(cls, metrics: Mapping[str, Any]) -> list[str]:
        """See `Task.notes`."""
        if metrics["rule"] != "simplebev":
            return []
        return ["Maps of rule simplebev are in the frame of CAM_FRONT: x is along its axis, which looks a little down or up."]

    @classmethod
    def layers(cls, part: PredictedMap) -> list[Layer]:
        """Of each cell, the first class that is there."""
        return [_layer(part.logits.cpu().float().numpy() > 0, part.class_names, part.grid)]

    @classmethod
    def truth_layers(cls, truth: TrueMap, part: PredictedMap | None = None) -> list[Layer]:
        """The same of the truth, IGNORE where roads are not known; vehicles by the rule "lss" without a prediction."""
        names, rule = (part.class_names, part.rule) if part is not None else (("vehicle",), "lss")
        drawn = truth.drawn(names, rule)
        layer = _layer(drawn.classes, names, MAP_GRID)
        roads = [i for i, name in enumerate(names) if name not in OBJECTS]
        is_unknown = ~drawn.counts[roads].all(0) & ~drawn.classes.any(0)
        return [replace(layer, labels=np.where(is_unknown, np.uint8(IGNORE), layer.labels))]

    @classmethod
    def arrays(cls, part: PredictedMap) -> dict[str, np.ndarray]:
        """`logits` float32 (K, Y, X), `class_names` (K,) text, `rule` text, the grid as `lower`, `upper` and `cell` (3,) in metres."""
        grid = {name: np.array(value) for name, value in part.grid}
        words = {"class_names": np.array(part.class_names), "rule": np.array(part.rule)}
        return {"logits": part.logits.float().numpy(), **words, **grid}

    @classmethod
    def restored(cls, stored: Mapping[str, np.ndarray]) -> PredictedMap:
        """The inverse of `arrays`; files of before they named a rule follow "lss"."""
        rule = str(stored["rule"]) if "rule" in stored else "lss"
        grid, names = grid_from(stored), names_from(stored)
        return PredictedMap(tensor_from(stored, "logits", "f", len(names), grid.shape[1], grid.shape[0]), grid, names, rule)


def _layer(masks: np.ndarray, names: tuple[str, ...], grid: Any) -> MapLayer:
    """The first class of each cell, from masks (K, Y, X)."""
    first = np.where(masks.any(0), masks.argmax(0), len(names)).astype(np.uint8)
    return MapLayer(first, Legend.of(names), len(names), grid)


def _mean(values: Mapping[str, float]) -> float:
    known = [value for value in values.values() if value == value]
    return sum(known) / len(known) if known else float("nan")
