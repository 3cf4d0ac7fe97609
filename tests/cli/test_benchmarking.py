"""bench: what it finds, runs and writes, with small scripts in place of the real ones; and the real ones' form."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from frustum.cli import benchmarking
from frustum.errors import ConfigError
from tests.cli.conftest import Run

GOOD = '''"""Counts to ten. And more.

    python good.py
"""
from frustum.benchmark import Table, benchmark_main

def measure(quick):
    yield Table("Counting", ("way", "ms"), [("quickly" if quick else "slowly", 1.5)], "A note.")

if __name__ == "__main__":
    benchmark_main(__doc__, measure)
'''
OWN = '''"""Has a command line of its own."""
import json, sys

if __name__ == "__main__":
    json.dump({"quick": "--quick" in sys.argv}, open(sys.argv[sys.argv.index("--json") + 1], "w"))
'''
BAD = '"""Always fails."""\nimport sys\nif __name__ == "__main__":\n    sys.exit("no compiler")\n'


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "speed"
    place.mkdir()
    for name, text in {"good": GOOD, "own_way": OWN, "bad": BAD, "helper": '"""No benchmark."""\n'}.items():
        (place / f"{name}.py").write_text(text)
    monkeypatch.setattr(benchmarking, "folder", lambda: place)
    return place


def test_list_runs_nothing(scripts: Path, frustum: Run, tmp_path: Path) -> None:
    code, out, _ = frustum("bench", "--list", "--json", tmp_path / "list.json")
    assert code == 0
    assert "Counts to ten. And more." in out
    assert json.loads((tmp_path / "list.json").read_text()) == {
        "bad": "Always fails.", "good": "Counts to ten. And more.", "own_way": "Has a command line of its own.",
    }  # fmt: skip


def test_run_and_write(scripts: Path, frustum: Run, tmp_path: Path) -> None:
    code, out, err = frustum("bench", "own-way", "good", "own_way", "--quick", "--json", tmp_path / "all.json")
    assert code == 0, err
    assert out.index("[1/2] own_way") < out.index("[2/2] good"), "in the order given, each once"
    assert "quickly" in out
    assert "A note." in out
    written = json.loads((tmp_path / "all.json").read_text())
    assert written["quick"] is True
    assert written["benchmarks"]["own_way"] == {"quick": True}
    (table,) = written["benchmarks"]["good"]["tables"]
    assert table == {"title": "Counting", "columns": ["way", "ms"], "rows": [["quickly", 1.5]], "note": "A note."}
    assert {"processor", "cores", "torch", "load_before"} <= set(written["benchmarks"]["good"]["machine"])


def test_one_failure_keeps_the_others(scripts: Path, frustum: Run, tmp_path: Path) -> None:
    code, _, err = frustum("bench", "bad", "own_way", "--json", tmp_path / "all.json")
    assert code == 1
    assert "no compiler" in err
    assert "benchmarks that failed, with the reason above: bad." in err
    assert list(json.loads((tmp_path / "all.json").read_text())["benchmarks"]) == ["own_way"]


def test_a_misspelt_name_is_explained(scripts: Path, frustum: Run) -> None:
    code, _, err = frustum("bench", "goood")
    assert code == ConfigError.exit_code
    assert "there is no benchmark 'goood'" in err
    assert "good" in err
    assert "frustum bench --list" in err


def test_an_installed_package_brings_them_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "frustum"
    (package / "cli").mkdir(parents=True)
    monkeypatch.setattr(benchmarking, "__file__", str(package / "cli" / "benchmarking.py"))
    with pytest.raises(ConfigError, match="there are no benchmarks next to"):
        benchmarking.folder()
    (package / "_benchmarks").mkdir()
    assert benchmarking.folder() == package / "_benchmarks"


def test_the_wheel_is_told_to_carry_them() -> None:
    text = (benchmarking.folder().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"benchmarks/speed" = "frustum/_benchmarks"' in text


REAL = {b.name: b for b in benchmarking.find()}


def test_the_real_ones_are_found() -> None:
    assert {"bev_pool", "forward", "loading", "step", "rayiou", "street_world"} <= set(REAL)


@pytest.mark.parametrize("name", REAL)
def test_every_benchmark_has_the_form(name: str) -> None:
    """A line that says what it measures, the command that runs it, and --json and --quick."""
    benchmark, text = REAL[name], REAL[name].path.read_text(encoding="utf-8")
    assert benchmark.about.endswith((".", "?"))
    assert f"python benchmarks/speed/{name}.py" in (ast.get_docstring(ast.parse(text)) or "")
    assert "benchmark_main(__doc__, measure)" in text or ("--json" in text and "--quick" in text)


def test_a_real_one_runs(tmp_path: Path) -> None:
    """The whole way of the smallest: measured, printed, written."""
    out = tmp_path / "bev_pool.json"
    command = [sys.executable, str(REAL["bev_pool"].path), "--quick", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (table,) = json.loads(out.read_text())["tables"]
    assert table["title"] in done.stdout
    errors = [row[-1] for row in table["rows"][:-1]]
    assert max(errors) < 1e-3, "all formulations compute the same"
    assert all(milliseconds > 0 for row in table["rows"] for milliseconds in row[1:2])
