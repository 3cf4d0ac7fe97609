"""The claims' benchmarks run from end to end at a tiny size, and do nothing twice."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.claims import flashocc, measuring
from frustum.recipes.finding import get_recipe

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["model.pretrained=false", "model.neck_channels=8", "model.bev_channels=8", "model.voxel_channels=4", "model.lift_channels=4"]
QUICK = ["--steps", "2", "--seeds", "1", "--scenes", "1", "--val-scenes", "1", "--frames", "1", "--repeats", "1", "--without-parts"]


def run(folder: Path) -> dict:
    words = [sys.executable, str(ROOT / "benchmarks/claims/flashocc.py"), "--out", str(folder / "runs"), "--json", str(folder / "x.json")]
    done = subprocess.run([*words, *QUICK, *SMALL, "train.log_every=1"], capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "peak memory, training" in done.stdout
    return json.loads((folder / "x.json").read_text())


@pytest.mark.slow
def test_flashocc(tmp_path):
    numbers = run(tmp_path)
    assert set(numbers["runs"]) == {"flashocc-tiny", "bevdet-occ-tiny"}
    for name, runs in numbers["runs"].items():
        assert [r["seed"] for r in runs] == [0]
        assert all(r["steps"] == 2 and 0 <= r["miou"] <= 1 and 0 <= r["ray_iou"] <= 1 for r in runs)
        found = numbers["accuracy"][name]["miou"]
        assert found["mean"] == pytest.approx(statistics.fmean(r["miou"] for r in runs))
        network = numbers["network"][name]
        assert network["latency_ms"] > 0
        assert 0 < network["occupancy_parameters"] < network["parameters"]
        for kind in ("prediction", "training"):
            peaks = network["peak_memory_mib"][kind]
            assert 0 < peaks["rise_mib"] < peaks["peak_mib"]
    pairs = zip(numbers["runs"]["flashocc-tiny"], numbers["runs"]["bevdet-occ-tiny"], strict=True)
    differences = [flat["miou"] - solid["miou"] for flat, solid in pairs]
    assert numbers["accuracy"]["difference"]["miou"]["mean"] == pytest.approx(statistics.fmean(differences))
    # a second call trains and measures nothing
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    again = run(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()} == kept
    assert again["runs"] == numbers["runs"]
    assert again["network"] == numbers["network"]


def test_a_failed_run_shows_the_end_of_its_log(tmp_path):
    options = flashocc.parse(["--out", str(tmp_path)])
    log = tmp_path / "logs" / "train+flashocc-tiny+0.log"
    log.parent.mkdir()
    log.write_text("one\ntwo\n")
    with pytest.raises(SystemExit, match=r"exit status 3(?s:.)*two"):
        flashocc.tasks_of(options).check("train+flashocc-tiny+0", 3)


def test_steps_done_are_read_from_the_log_of_the_run(tmp_path):
    options = flashocc.parse(["--out", str(tmp_path)])
    assert flashocc.steps_done("train+flashocc-tiny+1", options) == 0
    (tmp_path / "flashocc-tiny-1").mkdir()
    (tmp_path / "flashocc-tiny-1" / "metrics.jsonl").write_text('{"step": 10}\n{"step": 20}\n')
    assert flashocc.steps_done("train+flashocc-tiny+1", options) == 20


def test_both_networks_get_the_same_settings():
    options = flashocc.parse(["--steps", "7", "--world", "w", "optim.lr=0.01"])
    flat, solid = (flashocc.recipe_of(name, 2, options) for name in (flashocc.FLAT, flashocc.SOLID))
    assert flat.model_dump(exclude={"name", "model"}) == solid.model_dump(exclude={"name", "model"})
    assert (flat.train.steps, flat.train.seed, flat.data.root, flat.optim.lr) == (7, 2, "w", 0.01)


def test_mean_and_spread():
    assert measuring.mean_and_spread([1.0, 3.0]) == {"mean": 2.0, "std": pytest.approx(2**0.5), "values": [1.0, 3.0]}
    assert measuring.mean_and_spread([1.0])["std"] is None


@pytest.mark.parametrize(("name", "gmacs"), [("flashocc-r50-m0", 60.95), ("flashocc-r50", 155.3)])
def test_multiply_adds_of_the_published_parts(name, gmacs):
    """Against counts made on the reference implementation: encoder 17.69, neck 33.10 or 102.89, head 10.16 or 34.73 (10^9)."""
    assert measuring.multiply_adds(measuring.OccupancyPart(get_recipe(name))) == pytest.approx(gmacs, rel=0.01)


def test_multiply_adds_of_the_3d_part():
    """By hand: 3x3x3 convolutions at 640,000 voxels, an eighth and a 64th of them, and the head."""
    voxels = 200 * 200 * 16
    first = 3 * 27 * 32 * 32 * voxels
    second = 27 * (2 * 32 * 64 + 3 * 64 * 64) * voxels / 8
    third = 27 * (2 * 64 * 128 + 7 * 128 * 128) * voxels / 64
    rest = (224 * 32 + 27 * 32 * 32 + 32 * 64 + 64 * 18) * voxels
    part = measuring.OccupancyPart(get_recipe("bevdet-occ-r50"))
    assert measuring.parameters(part) == 4_067_392 + 7_232 + 30_962
    assert measuring.multiply_adds(part) == pytest.approx((first + second + third + rest) / 1e9, abs=0.01)


def test_a_part_answers_for_every_voxel():
    recipe = get_recipe("flashocc-r50-m0")
    part = measuring.OccupancyPart(recipe).to("meta")
    assert part(part.example().to("meta")).shape == (1, 200, 200, 16, 18)
    solid = measuring.OccupancyPart(get_recipe("bevdet-occ-r50")).to("meta")
    assert solid.example().shape == (1, 16 * 32, 200, 200)
    assert solid(solid.example().to("meta")).shape == (1, 200, 200, 16, 18)


def test_peak_memory_sees_an_allocation_that_is_gone_again():
    found = measuring.peak_rise(lambda: torch.ones(40 * 2**20 // 4).sum().item())
    assert 39 < found["rise_mib"] < 80
    assert found["peak_mib"] > found["rise_mib"]


def test_jobs_take_turns():
    order = []
    measuring.in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2, warm_up=1)
    assert order == ["a", "b"] * 3
