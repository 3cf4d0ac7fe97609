"""A recipe as JSON with its classes, what of it travels with weights, and whose code a file may have imported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import SerializeAsAny

from frustum.config import TRAVELS, Config, travelling
from frustum.engine.overrides import apply
from frustum.engine.recipe import ModelConfig, OptimConfig, Recipe
from frustum.engine.run import load_run, save_run
from frustum.engine.sections import (
    RESIZE,
    _is_open,
    as_words,
    changes_that_travel,
    check_resize,
    class_paths,
    header_of,
    restored,
    stored,
    working_folder,
)
from frustum.errors import CheckpointError, ConfigError
from frustum.recipes.finding import get_recipe, list_recipes
from tests.engine import toy

TINY, M0 = get_recipe("flashocc-tiny"), get_recipe("flashocc-r50-m0")


# ---- to JSON and back ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [info.name for info in list_recipes()])
def test_every_recipe_comes_back_from_its_json(name):
    recipe = get_recipe(name)
    assert restored(json.loads(json.dumps(stored(recipe))), "x") == recipe


def test_classes_are_stored_where_they_may_vary():
    assert class_paths(TINY)["model"] == "frustum.models.flashocc_tiny:FlashOccTinyConfig"

    class Sections(Config):
        one: SerializeAsAny[OptimConfig] = OptimConfig()
        other: SerializeAsAny[OptimConfig] | None = None
        fixed: OptimConfig | None = None
        plain: int = 3

    assert [name for name, field in Sections.model_fields.items() if _is_open(field)] == ["one", "other"]


def test_a_section_that_was_switched_off_stays_so():
    recipe = apply(toy.recipe(), ["ema=null"])
    assert restored(stored(recipe), "x") == recipe


def test_old_settings_are_brought_up_to_date_by_their_class(monkeypatch):
    def upgraded(cls: type, fields: dict[str, Any]) -> dict[str, Any]:
        return {("lr" if name == "learning_rate" else name): value for name, value in fields.items()}

    monkeypatch.setattr(OptimConfig, "upgraded", classmethod(upgraded))
    content = stored(apply(TINY, ["optim.lr=0.25"]))
    content["recipe"]["optim"]["learning_rate"] = content["recipe"]["optim"].pop("lr")
    assert restored(content, "x").optim.lr == 0.25


def test_a_file_from_before_a_class_could_be_chosen_means_the_only_one(monkeypatch):
    content = stored(TINY)
    with pytest.raises(ConfigError, match=r"x does not hold a recipe that frustum .* can use: "):
        restored(content | {"classes": {}}, "x")
    monkeypatch.setattr(ModelConfig, "first_class", content["classes"]["model"])
    assert restored(content | {"classes": {}}, "x") == TINY


# ---- what travels --------------------------------------------------------------------------------------------------------------


def test_these_settings_travel():
    found = {path.rpartition(".")[2] for info in list_recipes() for path in travelling(get_recipe(info.name))}
    assert found == {
        "image_size", "channel_order", "mean", "std", "map_frame", "crop_h", "eval_resize", "voxel_rounding", "sampling", "align",
        "label_map", "box_convention", "past_frame", "frame", "rule", "doubled_offsets", "conventions", "evaluation", "overlap", "mirror",
        "multiple_of", "short_side", "stride", "temperature", "tone",
    }  # fmt: skip
    assert not [path for path in travelling(TINY) if path.startswith("model.")]
    assert travelling(TINY)["data.image_size"] == [96, 256]


def test_settings_of_inner_sections_travel_where_there_are_some():
    class Inner(Config):
        gamma: Annotated[float, TRAVELS] = 2.2

    class Outer(Config):
        inner: Inner | None = Inner()
        plain: int = 3

    assert travelling(Outer(), "model.") == {"model.inner.gamma": 2.2}
    assert travelling(Outer(inner=None)) == {}


def test_changes_are_readable():
    before = json.loads(json.dumps(header_of(M0)))["recipe"]
    assert changes_that_travel(before, apply(M0, ["optim.lr=1", "data.root=x"])) == ""
    text = changes_that_travel(before, TINY)
    assert text.startswith('data.image_size=[96, 256] (they were trained with [256, 704]); data.channel_order="rgb" (they were trained')
    assert changes_that_travel({}, TINY) == changes_that_travel({"data": 3}, TINY) == "", "what a file does not say is not compared"


def test_another_resize_rule_is_refused():
    for header in ({}, {"resize": RESIZE}, {"preprocessing": {"resize": RESIZE}}, {"preprocessing": 3}):
        check_resize(header, "x")
    for header in ({"resize": "stretch"}, {"preprocessing": {"resize": "stretch"}}):
        with pytest.raises(CheckpointError, match="x need the resize rule 'stretch', which this version does not know"):
            check_resize(header, "x")


def test_settings_are_written_as_they_are_typed():
    assert as_words({"data.channel_order": "bgr", "data.image_size": [64, 192], "model.swin": None}) == [
        "data.channel_order=bgr", "data.image_size=[64,192]", "model.swin=null",
    ]  # fmt: skip


# ---- whose code is imported ----------------------------------------------------------------------------------------------------

CODE = """
from pathlib import Path
from frustum.models.flashocc_tiny import FlashOccTinyConfig
Path("executed").touch()
class X(FlashOccTinyConfig):
    shade: int = 3
