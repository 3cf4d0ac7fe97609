from __future__ import annotations

import json
import subprocess
import sys
from itertools import permutations
from typing import ClassVar

import pytest

import frustum
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.source import DataConfig
from frustum.engine.overrides import apply, paths
from frustum.engine.recipe import EmaConfig, Recipe
from frustum.errors import ConfigError
from frustum.geometry import VoxelGrid
from frustum.recipes.finding import get_recipe
from tests.engine import toy

RECIPE = toy.recipe()


def value(recipe: Recipe, path: str):
    for part in path.split("."):
        recipe = getattr(recipe, part) if recipe is not None else None  # a section that is switched off
    return recipe


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.lr=1e-3", 1e-3),
        ("train.steps=1e3", 1000),
        ("train.epochs=3", 3),
        ("augment.flip=false", False),
        ("augment.flip=no", False),
        ("data.image_size=96,256", (96, 256)),
        ("data.image_size=[96, 256]", (96, 256)),
        ("data.image_size=(96, 256)", (96, 256)),
        ("optim.step_epochs=3", (3,)),
        ("optim.step_epochs=3,6", (3, 6)),
        ("augment.resize=-0.1,0.1", (-0.1, 0.1)),
        ("data.cameras=CAM_FRONT,CAM_BACK", ("CAM_FRONT", "CAM_BACK")),
        ('data.cameras=["CAM_FRONT"]', ("CAM_FRONT",)),
        ("data.cameras=CAM_FRONT", ("CAM_FRONT",)),
        ("data.cameras=none", None),
        ("data.root=2024", "2024"),
        ("data.root=/a/b=c", "/a/b=c"),
        ("data.version=1.0", "1.0"),
        ("optim.schedule=constant", "constant"),
        ("ema.decay=0.5", 0.5),
        ("model.width=9", 9),
        ("model.grid.cell=0.4,0.4,0.4", (0.4, 0.4, 0.4)),
        ('optim.lr_scale={"encoder": 0.3, "head": 2}', {"encoder": 0.3, "head": 2.0}),
        ("optim.betas=0.5,0.9", (0.5, 0.9)),
    ],
)
def test_a_value_is_read_by_the_type_of_its_field(override, expected):
    assert value(apply(RECIPE, [override]), override.partition("=")[0]) == expected


def test_a_dotted_key_sets_one_entry_of_a_dictionary():
    changed = apply(RECIPE, ["optim.lr_scale.encoder=0.3", "optim.lr_scale.head=2", "optim.lr_scale.encoder=5e-1"])
    assert changed.optim.lr_scale == {"encoder": 0.5, "head": 2.0}
    assert apply(changed, ['optim={"lr_scale": {}, "lr": 1}']).optim.lr_scale == {}
    assert RECIPE.optim.lr_scale == {}, "the given recipe must not change"


def test_the_model_keeps_its_class_and_other_fields_stay():
    changed = apply(RECIPE, ["model.width=9", "optim.lr=0.5"])
    assert type(changed.model) is toy.ToyConfig
    assert (
        changed.model_dump()
        == RECIPE.model_copy(update={"model": toy.ToyConfig(width=9), "optim": RECIPE.optim.model_copy(update={"lr": 0.5})}).model_dump()
    )
    assert value(RECIPE, "model.width") == 16, "the given recipe must not change"


@pytest.mark.parametrize("name", NuScenesData.presets)
def test_data_is_short_for_where_a_data_set_lies(name):
    moved = apply(RECIPE, ["data.version=v9", "data.val_split=other"])
    data = apply(moved, [f"data={name}"]).data
    assert (data.root, data.version, data.train_split, data.val_split) == (f"data/{name}", "v1.0-trainval", "train", "val")
    assert data.image_size == RECIPE.data.image_size


def test_given_settings_win_over_a_preset_wherever_they_stand():
    for words in (["data.root=x", "data=kitti"], ["data=kitti", "data.root=x"]):
        assert apply(RECIPE, words).data.root == "x"
    assert apply(RECIPE, ['data={"root": "y"}']).data.root == "y", "JSON is no preset"


def test_presets_are_those_of_the_data_section():
    class Elsewhere(DataConfig):
        presets: ClassVar = {"roof": {"root": "on/the/roof"}}

    recipe = RECIPE.model_copy(update={"data": Elsewhere(image_size=(16, 32))})
    data = apply(recipe, ["data=roof"]).data
    assert (type(data), data.root) == (Elsewhere, "on/the/roof")
    with pytest.raises(ConfigError, match=r"data=nuscenes is not known; known: roof\. Any other folder goes by data\.root=FOLDER"):
        apply(recipe, ["data=nuscenes"])


