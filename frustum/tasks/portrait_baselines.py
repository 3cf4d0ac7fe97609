"""What head swapping must beat: heads that are pasted, as they are, aligned by landmarks, or exactly aligned; with their own colours or
with those of the target's regions.

Shape letters: H W image, P landmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from frustum.errors import DataError
from frustum.nn.head_regions import FOLLOWS, LABELS, region_labels
from frustum.tasks.task import Predictor
from frustum.types.predictions import PredictedPortrait, Prediction

Placed = tuple[np.ndarray, np.ndarray]
"""A head as a picture (H, W, 3) uint8, and the labels of its regions (H, W), 0 outside."""


def portrait_baselines(source: Any, policy: str, tokens: Sequence[str]) -> list[Predictor]:
    """Those that the data allow: landmarks are known of generated heads, exactly aligned heads of their swaps.

    Args:
        source: like `data.portraits.folder.Portraits`.
        policy: under which they are compared (nn/head_regions.py); empty for the head alone, whose colours are its own.
        tokens: what is scored; the first one says what the data have.
    """
    ways: list[tuple[str, str, Callable[[str], Placed]]] = [
        ("pasted", "the head of the middle frame of the source, as it is", lambda token: middle_head(source, token))
    ]
    if source.truth(tokens[0]) is not None:
        about = "the head of the source's frame whose landmarks fit best, turned, scaled and shifted onto those of the target"
        ways.append(("aligned and pasted", about, lambda token: aligned_head(source, token)))
    if policy and source.placed_head(tokens[0]) is not None:
        about = "the source's true head in the right pose, in its own light"
        ways.append(("exact head, pasted", about, lambda token: exact(source, token)))
    found = [Pasted(name, note, source, policy, place, is_recoloured=False) for name, note, place in ways]
    if FOLLOWS.get(policy):  # type: ignore[call-overload]
        more = ", with mean and spread of the colours of the target's regions"
        found += [Pasted(f"{name}, recoloured", note + more, source, policy, place, is_recoloured=True) for name, note, place in ways]
    return [*found]


class Pasted(Predictor):
    """Pastes a head into the portrait; or shows it alone on grey, with an empty policy.

    Args:
        place: from a token to the head.
        is_recoloured: its regions get mean and spread of those of the target (Reinhard et al., 2001, in RGB).
    """

    def __init__(self, name: str, note: str, source: Any, policy: str, place: Callable[[str], Placed], is_recoloured: bool):
        self.name, self.note = name, note
        self._source, self._policy, self._place, self._is_recoloured = source, policy, place, is_recoloured

    def answer(self, token: str) -> Prediction:
        """The prediction for a sample. Raises DataError for damaged files."""
        image, labels = self._place(token)
        scene = self._source.image(token)
        if self._is_recoloured:
            image = recoloured(image, labels, scene, labels_of(self._source.parsing(token)), self._policy)
        is_head = labels > 0
        made = np.where(is_head[..., None], image, scene if self._policy else np.uint8(127))
        part = PredictedPortrait(torch.from_numpy(np.moveaxis(made, -1, 0).copy()), torch.from_numpy(is_head), self._policy)
        return Prediction(token, portrait=part)


def labels_of(parsing: np.ndarray) -> np.ndarray:
    """Labels of regions (H, W) of a parsing map (H, W)."""
    return region_labels(torch.tensor(parsing)[None])[0].numpy()


def exact(source: Any, token: str) -> Placed:
    """The true head of a swap. Raises DataError where the data set does not have it."""
    placed = source.placed_head(token)
    if placed is None:
        raise DataError(f"{token} is not a swap, so that its true head is not known.")
    return placed[0], labels_of(placed[1])


def middle_head(source: Any, token: str) -> Placed:
    """The head of the middle frame of the source."""
    frames = source.source_frames(token)
    frame = frames[len(frames) // 2]
    return source.image(frame), labels_of(source.parsing(frame))


def aligned_head(source: Any, token: str) -> Placed:
    """The head of the source's frame whose landmarks fit those of the target best, moved onto these. Raises DataError without landmarks."""
    wanted, best = _landmarks(source, token), None
    for frame in source.source_frames(token):
        matrix, error = similarity(wanted, _landmarks(source, frame))
        if best is None or error < best[0]:
            best = error, frame, matrix
    assert best is not None  # a portrait has one frame at least
    _, frame, matrix = best
    data = matrix.ravel().tolist()
    image, parsing = Image.fromarray(source.image(frame)), Image.fromarray(source.parsing(frame))
    size, affine = image.size, Image.Transform.AFFINE
    moved = image.transform(size, affine, data, Image.Resampling.BILINEAR)
    return np.asarray(moved), labels_of(np.asarray(parsing.transform(size, affine, data, Image.Resampling.NEAREST)))


def similarity(points: np.ndarray, onto: np.ndarray) -> tuple[np.ndarray, float]:
    """The turn, scale and shift (2, 3) that brings points (P, 2) closest to others (P, 2), and the mean squared distance that is left.

    Umeyama, PAMI 1991, in the plane: as complex numbers it is one division.
    """
    first, second = (p[:, 0] + 1j * p[:, 1] for p in (points.astype(np.float64), onto.astype(np.float64)))
    turn = np.vdot(first - first.mean(), second - second.mean()) / max(np.vdot(first - first.mean(), first - first.mean()).real, 1e-12)
    shift = second.mean() - turn * first.mean()
    error = float(np.mean(np.abs(turn * first + shift - second) ** 2))
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]]), error


def recoloured(image: np.ndarray, labels: np.ndarray, scene: np.ndarray, scene_labels: np.ndarray, policy: str) -> np.ndarray:
    """An image (H, W, 3) whose regions that follow the target by a policy have mean and spread of the target's colours, channel by channel.

    A region that one of the two does not show (8 pixels) keeps its own.
    """
    found = image.astype(np.float64)
    for region in FOLLOWS[policy]:  # type: ignore[index]
        own, other = labels == LABELS[region], scene_labels == LABELS[region]
        if min(own.sum(), other.sum()) < 8:
            continue
        ours, theirs = found[own], scene[other].astype(np.float64)
        found[own] = (ours - ours.mean(0)) / np.maximum(ours.std(0), 1.0) * theirs.std(0) + theirs.mean(0)
    return found.round().clip(0, 255).astype(np.uint8)


def _landmarks(source: Any, token: str) -> np.ndarray:
    known = source.truth(token)
    if known is None:
        raise DataError(f"the landmarks of {token} are not known. They are of generated heads.")
    return known["landmarks"]
