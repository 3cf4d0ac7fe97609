"""Recipes by name and import path, without torch where nobody needs it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import torch

import frustum
from frustum.config import Config
from frustum.engine.overrides import apply
from frustum.engine.recipe import Recipe
from frustum.errors import CheckpointError, ConfigError, FrustumWarning
from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.recipes import finding as loading
from frustum.recipes.finding import get_recipe, list_recipes
from frustum.weights.loading import load, open_network

SMALL = {"pretrained": False, "bev_channels": 8, "neck_channels": 8}
NAMES = [info.name for info in list_recipes()]


def test_all_four_are_listed_with_help():
    found = {info.name: info for info in list_recipes()}
    assert {"flashocc-r50", "flashocc-r50-m0", "flashocc-tiny", "flashocc-tiny-kitti"} <= found.keys()
    assert all(info.help.endswith(".") for info in found.values())
    assert sorted(NAMES) == NAMES


def test_listing_imports_no_torch():
    code = "import sys, frustum; frustum.list_recipes(); print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_public_names_are_there_before_they_are_loaded():
    code = "import sys, frustum; print(set(frustum.__all__) <= set(dir(frustum)), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_complete_and_survives_json(name):
    recipe = get_recipe(name)
    assert recipe.name == name
    for field in Recipe.model_fields:
        section = getattr(recipe, field)
        if isinstance(section, Config):
            assert type(section).model_validate_json(section.model_dump_json()) == section, field
    assert get_recipe(name.replace("-", "_")) == recipe


def test_published_settings():
    recipe = get_recipe("flashocc-r50")
    assert (recipe.optim.lr, recipe.optim.weight_decay, recipe.optim.clip_norm) == (1e-4, 1e-2, 5.0)
    assert recipe.train.epochs == 24
    assert recipe.train.batch_size * recipe.train.accumulate == 16
    assert (recipe.ema.decay, recipe.ema.initial_updates) == (0.999, 10560)
    assert recipe.model.depth_bins.count == 88
    assert get_recipe("flashocc-r50-m0").model.depth_bins.count == 44
    assert [p.value for p in recipe.published] == [32.08]
    assert recipe.data.channel_order == "bgr"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("flashocc-r51", "did you mean 'flashocc-r50'"), ("FlashOcc", "frustum list"), ("zzz", "known:")],
)
def test_unknown_names_are_answered_with_near_ones(name, hint):
    with pytest.raises(ConfigError, match=hint):
        get_recipe(name)


def test_recipes_by_import_path(tmp_path, monkeypatch):
    (tmp_path / "my_recipes.py").write_text(
        "from frustum.recipes.flashocc import flashocc_tiny\n"
        "def mine():\n    return flashocc_tiny().model_copy(update={'name': 'mine'})\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)  # found in the working folder, as from a console script
    assert get_recipe("my_recipes:mine").name == "mine"
    assert str(tmp_path) not in sys.path
    with pytest.raises(ConfigError, match="did you mean 'mine'"):
        get_recipe("my_recipes:mime")
    with pytest.raises(ConfigError, match="returned a int"):
        get_recipe("my_recipes:wrong")
    with pytest.raises(ConfigError, match="cannot import 'no_such_file'"):
        get_recipe("no_such_file:mine")


def test_recipes_of_other_packages(monkeypatch):
    point = EntryPoint("their-net", "frustum.recipes.flashocc:flashocc_tiny", loading.ENTRY_POINTS)
    monkeypatch.setattr(loading, "entry_points", lambda group: [point])
    assert "their-net" in [info.name for info in list_recipes()]
    assert isinstance(get_recipe("their-net"), Recipe)


def test_load_gives_an_evaluating_model_with_overrides():
    model = load("flashocc-tiny", **SMALL, depth_bins=DepthBins(step=2), grid=VoxelGrid.occ3d())
    assert not model.training
    assert model.config.depth_bins.count == 22
    assert load("flashocc-tiny", **{"model.bev_channels": 4}, pretrained=False).config.bev_channels == 4
    assert frustum.load is load


def test_load_takes_a_recipe():
    recipe = get_recipe("flashocc-tiny")
    assert load(recipe, **SMALL).config.bev_channels == 8


def test_weights_survive_a_round_trip_through_a_file(tmp_path):
    from frustum.checkpoint.weights_file import save_weights

    torch.manual_seed(1)
    first = load("flashocc-tiny", **SMALL)
    save_weights(tmp_path / "w.safetensors", first)
    for checkpoint in (tmp_path / "w.safetensors", first.state_dict()):
        again = load("flashocc-tiny", checkpoint, bev_channels=8, neck_channels=8)
        assert not again.config.pretrained  # the weights replace the encoder's, so its package is not needed
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in first.state_dict().items())


def test_a_run_folder_is_its_recipe_with_its_weights(tmp_path):
    from frustum.checkpoint.weights_file import WEIGHTS, save_weights
    from frustum.engine.run import save_run
    from frustum.engine.sections import header_of

    recipe = apply(get_recipe("flashocc-tiny"), ["model.pretrained=false", "model.bev_channels=8", "data.image_size=64,192"])
    folder = tmp_path / "run"
    save_run(folder, recipe)
    assert get_recipe(folder) == get_recipe(str(folder)) == recipe
    with pytest.raises(CheckpointError, match="the folder of a finished run"):
        load(folder)
    trained = recipe.model.build()
    save_weights(folder / WEIGHTS, trained, header_of(recipe))
    for name in (folder, str(folder)):
        model = load(name, depth_loss=0.5)
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in trained.state_dict().items())
        assert (model.config.bev_channels, model.config.depth_loss, model.recipe.data.image_size) == (8, 0.5, (64, 192))
    other = recipe.model.build().state_dict()
    other["class_weight"] = other["class_weight"] + 1
    assert torch.equal(load(folder, other).state_dict()["class_weight"], other["class_weight"]), "weights that are given win"
    with pytest.raises(CheckpointError, match="other shape"):
        load(folder, bev_channels=4)
    with pytest.raises(ConfigError, match=r"runs/none is not a run: there is no runs.none.recipe\.json"):
        load("runs/none")


def test_numpy_states_and_missing_counters():
    first = load("flashocc-tiny", **SMALL).state_dict()
    counters = [key for key in first if key.endswith("num_batches_tracked")]
    assert counters
    arrays = {key: value.numpy() for key, value in first.items() if key not in counters}
    again = load("flashocc-tiny", arrays, bev_channels=8, neck_channels=8).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in first.items() if key not in counters)
    assert all(int(again[key]) == 0 for key in counters)
    with pytest.raises(CheckpointError, match="is a str"):
        load("flashocc-tiny", arrays | {"head.weight": "x"}, **SMALL)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.class_names=car,bus", "last one is 'free'"),
        ('model.class_names=["free"]', "at least two"),
        ("model.class_names=car,car,free", "different"),
        ("data.image_size=100,256", r"multiples of (16|32), not 100 x 256; try data\.image_size=96,256"),
    ],
)
@pytest.mark.parametrize("name", ["flashocc-tiny", "flashocc-r50-m0"])
def test_settings_that_no_network_can_have(name, override, words):
    with pytest.raises(ConfigError, match=words):
        apply(get_recipe(name), [override])


def test_the_class_balance_is_that_of_occ3d():
    words = ["model.class_names=car,free", "model.class_balance=true"]
    with pytest.raises(ConfigError, match="frequency table"):
        apply(get_recipe("flashocc-r50"), words)


def test_official_settings_are_those_of_the_published_code_unless_the_user_says_otherwise():
    recipe = apply(get_recipe("flashocc-r50"), ["data.channel_order=rgb", "model.resnet=18"])
    assert open_network(recipe)[0] is recipe
    official, network = open_network(recipe, source="official")
    assert network.recipe is official
    assert (official.data.channel_order, official.model.voxel_rounding) == ("bgr", "reference")
    with pytest.warns(FrustumWarning, match="because you said so"):
        assert open_network(recipe, ["model.voxel_rounding=floor"], source="official")[0].model.voxel_rounding == "floor"


def test_a_file_of_weights_is_not_a_recipe():
    with pytest.raises(ConfigError, match=r"frustum eval x\.safetensors; a training starts from it with frustum train RECIPE --init x"):
        get_recipe("x.safetensors")


def test_an_invalid_recipe_of_the_user_is_a_config_error(tmp_path, monkeypatch):
    (tmp_path / "bad_recipes.py").write_text(
        "from frustum.engine.recipe import TrainConfig\ndef mine():\n    return TrainConfig(epochs=None)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="training needs a length"):
        get_recipe("bad_recipes:mine")


def test_mistakes_are_explained(tmp_path):
    with pytest.raises(ConfigError, match="unknown source"):
        load("flashocc-tiny", source="mmcv")
    with pytest.raises(ConfigError, match="no official weights"):
        load("flashocc-tiny", {}, source="official")
    with pytest.raises(ConfigError, match="bev_chanels"):
        load("flashocc-tiny", bev_chanels=4)
    with pytest.raises(CheckpointError, match="missing"):
        load("flashocc-tiny", {"a": torch.zeros(1)}, **SMALL)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load("flashocc-tiny", tmp_path / "none.safetensors", **SMALL)
