"""Help: every verb has one, with an example that names a command which exists."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from typer.main import get_command

from frustum.cli.main import app
from tests.cli.conftest import Run


def verbs(node=None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    node = node or get_command(app)
    for name, child in node.commands.items():
        if hasattr(child, "commands"):
            yield from verbs(child, (*path, name))
        else:
            yield (*path, name), child


VERBS = dict(verbs())


def test_all_verbs_are_there() -> None:
    names = {" ".join(path) for path in VERBS}
    assert names == {
        "demo", "train", "eval", "robustness", "predict", "check", "swap", "report", "list", "doctor", "bench", "data world", "data heads",
        "data import kitti-raw", "data import rig",
        "data aligned", "data labels-2d", "data segmentation", "data features",
        "data status", "weights list", "weights inspect", "weights convert",
    }  # fmt: skip


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_help_has_an_example(path: tuple[str, ...], frustum: Run) -> None:
    code, out, err = frustum(*path, "--help")
    assert code == 0
    assert not err
    text = " ".join(out.split())
    assert f"$ frustum {' '.join(path)}" in text, "the example shows the verb itself"
    assert len(re.findall(r"[.!?:](?: |$)", VERBS[path].help)) >= 1, "help is a sentence"  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_parameter_is_explained(path: tuple[str, ...]) -> None:
    for parameter in VERBS[path].params:  # type: ignore[attr-defined]
        if parameter.name != "help":
            assert getattr(parameter, "help", ""), parameter.name


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_examples_use_options_that_exist(path: tuple[str, ...]) -> None:
    epilog = VERBS[path].epilog  # type: ignore[attr-defined]
    for line in re.findall(r"\$ frustum ([^\[\n]+)", epilog):
        words = line.split()
        target = max((p for p in VERBS if tuple(words[: len(p)]) == p), key=len)
        options = {flag for p in VERBS[target].params for flag in (*p.opts, *p.secondary_opts)}  # type: ignore[attr-defined]
        assert {w for w in words if w.startswith("--")} <= options, line


def test_verbs_with_numbers_write_json() -> None:
    for path in VERBS:
        assert "--json" in {flag for p in VERBS[path].params for flag in p.opts} or path in {("report",)}, path  # type: ignore[attr-defined]


def test_bare_command_shows_help(frustum: Run) -> None:
    assert "demo" in frustum().out
    assert "import" in frustum("data").out


def test_version(frustum: Run) -> None:
    import frustum as package

    assert frustum("--version").out.strip() == f"frustum {package.__version__}"


@pytest.mark.parametrize(
    ("words", "hint"),
    [(("trian", "x"), "train"), (("train", "x", "--ouy", "y"), "--out"), (("data", "wrld"), "world"), (("eval",), "RUN")],
)
def test_misspelt_words_get_a_hint(words: tuple[str, ...], hint: str, frustum: Run) -> None:
    code, _, err = frustum(*words)
    assert code == 2
    assert hint in err
    assert "Traceback" not in err