class Holder:
    X = X
Plain = int
"""


def names(path: str) -> dict[str, Any]:
    """What a file holds that names a class."""
    content = json.loads(json.dumps(stored(apply(TINY, ["model.pretrained=false"]))))
    content["classes"]["model"] = path
    return content


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a module `evil` and a package `evil_package`; whatever is imported of them is forgotten afterwards."""
    (tmp_path / "evil.py").write_text(CODE)
    (tmp_path / "evil_package").mkdir()
    (tmp_path / "evil_package" / "__init__.py").touch()
    (tmp_path / "evil_package" / "inner.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # it could be imported
    for name in ("evil", "evil_package", "evil_package.inner"):
        monkeypatch.setitem(sys.modules, name, None)  # restores the absence afterwards
        del sys.modules[name]
    return tmp_path


@pytest.mark.parametrize("path", ["evil:X", "evil_package.inner:X", "evil", "evil:", "frustumevil:X", ":X", "", "evil_package/../evil:X"])
def test_nothing_of_a_stranger_is_executed(path, folder):
    with pytest.raises(ConfigError, match="which belongs neither to frustum nor to an installed plug-in of it") as error:
        restored(names(path), "runs/got")
    assert not (folder / "executed").exists()
    assert not {"evil", "evil_package"} & sys.modules.keys()
    top = path.partition(":")[0].partition(".")[0]
    assert f"frustum eval runs/got --code {top}" in str(error.value), "what to type next"
    assert f"frustum.load('runs/got', code={top!r})" in str(error.value)


@pytest.mark.parametrize(
    ("path", "code"), [("evil:X", "evil"), ("evil:X", "evil:any"), ("evil_package.inner:X", "evil_package"), ("evil:Holder.X", "evil")]
)
def test_what_the_user_names_is_imported(path, code, folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])  # as from a console script
    config = restored(names(path), "x", ["other", code]).model
    assert (type(config).__name__, config.shade) == ("X", 3)
    assert str(folder) not in sys.path
    assert restored(names(path), "x").model == config, "it is imported now"


def test_naming_one_module_allows_no_other(folder):
    with pytest.raises(ConfigError, match="Nothing was imported"):
        restored(names("evil:X"), "x", ["evil_package", "evi", "evil.inner"])
    assert not (folder / "executed").exists()


def test_an_installed_plug_in_is_imported(folder):
    info = folder / "evil-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[frustum.recipes]\nevil-net = evil_package.recipes:net\n")
    assert restored(names("evil_package.inner:X"), "x").model.shade == 3
    (folder / "executed").unlink()
    with pytest.raises(ConfigError, match="Nothing was imported"):
        restored(names("evil:X"), "x")
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("evil:Plain", "evil:Plain, named by x, is not a ModelConfig"),
        ("evil:Y", "the class evil:Y, named by x, cannot be imported: 'Y'"),
        ("os:system", "os:system, named by x, is not a ModelConfig"),
        ("frustum.errors:ConfigError", "is not a ModelConfig"),
        ("frustum.nowhere:X", "cannot be imported"),
        ("frustum.config:Config", "is not a ModelConfig"),
    ],
)
def test_a_class_of_another_kind_is_named(path, words, folder):
    with pytest.raises(ConfigError, match=words):
        restored(names(path), "x", ["evil"])


def test_a_run_that_names_a_stranger(folder):
    save_run(folder / "run", apply(TINY, ["model.pretrained=false"]))
    content = json.loads((folder / "run" / "recipe.json").read_text())
    old = {key: value for key, value in content.items() if key != "classes"} | {"model_config": "evil:X"}
    for change in (content | {"classes": {"model": "evil:X"}}, old):
        (folder / "run" / "recipe.json").write_text(json.dumps(change))
        with pytest.raises(ConfigError, match="Nothing was imported"):
            load_run(folder / "run")
    assert not (folder / "executed").exists()
    assert load_run(folder / "run", ["evil"]).recipe.model.shade == 3


def test_the_working_folder_is_looked_at_only_meanwhile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with working_folder():
        assert sys.path[0] == str(tmp_path)
    assert str(tmp_path) not in sys.path


def test_a_recipe_of_this_process_needs_no_permission():
    recipe = toy.recipe()
    assert isinstance(restored(stored(recipe), "x"), Recipe), "tests.engine.toy is imported already"
