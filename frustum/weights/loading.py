"""From a recipe, a run or a file of weights to a network: `frustum.load`, and what every verb does."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from frustum.checkpoint.fit import as_tensors, renamed
from frustum.checkpoint.integrity import require_finite
from frustum.checkpoint.upstream_file import open_state
from frustum.checkpoint.weights_file import GIVE_THE_RECIPE, load_state, read_weights
from frustum.config import Config, differences, in_words, taught, travelling
from frustum.engine.overrides import apply
from frustum.engine.recipe import Recipe
from frustum.engine.sections import as_words, changes_that_travel, check_resize, class_paths, restored
from frustum.engine.taught import rig_of_header, taught_of
from frustum.engine.trained import empty_network, of_student
from frustum.errors import CheckpointError, ConfigError, FrustumWarning
from frustum.recipes.finding import get_recipe, is_run, is_weights, list_recipes
from frustum.weights.catalogue import SOURCES
from frustum.weights.upstream import ADAPTERS, adapter_for, adapter_of, adapters, as_published, in_our_names


def load(
    recipe: str | Path | Recipe,
    checkpoint: str | Path | Mapping[str, Any] | None = None,
    source: str = "frustum",
    strict: bool = True,
    code: str | Sequence[str] = (),
    **overrides: Any,
) -> nn.Module:
    """A network in eval mode that keeps the contract of docs/add_a_method.md: forward, loss, predict.

        model = frustum.load("mine.safetensors")                                                     # a weights file of ours
        model = frustum.load("runs/mine")                                                            # a run, with its weights
        model = frustum.load("flashocc-r50-m0", "flashocc-r50-M0-256x704.pth", source="official")
        outputs = model(frustum.Batch.from_arrays(images, intrinsics, cam2ego))

    Its attribute `recipe` is the complete recipe; it says how images must be prepared: `model.recipe.data.channel_order` and so on.
    `taught_with` says from which labels and which start the weights of a training of ours come; it is empty for others.

    Args:
        recipe: a weights file of ours, which holds its recipe; the folder of a run; a recipe's name, an import path `pkg.mod:function`, or
            a Recipe.
        checkpoint: a file or run folder of ours, whose recipe then counts; a file of the upstream project; a state dict (tensors or numpy
            arrays); or None for the weights of the file or the run, or the recipe's initial ones.
        source: `official` reads the layouts of the upstream project (mmcv, EMA, `module.` prefixes), takes the widths of the layers from
            the file and switches the network to the published behaviour where ours is another by default (FlashOCC: voxel indices
            rounded towards zero). The project's name (`flashocc`) means the same. Files that `frustum weights convert` wrote need no
            source: they carry all that.
        strict: refuse weights that do not fit exactly; off, what fits is taken, and a warning lists what was and what was not.
        code: modules of yours whose classes the file or the run names; others than frustum's and those of installed plug-ins are not
            imported.
        overrides: settings of the model (`bev_channels=64`); other settings by their path: `**{"data.image_size": (96, 256)}`. They win
            over what the weights carry, with a warning where these were trained with another value of a setting that travels.

    Raises:
        ConfigError: unknown recipe, setting or source, a recipe without official weights, or a class that may not be imported.
        CheckpointError: missing, damaged or unsafe file, or one of another model; keys or shapes that differ, listed.
    """
    paths = (key if "." in key or key in Recipe.model_fields else f"model.{key}" for key in overrides)
    values = (value.model_dump(mode="json") if isinstance(value, Config) else value for value in overrides.values())
    words = as_words(dict(zip(paths, values, strict=True)))
    return open_network(recipe, words, checkpoint, source, code, strict)[1]


def open_network(
    name: str | Path | Recipe,
    overrides: Sequence[str] = (),
    checkpoint: str | Path | Mapping[str, Any] | None = None,
    source: str = "frustum",
    code: str | Sequence[str] = (),
    strict: bool = True,
) -> tuple[Recipe, nn.Module]:
    """The settled recipe, and its network in eval mode; `overrides` are settings `key=value`, the rest is as in `load`."""
    modules = (code,) if isinstance(code, str) else tuple(code)
    asked = name if isinstance(name, Recipe) else None if is_weights(name) else get_recipe(name, modules)
    has_own = not isinstance(name, Recipe) and (asked is None or is_run(name))
    if asked is None and checkpoint is not None:
        raise ConfigError(f"{name} and {checkpoint} are both weights: give one of them, or a recipe or a run together with a file.")
    if source != "frustum":
        adapters(source) if asked is None else adapter_for(asked, source)  # raise before a large file is read
    given = name if has_own and checkpoint is None else checkpoint
    weights = None if given is None or isinstance(given, Recipe) else _read(given, is_ours=source == "frustum")
    if source != "frustum":
        recipe = _published(asked, weights, source, overrides)
    elif asked is not None and (weights is None or checkpoint is None):  # of a run with its own weights recipe.json counts
        recipe = asked
        check_resize(weights.header if weights else {}, str(name))
    else:
        assert weights is not None
        recipe = _trained(weights, asked, modules)
    settled = apply(recipe, overrides)
    if changes := changes_that_travel(recipe.model_dump(mode="json"), settled):
        warnings.warn(
            f"the weights are run with other settings than their own, because you said so: {changes}.", FrustumWarning, stacklevel=3
        )
    if weights is not None and (changed := differences(taught(recipe), taught(settled))):
        raise ConfigError(
            f"what these weights learned from can no longer be changed: {in_words(changed)}. Leave it out, or train a network with it."
        )
    network = settled.model.build() if weights is None else empty_network(settled)
    network.recipe = settled  # type: ignore[assignment]
    network.taught_with = taught_of(weights.header if weights else {})  # type: ignore[assignment]
    network.trained_rig = rig_of_header(weights.header if weights else {})  # type: ignore[assignment]
    if weights is not None:
        _fill(network, weights, recipe, source, strict)
    return settled, network.eval()


class Weights(NamedTuple):
    """An opened file: names with tensors (or arrays, where a dict was given), its header, its name for messages, and what is around the
    weights in a file of another project."""

    state: Mapping[str, Any]
    header: Mapping[str, Any]
    what: str
    around: Mapping[str, Any] = {}


def recipe_of(header: Mapping[str, Any], what: str, asked: Recipe | None = None, code: Sequence[str] = ()) -> Recipe:
    """The recipe in the header of the weights file `what`; `asked` is the one that the user named.

    Raises:
        CheckpointError: there is none, or the header does not name its classes and no recipe of its name is known.
        ConfigError: a class that may not be imported, or a recipe that this version cannot use.
    """
    content = header.get("recipe")
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{what} does not hold the recipe that its weights were trained with. Name it: frustum eval RECIPE --checkpoint {what}; "
            f"in Python frustum.load(RECIPE, {what!r})."
            if content is None
            else f"the header of {what} is damaged: its recipe is not a JSON object. Copy or convert the file again."
        )
    if "classes" in header:
        return restored(header, what, code)
    name = content.get("name")  # files were written without their classes at first
    known = get_recipe(str(name)) if any(info.name == name for info in list_recipes()) else asked
    if known is None:
        raise CheckpointError(
            f"{what} was trained by the recipe {name!r}, which is not known here, and does not name its classes. Name the recipe: "
            f"frustum eval my_package.my_file:my_recipe --checkpoint {what}; in Python frustum.load(RECIPE, {what!r})."
        )
    return restored({**header, "classes": class_paths(known)}, what, code)


def _read(checkpoint: str | Path | Mapping[str, Any], is_ours: bool) -> Weights:
    what = "the given state dict" if isinstance(checkpoint, Mapping) else str(checkpoint)
    if not is_ours:
        opened = open_state(checkpoint)
        return Weights(in_our_names(opened.state), {}, what, opened.details)
    if isinstance(checkpoint, Mapping):
        return Weights(checkpoint, {}, what)
    state, header = read_weights(checkpoint)
    return Weights(of_student(state, header), header, what)


def _published(asked: Recipe | None, weights: Weights | None, source: str, overrides: Sequence[str]) -> Recipe:
    """The recipe for official weights; where none is named, the one that the file belongs to."""
    if asked is None:
        assert weights is not None
        found = adapter_of(weights.state, source).identify(weights.state)
        if not found.recipe:
            raise CheckpointError(f"{weights.what}: {found.about}")
        asked = get_recipe(found.recipe)
    adapter = adapter_for(asked, source)
    if weights is None:
        return as_published(asked, adapter, None, overrides)
    return as_published(asked, adapter, weights.state, overrides, weights.what, weights.around)


def _trained(weights: Weights, asked: Recipe | None, code: Sequence[str]) -> Recipe:
    """The recipe of a file of ours, which counts; that of the user where the file does not hold one."""
    header, what = weights.header, weights.what
    check_resize(header, what)
    if asked is not None and "recipe" not in header:
        needs = header.get("preprocessing", {})  # what files held before they held recipes
        return apply(asked, as_words({path: needs[path] for path in travelling(asked) if path in needs}))
    found = recipe_of(header, what, asked, code)
    for adapter in ADAPTERS:
        if header.get("source") == adapter.SOURCE and not adapter.reads(found.model):
            raise CheckpointError(
                f"{what} says that it holds weights of {adapter.SOURCE}, which has none of this network: an early frustum wrote the wrong "
                f"preprocessing into it. Convert the original again: frustum weights convert FILE --recipe {found.name} -o {what}"
            )
    if asked is not None and type(asked.model) is not type(found.model):
        theirs, ours = type(found.model).__name__, type(asked.model).__name__
        raise CheckpointError(
            f"{what} holds a network of {theirs}, trained by the recipe {found.name!r}; the recipe {asked.name!r} builds one of {ours}. "
            f"The file needs no recipe: frustum eval {what}; in Python frustum.load({what!r})."
        )
    if asked is not None and asked.name != found.name:
        warnings.warn(
            f"{what} was trained by the recipe {found.name!r}: its settings are taken, and not those of {asked.name!r}.",
            FrustumWarning,
            stacklevel=4,
        )
    return found


def _fill(network: nn.Module, weights: Weights, trained: Recipe, source: str, strict: bool) -> None:
    """Load the weights; an error says what is to be done: what the user changed of their recipe, or what an upstream file is."""
    settled: Recipe = network.recipe  # type: ignore[assignment]
    state, needed = as_tensors(renamed(weights.state, settled.model.renamed), weights.what), network.state_dict().keys()
    require_finite({key: value for key, value in state.items() if key in needed}, weights.what)
    try:
        fit = load_state(network, state, weights.what, strict, advice="")
    except CheckpointError as error:
        changes = differences(trained.model.model_dump(mode="json"), settled.model.model_dump(mode="json"), "model")
        lines = [f"They were trained with other settings: {in_words(changes)}. Leave those out."] if changes and weights.header else []
        source = str(weights.header.get("source")) if source == "frustum" else source
        lines += [adapter_of(weights.state, source).identify(weights.state).about] if source in (*SOURCES, "official") else []
        raise CheckpointError("\n".join([str(error).rstrip(), *(lines or [GIVE_THE_RECIPE])])) from error
    if not strict:
        warnings.warn(f"{weights.what}: {fit}.", FrustumWarning, stacklevel=4)
