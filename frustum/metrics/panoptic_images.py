"""Panoptic quality of images with the rules for void and crowd (Kirillov et al., CVPR 2019; panopticapi and cityscapesscripts agree)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from frustum.errors import ConfigError, DataError
from frustum.metrics.counts import CountMetric, Labels, label_arrays, mean_without_nan
from frustum.metrics.panoptic_quality import Quality, panoptic_quality
from frustum.metrics.sums import from_words, to_words


def segment_ids(colours: np.ndarray) -> np.ndarray:
    """Segment ids int64 (H, W) of a panoptic PNG (H, W, 3) uint8: R + 256 G + 65536 B. Raises DataError for another kind of array."""
    image = np.asarray(colours)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"a panoptic PNG is (H, W, 3) uint8, got {image.dtype} {image.shape}.")
    return image.astype(np.int64) @ np.array([1, 256, 65536])


class ImagePanopticQuality(CountMetric):
    """PQ, SQ and RQ over all, thing and stuff classes.

    Segments of one class match when their IoU exceeds 1/2; pixels where the truth is void do not count to the union. A crowd (a region of
    objects that were not separated) matches nothing and is not a miss. An unmatched prediction is excused if more than half of it lies
    on void or on a crowd of its class; of several crowds of one class in an image the last one counts, as in the references.

    State: `tp`, `fp`, `fn` (K,) and `iou` (K, 2), the exact sums of matched IoUs (`metrics.sums`), in the order things, stuff.

    Args:
        things, stuff: category ids.
        void: segment id of pixels without a label.
    """

    def __init__(self, things: tuple[int, ...], stuff: tuple[int, ...], void: int = 0):
        self.things, self.stuff, self.void = tuple(things), tuple(stuff), void
        if not self.categories or len(set(self.categories)) != len(self.categories):
            raise ConfigError(f"things and stuff must be different category ids, got {self.things} and {self.stuff}.")
        count = len(self.categories)
        self._start(tp=count, fp=count, fn=count, iou=(count, 2))

    @property
    def categories(self) -> tuple[int, ...]:
        """Category ids in the order of the state."""
        return self.things + self.stuff

    def add(
        self,
        pred: Labels,
        pred_categories: Mapping[int, int],
        target: Labels,
        target_categories: Mapping[int, int],
        crowd: Iterable[int] = (),
    ) -> None:
        """Count one image.

        Args:
            pred, target: segment ids (H, W), `void` where there is none.
            pred_categories, target_categories: category id by segment id.
            crowd: ids of the true segments that are crowds.

        Raises:
            ShapeError: shapes differ.
            DataError: a segment of the image has no category, a category is unknown, or a listed predicted segment has no pixel.
        """
        found, true = label_arrays(prediction=pred, target=target)[1].values()
        position = {category: k for k, category in enumerate(self.categories)}
        for name, ids, listed in (("prediction", found, pred_categories), ("target", true, target_categories)):
            self._check(name, ids, listed, position)
        (t_ids, t_index, t_area), (p_ids, p_index, p_area) = (
            np.unique(a.reshape(-1), return_inverse=True, return_counts=True) for a in (true, found)
        )
        shared = np.bincount(t_index * len(p_ids) + p_index, minlength=len(t_ids) * len(p_ids)).reshape(len(t_ids), len(p_ids))
        on_void = shared[t_ids == self.void].sum(0)
        crowds = [int(c) for c in crowd if int(c) in target_categories]
        last_crowd = {target_categories[c]: shared[t_ids == c].sum(0) for c in target_categories if c in crowds}
        matched_true, matched_pred = {self.void, *crowds}, {self.void}
        for t, p in np.argwhere(shared):
            true_id, pred_id = int(t_ids[t]), int(p_ids[p])
            if self.void in (true_id, pred_id) or true_id in crowds or target_categories[true_id] != pred_categories[pred_id]:
                continue
            iou = shared[t, p] / (t_area[t] + p_area[p] - shared[t, p] - on_void[p])
            if iou > 0.5:
                k = position[target_categories[true_id]]
                self._state["tp"][k] += 1
                self._state["iou"][k] += to_words(iou)
                matched_true.add(true_id)
                matched_pred.add(pred_id)
        for true_id, category in target_categories.items():
            if true_id not in matched_true:
                self._state["fn"][position[category]] += 1
        for p, pred_id in enumerate(p_ids.tolist()):
            if pred_id in matched_pred:
                continue
            category = pred_categories[pred_id]
            excused = on_void[p] + (last_crowd[category][p] if category in last_crowd else 0)
            if excused / p_area[p] <= 0.5:
                self._state["fp"][position[category]] += 1

    def _check(self, name: str, ids: np.ndarray, listed: Mapping[int, int], position: Mapping[int, int]) -> None:
        present = set(np.unique(ids).tolist()) - {self.void}
        if present - set(listed):
            first = min(present - set(listed))
            raise DataError(f"segment {first} of the {name} does not have a category: list it, or paint it as void ({self.void}).")
        if name == "prediction" and set(listed) - present:
            raise DataError(f"segment {min(set(listed) - present)} of the prediction is listed but does not have a pixel: leave it out.")
        unknown = set(listed.values()) - set(position)
        if unknown:
            raise DataError(f"the {name} has category {min(unknown)}, but this metric knows {', '.join(map(str, position))}.")

    def quality(self) -> Quality:
        """Per category (K,), in the order of `categories`; NaN for one without any segment."""
        return panoptic_quality(self._state["tp"], self._state["fp"], self._state["fn"], from_words(self._state["iou"]))

    def compute(self) -> dict[str, Any]:
        """For `all`, `things` and `stuff`: `pq`, `sq`, `rq` (0..1, means over categories with a segment) and their number `n`.

        `per_category` has the same figures (NaN without segments) and the counts by category id.
        """
        quality, num_things = self.quality(), len(self.things)
        result: dict[str, Any] = {}
        for name, part in (("all", slice(None)), ("things", slice(num_things)), ("stuff", slice(num_things, None))):
            figures = {field: mean_without_nan(values[part]) for field, values in quality._asdict().items()}
            result[name] = figures | {"n": int(np.count_nonzero(~np.isnan(quality.pq[part])))}
        result["per_category"] = {
            category: {field: float(values[k]) for field, values in quality._asdict().items()}
            | {name: int(self._state[name][k]) for name in ("tp", "fp", "fn")}
            for k, category in enumerate(self.categories)
        }
        return result
