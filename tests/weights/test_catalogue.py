"""The catalogue says what recipes and adapters really do."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from pydantic import TypeAdapter

from frustum.models.flashocc import FlashOccConfig
from frustum.recipes.finding import get_recipe, list_recipes
from frustum.weights import flashocc
from frustum.weights.catalogue import CATALOGUE, SOURCES, Entry, recipe_of

RECIPES = {info.name for info in list_recipes()}


def test_entries_have_the_types_that_they_state():
    assert TypeAdapter(tuple[Entry, ...]).validate_python(CATALOGUE, strict=True) == CATALOGUE


def test_names_are_unique_and_nothing_is_left_blank():
    names = [e.name for e in CATALOGUE]
    assert len(set(names)) == len(names)
    for e in CATALOGUE:
        assert all((e.name, e.project, e.where, e.licence, e.file, e.size, e.status)), e.name
        assert bool(e.published) == bool(e.protocol), "a figure names its protocol"
        assert e.status == "not yet measured here"
        assert isinstance(e.size, int) or e.size == "unknown"


@pytest.mark.parametrize("e", [e for e in CATALOGUE if e.recipe], ids=lambda e: e.name)
def test_recipes_exist_and_state_the_same_figure(e):
    assert e.recipe in RECIPES
    assert e.source in SOURCES
    figures = {p.metric: p.value for p in get_recipe(e.recipe).published}
    others = (
        "flashocc-r50-maskless", "without instances", "has the centre head, too", "bevdet-r50-cbgs", "trained otherwise",
        "learned from a teacher",
    )  # fmt: skip
    if all(word not in f"{e.name} {e.note}" for word in others):
        for figure in e.published.split(", "):
            metric, _, value = figure.rpartition(" ")
            assert figures[metric] == float(value)


def test_every_layout_that_is_recognised_is_in_the_catalogue():
    sources = {e.name: e.source for e in CATALOGUE}
    assert {sources.get(name) for name in flashocc._PUBLISHED.values()} == {"flashocc"}
    assert recipe_of("flashocc-r50-M0") == flashocc.BASES[FlashOccConfig]
    assert set(flashocc.BASES.values()) <= RECIPES
    assert recipe_of("no-such-entry") == ""


def test_drive_ids_look_like_ids():
    ids = [re.search(r"Google Drive (?:folder )?(\S+)$", e.where)[1] for e in CATALOGUE if e.where.startswith("Google Drive")]
    assert len(ids) >= 10
    assert all(re.fullmatch(r"[\w-]{33}", found) for found in ids), ids


def test_the_catalogue_needs_no_torch():
    code = "import sys, frustum.weights.catalogue; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
