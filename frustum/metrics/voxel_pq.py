"""Panoptic quality over voxels (SparseOcc's `Metric_Panoptic`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from frustum.metrics.counts import Labels, mean_without_nan, same_shape, to_numpy
from frustum.metrics.occupancy import MaskName
from frustum.metrics.panoptic_quality import OCC3D_THINGS, SegmentMetric
from frustum.types.classes import IGNORE


class VoxelPQ(SegmentMetric):
    """Segments are sets of voxels inside the mask; they match when their IoU exceeds one half.

    Args:
        num_classes, free: number of ids and the free one.
        mask: which mask the caller passes to `add` ("none": no mask); it names the result.
        things: classes whose objects are told apart.
        least: unmatched segments of fewer voxels inside the mask are forgiven.
    """

    def __init__(
        self, num_classes: int = 18, free: int = 17, mask: MaskName = "camera", things: tuple[int, ...] = OCC3D_THINGS, least: int = 20
    ):
        super().__init__(num_classes, free, things, least, ways=1)
        self.mask = mask

    def add(self, pred: Labels, target: Labels, pred_instances: Labels, target_instances: Labels, mask: Labels | None = None) -> None:
        """Count one frame; voxels labelled 255 in the truth are ignored.

        Args:
            pred, target: (X, Y, Z) class ids.
            pred_instances: (X, Y, Z) numbers: voxels of one class and number are one segment, number 0 included.
            target_instances: (X, Y, Z) as in SparseOcc's `instances`: objects have a number of their own, 0 is none.
            mask: 1 where voxels count.

        Raises:
            ShapeError: shapes differ. DataError: not integers, class ids beyond 255 or numbers beyond 65535.
        """
        named = {"prediction": pred, "target": target, "predicted instances": pred_instances, "true instances": target_instances}
        arrays = {name: to_numpy(array, f"the {name}") for name, array in named.items()}
        if mask is not None:
            arrays["mask"] = to_numpy(mask, "the mask")
        same_shape(**arrays)
        keep = arrays["target"] != IGNORE
        if mask is not None:
            keep &= arrays["mask"].astype(bool)
        somewhere = (arrays["prediction"] != self.free) | (arrays["target"] != self.free) | (arrays["true instances"] != 0)
        where = np.flatnonzero(keep & somewhere)  # free on both sides is no segment's
        guess, truth, guess_ids, true_ids = (arrays[name].ravel()[where] for name in named)
        self._count((guess, guess_ids), (truth, true_ids), [None])

    def compute(self) -> dict[str, Any]:
        """`pq`, `sq`, `rq` (means over the classes that have segments, 0..1 or NaN), `per_class` PQ over all ids, and the `mask`."""
        found = self.quality()
        means = {name: mean_without_nan(values[0]) for name, values in found._asdict().items()}
        return {**means, "per_class": found.pq[0].tolist(), "mask": self.mask}
