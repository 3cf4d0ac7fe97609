"""Finds recipes by name. Listing imports no torch and runs no recipe file."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Collection
from importlib.metadata import entry_points
from inspect import isfunction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from frustum.checkpoint.unreadable import SUFFIXES
from frustum.errors import ConfigError, nearest_names
from frustum.version import ENTRY_POINTS

if TYPE_CHECKING:
    from frustum.engine.recipe import Recipe
DEMO, CHECKED = "flashocc-tiny", "flashocc-r50-m0"
"""The recipe that `frustum demo` trains, and the one whose augmentation `frustum check` draws by default."""


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
            if not isinstance(node, ast.FunctionDef) or node.returns is None or node.args.args:
                continue
            if ast.unparse(node.returns) == "Recipe" and not node.name.startswith("_"):
                name = node.name.replace("_", "-")
                found[name] = RecipeInfo(name, (ast.get_docstring(node) or "").split("\n")[0], module)
    for point in entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, RecipeInfo(point.name, f"from {point.value}", point.value))
    return [found[name] for name in sorted(found)]


def is_run(name: str | Path) -> bool:
    """True if `name` is the folder of a run."""
    return (Path(name) / "recipe.json").is_file()


def is_weights(name: str | Path) -> bool:
    """True if `name` is that of a file of weights, there or not."""
    return Path(name).suffix in SUFFIXES


def get_recipe(name: str | Path, code: Collection[str] = ()) -> Recipe:
    """The recipe called `name` (`flashocc-r50`), of the run in the folder `name`, or of a function (`my_pkg.my_file:my_recipe`).

    `code` names modules whose classes a run may import, in addition to those of frustum and of installed plug-ins (engine/sections.py).

    Raises:
        ConfigError: no such recipe (with the nearest names) or run, the import fails or is not allowed, or the function returns something
            else.
        DataError: the run's recipe.json cannot be read.
    """
    if is_run(name):
        from frustum.engine.run import load_run

        return load_run(name, code).recipe
    name = str(name)
    if ":" in name:
        return _imported(name)
    known = {info.name: info for info in list_recipes()}
    info = known.get(name.replace("_", "-"), known.get(name))
    if info is None and (Path(name).is_dir() or "/" in name):
        raise ConfigError(
            f"{name} is not a run: there is no {Path(name) / 'recipe.json'}. Give the folder that `frustum train` wrote, or a recipe."
        )
    if info is None and is_weights(name):
        raise ConfigError(
            f"{name} is a file of weights, where a recipe is needed. It goes by itself with frustum eval {name}; a training starts from it "
            f"with frustum train RECIPE --init {name}."
        )
    if info is None:
        raise ConfigError(
            f"there is no recipe {name!r}; {nearest_names(name, known)} `frustum list` shows all; "
            "your own go by import path, as in my_package.my_file:my_recipe."
        )
    return _imported(info.module if ":" in info.module else f"{info.module}:{info.name.replace('-', '_')}")


def _imported(path: str) -> Recipe:
    from pydantic import ValidationError

    from frustum.engine.recipe import Recipe
    from frustum.engine.sections import working_folder

    module_name, _, function_name = path.partition(":")
    try:
        with working_folder():
            module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"cannot import {module_name!r} for the recipe {path!r}: {error}. Check the path and the working folder."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [n for n, v in vars(module).items() if isfunction(v) and v.__module__ == module.__name__]
        raise ConfigError(f"{module_name} has no function {function_name!r}; {nearest_names(function_name, functions)}")
    try:
        recipe = function()
    except ValidationError as error:
        raise ConfigError(f"{path} did not return a valid recipe: {error}") from error
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"{path} returned a {type(recipe).__name__}, but a recipe function must return frustum.engine.recipe.Recipe.")
    return recipe
