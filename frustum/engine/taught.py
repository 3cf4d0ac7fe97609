"""What weights were taught with: from which labels, and from which start. It stands in their header, and with every result of them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from frustum.checkpoint.fit import COUNTER
from frustum.checkpoint.upstream_file import open_state
from frustum.checkpoint.weights_file import WEIGHTS, decode_header
from frustum.data.rig.likeness import NUMBERS
from frustum.data.source import Source
from frustum.engine.recipe import Recipe
from frustum.engine.statistics import label_statistics
from frustum.errors import CheckpointError
from frustum.files import without_places

TAUGHT = "taught_with"
"""Its name in the header of weights, and in the numbers of an evaluation."""
RIG = "rig"
"""The name in the header of weights under which the cameras of their training stand (`DataConfig.rig_of`)."""
Taught = dict[str, list[str]]
"""`labels`, a phrase for each kind; `start`, where the first weights came from; `labelled`, scenes or keyframes, where others are not;
`distilled`, the teacher and what of it was imitated. Or nothing, where it is not known."""
_NAMES = {"labels": "learned from", "start": "started from", "labelled": "with labels of", "distilled": "imitated"}


def taught_with(recipe: Recipe, network: nn.Module, source: Source, cache: Path | None = None, is_given: bool = False) -> Taught:
    """What a training by this recipe teaches with; the same for a run that is resumed.

    Args:
        recipe: names labels and `train.init`.
        network: fresh, or trained; its parts know where they started from, and whose features they learn (`taught_by`).
        source: the opened data set.
        cache: the run folder, for the statistics that the network was prepared with. None are counted for this.
        is_given: the caller brought the network, and what was in it is not known.
    """
    tokens = source.tokens(recipe.data.train_split)
    known = label_statistics(recipe, source, cache, kept_only=True)
    labels = [label.described(source, tokens, known[type(label)]) for label in recipe.model.learns_from()]
    labels += [f"image features of {name}" for part in network.modules() if (name := getattr(part, "taught_by", ""))]
    first = "a network that was given in Python" if is_given else _init(recipe.train.init) if recipe.train.init else ""
    start = [*(f"image encoder from {origin}" for origin in origins(network)), *([first] if first else [])]
    shown = list(getattr(source, "labelled", ()))
    start = without_places(start)
    return {"labels": labels, "start": start or ["random weights"]} | ({"labelled": shown} if shown else {})


def origins(network: nn.Module) -> list[str]:
    """Where the image encoders of a network started from, those that did not start from random weights."""
    return list(dict.fromkeys(origin for part in network.modules() if (origin := getattr(part, "started_from", ""))))


def forget_origins(network: nn.Module, taken: Collection[str]) -> None:
    """Let image encoders whose weights were all replaced no longer say where they started from; `taken` are keys of the network's state."""
    known = set(taken)
    for name, part in network.named_modules():
        if getattr(part, "started_from", "") and {f"{name}.{key}" for key in part.state_dict() if not key.endswith(COUNTER)} <= known:
            part.started_from = ""  # type: ignore[assignment]


def _init(path: str) -> str:
    """`train.init` in words, with what its weights were taught with where they say it."""
    learned: list[str] = []
    with contextlib.suppress(CheckpointError):  # a run that goes on when the file is gone
        opened = open_state(Path(path) / WEIGHTS if Path(path).is_dir() else path)
        learned = taught_of(decode_header(opened.metadata)).get("labels", [])
    before = f" (which learned from {'; '.join(_few(learned))})" if learned else ""
    return f"{without_places(path)}{before}, as far as it fits"


def taught_of(header: Mapping[str, Any]) -> Taught:
    """What the header of a weights file says of it; empty for files of other origin or of earlier versions."""
    found = header.get(TAUGHT)
    if not isinstance(found, Mapping):
        return {}
    return {name: list(map(str, found[name])) for name in _NAMES if isinstance(found.get(name), list)}


def rig_of_header(header: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cameras of the training, from the header of a weights file; empty where it does not say, or is damaged."""
    rows = header.get(RIG)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return []
    return rows if all(isinstance(row.get(name), float) for row in rows for name in NUMBERS) else []


def in_sentences(taught: Mapping[str, list[str]]) -> list[str]:
    """For people, a line each; none where nothing is known."""
    return [f"{words}: {'; '.join(_few(taught[name]))}" for name, words in _NAMES.items() if taught.get(name)]


def _few(words: list[str], most: int = 10) -> list[str]:
    return words if len(words) <= most else [*words[:most], f"and {len(words) - most} more"]
