"""What is in an upstream file: the recipe it belongs to, how it fits, and how it becomes a weights file of ours."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from frustum.checkpoint import weights_file as files
from frustum.checkpoint.fit import Fit, complete, describe_difference, renamed
from frustum.checkpoint.integrity import require_finite, sha256
from frustum.checkpoint.upstream_file import open_state
from frustum.engine.overrides import apply
from frustum.engine.recipe import Recipe
from frustum.engine.sections import changes_that_travel, header_of
from frustum.errors import CheckpointError, ConfigError, FrustumWarning
from frustum.recipes.finding import get_recipe, is_run
from frustum.weights.adapter import Adapter, Found
from frustum.weights.loading import empty_network
from frustum.weights.upstream import adapter_for, adapter_of, adapters, as_published, has_official_weights, in_our_names


class Conversion(NamedTuple):
    """What `convert` did.

    Attributes:
        recipe: the recipe that loads the file.
        source: the project as whose code does images are prepared; `frustum` for a network that was trained here.
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
    """Write a checkpoint as a weights file of ours, which holds its recipe and so loads without further words.

    In the recipe of a file of an upstream project images are prepared as that project does, in that of a state dict that was trained here
    as its recipe says. Numbers are written in the network's own types: half precision becomes float32, with a warning.

    Args:
        path: a .pth or .safetensors file.
        out: the file to write (.safetensors); it appears when it is whole.
        source: an upstream project; `official` for the project that the file belongs to; `frustum` for a state dict that was trained here.
            By default `frustum` for a recipe without official weights, else `official`.
        recipe: the recipe to convert for, or the folder of a run; by default the published one that the shapes in the file belong to.
        partial: keep only what fits the recipe's network; a file that lacks something of it loads with strict=False, or by --init.
        overrides: settings that the weights were trained with, where they are not the recipe's.

    Raises:
        ConfigError: unknown source, recipe or setting; a recipe without official weights, where these are said to be some.
        DataError: `out` cannot be written.
        CheckpointError: an unsafe or damaged file; no recipe for what is in it; keys or shapes that differ, listed; widths that contradict
            each other; numbers that are not finite; a setting that neither the file nor `overrides` say, such as PETR's box convention.
    """
    if Path(out).suffix != ".safetensors":
        raise ConfigError(f"the converted file is written as safetensors: give a name that ends in .safetensors, not {out}.")
    asked = apply(get_recipe(recipe), overrides) if recipe else None
    adapter = _adapter_of(asked, source)
    if is_run(path):
        raise CheckpointError(
            f"{path} is a run, whose weights need no conversion: frustum eval {path}; in Python frustum.load({str(path)!r})."
        )
    file = open_state(path)
    if "frustum" in file.metadata:
        raise CheckpointError(f"{path} is a weights file of this package already: it loads as it is, frustum eval {path}.")
    upstream = {"file": Path(path).name, "sha256": sha256(path), "layout": file.layout, **file.details}
    if asked is None:
        adapter = adapter_of(file.state, source or "official")
    if adapter is None:
        assert asked is not None
        settled, about = asked, _TRAINED_HERE
    else:
        found, _ = diagnose(file.state, adapter)
        about = found.about
        asked = asked or (get_recipe(found.recipe) if found.recipe else None)
        if asked is None or not found.is_consistent:
            raise CheckpointError(f"{path} was not converted: {about}")
        published = as_published(asked, adapter, file.state, overrides, str(path), file.details)
        settled = apply(published, overrides)
        if changes := changes_that_travel(published.model_dump(mode="json"), settled):
            warnings.warn(f"{path} is given other settings than its own, because you said so: {changes}.", FrustumWarning, stacklevel=2)
        upstream |= {"published_as": found.published} if found.published else {}
    name = recipe or settled.name
    needed, state = _aligned(settled, file.state)
    fit = Fit.of(needed, state)
    if not partial and (difference := describe_difference(needed, state)):
        raise CheckpointError(
            f"{path} does not fit the recipe {name!r}:\n{difference}\n{about}\n"
            "What fits is kept with --partial, for a training that starts from it."
        )
    if not fit.taken:
        raise CheckpointError(f"nothing in {path} fits the recipe {name!r}. {about}")
    kept = _as_needed({key: state[key] for key in fit.taken}, needed, str(path))
    origin = adapter.SOURCE if adapter else "frustum"
    files.save_weights(out, kept, {"source": origin, "upstream": upstream} | header_of(settled))
    return Conversion(name, origin, fit, upstream)


_TRAINED_HERE = (
    "For a network that was trained here, give the recipe and the settings of that training (--recipe NAME model.KEY=VALUE ...), or its "
    "run (--recipe FOLDER)."
)


def _adapter_of(recipe: Recipe | None, source: str | None) -> Adapter | None:
    """Whose file it is that is to be converted for a recipe; None for weights of ours, or if the file must be seen first."""
    if recipe is None:
        if source == "frustum":
            raise ConfigError("say what was trained here: --recipe NAME, or --recipe FOLDER of the run.")
        adapters(source or "official")  # raises for one that is not known
        return None
    source = source or ("official" if has_official_weights(recipe.model) else "frustum")
    return None if source == "frustum" else adapter_for(recipe, source)


def _as_needed(state: Mapping[str, Any], needed: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The entries in the types that the network has them in."""
    require_finite(state, what)
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


def kind_of(value: torch.Tensor) -> str:
    """The type of a tensor's numbers in a word: `float16`."""
    return str(value.dtype).removeprefix("torch.")


def diagnose(state: Mapping[str, Any], adapter: Adapter) -> tuple[Found, Fit | None]:
    """What upstream weights are, found by their shapes, and how they fit the network of the recipe that they belong to."""
    found = adapter.identify(state)
    if not found.recipe:
        hint = "" if found.channels else " A network of a recipe of ours or yours? Name it: --recipe NAME, or --recipe FOLDER of its run."
        return found._replace(about=found.about + hint), None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrustumWarning)
        fit = Fit.of(*_aligned(as_published(get_recipe(found.recipe), adapter, state), state))
    kinds = {"missing": fit.missing, "of another shape": fit.reshaped, "in the file only": fit.unexpected}
    lacks = [f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if keys[3:] else ''})" for what, keys in kinds.items() if keys]
    return found._replace(about=f"{found.about} It is not whole: {'; '.join(lacks)}.") if lacks and found.is_consistent else found, fit


def fit_of(state: Mapping[str, Any], recipe: str) -> Fit:
    """What of a state dict fits the network of a recipe as it stands."""
    return Fit.of(*_aligned(get_recipe(recipe), state))


def _aligned(recipe: Recipe, state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Names and shapes of the network's state, without its memory, and `state` in these names, with the counters of batch norms."""
    with torch.device("meta"):
        needed = empty_network(recipe).state_dict()
    return needed, complete(needed, renamed(in_our_names(state), recipe.model.renamed))
