"""What head swapping reads beside one portrait: other frames of the person, a head to be put into the portrait, and what
becomes of it.

The source is like `data.portraits.folder.Portraits`: `source_frames(token)` names frames of the person whose head it is, `image(token)` and
`parsing(token)` give a frame (H, W, 3) uint8 RGB and its ids of CelebAMask-HQ (H, W) uint8, `placed_head(token)`,
`aligned_head(token)` and `true_swap(token, policy)` what belongs to a swap.

Shape letters: B batch, K frames, H W image.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frustum.data.augment import Draw
from frustum.errors import DataError, FrustumWarning
from frustum.types.classes import IGNORE
from frustum.types.contract import Label, Shapes

_ADVICE = "Use a data set of portraits, or batch.with_labels({%s: ...})."


@dataclass(frozen=True)
class SourceFrames(Label[Tensor]):
    """Frames of the person whose head is drawn: (B, K, 3, H, W) float from -1 to 1.

    To learn from, these are others of the same clip than the portrait itself; for a swap, those of the person whose head is wanted.

    Attributes:
        frames: K; a clip with fewer repeats them.
        recolour: in training, all frames of a sample are recoloured by one random matrix, 1 give or take this (see `PlacedHeads`).
    """

    frames: int = 4
    recolour: float = 0.0

    what: ClassVar[str] = "frames of the person"
    advice: ClassVar[str] = _ADVICE % "SourceFrames"

    def read(self, source: Any, token: str, fixed: Draw | None = None) -> np.ndarray | None:
        """See `Label.read`: (K, H, W, 3) uint8, evenly spaced in the clip. Raises DataError if these are not portraits."""
        return np.stack([source.image(frame) for frame in _spread(_portraits(source, token), token, self.frames)])

    def apply(self, found: np.ndarray, draw: Draw) -> np.ndarray:
        """The frames at the network's size, moved like the portrait."""
        return _recoloured(np.stack([np.asarray(draw.images[0].apply(Image.fromarray(frame))) for frame in found]), self.recolour, draw)

    def collate(self, moved: Sequence[np.ndarray | None]) -> Tensor | None:
        """None if a sample has no frames."""
        if any(frames is None for frames in moved):
            return None
        return torch.stack([_signed(frames) for frames in moved if frames is not None])

    def example(self, rng: np.random.Generator, shapes: Shapes) -> Tensor:
        """Frames of random pixels."""
        return torch.from_numpy(rng.uniform(-1, 1, (shapes.batch, self.frames, 3, *shapes.image_size))).float()


@dataclass(frozen=True)
class SourceParts(Label[Tensor]):
    """The parts of heads on `SourceFrames`: (B, K, H, W) uint8 ids of CelebAMask-HQ, 255 outside of the frames.

    Attributes:
        frames: K, as there.
    """

    frames: int = 4

    what: ClassVar[str] = "parts of the person's head in each frame"
    advice: ClassVar[str] = _ADVICE % "SourceParts"

    def read(self, source: Any, token: str, fixed: Draw | None = None) -> np.ndarray | None:
        """See `Label.read`: (K, H, W) uint8. Raises DataError if these are not portraits."""
        return np.stack([source.parsing(frame) for frame in _spread(_portraits(source, token), token, self.frames)])

    def apply(self, found: np.ndarray, draw: Draw) -> np.ndarray:
        """The maps at the network's size, moved like the portrait."""
        return np.stack([np.asarray(draw.images[0].apply(Image.fromarray(parsing), ignore=IGNORE)) for parsing in found])

    def collate(self, moved: Sequence[np.ndarray | None]) -> Tensor | None:
        """None if a sample has no frames."""
        found = [maps for maps in moved if maps is not None]
        return torch.from_numpy(np.stack(found)) if found and len(found) == len(moved) else None

    def example(self, rng: np.random.Generator, shapes: Shapes) -> Tensor:
        """Random parts."""
        return torch.from_numpy(rng.integers(0, 19, (shapes.batch, self.frames, *shapes.image_size)).astype(np.uint8))


