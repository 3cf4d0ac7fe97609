"""From a weights file to a network that is fed and run as the weights need it; and from an upstream file to one of ours."""

from __future__ import annotations

import hashlib
import importlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from frustum.engine import checkpoint as files
from frustum.engine import overrides as settings
from frustum.engine import preprocessing
from frustum.engine.recipe import Recipe
from frustum.errors import CheckpointError, ConfigError, FrustumWarning
from frustum.nn.state import Fit, complete, describe_difference
from frustum.nn.state_files import open_state
from frustum.recipes.loading import get_recipe

SOURCES: tuple[str, ...] = ("flashocc",)
"""Upstream projects whose files can be read: modules of weights/."""


class Checkpoint(NamedTuple):
    """An opened weights file.

    Attributes:
        state: names with tensors (or arrays, where a dict was given).
        preprocessing: recipe settings that the weights must be run with (engine/preprocessing.py).
        adapter: the module of weights/ for the upstream project; None for weights that were trained here.
        what: the file's name, for messages.
    """

    state: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    adapter: Any
    what: str


def open_checkpoint(checkpoint: str | Path | Mapping[str, Any], recipe: Recipe, source: str = "frustum") -> Checkpoint:
    """Read weights for `recipe`: a file or run folder of ours, an upstream file with the source `official`, or a dict.

    Raises:
        ConfigError: unknown source, or a recipe without official weights. CheckpointError: missing, damaged or unsafe file.
    """
    adapter = _adapter(recipe, source)
    if adapter is not None:
        what = "the official checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
        return Checkpoint(open_state(checkpoint).state, adapter.PREPROCESSING, adapter, what)
    if isinstance(checkpoint, Mapping):
        return Checkpoint(checkpoint, {}, None, "the given state dict")
    state, metadata = files.read_weights(checkpoint)
    upstream = metadata.get("source")
    stored = preprocessing.stored_in(metadata, str(checkpoint))
    return Checkpoint(state, stored, adapter_named(upstream) if upstream in SOURCES else None, str(checkpoint))


def adapter_named(source: str) -> Any:
    """The module of weights/ for an upstream project. Raises ConfigError for one that is not known."""
    if source not in SOURCES:
        raise ConfigError(f"unknown source {source!r}; files of these projects can be read: {', '.join(SOURCES)}.")
    return importlib.import_module(f"frustum.weights.{source}")


def _adapter(recipe: Recipe, source: str) -> Any:
    """For the source `official` the module of weights/ that reads upstream weights of a recipe's network, else None."""
    if source not in ("frustum", "official"):
        raise ConfigError(f"unknown source {source!r}; choose 'frustum' for weights that this package wrote or converted, or 'official'.")
    if source == "frustum":
        return None
    for adapter in map(adapter_named, SOURCES):
        if _stem(recipe) in adapter.MODELS:
            return adapter
    raise ConfigError(f"the recipe {recipe.name!r} has no official weights; use source='frustum'.")


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
        adapter = _adapter(recipe, source)
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
        fit = files.load_state(model, checkpoint.state, checkpoint.what, strict)
    except CheckpointError as error:
        adapter = checkpoint.adapter
        about = adapter.describe(adapter.layout_of(checkpoint.state)) if adapter else ""
        raise CheckpointError(f"{error}\n{about}".rstrip()) from error
    if not strict:
        warnings.warn(f"{checkpoint.what}: {fit}.", FrustumWarning, stacklevel=2)
    return model.eval()


def empty_network(recipe: Recipe) -> nn.Module:
    """The recipe's network about to be filled: its encoder starts from no package's weights."""
    config = recipe.model
    if "pretrained" in type(config).model_fields:
        config = config.model_copy(update={"pretrained": False})
    return config.build()


class Conversion(NamedTuple):
    """What `convert` did: the recipe that loads the file, what fitted, and what the upstream file was."""

    recipe: str
    fit: Fit
    upstream: dict[str, Any]


def convert(path: str | Path, out: str | Path, source: str = "flashocc", recipe: str | None = None, partial: bool = False) -> Conversion:
    """Write an upstream checkpoint as a weights file of ours, which carries its preprocessing and loads without further words.

    Args:
        path: a .pth or .safetensors file of the upstream project.
        out: the file to write (.safetensors); it appears when it is whole.
        recipe: the recipe to convert for; by default the one that the shapes in the file belong to.
        partial: keep only what fits the recipe's network; a file that lacks something of it loads with strict=False, or by --init.

    Raises:
        ConfigError: unknown source or recipe. DataError: `out` cannot be written.
        CheckpointError: an unsafe or damaged file; no recipe for what is in it; keys or shapes that differ, listed.
    """
    if Path(out).suffix != ".safetensors":
        raise ConfigError(f"the converted file is written as safetensors: give a name that ends in .safetensors, not {out}.")
    adapter = adapter_named(source)
    file = open_state(path)
    layout = adapter.layout_of(file.state)
    name = recipe or adapter.recipe_for(layout)
    if not name:
        raise CheckpointError(f"{path} was not converted: {adapter.describe(layout)}")
    opened = Checkpoint(file.state, adapter.PREPROCESSING, adapter, str(path))
    settled = settle(get_recipe(name), checkpoint=opened)
    needed = _needed(settled)
    state = complete(needed, file.state)
    fit = Fit.of(needed, state)
    if not partial and (difference := describe_difference(needed, state)):
        raise CheckpointError(f"{path} does not fit the recipe {name!r}:\n{difference}\n{adapter.describe(layout)}")
    if not fit.taken:
        raise CheckpointError(f"nothing in {path} fits the recipe {name!r}. {adapter.describe(layout)}")
    upstream = {"file": Path(path).name, "sha256": sha256(path), "layout": file.layout, **file.details}
    if layout is not None and (published := adapter.published_name(layout)):
        upstream["published_as"] = published
    metadata = {"source": source, "upstream": upstream} | preprocessing.header_of(settled)
    files.save_weights(out, {key: state[key] for key in fit.taken}, metadata)
    return Conversion(name, fit, upstream)


def fit_of(state: Mapping[str, Any], recipe: str) -> Fit:
    """What of a state dict fits the network of a recipe as it stands."""
    needed = _needed(get_recipe(recipe))
    return Fit.of(needed, complete(needed, state))


def _needed(recipe: Recipe) -> dict[str, Any]:
    """Names and shapes of a network's state, without its memory."""
    with torch.device("meta"):
        return empty_network(recipe).state_dict()


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            total.update(block)
    return total.hexdigest()


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
