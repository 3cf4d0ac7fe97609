"""Lenses: the models of distortion that calibrations name, and the image that a pinhole camera would have taken, in numpy.

In normalised coordinates a pinhole camera sees a ray (x, y, z) at (x / z, y / z); a lens puts it elsewhere (`Lens.distort`):

- plumb_bob (also radtan): Brown-Conrady, k1, k2, p1, p2 and k3, OpenCV's first five coefficients;
- rational: OpenCV's eight, k1, k2, p1, p2, k3 to k6;
- equidistant (also fisheye, kannala_brandt): Kannala and Brandt's polynomial of the angle, k1 to k4, as in OpenCV's fisheye module.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from frustum.errors import DataError, FrustumWarning
from frustum.geometry.plausible import DISTORTION, first_fault

Model = Literal["plumb_bob", "rational", "equidistant"]
_NAMES: dict[str, tuple[str, ...]] = {
    "pinhole": ("pinhole", "none"),
    "plumb_bob": ("plumb_bob", "radtan", "brown_conrady"),
    "rational": ("rational", "rational_polynomial"),
    "equidistant": ("equidistant", "equi", "fisheye", "kannala_brandt", "kannala_brandt4", "opencv_fisheye"),
}
_FOUR = (
    "has four numbers and no distortion_model: they are read as k1, k2, p1, p2 of an ordinary lens (plumb_bob). If this is a fisheye lens, "
    'write "distortion_model": "equidistant", else "plumb_bob".'
)


@dataclass(frozen=True)
class Lens:
    """A lens with distortion: its model, and as many coefficients as that has (5, 8 or 4)."""

    model: Model
    coefficients: tuple[float, ...]

    def distort(self, points: np.ndarray) -> np.ndarray:
        """Where the lens puts points (*, 2), in normalised coordinates."""
        x, y = points[..., 0], points[..., 1]
        if self.model == "equidistant":
            radius = np.sqrt(x * x + y * y)
            angle = np.arctan(radius)
            a2, (k1, k2, k3, k4) = angle * angle, self.coefficients
            bent = angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
            return points * np.divide(bent, radius, out=np.ones_like(radius), where=radius > 1e-12)[..., None]
        k1, k2, p1, p2, k3, k4, k5, k6 = (*self.coefficients, 0.0, 0.0, 0.0)[:8]
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        return np.stack([x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], -1)


def lens_of(model: Any, coefficients: Any, what: str) -> Lens | None:
    """The lens that a calibration states; None for one without distortion: no coefficients, or zeros of an ordinary lens.

    Args:
        model: its `distortion_model`, or None where it does not say: then the number of coefficients decides, with a warning for four.
        coefficients: a list of numbers, or None.
        what: whose they are, for messages.

    Raises:
        DataError: a model that is not known, or numbers that do not fit it.
    """
    name = _known(model, what)
    try:
        given = np.ravel(np.array([] if coefficients is None else coefficients, np.float64)).tolist()
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"the distortion of {what} must be a list of numbers, got {coefficients!r:.200}.") from error
    if (fault := first_fault(np.reshape(given, (-1, 1)), DISTORTION)) is not None:
        raise DataError(f"the distortion of {what} must be finite numbers, got {coefficients!r:.200}: {fault.words}")
    if name == "equidistant":
        if len(given) != 4:
            raise DataError(
                f"the distortion of {what} has {len(given)} numbers; an equidistant (fisheye) lens has four, [k1, k2, k3, k4] as in "
                "OpenCV's fisheye module. Zeros are a lens that is exactly equidistant."
            )
        return Lens("equidistant", tuple(given))
    if coefficients is None and name not in (None, "pinhole"):
        raise DataError(f'{what} has the distortion_model {model!r} and no "distortion". Give its coefficients; [] stands for none.')
    if not any(given):
        return None
    if name == "pinhole":
        raise DataError(
            f"{what} is said to be a pinhole camera, but its distortion is {given}. Leave it out if the images are undistorted, else write "
            '"distortion_model": "plumb_bob", or "equidistant" for a fisheye lens.'
        )
    if len(given) in (12, 14) and name in (None, "rational") and not any(given[8:]):
        given = given[:8]  # thin prism and tilt of OpenCV, not used
    if len(given) in (4, 5) and name in (None, "plumb_bob"):
        if len(given) == 4 and name is None:
            warnings.warn(f"the distortion of {what} {_FOUR}", FrustumWarning, stacklevel=2)
        return Lens("plumb_bob", (*given, 0.0)[:5])
    if len(given) == 8 and name in (None, "rational"):
        return Lens("rational", tuple(given))
    raise DataError(
        f"the distortion of {what} has {len(given)} numbers" + (f" for the distortion_model {model!r}" if name else "") + ". Give "
        "[k1, k2, p1, p2] or [k1, k2, p1, p2, k3] (plumb_bob), [k1, k2, p1, p2, k3, k4, k5, k6] (rational), as in OpenCV; "
        '[k1, k2, k3, k4] with "distortion_model": "equidistant" for a fisheye lens; [] for none.'
    )


def _known(model: Any, what: str) -> str | None:
    if model is None:
        return None
    word = str(model).strip().lower().replace("-", "_").replace(" ", "_")
    for name, aliases in _NAMES.items():
        if word in aliases:
            return name
    names = ", ".join(alias for aliases in _NAMES.values() for alias in aliases)
    raise DataError(
        f"the distortion_model of {what} is {model!r}, which is not known; it may be {names}. Undistort the images of other lenses first, "
        'and write "distortion_model": "pinhole".'
    )


def pinhole_of(intrinsics: np.ndarray, size: tuple[int, int], field_of_view: float | None) -> np.ndarray:
    """Intrinsics (3, 3) of the image after the lens is undone: those of the lens, or scaled to a horizontal field of view in degrees."""
    if field_of_view is None:
        return intrinsics
    scale = size[1] / 2 / np.tan(np.radians(field_of_view) / 2) / intrinsics[0, 0]
    return intrinsics * np.array([[scale, scale, 1], [scale, scale, 1], [1, 1, 1]])


def field_of_view_of(intrinsics: np.ndarray, size: tuple[int, int]) -> float:
    """How many degrees a pinhole image of `size` = (height, width) shows from its left border to its right one."""
    left, right = (np.arctan((u - intrinsics[0, 2]) / intrinsics[0, 0]) for u in (0, size[1]))
    return float(np.degrees(right - left))


def undistort_image(image: np.ndarray, intrinsics: np.ndarray, lens: Lens, pinhole: np.ndarray | None = None) -> np.ndarray:
    """The image (H, W, 3) uint8 that a camera without distortion would have taken; black outside the view of the lens.

    Bilinear sampling.

    Args:
        image: the photograph.
        intrinsics: (3, 3) of the lens, in pixels with the origin at the corner of the first pixel.
        lens: its distortion.
        pinhole: intrinsics of the result; by default those of the lens.

    Raises:
        DataError: the coefficients fold the image over itself within its field of view (wrong model, order or sign).
    """
    return _bilinear(image, *sources(image.shape[:2], intrinsics, lens, intrinsics if pinhole is None else pinhole))


def sources(size: tuple[int, int], intrinsics: np.ndarray, lens: Lens, pinhole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in the photograph each pixel of the pinhole image is taken from: columns and rows (H, W) float32, in samples.

    Sizes are (height, width), the same for both; the rest as for `undistort_image`, errors too.
    """
    return _source(*size, lens, np.asarray(intrinsics, np.float64).tobytes(), np.asarray(pinhole, np.float64).tobytes())


