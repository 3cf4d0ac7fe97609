"""Recipes over time: they bring the past that their networks read, and have the published sizes."""

from __future__ import annotations

import json

import pytest
import torch

from frustum.config import travelling
from frustum.data.labels.depth import DepthLabels
from frustum.engine import overrides
from frustum.engine.feed import build_pipeline
from frustum.recipes.finding import get_recipe

# past keyframes joined, read; millions of parameters
RECIPES = {
    "panoptic-flashocc-depth4d": (1, 1, 75.640),
    "panoptic-flashocc-longterm8f": (8, 8, 77.253),
    "panoptic-flashocc-longterm16f": (16, 16, 79.096),
    "flashocc-r50-4d-stereo": (1, 2, 58.668),
}


@pytest.mark.parametrize("name", RECIPES)
def test_published_sizes(name):
    history, read, millions = RECIPES[name]
    recipe = get_recipe(name)
    assert (recipe.model.history.frames, recipe.model.reads().past) == (history, read)
    with torch.device("meta"):
        model = recipe.model.build()
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=1e-3)
    assert any(isinstance(label, DepthLabels) for label in recipe.model.learns_from())
    assert (recipe.model.history.align, recipe.model.history.train_align) == ("warp", "lift")
    assert travelling(recipe)["model.history.align"] == "warp"


def test_nine_frames_have_the_published_names(shared):
    shapes = json.loads((shared / "golden" / "flashocc" / "keys_pano_8f.json").read_text())
    with torch.device("meta"):
        model = get_recipe("panoptic-flashocc-longterm8f").model.build()
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == shapes


def test_the_swin_network():
    recipe = get_recipe("flashocc-swin-b-4d-stereo")
    assert recipe.data.image_size == (512, 1408)
    assert recipe.optim.lr == 2e-4
    assert recipe.model.depth_bins.spacing == "uniform"
    with torch.device("meta"):
        model = recipe.model.build()
    state = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert state["img_neck.conv.0.weight"] == (512, 1536, 3, 3)  # 512 + 1024 channels of the last two stages
    assert state["img_neck.conv.3.weight"] == (512, 512, 3, 3)
    assert not any(key.startswith("img_neck.up2") for key in state)
    assert state["img_view_transformer.depth_net.reduce_conv.0.weight"] == (512, 512, 3, 3)
    assert state["img_view_transformer.depth_net.cost_volumn_net.0.weight"] == (88, 88, 3, 3)


def test_the_matching_reads_one_frame_more():
    recipe = overrides.apply(get_recipe("flashocc-r50-4d-stereo"), ["model.history.frames=4"])
    assert recipe.model.reads().past == build_pipeline(recipe, training=True).reads.past == 5
