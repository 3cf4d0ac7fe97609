"""Finds recipes by name and builds networks from them. Listing imports no torch and runs no recipe file."""

from __future__ import annotations

import ast
import importlib
import json
import os
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import ValidationError

from frustum.config import Config
from frustum.engine.recipe import Recipe
from frustum.errors import ConfigError, nearest_names

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINTS = "frustum.recipes"


class RecipeInfo(NamedTuple):
    """A recipe that `get_recipe` can return."""

    name: str
    help: str  # first line of its docstring
    module: str  # import path of the file; code outside the package: "pkg.mod:function"


def list_recipes() -> list[RecipeInfo]:
    """All recipes of this package and of the entry-point group `frustum.recipes`, by name. Files are read, not imported."""
    found: dict[str, RecipeInfo] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        module = f"{__package__}.{path.stem}"
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and _returns_recipe(node) and not node.args.args:
                name = node.name.replace("_", "-")
                found[name] = RecipeInfo(name, (ast.get_docstring(node) or "").split("\n")[0], module)
    for point in entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, RecipeInfo(point.name, f"from {point.value}", point.value))
    return [found[name] for name in sorted(found)]


def is_run(name: str | Path) -> bool:
    """True if `name` is the folder of a run."""
    return (Path(name) / "recipe.json").is_file()


def get_recipe(name: str | Path) -> Recipe:
    """The recipe called `name` (`flashocc-r50`), of the run in the folder `name`, or of a function (`my_pkg.my_file:my_recipe`).

    Raises:
        ConfigError: no such recipe (with the nearest names) or run, the import fails, or the function returns something else.
        DataError: the run's recipe.json cannot be read.
    """
    if is_run(name):
        from frustum.engine.run import load_run

        return load_run(name).recipe
    name = str(name)
    if ":" in name:
        return _imported(name)
    known = {info.name: info for info in list_recipes()}
    info = known.get(name.replace("_", "-"), known.get(name))
    if info is None and (Path(name).is_dir() or "/" in name):
        raise ConfigError(
            f"{name} is no run: there is no {Path(name) / 'recipe.json'}. Give the folder that `frustum train` wrote, or a recipe."
        )
    if info is None:
        raise ConfigError(
            f"there is no recipe {name!r}; {nearest_names(name, known)} `frustum list` shows all; "
            "your own go by import path, as in my_package.my_file:my_recipe."
        )
    return _imported(info.module if ":" in info.module else f"{info.module}:{info.name.replace('-', '_')}")


def load(
    recipe: str | Path | Recipe,
    checkpoint: str | Path | Mapping[str, Any] | None = None,
    source: Literal["frustum", "official", "flashocc"] = "frustum",
    strict: bool = True,
    **overrides: Any,
) -> nn.Module:
    """A network in eval mode that keeps the contract of docs/add_a_method.md: forward, loss, predict.

        model = frustum.load("runs/mine")                                                            # a run, with its weights
        model = frustum.load("flashocc-r50-m0", "flashocc-r50-M0-256x704.pth", source="official")
        outputs = model(frustum.Batch.from_arrays(images, intrinsics, cam2ego))

    Its attribute `preprocessing` says how images must be prepared: `model.preprocessing["data.channel_order"]` and so on.

    Args:
        recipe: a recipe's name, an import path `pkg.mod:function`, a Recipe, or the folder of a run, which is the recipe as it was run.
        checkpoint: a file or run folder of ours, a file of the upstream project, a state dict (tensors or numpy arrays), or None for the
            run's own weights, or the recipe's initial ones.
        source: `official` reads the layouts of the upstream project (mmcv, EMA, `module.` prefixes), takes the widths of the layers from
            the file and switches the network to the published behaviour where ours is another by default (FlashOCC: voxel indices
            rounded towards zero). The project's name (`flashocc`) means the same. Files that `frustum weights convert` wrote need no
            source: they carry all that.
        strict: refuse weights that do not fit exactly; off, what fits is taken, and a warning lists what was and what was not.
        overrides: settings of the model (`bev_channels=64`); other settings by their path: `**{"data.image_size": (96, 256)}`. They win
            over what the weights carry, with a warning.

    Raises:
        ConfigError: unknown recipe, setting or source, or a recipe without official weights.
        CheckpointError: missing, damaged or unsafe file; keys or shapes that differ, listed.
    """
    from frustum.recipes.checkpoints import build_network, open_checkpoint, settle

    if not isinstance(recipe, Recipe):
        if checkpoint is None and is_run(recipe):
            checkpoint = recipe
        recipe = get_recipe(recipe)
    texts = [f"{_path(key)}={_text(value)}" for key, value in overrides.items()]
    opened = None if checkpoint is None else open_checkpoint(checkpoint, recipe, source)
    return build_network(settle(recipe, texts, source, opened), opened, strict)


def _path(key: str) -> str:
    return key if "." in key or key in Recipe.model_fields else f"model.{key}"


def _text(value: Any) -> str:
    if isinstance(value, Config):
        return value.model_dump_json()
    return value if isinstance(value, str) else json.dumps(value)


def _imported(path: str) -> Recipe:
    module_name, _, function_name = path.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)  # a console script does not look into the working folder, where a user's own files are
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"cannot import {module_name!r} for the recipe {path!r}: {error}. Check the path and the working folder."
        ) from error
    finally:
        sys.path.remove(here)
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ConfigError(f"{module_name} has no function {function_name!r}; {nearest_names(function_name, functions)}")
    try:
        recipe = function()
    except ValidationError as error:
        raise ConfigError(f"{path} returned no valid recipe: {error}") from error
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"{path} returned a {type(recipe).__name__}, but a recipe function must return frustum.engine.recipe.Recipe.")
    return recipe


def _returns_recipe(node: ast.FunctionDef) -> bool:
    return isinstance(node.returns, ast.Name) and node.returns.id == "Recipe"
