"""A run or a weights file that names code: no verb executes it unless the user names its module."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import frustum as package
from frustum.checkpoint.weights_file import WEIGHTS, save_weights
from frustum.cli.resolve import resolve_recipe
from frustum.engine.run import save_run
from frustum.engine.sections import header_of
from frustum.errors import ConfigError
from tests.cli.conftest import Run

CODE = """
from pathlib import Path
from frustum.models.flashocc_tiny import FlashOccTinyConfig
Path("executed").touch()
class X(FlashOccTinyConfig):
    pass
"""
NAMED = "which belongs neither to frustum nor to an installed plug-in of it. Nothing was imported"


@pytest.fixture
def got(tmp_path: Path, street_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, where a run called `run` and a file `got.safetensors` name a class of the module `evil` beside them."""
    words = [
        "model.pretrained=false",
        "model.bev_channels=8",
        "model.voxel_channels=8",
        f"data.root={street_root}",
        "eval.slow_figures=false",
    ]
    recipe = resolve_recipe("flashocc-tiny", [*words, "train.num_workers=0", "train.steps=1", "runtime.precision=fp32"])
    header = header_of(recipe) | {"classes": {"model": "evil:X"}}
    for file in (tmp_path / "got.safetensors", tmp_path / "run" / WEIGHTS):
        save_weights(file, recipe.model.build(), header)
    save_run(tmp_path / "run", recipe)
    content = json.loads((tmp_path / "run" / "recipe.json").read_text())
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(content | {"classes": {"model": "evil:X"}}))
    (tmp_path / "evil.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "evil", None)
    del sys.modules["evil"]
    return tmp_path


VERBS = [
    ("eval", "run"),
    ("eval", "got.safetensors"),
    ("eval", "flashocc-tiny", "--checkpoint", "got.safetensors"),
    ("predict", "run", "DATA"),
    ("predict", "got.safetensors", "DATA"),
    ("report", "run"),
    ("report", "got.safetensors"),
    ("train", "run"),
    ("weights", "convert", "x.pth", "--recipe", "run", "-o", "x.safetensors"),
    ("list", "--settings", "run"),
]


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_no_verb_executes_a_stranger_s_code(words: tuple[str, ...], frustum: Run, got: Path, street_root: Path) -> None:
    code, _, err = frustum(*(street_root if word == "DATA" else word for word in words))
    assert code == ConfigError.exit_code, err
    text = " ".join(err.split())
    assert text.startswith("error: ")
    assert NAMED in text
    assert "--code evil" in text
    assert not (got / "executed").exists()
    assert "evil" not in sys.modules


def test_looking_at_a_file_executes_nothing(frustum: Run, got: Path) -> None:
    code, out, _ = frustum("weights", "inspect", "got.safetensors")
    assert code == 0
    assert NAMED in " ".join(out.split())
    assert "head" in out, "the tensors are shown all the same"
    assert not (got / "executed").exists()


def test_a_training_may_start_from_such_a_file(frustum: Run, got: Path, street_root: Path) -> None:
    words = ("model.pretrained=false", "model.bev_channels=8", "model.voxel_channels=8", f"data.root={street_root}", "train.steps=1")
    code, out, err = frustum("train", "flashocc-tiny", "--init", "got.safetensors", "--out", "mine", "train.num_workers=0", *words)
    assert code == 0, err
    assert "starting from got.safetensors: " in " ".join(out.split())
    assert "learned from: 3D labels" in out, "from which labels, and of which scenes where others are hidden"
    assert not (got / "executed").exists(), "its tensors are taken, its class is not needed"


@pytest.mark.parametrize("name", ["run", "got.safetensors"])
def test_nor_does_python(name: str, got: Path) -> None:
    with pytest.raises(ConfigError, match=NAMED):
        package.load(name)
    with pytest.raises(ConfigError, match=NAMED):
        package.load("flashocc-tiny", name)
    assert not (got / "executed").exists()
    assert type(package.load(name, code="evil").recipe.model).__name__ == "X"
    assert (got / "executed").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("eval", "got.safetensors", "ROOT"),
        ("predict", "got.safetensors", "DATA", "--limit", 1, "--no-pictures"),
        ("report", "got.safetensors", "ROOT", "--samples", 1),
        ("train", "run", "--out", "again"),
    ],
    ids=lambda words: words[0],
)
def test_the_user_may_name_the_code(words: tuple[object, ...], frustum: Run, got: Path, street_root: Path) -> None:
    given = {"DATA": street_root, "ROOT": f"data.root={street_root}"}
    code, _, err = frustum(*(given.get(str(word), word) for word in words), "--code", "evil")
    assert code == 0, err
    assert (got / "executed").exists()
    if words[0] == "report":
        assert (got / "got-report" / "report.html").is_file(), "beside the file"
    if words[0] == "train":
        assert json.loads((got / "again" / "recipe.json").read_text())["classes"]["model"] == "evil:X"
