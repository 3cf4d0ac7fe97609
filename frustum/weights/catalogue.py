"""Published weights: what they are called, where their authors publish them, under which licence, and which recipe loads them.

The entries are in catalogue.json; `frustum weights list` prints them. Reading them imports neither torch nor pydantic. frustum downloads
nothing of this: get a file yourself, then convert it.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import NamedTuple

UNKNOWN = "unknown"


class Entry(NamedTuple):
    """One published file.

    Attributes:
        name: unique here.
        project: who published it.
        where: a page, a Google Drive id, or a file of the project that names the place.
        licence: as its project states it; of the repository where nothing else is said.
        file: expected file name.
        size: bytes, or "unknown".
        published: the authors' figures (percent), or "".
        protocol: what these were measured under.
        recipe: the recipe of ours that loads it, or "".
        source: the `--source` that converts it, or "".
        status: what we measured with it.
        note: what one should know.
    """

    name: str
    project: str
    where: str
    licence: str = UNKNOWN
    file: str = UNKNOWN
    size: int | str = UNKNOWN
    published: str = ""
    protocol: str = ""
    recipe: str = ""
    source: str = ""
    status: str = "not yet measured here"
    note: str = ""


CATALOGUE = tuple(Entry(**entry) for entry in json.loads(files("frustum.weights").joinpath("catalogue.json").read_bytes()))
"""The entries of catalogue.json, in its order."""

SOURCES: tuple[str, ...] = tuple(dict.fromkeys(entry.source for entry in CATALOGUE if entry.source))
"""Upstream projects whose files can be read: the adapters of weights/upstream.py."""


def entries(part: str) -> tuple[Entry, ...]:
    """The entry of that name, upper and lower case being the same, or else those whose names hold `part`."""
    low = part.lower()
    exact = tuple(found for found in CATALOGUE if found.name.lower() == low)
    return exact or tuple(found for found in CATALOGUE if low in found.name.lower())


def recipe_of(name: str) -> str:
    """The recipe that loads the entry `name`; empty when there is none yet."""
    return next((entry.recipe for entry in CATALOGUE if entry.name == name), "")
