"""What is said of a file that is nearly right, and what of it is never written."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch

import frustum
from frustum.checkpoint.integrity import not_finite
from frustum.checkpoint.weights_file import read_weights, save_weights
from frustum.engine.overrides import apply
from frustum.engine.run import save_run
from frustum.engine.sections import header_of
from frustum.errors import CheckpointError, ConfigError, FrustumWarning
from frustum.models.flashocc import FlashOccConfig
from frustum.recipes.finding import get_recipe, list_recipes
from frustum.weights import flashocc
from frustum.weights.conversion import convert, diagnose
from frustum.weights.upstream import adapter_for, has_official_weights

HEAD = "occ_head.final_conv.conv.weight"
State = dict[str, torch.Tensor]
WITHOUT_OFFICIAL = [info.name for info in list_recipes() if not has_official_weights(get_recipe(info.name).model)]


@pytest.fixture(scope="module")
def m0() -> State:
    """Names and shapes of the published M0, without values."""
    with torch.device("meta"):
        return FlashOccConfig(**get_recipe("flashocc-r50-m0").model.model_dump()).build().state_dict()


@pytest.fixture(scope="module")
def small() -> State:
    return FlashOccConfig(resnet=18, neck_channels=16, lift_channels=8, bev_channels=12).build().state_dict()


def save(state: State, folder: Path) -> Path:
    torch.save({"state_dict": state}, folder / "x.pth")
    return folder / "x.pth"


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def test_the_whole_file(m0):
    found, fit = diagnose(m0, flashocc)
    assert (found.recipe, len(fit.taken), fit.missing) == ("flashocc-r50-m0", 430, ())
    assert found.about.endswith("the published flashocc-r50-M0, that is the recipe 'flashocc-r50-m0'.")


def test_a_missing_and_a_stray_entry_are_counted(m0):
    state = {key: value for key, value in m0.items() if key != HEAD} | {"foo.bar": meta(3)}
    found, fit = diagnose(state, flashocc)
    assert found.recipe == "flashocc-r50-m0"
    assert (fit.missing, fit.unexpected, fit.reshaped) == ((HEAD,), ("foo.bar",), ())
    assert found.about.endswith(f"It is not whole: 1 missing ({HEAD}); 1 in the file only (foo.bar).")
    assert "without an occupancy head" not in found.about


def test_what_is_not_known_is_said(m0):
    without = {key: value for key, value in m0.items() if "depth_net" not in key}
    for state in (without, {"conv.weight": meta(3)}):
        found, fit = diagnose(state, flashocc)
        assert found.about.startswith("not a network of FlashOCC or BEVDet, which have a depth net called img_view_transformer.depth_net. ")
        assert "Name it: --recipe NAME, or --recipe FOLDER of its run" in found.about, "what to type next"
        assert (found.recipe, fit) == ("", None)


@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        (HEAD, (128, 100, 3, 3), f"img_bev_encoder_neck.up2.4.weight gives 128 channels and {HEAD} takes 100"),
        ("img_neck.fpn_convs.0.conv.weight", (200, 256, 3, 3), "gives 200 channels and img_view_transformer.depth_net.weight takes 256"),
        ("img_view_transformer.depth_net.weight", (64, 256, 1, 1), "gives 64 channels, of which 64 are lifted: none are left"),
        ("img_view_transformer.depth_net.weight", (60, 256, 1, 1), "gives 60 channels, of which 64 are lifted: none are left"),
        ("occ_head.predicter.0.weight", (256, 90), f"{HEAD} gives 128 channels and occ_head.predicter.0.weight takes 90"),
    ],
)
def test_widths_that_contradict_each_other_are_named(m0, key, shape, words):
    assert flashocc.contradictions(m0) == []
    state = m0 | {key: meta(*shape)}
    assert [words in text for text in flashocc.contradictions(state)].count(True) == 1
    found, fit = diagnose(state, flashocc)
    assert "contradict each other" in found.about
    assert words in found.about
    assert key in fit.reshaped


@pytest.mark.parametrize("partial", [False, True])
def test_contradicting_widths_are_not_converted(small, partial, tmp_path):
    path = save(small | {HEAD: small[HEAD][:, :10]}, tmp_path)
    with pytest.raises(CheckpointError, match=r"was not converted.*gives 12 channels and .* takes 10.*--init FILE"):
        convert(path, tmp_path / "x.safetensors", partial=partial)
    with pytest.raises(CheckpointError, match="contradict each other"), pytest.warns(FrustumWarning):
        frustum.load("flashocc-r50-m0", path, source="official")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("img_backbone.", r"ResNet-50.*model\.pretrained=FILE data\.root=FOLDER \(or --init FILE\)"),
        ("", r"ResNet-50.*model\.pretrained=FILE data\.channel_order=rgb data\.root=FOLDER$"),
        ("backbone.", r"model\.pretrained=FILE data\.root=FOLDER$"),
    ],
)
def test_an_encoder_alone_starts_a_training(m0, prefix, words):
    encoder = {prefix + key.removeprefix("img_backbone."): v for key, v in m0.items() if key.startswith("img_backbone.")}
    about = flashocc.identify(encoder | ({} if prefix else {"fc.weight": meta(1000, 2048), "fc.bias": meta(1000)})).about
    assert about.startswith("only an image encoder (ResNet-50), so there is nothing to convert.")
    assert re.search(words, about)
    assert diagnose(encoder, flashocc)[0].recipe == ""


def test_other_encoders_alone(small, tmp_path):
    encoder = {key: value for key, value in small.items() if key.startswith("img_backbone.")}
    assert "frustum train flashocc-r50 model.resnet=18 model.pretrained=FILE" in flashocc.identify(encoder).about
    odd = {key: value for key, value in encoder.items() if ".layer3.1." not in key}
    assert "a residual network that no recipe has" in flashocc.identify(odd).about
    assert "frustum train flashocc-tiny model.pretrained=FILE" in flashocc.identify({"conv_stem.weight": meta(32, 3, 3, 3)}).about
    with pytest.raises(CheckpointError, match=r"was not converted: only an image encoder \(ResNet-18\)"):
        convert(save(encoder, tmp_path), tmp_path / "x.safetensors")


def test_half_precision_becomes_the_networks_own(small, tmp_path):
    path = save({key: value.half() for key, value in small.items()}, tmp_path)
    with pytest.warns(FrustumWarning) as caught:
        convert(path, tmp_path / "x.safetensors")
    count = sum(value.is_floating_point() for value in small.values())
    assert any(f"{count} entries are float16; they are written as float32" in str(w.message) for w in caught)
    state, _ = read_weights(tmp_path / "x.safetensors")
    assert {key: value.dtype for key, value in state.items()} == {key: value.dtype for key, value in small.items()}
    key = "img_backbone.conv1.weight"
    assert torch.equal(state[key], small[key].half().float())


def test_what_is_not_finite_is_not_converted(small, tmp_path):
    key = "img_backbone.bn1.bias"
    bad = small[key].clone()
    bad[:3], bad[5] = torch.nan, torch.inf
    assert not_finite(small | {key: bad}) == {key: 4}
    assert not_finite(small) == {}
    with pytest.raises(CheckpointError, match=rf"not finite .*: {key} \(4\)\..*earlier epoch"), pytest.warns(FrustumWarning):
        convert(save(small | {key: bad}, tmp_path), tmp_path / "x.safetensors")
    stray = save(small | {"other.weight": bad}, tmp_path)
    with pytest.warns(FrustumWarning):
        done = convert(stray, tmp_path / "y.safetensors", partial=True)
    assert done.fit.unexpected == ("other.weight",)
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("source", ["flashocc", "official"])
def test_one_name_for_the_project_everywhere(small, source, tmp_path):
    path = save(small, tmp_path)
    with pytest.warns(FrustumWarning):
        convert(path, tmp_path / "new" / "x.safetensors", source=source)
    with pytest.warns(FrustumWarning):
        model = frustum.load("flashocc-r50-m0", path, source=source)
    assert read_weights(tmp_path / "new" / "x.safetensors")[1]["source"] == "flashocc"
    assert (model.recipe.data.channel_order, model.recipe.data.map_frame) == ("bgr", "camera0")
    assert adapter_for(get_recipe("flashocc-r50-m0"), source) is flashocc


def test_what_cannot_be_converted(small, tmp_path):
    path = save(small, tmp_path)
    with pytest.warns(FrustumWarning):
        convert(path, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="a weights file of this package already"):
        convert(tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    with pytest.raises(ConfigError, match=r"there is no recipe 'flashocc-r50m0'; did you mean"):
        convert(tmp_path / "none.pth", tmp_path / "y.safetensors", recipe="flashocc-r50m0")
    with pytest.raises(ConfigError, match=r"unknown source 'frustm'.*or its name: flashocc"):
        frustum.load("flashocc-r50-m0", path, source="frustm")
    tiny = get_recipe("flashocc-tiny")
    with pytest.raises(ConfigError, match="'flashocc-tiny' has no official weights of flashocc"):
        adapter_for(tiny, "flashocc")


@pytest.mark.parametrize("name", WITHOUT_OFFICIAL)
def test_what_was_trained_here_carries_its_own_preprocessing(name, tmp_path):
    """And not FlashOCC's, with which it would predict nonsense without a word."""
    recipe = get_recipe(name)
    first = frustum.load(name, **({"pretrained": False} if hasattr(recipe.model, "pretrained") else {}))
    done = convert(save(first.state_dict(), tmp_path), tmp_path / "x.safetensors", recipe=name)
    assert (done.source, done.recipe, done.fit.missing) == ("frustum", name, ())
    header = read_weights(tmp_path / "x.safetensors")[1]
    assert header["source"] == "frustum"
    assert header["recipe"] == recipe.model_dump(mode="json")
    for words in ((tmp_path / "x.safetensors",), (name, tmp_path / "x.safetensors")):
        assert frustum.load(*words).recipe == recipe
    for source in ("official", "flashocc"):
        with pytest.raises(ConfigError, match=r"has no official weights.*use source='frustum'"):
            convert(tmp_path / "x.pth", tmp_path / "y.safetensors", source, name)