def test_epochs_and_steps_replace_each_other():
    def lengths(*words):
        train = apply(RECIPE, words).train
        return train.epochs, train.steps

    assert lengths("train.epochs=3") == (3, None), "not the recipe's steps"
    assert lengths('train={"epochs": 3}') == (3, None)
    assert lengths("train.epochs=3", "train.steps=9") == (None, 9)
    with pytest.raises(ConfigError, match=r"set train\.epochs=N or train\.steps=N"):
        apply(RECIPE, ["train.steps=null"])


def test_a_switched_off_section_comes_back_with_its_defaults():
    off = apply(RECIPE, ["ema=null"])
    assert off.ema is None
    assert apply(off, ["ema.decay=0.5"]).ema == EmaConfig(decay=0.5)


def test_json_changes_several_entries_of_a_section():
    changed = apply(RECIPE, ['train={"steps": 7, "batch_size": 2}'])
    assert (changed.train.steps, changed.train.batch_size) == (7, 2)
    assert changed.train.num_workers == RECIPE.train.num_workers


def test_entries_of_a_json_object_change_together():
    """Neither 31 m with cells of 0.4 m, nor cells of 2 m between the old bounds, would be allowed on the way."""
    grid = {"lower": [-31, -16, -1], "upper": [33, 16, 5.4], "cell": [2, 2, 1.6]}
    recipe = get_recipe("flashocc-r50-m0")
    for names in permutations(grid):
        words = json.dumps({name: grid[name] for name in names})
        assert apply(recipe, [f"model.grid={words}"]).model.grid.shape == (32, 16, 4)
    assert frustum.load(recipe, resnet=18, grid=VoxelGrid(**grid)).config.grid.shape == (32, 16, 4)
    with pytest.raises(ConfigError, match=r"model\.grid=.* is not allowed: cells of 3.0 m do not divide x"):
        apply(recipe, [f"model.grid={json.dumps(grid | {'cell': [3, 2, 1.6]})}"])
    with pytest.raises(ConfigError, match=r"model\.grid\.lowr"):
        apply(recipe, ['model.grid={"lowr": [-31, -16, -1]}'])


def test_of_two_entries_that_replace_each_other_the_last_one_counts():
    for names, expected in ((("steps", "epochs"), (None, 3)), (("epochs", "steps"), (7, None))):
        numbers = {"steps": 7, "epochs": 3}
        train = apply(RECIPE, [f"train={json.dumps({name: numbers[name] for name in names})}"]).train
        assert (train.steps, train.epochs) == expected


