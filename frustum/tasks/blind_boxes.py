"""What a detector must beat: answers without looking, nothing at all, and the boxes that are most likely in the training labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from frustum.data.labels.boxes import BoxLabels
from frustum.data.source import spread
from frustum.errors import DataError
from frustum.metrics.detection_rules import DetectionRules
from frustum.tasks.task import Predictor, Progress, silent
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.predictions import PredictedBoxes, Prediction

MAX_FRAMES, SECTORS = 4000, 8
CELL = 4.0  # metres: the largest distance of a match; places half as wide gave half the mAP on the street world
MAX_BOXES_OF_A_CLASS = DetectionRules().max_boxes // len(DETECTION_CLASSES)


class NoBoxes(Predictor):
    """Finds nothing."""

    name = "no boxes"
    note = "finds nothing in any frame"

    def answer(self, token: str) -> Prediction:
        """The prediction for a sample."""
        nothing = PredictedBoxes(torch.zeros(0, 9), torch.zeros(0, dtype=torch.long), torch.zeros(0), DETECTION_CLASSES)
        return Prediction(token, boxes=nothing)


@dataclass(frozen=True)
class LikelyBoxes(Predictor):
    """The same boxes in every frame: of each class, where its objects most often were in the training split.

    Attributes:
        part: the boxes, by class, then score. A score is the expected number of objects of that class in that place, at most 1.
        num_frames: how many keyframes they were learned from.
    """

    part: PredictedBoxes
    num_frames: int

    name = "most likely boxes"
    note = "answers every frame with the same boxes, the most frequent places of each class in the labels of the training split"

    def answer(self, token: str) -> Prediction:
        """The prediction for a sample."""
        return Prediction(token, boxes=self.part)

    @classmethod
    def fit(cls, source: Any, split: str, progress: Progress = silent) -> LikelyBoxes:
        """Read the boxes of at most MAX_FRAMES keyframes of a training split; no image is opened.

        Args:
            source: where the labels are.
            split: the training split; validation scenes must not be used here.
            progress: shows how far it is.

        Raises:
            DataError: the split has no keyframes.
        """
        tokens = spread(source.tokens(split), MAX_FRAMES)
        if not tokens:
            raise DataError(f"the split {split!r} has no keyframes to learn the most likely boxes from.")
        labels = BoxLabels()
        found = [labels.read(source, token) for token in progress("most likely boxes", tokens)]
        part = likely_boxes(np.concatenate([f.boxes for f in found]), np.concatenate([f.classes for f in found]), len(tokens))
        return cls(part, len(tokens))


def likely_boxes(boxes: np.ndarray, classes: np.ndarray, num_frames: int) -> PredictedBoxes:
    """The MAX_BOXES_OF_A_CLASS most frequent places of each class.

    A place is a cell of CELL x CELL metres, at distances from the vehicle at which boxes of the class count. Its box has the mean centre
    and size of those that were there, the median of their known velocities, and the heading that most of them had: the mean of the fullest
    of SECTORS equal sectors.

    Args:
        boxes: (M, 9) of `geometry.BOX_FIELDS`, ego frame, of all frames.
        classes: (M,) ids in DETECTION_CLASSES.
        num_frames: how many frames these are.
    """
    rows = [_of_class(boxes[classes == k], reach, num_frames) for k, (_, reach) in enumerate(DetectionRules().ranges)]
    kinds = np.repeat(np.arange(len(rows)), [len(found) for found, _ in rows])
    chosen, scores = (np.concatenate(columns) for columns in zip(*rows, strict=True))
    return PredictedBoxes(torch.from_numpy(chosen).float(), torch.from_numpy(kinds), torch.from_numpy(scores).float(), DETECTION_CLASSES)


def _of_class(boxes: np.ndarray, reach: float, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (P, 9) and scores (P,) of the most frequent places of one class, best first; ties by place."""
    boxes = boxes[np.hypot(boxes[:, 0], boxes[:, 1]) < reach]
    cells = np.floor(boxes[:, :2] / CELL).astype(np.int64)
    _, place, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    best = np.argsort(-counts, kind="stable")[:MAX_BOXES_OF_A_CLASS]
    found = [_typical(boxes[place.reshape(-1) == p]) for p in best]  # some versions of numpy give `place` a second axis
    return np.array(found).reshape(-1, 9), np.minimum(counts[best] / num_frames, 1.0)


def _typical(boxes: np.ndarray) -> np.ndarray:
    """One box (9,) for those (M, 9) of a place."""
    sector = np.round(boxes[:, 6] * (SECTORS / (2 * np.pi))).astype(np.int64) % SECTORS
    yaw = boxes[sector == np.bincount(sector).argmax(), 6]
    heading = np.arctan2(np.sin(yaw).sum(), np.cos(yaw).sum())
    known = boxes[np.isfinite(boxes[:, 7:]).all(1), 7:]
    velocity = np.median(known, 0) if len(known) else np.full(2, np.nan)
    return np.concatenate([boxes[:, :6].mean(0), [heading], velocity])
