"""What of a person's frames belongs into which place of another portrait: attention from the portrait to the frames.

Shape letters: B batch, K frames, S side of an image, P its patches a side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.errors import ShapeError
from frustum.nn.colour_reference import normalised
from frustum.nn.conv import ConvNorm

_PATCH = 4  # pixels from one to the next; they are twice as large, so that they overlap without an edge
_TEMPERATURE = 0.07


class KnownFrames(NamedTuple):
    """What is compared of frames, for any number of portraits.

    Attributes:
        keys: (B, K, P * P, F) features of patches. patches: (B, K, P * P, 3 * 64) their pixels.
    """

    keys: Tensor
    patches: Tensor


class FrameReference(nn.Module):
    """An image of the person in the pose of a portrait, put together from patches of the person's frames.

    Every patch of the portrait looks at all patches of all frames, and takes their pixels, weighed by a softmax of how alike the features
    are. Which patches are alike in two people is learned from what becomes of the image.

    Args:
        image_size: S.
        width: a quarter of the channels that are compared.
        channels: C of portraits and frames; the first three are the image, of which patches are taken.
    """

    weights: Tensor

    def __init__(self, image_size: int, width: int = 16, channels: int = 3):
        super().__init__()
        self.portrait_features, self.frame_features = _Features(channels, width), _Features(channels, width)
        tent = torch.tensor([1.0, 3.0, 5.0, 7.0, 7.0, 5.0, 3.0, 1.0]) / 8
        self.register_buffer("weights", torch.outer(tent, tent).flatten(), persistent=False)
        self.places = nn.Parameter(0.1 * torch.randn(1, 4 * width, image_size // _PATCH, image_size // _PATCH))

    @property
    def side(self) -> int:
        """S."""
        return _PATCH * self.places.shape[-1]

    def known(self, frames: Tensor) -> KnownFrames:
        """Of frames (B, K, C, S, S). Raises ShapeError for another size."""
        self._require_size(frames)
        padded = F.pad(frames[:, :, :3].flatten(0, 1), (_PATCH // 2,) * 4, "replicate")
        patches = F.unfold(padded, 2 * _PATCH, stride=_PATCH)  # (B * K, 3 * 64, P * P)
        keys = normalised(self.frame_features(frames.flatten(0, 1)) + self.places)
        return KnownFrames(*(maps.flatten(2).mT.unflatten(0, frames.shape[:2]) for maps in (keys, patches)))

    def forward(self, portraits: Tensor, frames: KnownFrames) -> Tensor:
        """Portraits (B, C, S, S) and frames, see `known` -> (B, 3, S, S). Raises ShapeError for another size."""
        self._require_size(portraits)
        queries = normalised(self.portrait_features(portraits) + self.places).flatten(2).mT
        keys, patches = (x.flatten(1, 2) for x in frames)
        found = F.scaled_dot_product_attention(queries, keys, patches.to(keys), scale=1 / _TEMPERATURE).mT
        weights, size = self.weights.repeat(3)[:, None], (self.side + _PATCH,) * 2
        laid, covered = (F.fold(weights * maps, size, 2 * _PATCH, stride=_PATCH) for maps in (found, torch.ones_like(found)))
        inside = slice(_PATCH // 2, _PATCH // 2 + self.side)
        return (laid / covered)[..., inside, inside].to(patches.dtype)

    def _require_size(self, images: Tensor) -> None:
        if set(images.shape[-2:]) != {self.side}:
            raise ShapeError(f"the reference was built for images of {self.side} x {self.side} pixels, got {tuple(images.shape)}.")


class _Features(nn.Module):
    """Images (M, C, S, S) -> features of patches (M, 4 * width, S / 4, S / 4), which see 53 pixels around: most of a portrait of 64."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        wide = 4 * width
        near = ConvNorm(4 * channels, 2 * width), ConvNorm(2 * width, wide, stride=2), ConvNorm(wide, wide)
        self.near = nn.Sequential(nn.PixelUnshuffle(2), *near)
        self.far = nn.Sequential(ConvNorm(wide, wide, stride=2), ConvNorm(wide, wide, stride=2), ConvNorm(wide, wide))
        self.both = nn.Sequential(ConvNorm(2 * wide, wide), nn.Conv2d(wide, wide, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        near = self.near(images)
        far = F.interpolate(self.far(near), near.shape[-2:], mode="bilinear")
        return self.both(torch.cat((near, far), 1))
