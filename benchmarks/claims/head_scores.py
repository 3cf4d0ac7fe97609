"""How good head swaps are, one by one, against the exact truth of generated heads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.claims.head_judge import Judge
from frustum.cli.likeness import UNLIKE, colours, distance
from frustum.engine.recipe import Recipe
from frustum.errors import ConfigError
from frustum.models.head_swap import HeadSwapper, Parse
from frustum.nn.encoders.lpips import lpips
from frustum.nn.head_regions import LABELS, region_ids
from frustum.tasks.portrait_baselines import aligned_head, labels_of
from frustum.tasks.portraits import PortraitTask
from frustum.tasks.task import Predictor
from frustum.types.predictions import PredictedPortrait, Prediction

POLICY = "region"  # whose colours heads get, in all that is compared here
PLACES = ("eyes", "brows", "nose", "lips")
FIGURES = ("psnr_head", "psnr_features", "psnr_gap", "ssim_head", "ssim_gap", "colour_error", "head_iou", "background_changed")
"""Those of `PortraitTask`."""


Row = dict[str, float | None]


class TrueSwap(Predictor):
    """The perfect swap: what the errors of judge and parser are worth."""

    name = "the true swap"

    def __init__(self, source: Any):
        self._source = source

    def answer(self, token: str) -> Any:
        image, parsing = self._source.true_swap(token, POLICY)
        part = PredictedPortrait(torch.from_numpy(np.moveaxis(image, -1, 0).copy()), torch.from_numpy(labels_of(parsing) > 0), POLICY)
        return Prediction(token, portrait=part)


class Unchanged(Predictor):
    """The portrait itself: the head of the wrong person, with the right pose and expression."""

    name = "the portrait, unchanged"

    def __init__(self, source: Any):
        self._source = source

    def answer(self, token: str) -> Any:
        image, is_head = self._source.image(token), labels_of(self._source.parsing(token)) > 0
        part = PredictedPortrait(torch.from_numpy(np.moveaxis(image, -1, 0).copy()), torch.from_numpy(is_head), POLICY)
        return Prediction(token, portrait=part)


class Blended(Predictor):
    """The source's head moved onto the target's landmarks, and painted in by the blender: a swap without an aligner."""

    name = "aligned by landmarks, blended"

    def __init__(self, source: Any, swapper: HeadSwapper):
        self._source, self._swapper = source, swapper

    def answer(self, token: str) -> Any:
        image, labels = aligned_head(self._source, token)
        parts = region_ids(torch.from_numpy(labels)).numpy()
        head = np.where(labels[..., None] > 0, image, np.uint8(127))
        found = self._swapper.blend(head, parts, self._source.image(token), self._source.parsing(token))
        part = PredictedPortrait(torch.from_numpy(np.moveaxis(found.image, -1, 0).copy()), torch.from_numpy(labels > 0), POLICY)
        return Prediction(token, portrait=part)


class Remembered(Predictor):
    """A network's predictions of all swaps, made at once."""

    def __init__(self, recipe: Recipe, network: Any, source: Any):
        from frustum.engine.predictors import NetworkPredictor, network_predictions

        self.name, self._source = "blender", source
        predictor = NetworkPredictor(network, recipe.runtime)
        self._made = {found.token: found for found in network_predictions(predictor, recipe, source, source.tokens("swaps"))}

    def answer(self, token: str) -> Any:
        return self._made[token]

    def baselines(self) -> list[Predictor]:
        return baselines(self._source)


class Parsed:
    """Portraits whose parts are found by a parser, as those of photographs are."""

    def __init__(self, source: Any, parser: Parse):
        self._source, self._parser = source, parser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def parsing(self, token: str) -> np.ndarray:
        return self._parser(self._source.image(token))


def baselines(source: Any) -> list[Predictor]:
    """Heads that are pasted, under the policy of the blender."""
    task = PortraitTask(source.tokens("swaps"))
    task.policy = POLICY
    return task.baselines(source, "swaps")


def rows(way: Predictor, source: Any, tokens: Sequence[str], parser: Parse, judge: Judge) -> Iterator[tuple[str, Row]]:
    """FIGURES of each swap, `places`, the errors of `judge`, whether no head came out, and LPIPS where it is installed."""
    for token in tokens:
        task, part = PortraitTask((token,)), way.answer(token).portrait
        assert part is not None
        failed = float(token in getattr(way, "failed", ()))
        truth = task.truth(source, token)
        task.add(token, part, truth)
        found = {name: task.compute().get(name) for name in FIGURES} | places(part, truth.parsing, parser) | {"failed": failed}
        image, about = part.image.permute(1, 2, 0).numpy(), source.about(source.swap(token).source.split("/")[0])
        found |= judge.errors(image, source.truth(token)["motion"], about)
        if (eye := perceived()) is not None:
            made, true = (
                torch.tensor(image)[None] / 127.5 - 1 for image in (part.image.numpy(), np.moveaxis(truth.pictures[POLICY], -1, 0))
            )
            found["lpips"] = float(eye(made, true))
        yield token, found


@lru_cache
@torch.no_grad()
def perceived() -> nn.Module | None:
    """LPIPS with its weights; None where these are not installed."""
    try:
        return lpips("alex").eval().requires_grad_(False)
    except ConfigError:
        return None


def places(part: PredictedPortrait, parsing: np.ndarray, parser: Parse) -> dict[str, float | None]:
    """How far PLACES are from the true ones, and the share of them that are not found."""
    true, found = labels_of(parsing), labels_of(parser(part.image.permute(1, 2, 0).numpy()))
    distances, wanted = [], 0
    for name in PLACES:
        here, there = (np.argwhere(labels == LABELS[name]) for labels in (true, found))
        wanted += bool(len(here))
        if len(here) and len(there):
            distances.append(float(np.linalg.norm(here.mean(0) - there.mean(0))) / len(true))
    return {"places": float(np.mean(distances)) if distances else None, "missing": 1 - len(distances) / wanted if wanted else None}


def means(found: Iterator[tuple[str, dict[str, float | None]]] | list[tuple[str, dict[str, float | None]]]) -> dict[str, float]:
    """Of each figure over the samples that have it."""
    values = defaultdict(list)
    for _, row in found:
        for name, value in row.items():
            if value is not None:
                values[name].append(value)
    return {name: float(np.mean(some)) for name, some in values.items()}


def told_apart(source: Any) -> dict[str, float]:
    """Shares of pairs of portraits that are as far apart as `likeness.UNLIKE`, of people held out, from the middles of their clips."""
    shown = [
        [colours(source.image(token), source.parsing(token)) for token in (clip[len(clip) // 2] for clip in source.clips(who).values())]
        for who in source.people("val")
    ]
    one = [distance(a, b) for person in shown for a, b in combinations(person, 2)]
    two = [distance(a, b) for ours, theirs in combinations(shown, 2) for a in ours for b in theirs]
    return {name: float(np.mean(np.array(found) >= UNLIKE)) for name, found in (("one_person", one), ("two_people", two))}
