"""From a weights file to a network that is fed and run as the weights need it."""

from __future__ import annotations

import importlib
import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from frustum.checkpoint import weights_file as files
from frustum.checkpoint.upstream_file import open_state
from frustum.engine import overrides as settings
from frustum.engine import preprocessing
from frustum.engine.recipe import Recipe
from frustum.errors import CheckpointError, ConfigError, FrustumWarning
from frustum.weights.catalogue import SOURCES


class Checkpoint(NamedTuple):
    """An opened weights file.

    Attributes:
        state: names with tensors (or arrays, where a dict was given).
        preprocessing: recipe settings that the weights must be run with (engine/preprocessing.py).
        adapter: the module of weights/ for the upstream project; None for weights that were trained here.
        what: the file's name, for messages.
        trained: the recipe in the file's header, as JSON; empty where there is none.
    """

    state: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    adapter: Any
    what: str
    trained: Mapping[str, Any] = {}


def open_checkpoint(checkpoint: str | Path | Mapping[str, Any], recipe: Recipe, source: str = "frustum") -> Checkpoint:
    """Read weights for `recipe`: a file or run folder of ours, an upstream file with the source `official` (or its project's), or a dict.

    Raises:
        ConfigError: unknown source, or a recipe without official weights. CheckpointError: missing, damaged or unsafe file.
    """
    adapter = adapter_for(recipe, source)
    if adapter is not None:
        what = "the official checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
        state = open_state(checkpoint).state
        return Checkpoint(state, adapter.preprocessing_for(adapter.layout_of(state)), adapter, what)
    if isinstance(checkpoint, Mapping):
        return Checkpoint(checkpoint, {}, None, "the given state dict")
    state, metadata = files.read_weights(checkpoint)
    upstream = metadata.get("source")
    stored = preprocessing.stored_in(metadata, str(checkpoint))
    adapter, trained = adapter_named(upstream) if upstream in SOURCES else None, preprocessing.recipe_in(metadata)
    if adapter is not None and not has_official_weights(recipe) and preprocessing.is_of_kind(trained, recipe):
        raise CheckpointError(
            f"{checkpoint} says that it holds weights of {upstream}, which has none of this network: an early frustum wrote the wrong "
            f"preprocessing into it. Convert the original again: frustum weights convert FILE --recipe {recipe.name} -o {checkpoint}"
        )
    return Checkpoint(state, stored, adapter, str(checkpoint), trained)


def adapter_named(source: str) -> Any:
    """The module of weights/ for an upstream project. Raises ConfigError for one that is not known."""
    if source not in SOURCES:
        raise ConfigError(f"unknown source {source!r}; files of these projects can be read: {', '.join(SOURCES)}.")
    return importlib.import_module(f"frustum.weights.{source}")


def has_official_weights(recipe: Recipe) -> bool:
    """True if an upstream project publishes weights for networks of this kind, of whatever widths."""
    return any(_stem(recipe) in adapter_named(source).MODELS for source in SOURCES)


def adapter_for(recipe: Recipe, source: str) -> Any:
    """The module of weights/ that reads the weights of a recipe's network; None for the source `frustum`, weights that were trained here.

    Raises:
        ConfigError: unknown source, or a recipe without official weights.
    """
    if source == "frustum":
        return None
    if source != "official" and source not in SOURCES:
        raise ConfigError(
            f"unknown source {source!r}; choose 'frustum' for weights that this package wrote or converted, or 'official' "
            f"(or its name: {', '.join(SOURCES)}) for a file of the project that published the network."
        )
    for adapter in map(adapter_named, SOURCES if source == "official" else (source,)):
        if _stem(recipe) in adapter.MODELS:
            return adapter
    raise ConfigError(f"the recipe {recipe.name!r} has no official weights{_of(source)}; use source='frustum'.")


def _of(source: str) -> str:
    return "" if source == "official" else f" of {source}"


