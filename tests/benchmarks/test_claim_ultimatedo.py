"""UltimateDO's claim runs from end to end at a tiny size, does nothing twice, and takes differences seed by seed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.claims import ultimatedo
from benchmarks.claims.tasks import Tasks

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["model.pretrained=false", "model.neck_channels=8", "model.bev_channels=8", "model.voxel_channels=4", "model.lift_channels=4"]
QUICK = ["--steps", "2", "--seeds", "1", "--scenes", "1", "--val-scenes", "1", "--frames", "1", "--repeats", "1"]


def test_arms_differ_in_their_tasks_alone() -> None:
    options = ultimatedo.parse(["--steps", "7", "--world", "w", "optim.lr=0.01"])
    recipes = {arm: ultimatedo.recipe_of(arm, 3, options) for arm in ultimatedo.ARMS}
    first = recipes["joint-equal"]
    assert (first.train.steps, first.train.seed, first.data.root, first.optim.lr) == (7, 3, "w", 0.01)
    for recipe in recipes.values():
        assert recipe.model_copy(update={"model": first.model}) == first
        assert recipe.model.model_copy(update={"tasks": first.model.tasks}) == first.model
    tasks = {arm: (r.model.tasks.learns_boxes, r.model.tasks.learns_occupancy, r.model.tasks.exchanges) for arm, r in recipes.items()}
    assert tasks["detection"] == (True, False, False)
    assert tasks["occupancy"] == (False, True, False)
    assert tasks["joint-none"] == (True, True, False)
    assert all(tasks[f"joint-{priority}"] == (True, True, True) for priority in ("equal", "detection", "occupancy"))


def test_differences_are_those_of_the_same_seed() -> None:
    """Of a task that a network was not trained for, and of a seed that only one of two has, there is none."""
    runs = {
        "detection": {0: {"map": 0.1, "mate": 0.9}, 1: {"map": 0.3, "mate": 0.8}},
        "occupancy": {0: {"miou": 0.2, "ray_iou": None}},
        "joint-equal": {0: {"map": 0.2, "mate": 0.7, "miou": 0.1, "ray_iou": 0.1}, 1: {"map": 0.3, "mate": 0.9, "miou": 0.4}},
    }
    found = ultimatedo.joint_minus_single(runs)
    assert found.keys() == {"joint-equal"}
    assert found["joint-equal"].keys() == {"map", "mate", "miou"}
    assert found["joint-equal"]["map"]["values"] == pytest.approx([0.1, 0.0])
    assert found["joint-equal"]["mate"]["values"] == pytest.approx([-0.2, 0.1])
    assert found["joint-equal"]["miou"]["seeds"] == [0]


def test_what_is_finished_so_far_is_collected(tmp_path: Path) -> None:
    """The JSON is written after each run: a claim that was stopped leaves what it has."""
    options = ultimatedo.parse(["--out", str(tmp_path), "--steps", "7"])
    tasks = Tasks(Path(ultimatedo.__file__), tmp_path)
    assert ultimatedo.collect(options, tasks)["runs"] == {}
    row = {"seed": 1, "steps": 7, "map": 0.1, "recall": 0.5, "nds": 0.2, "mate": 0.9}
    tasks.write("train+detection+1", row)
    tasks.write("train+joint-none+1", row | {"map": 0.25, "miou": 0.3})
    numbers = ultimatedo.collect(options, tasks)
    assert numbers["runs"] == {"detection": [row], "joint-none": [row | {"map": 0.25, "miou": 0.3}]}
    assert numbers["accuracy"]["joint-none"]["miou"]["mean"] == 0.3
    assert numbers["joint_minus_single"]["joint-none"]["map"]["mean"] == pytest.approx(0.15)
    assert "miou" not in numbers["joint_minus_single"]["joint-none"]
    assert "network" not in numbers


def run(folder: Path) -> tuple[str, dict]:
    words = [sys.executable, str(ROOT / "benchmarks/claims/ultimatedo.py"), "--out", str(folder / "runs"), "--json", str(folder / "x.json")]
    done = subprocess.run([*words, *QUICK, *SMALL, "train.log_every=1"], capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((folder / "x.json").read_text())


@pytest.mark.slow
def test_from_end_to_end(tmp_path: Path) -> None:
    printed, numbers = run(tmp_path)
    for words in ("joint minus single, seeds 0", "joint-equal, mean", "most likely boxes", "ms a step"):
        assert words in printed
    assert numbers["runs"].keys() == ultimatedo.ARMS.keys() == numbers["network"].keys()
    for arm, (found,) in numbers["runs"].items():
        assert ("map" in found, "miou" in found) == (arm != "occupancy", arm != "detection")
        assert all(0 <= found[name] <= 1 for name in ("map", "recall", "nds", "miou", "ray_iou") if name in found)
    weights = {arm: found["parameters"] for arm, found in numbers["network"].items()}
    assert max(weights["detection"], weights["occupancy"]) < weights["joint-none"] < weights["joint-equal"]
    for arm in ("detection", "occupancy", "joint-equal"):
        assert all(memory["rise_mib"] > 0 for memory in numbers["network"][arm]["peak_memory_mib"].values())
    # a second call trains and measures nothing
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert run(tmp_path)[1] == numbers
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()} == kept
