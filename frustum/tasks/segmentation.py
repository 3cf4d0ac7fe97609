"""The class of every pixel of an image: mIoU over a set of labelled images (docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from frustum.errors import DataError, ShapeError
from frustum.metrics.semantic_iou import SemanticIoU
from frustum.tasks.task import ClassFigures, Figure, Task, require_names, without_nan
from frustum.types.classes import IGNORE
from frustum.types.layers import Layer, Legend, PixelLayer
from frustum.types.predictions import PredictedSegmentation

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class TrueSegmentation:
    """Labels (H, W) uint8 of an image, IGNORE where nothing counts, and the class names of the data set, empty if it states none."""

    labels: np.ndarray
    class_names: tuple[str, ...] = ()


class SegmentationTask(Task):
    """`compute` gives `miou`, the pixel `accuracy`, `class_iou` and `class_share` by class, all ratios 0..1."""

    name = "segmentation"
    part = "segmentation"
    protocol: ClassVar[Mapping[str, str]] = {
        "miou": "mean over the classes of IoU, counts pooled over all images; pixels labelled 255 do not count; a class that occurs "
        "neither in truth nor in prediction is left out (Cityscapes)",
        "accuracy": "share of the labelled pixels whose class is right",
        "class_share": "share of each class among the labelled pixels",
    }
    _metric: SemanticIoU | None = None
    class_names: tuple[str, ...] = ()

    def truth(self, source: Any, token: str) -> TrueSegmentation:
        """See `Task.truth`."""
        read = getattr(source, "labels", None)
        if read is None or (labels := read(token)) is None:
            raise DataError(f"sample {token} of {source.root} has no label image to compare with; use `frustum predict` for such data.")
        return TrueSegmentation(labels, tuple(getattr(source, "class_names", ())))

    def add(self, token: str, part: PredictedSegmentation, truth: TrueSegmentation) -> None:
        """See `Task.add`."""
        if self._metric is None:
            self.class_names, self._metric = part.class_names, SemanticIoU(len(part.class_names), IGNORE)
        require_names(token, part.class_names, self.class_names)
        if truth.class_names not in ((), part.class_names):
            raise DataError(
                f"the network predicts the classes {', '.join(part.class_names)}, but the labels have {', '.join(truth.class_names)}. "
                "Evaluate on the data set that it was trained for."
            )
        if tuple(part.labels.shape) != truth.labels.shape:
            raise ShapeError(f"the prediction of {token} has {tuple(part.labels.shape)} pixels, but its labels have {truth.labels.shape}.")
        self._metric.add(part.labels, truth.labels)

    def merge(self, other: Self) -> Self:
        """See `Task.merge`."""
        self.require_alike(other, "class_names")
        if self._metric is not None and other._metric is not None:
            self._metric.merge(other._metric)
        return self

    def compute(self) -> dict[str, Any]:
        """See `Task.compute`, and the class."""
        metric = self._metric or SemanticIoU(1)
        found, true = metric.compute(), metric.state["confusion"].sum(1)
        by_class = dict(zip(self.class_names, found["per_class"], strict=False))
        share = dict(zip(self.class_names, (true / max(1, true.sum())).tolist(), strict=False))
        return without_nan({"miou": found["miou"], "accuracy": found["accuracy"], "class_iou": by_class, "class_share": share})

    @classmethod
    def figures(cls, metrics: Mapping[str, Any]) -> list[Figure]:
        """See `Task.figures`."""
        count, on, right = len(metrics["class_iou"]), "labelled pixels", "share of the pixels whose class is right"
        mean = f"mean over {count} classes of the IoU of their pixels"
        return [
            Figure("miou", "mIoU", metrics["miou"], "%", on, f"{count} classes, pooled", "mIoU", mean, "Pixels", True),
            Figure("accuracy", "pixel accuracy", metrics["accuracy"], "%", on, "all classes", "pixel accuracy", right, "Pixels"),
        ]

    @classmethod
    def classes(cls, metrics: Mapping[str, Any]) -> ClassFigures:
        """See `Task.classes`."""
        values, means = metrics["class_iou"], {"IoU": metrics["miou"]}
        return ClassFigures("IoU by class", Legend.of(list(values)), {"IoU": values}, means, share=metrics["class_share"])

    @classmethod
    def layers(cls, part: PredictedSegmentation) -> list[Layer]:
        """The classes of the pixels."""
        return [PixelLayer(part.labels.numpy(), Legend.of(part.class_names), IGNORE)]

    @classmethod
    def truth_layers(cls, truth: TrueSegmentation, part: PredictedSegmentation | None = None) -> list[Layer]:
        """The labels; in the colours of the prediction where the data set does not name its classes."""
        names = truth.class_names or (part.class_names if part is not None else ())
        return [PixelLayer(truth.labels, Legend.of(names), IGNORE)] if names else []

    @classmethod
    def arrays(cls, part: PredictedSegmentation) -> dict[str, np.ndarray]:
        """`labels` uint8 (H, W), `class_names` (K,) text."""
        return {"labels": part.labels.numpy().astype(np.uint8), "class_names": np.array(part.class_names)}

    @classmethod
    def restored(cls, stored: Mapping[str, np.ndarray]) -> PredictedSegmentation:
        """The inverse of `arrays`."""
        return PredictedSegmentation(torch.from_numpy(stored["labels"]), tuple(stored["class_names"].tolist()))
