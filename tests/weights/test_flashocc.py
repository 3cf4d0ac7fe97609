"""Official FlashOCC checkpoints, from file to model."""

from __future__ import annotations

import json

import pytest
import torch

import frustum
from frustum.checkpoint.fit import describe_difference
from frustum.config import travelling
from frustum.engine.overrides import apply
from frustum.errors import CheckpointError, FrustumWarning
from frustum.geometry.depth import DepthBins
from frustum.models.flashocc import FlashOccConfig
from frustum.recipes.finding import get_recipe
from frustum.weights import flashocc
from frustum.weights.catalogue import SOURCES, recipe_of
from frustum.weights.conversion import convert
from frustum.weights.upstream import ADAPTERS, as_published
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
    recipe = as_published(get_recipe("flashocc-r50-m0"), flashocc)
    assert (recipe.model.voxel_rounding, recipe.model.sampling) == ("reference", "corners")
    assert (recipe.data.channel_order, recipe.data.map_frame) == ("bgr", "camera0")
    assert get_recipe("flashocc-r50-m0").data.map_frame == "lidar"
    panoptic = as_published(get_recipe("panoptic-flashocc-depth4d"), flashocc)
    assert {path.rpartition(".")[2]: value for path, value in travelling(panoptic).items()} == flashocc.NEEDS


def test_every_source_of_the_catalogue_has_an_adapter():
    assert tuple(adapter.SOURCE for adapter in ADAPTERS) == SOURCES


MISSING = {
    "pano_tiny/keys.json": ("panoptic-flashocc-r50-depth-tiny-pano", 1, 44, 64, 256, 128),
    "pano_depth4d/keys.json": ("panoptic-flashocc-r50-depth4d-pano", 2, 88, 80, 512, 256),
    "stereo4d/keys.json": ("flashocc-r50-4d-stereo", 2, 88, 80, 256, 256),
    "keys_pano_8f.json": ("panoptic-flashocc-r50-depth4d-longterm8f-pano", 9, 88, 80, 512, 256),
}


@pytest.mark.parametrize("fixture", MISSING)
def test_every_published_layout_is_recognised(shared, fixture):
    state = _empty(json.loads(gold.golden(shared, fixture).read_text()))
    layout = flashocc.layout_of(state)
    name, *counts = MISSING[fixture]
    assert [layout.frames, *layout.widths.values()] == counts
    assert (layout.resnet, layout.outputs) == (50, 16 * 18)
    assert flashocc.published_name(layout) == name
    assert flashocc.recipe_for(layout) == recipe_of(name)
    assert recipe_of(name)
    assert flashocc.widths(state, FlashOccConfig()) == []


@pytest.mark.parametrize(
    ("fixture", "recipe"),
    [
        ("m0/keys.json", "flashocc-r50-m0"),
        ("m1/keys.json", "flashocc-r50"),
        ("pano_tiny/keys.json", "panoptic-flashocc-tiny"),
        ("pano_depth4d/keys.json", "panoptic-flashocc-depth4d"),
        ("stereo4d/keys.json", "flashocc-r50-4d-stereo"),
        ("keys_pano_8f.json", "panoptic-flashocc-longterm8f"),
    ],
)
def test_the_settings_from_the_shapes_build_exactly_the_network_of_the_file(shared, fixture, recipe):
    """Key by key and shape by shape."""
    shapes = _empty(json.loads(gold.golden(shared, fixture).read_text()))
    layout, base = flashocc.layout_of(shapes), get_recipe(recipe)
    assert flashocc.recipe_for(layout) == recipe
    assert flashocc.widths(shapes, base.model) == []
    assert f"that is the recipe {recipe!r}" in flashocc.describe(layout)
    assert describe_difference(_meta(base.model), shapes) == ""
    assert base.model.reads().past == layout.frames - (layout.depth_net != "stereo")


def test_the_swin_network_is_recognised_and_sees_larger_images():
    recipe = get_recipe("flashocc-swin-b-4d-stereo")
    state = _meta(recipe.model)
    assert flashocc.layout_of(state).resnet == 0
    assert flashocc.identify(state).recipe == recipe.name
    assert flashocc.widths(state, recipe.model) == []
    assert flashocc.needs(state)["image_size"] == list(recipe.data.image_size)
    assert flashocc.needs(None) == flashocc.NEEDS


