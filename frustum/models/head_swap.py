"""Head swapping by HeSer's two networks, one after the other, on portraits as arrays.

frames of the source -> aligner: the head in the target's pose, and its parts (or by a parser) -> blender: the head in the target's scene
Shape letters: K frames, S side of a portrait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from frustum.data.labels.pixels import PixelLabels
from frustum.data.labels.portraits import PlacedHead, PlacedHeads
from frustum.errors import ConfigError, DataError
from frustum.models.heser_aligner import HeserAligner
from frustum.models.heser_blender import HeserBlender
from frustum.models.heser_fewshot import FewShot, Learned, learn_person
from frustum.nn.head_regions import region_ids, region_labels
from frustum.nn.portrait_views import SIGNED, as_bytes
from frustum.types.batch import Batch

Parse = Callable[[np.ndarray], np.ndarray]
"""From a portrait (S, S, 3) uint8 to its parts (S, S) uint8, ids of CelebAMask-HQ."""


class NoHeadError(DataError):
    """No head is found in what the aligner made."""


class Swapped(NamedTuple):
    """A swap.

    Attributes:
        image: (S, S, 3) uint8, the target's portrait with the source's head.
        where: (S, S) bool, what was painted anew; outside of it the image is the portrait, to the bit.
        aligned: (S, S, 3) uint8, the head that the blender was given, on mid grey.
        parts: (S, S) uint8, what of it is what, 0 beside the head.
    """

    image: np.ndarray
    where: np.ndarray
    aligned: np.ndarray
    parts: np.ndarray


class HeadAligner:
    """Draws heads in the pose of portraits with a trained network, in evaluation mode on the CPU.

    Args:
        aligner: trained.
        parse: finds the parts of the head that the aligner made, where it does not draw them itself (`draws_parts`).
    """

    def __init__(self, aligner: HeserAligner, parse: Parse | None):
        self.side, self.aligner, self._parse = aligner.config.image_size, aligner.eval(), parse

    def learn(self, portraits: Sequence[np.ndarray], parsing: Sequence[np.ndarray], how: FewShot) -> Learned:
        """Learn a person from portraits (S, S, 3) uint8 and their parts (S, S) uint8; see `learn_person`."""
        frames = torch.cat([_signed(portrait) for portrait in portraits])
        return learn_person(self.aligner, frames, torch.from_numpy(np.stack(parsing)), how)

    @torch.no_grad()
    def align(self, person: Learned, portrait: np.ndarray, parsing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A person's head in the pose of a portrait (S, S, 3) uint8 with the parts (S, S) uint8: on mid grey, and its parts, alike.

        Raises:
            NoHeadError: there is none in what the aligner made.
        """
        seen = person.aligner.seen(_signed(portrait), torch.tensor(parsing)[None])
        outputs = person.aligner.drawn(person.code, seen, person.frames)
        head = outputs["image"]
        if "mask_logits" in outputs:
            head = head * outputs["mask_logits"].sigmoid()
        aligned = _array(head)
        if "parts_logits" in outputs:
            found = region_ids(outputs["parts_logits"][0, 1:].argmax(0) + 1).numpy()
        else:
            assert self._parse is not None, "this aligner draws no parts"
            found = self._parse(aligned)
        if "mask_logits" in outputs:
            found = np.where(outputs["mask_logits"][0, 0].numpy() > 0, found, 0)
        parts = found.astype(np.uint8)
        if not (region_labels(torch.from_numpy(parts)[None]) > 0).any():
            raise NoHeadError(
                "no head is found in what the aligner made: it, or the parser, is not trained enough, or the pose is unusual."
            )
        return aligned, parts


class HeadSwapper:
    """Swaps heads with trained networks, in evaluation mode on the CPU.

    Args:
        aligner, blender: trained.
        parse: see `HeadAligner`.

    Attributes:
        heads: what draws them.
        blender: what paints them in.

    Raises:
        ConfigError: the aligner makes images whose side the blender does not take.
    """

    def __init__(self, aligner: HeserAligner, blender: HeserBlender, parse: Parse):
        side, multiple = aligner.config.image_size, blender.config.image_multiple
        if side % multiple:
            raise ConfigError(f"the aligner makes portraits of {side} pixels, but the blender takes multiples of {multiple}.")
        self.heads, self.blender = HeadAligner(aligner, parse), blender.eval()

    @torch.no_grad()
    def swap(self, person: Learned, portrait: np.ndarray, parsing: np.ndarray) -> Swapped:
        """Put a person's head onto a portrait (S, S, 3) uint8 with the parts (S, S) uint8.

        Raises:
            NoHeadError: there is none in what the aligner made.
        """
        return self.blend(*self.heads.align(person, portrait, parsing), portrait, parsing)

    @torch.no_grad()
    def blend(self, head: np.ndarray, parts: np.ndarray, portrait: np.ndarray, parsing: np.ndarray) -> Swapped:
        """Paint a head (S, S, 3) uint8 with the parts (S, S) uint8, which lies where it should be, into a portrait with its own."""
        batch = replace(Batch.of_images(_signed(portrait)), image_scale=SIGNED)
        placed = PlacedHead(_signed(head), torch.tensor(parts)[None])
        batch = batch.with_labels({PixelLabels: torch.tensor(parsing)[None], PlacedHeads: placed})
        blended = self.blender(batch)
        (prediction,) = self.blender.predict(blended, batch)
        assert prediction.portrait is not None
        image = prediction.portrait.image.permute(1, 2, 0).numpy()
        return Swapped(image, blended["masks"][0, 1].numpy() > 0, head, parts)


def _signed(image: np.ndarray) -> Tensor:
    """(S, S, 3) uint8 as (1, 3, S, S) from -1 to 1."""
    return torch.tensor(image).movedim(-1, 0)[None].float() / 127.5 - 1


def _array(images: Tensor) -> np.ndarray:
    """The first of images (B, 3, S, S) from -1 to 1 as (S, S, 3) uint8."""
    return as_bytes(images)[0].permute(1, 2, 0).numpy()