def test_settings_that_need_each_other_stand_in_any_order():
    words = ["model.compensation=camera", "model.views.adjacent=-1,1", "model.views.drawn=1"]
    found = [apply(get_recipe("gsrender-mini"), order) for order in permutations(words)]
    assert all(recipe == found[0] for recipe in found)
    none = ["model.views.adjacent=[]", "model.compensation=none", "model.views.drawn=0"]
    alone = [apply(found[0], order) for order in permutations(none)]
    assert all(recipe == get_recipe("gsrender-mini") for recipe in alone)
    with pytest.raises(ConfigError, match=r"model\.views\.drawn=1 is not allowed: compensation=none learns from the keyframe alone"):
        apply(get_recipe("gsrender-mini"), words[1:])
    together = {
        ("model.compensation=resample", words[1]): r"resample renders one adjacent keyframe at a time: set model\.views\.drawn=1",
        (words[0], words[1], "model.views.drawn=3"): "drawn=3 of 2 adjacent keyframes",
        (*words, "model.loss.moving_weight=1"): r"never drawn.*set model\.views\.moving_weight=1",
    }
    for order, text in ((order, text) for given, text in together.items() for order in permutations(given)):
        with pytest.raises(ConfigError, match=text):
            apply(get_recipe("gsrender-mini"), order)
    with pytest.raises(ConfigError, match=r"depth=silog has no window_share"):
        apply(get_recipe("renderocc-mini"), ["model.renderer=march", "model.loss.depth=silog", "model.loss.free_weight=0"])
    for text, name in (("views.source=dense", "model.views.source"), ("loss.depth=silog", "model.loss.depth")):
        with pytest.raises(ConfigError, match=rf"did you mean '{name}'"):
            apply(get_recipe("gsrender-mini"), [text])
    silog = ["model.loss.depth=silog", "model.loss.free_weight=0", "model.loss.window_share=0"]
    assert apply(get_recipe("gsrender-mini"), silog) == apply(get_recipe("gsrender-mini"), silog[::-1])
    with pytest.raises(ConfigError, match=r"model\.compensation=camera is not allowed: compensation needs adjacent keyframes"):
        apply(get_recipe("gsrender-mini"), [*words[:1], "optim.lr=1"])
    with pytest.raises(ConfigError, match="compensation=camera"):  # of one setting twice the last one counts, so they keep their order
        apply(get_recipe("gsrender-mini"), [*words[:2], "model.compensation=none"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.lrr=3", ["optim has no setting 'lrr'", "'lr'"]),
        ("optm.lr=3", ["no setting 'optm'", "'optim'"]),
        ("lr=3", ["no setting 'lr'", "'optim.lr'"]),
        ("model.widht=3", ["model has no setting", "'width'"]),
        ("data.num_workers=2", ["data has no setting 'num_workers'; did you mean 'train.num_workers'?"]),
        ('data={"num_workers": 2}', ["did you mean 'train.num_workers'?"]),
        ("optim.lr=fast", ["optim.lr=fast", "number", "0.1"]),
        ("optim.lr=true", ["optim.lr=true", "number"]),
        ("optim.lr=-1", ["greater than 0"]),
        ("optim.schedule=cos", ["'constant', 'step', 'cosine', 'poly' or 'one_cycle'"]),
        ("optim.kind=lion", ["'adamw', 'sgd' or 'adam'"]),
        ("optim.encoder_lr_scale=0.3", ["optim has no setting 'encoder_lr_scale'", "'lr_scale'"]),
        ("optim.lr_scale.encoder=fast", ["optim.lr_scale.encoder=fast", "number", "lr_scale.encoder=0.3", "now {}"]),
        ("optim.lr_scale.encoder=true", ["optim.lr_scale.encoder=true", "number"]),
        ("optim.lr_scale.encoder=-1", ["greater than or equal to 0"]),
        ("optim.lr_scal.encoder=1", ["optim has no setting 'lr_scal'", "'lr_scale'"]),
        ("optim.betas=1,0.9", ["entry 1", "less than 1"]),
        ("data=kity", ["did you mean 'kitti'", "data.root=FOLDER"]),
        ("train.epochs=0", ["greater than or equal to 1"]),
        ("data.std=1,0,1", ["entry 2", "greater than 0"]),
        ("data.image_size=0,32", ["greater than"]),
        ("augment.resize=0.1,-0.1", ["low,high", "0.1 is above -0.1"]),
        ("augment.bev_rotate_deg=5,-5", ["low,high"]),
        ("augment.bev_scale=0,1", ["greater than 0"]),
        ("augment.bev_scale=1.1,0.9", ["low,high"]),
        ("augment.crop_h=0,1", ["entry 2: input should be less than 1"]),
        ("train.steps=1.5", ["integer"]),
        ("train.batch_size=0", ["greater than or equal to 1"]),
        ("data.image_size=96", ["list"]),
        ("data.image_size=96,x", ["entry 2", "integer"]),
        ("distill.loss=cdw", ["entry 1: input should be 'cwd', 'kd',", "or 'dist'. distill.loss"]),
        ("distill.weight=0", ["entry 1", "greater than 0"]),
        ("train.epochs.x=3", ["train.epochs is a plain value"]),
        ("model.grid.cell=0.3,0.3,0.3", ["do not divide"]),
        ("optim.lr", ["key=value"]),
        ("=3", ["key=value"]),
        ("train={steps}", ["JSON"]),
    ],
)
def test_mistakes_say_what_is_allowed(override, words):
    with pytest.raises(ConfigError) as error:
        apply(RECIPE, [override])
    for word in words:
        assert word in str(error.value)


def test_every_path_is_accepted_and_leads_to_a_value():
    for path in paths(RECIPE):
        value(RECIPE, path)
    assert {"optim.lr", "model.width", "ema.decay", "data.root", "distill.teacher"} <= set(paths(RECIPE))


def test_overriding_needs_no_torch():
    code = "import sys; import frustum.engine.overrides; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