def test_the_semantic_network_of_a_panoptic_recipe(shared):
    shapes = json.loads((gold.golden(shared, "pano_tiny") / "keys.json").read_text())
    shapes = _empty({key: shape for key, shape in shapes.items() if not key.startswith("aux_centerness_head.")})
    layout, recipe = flashocc.layout_of(shapes), get_recipe("panoptic-flashocc-tiny")
    assert flashocc.published_name(layout) == "panoptic-flashocc-r50-depth-tiny"
    assert flashocc.widths(shapes, recipe.model) == ["model.instances=null"]
    assert describe_difference(_meta(recipe.model.model_copy(update={"instances": None})), shapes) == ""


def test_the_3d_baseline_is_recognised():
    recipe = get_recipe("bevdet-occ-r50")
    state = _meta(recipe.model)
    layout = flashocc.layout_of(state)
    assert layout.is_volume
    assert (flashocc.published_name(layout), flashocc.recipe_for(layout)) == ("", "bevdet-occ-r50")
    assert flashocc.widths(state, recipe.model) == []
    assert flashocc.widths(state, FlashOccConfig()) == []


def test_detectors_and_strangers_are_told_apart(shared):
    head = json.loads((gold.golden(shared, "crafted") / "bevdet_r50_pts_bbox_head_keys.json").read_text())
    state = {key: value for key, value in _meta(FlashOccConfig(depth_bins=DepthBins(stop=60))).items() if not key.startswith("occ_head.")}
    layout = flashocc.layout_of(state | _empty({f"pts_bbox_head.{key}": shape for key, shape in head.items()}))
    assert (layout.has_boxes, layout.has_occupancy, layout.depth_bins, layout.lift_channels) == (True, False, 59, 64)
    assert flashocc.recipe_for(layout) == "bevdet-r50"
    over_time = layout._replace(depth_net="camera-aware", frames=2)
    assert flashocc.recipe_for(over_time) == ""
    assert "a BEVDet detector without an occupancy head" in flashocc.describe(over_time)
    assert "--init FILE" in flashocc.describe(over_time)
    assert flashocc.layout_of({"conv1.weight": torch.zeros(1)}) is None
    assert flashocc.identify({"conv1.weight": torch.zeros(1)}).recipe == ""
    assert "not a network of FlashOCC" in flashocc.identify({"conv1.weight": torch.zeros(1)}).about


def test_a_detector_becomes_one_of_ours(tmp_path):
    """A file of BEVDet's, of other widths: read, converted with what it must be fed, loaded whole."""
    words = ["model.resnet=18", "model.neck_channels=16", "model.lift_channels=8", "model.bev_channels=24"]
    config = apply(get_recipe("bevdet-r50"), words).model
    network = config.build()
    torch.save({"meta": {"epoch": 20}, "state_dict": network.state_dict()}, tmp_path / "bevdet.pth")
    with pytest.warns(FrustumWarning, match="is not bevdet-r50 as published"):
        found = convert(tmp_path / "bevdet.pth", tmp_path / "bevdet.safetensors", source="flashocc")
    assert found.recipe == "bevdet-r50"
    model = frustum.load(tmp_path / "bevdet.safetensors")
    assert model.config == config.model_copy(update={"voxel_rounding": "reference"})
    assert model.recipe.data.channel_order == "bgr"
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("resnet", [18, 34, 50, 101])
def test_widths_are_read_from_the_shapes(resnet):
    """What the file says becomes the settings that build its network."""
    config = FlashOccConfig(resnet=resnet, neck_channels=48, depth_bins=DepthBins(step=2), lift_channels=24, bev_channels=40)
    state = _meta(config)
    layout = flashocc.layout_of(state)
    assert flashocc.recipe_for(layout) == flashocc.BASES[FlashOccConfig]
    words = flashocc.widths(state, FlashOccConfig())
    assert "model.lift_channels=24" in words
    assert apply(get_recipe("flashocc-r50-m0"), words).model == config
    assert flashocc.widths(state, config) == []
    assert "no published file has these widths; the recipe 'flashocc-r50-m0' builds this kind" in flashocc.describe(layout)


def _empty(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def _meta(config: FlashOccConfig) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return config.build().state_dict()
