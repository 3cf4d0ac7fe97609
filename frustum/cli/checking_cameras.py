"""What commands say of cameras: which part of their images a network reads, and where the horizon lies in it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frustum.cli.common import say
from frustum.cli.resolve import resolve_recipe
from frustum.data.check.findings import Finding
from frustum.data.framing import OTHER_WINDOW, Framing, advice, framings, in_sentences, problem
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.sample import CameraFrame
from frustum.data.source import spread
from frustum.engine.recipe import Recipe
from frustum.errors import DataError, FrustumWarning
from frustum.recipes.finding import CHECKED

_LOOKED_AT = 20  # keyframes whose cameras are described


def cameras_of(database: Any, tokens: Sequence[str]) -> list[CameraFrame]:
    """Cameras of some of these keyframes; none of keyframes that cannot be read, or of single images."""
    found: list[CameraFrame] = []
    for token in spread(tokens, _LOOKED_AT):
        try:
            found += getattr(database.sample(token), "cameras", ())
        except DataError:  # the check names it, and a prediction stops at it
            continue
    return found


def check_framing(database: Any, tokens: Sequence[str], name: str) -> tuple[list[Finding], list[Framing]]:
    """Say which part of each image a network of the recipe `name` reads; findings of horizons that it does not see."""
    recipe = resolve_recipe(name)
    found = _described(cameras_of(database, tokens), recipe, f"A network of the recipe {name} (--recipe NAME) reads")
    problems = {(one.channel, what): advice(one) for one in found if (what := problem(one))}
    height, width = recipe.data.image_size
    about = f"(images {width} pixels wide and {height} high)"
    return [Finding("warning", "", f"{channel} {about}: {what}", hint) for (channel, what), hint in problems.items()], found


def say_imported(root: Path, scene: str) -> list[dict[str, Any]]:
    """Say which part of each image of an imported scene a network reads, warn of horizons that it does not see; returns JSON values."""
    database = NuScenes(root)
    findings, found = check_framing(database, database.tokens(scene), CHECKED)
    for finding in findings:
        warnings.warn(f"{finding.what}. {finding.hint}", FrustumWarning, stacklevel=2)
    return [vars(one) for one in found]


def say_framing(database: Any, tokens: Sequence[str], recipe: Recipe) -> None:
    """Say which part of each image the network of a recipe reads, and warn where the horizon is not where it was in training."""
    found = _described(cameras_of(database, tokens), recipe, "The network reads")
    for channel, what, hint in dict.fromkeys((one.channel, what, advice(one)) for one in found if (what := problem(one, is_trained=True))):
        warnings.warn(f"{channel}: {what}. {hint}", FrustumWarning, stacklevel=2)


def _described(cameras: Sequence[CameraFrame], recipe: Recipe, begin: str) -> list[Framing]:
    found = framings(cameras, recipe.augment, recipe.data.image_size)
    if found:
        height, width = recipe.data.image_size
        trained = f"in training with the horizon {100 * found[0].trained:.0f} % of the way down"
        settings = f" ({OTHER_WINDOW})" if any(one.is_placed for one in found) else ""
        say(f"{begin} images {width} pixels wide and {height} high, {trained}{settings}:")
    for sentence in in_sentences(found):
        say(f"  {sentence}")
    return found
