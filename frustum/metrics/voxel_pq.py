"""Panoptic quality over voxels (SparseOcc's `Metric_Panoptic`)."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from frustum.metrics.counts import Labels, label_arrays, mean_without_nan, require_choice
from frustum.metrics.occupancy import MaskName, require_mask
from frustum.metrics.panoptic_quality import OCC3D_THINGS, SegmentMetric
from frustum.types.classes import IGNORE


class VoxelPQ(SegmentMetric):
    """Segments are sets of voxels inside the mask; they match when their IoU exceeds one half.

    Args:
        num_classes, free: number of ids and the free one.
        mask: which mask the caller passes to `add` ("none": no mask); it names the result.
        things: classes with separate objects.
        min_points: unmatched segments of fewer voxels inside the mask are forgiven.
    """

    def __init__(
        self, num_classes: int = 18, free: int = 17, mask: MaskName = "camera", things: tuple[int, ...] = OCC3D_THINGS, min_points: int = 20
    ):
        super().__init__(num_classes, free, things, min_points, ways=1)
        require_choice("mask", mask, get_args(MaskName))
        self.mask = mask

    def add(self, pred: Labels, target: Labels, pred_instances: Labels, target_instances: Labels, mask: Labels | None = None) -> None:
        """Count one frame; voxels labelled 255 in the truth are ignored.

        Args:
            pred, target: (X, Y, Z) class ids.
            pred_instances: (X, Y, Z) numbers: voxels of one class and number are one segment, number 0 included.
            target_instances: (X, Y, Z) as in SparseOcc's `instances`: objects have a number of their own, 0 is none.
            mask: 1 where voxels count.

        Raises:
            ShapeError: shapes differ. DataError: not integers, class ids beyond 255 or numbers beyond 65535, or a mask
                where none is named, or the converse.
        """
        named = {"prediction": pred, "target": target, "predicted_instances": pred_instances, "true_instances": target_instances}
        inside, arrays = label_arrays(mask, **named)
        require_mask(self.mask, mask)
        keep = (arrays["target"] != IGNORE) if inside is None else (arrays["target"] != IGNORE) & inside
        occupied = (arrays["prediction"] != self.free) | (arrays["target"] != self.free) | (arrays["true_instances"] != 0)
        where = np.flatnonzero(keep & occupied)  # what is free on both sides belongs to no segment
        guess, truth, guess_ids, true_ids = (array.ravel()[where] for array in arrays.values())
        self._count((guess, guess_ids), (truth, true_ids), [None])

    def compute(self) -> dict[str, Any]:
        """`pq`, `sq`, `rq` (means over the classes that have segments, 0..1 or NaN), `per_class` PQ over all ids, and the `mask`."""
        found = self.quality()
        means = {name: mean_without_nan(values[0]) for name, values in found._asdict().items()}
        return {**means, "per_class": found.pq[0].tolist(), "mask": self.mask}
