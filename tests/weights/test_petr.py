"""Official checkpoints of PETR and 3DPPE: recognised by their keys, converted, and their box convention, which must be known."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch

import frustum
from frustum.checkpoint.fit import Fit
from frustum.checkpoint.weights_file import read_weights, save_weights
from frustum.config import travelling
from frustum.engine.overrides import apply
from frustum.engine.sections import header_of
from frustum.engine.train import start
from frustum.errors import CheckpointError, FrustumWarning
from frustum.models.ppe3d import Ppe3dConfig
from frustum.nn.box_code import stated_convention
from frustum.recipes.finding import get_recipe, list_recipes
from frustum.weights import flashocc, petr
from frustum.weights.conversion import convert, diagnose
from frustum.weights.upstream import adapter_of
from tests.models import golden_ppe3d as gold
from tests.models.test_ppe3d import HEADS, tiny

State = dict[str, torch.Tensor]
SMALL = {"encoder": "resnet50", "channels": 32, "hidden": 64, "layers": 2, "queries": 30, "depth_channels": 16, "depth_bins": 8}
OLD, NEW = "mmdet3d<1.0", "mmdet3d>=1.0"


def file_of(shared: Path, head: str, body: str = "det_v299") -> State:
    """Names and shapes of a whole detector: a head of the golden numbers behind an encoder and a neck of them."""
    body_keys = {key: shape for key, shape in gold.keys(shared, body).items() if not key.startswith("pts_bbox_head.")}
    if head == "head_gtpe":  # reads the last map of the encoder itself
        body_keys = {key: shape for key, shape in body_keys.items() if not key.startswith("img_neck.")}
    keys = body_keys | {f"pts_bbox_head.{key}": shape for key, shape in gold.keys(shared, head).items()}
    return {key: torch.empty(shape, device="meta") for key, shape in keys.items()}


@pytest.fixture(scope="module")
def small() -> State:
    torch.manual_seed(0)
    return Ppe3dConfig(**SMALL).build().state_dict()


def save(state: State, path: Path, version: str = "") -> Path:
    """As mmcv does."""
    torch.save({"meta": {"epoch": 24, **({"mmdet3d_version": version} if version else {})}, "state_dict": state}, path)
    return path


def quietly(*given, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrustumWarning)
        return convert(*given, **more)


@pytest.mark.parametrize("head", HEADS)
def test_the_settings_from_the_names_build_exactly_the_network_of_the_file(shared, head):
    body = "det_r50" if head in ("head_gtpe", "head_v2_ctx_r50") else "det_v299"
    state = file_of(shared, head, body)
    settings = petr.settings_of(state)
    config = Ppe3dConfig(**settings)
    encoder = {"head_gtpe": "resnet50_c5", "head_v2_ctx_r50": "resnet50"}.get(head, "vovnet99")
    assert config == Ppe3dConfig(encoder=encoder, **HEADS[head][0])
    with torch.device("meta"):
        fit = Fit.of(config.build().state_dict(), state)
    assert (fit.missing, fit.unexpected, fit.reshaped) == ((), (), ())
    assert adapter_of(state) is petr
    words = petr.widths(state, get_recipe(petr.recipe_for(settings)).model)
    settled = apply(get_recipe(petr.recipe_for(settings)), words).model
    assert {name: getattr(settled, name) for name in settings} == settings


@pytest.mark.parametrize(("head", "body", "recipe", "name"), [
    ("head_v2_main", "det_v299", "ppe3d-v299", "3dppe-v299-800x320"),
    ("head_petrv2_3dppe", "det_v299", "ppe3d-2f-v299", "3dppe-v2-v299-800x320"),
    ("head_petr", "det_v299", "petr-v299", "petr-v299-800x320"),
    ("head_v2_ctx_r50", "det_r50", "ppe3d-r50", ""),
    ("head_v2_main", "det_r50", "ppe3d-r50-512", ""),
    ("head_petrv2", "det_v299", "petrv2-v299", "petrv2-v299-800x320"),
])  # fmt: skip
def test_published_files_are_recognised(shared, head, body, recipe, name):
    found, fit = diagnose(file_of(shared, head, body), petr)
    assert (found.recipe, found.published, fit.missing, fit.unexpected) == (recipe, name, (), ())
    assert "no recipe has just these" not in found.about
    assert not petr.widths(file_of(shared, head, body), get_recipe("ppe3d-r101-512").model), "under a recipe that is not its"


def test_strangers_and_encoders_alone():
    stem = {"img_backbone.stem.stem_1/conv.weight": torch.zeros(64, 3, 3, 3)}
    assert "frustum train ppe3d-v299 --init FILE" in petr.identify(stem).about
    assert petr.identify(stem).recipe == ""
    assert petr.identify({"conv.weight": torch.zeros(1)}).channels == {}
    assert adapter_of({"conv.weight": torch.zeros(1)}) is flashocc
    assert not petr.reads(tiny())
    assert petr.reads(Ppe3dConfig())


def test_every_recipe_with_such_weights_is_compared():
    recipes = [info.name for info in list_recipes() if petr.reads(get_recipe(info.name).model)]
    assert set(recipes) == set(petr.RECIPES)


@pytest.mark.parametrize(("version", "convention"), [
    ("0.17.1", OLD), ("1.0.0rc3", NEW), ("1.0.0rc6+5de6898", NEW), ("1.1.0", NEW), ("", None), ("unknown", None),
])  # fmt: skip
def test_the_version_of_mmdet3d_says_the_convention(version, convention):
    assert stated_convention({"mmdet3d_version": version}) == convention


def test_a_converted_file_is_the_network_and_how_it_is_run(small, tmp_path):
    path = save(small, tmp_path / "x.pth", "0.17.1")
    with pytest.warns(FrustumWarning, match="is not ppe3d-r50 as published: .*model.channels=32"):
        done = convert(path, tmp_path / "x.safetensors")
    assert (done.recipe, done.source, done.fit.missing, done.fit.unexpected) == ("ppe3d-r50", "petr", (), ())
    assert done.upstream["mmdet3d_version"] == "0.17.1"
    state, _ = read_weights(tmp_path / "x.safetensors")
    assert state.keys() == small.keys()
    assert all(torch.equal(value, state[key]) for key, value in small.items())
    model = frustum.load(tmp_path / "x.safetensors")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in small.items())
    carried = {path.rpartition(".")[2]: value for path, value in travelling(model.recipe).items()}
    assert carried | petr.NEEDS | {"box_convention": OLD, "eval_resize": 0.04} == carried
    assert model.config == Ppe3dConfig(**SMALL, box_convention=OLD, frame="lidar")
    with pytest.warns(FrustumWarning, match='box_convention="mmdet3d>=1.0" \\(they were trained with "mmdet3d<1.0"\\)'):
        frustum.load(tmp_path / "x.safetensors", box_convention=NEW)


@pytest.mark.parametrize(
    ("changes", "extra"),
    [
        ({}, 0.04), ({"encoding": "camera_ray"}, 0.0), ({"encoding": "point3d_lidar", "encoder": "resnet50_c5"}, 0.0),
        ({"encoding": "feature_guided"}, 0.04), ({"encoding": "feature_guided", "past": 1, "grouped_boxes": True}, 0.0),
        ({"encoding": "topk"}, 0.04), ({"encoding": "depth_guided_feature"}, 0.04),
    ],
)  # fmt: skip
def test_images_are_fitted_as_the_project_of_the_file_does(changes, extra):
    """Whatever recipe stands for it: PETR's files with a ResNet have none of their own."""
    with torch.device("meta"):
        state = Ppe3dConfig(**(SMALL | changes)).build().state_dict()
    assert petr.settings_of(state)["encoding"] == changes.get("encoding", "point3d")
    assert petr.needs(state)["eval_resize"] == extra
    assert "eval_resize" not in petr.needs(None)


