"""Marks of generated portraits: a label that people see, and 32 bits that programs find again.

The invisible mark changes the brightness at low frequencies: on 64 patterns that are orthogonal to each other the image's projection is
moved to the nearest even or odd multiple of a step (quantisation index modulation: Chen and Wornell, 2001). They are laid over the image's
whole width and height, so that scaling does not move them. JPEG at quality 75 and halving, also one after the other, leave the mark
readable in images of 256 pixels and more, JPEG alone in smaller ones (tests/data/portraits/test_marks.py); cutting the image does not.
"""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.fft import dctn, idctn

from frustum.errors import DataError

MIN_SIDE = 96
"""Smaller images do not hold the mark."""
_SIDE = 256  # of the square that an image is brought to; its orthonormal transform is what the mark lies in
_BAND = slice(4, 28)  # half waves along each side
_BITS, _STEP = 64, 40.0  # 32 of the number, 32 of its check; grey levels of the transform


def with_label(image: np.ndarray, text: str = "synthetic") -> np.ndarray:
    """A copy of an image (H, W, 3) uint8 with a word in its lower left corner, a sixteenth of its shorter side high."""
    shown = Image.fromarray(image)
    draw, font = ImageDraw.Draw(shown), ImageFont.load_default(max(8, min(image.shape[:2]) // 16))
    left, top, right, bottom = draw.textbbox((0, 0), text, font)
    edge = max(1, (bottom - top) // 3)
    box = (0, image.shape[0] - (bottom - top) - 2 * edge, right - left + 2 * edge, image.shape[0])
    draw.rectangle(box, (20, 20, 20))
    draw.text((edge - left, box[1] + edge - top), text, (255, 255, 255), font)
    return np.asarray(shown)


def with_mark(image: np.ndarray, number: int) -> np.ndarray:
    """A copy of an image (H, W, 3) uint8 that carries a number of 32 bits. Raises DataError for one that is too small to."""
    if min(image.shape[:2]) < MIN_SIDE:
        raise DataError(f"an image of {image.shape[0]} x {image.shape[1]} pixels cannot be marked. It needs {MIN_SIDE} on each side.")
    made = _moved(image, _bits_of(number))
    if find_mark(made) != number:  # where much is black or white nothing can be added: leave room at both ends
        made = _moved((8 + image * (239 / 255)).round().astype(np.uint8), _bits_of(number))
    return made


def find_mark(image: np.ndarray) -> int | None:
    """The number that an image (H, W, 3) uint8 carries; None without a mark. An unmarked image has one by chance once in 4 billion."""
    if min(image.shape[:2]) < MIN_SIDE // 2:
        return None
    bits = (_projections(image) / _STEP).round().astype(int) % 2
    number = int.from_bytes(np.packbits(bits[: _BITS // 2].astype(np.uint8)).tobytes(), "big")
    return number if np.array_equal(bits, _bits_of(number)) else None


def _moved(image: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """A copy of an image whose projections, in steps, are even and odd numbers as the bits are 0 and 1."""
    made = image.astype(np.float64)
    wanted = _STEP * (2 * ((_projections(image) / _STEP - bits) / 2).round() + bits)
    for _ in range(4):  # rounding, and resizing to another shape, take a part of it away
        missing = np.zeros((_SIDE, _SIDE))
        band = _patterns().T @ (wanted - _projections(made.round().clip(0, 255).astype(np.uint8)))
        missing[_BAND, _BAND] = band.reshape(missing[_BAND, _BAND].shape)
        change = Image.fromarray(idctn(missing, norm="ortho").astype(np.float32))
        made += np.asarray(change.resize(image.shape[1::-1], Image.Resampling.BICUBIC))[..., None]
    return made.round().clip(0, 255).astype(np.uint8)


def _bits_of(number: int) -> np.ndarray:
    """(64,) of 0 and 1: the number, and a sum to check it by."""
    content = number.to_bytes(4, "big")
    return np.unpackbits(np.frombuffer(content + zlib.crc32(content).to_bytes(4, "big"), np.uint8)).astype(int)


def _projections(image: np.ndarray) -> np.ndarray:
    """(64,) of the image's brightness on the patterns."""
    grey = Image.fromarray(image).convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    brightness = np.asarray(grey, np.float64) @ np.array([0.299, 0.587, 0.114])
    return _patterns() @ dctn(brightness, norm="ortho")[_BAND, _BAND].ravel()


def _patterns() -> np.ndarray:
    """(64, n) of length 1: each has its own places in the band, with random signs."""
    rng, count = np.random.default_rng(20_220_613), (_BAND.stop - _BAND.start) ** 2
    owner, signs = rng.permutation(count) % _BITS, rng.choice([-1.0, 1.0], count)
    found = np.where(owner == np.arange(_BITS)[:, None], signs, 0.0)
    return found / np.linalg.norm(found, axis=1, keepdims=True)
