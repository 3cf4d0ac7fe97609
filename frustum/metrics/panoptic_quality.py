"""Panoptic quality (Kirillov et al., CVPR 2019): segments of one class match when their IoU exceeds one half, so each has one partner.

`panoptic_quality` is the formula, for metrics of any kind; `SegmentMetric` is the counting behind RayPQ and voxel PQ, where a segment is
the set of points (rays or voxels) that share a class and a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from frustum.errors import ConfigError, DataError
from frustum.metrics.counts import CountMetric, ratio, require_free
from frustum.metrics.occupancy import require_ids
from frustum.metrics.sums import from_words, to_words
from frustum.types.classes import OBJECT_CLASSES, OCC3D_CLASSES

OCC3D_THINGS = tuple(i for i, name in enumerate(OCC3D_CLASSES) if name in OBJECT_CLASSES)
"""Ids of the classes with separate objects in Occ3D's order: bicycle, bus, car, construction_vehicle, motorcycle, pedestrian,
trailer, truck. Barriers and traffic cones are not among them (SparseOcc)."""
MAX_IDS = 65536
_SMALL = 1 << 22


class Quality(NamedTuple):
    """PQ = SQ x RQ: mean IoU of the matched segments, and the F1 score of finding segments. NaN where there was no segment at all."""

    pq: np.ndarray
    sq: np.ndarray
    rq: np.ndarray


def panoptic_quality(tp: Any, fp: Any, fn: Any, iou_sum: Any) -> Quality:
    """Quality of classes (*,) from the numbers of matched, unmatched predicted and unmatched true segments and the sum of matched IoUs."""
    tp, fp, fn, iou_sum = (np.asarray(a, np.float64) for a in (tp, fp, fn, iou_sum))
    exists = tp + fp + fn > 0
    segmentation = np.where(exists, np.nan_to_num(ratio(iou_sum, tp), nan=0.0), np.nan)
    recognition = ratio(tp, tp + fp / 2 + fn / 2)
    return Quality(segmentation * recognition, segmentation, recognition)


class SegmentMetric(CountMetric):
    """Counts of matched and unmatched segments.

    State: `tp`, `fp`, `fn` (T, K) and `iou` (T, K, 2), the exact sums of matched IoUs (`metrics.sums`), for T ways to intersect segments
    and K classes.

    Args:
        num_classes, free: number of ids and the free one, which forms no segments.
        things: classes with separate objects in the truth; every other class is one segment per frame there.
        min_points: unmatched segments of fewer points are forgiven; matched ones count whatever their size.
        ways: T.
    """

    def __init__(self, num_classes: int, free: int, things: tuple[int, ...], min_points: int, ways: int):
        require_free(free, num_classes)
        if any(not 0 <= thing < num_classes or thing == free for thing in things):
            raise ConfigError(f"things must be ids below num_classes = {num_classes} other than free = {free}, got {things}.")
        self.num_classes, self.free, self.things, self.min_points = num_classes, free, tuple(things), min_points
        shape = (ways, num_classes)
        self._start(tp=shape, fp=shape, fn=shape, iou=(*shape, 2))

    def _count(self, pred: tuple[np.ndarray, np.ndarray], true: tuple[np.ndarray, np.ndarray], meets: Sequence[np.ndarray | None]) -> None:
        """Add the points of a frame.

        Args:
            pred, true: class ids (P,) and numbers (P,) of the points. The numbers of the truth are as its files have them.
            meets: for each of the T ways, which points (P,) count to intersections; None means all.
        """
        (pred_class, pred_ids), (true_class, true_ids) = (self._points(*side) for side in (pred, true))
        predicted = _Segments(pred_class, pred_ids, self.num_classes, self.free)
        truth = _Segments(true_class, self._own_ids(true_class, true_ids), self.num_classes, self.free)
        both = np.flatnonzero((predicted.index >= 0) & (truth.index >= 0) & (pred_class == true_class))
        pairs = truth.index[both] * len(predicted.areas) + predicted.index[both]
        for way, meeting in enumerate(meets):
            pair, shared = _tally(pairs if meeting is None else pairs[meeting[both]])
            t, p = pair // max(len(predicted.areas), 1), pair % max(len(predicted.areas), 1)
            iou = shared / (truth.areas[t] + predicted.areas[p] - shared)
            matched = iou > 0.5
            t, p, iou = t[matched], p[matched], iou[matched]
            self._state["tp"][way] += np.bincount(truth.classes[t], minlength=self.num_classes)
            np.add.at(self._state["iou"][way], truth.classes[t], to_words(iou))
            for name, side, found in (("fn", truth, t), ("fp", predicted, p)):
                left = side.areas >= self.min_points
                left[found] = False
                self._state[name][way] += np.bincount(side.classes[left], minlength=self.num_classes)

    def _points(self, classes: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= MAX_IDS):
            raise DataError(f"instance numbers must be from 0 to {MAX_IDS - 1}, got {int(ids.min())} to {int(ids.max())}.")
        require_ids(classes, self.num_classes, "a volume of classes", allow_ignore=True)
        return classes.astype(np.int64), ids.astype(np.int64)

    def _own_ids(self, classes: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Numbers of true segments: those of objects whose points carry one class; all else of a class is one segment, number 0."""
        kinds, _ = _tally(ids * 256 + classes)
        is_object = np.bincount(kinds // 256, minlength=int(ids.max(initial=0)) + 1) == 1
        is_thing = np.zeros(256, bool)
        is_thing[list(self.things)] = True
        return np.where(is_thing[classes] & is_object[ids], ids, 0)

    def quality(self) -> Quality:
        """Per way and class (T, K); `free` is NaN."""
        return panoptic_quality(self._state["tp"], self._state["fp"], self._state["fn"], from_words(self._state["iou"]))


class _Segments:
    """The segments of one side: `classes` and `areas` (S,), and `index` (P,) of each point's segment, -1 for points of no class."""

    def __init__(self, classes: np.ndarray, ids: np.ndarray, num_classes: int, free: int):
        counted = np.flatnonzero((classes < num_classes) & (classes >= 0) & (classes != free))
        keys = ids[counted] * num_classes + classes[counted]
        present, self.areas = _tally(keys)
        self.classes = present % num_classes
        position = np.empty(int(present[-1]) + 1 if present.size else 0, np.int64)
        position[present] = np.arange(len(present))
        self.index = np.full(len(classes), -1, np.int64)
        self.index[counted] = position[keys]


def _tally(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values that occur, ascending, and how often."""
    if keys.size and int(keys.max()) >= _SMALL:
        return np.unique(keys, return_counts=True)
    counts = np.bincount(keys)
    present = np.flatnonzero(counts)
    return present, counts[present]
