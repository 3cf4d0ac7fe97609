"""Lens distortion of the Brown-Conrady model (OpenCV's first five coefficients) and its removal from images, in numpy."""

from __future__ import annotations

import numpy as np

from frustum.errors import DataError


def distort(points: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Where the lens puts ideal points (*, 2), in normalised coordinates (x / z, y / z); coefficients (5,) are k1, k2, p1, p2, k3."""
    k1, k2, p1, p2, k3 = coefficients
    x, y = points[..., 0], points[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return np.stack([x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], -1)


def undistort_image(image: np.ndarray, intrinsics: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) uint8 that a lens without distortion would have taken, with the same intrinsics; black outside its view.

    Intrinsics are in pixels with the origin at the corner of the first pixel. Bilinear sampling.

    Raises:
        DataError: the coefficients fold the image over itself within its field of view (wrong order or sign).
    """
    height, width = image.shape[:2]
    pixels = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
    inverse = np.linalg.inv(intrinsics)
    ideal = pixels @ inverse[:2, :2].T + inverse[:2, 2]
    _require_monotone(ideal, coefficients)
    source = distort(ideal, coefficients) @ intrinsics[:2, :2].T + intrinsics[:2, 2] - 0.5  # in samples: 0 is the first centre
    return _bilinear(image, source)


def _require_monotone(ideal: np.ndarray, coefficients: np.ndarray) -> None:
    """Raise unless the lens maps larger radii to larger radii up to where the image ends, with a margin for what lies just outside."""
    radius = np.linspace(0, float(np.sqrt((ideal**2).sum(-1).max())), 200)
    mapped = distort(np.stack([radius, np.zeros_like(radius)], -1), coefficients)[:, 0]
    edge = float(np.abs(ideal).max())
    folding = np.flatnonzero(np.diff(mapped) <= 0)
    if len(folding) and mapped[folding[0]] < edge:
        angle = np.degrees(np.arctan(radius[folding[0]]))
        raise DataError(
            f"the distortion {np.asarray(coefficients).tolist()} folds the image over itself at {angle:.0f} degrees from the axis. "
            "Give [k1, k2, p1, p2, k3] in OpenCV's order; a fisheye model does not fit this format."
        )


def _bilinear(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Sample (H, W, 3) at (h, w, 2) = x, y in sample coordinates; black outside."""
    height, width = image.shape[:2]
    x, y = at[..., 0], at[..., 1]
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    x0, y0 = np.minimum(x.astype(np.int64), max(width - 2, 0)), np.minimum(y.astype(np.int64), max(height - 2, 0))
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = (x - x0)[..., None].astype(np.float32), (y - y0)[..., None].astype(np.float32)
    top = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
    bottom = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
    mixed = top * (1 - fy) + bottom * fy
    return np.where(inside[..., None], np.rint(mixed), 0).astype(np.uint8)
