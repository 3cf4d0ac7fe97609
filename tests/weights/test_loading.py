"""Upstream file -> convert -> load -> predict, and what stands in the way of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import frustum
from frustum.checkpoint.integrity import sha256
from frustum.checkpoint.weights_file import read_weights, save_weights
from frustum.config import travelling
from frustum.engine.overrides import apply
from frustum.engine.sections import RESIZE, header_of
from frustum.errors import CheckpointError, ConfigError, DataError, FrustumWarning
from frustum.models.flashocc import FlashOccConfig
from frustum.recipes.finding import get_recipe
from frustum.types.batch import Batch
from frustum.weights.conversion import convert, fit_of
from frustum.weights.flashocc import NEEDS
from frustum.weights.loading import open_network
from tests.models import golden_weights as gold

TINY = ["model.pretrained=false", "model.bev_channels=8", "model.voxel_channels=8"]
SMALL = FlashOccConfig(resnet=18, neck_channels=16, lift_channels=8, bev_channels=12, voxel_rounding="reference")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A FlashOCC narrower than the published ones, as the published code runs it."""
    torch.manual_seed(3)
    model = SMALL.build().eval()
    for value in model.state_dict().values():
        if value.dtype.is_floating_point:
            value.add_(0.01 * torch.randn(value.shape))
    return model


@pytest.fixture(scope="module")
def upstream(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upstream") / "epoch_24_ema.pth"
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"epoch": 24, "state_dict": state, "updates": 180_000}, path)
    return path


@pytest.fixture(scope="module")
def converted(upstream: Path) -> Path:
    path = upstream.with_name("converted.safetensors")
    with pytest.warns(FrustumWarning, match="is not flashocc-r50-m0 as published"):
        assert convert(upstream, path).recipe == "flashocc-r50-m0"
    return path


def _batch() -> Batch:
    rig = gold.rig()
    rig["image_aug"] = np.tile(np.diag([0.06, 0.06, 1.0]), (6, 1, 1))
    return Batch.from_arrays(torch.randn(6, 3, 64, 96), **rig)


def test_a_converted_file_predicts_as_its_source_without_naming_it(network, converted):
    model = frustum.load(converted)
    assert model.config == model.recipe.model == SMALL
    assert model.recipe.data.channel_order == "bgr"
    batch = _batch()
    with torch.inference_mode():
        ours, theirs = model(batch), network(batch)
        torch.testing.assert_close(ours["occ_logits"], theirs["occ_logits"], rtol=0, atol=1e-5)
        same = model.predict(ours, batch)[0].occupancy.semantics == network.predict(theirs, batch)[0].occupancy.semantics
        assert same.float().mean() > 0.999
        other = FlashOccConfig(**SMALL.model_dump() | {"voxel_rounding": "floor"}).build().eval()
        other.load_state_dict(network.state_dict())
        assert not torch.equal(other(batch)["pooled"], ours["pooled"]), "the rounding matters, so it has to travel"


def test_the_header_tells_where_it_comes_from(upstream, converted):
    state, header = read_weights(converted)
    assert len(state) == len(SMALL.build().state_dict())
    assert header["source"] == "flashocc"
    assert header["upstream"] == {
        "file": "epoch_24_ema.pth", "sha256": sha256(upstream), "layout": "moving average, keys under 'module.'",
        "epoch": 24, "updates": 180_000,
    }  # fmt: skip
    carried = {path.rpartition(".")[2]: value for path, value in travelling(frustum.load(converted).recipe).items()}
    assert carried == {name: value for name, value in NEEDS.items() if name not in ("align", "label_map")}
    assert (header["classes"]["model"], header["resize"]) == ("frustum.models.flashocc:FlashOccConfig", RESIZE)
    assert header["recipe"]["model"]["lift_channels"] == 8
    assert header["recipe"]["published"] == []


