"""tools/gpu_check.py: what it would do, and that a part which fails, crashes or hangs hides nothing. Its GPU is replaced here."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from frustum.engine.overrides import apply
from frustum.recipes.finding import get_recipe

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tools" / "gpu_check.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*words: str, script: Path = SCRIPT, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False, timeout=timeout)


def test_the_plan_names_every_part_and_stays_under_seven_minutes(tool):
    done = run("--plan")
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if not line.startswith("missing")]
    assert [line.split()[0] for line in lines] == [*tool.PARTS, "together"]
    assert sum(part.seconds for part in tool.PARTS.values()) <= 420
    assert f"at most {sum(part.seconds for part in tool.PARTS.values())} s" in lines[-1]


def test_without_a_gpu_it_says_so(monkeypatch, tool, capsys, tmp_path):
    monkeypatch.setattr(tool, "_sees_gpu", lambda: False)
    assert tool.main(["--out", str(tmp_path / "gpu")]) == 2
    assert "torch does not see a GPU here" in capsys.readouterr().err
    assert not (tmp_path / "gpu").exists()


def test_unknown_parts_are_named(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main(["forwards"])
    assert "no part 'forwards'; known: tests, training" in capsys.readouterr().err


def test_missing_packages_are_named(tool, monkeypatch):
    known = tool.importlib.util.find_spec
    monkeypatch.setattr(tool.importlib.util, "find_spec", lambda name: None if name in ("PIL", "pydantic", "triton") else known(name))
    found = tool.missing_packages()
    assert found["required"] == ["pillow", "pydantic"]
    assert found["for the fast kernels"] == ["triton"]
    monkeypatch.setattr(tool, "_sees_gpu", lambda: True)
    assert tool.main(["rays"]) == 2, "nothing is started that cannot run"


def test_a_package_that_refuses_another_is_named(tool, monkeypatch):
    def refuse(name):
        if name == "numba":
            raise ImportError("Numba needs NumPy 2.4 or less. Got NumPy 2.5.")

    monkeypatch.setattr(tool.importlib, "import_module", refuse)
    assert tool.missing_packages() == {"required": ["numba (ImportError: Numba needs NumPy 2.4 or less. Got NumPy 2.5.)"]}


BROKEN = '''
import os, sys, time
sys.path.insert(0, {tools!r})
import gpu_check
from tools.gpu_parts import Part

def table(name):
    from frustum.benchmark import Table
    return Table(name, ("what", "ms"), [("here", 1.0)])

def run_good(run):
    """All is well."""
    yield table("good")
    yield {{"bev_pool M1, forward, ms": 0.12, "M0, batch 1, half precision, frames/s": 100.0}}

def run_fails(run):
    """Raises."""
    yield table("before the failure")
    raise RuntimeError("a kernel gave a wrong number")

def run_crashes(run):
    """Dies."""
    yield table("before the crash")
    os.kill(os.getpid(), 9)

def run_hangs(run):
    """Never ends."""
    yield table("before the hang")
    time.sleep(600)

gpu_check.PARTS = {{name: Part(function, seconds) for name, function, seconds in (
    ("fails", run_fails, 60), ("crashes", run_crashes, 60), ("hangs", run_hangs, -9), ("good", run_good, 60))}}
gpu_check.__file__ = __file__
gpu_check._sees_gpu = lambda: True
sys.exit(gpu_check.main())
'''


def test_a_part_that_fails_crashes_or_hangs_hides_nothing(tool, tmp_path):
    script = tmp_path / "broken.py"
    script.write_text(BROKEN.format(tools=str(SCRIPT.parent)))
    done = run("--out", str(tmp_path / "gpu"), script=script)
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu" / "gpu.json").read_text())
    failed = {name: part["failed"] for name, part in report["parts"].items()}
    assert failed["good"] == ""
    assert failed["fails"].startswith("ended with code 1; the last line is: RuntimeError: a kernel gave a wrong number")
    assert failed["crashes"].startswith("ended with code -9")
    assert failed["hangs"].startswith("not done after 6 s")
    titles = [table["title"] for part in report["parts"].values() for table in part["tables"]]
    assert titles == ["before the failure", "before the crash", "before the hang", "good"], "what came before is kept"
    entry = report["benchmarks"]["gpu"]
    goals = {row[0]: row[3] for row in entry["tables"][0]["rows"]}
    assert goals["bev_pool M1, forward, ms"] == "yes"
    assert goals["M0, batch 1, half precision, frames/s"] == "no"
    assert list(goals.values()).count("not measured") == 2
    assert [row[1] for row in entry["tables"][1]["rows"]] == ["FAILED", "FAILED", "FAILED", "passed"]
    text = (tmp_path / "gpu" / "gpu.md").read_text()
    assert "**Goals**" in text
    assert "**before the hang**" in text
    assert "FAILED: fails, crashes, hangs" in done.stdout


def test_the_tables_go_into_the_documentation(tmp_path):
    script = tmp_path / "broken.py"
    script.write_text(BROKEN.format(tools=str(SCRIPT.parent)))
    assert run("good", "--out", str(tmp_path / "gpu"), script=script).returncode == 0
    page = tmp_path / "performance.md"
    page.write_text("<!-- bench gpu -->\nNot measured yet.\n<!-- end -->\n")
    done = run(str(tmp_path / "gpu" / "gpu.json"), str(page), script=ROOT / "tools" / "bench_tables.py")
    assert done.returncode == 0, done.stderr
    assert "`make gpu-check` on " in page.read_text()
    assert "**good**" in page.read_text()


def test_the_pooling_and_the_rays_on_a_cpu(tmp_path):
    """Two real parts with the stand-in; the slow test runs all."""
    done = run("pooling", "rays", "--stand-in", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["quick"], "so that these figures cannot get into the documentation"
    assert [len(part["tables"]) for part in report["parts"].values()] == [1, 1]


@pytest.mark.slow
def test_every_part_on_a_cpu(tool, tmp_path):
    done = run("--stand-in", "--out", str(tmp_path), timeout=3000)
    assert done.returncode == 1
    report = json.loads((tmp_path / "gpu.json").read_text())
    failed = {name: part["failed"] for name, part in report["parts"].items() if part["failed"]}
    assert list(failed) == ["tests"], "they are all skipped here"
    assert "none passed" in failed["tests"]
    assert list(report["parts"]) == list(tool.PARTS)
    assert all(part["tables"] for part in report["parts"].values())


# ---- what each part takes for a failure -------------------------------------------------------------------------------------------


device = importlib.import_module("tools.gpu_device")


@pytest.fixture(scope="module")
def parts(tool):
    return importlib.import_module("tools.gpu_parts")


def told(parts, function, gpu=None, out: Path = Path()) -> list:
    """What a part yields, with the message of its failure last."""
    found = []
    try:
        for result in function(device.Run(gpu or device.StandIn(), time.monotonic() + 100, out)):
            found.append(result)
    except RuntimeError as error:
        found.append(str(error))
    return found


@pytest.mark.parametrize(
    ("losses", "waits", "message"),
    [
        ([3.0, 2.0], 0, None),
        ([3.0, 3.5], 0, "the loss of flashocc-tiny does not fall: 3.000 to 3.500"),
        ([3.0, 2.0], 2, "flashocc-tiny waits 2 times inside forward"),
        ([3.0, float("nan")], 0, "the loss of flashocc-tiny does not fall: 3.000 to nan"),
    ],
)
def test_training_that_does_not_learn_or_waits_is_a_failure(parts, monkeypatch, losses, waits, message):
    steps = itertools.cycle([losses[0], *[losses[1]] * 49])
    network = SimpleNamespace(loss=lambda outputs, batch: {})
    stepper = SimpleNamespace(
        step=lambda batches: SimpleNamespace(loss=next(steps)),
        network=type("Network", (), {"__call__": lambda self, batch: {}, "loss": network.loss})(),
        accelerator=SimpleNamespace(device="cpu", autocast=contextlib.nullcontext),
    )
    batch = SimpleNamespace(to=lambda device: batch)
    recipe = SimpleNamespace(train=SimpleNamespace(accumulate=1))
    monkeypatch.setattr(parts, "SMALL", {"flashocc-tiny": "model"})
    monkeypatch.setattr(parts, "trainer", lambda *arguments: (stepper, batch, recipe))
    gpu = device.StandIn()
    gpu.count_waits = lambda run: waits
    table, *rest = told(parts, parts.run_training, gpu)
    assert (table.rows[0][2], table.rows[0][5]) == (losses[0], waits)
    assert rest == ([] if message is None else [message])


def test_splatting_that_disagrees_is_a_failure(parts, monkeypatch):
    from frustum.geometry import VoxelGrid
    from frustum.ops import splat as module

    real, grid = module.rasterize, VoxelGrid(lower=(-4, -4, -1), upper=(4, 4, 2.2), cell=(0.8, 0.8, 0.8))

    def wrong(*arguments, backend="auto"):
        found = real(*arguments, backend=backend)
        return found._replace(alpha=2 * found.alpha) if backend == "torch" else found

    monkeypatch.setattr("frustum.geometry.VoxelGrid", lambda **limits: grid)
    splats, rays = told(parts, parts.run_splatting)
    assert [row[0] for row in splats.rows] == [row[0] for row in rays.rows] == ["numba, CPU", "torch, cpu"]
    assert max(row[3] for table in (splats, rays) for row in table.rows) < 1e-4
    monkeypatch.setattr(module, "rasterize", wrong)
    _, message = told(parts, parts.run_splatting)
    assert message == "Splatting: the gradients of torch, cpu are not those of numba"


def test_rays_that_disagree_are_a_failure(parts, monkeypatch):
    from frustum.ops import raycast as module

    real = module.raycast

    def wrong(*arguments, threads=1, **options):
        hits = real(*arguments, **options)
        return hits if threads == 1 else hits._replace(labels=hits.labels * 0)

    monkeypatch.setattr(module, "raycast", wrong)
    table, message = told(parts, parts.run_rays)
    assert [row[2] for row in table.rows] == ["True", "False", "True", "True"]
    assert message == "the backends disagree"


def test_a_failing_gpu_test_is_named(parts, monkeypatch, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_kernel.py").write_text(
        "import pytest\n\n@pytest.mark.gpu\ndef test_good(): pass\n\n@pytest.mark.gpu\ndef test_bad(): assert 1 == 2\n"
    )
    monkeypatch.setattr(parts, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['gpu: needs a GPU']\n")
    first, last, message = told(parts, parts.run_tests, out=tmp_path)
    assert first.rows == [("test_kernel: test_good", "PASSED")], "written as it comes"
    assert last.rows == [("test_kernel: test_good", "PASSED"), ("test_kernel: test_bad", "FAILED")]
    assert message == "pytest ended with code 1; failed: test_kernel: test_bad"


def test_gpu_tests_that_are_all_skipped_are_a_failure(parts, monkeypatch, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_kernel.py").write_text("import pytest\n\n@pytest.mark.gpu\ndef test_one(): pytest.skip('no GPU')\n")
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['gpu: needs a GPU']\n")
    monkeypatch.setattr(parts, "ROOT", tmp_path)
    assert told(parts, parts.run_tests, out=tmp_path)[-1] == "pytest ended with code 0; failed: none, but none passed"


def test_a_graph_that_cannot_be_captured_leaves_the_other_figures(parts, monkeypatch):
    gpu = device.StandIn()

    def graph(run):
        if getattr(run, "func", None) is parts.with_gradients:
            raise RuntimeError("operation not permitted when stream is capturing")
        return run

    gpu.graph = graph
    *tables, forward, both, message = told(parts, parts.run_pooling, gpu)
    assert tables[0].rows[0][3] is None
    assert tables[-1].rows[0][3] > 0
    assert [row[4] for row in tables[-1].rows] == [None] * 4
    assert next(iter(forward.values())) > 0
    assert next(iter(both.values())) > 0
    assert message.count("stream is capturing") == 3


@pytest.mark.parametrize("name", ["M0", "M1", "panoptic-tiny"])
def test_networks_run_with_half_weights(parts, name):
    """What the stand-in, which computes in float32, does not try."""
    recipe = apply(get_recipe(parts.LARGE[name]), device.SHRUNK)
    network = parts.half_weights(recipe.model.build().eval())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = network(parts.generated(recipe, 1))
    assert torch.isfinite(outputs["occ_logits"].float()).all()
    assert sum(p.dtype == torch.bfloat16 for p in network.parameters()) > 50


def test_compiling_is_left_out_where_no_time_is_left(parts, monkeypatch):
    monkeypatch.setattr(parts, "LARGE", {"M0": "flashocc-r50-m0"})
    run = device.Run(device.StandIn(), time.monotonic() - 1, Path())
    *_, first, second = list(parts.run_forward(run))
    assert first == {"not measured: M0, batch 1, compiled": "no time was left"}
    assert second == {"not measured: M0, batch 2, compiled": "no time was left"}
