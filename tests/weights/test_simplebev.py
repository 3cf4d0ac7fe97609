"""Official checkpoints of SimpleBEV: recognised by their keys, converted with what they need, and others that are refused."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

import frustum
from frustum.errors import CheckpointError, FrustumWarning
from frustum.models.simplebev import SimpleBevConfig
from frustum.recipes.finding import get_recipe
from frustum.weights import simplebev
from frustum.weights.conversion import convert
from frustum.weights.upstream import adapter_of
from tests.models import golden_simplebev as gold

State = dict[str, torch.Tensor]


def on_meta(keys: dict[str, list[int]]) -> State:
    return {key: torch.empty(shape, device="meta") for key, shape in keys.items()}


@pytest.fixture(scope="module")
def published() -> State:
    """Names and shapes of the network with EfficientNet-B0."""
    return on_meta(json.loads((gold.DATA / "keys_effb0.json").read_text()))


@pytest.fixture(scope="module")
def small() -> State:
    torch.manual_seed(0)
    return SimpleBevConfig(encoder="efficientnet_b0", channels=16, feature_head=True).build().state_dict()


def test_published_files_are_recognised(published):
    assert adapter_of(published) is simplebev
    found = simplebev.identify(published)
    assert (found.recipe, found.is_consistent) == ("simplebev-b0", True)
    assert "encoder efficientnet_b0, 128 channels, 1 classes, 8 heights: that is the recipe 'simplebev-b0'" in found.about
    assert "doubled offsets" in found.about
    assert simplebev.widths(published, get_recipe("simplebev-b0").model) == []


@pytest.mark.parametrize("encoder", list(gold.ENCODERS))
def test_every_published_encoder_has_a_recipe(shared, encoder):
    keys = json.loads((shared / "golden" / "simplebev" / f"keys_{encoder}.json").read_text())
    recipe = simplebev.identify(on_meta(keys)).recipe
    assert get_recipe(recipe).model.encoder == gold.ENCODERS[encoder]


def test_files_with_radar_or_other_networks_are_refused(published):
    radar = {**published, "bev_compressor.0.weight": torch.empty(128, 1024 + 16, 3, 3, device="meta")}
    found = simplebev.identify(radar)
    assert not found.is_consistent
    assert "8.125 heights of image features: with radar, LiDAR, or another encoder" in found.about
    assert not simplebev.identify({"conv.weight": torch.empty(1)}).channels


def test_a_file_is_run_as_it_was_trained(small, tmp_path):
    """As the authors save it: beside an optimiser, below `model_state_dict`."""
    path, out = tmp_path / "model-000025000.pth", tmp_path / "converted.safetensors"
    torch.save({"optimizer_state_dict": {}, "model_state_dict": {f"module.{key}": value for key, value in small.items()}}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrustumWarning)
        convert(path, out, recipe="simplebev-b0", source="simplebev")
        model = frustum.load(out)
    config = model.recipe.model
    assert (config.channels, config.sampling, config.maps.rule, config.loss.doubled_offsets) == (16, "reference", "simplebev", True)
    assert all(torch.equal(value, small[key]) for key, value in model.state_dict().items())
    with pytest.warns(FrustumWarning, match="model.channels=16 was taken from the file"):
        frustum.load("simplebev-b0", path, source="official")
    with pytest.raises(CheckpointError, match="missing"):
        frustum.load("simplebev-r50", path, source="official")


def test_small_networks_of_ours_have_no_official_weights():
    assert not simplebev.reads(get_recipe("simplebev-mini").model)
    assert simplebev.reads(get_recipe("simplebev-r101").model)
    assert simplebev.widths({}, get_recipe("simplebev-r101").model) == []
