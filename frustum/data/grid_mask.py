"""GridMask (Chen et al., 2020) as PETR and 3DPPE use it: a lattice of black squares over all images of a sample, in training."""

from __future__ import annotations

import numpy as np

from frustum.errors import ConfigError


def grid_mask(size: tuple[int, int], period: int, start: tuple[int, int]) -> np.ndarray:
    """(H, W) bool, True where pixels are kept: on horizontal and vertical bars that are half a period wide, a period apart.

    As in the reference, the bars are drawn on a canvas one and a half times as large, of which the middle is cut, and as many as whole
    periods fit into the canvas: with long periods they may miss the far side of the image. Its `rotate=1` never turns anything.

    Args:
        size: (H, W) of the images.
        period: pixels from one bar to the next, at least 2.
        start: of the first horizontal and the first vertical bar on the canvas, from 0 to `period` - 1.
    """
    lines = []
    for side, first in zip(size, start, strict=True):
        canvas = side * 3 // 2
        place = np.arange(side) + (canvas - side) // 2 - first
        width = min(max(int(period * 0.5 + 0.5), 1), period - 1)
        lines.append((place >= 0) & (place % period < width) & (place // period < canvas // period))
    return lines[0][:, None] | lines[1]


def draw_grid_mask(rng: np.random.Generator, size: tuple[int, int], probability: float = 0.7) -> np.ndarray | None:
    """The mask of a sample with images of (H, W) `size`: (H, W) bool, True where pixels are kept; None with 1 - `probability`.

    Multiply the normalised images by it. Where it is False there is nothing that a depth could be learned from, either.

    Raises:
        ConfigError: images lower than 3 pixels, or a probability outside 0..1.
    """
    if size[0] < 3 or not 0 <= probability <= 1:
        raise ConfigError(f"a grid mask needs 3 rows of pixels and a probability from 0 to 1, got {size[0]} and {probability}.")
    is_used, period = rng.random() < probability, int(rng.integers(2, size[0]))
    start = int(rng.integers(period)), int(rng.integers(period))
    return grid_mask(size, period, start) if is_used else None
