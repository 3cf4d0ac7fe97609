"""A recipe as JSON with the class path of each section that may have several classes, and back.

Run folders and weights files hold this, so that they need no recipe's name. A class path in a file is a request to import code, and a file
may come from anybody: a module is imported only if it is frustum's own or an installed plug-in's, if the program imported it already, or if
the user named it (`--code MODULE`, `code=` of `frustum.load`).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, get_args

from pydantic import SerializeAsAny

from frustum.config import Config, travelling
from frustum.engine.recipe import Recipe
from frustum.errors import CheckpointError, ConfigError
from frustum.files import without_places
from frustum.version import ENTRY_POINTS, __version__

RESIZE = "scale to the network's width, drop rows at the top (and the share augment.crop_h at the bottom)"
"""How this version fits an image into the network's (data/pixels.py). Stored with weights, so that another rule is noticed.

`augment.eval_resize` is added to that scale; a version that does not know this setting does not read the recipe of such weights.
"""


def class_paths(recipe: Recipe) -> dict[str, str]:
    """The class of each section that may have several: `{"model": "package.module:Class"}`."""
    kinds = {name: type(getattr(recipe, name)) for name, field in Recipe.model_fields.items() if _is_open(field)}
    return {name: f"{kind.__module__}:{kind.__qualname__}" for name, kind in kinds.items() if issubclass(kind, Config)}


def stored(recipe: Recipe) -> dict[str, Any]:
    """What a run folder keeps of a recipe: `recipe`, its JSON, and `classes`, the class paths of its sections."""
    return {"recipe": recipe.model_dump(mode="json"), "classes": class_paths(recipe)}


def header_of(recipe: Recipe) -> dict[str, Any]:
    """What every weights file of ours holds in its header: `stored`, without the user's absolute paths, and how images are resized."""
    return without_places(stored(recipe)) | {"resize": RESIZE}


def restored(content: Mapping[str, Any], what: str, code: Collection[str] = ()) -> Recipe:
    """The recipe of a run folder or of the header of a weights file; each class brings old settings up to date (`Config.upgraded`).

    Args:
        content: what `stored` gave; or a recipe.json of an earlier version, which has `model_config` in place of `classes`.
        what: the file, for messages.
        code: modules whose classes may be imported, in addition to those of frustum and of installed plug-ins.

    Raises:
        ConfigError: a class that may not be imported (nothing was), cannot be, or is of another kind; no recipe for this version.
    """
    try:
        fields = Recipe.upgraded(dict(content["recipe"]))
        classes = dict(content["classes"] if "classes" in content else {"model": content["model_config"]})
        for name, field in Recipe.model_fields.items():
            base = _config_in(field.annotation)
            if base is None or not isinstance(fields.get(name), Mapping):
                continue
            path = classes.get(name, base.first_class or None) if _is_open(field) else None
            kind = base if path is None else imported(path, base, what, code)
            fields[name] = kind.model_validate(kind.upgraded(dict(fields[name])))
        return Recipe.model_validate(fields)
    except (KeyError, TypeError, ValueError) as error:  # pydantic's findings are a ValueError
        raise ConfigError(
            f"{what} does not hold a recipe that frustum {__version__} can use: {error}. "
            "Use the version that wrote it (named in the file), or train anew."
        ) from error


def imported(path: str, base: type[Config], what: str, code: Collection[str] = ()) -> type[Config]:
    """The class `module:Name` that the file `what` names, a subclass of `base`.

    Raises:
        ConfigError: its module may not be imported, cannot be, or has no such class.
    """
    module, _, name = str(path).partition(":")
    is_named = any(_is_within(module, named.partition(":")[0]) for named in code)
    if not (is_named or module in sys.modules or any(_is_within(module, known) for known in _installed())):
        top = module.partition(".")[0]
        raise ConfigError(
            f"{what} names the class {path}, which belongs neither to frustum nor to an installed plug-in of it. Nothing was imported: "
            f"a file may come from anybody. If you trust that code, give the same command with --code {top} "
            f"(frustum eval {what} --code {top}), or in Python frustum.load({what!r}, code={top!r})."
        )
    try:
        with working_folder() if is_named else contextlib.nullcontext():
            found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = vars(found)[part]  # a module's own entries: its __getattr__ is not called
    except (ImportError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the class {path}, named by {what}, cannot be imported: {error}. Install or put on PYTHONPATH what the run used."
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"{path}, named by {what}, is not a {base.__name__}.")
    return found


def modules_to_name(recipe: Recipe) -> list[str]:
    """Modules that later commands on a run of this recipe must be given with --code."""
    return sorted({type(section).__module__.partition(".")[0] for section in (recipe.model, recipe.data)} - _installed())


def _installed() -> set[str]:
    return {"frustum", *(point.module.partition(".")[0] for point in entry_points(group=ENTRY_POINTS))}


@contextlib.contextmanager
def working_folder() -> Iterator[None]:
    """Within the context modules of the working folder can be imported, which console scripts otherwise cannot."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def changes_that_travel(trained: Mapping[str, Any], recipe: Recipe) -> str:
    """Where a recipe differs from the one (JSON) of weights in what travels with them; empty where it does not.

    `data.channel_order="rgb" (they were trained with "bgr"); ...`
    """
    pairs = {path: (_at(trained, path), value) for path, value in travelling(recipe).items()}
    changed = {path: (old, new) for path, (old, new) in pairs.items() if old is not _ABSENT and old != new}
    return "; ".join(f"{path}={json.dumps(new)} (they were trained with {json.dumps(old)})" for path, (old, new) in changed.items())


def as_words(values: Mapping[str, Any]) -> list[str]:
    """Settings as a user writes them: `["model.bev_channels=64", "data.channel_order=rgb"]`."""
    return [f"{path}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}" for path, value in values.items()]


def check_resize(header: Mapping[str, Any], what: str) -> None:
    """Raise CheckpointError if weights were trained on images that were resized by a rule that this version does not know."""
    old = header.get("preprocessing")  # of a file of version 0.1.0, whose header does not hold classes
    rule = header.get("resize", old.get("resize", RESIZE) if isinstance(old, Mapping) else RESIZE)
    if rule != RESIZE:
        raise CheckpointError(f"the weights {what} need the resize rule {rule!r}, which this version does not know. Use a newer frustum.")


_ABSENT = object()  # a setting of another version, or of a section that is switched off


def _at(plain: Any, path: str) -> Any:
    for name in path.split("."):
        plain = plain.get(name, _ABSENT) if isinstance(plain, Mapping) else _ABSENT
    return plain


def _is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _is_open(field: Any) -> bool:
    """Whether the class of a section varies: the field is typed `SerializeAsAny[Base]`, which may be None, too."""

    def marked(entry: Any) -> bool:
        is_mark = isinstance(entry, SerializeAsAny)  # type: ignore[misc]
        return is_mark or any(map(marked, (*get_args(entry), *getattr(entry, "__metadata__", ()))))

    return any(map(marked, (*field.metadata, field.annotation)))


def _config_in(annotation: Any) -> type[Config] | None:
    """The section's class in `Section`, `Section | None` or `Annotated[Section, ...]`; None for a plain setting."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation
    return next((kind for kind in map(_config_in, get_args(annotation)) if kind is not None), None)
