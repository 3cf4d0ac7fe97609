"""From the words of a command to a recipe, a run folder and a network."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from frustum.config import Config
from frustum.engine.overrides import apply
from frustum.engine.recipe import Recipe
from frustum.errors import ConfigError, DataError
from frustum.recipes.finding import get_recipe, is_run, is_weights

if TYPE_CHECKING:
    from torch import nn

    from frustum.data.source import Source


def resolve_recipe(name: str, overrides: Sequence[str] = (), code: Sequence[str] = ()) -> Recipe:
    """The recipe called `name`, or that of the run in the folder `name`, with the settings `key=value` applied.

    Another network has no published figures, nor has a network with other losses. `code` names modules whose classes a run may import
    (engine/sections.py).

    Raises:
        ConfigError: no such recipe or run, a setting that does not fit, or a class that may not be imported.
    """
    recipe = get_recipe(name, code)
    asked = apply(recipe, overrides)
    return asked if _same_network(recipe.model, asked.model) else asked.model_copy(update={"published": ()})


def _same_network(one: Config, other: Config) -> bool:
    """Whether two configs of models differ at most in where the weights start and in which backend computes."""
    plain = (config.model_dump(exclude={"pretrained", "pool"}) for config in (one, other))
    return type(one) is type(other) and next(plain) == next(plain)


def run_folder(name: str, out: Path | None) -> Path:
    """Where a run goes: `out`, the run's own folder, or runs/RECIPE."""
    return out or (Path(name) if is_run(name) else Path("runs") / name.rpartition(":")[2].replace("_", "-"))


def open_data(recipe: Recipe, name: str) -> Source:
    """The recipe's data set; `name` is the run, the weights file or the recipe that it comes from.

    Raises:
        DataError: it cannot be opened; of a weights file, which does not say where its data were kept, with what to type.
    """
    root = recipe.data.root
    is_bare = not is_run(name) and (is_weights(name) or Path(name).is_dir())
    if is_bare and len(Path(root).parts) == 1 and not Path(root).exists():
        raise DataError(
            f"{name} says only that the folder of its data set was called {root!r}, not where it was, and there is none here. Say where it "
            "is: data.root=FOLDER."
        )
    return recipe.data.open()


def open_network(
    name: str, overrides: Sequence[str] = (), checkpoint: Path | None = None, source: str = "frustum", code: Sequence[str] = ()
) -> tuple[Recipe, nn.Module]:
    """The recipe and the trained network of a weights file, of a run (its own weights unless `checkpoint` names others), or of a recipe
    with a checkpoint.

    The recipe is that of the weights (with the source `official` what they need by the published code); `overrides` win.

    Raises:
        ConfigError: a recipe without a checkpoint, settings that do not fit, or a class that may not be imported.
        CheckpointError: weights that do not fit.
    """
    from frustum.weights.loading import open_network as run

    if checkpoint is None and not (is_run(name) or is_weights(name)):
        get_recipe(name, code)  # raises for a misspelt name
        raise ConfigError(
            f"{name} is a recipe, whose network is untrained: give the folder of a run that `frustum train {name}` wrote, a weights file, "
            "or both the recipe and --checkpoint FILE."
        )
    return run(name, overrides, checkpoint, source, code)


def describe(config: Config, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """(dotted path, value, description) of every setting.

    The description is the field's own, else the first sentence that a class of the config says about it under `Attributes`; choices follow.
    """
    documented = _documented(type(config))
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from describe(value, f"{prefix}{name}.")
        else:
            plain = config.model_dump(mode="json", include={name})[name]
            about = field.description or documented.get(name, "")
            choices = ", ".join(map(str, _choices(field.annotation)))
            yield prefix + name, plain, " ".join(filter(None, [about, f"({choices})" if choices else ""]))


def _documented(kind: type) -> dict[str, str]:
    """First sentence about each attribute in the docstrings of a class and its bases, without its full stop."""
    found: dict[str, str] = {}
    for base in kind.__mro__:
        _, _, entries = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("Attributes:\n")
        for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {5,}.*)*)", entries, re.MULTILINE):
            sentence = re.split(r"\.(?:\s|$)", " ".join(text.split()))[0]
            found = {name.strip(): sentence for name in names.split(",")} | found  # what a subclass says wins
    return found


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The words that a Literal allows, wherever it stands in an annotation."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for part in get_args(annotation) for choice in _choices(part))
