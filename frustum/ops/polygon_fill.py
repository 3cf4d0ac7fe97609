"""Fill polygons in an image exactly as OpenCV's `fillPoly`, `fillConvexPoly` and `polylines` do, without OpenCV.

The published bird's-eye-view labels were drawn by OpenCV, and a cell more or less along every edge changes an IoU in the third digit, so
"exactly" means every pixel. Two rules make OpenCV differ from other rasterisers: the outline is drawn as Bresenham lines, so a
polygon owns its boundary, and edges advance from row to row by a slope in 1/65536 pixels that was truncated (or, in the convex case,
rounded) once. Lines are clipped to the image before they are drawn, which bends them by a fraction of a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frustum.errors import DataError, ShapeError
from frustum.ops import polygon_fill_numba as kernels

_FAR = 1 << 30


def fill_polygons(image: np.ndarray, polygons: Sequence[np.ndarray], value: int) -> np.ndarray:
    """Set the pixels of polygons to `value`, in place: `cv2.fillPoly(image, polygons, value)` with 8-connected edges.

    All polygons are filled together by the even-odd rule, so a polygon inside another one is a hole; outlines always belong to the figure.

    Args:
        image: (H, W) uint8.
        polygons: vertices (P, 2) of any integer type, x = column and y = row; they may lie outside and the edges may cross.
        value: 0 to 255.

    Returns:
        `image`.

    Raises:
        ShapeError: the image is not an (H, W) array of uint8, or a polygon is not (P, 2).
        DataError: vertices are not integers (round them as the label convention says), or beyond 2**30.
    """
    _require_image(image)
    checked = [_vertices(p) for p in polygons]
    checked = [p for p in checked if len(p)]
    if checked:
        ends = np.cumsum([len(p) for p in checked])
        kernels.fill_even_odd(image, np.concatenate(checked), ends, value)
    return image


def fill_convex_polygon(image: np.ndarray, polygon: np.ndarray, value: int) -> np.ndarray:
    """Set the pixels of one convex polygon to `value`, in place: `cv2.fillConvexPoly`. Arguments and errors as in `fill_polygons`."""
    _require_image(image)
    points = _vertices(polygon)
    if len(points):
        kernels.fill_convex(image, points, value, 0)
    return image


def draw_polylines(image: np.ndarray, lines: Sequence[np.ndarray], value: int, thickness: int = 1) -> np.ndarray:
    """Draw open lines, in place: `cv2.polylines(image, lines, False, value, thickness)` of OpenCV 4 for thickness 1 and 2.

    OpenCV 5 draws lines of two pixels differently; its polygons are those of OpenCV 4. Arguments and errors as in `fill_polygons`;
    DataError for another thickness.
    """
    _require_image(image)
    if thickness not in (1, 2):
        raise DataError(f"lines are drawn 1 or 2 pixels thick, got {thickness}.")
    for line in lines:
        kernels.draw_open_line(image, _vertices(line), value, thickness)
    return image


def _require_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.ndim != 2 or image.dtype != np.uint8:
        kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ShapeError(f"polygons are drawn into an image (H, W) of uint8, got {kind}.")


def _vertices(polygon: np.ndarray) -> np.ndarray:
    points = np.asarray(polygon)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ShapeError(f"a polygon needs vertices (P, 2), got {points.shape}.")
    if points.size and points.dtype.kind not in "iu":
        raise DataError(f"vertices are whole pixels, got {points.dtype}: round them first, as the label convention says.")
    pixels = points.astype(np.int64)
    furthest = int(np.abs(pixels).max(initial=0))
    if furthest > _FAR:
        raise DataError(f"a vertex lies {furthest} pixels away; the limit is {_FAR}. Drop such shapes first.")
    return pixels
