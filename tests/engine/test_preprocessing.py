"""What travels with weights, and who wins."""

from __future__ import annotations

import json
import warnings

import pytest

from frustum.engine.overrides import apply
from frustum.engine.preprocessing import (
    PATHS,
    RESIZE,
    as_overrides,
    as_words,
    differences,
    header_of,
    is_of_kind,
    network_changes,
    preprocessing_of,
    recipe_in,
    settle,
)
from frustum.errors import CheckpointError, FrustumWarning
from frustum.recipes.finding import get_recipe

TINY, M0 = get_recipe("flashocc-tiny"), get_recipe("flashocc-r50-m0")
CHANGED = [
    "data.image_size=128,352", "data.channel_order=bgr", "data.mean=1,2.5,3", "data.std=4,5,6", "data.map_frame=camera0",
    "augment.crop_h=0.1,0.3", "model.voxel_rounding=reference", "model.sampling=centers",
]  # fmt: skip


def test_all_settings_survive_a_file_header():
    """Stored as JSON and applied to a recipe with other values: every setting comes back, and nothing else changes."""
    changed = apply(M0, CHANGED[:-1])
    stored = json.loads(json.dumps(preprocessing_of(changed)))
    assert set(stored) == {*PATHS, "resize"} - {"model.align", "model.label_map"}, "what FlashOCC has no setting for is not stored"
    back = settle(M0, stored)
    assert preprocessing_of(back) == preprocessing_of(changed)
    assert back.model_copy(update={"data": M0.data, "augment": M0.augment, "model": M0.model}) == M0


def test_a_model_without_the_settings_neither_stores_nor_takes_them():
    stored = preprocessing_of(TINY)
    assert not [path for path in stored if path.startswith("model.")]
    assert stored["data.image_size"] == [96, 256]
    taken = settle(TINY, preprocessing_of(apply(M0, ["model.voxel_rounding=reference"])))
    assert taken.data.image_size == (256, 704)
    assert taken.model == TINY.model


def test_panoptic_weights_carry_how_voxels_are_grouped():
    recipe = get_recipe("panoptic-flashocc-tiny")
    assert preprocessing_of(recipe)["model.label_map"] == "fixed"
    assert settle(recipe, {"model.label_map": "reference"}).model.label_map == "reference"


def test_weights_beat_the_defaults_of_a_recipe_silently():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settle(M0, {"data.channel_order": "rgb"}).data.channel_order == "rgb"
        assert settle(M0, {"data.channel_order": "rgb"}, ["data.channel_order=rgb", "data.root=x"]).data.root == "x"


def test_an_explicit_setting_beats_the_weights_and_is_named():
    with pytest.warns(FrustumWarning) as caught:
        settled = settle(M0, {"data.channel_order": "rgb", "data.mean": [1, 2, 3]}, ["data.channel_order=bgr"])
    assert settled.data.channel_order == "bgr"
    assert settled.data.mean == (1, 2, 3)
    (text,) = [str(w.message) for w in caught]
    assert 'data.channel_order="bgr" (they were trained with "rgb")' in text
    assert "mean" not in text


@pytest.mark.parametrize(("stored", "words"), [({"resize": "stretch"}, "resize rule 'stretch'"), ({"data.gamma": 2.2}, "data.gamma")])
def test_what_this_version_does_not_know_is_refused(stored, words):
    with pytest.raises(CheckpointError, match=words):
        settle(M0, stored)


def test_values_become_settings():
    assert as_overrides({"data.mean": [1.5, 2, 3], "data.map_frame": "camera0", "resize": RESIZE}, M0) == [
        "data.mean=[1.5,2,3]",
        "data.map_frame=camera0",
    ]


def test_differences_are_readable():
    assert differences(preprocessing_of(M0), M0) == ""
    text = differences(preprocessing_of(M0), TINY)
    assert text.startswith("data.image_size=[96, 256] (they were trained with [256, 704]); ")
    assert 'data.channel_order="rgb" (they were trained with "bgr")' in text


def test_what_a_network_was_trained_with_is_told_from_its_header():
    recipe = get_recipe("panoptic-flashocc-mini")
    words = [
        "model.history=2",
        "data.history=2",
        "model.depth_bins.step=2",
        "model.pretrained=false",
        "model.align=warp_reference",
        "optim.lr=1",
    ]
    stored = json.loads(json.dumps(header_of(apply(recipe, words))))["recipe"]
    found = network_changes(stored, recipe)
    assert found == {"model.depth_bins.step": (2.0, 1.0), "model.history": (2, 0), "data.history": (2, 0)}
    assert apply(recipe, as_words({path: old for path, (old, _) in found.items()})).model.depth_bins.step == 2
    assert network_changes(stored, apply(recipe, words)) == {}
    assert network_changes(header_of(apply(recipe, ["data.history=2"]))["recipe"], recipe) == {}, "nothing of the network"
    del stored["model"]["depth_bins"], stored["data"]
    assert network_changes(stored, recipe) == {"model.history": (2, 0)}, "what an older version did not know is not told"
    tiny = header_of(get_recipe("flashocc-tiny"))["recipe"]
    assert not is_of_kind(tiny, recipe)
    assert is_of_kind(tiny, get_recipe("flashocc-tiny-kitti"))
    for nothing in ({}, {"model": 3}, {"name": recipe.name, "model": []}):
        assert network_changes(nothing, recipe) == {}
    assert recipe_in({"recipe": [1]}) == recipe_in({}) == {}


def test_settings_are_written_as_they_are_typed():
    assert as_words({"data.channel_order": "bgr", "data.image_size": [64, 192], "model.swin": None}) == [
        "data.channel_order=bgr", "data.image_size=[64,192]", "model.swin=null",
    ]  # fmt: skip