def test_a_convention_that_nobody_says_is_an_error(small, tmp_path):
    path, out = save(small, tmp_path / "x.pth"), tmp_path / "x.safetensors"
    words = r"mmdet3d<1\.0, those of 3DPPE mmdet3d>=1\.0.*'model\.box_convention=mmdet3d<1\.0' or 'model\.box_convention=mmdet3d>=1\.0'"
    for call in (
        lambda: quietly(path, out),
        lambda: quietly(path, out, recipe="ppe3d-r50", source="petr"),
        lambda: frustum.load(get_recipe("ppe3d-r50"), small, source="official", **SMALL),
    ):
        with pytest.raises(CheckpointError, match=words):
            call()
    assert not out.exists()
    with pytest.warns(FrustumWarning) as caught:
        convert(path, out, overrides=[f"model.box_convention={OLD}"])
    assert not [str(warning.message) for warning in caught if "box_convention" in str(warning.message)], "nothing else is known of it"
    assert frustum.load(out).config.box_convention == OLD
    assert frustum.load("ppe3d-r50", path, source="petr", **SMALL, box_convention=NEW).config.box_convention == NEW


def test_another_convention_than_the_files_is_noted(small, tmp_path):
    path = save(small, tmp_path / "x.pth", "1.0.0rc3")
    with pytest.warns(FrustumWarning, match='because you said so: model.box_convention="mmdet3d<1.0"'):
        convert(path, tmp_path / "x.safetensors", overrides=[f"model.box_convention={OLD}"])