def test_what_a_converted_file_carries_beats_the_recipe_and_the_user_beats_both(converted):
    recipe = get_recipe("flashocc-r50-m0").model_copy(update={"name": "mine"})
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"channel_order": "rgb", "image_size": (128, 352)})})
    with pytest.warns(FrustumWarning, match="was trained by the recipe 'flashocc-r50-m0': its settings are taken, and not those of 'mine'"):
        settled, _ = open_network(recipe, checkpoint=converted)
    assert (settled.data.channel_order, settled.data.map_frame, settled.data.image_size) == ("bgr", "camera0", (256, 704))
    with pytest.warns(FrustumWarning) as caught:
        settled, network = open_network("flashocc-r50-m0", ["data.channel_order=rgb"], converted)
    assert settled.data.channel_order == network.recipe.data.channel_order == "rgb"
    (text,) = [str(w.message) for w in caught]
    assert 'because you said so: data.channel_order="rgb" (they were trained with "bgr")' in text


def test_a_width_that_the_user_insists_on_is_refused_with_the_difference(converted):
    words = r"(?s)bev_encoder_backbone.*needed \(32, 16.*trained with other settings: model\.lift_channels was 8, now 16\. Leave those out"
    for name in ("flashocc-r50-m0", converted):
        with pytest.raises(CheckpointError, match=rf"{words}.*8 lifted \(context\) channels"):
            frustum.load(name, None if name is converted else converted, lift_channels=16)


def test_converted_weights_of_another_published_model_are_named(tmp_path):
    with torch.device("meta"):
        shapes = get_recipe("flashocc-r50").model.model_copy(update={"resnet": 18}).build().state_dict()
    torch.save({key: torch.zeros(value.shape, dtype=value.dtype) for key, value in shapes.items()}, tmp_path / "m1.pth")
    with pytest.warns(FrustumWarning, match=r"model\.resnet=18 was taken"):
        assert convert(tmp_path / "m1.pth", tmp_path / "m1.safetensors").recipe == "flashocc-r50"
    with pytest.warns(FrustumWarning, match="trained by the recipe 'flashocc-r50'"):
        assert frustum.load("flashocc-r50-m0", tmp_path / "m1.safetensors").recipe.name == "flashocc-r50"


def test_partly_fitting_files_only_when_asked(network, tmp_path):
    """A detector's file: encoder, neck and map encoder are taken; the head is missing, another depth net has another shape."""
    state = {key: value for key, value in network.state_dict().items() if not key.startswith("occ_head.")}
    state["img_view_transformer.depth_net.weight"] = torch.zeros(67, 16, 1, 1)
    state["img_view_transformer.depth_net.bias"] = torch.zeros(67)
    state["pts_bbox_head.shared_conv.conv.weight"] = torch.zeros(64, 12, 3, 3)
    torch.save({"meta": {"epoch": 20}, "state_dict": state}, tmp_path / "bevdet.pth")
    with (
        pytest.warns(FrustumWarning, match="is not bevdet-r50 as published"),
        pytest.raises(CheckpointError, match=r"'bevdet-r50' builds this kind of network\. It is not whole: 53 missing"),
    ):
        convert(tmp_path / "bevdet.pth", tmp_path / "x.safetensors")
    small = {"resnet": 18, "neck_channels": 16, "lift_channels": 8, "bev_channels": 12}
    with pytest.raises(
        CheckpointError, match=r"(?s)missing.*occ_head.*not in the model.*pts_bbox_head.*other shape.*needed \(52, 16, 1, 1\), given \(67"
    ):
        frustum.load("flashocc-r50-m0", tmp_path / "bevdet.pth", source="official", **small)
    with pytest.warns(FrustumWarning) as caught:
        model = frustum.load("flashocc-r50-m0", tmp_path / "bevdet.pth", source="official", strict=False, **small)
    text = " ".join(str(w.message) for w in caught)
    assert "wholly: img_backbone 120, img_neck 6, img_bev_encoder_backbone 78, img_bev_encoder_neck 20" in text
    assert "not: occ_head 6, img_view_transformer 2" in text
    assert "other shape: img_view_transformer.depth_net.weight" in text
    assert "left over in the file: pts_bbox_head 1" in text
    assert torch.equal(model.img_backbone.conv1.weight, network.img_backbone.conv1.weight)
    done = convert(tmp_path / "bevdet.pth", tmp_path / "x.safetensors", recipe="flashocc-r50-m0", partial=True)
    assert set(read_weights(tmp_path / "x.safetensors")[0]) == set(done.fit.taken)
    assert "occ_head.predicter.2.bias" in done.fit.missing


