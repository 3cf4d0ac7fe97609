"""The projects whose files can be read, and how a recipe becomes the one that runs their weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from frustum.config import travelling
from frustum.engine.overrides import apply
from frustum.engine.recipe import Recipe
from frustum.engine.sections import as_words
from frustum.errors import ConfigError, FrustumWarning
from frustum.types.contract import ModelConfig
from frustum.weights import flashocc, heser, petr, pspnet, simplebev
from frustum.weights.adapter import Adapter, Origin

ADAPTERS: tuple[Adapter, ...] = (flashocc, petr, simplebev, pspnet, heser)


def in_our_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict of whatever project in the names and conventions of our modules; one of ours, or an unknown one, as it is."""
    for adapter in ADAPTERS:
        state = adapter.translated(state)
    return dict(state)


def has_official_weights(config: ModelConfig) -> bool:
    """True if an upstream project publishes weights for networks of this kind, of whatever widths."""
    return any(adapter.reads(config) for adapter in ADAPTERS)


def adapters(source: str) -> tuple[Adapter, ...]:
    """Those that `source` may mean: all for `official`, else the project's. Raises ConfigError for one that is not known."""
    found = tuple(adapter for adapter in ADAPTERS if source in ("official", adapter.SOURCE))
    if not found:
        raise ConfigError(
            f"unknown source {source!r}; choose 'frustum' for weights that this package wrote or converted, or 'official' (or its name: "
            f"{', '.join(adapter.SOURCE for adapter in ADAPTERS)}) for a file of the project that published the network."
        )
    return found


def adapter_of(state: Mapping[str, Any], source: str = "official") -> Adapter:
    """The adapter, among those of `source`, that knows this state dict; the first of them if none does. Raises ConfigError as above."""
    among = adapters(source)
    return next((adapter for adapter in among if adapter.identify(state).channels), among[0])


def adapter_for(recipe: Recipe, source: str) -> Adapter:
    """The adapter that reads a recipe's official weights. Raises ConfigError for an unknown source, or if the recipe has none."""
    for adapter in adapters(source):
        if adapter.reads(recipe.model):
            return adapter
    whose = "" if source == "official" else f" of {source}"
    raise ConfigError(f"the recipe {recipe.name!r} has no official weights{whose}; use source='frustum'.")


def as_published(
    recipe: Recipe,
    adapter: Adapter,
    state: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    what: str = "the file",
    around: Mapping[str, Any] | None = None,
) -> Recipe:
    """The recipe that runs official weights: fed as the published code does, and with the widths of the layers in `state`.

    `overrides` are what the user asks for in the end; a width that they give is not taken from the file. A warning names those that are,
    and the published figures are dropped then: they are another network's. `around` is what is around the weights in the file; None where
    they are only looked at. Raises CheckpointError, see `Adapter.needs`.
    """
    asked = apply(recipe, overrides).model
    if state is not None and (widths := adapter.widths(state, asked)):
        shown = ", ".join(widths)
        guess = " The distances of the depth bins are not in the file; these are a guess." if "depth_bins={" in shown else ""
        warnings.warn(f"{what} is not {recipe.name} as published: {shown} was taken from the file.{guess}", FrustumWarning, stacklevel=3)
        recipe = apply(recipe, widths).model_copy(update={"published": ()})
    said = {key.strip(): text for key, _, text in (word.partition("=") for word in overrides)}
    needs = adapter.needs(state, None if around is None or state is None else Origin(what, around, said))
    return apply(recipe, as_words({path: needs[name] for path in travelling(recipe) if (name := path.rpartition(".")[2]) in needs}))
