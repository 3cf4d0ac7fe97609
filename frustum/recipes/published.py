"""The figures that authors published for their networks, in published.json: by recipe, with the protocol and the place they come from.

Figures of classes run from others to vegetation and come from the comments of the published configurations.
"""

from __future__ import annotations

from importlib.resources import files

from pydantic import TypeAdapter

from frustum.engine.recipe import PublishedNumber


def published_for(recipe: str) -> tuple[PublishedNumber, ...]:
    """The published figures of the network that the recipe of this name describes."""
    text = files("frustum.recipes").joinpath("published.json").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, tuple[PublishedNumber, ...]]).validate_json(text)[recipe]
