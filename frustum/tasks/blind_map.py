"""What a network of maps must beat: the same map for every frame, where each class is frequent enough in the training labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from frustum.data.augment import BevTransform
from frustum.data.labels.map_classes import MAP_GRID, MapLabels
from frustum.data.source import spread
from frustum.errors import DataError
from frustum.tasks.task import Predictor, Progress, silent
from frustum.types.predictions import PredictedMap, Prediction

MAX_FRAMES = 1000


@dataclass(frozen=True)
class LikelyMap(Predictor):
    """The same map in every frame.

    Attributes:
        part: the map.
        num_frames: how many keyframes it was learned from.
    """

    part: PredictedMap
    num_frames: int

    name = "most likely map"
    note = "answers every frame with the same map, the cells that are filled often enough in the labels of the training split"

    def answer(self, token: str) -> Prediction:
        """The prediction for a sample."""
        return Prediction(token, bev_map=self.part)

    @classmethod
    def fit(cls, source: Any, split: str, labels: MapLabels, progress: Progress = silent) -> LikelyMap:
        """Count the cells of at most MAX_FRAMES keyframes of a training split; no image is opened.

        Args:
            source: where the labels are.
            split: the training split; validation scenes must not be used here.
            labels: which classes, by which rule.
            progress: shows how far it is.

        Raises:
            DataError: the split has no keyframes.
        """
        tokens = spread(source.tokens(split), MAX_FRAMES)
        if not tokens:
            raise DataError(f"the split {split!r} has no keyframes to learn the most likely map from.")
        filled, counted = (np.zeros((len(labels.class_names), *MAP_GRID.shape[1::-1])) for _ in range(2))
        for token in progress(cls.name, tokens):
            drawn = labels.draw(labels.read(source, token), BevTransform(), labels.reference if labels.rule == "simplebev" else -1)
            filled += drawn.classes & drawn.counts
            counted += drawn.counts
        share = filled / np.maximum(counted, 1)
        logits = np.stack([one - best_threshold(one, weight) for one, weight in zip(share, counted, strict=True)])
        return cls(PredictedMap(torch.from_numpy(logits).float(), MAP_GRID, labels.class_names, labels.rule), len(tokens))


def best_threshold(share: np.ndarray, weight: np.ndarray) -> float:
    """The share above which cells are best called filled: that of the highest IoU over the frames that were counted.

    Args:
        share: (Y, X) how often each cell is filled.
        weight: (Y, X) in how many frames it counts.
    """
    order = np.argsort(-share, axis=None)
    filled, counted = (share * weight).ravel()[order].cumsum(), weight.ravel()[order].cumsum()
    union = counted + filled[-1] - filled  # predicted, and what is missed
    last = int(np.argmax(filled / np.maximum(union, 1e-9)))
    kept = share.ravel()[order]
    return float((kept[last] + kept[min(last + 1, len(kept) - 1)]) / 2)
