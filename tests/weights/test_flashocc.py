"""Official FlashOCC checkpoints, from file to model."""

from __future__ import annotations

import json

import pytest
import torch

import frustum
from frustum.engine.preprocessing import PATHS
from frustum.errors import CheckpointError, FrustumWarning
from frustum.recipes.checkpoints import settle
from frustum.recipes.loading import get_recipe
from frustum.weights import flashocc
from tests.models import golden_weights as gold


@pytest.mark.parametrize(("fixture", "recipe"), [("m0", "flashocc-r50-m0"), ("m1", "flashocc-r50")])
def test_key_lists_map_completely(shared, fixture, recipe):
    shapes = json.loads((gold.golden(shared, fixture) / "keys.json").read_text())
    with torch.device("meta"):
        model = frustum.load(recipe)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == shapes
    assert len(shapes) == 430


def test_an_ema_file_in_the_upstream_layout_loads(tmp_path):
    source = frustum.load("flashocc-r50-m0", resnet=18)
    path = tmp_path / "epoch_24_ema.pth"
    torch.save({"epoch": 24, "state_dict": source.state_dict(), "updates": 180_000}, path)
    model = frustum.load("flashocc-r50-m0", path, source="official", resnet=18)
    assert not model.training
    assert model.config.voxel_rounding == "reference"
    assert model.img_view_transformer.splat.rounding == "truncate"
    for key, value in source.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])


def test_the_rounding_can_be_chosen_with_official_weights():
    source = frustum.load("flashocc-r50-m0", resnet=18)
    assert source.config.voxel_rounding == "floor"
    with pytest.warns(FrustumWarning, match='voxel_rounding="floor"'):
        model = frustum.load("flashocc-r50-m0", source.state_dict(), source="official", resnet=18, voxel_rounding="floor")
    assert model.img_view_transformer.splat.rounding == "floor"


def test_weights_of_the_other_model_are_recognised():
    m1 = frustum.load("flashocc-r50", resnet=18)
    with pytest.raises(CheckpointError) as caught:
        frustum.load("flashocc-r50-m0", m1.state_dict(), source="official", resnet=18)
    text = str(caught.value)
    assert "img_view_transformer.depth_net.weight" in text
    assert "(108, 256, 1, 1)" in text
    assert "(152, 256, 1, 1)" in text
    assert "that is the recipe 'flashocc-r50'" in text


def test_reference_settings_reach_model_and_data():
    recipe = settle(get_recipe("flashocc-r50-m0"), source="official")
    assert (recipe.model.voxel_rounding, recipe.model.sampling) == ("reference", "corners")
    assert (recipe.data.channel_order, recipe.data.map_frame) == ("bgr", "camera0")
    assert get_recipe("flashocc-r50-m0").data.map_frame == "lidar"
    assert set(flashocc.PREPROCESSING) == set(PATHS)
