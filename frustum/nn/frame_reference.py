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
        keys: (B, K, P * P, F) features of patches.
        patches: (B, K, P * P, 3 * 64 + 16 * (shown - 3)) their pixels; those after the three of the image are in half the size.
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
        channels: C of portraits and frames; the first three are the image.
        shown: of the channels of frames, patches of these are taken; those after the image in half the size.
    """

    weights: Tensor
    half_weights: Tensor

    def __init__(self, image_size: int, width: int = 16, channels: int = 3, shown: int = 3):
        super().__init__()
        self.shown = shown
        self.portrait_features, self.frame_features = _Features(channels, width), _Features(channels, width)
        for name, tent in (("weights", [1.0, 3, 5, 7, 7, 5, 3, 1]), ("half_weights", [1.0, 3, 3, 1])):
            falling = torch.tensor(tent) / max(tent)
            self.register_buffer(name, torch.outer(falling, falling).flatten(), persistent=False)
        self.places = nn.Parameter(0.1 * torch.randn(1, 4 * width, image_size // _PATCH, image_size // _PATCH))

    @property
    def side(self) -> int:
        """S."""
        return _PATCH * self.places.shape[-1]

    def known(self, frames: Tensor) -> KnownFrames:
        """Of frames (B, K, C, S, S). Raises ShapeError for another size."""
        self._require_size(frames)
        images = frames[:, :, : self.shown].flatten(0, 1)
        patches = _patches(images[:, :3], _PATCH)
        if self.shown > 3:
            patches = torch.cat((patches, _patches(F.avg_pool2d(images[:, 3:], 2), _PATCH // 2)), 1)
        keys = normalised(self.frame_features(frames.flatten(0, 1)) + self.places)
        return KnownFrames(*(maps.flatten(2).mT.unflatten(0, frames.shape[:2]) for maps in (keys, patches)))

    def forward(self, portraits: Tensor, frames: KnownFrames) -> Tensor:
        """Portraits (B, C, S, S) and frames, see `known` -> (B, shown, S, S). Raises ShapeError for another size."""
        self._require_size(portraits)
        queries = normalised(self.portrait_features(portraits) + self.places).flatten(2).mT
        keys, patches = (x.flatten(1, 2) for x in frames)
        if queries.is_cuda:
            found = F.scaled_dot_product_attention(queries, keys, patches.to(keys), scale=1 / _TEMPERATURE)
        else:  # which has no fast kernel there for patches that are wider than keys, and takes twice as long
            found = (queries / _TEMPERATURE @ keys.mT).softmax(-1) @ patches.to(keys)
        found = found.mT.to(patches.dtype)
        image = self._laid(found[:, : 3 * len(self.weights)], _PATCH, self.weights)
        if self.shown == 3:
            return image
        others = self._laid(found[:, 3 * len(self.weights) :], _PATCH // 2, self.half_weights)
        return torch.cat((image, F.interpolate(others, scale_factor=2.0, mode="bilinear")), 1)

    def _laid(self, patches: Tensor, step: int, weights: Tensor) -> Tensor:
        """Patches (B, C * (2 * step)^2, P * P), with the largest weight in their middle, side by side: (B, C, step * P, step * P)."""
        side = self.places.shape[-1] * step
        weights = weights.repeat(patches.shape[1] // len(weights))[:, None]
        laid, covered = (F.fold(weights * maps, (side + step,) * 2, 2 * step, stride=step) for maps in (patches, torch.ones_like(patches)))
        inside = slice(step // 2, step // 2 + side)
        return (laid / covered)[..., inside, inside]

    def _require_size(self, images: Tensor) -> None:
        if set(images.shape[-2:]) != {self.side}:
            raise ShapeError(f"the reference was built for images of {self.side} x {self.side} pixels, got {tuple(images.shape)}.")


def _patches(images: Tensor, step: int) -> Tensor:
    """Images (M, C, S, S) -> their patches of 2 * step pixels, every `step` pixels: (M, C * (2 * step)^2, (S / step)^2)."""
    return F.unfold(F.pad(images, (step // 2,) * 4, "replicate"), 2 * step, stride=step)


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
