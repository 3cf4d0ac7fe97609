"""mIoU of semantic segmentation in images, from one confusion matrix over the whole set."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from frustum.errors import ConfigError
from frustum.metrics.counts import CountMetric, Labels, label_arrays, mean_without_nan, ratio, require_choice
from frustum.metrics.occupancy import require_ids


class SemanticIoU(CountMetric):
    """IoU per class, TP / (TP + FP + FN), and its mean. Pixels whose true label is `ignore` do not count, as hits or as false alarms.

    A pixel that is predicted as `ignore` although it counts is a miss of its true class (Cityscapes).

    State: `confusion` (K, K + 1), rows true, columns predicted, the last one for pixels predicted as `ignore`.

    Args:
        num_classes: K.
        ignore: id of pixels that do not count.
        absent: IoU of a class that occurs neither in the truth nor in the prediction: "nan", out of the mean (Cityscapes, mmsegmentation),
            or "zero", part of the mean (the evaluation of CWD and TorchDistiller).
        groups: group of each class for `group_mean`, e.g. `CATEGORY_OF_CLASS` of data.images.cityscapes; None for no groups. A confusion
            within a group is a hit of the group.
    """

    def __init__(
        self, num_classes: int = 19, ignore: int = 255, absent: Literal["nan", "zero"] = "nan", groups: tuple[int, ...] | None = None
    ):
        require_choice("absent", absent, ("nan", "zero"))
        if num_classes < 1 or 0 <= ignore < num_classes:
            raise ConfigError(f"ignore must not be a class id, 0 to {num_classes - 1}, got {ignore}.")
        if groups is not None and (len(groups) != num_classes or set(groups) != set(range(max(groups) + 1))):
            raise ConfigError(f"groups needs one of the numbers 0, 1, ... for each of the {num_classes} classes, got {groups}.")
        self.num_classes, self.ignore, self.absent, self.groups = num_classes, ignore, absent, groups
        self._start(confusion=(num_classes, num_classes + 1))

    @property
    def confusion(self) -> np.ndarray:
        """(K, K) int64 pixel counts, rows true, columns predicted."""
        return self._state["confusion"][:, :-1]

    def add(self, pred: Labels, target: Labels) -> None:
        """Count an image or a batch; `pred` and `target` are class ids of one shape.

        Raises:
            ShapeError: shapes differ.
            DataError: an id is neither a class nor `ignore`, or scores were given instead of ids.
        """
        arrays = label_arrays(prediction=pred, target=target)[1]
        counted = arrays["target"] != self.ignore
        found, true = (ids[counted].astype(np.int64) for ids in arrays.values())
        missed = found == self.ignore
        require_ids(found[~missed], self.num_classes, "the prediction")
        require_ids(true, self.num_classes, "the target")
        pairs = true * (self.num_classes + 1) + np.where(missed, self.num_classes, found)
        size = self._state["confusion"].size
        self._state["confusion"] += np.bincount(pairs, minlength=size).reshape(self.num_classes, -1)

    def per_class(self) -> np.ndarray:
        """(K,) float64; 0 or NaN for a class that occurs nowhere, as `absent` says."""
        return self._iou(self._state["confusion"])

    def per_group(self) -> np.ndarray:
        """(G,) float64. Raises ConfigError without groups."""
        if self.groups is None:
            raise ConfigError("this SemanticIoU was made without groups.")
        member = np.equal.outer(np.arange(max(self.groups) + 1), self.groups).astype(np.int64)  # (G, K)
        columns = np.concatenate([self.confusion @ member.T, self._state["confusion"][:, -1:]], 1)
        return self._iou(member @ columns)

    def _iou(self, confusion: np.ndarray) -> np.ndarray:
        hits, true, predicted = np.diag(confusion[:, :-1]), confusion.sum(1), confusion[:, :-1].sum(0)
        iou = ratio(hits, true + predicted - hits)
        return iou if self.absent == "nan" else np.nan_to_num(iou, nan=0.0)

    def compute(self) -> dict[str, Any]:
        """`miou` (0..1), `per_class`, `accuracy` of all pixels, `class_accuracy` (recall), NaN for a class without a true pixel, and its
        mean over the others, `mean_accuracy`; the `absent` convention; with groups `group_mean`, `per_group`."""
        confusion, iou = self._state["confusion"], self.per_class()
        result = {"miou": mean_without_nan(iou), "per_class": iou.tolist(), "absent": self.absent}
        result["accuracy"] = float(ratio(np.trace(self.confusion), confusion.sum()))
        recall = ratio(np.diag(self.confusion), confusion.sum(1))
        result |= {"class_accuracy": recall.tolist(), "mean_accuracy": mean_without_nan(recall)}
        if self.groups is not None:
            groups = self.per_group()
            result |= {"group_mean": mean_without_nan(groups), "per_group": groups.tolist()}
        return result