def test_nothing_that_fits_is_an_error_even_in_part(tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="nothing in"):
        frustum.load("flashocc-r50-m0", tmp_path / "x.pth", source="official", strict=False, resnet=18)
    with pytest.raises(CheckpointError, match="not a network of FlashOCC or BEVDet"):
        convert(tmp_path / "x.pth", tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="nothing in"):
        convert(tmp_path / "x.pth", tmp_path / "x.safetensors", recipe="flashocc-r50-m0", partial=True)
    assert not (tmp_path / "x.safetensors").exists()


class _Bomb:
    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_malicious_file_is_refused_without_running(tmp_path):
    torch.save({"meta": _Bomb(tmp_path / "ran"), "state_dict": {"a": torch.zeros(1)}}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="refused without running"):
        convert(tmp_path / "bad.pth", tmp_path / "out.safetensors")
    with pytest.raises(CheckpointError, match="refused without running"):
        frustum.load("flashocc-r50-m0", tmp_path / "bad.pth", source="official")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"], "neither its side effect nor half a file"


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_truncated_files_are_refused(upstream, converted, keep, tmp_path):
    for source in (upstream, converted):
        cut = tmp_path / source.name
        cut.write_bytes(source.read_bytes()[: int(source.stat().st_size * keep)])
        with pytest.raises(CheckpointError, match=r"truncated|damaged|refused|is empty|as safetensors"):
            convert(cut, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_an_old_file_stays_when_the_new_one_cannot_be_written(upstream, tmp_path, monkeypatch):
    (tmp_path / "out.safetensors").write_text("old")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("frustum.checkpoint.weights_file.save_file", full)
    with pytest.raises(DataError, match="the disk is full"), pytest.warns(FrustumWarning):
        convert(upstream, tmp_path / "out.safetensors")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.safetensors", "old")]


def test_mistakes_are_explained(upstream, tmp_path):
    with pytest.raises(ConfigError, match=r"ends in \.safetensors"):
        convert(upstream, tmp_path / "out.pth")
    with pytest.raises(ConfigError, match="unknown source 'bevformer'"):
        convert(upstream, tmp_path / "out.safetensors", source="bevformer")
    with pytest.raises(ConfigError, match="there is no recipe 'nope'"):
        convert(upstream, tmp_path / "out.safetensors", recipe="nope")


def test_our_own_weights_carry_their_settings(tmp_path):
    """A run trained on other images is fed with them by whoever loads it, by its file alone or under the recipe's plain name."""
    trained = apply(get_recipe("flashocc-tiny"), ["data.channel_order=bgr", "data.image_size=64,192", *TINY])
    save_weights(tmp_path / "w.safetensors", trained.model.build(), header_of(trained))
    for words in ((tmp_path / "w.safetensors",), (str(tmp_path / "w.safetensors"),), ("flashocc-tiny", tmp_path / "w.safetensors")):
        assert frustum.load(*words).recipe == trained
    with pytest.warns(FrustumWarning, match="data.channel_order"):
        assert frustum.load(tmp_path / "w.safetensors", **{"data.channel_order": "rgb", "depth_loss": 0.5}).config.depth_loss == 0.5


def test_files_without_a_recipe_need_one(tmp_path):
    file, recipe = tmp_path / "w.safetensors", apply(get_recipe("flashocc-tiny"), TINY)
    save_weights(file, recipe.model.build())
    with pytest.raises(CheckpointError, match=r"does not hold the recipe .*frustum eval RECIPE --checkpoint .*frustum\.load\(RECIPE, "):
        frustum.load(file)
    assert frustum.load(recipe, file).recipe == recipe
    save_weights(file, recipe.model.build(), {"preprocessing": {"data.channel_order": "bgr", "data.gone": 3, "resize": RESIZE}})
    assert frustum.load(recipe, file).recipe == apply(recipe, ["data.channel_order=bgr"]), "as files were before they held a recipe"
    with pytest.raises(CheckpointError, match=r"Give the recipe \(and the model\.\* overrides\)"):
        frustum.load("flashocc-tiny", file)


def test_weights_of_another_model_are_named(tmp_path):
    file, recipe = tmp_path / "w.safetensors", apply(get_recipe("panoptic-flashocc-mini"), ["model.pretrained=false"])
    save_weights(file, recipe.model.build(), header_of(recipe))
    with pytest.raises(
        CheckpointError,
        match=r"PanopticFlashOccMiniConfig, trained by the recipe 'panoptic-flashocc-mini'; the recipe 'flashocc-tiny' builds one of "
        r"FlashOccTinyConfig\. The file needs no recipe: frustum eval ",
    ):
        frustum.load("flashocc-tiny", file)
    with pytest.raises(ConfigError, match="are both weights: give one of them"):
        frustum.load(file, file)


@pytest.mark.parametrize("header", ["rgb", ["data.mean"], 3])
def test_a_damaged_header_is_refused(header, network, tmp_path):
    file = tmp_path / "w.safetensors"
    save_weights(file, network, {"recipe": header})
    for words in ((file,), ("flashocc-r50-m0", file)):
        with pytest.raises(CheckpointError, match=r"the header of .* is damaged: its recipe is not a JSON object"):
            frustum.load(*words)
    good = header_of(get_recipe("flashocc-r50-m0"))
    for change in (
        {"classes": header},
        {"recipe": {"name": "x", "model": header}},
        {"recipe": good["recipe"] | {"data": {"mean": "many"}}},
    ):
        save_weights(file, network, good | change)
        with pytest.raises(ConfigError, match=r"w\.safetensors does not hold a recipe that frustum"):
            frustum.load(file)
    save_weights(file, network, good | {"resize": "stretch"})
    with pytest.raises(CheckpointError, match="the resize rule 'stretch'"):
        frustum.load(file)


def test_what_fits_a_recipe_is_said_without_building_it():
    with torch.device("meta"):
        state = get_recipe("flashocc-r50").model.build().state_dict()
    text = str(fit_of(state, "flashocc-r50-m0"))
    differing = 17 + 2 + 5  # weights and norms of the map neck, the depth net, the head but for its last bias
    assert text.startswith(
        f"{430 - differing} of 430 entries fit; wholly: img_backbone 318, img_neck 6, img_bev_encoder_backbone 78; partly: "
    )
    assert text.endswith(f"... and {differing - 6} more")


def test_what_weights_learned_from_cannot_be_changed(tmp_path: Path) -> None:
    """Depth alone teaches no class, whatever is said afterwards; how voxels are read out may be changed."""
    words = ["model.trunk.flashocc_tiny.pretrained=false", "model.views.source=lidar"]
    recipe = apply(get_recipe("renderocc-mini"), words)
    save_weights(tmp_path / "depth.safetensors", recipe.model.build(), header_of(recipe))
    with pytest.raises(ConfigError, match=r'can no longer be changed: model\.views\.source was "lidar", now "lidarseg"'):
        open_network(tmp_path / "depth.safetensors", ["model.views.source=lidarseg"])
    settled, _ = open_network(tmp_path / "depth.safetensors", ["model.threshold=0.3", "model.views.source=lidar"])
    assert settled.model.threshold == 0.3  # type: ignore[attr-defined]
