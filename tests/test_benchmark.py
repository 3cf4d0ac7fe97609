"""Measuring in turn, tables as text, and the command line of a benchmark."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from frustum.benchmark import Table, Timing, benchmark_main, describe, machine, processor_name, take_turns
from frustum.types.table import show


def test_jobs_take_turns_and_warm_up_is_not_counted():
    order = []
    times = take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3, warm_up=2)
    assert order == ["a", "b"] * 5
    assert {name: len(timing.seconds) for name, timing in times.items()} == {"a": 3, "b": 3}


def test_what_is_slower_takes_longer():
    times = take_turns({"short": lambda: time.sleep(0.001), "long": lambda: time.sleep(0.02)}, repeats=3)
    assert 0.001 <= times["short"].median < times["long"].median
    assert times["long"].median >= 0.02


def test_median_and_spread():
    timing = Timing((1.0, 100.0, 2.0, 3.0, 4.0))
    assert timing.median == 3.0, "one disturbed round does not matter"
    assert timing.spread == pytest.approx((4.0 - 2.0) / 3.0)
    assert math.isnan(Timing((1.0,)).spread)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "-"), (float("nan"), "-"), ("plain", "plain"), (0, "0"), (7, "7"), (185856, "185,856"), (1234.5, "1,234"),
        (99.94, "99.9"), (12.345, "12.3"), (0.12345, "0.123"), (0.00123, "0.00123"), (1.7e-5, "1.7e-05"), (-250.4, "-250"),
    ],
)  # fmt: skip
def test_numbers_are_shown_with_three_digits(cell, text):
    assert show(cell) == text


TABLE = Table("Pooling", ("way", "ms", "x plain"), [("plain", 20.0, 1.0), ("quick one", 2.5, 8.0)], "Of three.")


def test_table_as_text():
    assert TABLE.plain().splitlines() == [
        "Pooling",
        "  way         ms  x plain",
        "  plain       20        1",
        "  quick one  2.5        8",
        "  Of three.",
    ]


def test_table_as_markdown():
    assert TABLE.markdown().splitlines() == [
        "**Pooling**",
        "",
        "| way | ms | x plain |",
        "| --- | ---: | ---: |",
        "| plain | 20 | 1 |",
        "| quick one | 2.5 | 8 |",
        "",
        "Of three.",
    ]


def test_rows_must_fit_the_columns():
    with pytest.raises(ValueError, match="'short' has 1 cells for 2 columns"):
        Table("Wrong", ("way", "ms"), [("plain", 1.0), ("short",)])


def test_machine_names_what_figures_depend_on():
    import torch

    found = machine()
    assert found["torch"] == torch.__version__
    assert found["cores"] >= 1
    assert found["processor"] == processor_name() != ""
    line = describe(found | {"load_before": 0.25})
    assert f"torch {torch.__version__}" in line
    assert line.endswith("load 0.2 before the start")
    assert "load" not in describe(found | {"load_before": None})


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    asked = []

    def measure(quick: bool):
        asked.append(quick)
        yield TABLE

    out = tmp_path / "deep" / "figures.json"
    benchmark_main("What it measures.\n\nMore.", measure, ["--quick", "--json", str(out)])
    assert asked == [True]
    assert TABLE.plain() in capsys.readouterr().out
    report = json.loads(out.read_text())
    assert report["about"] == "What it measures."
    assert report["quick"] is True
    assert report["seconds"] >= 0
    assert report["tables"][0]["rows"] == [["plain", 20.0, 1.0], ["quick one", 2.5, 8.0]]
    benchmark_main("What it measures.", measure, [])
    assert asked == [True, False]


def test_one_thread_is_no_threads():
    about = {"processor": "CPU", "cores": 1, "torch_threads": 1, "python": "3", "torch": "2", "numba": "0", "frustum": "0"}
    assert describe(about).startswith("CPU, 1 core, 1 thread; python 3")
    assert describe(about | {"cores": 2, "torch_threads": 2}).startswith("CPU, 2 cores, 2 threads; ")
