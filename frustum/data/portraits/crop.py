"""From a photograph to a portrait as networks of head swapping read it, a square around the head, and back.

Where the head is says a parsing map. Shape letters: H W image, S side of the portrait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, label

from frustum.errors import DataError

HEAD = (*range(1, 14), 17, 18)
"""Ids of CelebAMask-HQ that belong to a head."""
_FACE = (1, 2, 3, 4, 5, 6, 10, 11, 12, 13)  # without ears, hair and hat, whose size says little of the head's


class FaceBox(NamedTuple):
    """Middle and height of a face, in pixels."""

    x: float
    y: float
    height: float


PORTRAIT = FaceBox(0.5, 0.51, 0.475)
"""The face in a portrait of side 1: the mean over generated heads, rounded."""


@dataclass(frozen=True)
class Crop:
    """A square of a photograph; it may reach beyond it, where the photograph's border is repeated.

    Attributes:
        left, top, side: in pixels of the photograph.
    """

    left: int
    top: int
    side: int

    def cut(self, image: np.ndarray, size: int) -> np.ndarray:
        """The square of an image (H, W, 3) uint8, scaled to (size, size, 3)."""
        rows, columns = (
            np.arange(first, first + self.side).clip(0, n - 1) for first, n in zip((self.top, self.left), image.shape, strict=False)
        )
        square = Image.fromarray(np.ascontiguousarray(image[rows][:, columns]))
        return np.asarray(square if size == self.side else square.resize((size, size), Image.Resampling.BICUBIC))

    def paste(self, image: np.ndarray, portrait: np.ndarray, where: np.ndarray, feather: float = 1.5) -> np.ndarray:
        """A copy of the photograph (H, W, 3) with a portrait (S, S, 3) put back where the mask (S, S) says, with a soft border inside it.

        Pixels outside of the mask stay as they are, to the bit.

        Args:
            feather: width of the border in pixels of the portrait.
        """
        inside = (
            np.asarray(Image.fromarray(where.astype(np.uint8) * 255).resize((self.side,) * 2, Image.Resampling.BILINEAR), np.float32) / 255
        )
        soft = gaussian_filter(inside, feather * self.side / len(where))
        share = np.where(inside > 0.5, np.clip(2 * soft - 1, 0, 1), 0)[..., None]
        patch = np.asarray(Image.fromarray(portrait).resize((self.side,) * 2, Image.Resampling.BICUBIC), np.float32)
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = (min(first + self.side, n) for first, n in zip((self.top, self.left), image.shape, strict=False))
        made, window = image.copy(), (slice(top - self.top, bottom - self.top), slice(left - self.left, right - self.left))
        below = image[top:bottom, left:right].astype(np.float32)
        mixed = below + share[window] * (patch[window] - below)
        made[top:bottom, left:right] = np.where(share[window] > 0, mixed.round().clip(0, 255), below).astype(np.uint8)
        return made


def face_box(parsing: np.ndarray, what: str = "the image") -> FaceBox:
    """The face in a parsing map (H, W): of all connected parts of heads the largest one's.

    Raises:
        DataError: no head or no face is in it, or a second head that is more than half as large; `what` names the image.
    """
    parts, count = label(np.isin(parsing, HEAD))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    if not count or sizes.max() < 0.002 * parsing.size:
        raise DataError(f"no head is found in {what}. Give an image whose head is larger, or its parsing map.")
    order = np.argsort(-sizes)
    if count > 1 and sizes[order[1]] > 0.5 * sizes[order[0]]:
        raise DataError(f"two heads are found in {what}. Cut out the one that is meant.")
    rows, columns = np.nonzero(np.isin(parsing, _FACE) & (parts == order[0] + 1))
    if len(rows) < 0.1 * sizes[order[0]]:
        raise DataError(f"a head without a face is in {what}: it may be seen from behind. Give an image that shows the face.")
    low, high = np.percentile(rows, (1, 99))
    return FaceBox(float(columns.mean()) + 0.5, float(low + high) / 2 + 0.5, float(high - low + 1))


def crop_around(face: FaceBox, like: FaceBox = PORTRAIT) -> Crop:
    """The square in which a face has the place and the size that `like` has in a portrait of side 1."""
    side = max(8, round(face.height / like.height))
    return Crop(round(face.x - like.x * side), round(face.y - like.y * side), side)