def test_entries_that_are_one_must_be_equal(small, tmp_path):
    key = "pts_bbox_head.reg_branches.1.0.bias"
    path = save(small | {key: small[key] + 1}, tmp_path / "x.pth", "1.0.0")
    with pytest.raises(CheckpointError, match="reg_branches of layer 1 differ from those of layer 0"):
        quietly(path, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="reg_branches of layer 1 differ"):
        frustum.load("ppe3d-r50", path, source="official", **SMALL)
    key = "pts_bbox_head.query_embedding.0.bias"  # its own embedding of the queries: another setting
    quietly(save(small | {key: small[key] + 1}, tmp_path / "x.pth", "1.0.0"), tmp_path / "x.safetensors")
    model = frustum.load(tmp_path / "x.safetensors")
    assert not model.config.shared_embedding
    assert torch.equal(model.state_dict()[key], small[key] + 1)


def test_a_training_starts_only_from_its_own_convention(small, tmp_path):
    words = [f"model.{name}={value}" for name, value in SMALL.items()]
    network = Ppe3dConfig(**SMALL).build()

    def lines(file: Path, *more: str) -> list[str]:
        return start(network, apply(get_recipe("ppe3d-r50"), [*words, f"train.init={file}", *more]))

    path = save(small, tmp_path / "x.pth")
    with pytest.raises(
        CheckpointError, match=rf"convert it first.*frustum weights convert {re.escape(str(path))}.*box_convention=mmdet3d<1\.0"
    ):
        lines(path)
    save(small, path, "0.17.1")
    with pytest.raises(
        CheckpointError, match=r"convention mmdet3d<1\.0, this training by mmdet3d>=1\.0.*'model\.box_convention=mmdet3d<1\.0'"
    ):
        lines(path)
    same = lines(path, f"model.box_convention={OLD}")
    assert same[0].startswith(f"starting from {path}: ")
    assert "LIDAR_TOP" in same[1]
    assert len(lines(path, f"model.box_convention={OLD}", "model.frame=lidar")) == 1
    recipe = apply(get_recipe("ppe3d-r50"), [*words, f"model.box_convention={OLD}"])
    ours = tmp_path / "ours.safetensors"
    save_weights(ours, small, header_of(recipe))
    with pytest.raises(CheckpointError, match=r"ours\.safetensors codes boxes by the convention mmdet3d<1\.0"):
        lines(ours)
    encoder = {key: value for key, value in small.items() if key.startswith("img_")}
    assert len(lines(save(encoder, path))) == 1


@pytest.mark.slow
def test_a_whole_v299_file_is_converted_bit_by_bit(shared, tmp_path):
    """Each entry holds a number of its own, those that are one module the same."""

    def number(key: str, shape: list[int]) -> torch.Tensor:
        one = re.sub(r"(cls|reg)_branches\.\d+", r"\1_branches.0", key).replace("query_embedding", "position_encoder")
        return torch.full((), gold.draw(one, ()).item()).expand(shape)  # one number on the disk

    keys = gold.keys(shared, "det_v299")
    state = {k: torch.zeros(s, dtype=torch.int64) if k.endswith("tracked") else number(k, s) for k, s in keys.items()}
    path = save({f"module.{key}": value for key, value in state.items()}, tmp_path / "x.pth", "1.0.0rc3")
    assert convert(path, tmp_path / "x.safetensors").upstream["published_as"] == "3dppe-v299-800x320"
    model = frustum.load(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").unlink()
    assert sum("/" in key for key in state) > 500
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
    assert (model.config.box_convention, model.config.frame) == (NEW, "lidar")
