"""The images of a rig on their way into the database: of one size, upright, and without the distortion of their lens."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from frustum.data.lenses import Lens, field_of_view_of, pinhole_of, sources, undistort_image
from frustum.data.pixels import photograph, read_image, upright_size
from frustum.errors import DataError, FrustumWarning
from frustum.files import atomic_path, copy_file, link_or_copy

_ADVICE = "Restore it or leave it out of calibration.json."
_SHORTEST = 0.05  # of the image's side: 169 degrees across
_WIDEST = 130.0  # degrees across a pinhole image, beyond which its sides are stretched to no use


def common_size(files: Sequence[Path], stated: tuple[int, int] | None, intrinsics: np.ndarray, name: str) -> tuple[int, int]:
    """(height, width) of the images of the camera `name`, upright; only their headers are read.

    Args:
        files: all its images.
        stated: what its calibration says.
        intrinsics: (3, 3), corner-origin pixels.
        name: for messages.

    Raises:
        DataError: two sizes, another size than stated, a principal point outside, or a focal length that is not in pixels.
    """
    sizes: dict[tuple[int, int], Path] = {}
    for file in files:
        sizes.setdefault(read_image(file, upright_size, _ADVICE), file)
    size, *others = sizes
    if stated is not None and (stated != size or others):
        wrong = next(found for found in sizes if found != stated)
        raise DataError(
            f"{sizes[wrong]} has {wrong[1]}x{wrong[0]} pixels, but camera {name} is calibrated for {stated[1]}x{stated[0]}. "
            "Give intrinsics for the size that the images have (scaling an image scales fx, fy, cx and cy alike)."
        )
    if others:
        shown = " and ".join(f"{width}x{height} ({sizes[height, width].name})" for height, width in list(sizes)[:3])
        raise DataError(
            f"the images of camera {name} have {len(sizes)} sizes, {shown}, but its intrinsics belong to one. Scale the others, or leave "
            "them out, or list them as another camera with its own intrinsics."
        )
    require_pixels(intrinsics, size, name)
    return size


def require_pixels(intrinsics: np.ndarray, size: tuple[int, int], name: str) -> None:
    """Check that intrinsics (3, 3) are pixels of an image of `size` = (height, width).

    Raises:
        DataError: the principal point lies outside, or a focal length is too short to be in pixels. `name` is the camera's.
    """
    u, v = intrinsics[:2, 2]
    if not (0 < u < size[1] and 0 < v < size[0]):
        raise DataError(
            f"the principal point ({u:.1f}, {v:.1f}) of camera {name} lies outside its images of {size[1]}x{size[0]} pixels: the "
            "intrinsics belong to another image size, or cx and cy are exchanged."
        )
    for axis, focal, pixels in (("fx", intrinsics[0, 0], size[1]), ("fy", intrinsics[1, 1], size[0])):
        if focal < pixels * _SHORTEST:
            raise DataError(
                f"{axis} of camera {name} is {focal:g} pixels, for images of {size[1]}x{size[0]} pixels, so they would show "
                f"{2 * np.degrees(np.arctan(pixels / 2 / focal)):.0f} degrees. Focal lengths are in pixels, not millimetres or shares of "
                "the image: millimetres are divided by the size of a pixel on the sensor, shares multiplied by the width or height."
            )


def pinhole_and_note(
    intrinsics: np.ndarray, lens: Lens | None, size: tuple[int, int], field_of_view: float | None, name: str
) -> np.ndarray:
    """Intrinsics (3, 3) of the images of a camera once its lens is undone; a note says what a fisheye lens becomes.

    Raises:
        DataError: more is to be seen than a pinhole image can show, a lens that folds the image, or a field of view without a lens.
    """
    if lens is None:
        if field_of_view is not None:
            raise DataError(f'camera {name} has a "field_of_view", but no distortion that is undone. Leave it out.')
        return intrinsics
    found = pinhole_of(intrinsics, size, field_of_view)
    across = field_of_view_of(found, size)
    sources(size, intrinsics, lens, found)  # raises before anything is written
    if lens.model != "equidistant":
        return found
    if across > _WIDEST and field_of_view is None:
        raise DataError(
            f"camera {name} would show {across:.0f} degrees across as a pinhole image of its focal length, which stretches its sides to no "
            f'use. Choose how much: "field_of_view": 100 beside its "distortion".'
        )
    warnings.warn(
        f"the fisheye images of camera {name} become pinhole images of {across:.0f} degrees across; what the lens saw outside is left out. "
        'Another field of view: "field_of_view": DEGREES beside its "distortion".',
        FrustumWarning,
        stacklevel=2,
    )
    return found


def store_image(source: Path, target: Path, lens: Lens | None, intrinsics: Mapping[str, np.ndarray], link: bool) -> None:
    """Write one image: copied or linked where nothing changes, else upright and without the distortion of its lens.

    Args:
        source: the user's file.
        target: a .png or .jpg of the database.
        lens: what is undone.
        intrinsics: (3, 3) of the `lens`, and of the `pinhole` camera that the image is made for.
        link: give unchanged files a second name instead of copying them.

    Raises:
        DataError: a damaged file, or more than 8 bits per colour.
    """

    def decoded(image: Image.Image) -> tuple[np.ndarray, bool]:  # a truncated file must fail here and not in training
        upright = photograph(image)
        return np.asarray(upright), image.mode == "RGB" and image.format in ("JPEG", "PNG") and "turned" not in upright.info

    pixels, is_plain = read_image(source, decoded, _ADVICE)
    if is_plain and lens is None:
        (link_or_copy if link else copy_file)(source, target)
        return
    if lens is not None:
        pixels = undistort_image(pixels, intrinsics["lens"], lens, intrinsics["pinhole"])
    with atomic_path(target) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG" if target.suffix == ".png" else "JPEG", quality=95)