@functools.lru_cache(maxsize=8)  # cameras of a rig: the same for all their images
def _source(height: int, width: int, lens: Lens, intrinsics: bytes, pinhole: bytes) -> tuple[np.ndarray, np.ndarray]:
    """See `sources`; 0 is the centre of the first pixel."""
    seen, wanted = (np.frombuffer(data).reshape(3, 3) for data in (intrinsics, pinhole))
    pixels = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
    inverse = np.linalg.inv(wanted)
    ideal = pixels @ inverse[:2, :2].T + inverse[:2, 2]
    corners = np.array([[0, 0], [width, height]]) @ np.linalg.inv(seen)[:2, :2].T + np.linalg.inv(seen)[:2, 2]
    _require_monotone(float(np.sqrt((ideal**2).sum(-1).max())), float(np.abs(corners).max()), lens)
    source = lens.distort(ideal) @ seen[:2, :2].T + seen[:2, 2] - 0.5
    return source[..., 0].astype(np.float32), source[..., 1].astype(np.float32)


def _require_monotone(reach: float, edge: float, lens: Lens) -> None:
    """Raise unless the lens maps larger radii to larger radii, up to `reach`, or to the `edge` of the photograph where that comes first."""
    radius = np.tan(np.linspace(0, np.arctan(reach), 300))
    mapped = lens.distort(np.stack([radius, np.zeros_like(radius)], -1))[:, 0]
    folding = np.flatnonzero(np.diff(mapped) <= 0)
    if len(folding) and mapped[folding[0]] < edge:
        angle = np.degrees(np.arctan(radius[folding[0]]))
        raise DataError(
            f"the distortion {list(lens.coefficients)} ({lens.model}) folds the image over itself at {angle:.0f} degrees from the axis. "
            'Give [k1, k2, p1, p2, k3] in OpenCV\'s order, or for a fisheye lens "distortion_model": "equidistant" and [k1, k2, k3, k4].'
        )


def _bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sample (H, W, 3) at x, y (h, w) in sample coordinates; black outside."""
    height, width = image.shape[:2]
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    x0, y0 = np.minimum(x.astype(np.int64), max(width - 2, 0)), np.minimum(y.astype(np.int64), max(height - 2, 0))
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = (x - x0)[..., None].astype(np.float32), (y - y0)[..., None].astype(np.float32)
    top = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
    bottom = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
    mixed = top * (1 - fy) + bottom * fy
    return np.where(inside[..., None], np.rint(mixed), 0).astype(np.uint8)
