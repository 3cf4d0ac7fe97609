"""Voxel metrics: mIoU per class as Occ3D evaluates it, and geometric IoU (occupied or not). All counts are int64."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.metrics.counts import CountMetric, Labels, masked_pair, mean_without_nan, ratio, require_choice, require_free
from frustum.types.classes import FLAT_CLASSES, IGNORE, OCC3D_CLASSES

MaskName = Literal["camera", "lidar", "none"]
OCC3D_FLAT = tuple(OCC3D_CLASSES.index(name) for name in FLAT_CLASSES)
"""Ids of driveable_surface, other_flat, sidewalk and terrain in Occ3D's order."""


class OccupancyIoU(CountMetric):
    """Per-class IoU from one confusion matrix over all frames, and its mean over the occupied classes.

    `free` is not in the mean, but free voxels count as false positives and negatives of the others; `others` is in the mean. Voxels
    labelled 255 are ignored.

    Args:
        num_classes: number of ids, free included.
        free: id of the free class.
        mask: which mask the caller passes to `add` ("none": no mask); it names the result. Another call is refused, see `require_mask`.
        absent: IoU of a class that is predicted but absent from the truth: "zero" (FlashOCC) or "nan", out of the mean (SparseOcc).
    """

    def __init__(self, num_classes: int = 18, free: int = 17, mask: MaskName = "camera", absent: Literal["zero", "nan"] = "zero"):
        require_free(free, num_classes)
        require_choice("mask", mask, get_args(MaskName))
        require_choice("absent", absent, ("zero", "nan"))
        self.num_classes, self.free, self.mask, self.absent = num_classes, free, mask, absent
        self._start(confusion=(num_classes, num_classes))

    @property
    def confusion(self) -> np.ndarray:
        """(K, K) int64 voxel counts, rows true, columns predicted."""
        return self._state["confusion"]

    def add(self, pred: Labels, target: Labels, mask: Labels | None = None) -> None:
        """Count one frame or a batch. All arrays have one shape, (X, Y, Z) or any other; `mask` is 1 where voxels count.

        Raises:
            ShapeError: shapes differ.
            DataError: an id inside the mask is not below num_classes (255 in the target is ignored), or the mask is missing, or given
                although the metric counts all voxels.
        """
        pred, target = masked_pair(pred, target, mask)
        require_ids(pred, self.num_classes, "the prediction")
        require_ids(target, self.num_classes, "the target")
        require_mask(self.mask, mask)
        pairs = target.astype(np.int64) * self.num_classes + pred
        self._state["confusion"] += np.bincount(pairs, minlength=self.num_classes**2).reshape(self.num_classes, -1)

    def per_class(self) -> np.ndarray:
        """(K,) float64 IoU per id, free included; NaN for a class that occurs nowhere."""
        hits, true, predicted = np.diag(self.confusion), self.confusion.sum(1), self.confusion.sum(0)
        iou = ratio(hits, true + predicted - hits)
        if self.absent == "nan":
            iou[true == 0] = np.nan
        return iou

    def compute(self) -> dict[str, Any]:
        """`miou` (0..1, NaN if no occupied class occurs), `per_class` list over all ids, and the `mask` and `absent` conventions."""
        iou = self.per_class()
        return {"miou": mean_without_nan(np.delete(iou, self.free)), "per_class": iou.tolist(), "mask": self.mask, "absent": self.absent}


class GeometricIoU(CountMetric):
    """IoU of occupied against free, whatever the class.

    Args:
        above_ground: count the flat classes as free, on both sides: most occupied voxels are ground that a prior gets right.
        num_classes, free: as in OccupancyIoU.
        mask: which mask the caller passes to `add`; it names the result.
        flat: ids of the ground classes.
    """

    def __init__(
        self,
        above_ground: bool = False,
        num_classes: int = 18,
        free: int = 17,
        mask: MaskName = "camera",
        flat: tuple[int, ...] = OCC3D_FLAT,
    ):
        taken_as_free = (free, *(flat if above_ground else ()))
        if not all(0 <= i < num_classes for i in taken_as_free):
            raise ConfigError(f"free and flat must be ids below num_classes = {num_classes}, got {taken_as_free}.")
        require_choice("mask", mask, get_args(MaskName))
        self.above_ground, self.num_classes, self.free, self.mask, self.flat = above_ground, num_classes, free, mask, flat
        self._start(tp=(), fp=(), fn=())

    def add(self, pred: Labels, target: Labels, mask: Labels | None = None) -> None:
        """Count one frame or a batch; arguments and errors as in OccupancyIoU.add."""
        whole = OccupancyIoU(self.num_classes, self.free, self.mask)
        whole.add(pred, target, mask)
        self.add_confusion(whole.confusion)

    def add_confusion(self, confusion: np.ndarray) -> None:
        """Count frames by their confusion matrix (K, K), rows true, as `OccupancyIoU` has it. Raises ShapeError for another size."""
        if confusion.shape != (self.num_classes, self.num_classes):
            raise ShapeError(f"the confusion matrix must be ({self.num_classes}, {self.num_classes}), got {confusion.shape}.")
        is_occupied = np.ones(self.num_classes, bool)
        is_occupied[[self.free, *(self.flat if self.above_ground else ())]] = False
        true, predicted = confusion[is_occupied], confusion[:, is_occupied]
        tp = true[:, is_occupied].sum()
        self._add(tp=tp, fp=predicted.sum() - tp, fn=true.sum() - tp)

    def compute(self) -> dict[str, Any]:
        """`iou`, `precision`, `recall` (0..1 or NaN), `above_ground` and `mask`."""
        tp, fp, fn = (self._state[name] for name in ("tp", "fp", "fn"))
        iou, precision, recall = (float(ratio(tp, whole)) for whole in (tp + fp + fn, tp + fp, tp + fn))
        return {"iou": iou, "precision": precision, "recall": recall, "above_ground": self.above_ground, "mask": self.mask}


def require_mask(named: MaskName, mask: Labels | None) -> None:
    """Raise DataError unless a mask is given exactly where the metric's figures are named after one."""
    if named != "none" and mask is None:
        fault = f"this metric reports figures inside the {named} mask, but add() was called without a mask"
        raise DataError(f"{fault}. Pass the {named} mask of the labels, or make the metric with mask='none' to count all voxels.")
    if named == "none" and mask is not None:
        fault = "this metric reports figures over all voxels (mask='none'), but add() was given a mask"
        raise DataError(f"{fault}. Leave it out, or make the metric with mask='camera' or mask='lidar', whichever it is.")


def require_ids(ids: np.ndarray, num_classes: int, what: str, allow_ignore: bool = False) -> None:
    """Raise DataError unless all ids are in [0, num_classes), or 255 where that may stand for no class."""
    if allow_ignore:
        ids = ids[ids != IGNORE]
    if ids.size and (int(ids.max()) >= num_classes or int(ids.min()) < 0):
        bad = int(ids.max()) if int(ids.max()) >= num_classes else int(ids.min())
        advice = "Map the ids to the class list of the recipe first."
        raise DataError(f"{what} holds class id {bad}, but there are {num_classes} classes (0 to {num_classes - 1}). {advice}")
