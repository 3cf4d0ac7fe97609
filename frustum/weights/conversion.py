"""What is in an upstream file: the recipe it belongs to, how it fits, and how it becomes a weights file of ours."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from frustum.checkpoint import weights_file as files
from frustum.checkpoint.fit import Fit, complete, describe_difference
from frustum.checkpoint.upstream_file import open_state
from frustum.engine import overrides as settings
from frustum.engine import preprocessing
from frustum.engine.recipe import Recipe
from frustum.errors import CheckpointError, ConfigError, FrustumWarning
from frustum.recipes.finding import get_recipe, is_run, list_recipes
from frustum.weights.catalogue import SOURCES
from frustum.weights.checkpoints import Checkpoint, adapter_for, adapter_named, empty_network, has_official_weights, settle


class Conversion(NamedTuple):
    """What `convert` did.

    Attributes:
        recipe: the recipe that loads the file.
        source: the project whose preprocessing the file carries; `frustum` for the recipe's own.
        fit: what fitted.
        upstream: what the file was.
    """

    recipe: str
    source: str
    fit: Fit
    upstream: dict[str, Any]


def convert(
    path: str | Path,
    out: str | Path,
    source: str | None = None,
    recipe: str | None = None,
    partial: bool = False,
    overrides: Sequence[str] = (),
) -> Conversion:
    """Write a checkpoint as a weights file of ours, which carries its preprocessing and loads without further words.

    A file of an upstream project carries the preprocessing of that project, a state dict that was trained here that of its recipe.
    Numbers are written in the network's own types: half precision becomes float32, with a warning.

    Args:
        path: a .pth or .safetensors file.
        out: the file to write (.safetensors); it appears when it is whole.
        source: a name of SOURCES; `official` for the project that the file belongs to; `frustum` for a state dict that was trained here.
            By default `frustum` for a recipe without official weights, else `official`.
        recipe: the recipe to convert for, or the folder of a run; by default the published one that the shapes in the file belong to.
        partial: keep only what fits the recipe's network; a file that lacks something of it loads with strict=False, or by --init.
        overrides: settings that the weights were trained with, where they are not the recipe's.

    Raises:
        ConfigError: unknown source, recipe or setting; a recipe without official weights, where these are said to be some.
        DataError: `out` cannot be written.
        CheckpointError: an unsafe or damaged file; no recipe for what is in it; keys or shapes that differ, listed; widths that contradict
            each other; numbers that are not finite.
    """
    if Path(out).suffix != ".safetensors":
        raise ConfigError(f"the converted file is written as safetensors: give a name that ends in .safetensors, not {out}.")
    asked = settings.apply(get_recipe(recipe), overrides) if recipe else None
    source = _source_for(asked, source)
    if is_run(path):
        raise CheckpointError(
            f"{path} is a run, whose weights need no conversion: frustum eval {path}; in Python frustum.load({str(path)!r})."
        )
    file = open_state(path)
    if "frustum" in file.metadata:
        raise CheckpointError(f"{path} is a weights file of this package already: it loads as it is, with --checkpoint {path}.")
    upstream = {"file": Path(path).name, "sha256": sha256(path), "layout": file.layout, **file.details}
    opened, name, about = Checkpoint(file.state, {}, None, str(path)), recipe or "", _TRAINED_HERE
    if source != "frustum":
        adapter = _adapter_for(file.state, source)
        source, layout = adapter.__name__.rpartition(".")[2], adapter.layout_of(file.state)
        found = diagnose(file.state, adapter)
        name, about = recipe or found.recipe, found.about
        if not name or not has_official_weights(asked or get_recipe(name)) or adapter.contradictions(file.state):
            raise CheckpointError(f"{path} was not converted: {about}")
        opened = Checkpoint(file.state, adapter.preprocessing_for(layout), adapter, str(path))
        if layout is not None and (published := adapter.published_name(layout)):
            upstream["published_as"] = published
    settled = settle(asked or get_recipe(name), overrides if opened.adapter else (), checkpoint=opened)
    needed = _needed(settled)
    state = complete(needed, file.state)
    fit = Fit.of(needed, state)
    if not partial and (difference := describe_difference(needed, state)):
        raise CheckpointError(
            f"{path} does not fit the recipe {name!r}:\n{difference}\n{about}\n"
            "What fits is kept with --partial, for a training that starts from it."
        )
    if not fit.taken:
        raise CheckpointError(f"nothing in {path} fits the recipe {name!r}. {about}")
    kept = _as_needed({key: state[key] for key in fit.taken}, needed, str(path))
    files.save_weights(out, kept, {"source": source, "upstream": upstream} | preprocessing.header_of(settled))
    return Conversion(name, source, fit, upstream)


_TRAINED_HERE = (
    "For a network that was trained here, give the recipe and the settings of that training (--recipe NAME model.history=2 ...), or its "
    "run (--recipe FOLDER)."
)


def _source_for(recipe: Recipe | None, source: str | None) -> str:
    """Where weights come from that are to be converted for a recipe, None being one that is still to be found."""
    if recipe is None:
        if source == "frustum":
            raise ConfigError("say what was trained here: --recipe NAME, or --recipe FOLDER of the run.")
        if source not in (None, "official"):
            adapter_named(source)
        return source or "official"
    source = source or ("official" if has_official_weights(recipe) else "frustum")
    adapter_for(recipe, source)
    return source


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
    """Find the recipe of upstream weights by their shapes, or else by their names, and compare the two.

    Weights that are none of upstream may be those of a recipe without official weights: then they are compared with that one.
    """
    layout, about = adapter.layout_of(state), adapter.about(state)
    name = adapter.recipe_for(layout) or ("" if layout else next(iter(_most_alike(state, adapter.BASES.values())), ""))
    if not name:
        if layout is None and (found := _without_official_weights(state)):
            return found
        if about == adapter.describe(None):
            about += " The network of a recipe of yours? Name it: --recipe my_package.my_file:my_recipe."
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


def _without_official_weights(state: Mapping[str, Any]) -> Diagnosis | None:
    """For weights whose names are those of a recipe of ours without official weights: no file says which training wrote it."""
    ours = [info.name for info in list_recipes() if ":" not in info.module]
    names = _most_alike(state, [name for name in ours if not has_official_weights(get_recipe(name))])
    if not names:
        return None
    fit = fit_of(state, names[0])
    findings = _findings(fit, len(fit.taken) + len(fit.missing) + len(fit.reshaped))
    about = (
        f"the network of the recipe {' or '.join(map(repr, names))}, which has no official weights. Say which training wrote it: "
        f"--recipe {names[0]}, or --recipe FOLDER of its run."
    )
    return Diagnosis(f"{about} It is not quite that network: {'; '.join(findings)}." if findings else about, names[0], fit)


def _most_alike(state: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """The recipes whose networks share most of their names with a file: at least half of them, and more than an encoder."""
    likeness: dict[str, float] = {}
    for name in names:
        fit = Fit.of(needed := _needed(get_recipe(name)), state)
        both = (*fit.taken, *fit.reshaped)
        if 2 * len(both) >= len(needed) and len({key.partition(".")[0] for key in both}) > 1:
            likeness[name] = len(both) / (len(needed) + len(fit.unexpected))
    return [name for name, value in likeness.items() if value == max(likeness.values())]


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
