"""What a network must be fed with and run with, beside its weights: it travels in the header of every weights file.

A weights file holds `preprocessing`, a JSON object of recipe settings by their dotted path. Whoever loads the file gets these settings,
whatever the defaults of the recipe are; a setting that the user states wins, and a warning says that it differs.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from frustum.engine import overrides as settings
from frustum.engine.recipe import Recipe
from frustum.errors import CheckpointError, FrustumWarning

KEY = "preprocessing"
PATHS: tuple[str, ...] = (
    "data.image_size",
    "data.channel_order",
    "data.mean",
    "data.std",
    "data.map_frame",
    "augment.crop_h",
    "model.voxel_rounding",
    "model.sampling",
    "model.align",
    "model.label_map",
)
"""The settings that travel. A model that does not know one of its own does not store it."""

RESIZE = "scale to the network's width, drop rows at the top (and the share augment.crop_h at the bottom)"
"""How this version fits an image into the network's (data/pixels.py). Stored with the settings, so that another rule is noticed."""


def preprocessing_of(recipe: Recipe) -> dict[str, Any]:
    """The `preprocessing` of weights that were trained by, or are run by, `recipe`: JSON values by dotted path, and the resize rule."""
    plain = recipe.model_dump(mode="json", include={"data", "augment", "model"})
    sections = [(path, *path.split(".")) for path in PATHS]
    return {path: plain[section][name] for path, section, name in sections if name in plain[section]} | {"resize": RESIZE}


def header_of(recipe: Recipe) -> dict[str, Any]:
    """What every weights file of ours holds in its header: the recipe and the preprocessing."""
    return {"recipe": recipe.model_dump(mode="json"), KEY: preprocessing_of(recipe)}


def recipe_in(header: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe, as JSON, in the header of a weights file; empty where there is none."""
    found = header.get("recipe")
    return found if isinstance(found, dict) else {}


def stored_in(header: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The preprocessing in the header of the weights file `what`; empty where there is none. Raises CheckpointError if it is damaged."""
    found = header.get(KEY, {})
    if not isinstance(found, dict):
        raise CheckpointError(f"the header of {what} is damaged: its {KEY} is no JSON object. Copy or convert the file again.")
    return found


def network_changes(stored: Mapping[str, Any], recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Settings of the network in which the recipe of a file's header differs from `recipe`: the file's value and the recipe's, by path.

    With `model.history` also the history that samples need. What the weights carry anyway is left out, and where the encoder started.
    Empty for another kind of network.
    """
    plain = recipe.model_dump(mode="json", include={"model", "data"})
    if not is_of_kind(stored, recipe):
        return {}
    paths = [p for p in settings.paths(recipe) if p.startswith("model.") and p not in (*PATHS, "model.pretrained")]
    found = _changes(stored, plain, paths)
    return found | (_changes(stored, plain, ["data.history"]) if "model.history" in found else {})


def is_of_kind(stored: Mapping[str, Any], recipe: Recipe) -> bool:
    """True if the recipe of a file's header (JSON) builds the kind of network that `recipe` builds, of whatever widths."""
    model = stored.get("model")
    return isinstance(model, dict) and (stored.get("name") == recipe.name or model.keys() == type(recipe.model).model_fields.keys())


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], paths: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    pairs = {path: (_at(old, path), _at(new, path)) for path in paths}
    return {path: pair for path, pair in pairs.items() if _ABSENT not in pair and pair[0] != pair[1]}


_ABSENT = "absent"  # a setting of another version, or of a section that is switched off


def _at(plain: Any, path: str) -> Any:
    for name in path.split("."):
        plain = plain.get(name, _ABSENT) if isinstance(plain, Mapping) else _ABSENT
    return plain


def as_words(values: Mapping[str, Any]) -> list[str]:
    """Settings as a user writes them: `["model.history=2", "data.channel_order=rgb"]`."""
    return [f"{path}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}" for path, value in values.items()]


def as_overrides(stored: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Stored preprocessing as settings for `recipe`; what its model does not know is left out.

    Raises:
        CheckpointError: a resize rule or a setting that this version does not know.
    """
    rule = stored.get("resize", RESIZE)
    unknown = [path for path in stored if path not in PATHS and path != "resize"]
    if rule != RESIZE or unknown:
        what = f"the resize rule {rule!r}" if rule != RESIZE else f"the settings {', '.join(unknown)}"
        raise CheckpointError(f"the weights need {what} in their preprocessing, which this version does not know. Use a newer frustum.")
    known = type(recipe.model).model_fields
    return as_words({p: v for p, v in stored.items() if p != "resize" and (not p.startswith("model.") or p.partition(".")[2] in known)})


def settle(recipe: Recipe, stored: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe to run weights with: its own settings, then the stored preprocessing, then `overrides`, which win and are warned about.

    Raises:
        ConfigError: an override that does not fit. CheckpointError: preprocessing that this version does not know.
    """
    carried = as_overrides(stored, recipe)
    needed = settings.apply(recipe, carried)
    settled = settings.apply(needed, overrides)
    if differing := differences(preprocessing_of(needed), settled):
        warnings.warn(
            f"the weights are run with other settings than their own, because you said so: {differing}.", FrustumWarning, stacklevel=2
        )
    return settled


def differences(stored: Mapping[str, Any], recipe: Recipe) -> str:
    """Where a recipe differs from stored preprocessing: `data.channel_order="rgb" (they were trained with "bgr"); ...`, or nothing."""
    has = preprocessing_of(recipe)
    other = [path for path, value in stored.items() if path in has and has[path] != value]
    return "; ".join(f"{path}={json.dumps(has[path])} (they were trained with {json.dumps(stored[path])})" for path in other)
