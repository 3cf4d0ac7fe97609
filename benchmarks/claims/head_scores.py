"""How good head swaps are, one by one, against the exact truth of generated heads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.claims.head_judge import Judge
from frustum.cli.head_swaps import HeadSwaps
from frustum.cli.likeness import UNLIKE, colours, distance
from frustum.engine.recipe import Recipe
from frustum.errors import ConfigError
from frustum.models.head_swap import HeadSwapper, NoHeadError, Parse, Swapped
from frustum.nn.encoders.lpips import lpips
from frustum.nn.head_regions import LABELS, region_ids
from frustum.tasks.portrait_baselines import aligned_head, labels_of
from frustum.tasks.portraits import PortraitTask
from frustum.tasks.task import Predictor
from frustum.types.predictions import PredictedPortrait, Prediction
from frustum.worlds.heads.draws import draw_clip, draw_scene
from frustum.worlds.heads.generate import HeadsConfig, clip_seed, person
from frustum.worlds.heads.swap import true_swap

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


class ParsedHeads(HeadSwaps):
    """Whole swaps, but the parts of the aligner's head are found by a parser where it drew a head."""

    def __init__(self, source: Any, swapper: HeadSwapper, parser: Parse):
        super().__init__(source, swapper)
        self.name, self._parser = f"{self.name}, parts of its head by the parser", parser

    def swapped(self, token: str) -> Swapped:
        drawn = super().swapped(token)
        parts = np.where(drawn.parts > 0, self._parser(drawn.aligned), 0).astype(np.uint8)
        return self._swapper.blend(drawn.aligned, parts, self._source.image(token), self._source.parsing(token))


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


def videos(way: HeadSwaps, swapper: HeadSwapper, source: Any, config: HeadsConfig, count: int) -> dict[str, float]:
    """Mean absolute difference, 0..255, between the changes from frame to frame of prediction and truth inside both heads, over
    `count` clips of the world `config`, of which `source` has the frames.

    `still` is that of a picture that does not change, `change` how much the prediction changes.
    """
    held_out = list(range(4, config.identities, 5))
    found = defaultdict(list)
    for first, second in list(pairwise(held_out))[:count]:
        (_, ours), (_, theirs) = person(config, first), person(config, second)
        seed = clip_seed(config, second, 0)
        scene = draw_scene(seed, theirs)
        clips = source.clips(source.people("val")[held_out.index(first)])
        learned = way.people.learned(next(iter(clips.values())))
        target = next(iter(source.clips(source.people("val")[held_out.index(second)]).values()))
        made, true, inside = [], [], []
        for motion, token in zip(draw_clip(seed, config.frames), target, strict=True):
            shot = true_swap(ours, theirs, motion, scene, "region", config.size)
            parsing = source.parsing(token)
            try:
                image = swapper.swap(learned, source.image(token), parsing).image
            except NoHeadError:
                image = source.image(token)
            made.append(image.astype(float))
            true.append(shot.image.astype(float))
            inside.append((labels_of(shot.parsing) > 0) | (labels_of(parsing) > 0))
        for before in range(len(made) - 1):
            where = inside[before] | inside[before + 1]
            ours_moved, truly = (images[before + 1] - images[before] for images in (made, true))
            found["error"].append(float(np.abs(ours_moved - truly)[where].mean()))
            found["still"].append(float(np.abs(truly)[where].mean()))
            found["change"].append(float(np.abs(ours_moved)[where].mean()))
    return {name: float(np.mean(values)) for name, values in found.items()}


def told_apart(source: Any) -> dict[str, float]:
    """Shares of pairs of portraits that are as far apart as `likeness.UNLIKE`, of people held out, from the middles of their clips."""
    shown = [
        [colours(source.image(token), source.parsing(token)) for token in (clip[len(clip) // 2] for clip in source.clips(who).values())]
        for who in source.people("val")
    ]
    one = [distance(a, b) for person in shown for a, b in combinations(person, 2)]
    two = [distance(a, b) for ours, theirs in combinations(shown, 2) for a in ours for b in theirs]
    return {name: float(np.mean(np.array(found) >= UNLIKE)) for name, found in (("one_person", one), ("two_people", two))}
