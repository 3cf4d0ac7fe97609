"""Box labels: the objects of the detection classes around the vehicle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from frustum.data.augment import Draw
from frustum.data.source import as_rig_source
from frustum.errors import DataError
from frustum.geometry.plausible import BOX, first_fault
from frustum.types.boxes import LABEL_OF
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.contract import Label, Shapes


@dataclass(frozen=True)
class TrueBoxes:
    """Boxes of B samples in the augmented ego frame: per sample (M, 9) float32 of `geometry.BOX_FIELDS` and (M,) int64 ids in
    DETECTION_CLASSES. Velocities are NaN where unknown: a loss leaves them out. Raises DataError for another class, and for a box that
    cannot be (on the CPU: a GPU is not waited for)."""

    boxes: list[Tensor]
    classes: list[Tensor]

    def __post_init__(self) -> None:
        for boxes in self.boxes:
            if boxes.device.type == "cpu" and (found := first_fault(boxes, BOX)) is not None:
                raise DataError(f"the true box {found.place[0]} cannot be right: {found.words} Correct it, or leave it out.")
        last = len(DETECTION_CLASSES) - 1
        for kinds in self.classes:
            wrong = kinds[(kinds < 0) | (kinds > last)] if kinds.device.type == "cpu" else kinds[:0]
            if len(wrong):
                raise DataError(f"a true box has class {int(wrong[0])}, but detectors know classes 0 to {last}. Leave such boxes out.")


class _Found(NamedTuple):
    boxes: np.ndarray  # (M, 9) float64
    classes: np.ndarray  # (M,) int64


@dataclass(frozen=True)
class BoxLabels(Label[TrueBoxes]):
    """Boxes of the ten detection classes that hold at least `min_points` LiDAR or radar points.

    `without` says in errors how to train the network without boxes.
    """

    min_points: int = 1
    without: str = ""

    what: ClassVar[str] = "boxes"
    advice: ClassVar[str] = "Use a data set with annotations, or Batch.from_arrays(..., labels={BoxLabels: ...})."

    def read(self, source: Any, token: str, fixed: Draw | None = None) -> _Found:
        """See `Label.read`."""
        boxes = as_rig_source(source, self.what).sample(token, with_boxes=True, occupancy=False).boxes
        if boxes is None:
            raise DataError(f"the keyframe {token} was read without boxes.")
        points = boxes.num_lidar_pts + boxes.num_radar_pts
        keep = [i for i, name in enumerate(boxes.names) if name in LABEL_OF and points[i] >= self.min_points]
        return _Found(boxes.boxes[keep].reshape(-1, 9), np.array([LABEL_OF[boxes.names[i]] for i in keep], np.int64))

    def apply(self, found: _Found, draw: Draw) -> _Found:
        """The boxes in the augmented frame."""
        return found._replace(boxes=draw.bev.boxes(found.boxes))

    def collate(self, moved: Sequence[_Found | None]) -> TrueBoxes | None:
        """None if any sample has no boxes at all, not even an empty list."""
        known = [found for found in moved if found is not None]
        if len(known) < len(moved):
            return None
        return TrueBoxes([torch.from_numpy(f.boxes).float() for f in known], [torch.from_numpy(f.classes) for f in known])

    def example(self, rng: np.random.Generator, shapes: Shapes) -> TrueBoxes:
        """Five boxes a sample within 15 m, four in the first."""
        boxes = np.zeros((shapes.batch, 5, 9))
        boxes[..., :2] = rng.uniform(-15, 15, (shapes.batch, 5, 2))
        boxes[..., 3:6] = rng.uniform(1, 5, (shapes.batch, 5, 3))
        boxes[..., 6] = rng.uniform(-np.pi, np.pi, (shapes.batch, 5))
        classes = rng.integers(0, len(DETECTION_CLASSES), (shapes.batch, 5))
        counts = [4, *[5] * (shapes.batch - 1)]  # of an even number, the signs of an L1 loss may cancel
        rows = [torch.from_numpy(b[:n]).float() for b, n in zip(boxes, counts, strict=True)]
        return TrueBoxes(rows, [torch.from_numpy(c[:n]) for c, n in zip(classes, counts, strict=True)])

    def described(self, source: Any, tokens: Sequence[str], statistics: Mapping[str, np.ndarray]) -> str:
        """Boxes of which objects."""
        return f"boxes of objects with at least {self.min_points} LiDAR or radar point{'s' * (self.min_points != 1)}"

    def require(self, source: Any, tokens: Sequence[str]) -> None:
        """Raise DataError if no keyframe has a box: all that could be learned is that nothing is there; or if boxes would be learned from
        keyframes whose other labels are hidden.
        """
        hides = getattr(source, "hides_labels", None)
        if hides is not None and any(map(hides, tokens)):
            raise DataError(
                "data.labelled_share hides voxel and map labels, but this recipe also learns from boxes, and would from those of all "
                "keyframes. Set data.labelled_only=true to train on the labelled ones alone."
            )
        if not tokens or as_rig_source(source, self.what).count_boxes(tokens, self.min_points):
            return
        raise DataError(
            f"this recipe learns from boxes, but none of the {len(tokens)} training keyframes in {source.root} has a box of a detection "
            f"class with a LiDAR or radar point in it (sample_annotation.json). Add annotations"
            + (f", or train without: {self.without}" if self.without else ".")
        )