@dataclass(frozen=True)
class PlacedHead:
    """A head in the place and pose that it will have in the portrait, in its own colours.

    Attributes:
        image: (B, 3, H, W) float from -1 to 1.
        parsing: (B, H, W) uint8 ids of CelebAMask-HQ.
        true_parsing: those of the true head where an aligner drew the image; None: there are no others.
    """

    image: Tensor
    parsing: Tensor
    true_parsing: Tensor | None = None


class FoundHead(NamedTuple):
    """What `PlacedHeads` reads.

    Attributes:
        image, parsing: (H, W, 3) and (H, W) uint8.
        seed: of the changes of colours; None where the head is another person's.
        aligned: both as an aligner drew them, where it did.
        token: of the sample.
    """

    image: np.ndarray
    parsing: np.ndarray
    seed: int | None
    aligned: tuple[np.ndarray, np.ndarray] | None
    token: str


@dataclass(frozen=True)
class PlacedHeads(Label[PlacedHead]):
    """The head that a blender puts into the portrait. To learn from, it is the portrait's own, in colours that were changed.

    A swap has another person's head, in its own colours.

    Attributes:
        jitter: brightness, contrast and saturation are multiplied by 1 - jitter to 1 + jitter: by other numbers each time that a training
            reads a sample, by the same ones in evaluation.
        recolour: in training, the head is recoloured by the matrix that the frames of the person have, of which it is the strength.
        aligned: the share of swaps, in training, whose head is the one that an aligner drew, and not the true one.
        of_others: the network sees the portrait as it is, so that it would learn to copy a head of the portrait's own.
    """

    jitter: float = 0.5
    recolour: float = 0.0
    aligned: float = 0.0
    of_others: bool = False

    what: ClassVar[str] = "a head to put into the portrait"
    advice: ClassVar[str] = _ADVICE % "PlacedHeads"

    def read(self, source: Any, token: str, fixed: Draw | None = None) -> FoundHead:
        """See `Label.read`. Raises DataError if these are not portraits."""
        placed = _portraits(source, token).placed_head(token)
        if placed is None:
            return FoundHead(source.image(token), source.parsing(token), zlib.crc32(token.encode()), None, token)
        return FoundHead(placed[0], placed[1], None, source.aligned_head(token) if self.aligned else None, token)

    def require(self, source: Any, tokens: Sequence[str]) -> None:
        """See `Label.require`; warns where a network would learn to copy."""
        if self.of_others and tokens and _portraits(source, tokens[0]).placed_head(tokens[0]) is None:
            warnings.warn(
                "frames of one person are learned from, but the network sees the portrait that it is to draw: it learns to copy. Learn "
                "from true swaps (data.train_split=train_swaps), or set model.sees_parts to false, and of an aligner pose_maps, frame_maps "
                "and draws_parts, too.",
                FrustumWarning,
                stacklevel=2,
            )

    def apply(self, found: FoundHead, draw: Draw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, parts and true parts at the network's size, moved like the portrait. Raises DataError where a head that was drawn is
        missing."""
        image, parsing, seed, aligned, token = found
        true = parsing
        if seed is not None and self.jitter:
            image = _jittered(image, self.jitter, np.random.default_rng([seed, draw.seed or 0]))
        if seed is None and self.aligned and draw.seed is not None:
            if aligned is None:
                raise DataError(f"{token} has no head that an aligner drew: frustum data aligned ALIGNER HEADS, or set model.aligned=0.")
            if np.random.default_rng([draw.seed, 4]).random() < self.aligned:
                image, parsing = aligned
        move = draw.images[0]
        parts, true = (np.asarray(move.apply(Image.fromarray(ids), ignore=IGNORE)) for ids in (parsing, true))
        return _recoloured(np.asarray(move.apply(Image.fromarray(image))), self.recolour, draw), parts, true

    def collate(self, moved: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray] | None]) -> PlacedHead | None:
        """None if a sample has no head."""
        found = [one for one in moved if one is not None]
        if len(found) < len(moved) or not found:
            return None
        images = torch.stack([_signed(image[None])[0] for image, *_ in found])
        parsing, true = (torch.from_numpy(np.stack(maps)) for maps in list(zip(*found, strict=True))[1:])
        return PlacedHead(images, parsing, true if self.aligned else None)

    def example(self, rng: np.random.Generator, shapes: Shapes) -> PlacedHead:
        """Heads of random pixels, and of random parts in the middle of the image."""
        height, width = shapes.image_size
        parsing = np.zeros((shapes.batch, height, width), np.uint8)
        inside = slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)
        parsing[:, inside[0], inside[1]] = rng.integers(1, 19, parsing[:, inside[0], inside[1]].shape)
        image = torch.from_numpy(rng.uniform(-1, 1, (shapes.batch, 3, height, width))).float()
        return PlacedHead(image, torch.from_numpy(parsing))


@dataclass(frozen=True)
class TrueSwaps(Label[Tensor]):
    """What the portrait should become: with the source's head, of a swap; the portrait itself, of a frame. (B, 3, H, W) from -1 to 1.

    Attributes:
        policy: whose colours the head has (nn/head_regions.py).
    """

    policy: str = "region"

    what: ClassVar[str] = "the portrait with the head"
    advice: ClassVar[str] = _ADVICE % "TrueSwaps"

    def read(self, source: Any, token: str, fixed: Draw | None = None) -> np.ndarray | None:
        """See `Label.read`: (H, W, 3) uint8. Raises DataError if these are not portraits."""
        return _portraits(source, token).true_swap(token, self.policy)[0]

    def apply(self, found: np.ndarray, draw: Draw) -> np.ndarray:
        """At the network's size, moved like the portrait."""
        return np.asarray(draw.images[0].apply(Image.fromarray(found)))

    def collate(self, moved: Sequence[np.ndarray | None]) -> Tensor | None:
        """None if a sample has none."""
        found = [image for image in moved if image is not None]
        return _signed(np.stack(found)) if len(found) == len(moved) and found else None

    def example(self, rng: np.random.Generator, shapes: Shapes) -> Tensor:
        """Random pixels."""
        return torch.from_numpy(rng.uniform(-1, 1, (shapes.batch, 3, *shapes.image_size))).float()


def _portraits(source: Any, token: str) -> Any:
    """The source, if it is one of portraits."""
    if not all(hasattr(source, name) for name in ("source_frames", "placed_head", "true_swap")):
        raise DataError(f"head swapping reads portraits, but {token} is of a {type(source).__name__}. Choose other data.")
    return source


def _spread(source: Any, token: str, count: int) -> list[str]:
    """Names of `count` frames of the person, evenly spaced in the clip."""
    others = source.source_frames(token)
    return [others[i] for i in np.linspace(0, len(others) - 1, count).round().astype(int)]


def _signed(frames: np.ndarray) -> Tensor:
    """(K, H, W, 3) uint8 -> (K, 3, H, W) float from -1 to 1."""
    return torch.tensor(frames).movedim(-1, 1).float() / 127.5 - 1


def _recoloured(images: np.ndarray, strength: float, draw: Draw) -> np.ndarray:
    """Images (*, 3) uint8 whose colours are mixed by a matrix that is drawn once for a sample; in evaluation as they are."""
    if not strength or draw.seed is None:
        return images
    rng = np.random.default_rng([draw.seed, 3])
    mix = np.eye(3) + rng.uniform(-strength, strength, (3, 3))
    shift = rng.uniform(-strength, strength, 3) / 2
    found = (images.astype(np.float32) / 127.5 - 1) @ mix.T.astype(np.float32) + shift.astype(np.float32)
    return ((found + 1) * 127.5).round().clip(0, 255).astype(np.uint8)


def _jittered(image: np.ndarray, jitter: float, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation: each a mix with black, with the mean grey, with the pixel's grey."""
    found = image.astype(np.float64)
    brightness, contrast, saturation = rng.uniform(1 - jitter, 1 + jitter, 3)
    weights = np.array([0.2989, 0.587, 0.114])
    found = np.clip(found * brightness, 0, 255)
    found = np.clip(contrast * found + (1 - contrast) * (found @ weights).mean(), 0, 255)
    found = np.clip(saturation * found + (1 - saturation) * (found @ weights)[..., None], 0, 255)
    return found.round().astype(np.uint8)
