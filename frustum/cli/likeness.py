"""Whether portraits may show one person: the colours of skin and hair, which change with the light, but less than from person to person.

Shape letters: S side of a portrait.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from frustum.metrics.colour_error import to_lab
from frustum.nn.head_regions import LABELS, region_labels

UNLIKE = 33.0
"""From this distance on two portraits hardly show one person: 99 of 100 pairs of generated clips of one person, each in light of its own,
are below it (`python benchmarks/claims/heser.py --parts people`)."""

_LEAST = 1 / 150  # of a portrait's pixels, which a region must have to say a colour

Portrait = tuple[np.ndarray, np.ndarray]
"""A portrait (S, S, 3) uint8 and its parts (S, S), ids of CelebAMask-HQ."""


def distance(first: Portrait, second: Portrait) -> float:
    """Sum of the distances in L*a*b* (Delta E of 1976) of skin and of hair, medians over their pixels; what one does not show counts 0."""
    pairs = zip(_colours(*first), _colours(*second), strict=True)
    return float(sum(np.linalg.norm(a - b) for a, b in pairs if a is not None and b is not None))


def odd_one(portraits: Sequence[Portrait]) -> tuple[int, float] | None:
    """Which portrait is the least like the others, and its median distance from them, where that is UNLIKE or more; else None."""
    table = np.array([[distance(a, b) for b in portraits] for a in portraits])
    if len(table) < 2:
        return None
    far = np.array([np.median(np.delete(row, i)) for i, row in enumerate(table)])
    worst = int(far.argmax())
    return (worst, float(far[worst])) if far[worst] >= UNLIKE else None


def _colours(image: np.ndarray, parts: np.ndarray) -> list[np.ndarray | None]:
    labels = region_labels(torch.tensor(parts)[None])[0].numpy()
    found: list[np.ndarray | None] = []
    for region in ("skin", "hair"):
        pixels = image[labels == LABELS[region]]  # type: ignore[index]
        found.append(to_lab(np.median(pixels, 0)) if len(pixels) >= _LEAST * parts.size else None)
    return found