def test_a_file_that_was_given_the_preprocessing_of_another_network_is_refused(tmp_path):
    """As conversion did once, for every recipe."""
    recipe = get_recipe("flashocc-tiny")
    save_weights(tmp_path / "x.safetensors", frustum.load(recipe, pretrained=False), {"source": "flashocc"} | header_of(recipe))
    with pytest.raises(CheckpointError, match="Convert the original again: frustum weights convert FILE --recipe flashocc-tiny"):
        frustum.load("flashocc-tiny", tmp_path / "x.safetensors")


def test_a_recipe_with_official_weights_may_have_been_trained_here(small, tmp_path):
    words = ["model.resnet=18", "model.neck_channels=16", "model.lift_channels=8", "model.bev_channels=12", "data.channel_order=rgb"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", FrustumWarning)  # the settings are the weights' own
        convert(save(small, tmp_path), tmp_path / "x.safetensors", "frustum", "flashocc-r50-m0", overrides=words)
    recipe = frustum.load(tmp_path / "x.safetensors").recipe
    assert (recipe.data.channel_order, recipe.data.map_frame, recipe.model.voxel_rounding) == ("rgb", "lidar", "floor")
    assert frustum.load("flashocc-r50-m0", tmp_path / "x.safetensors").recipe == recipe
    with pytest.raises(ConfigError, match="--recipe NAME, or --recipe FOLDER"):
        convert(tmp_path / "x.pth", tmp_path / "y.safetensors", "frustum")


def test_the_run_or_the_settings_say_what_a_state_dict_is(tmp_path):
    words = ["model.pretrained=false", "model.history.frames=1", "data.image_size=64,192"]
    recipe = apply(get_recipe("panoptic-flashocc-mini"), words)
    save_run(tmp_path / "run", recipe)
    path = save(recipe.model.build().state_dict(), tmp_path)
    with pytest.raises(CheckpointError, match=r"(?s)frame_net.*--recipe NAME model\.KEY=VALUE.*--recipe FOLDER"):
        convert(path, tmp_path / "x.safetensors", recipe="panoptic-flashocc-mini")
    by_run = convert(path, tmp_path / "x.safetensors", recipe=str(tmp_path / "run"))
    by_words = convert(path, tmp_path / "y.safetensors", recipe="panoptic-flashocc-mini", overrides=words)
    assert by_run.fit == by_words.fit
    headers = [read_weights(tmp_path / name)[1] for name in ("x.safetensors", "y.safetensors")]
    assert headers[0] == headers[1]
    assert headers[0]["recipe"]["data"]["image_size"] == [64, 192]
    (tmp_path / "run" / "weights.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"is a run, whose weights need no conversion: frustum eval .*frustum\.load\("):
        convert(tmp_path / "run", tmp_path / "z.safetensors")


def test_a_state_dict_of_ours_is_not_converted_by_guess(tmp_path):
    path = save(apply(get_recipe("flashocc-tiny"), ["model.pretrained=false"]).model.build().state_dict(), tmp_path)
    with pytest.raises(CheckpointError, match=r"was not converted: .* --recipe NAME, or --recipe FOLDER of its run"):
        convert(path, tmp_path / "x.safetensors")
