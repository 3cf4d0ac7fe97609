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
"""From this distance on two portraits hardly show one person: of pairs of generated clips, each in light of its own, 3 in 100 of one person
and 72 in 100 of two people are as far apart (`python benchmarks/claims/heser.py --parts people`)."""

_LEAST = 1 / 150  # of a portrait's pixels, which a region must have to say a colour

Colours = tuple[np.ndarray | None, np.ndarray | None]
"""Of skin and hair, CIE L*a*b*; None where a portrait does not show enough of them."""


def colours(image: np.ndarray, parts: np.ndarray) -> Colours:
    """Of a portrait (S, S, 3) uint8 with its parts (S, S), ids of CelebAMask-HQ: medians over the pixels of skin and of hair."""
    labels = region_labels(torch.tensor(parts)[None])[0].numpy()

    def of(label: int) -> np.ndarray | None:
        pixels = image[labels == label]
        return to_lab(np.median(pixels, 0)) if len(pixels) >= _LEAST * parts.size else None

    return of(LABELS["skin"]), of(LABELS["hair"])


def distance(first: Colours, second: Colours) -> float:
    """Sum of the distances (Delta E of 1976) of skin and of hair; what one of both does not show counts 0."""
    return float(sum(np.linalg.norm(a - b) for a, b in zip(first, second, strict=True) if a is not None and b is not None))


def odd_one(portraits: Sequence[Colours]) -> tuple[int, float] | None:
    """Which portrait is the least like the others, and its median distance from them, where that is UNLIKE or more; else None."""
    table = np.array([[distance(a, b) for b in portraits] for a in portraits])
    if len(table) < 2:
        return None
    far = np.array([np.median(np.delete(row, i)) for i, row in enumerate(table)])
    worst = int(far.argmax())
    return (worst, float(far[worst])) if far[worst] >= UNLIKE else None
