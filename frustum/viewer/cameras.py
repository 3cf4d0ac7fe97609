"""Photographs of a rig: their layout, their names, their size, and as text for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image


def camera_rows(names: Sequence[str]) -> list[list[int]]:
    """Indices of cameras by their direction: three in front, left to right, over three at the back, by their names.

    Other rigs fill rows of up to four, in their own order.
    """
    count, words = len(names), [name.lower() for name in names]
    across = sorted(range(count), key=lambda i: ("right" in words[i]) - ("left" in words[i]))
    rows = [[i for i in across if word in words[i]] for word in ("front", "back")]
    if [len(row) for row in rows] == [3, 3] and len(set(names)) == count == 6:
        return rows
    columns = count if count <= 3 else (2 if count == 4 else min((count + 1) // 2, 4))
    return [list(range(i, min(i + columns, count))) for i in range(0, count, max(columns, 1))]


def pretty_channel(name: str) -> str:
    """`CAM_FRONT_LEFT` as `front left`."""
    return name.removeprefix("CAM_").replace("_", " ").lower()


def resized(image: np.ndarray, width: int) -> np.ndarray:
    """An RGB image with the given width, its aspect kept."""
    height = max(round(image.shape[0] * width / image.shape[1]), 1)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def data_uri(image: np.ndarray, *, width: int | None = None, quality: int = 86) -> str:
    """An RGB image as a JPEG `data:` address for HTML, scaled down to `width` if it is wider."""
    if width is not None and image.shape[1] > width:
        image = resized(image, width)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, optimize=True, subsampling="4:2:0")
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
