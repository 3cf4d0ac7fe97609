"""tools/bench_tables.py: figures of a benchmark run go into the documentation, and nothing else changes."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from frustum.errors import DataError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("bench_tables", ROOT / "tools" / "bench_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MACHINE = {
    "processor": "Sample CPU", "cores": 2, "torch_threads": 2, "python": "3.11.7", "torch": "2.13.0", "numba": "0.68.1", "frustum": "0.1",
    "load_before": 0.04,
}  # fmt: skip
REPORT = {
    "about": "Pooling.", "quick": False, "machine": MACHINE, "seconds": 3.0,
    "tables": [{"title": "Pooling", "columns": ["way", "ms"], "rows": [["plain", 20.0], ["quick one", None]], "note": "Medians."}],
}  # fmt: skip
PAGE = "# Speed\n\n<!-- bench bev_pool -->\nold\n<!-- end -->\n\nWords.\n\n<!-- bench step -->\nstays\n<!-- end -->\n"


def test_blocks_are_replaced(tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, figures = tmp_path / "performance.md", tmp_path / "bench.json"
    page.write_text(PAGE)
    figures.write_text(json.dumps({"quick": False, "benchmarks": {"bev_pool": REPORT, "other": {"rows": 1}}}))
    for _ in range(2):  # a second run changes nothing
        tool.main([str(figures), str(page)])
        text = page.read_text()
        assert "| quick one | - |" in text
        assert "`frustum bench bev_pool` on Sample CPU, 2 cores, 2 threads; python 3.11.7" in text
        assert "load 0.0 before the start" in text.replace("\n", " ")
        assert max(map(len, text.splitlines())) <= 120
        assert "old" not in text
        assert text.startswith("# Speed\n\n<!-- bench bev_pool -->\n")
        assert text.endswith("<!-- end -->\n\nWords.\n\n<!-- bench step -->\nstays\n<!-- end -->\n")
        assert "bev_pool" in capsys.readouterr().out


def test_a_report_may_name_its_command(tool) -> None:
    text, used = tool.filled("<!-- bench gpu -->\n<!-- end -->\n", {"gpu": {**REPORT, "command": "make gpu-check"}})
    assert used == ["gpu"]
    assert "`make gpu-check` on Sample CPU" in text


def test_quick_figures_are_refused(tool, tmp_path: Path) -> None:
    page, figures = tmp_path / "performance.md", tmp_path / "bench.json"
    page.write_text(PAGE)
    figures.write_text(json.dumps({"quick": True, "benchmarks": {"bev_pool": REPORT}}))
    with pytest.raises(DataError, match="Run `frustum bench` without --quick"):
        tool.main([str(figures), str(page)])
    assert page.read_text() == PAGE


def test_the_page_asks_for_benchmarks_that_exist(tool) -> None:
    wanted = [name for _, name, _ in tool.BLOCK.findall((ROOT / "docs" / "performance.md").read_text(encoding="utf-8"))]
    named = "bev_pool forward loading lift deform_conv detectors rotated_nms splat distillation step gpu"
    assert wanted == named.split()
    for name in wanted[:-1]:  # the last one is that of tools/gpu_check.py
        text = (ROOT / "benchmarks" / "speed" / f"{name}.py").read_text(encoding="utf-8")
        assert re.search(r"^from frustum.benchmark import .*benchmark_main", text, re.M), "has tables to put in"


def test_growth_is_read_from_the_table_of_the_benchmark(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("splat_figure", ROOT / "tools" / "splat_figure.py")
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    rows = [["1,200 Gaussians", 3.0, "█", 2.0, "█"], ["600 Gaussians", 2.0, "█", None, "-"], ["2 x 2 the pixels", 4.0, "█", 5.0, "█"]]
    rows += [["9,000 Gaussians, all of opacity 0.018", 9.0, "█", 9.0, "█"], ["8 channels", 1.0, "█", 1.0, "█"]]
    table = {"title": "How splatting grows, numba", "columns": [], "rows": rows, "note": "6 x 10 x 20 pixels, 5 Gaussians"}
    report = {"benchmarks": {"splat": {"tables": [table]}}}
    assert figure.curves(report) == {
        "Gaussians": [(600, 2.0, None), (1200, 3.0, 2.0)],
        "pixels": [(4 * 6 * 10 * 20, 4.0, 5.0)],
        "channels": [(8, 1.0, 1.0)],
    }
    (tmp_path / "bench.json").write_text(json.dumps(report))
    figure.main([str(tmp_path / "bench.json"), "--out", str(tmp_path / "deep" / "growth.png")])
    assert (tmp_path / "deep" / "growth.png").stat().st_size > 5000
    with pytest.raises(DataError, match="frustum bench splat --json"):
        figure.curves({"benchmarks": {}})
