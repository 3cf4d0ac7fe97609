"""From a camera's image to the network's: resize, crop, flip, rotate, with the matrix that says where each pixel went.

Pixel coordinates are continuous, the origin at the top-left corner of the image, so the matrices are exact (see geometry.cameras).
Pillow's bicubic filter shrinks with anti-aliasing, as in the FlashOCC pipeline.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from frustum.errors import ConfigError, DataError
from frustum.files import check_is_file

Value = TypeVar("Value")


@dataclass(frozen=True)
class ImageTransform:
    """Resize the source to `resized`, cut the window of `size` whose top-left corner is (`left`, `top`), mirror it, turn it.

    Attributes:
        source, resized, size: (height, width) in pixels. The window may reach beyond the resized image; there it is black.
        left, top: corner of the window in the resized image.
        flip: mirror left to right, after the crop.
        rotate_deg: counter-clockwise about the window's centre, after the flip.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    size: tuple[int, int]
    left: int = 0
    top: int = 0
    flip: bool = False
    rotate_deg: float = 0.0

    @classmethod
    def fit(cls, source: tuple[int, int], size: tuple[int, int], crop_h: float = 0.0, resize: float = 0.0) -> ImageTransform:
        """The transform without augmentation: scale to the output's width, keep the bottom (FlashOCC, input pipeline, test).

        `crop_h` is the share of the resized height that is cut off at the bottom. `resize` is added to the scale, and then the middle of
        the width is kept.
        900 x 1600 to 256 x 704 gives diag(0.44, 0.44, 1) and the shift (0, -140).
        """
        return cls.scaled(source, size, size[1] / source[1] + resize, crop_h)

    @classmethod
    def scaled(
        cls,
        source: tuple[int, int],
        size: tuple[int, int],
        scale: float,
        crop_h: float = 0.0,
        crop_w: float = 0.5,
        flip: bool = False,
        rotate_deg: float = 0.0,
    ) -> ImageTransform:
        """A transform with the given scale; `crop_w` places the window between the left (0) and the right (1) end."""
        if scale <= 0 or min(source) < 1:
            raise ConfigError(f"an image of {source} pixels cannot be scaled by {scale}. Check data.image_size and augment.resize.")
        height, width = (max(1, int(s * scale + 1e-6)) for s in source)  # the reference truncates; 1e-6 keeps 0.44 * 1600 at 704
        top = int((1 - crop_h) * height) - size[0]
        left = int(crop_w * max(0, width - size[1]))
        return cls(source, (height, width), size, left, top, flip, rotate_deg)

    def matrix(self) -> np.ndarray:
        """(3, 3) float64 from source pixels (u, v, 1) to network pixels."""
        height, width = self.size
        matrix = np.diag([self.resized[1] / self.source[1], self.resized[0] / self.source[0], 1.0])
        matrix[:2, 2] = -self.left, -self.top
        if self.flip:
            matrix = np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]) @ matrix
        if self.rotate_deg:
            angle = math.radians(self.rotate_deg)
            c, s = math.cos(angle), math.sin(angle)
            x, y = width / 2, height / 2
            matrix = np.array([[c, s, x - c * x - s * y], [-s, c, y + s * x - c * y], [0, 0, 1]]) @ matrix
        return matrix

    def undo(self, ids: np.ndarray, ignore: int) -> np.ndarray:
        """A map of class ids (H, W) of the transformed image for the source: nearest ids, `ignore` where the window showed nothing."""
        v, u = (np.floor((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(self.source, self.resized, strict=True))
        v, u = v - self.top, u - self.left
        seen = ((v >= 0) & (v < self.size[0]))[:, None] & ((u >= 0) & (u < self.size[1]))
        return np.where(seen, ids[v.clip(0, self.size[0] - 1)[:, None], u.clip(0, self.size[1] - 1)], ids.dtype.type(ignore))

    def apply(self, image: Image.Image, ignore: int | None = None, outside: tuple[int, ...] | None = None) -> Image.Image:
        """The transformed image, of the colour `outside`, by default black, where the source shows nothing. An image that already fits is
        returned as it is.

        With `ignore` it is a map of class ids: each pixel takes the nearest one, and this id where the source shows nothing.
        """
        sampling = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR) if ignore is None else (Image.Resampling.NEAREST,) * 2
        empty: Any = outside if ignore is None else ignore
        height, width = self.size
        x0, y0 = max(self.left, 0), max(self.top, 0)
        x1, y1 = min(self.left + width, self.resized[1]), min(self.top + height, self.resized[0])
        if x0 >= x1 or y0 >= y1:
            return Image.new(image.mode, (width, height), empty or 0)
        window = image
        if self.resized != self.source:  # resample only the window that is kept
            across, down = self.source[1] / self.resized[1], self.source[0] / self.resized[0]
            box = (x0 * across, y0 * down, min(x1 * across, self.source[1]), min(y1 * down, self.source[0]))
            window = image.resize((x1 - x0, y1 - y0), sampling[0], box)
        elif (x0, y0, x1, y1) != (0, 0, self.source[1], self.source[0]):
            window = image.crop((x0, y0, x1, y1))
        if window.size != (width, height):
            canvas = Image.new(image.mode, (width, height), empty or 0)
            canvas.paste(window, (x0 - self.left, y0 - self.top))
            window = canvas
        if self.flip:
            window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.rotate_deg:
            window = window.rotate(self.rotate_deg, sampling[1], fillcolor=empty)
        return window


FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
"""What is read as an image, whatever a file is called. Others start programs (EPS) or are no images of cameras."""
MAX_PIXELS = 178_000_000
"""Larger images are refused before they are decoded: a small file may claim any size."""
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip


def read_image(path: Path, use: Callable[[Image.Image], Value], advice: str = "Restore the file.") -> Value:
    """What `use` makes of an image file; the one place where images are opened.

    Raises:
        DataError: it is missing, no file, unreadable, of none of FORMATS, a PNG with a wrong checksum, or has more than MAX_PIXELS;
            `advice` says what to do then.
    """
    check_is_file(path, "image")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels, and more than {MAX_PIXELS:,} are not read")
            if image.format == "PNG":
                _check_sums(path)
            return use(image)
    except UnidentifiedImageError as error:
        raise DataError(f"cannot read the image {path}: it is damaged, or none of {', '.join(FORMATS)}. {advice}") from error
    except _DAMAGED as error:
        raise DataError(f"cannot read the image {path}: {error}. {advice}") from error


def _check_sums(path: Path) -> None:
    """Raise ValueError unless all checksums of a PNG are right; of pixels, Pillow does not look at them."""
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        file.seek(8)
        kind = b""
        while kind != b"IEND":
            size, kind = struct.unpack(">I4s", file.read(8))
            if file.tell() + size + 4 > end:
                raise ValueError("its end is missing")
            if zlib.crc32(file.read(size), zlib.crc32(kind)) != struct.unpack(">I", file.read(4))[0]:
                raise ValueError(f"the checksum of its part {kind.decode('latin-1')} is wrong (bits flipped?)")


_ORIENTATION = 0x0112  # the tag of Exif; from 5 on sides are exchanged
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


def orientation(image: Image.Image) -> int:
    """How a camera noted that its photograph is to be turned or mirrored (Exif), 1 to 8; 1 where it is upright, or nothing is noted."""
    if image.format != "JPEG":
        image.load()  # other formats may have the note behind the pixels
    found = image.getexif().get(_ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def photograph(image: Image.Image) -> Image.Image:
    """A camera's image, RGB with 8 bits per colour, turned upright as its Exif note says (as OpenCV does) and without that note.

    Raises:
        DataError: more bits per colour, whose range nobody knows.
    """
    tiles = getattr(image, "tile", None)
    coded = str(tiles[0][3]) if tiles else ""  # of PNG and TIFF, how pixels lie in the file
    if image.mode in _DEEP or ";16" in coded:
        file = getattr(image, "filename", "")
        raise DataError(
            f"the image {file} has more than 8 bits per colour (mode {image.mode}{', 16 bits' * (';16' in coded)}), and networks read 8. "
            "Convert the images, with one factor for all: mogrify -depth 8 *.png for values up to 65535; for 12 bits, up to 4095, "
            "mogrify -evaluate multiply 16 -depth 8 *.png."
        )
    turned = orientation(image)
    result = (ImageOps.exif_transpose(image) if turned != 1 else image).convert("RGB")
    result.info = {"turned": turned} if turned != 1 else {}
    return result


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of an image once it is turned upright; only its header is read, but for notes that stand behind the pixels."""
    return (image.width, image.height) if orientation(image) >= 5 else (image.height, image.width)


def upright(image: Image.Image) -> str:
    """What to say of the size of a `photograph` that was turned; else ""."""
    return f" when turned upright (its Exif orientation is {image.info['turned']})" if "turned" in image.info else ""


def normalise(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], channel_order: str = "rgb") -> np.ndarray:
    """Network input (*, 3, H, W) float32 of RGB images (*, H, W, 3), 0..255.

    `mean` and `std` belong to the channels' positions after reordering: FlashOCC's checkpoints need `bgr` with the RGB-order numbers
    (its loader swaps the channels twice).
    """
    if channel_order == "bgr":
        images = images[..., ::-1]
    planes = np.ascontiguousarray(np.moveaxis(images, -1, -3), dtype=np.float32)
    planes -= np.array(mean, np.float32)[:, None, None]
    planes *= np.float32(1) / np.array(std, np.float32)[:, None, None]
    return planes


def jitter_colours(image: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """An RGB image (H, W, 3), 0..255, float32, with brightness, contrast (about the mean grey) and saturation scaled."""
    pixels = image.astype(np.float32) * np.float32(brightness)
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    mean = grey.mean()
    pixels = grey[..., None] + np.float32(saturation) * (pixels - grey[..., None])
    return np.clip(mean + np.float32(contrast) * (pixels - mean), 0, 255)