def _stem(recipe: Recipe) -> str:
    """The model's file: the same word names its recipes, its tests and its page."""
    return type(recipe.model).__module__.rpartition(".")[2]


def settle(recipe: Recipe, overrides: Sequence[str] = (), source: str = "frustum", checkpoint: Checkpoint | None = None) -> Recipe:
    """The recipe to run weights with.

    What the weights need comes first (the preprocessing they carry; for upstream files also the widths of their layers), then
    `overrides`, which win. A warning names an override that contradicts the weights, and widths that were taken from the file.

    Raises:
        ConfigError: unknown source or setting, or a recipe without official weights.
    """
    if checkpoint is None:
        adapter = adapter_for(recipe, source)
        return preprocessing.settle(recipe, adapter.PREPROCESSING if adapter else {}, overrides)
    if checkpoint.adapter is not None:
        recipe = _as_wide_as(checkpoint, recipe, overrides)
    return preprocessing.settle(recipe, checkpoint.preprocessing, overrides)


def build_network(recipe: Recipe, checkpoint: Checkpoint | None = None, strict: bool = True) -> nn.Module:
    """The network of a recipe that is settled already, in eval mode and with the checkpoint's weights.

    Its attribute `preprocessing` says what it must be fed with: the settings of engine/preprocessing.py by dotted path.

    Raises:
        CheckpointError: keys or shapes differ, listed; or, if not `strict`, nothing fits. A warning tells what was taken then.
    """
    model = recipe.model.build() if checkpoint is None else empty_network(recipe)
    model.preprocessing = preprocessing.preprocessing_of(recipe)  # type: ignore[assignment]
    if checkpoint is None:
        return model.eval()
    try:
        fit = files.load_state(model, checkpoint.state, checkpoint.what, strict, _advice(checkpoint.trained, recipe))
    except CheckpointError as error:
        adapter = checkpoint.adapter
        about = adapter.about(checkpoint.state) if adapter else ""
        raise CheckpointError(f"{error}\n{about}".rstrip()) from error
    if not strict:
        warnings.warn(f"{checkpoint.what}: {fit}.", FrustumWarning, stacklevel=2)
    return model.eval()


def _advice(trained: Mapping[str, Any], recipe: Recipe) -> str:
    """What to type for weights that do not fit, as far as their header says what they were trained with."""
    changes = preprocessing.network_changes(trained, recipe)
    if changes:
        theirs, ours = (" ".join(settings_as_typed({p: pair[i] for p, pair in changes.items()})) for i in (0, 1))
        return f"These weights were trained with {theirs} (here {ours}): add {theirs}"
    if trained.get("name") not in (None, recipe.name):
        return f"These weights were trained by the recipe {trained['name']!r}: give that one."
    return files.GIVE_THE_RECIPE


def settings_as_typed(values: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line, quoted where a shell needs it."""
    return [shlex.quote(word) for word in preprocessing.as_words(values)]


def empty_network(recipe: Recipe) -> nn.Module:
    """The recipe's network about to be filled: its encoder starts from no package's weights."""
    config = recipe.model
    if "pretrained" in type(config).model_fields:
        config = config.model_copy(update={"pretrained": False})
    return config.build()


def _as_wide_as(checkpoint: Checkpoint, recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The recipe with the widths of an upstream file. Its published figures are dropped then: they are another network's."""
    adapter = checkpoint.adapter
    asked = settings.apply(recipe, overrides).model
    widths = adapter.settings_for(adapter.layout_of(checkpoint.state), asked) if _stem(recipe) in adapter.MODELS else []
    if not widths:
        return recipe
    shown = ", ".join(widths)
    guess = " The distances of the depth bins are not in the file; these are a guess." if "depth_bins" in shown else ""
    warnings.warn(
        f"{checkpoint.what} is no {recipe.name} as published: {shown} was taken from the file.{guess}", FrustumWarning, stacklevel=3
    )
    return settings.apply(recipe, widths).model_copy(update={"published": ()})
