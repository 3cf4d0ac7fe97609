"""Semantic segmentation of large images as published: by windows that overlap, and together with the mirror image.

Logits are averaged, not probabilities, as TorchDistiller (the code of CWD) does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from frustum.errors import ShapeError
from frustum.types.batch import Batch

Forward = Callable[[Batch], Any]


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along a side: at even steps of at most window * (1 - overlap), rounded up; the last ends where the side ends."""
    step = math.ceil(window * (1 - overlap))
    count = math.ceil(max(0, length - window) / step) + 1
    return [min(i * step, length - window) for i in range(count)]


def windowed(forward: Forward, window: tuple[int, int], overlap: float, is_aligned: bool, batch: Batch) -> dict[str, Tensor]:
    """`logits` (B, K, H, W) of images (B, 1, 1, 3, H, W): the mean over all windows (height, width) that show a pixel.

    The network sees one window at a time. Its logits are stretched to the window; `is_aligned` is that of `interpolate`'s corners.

    Raises:
        ShapeError: the network does not return logits (B, K, h, w), or an image is smaller than the window.
    """
    height, width = batch.images.shape[-2:]
    if height < window[0] or width < window[1]:
        raise ShapeError(f"an image of {height} x {width} pixels does not hold a window of {window[0]} x {window[1]}. Pad it.")
    total: Tensor | None = None
    shown = batch.images.new_zeros(height, width)
    for top in window_starts(height, window[0], overlap):
        for left in window_starts(width, window[1], overlap):
            rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
            found = _logits(forward, replace(batch, images=batch.images[..., rows, columns]), is_aligned)
            total = found.new_zeros(*found.shape[:2], height, width) if total is None else total
            total[..., rows, columns] += found
            shown[rows, columns] += 1
    assert total is not None  # there is one window at least
    return {"logits": total / shown}


def mirrored(forward: Forward, is_aligned: bool, batch: Batch) -> dict[str, Tensor]:
    """`logits` (B, K, H, W): the mean of those of the images and of their mirror images. Raises ShapeError as `windowed` does."""
    straight = _logits(forward, batch, is_aligned)
    return {"logits": (straight + _logits(forward, replace(batch, images=batch.images.flip(-1)), is_aligned).flip(-1)) / 2}


def _logits(forward: Forward, batch: Batch, is_aligned: bool) -> Tensor:
    """Logits of a network at the size of its images, float32."""
    found = forward(batch)
    logits = found.get("logits") if isinstance(found, dict) else None
    if logits is None or logits.ndim != 4:
        raise ShapeError(
            "windows and mirror images need a network whose output `logits` is (B, K, h, w). Set data.evaluation=whole data.mirror=false."
        )
    size = batch.images.shape[-2:]
    return logits.float() if logits.shape[-2:] == size else F.interpolate(logits.float(), size, mode="bilinear", align_corners=is_aligned)
