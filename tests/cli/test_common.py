"""The small tools of the command line."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import typer

from frustum.cli.common import examples, explain, invalid, plain, say, split_overrides, table, verb, write_json
from frustum.cli.data import parse_size
from frustum.errors import CheckpointError, ConfigError, FrustumWarning
from frustum.types.table import percent


def test_plain_values_are_json() -> None:
    value = {"a": np.float32(0.5), "b": [np.int64(3), math.nan], "c": np.arange(3), "d": Path("x"), 4: (True, None)}
    assert json.loads(json.dumps(plain(value))) == {"a": 0.5, "b": [3, None], "c": [0, 1, 2], "d": "x", "4": [True, None]}


def test_write_json(tmp_path: Path) -> None:
    write_json(None, {"nothing": 1})
    target = tmp_path / "new" / "numbers.json"
    write_json(target, {"x": math.inf})
    assert json.loads(target.read_text()) == {"x": None}
    assert [p.name for p in target.parent.iterdir()] == ["numbers.json"]


def test_of_several_processes_one_does_the_talking(tmp_path, capsys, monkeypatch):
    def tell(name: str) -> None:
        say("done")
        write_json(tmp_path / name, {})
        warnings.warn("look", FrustumWarning, stacklevel=1)

    monkeypatch.setenv("RANK", "1")
    verb(tell)("second.json")
    assert capsys.readouterr() == ("", "")
    with pytest.raises(typer.Exit):
        verb(split_overrides)(["fast"])
    assert "'fast' is neither" in capsys.readouterr().err, "errors are told by all: they may be those of one process alone"
    monkeypatch.setenv("RANK", "0")
    verb(tell)("first.json")
    assert capsys.readouterr() == ("done\n", "note: look\n")
    assert [path.name for path in tmp_path.iterdir()] == ["first.json"]


def test_python_m_frustum():
    done = subprocess.run([sys.executable, "-m", "frustum", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("frustum ")


def test_overrides_are_told_from_other_words() -> None:
    assert split_overrides(["a=1", "b.c=x=y"]) == ["a=1", "b.c=x=y"]
    assert split_overrides(None) == []
    with pytest.raises(ConfigError, match="'fast' is neither"):
        split_overrides(["a=1", "fast"])


def test_explanations_carry_the_exit_code() -> None:
    assert explain(CheckpointError("x")) == ("x", 4)
    assert explain(PermissionError(13, "Permission denied", "f"))[1] == 3
    text, code = explain(ValueError("odd"))
    assert code == 1
    assert "ValueError: odd" in text


def test_a_note_is_told_once_per_command(capsys: pytest.CaptureFixture[str]) -> None:
    @verb
    def command() -> None:
        for text in ("first", "second", "first"):
            warnings.warn(text, FrustumWarning, stacklevel=1)

    for _ in range(2):
        command()
        assert capsys.readouterr().err.splitlines() == ["note: first", "note: second"]


@pytest.mark.parametrize(("value", "text"), [(0.12345, "12.35"), (0, "0.00"), (None, "-"), (math.nan, "-")])
def test_percent(value: float | None, text: str) -> None:
    assert percent(value) == text


@pytest.mark.parametrize(("text", "size"), [("96x256", (96, 256)), ("96,256", (96, 256)), ("900X1600", (900, 1600))])
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["96", "96x", "axb", "1x2x3", "-1x5"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="HEIGHTxWIDTH"):
        parse_size(text)


def test_examples_are_escaped() -> None:
    text = examples("frustum x [a]", "frustum y")
    assert r"\[a]" in text
    assert text.startswith("[bold]Examples")
    assert examples("frustum x").startswith("[bold]Example[/]")


def test_what_is_said_is_printed_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    text = r"""pip install -e ".[pretrained]" -> runs/[red]/[1] :smile: C:\new [/] """
    say(text)
    assert capsys.readouterr().out == text + "\n"


def test_markup_only_when_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    say("[bold]x[/]", markup=True)
    assert capsys.readouterr().out == "x\n"


def test_cells_of_tables_are_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    table("of [bold]runs[/]", ["name [a]", "n"], [("data/[street]", "1"), ("[/]", "2")])
    out = capsys.readouterr().out
    assert all(text in out for text in ("of [bold]runs[/]", "name [a]", "data/[street]", "[/]"))


def test_findings_of_pydantic_in_words() -> None:
    from pydantic import ValidationError

    from frustum.engine.recipe import TrainConfig

    with pytest.raises(ValidationError) as caught:
        TrainConfig(log_every=0, keep_checkpoints=-1)
    assert invalid(caught.value).startswith("keep_checkpoints=-1 is not allowed: input should be greater than or equal to 1; log_every=0")
    assert explain(caught.value)[1] == ConfigError.exit_code
