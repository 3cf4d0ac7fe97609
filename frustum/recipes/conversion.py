"""What is in an upstream file: the recipe it belongs to, how it fits, and how it becomes a weights file of ours."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from frustum.engine import checkpoint as files
from frustum.engine import preprocessing
from frustum.engine.recipe import Recipe
from frustum.errors import CheckpointError, ConfigError, FrustumWarning
from frustum.nn.state import Fit, complete, describe_difference
from frustum.nn.state_files import open_state
from frustum.recipes.checkpoints import Checkpoint, adapter_named, empty_network, settle
from frustum.recipes.loading import get_recipe
from frustum.weights.catalogue import SOURCES


class Conversion(NamedTuple):
    """What `convert` did: the recipe that loads the file, what fitted, and what the upstream file was."""

    recipe: str
    fit: Fit
    upstream: dict[str, Any]


def convert(path: str | Path, out: str | Path, source: str = "flashocc", recipe: str | None = None, partial: bool = False) -> Conversion:
    """Write an upstream checkpoint as a weights file of ours, which carries its preprocessing and loads without further words.

    Numbers are written in the network's own types: half precision becomes float32, with a warning.

    Args:
        path: a .pth or .safetensors file of the upstream project.
        out: the file to write (.safetensors); it appears when it is whole.
        source: a name of SOURCES, or `official` for the project that the file belongs to.
        recipe: the recipe to convert for; by default the one that the shapes in the file belong to.
        partial: keep only what fits the recipe's network; a file that lacks something of it loads with strict=False, or by --init.

    Raises:
        ConfigError: unknown source or recipe. DataError: `out` cannot be written.
        CheckpointError: an unsafe or damaged file; no recipe for what is in it; keys or shapes that differ, listed; widths that contradict
            each other; numbers that are not finite.
    """
    if Path(out).suffix != ".safetensors":
        raise ConfigError(f"the converted file is written as safetensors: give a name that ends in .safetensors, not {out}.")
    adapter_named(SOURCES[0] if source == "official" else source)
    asked = get_recipe(recipe) if recipe else None
    file = open_state(path)
    adapter = _adapter_for(file.state, source)
    if "frustum" in file.metadata:
        raise CheckpointError(f"{path} is a weights file of this package already: it loads as it is, with --checkpoint {path}.")
    layout = adapter.layout_of(file.state)
    found = diagnose(file.state, adapter)
    if (asked is None and not found.recipe) or adapter.contradictions(file.state):
        raise CheckpointError(f"{path} was not converted: {found.about}")
    opened = Checkpoint(file.state, adapter.preprocessing_for(layout), adapter, str(path))
    name = recipe or found.recipe
    settled = settle(asked or get_recipe(name), checkpoint=opened)
    needed = _needed(settled)
    state = complete(needed, file.state)
    fit = Fit.of(needed, state)
    if not partial and (difference := describe_difference(needed, state)):
        raise CheckpointError(
            f"{path} does not fit the recipe {name!r}:\n{difference}\n{found.about}\n"
            "What fits is kept with --partial, for a training that starts from it."
        )
    if not fit.taken:
        raise CheckpointError(f"nothing in {path} fits the recipe {name!r}. {found.about}")
    kept = _as_needed({key: state[key] for key in fit.taken}, needed, str(path))
    upstream = {"file": Path(path).name, "sha256": sha256(path), "layout": file.layout, **file.details}
    if layout is not None and (published := adapter.published_name(layout)):
        upstream["published_as"] = published
    metadata = {"source": adapter.__name__.rpartition(".")[2], "upstream": upstream} | preprocessing.header_of(settled)
    files.save_weights(out, kept, metadata)
    return Conversion(name, fit, upstream)


def _adapter_for(state: Mapping[str, Any], source: str) -> Any:
    """The adapter of a project, or for `official` of the one that a file belongs to."""
    known = [adapter_named(name) for name in (SOURCES if source == "official" else (source,))]
    return next((adapter for adapter in known if adapter.layout_of(state) is not None), known[0])


def _as_needed(state: Mapping[str, Any], needed: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The entries in the types that the network has them in."""
    if broken := not_finite(state):
        names = ", ".join(f"{key} ({count})" for key, count in list(broken.items())[:4]) + (", ..." if len(broken) > 4 else "")
        raise CheckpointError(
            f"{what} holds numbers that are not finite (NaN or infinite): {names}. A network with them predicts nothing: the training that "
            "wrote the file had broken down, or the file is damaged. Take an earlier epoch of it, or get it again."
        )
    floats = {key: value for key, value in state.items() if value.is_floating_point() and needed[key].is_floating_point()}
    others = Counter(kind_of(value) for key, value in floats.items() if value.dtype != needed[key].dtype)
    if others:
        shown = ", ".join(f"{count} entries are {kind}" for kind, count in others.items())
        warnings.warn(
            f"{what}: {shown}; they are written as float32, the network's own type. What was rounded stays so.",
            FrustumWarning,
            stacklevel=3,
        )
    return {key: value.to(needed[key].dtype) for key, value in state.items()}


def not_finite(state: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Entries with numbers that are NaN or infinite, and how many."""
    counts = {key: int((~torch.isfinite(value)).sum()) for key, value in state.items() if value.is_floating_point()}
    return {key: count for key, count in counts.items() if count}


def kind_of(value: torch.Tensor) -> str:
    """The type of a tensor's numbers in a word: `float16`."""
    return str(value.dtype).removeprefix("torch.")


class Diagnosis(NamedTuple):
    """What a state dict most likely is: in words, the recipe that it belongs to or resembles ("" for none), and how it fits that one."""

    about: str
    recipe: str
    fit: Fit | None


def diagnose(state: Mapping[str, Any], adapter: Any) -> Diagnosis:
    """Find the recipe of upstream weights by their shapes, or else by their names, and compare the two."""
    layout, about = adapter.layout_of(state), adapter.about(state)
    name = adapter.recipe_for(layout) or (_most_alike(state, adapter) if layout is None else "")
    if not name:
        return Diagnosis(about, "", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrustumWarning)
        needed = _needed(settle(get_recipe(name), checkpoint=Checkpoint(state, adapter.preprocessing_for(layout), adapter, "the file")))
    fit = Fit.of(needed, complete(needed, state))
    if layout is None:
        about = f"a part of the network of the recipe {name!r}, without its depth net."
    if (findings := _findings(fit, len(needed))) and not adapter.contradictions(state):
        about = f"{about} It is not whole: {'; '.join(findings)}."
    return Diagnosis(about, name, fit)


def _most_alike(state: Mapping[str, Any], adapter: Any) -> str:
    """The recipe whose network has most of the names in a file, of those which share half of their own with it and more than an encoder."""
    shared: dict[str, float] = {}
    for name in adapter.BASES.values():
        fit = Fit.of(needed := _needed(get_recipe(name)), state)
        both = (*fit.taken, *fit.reshaped)
        if len({key.partition(".")[0] for key in both}) > 1:
            shared[name] = len(both) / len(needed)
    best = max(shared, key=lambda name: shared[name], default="")
    return best if best and shared[best] >= 0.5 else ""


def _findings(fit: Fit, total: int) -> list[str]:
    kinds = (
        (fit.missing, f"of {total} entries {{}} missing"),
        (fit.reshaped, "{} of another shape"),
        (fit.unexpected, "{} in the file only"),
    )
    return [f"{text.format(f'{len(keys)} {_is(keys)}')} ({_some(keys)})" for keys, text in kinds if keys]


def _is(keys: Sequence[str]) -> str:
    return "is" if len(keys) == 1 else "are"


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if keys[3:] else "")


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
