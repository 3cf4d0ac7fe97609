"""GSRender's claim: arms of a group differ in what the group is about alone, thresholds and duplicates are counted right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.claims import gsrender, readout
from frustum.data.labels.view_points import MOVING
from frustum.data.sample import Occupancy
from frustum.engine.recipe import Recipe
from frustum.geometry import VoxelGrid
from frustum.models.view_rendering import read_voxels
from frustum.recipes.finding import get_recipe
from frustum.tasks.occupancy import TrueOccupancy
from frustum.types.classes import IGNORE, OCC3D_CLASSES
from frustum.types.predictions import PredictedOccupancy, Prediction

ROOT = Path(__file__).resolve().parents[2]
GRID = VoxelGrid(lower=(0, 0, 0), upper=(8, 2, 1), cell=(1, 1, 1))
VARIED = {
    "samples": {"model.renderer", "model.step"},
    "loss": {"model.loss.depth", "model.loss.free_weight", "model.loss.normalise", "model.loss.sparsity", "model.loss.window_share"},
    "shifts": {"model.head.mean_shift", "model.head.scale_shift"},
    "readout": {"model.readout", "model.threshold"},
    "compensation": {"model.compensation", "model.views.adjacent", "model.views.drawn"},
    "interval": {"model.views.adjacent"},
    "dynamic": {"model.views.moving_weight", "model.loss.moving_weight", "model.views.uncovered"},
    "labels3d": set(),
    "mixed": {"data.labelled_share", "data.labelled_only", "data.labelled_repeat", "model.render"},
}
SHARED = ("data", "augment", "optim", "ema", "train", "runtime", "eval")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def varied(recipes: list[Recipe]) -> set[str]:
    """Settings in which any of them differ; `model.render` as a whole."""
    rows = [flat(recipe.model_dump(exclude={"name"})) for recipe in recipes]
    keys = {key for row in rows for key in row if any(row.get(key) != other.get(key) for other in rows)}
    return {"model.render" if key.startswith("model.render.") else key for key in keys}


@pytest.fixture(scope="module")
def recipes() -> dict[str, Recipe]:
    options = gsrender.parse(["--steps", "7", "--world", "w", "eval.every=3"])
    return {arm: gsrender.recipe_of(arm, 5, options) for arm in options.arms}


def test_arms_of_a_group_differ_in_what_it_is_about_alone(recipes: dict[str, Recipe]) -> None:
    assert recipes.keys() == gsrender.ARMS.keys() - {"kitti"}, "every arm is in a group"
    for group, arms in gsrender.GROUPS.items():
        by_recipe: dict[str, list[Recipe]] = {}
        for arm in arms:
            by_recipe.setdefault(type(recipes[arm].model).__name__, []).append(recipes[arm])
        assert set().union(*map(varied, by_recipe.values())) == VARIED[group], group
    hidden = recipes["labels10"].data.labelled_share, recipes["labels10-render"].data.labelled_share
    assert hidden == (0.1, 0.1)


def test_all_arms_have_the_same_budget_and_networks_the_same_trunk(recipes: dict[str, Recipe]) -> None:
    first = recipes["gaussians"]
    assert (first.train.steps, first.train.seed, first.data.root, first.eval.every, first.optim.lr) == (7, 5, "w", 3, 4e-3)
    for recipe in recipes.values():
        shares = {"labelled_share": 1.0, "labelled_only": False, "labelled_repeat": 1}
        assert recipe.data.model_copy(update=shares) == first.data
        assert all(getattr(recipe, name) == getattr(first, name) for name in SHARED if name != "data")
    for ours, others in (("gaussians", "traversal"), ("gaussians-silog", "traversal-silog")):
        one, other = recipes[ours].model, recipes[others].model
        assert one.learns_from() == other.learns_from()
        assert all(getattr(one, name) == getattr(other, name) for name in ("trunk", "loss", "class_weights"))
        assert one.head.opacity_bias == other.density_bias
    assert recipes["labels3d"].model == first.model.trunk.flashocc_tiny


def test_what_the_arms_are(recipes: dict[str, Recipe]) -> None:
    for n in gsrender.SAMPLES:
        model = recipes[f"march-{n}"].model
        assert (model.renderer, round(gsrender.RAY / model.step), model.loss.depth) == ("march", n, "silog")
    assert recipes["gaussians"].model.compensation == "none"
    near = recipes["camera-3"].model
    assert (near.compensation, near.views.adjacent, near.views.drawn) == ("camera", (-3, 3), 1)
    kept = recipes["moving-kept"].model
    assert kept.views.moving_weight == kept.loss.moving_weight == 1
    assert recipes["camera-1"].model.views.moving_weight == 0, "never drawn"


def test_arms_are_chosen_by_group_or_name() -> None:
    options = gsrender.parse(["--arms", "loss", "gaussians", "camera-2"])
    assert options.arms == [*gsrender.GROUPS["loss"], "camera-2"]
    assert gsrender.parse([]).fingerprint == options.fingerprint != gsrender.parse(["--steps", "9"]).fingerprint


# ---- duplicates and thresholds ---------------------------------------------------------------------------------------------------


def test_runs_along_a_ray_counted_by_hand() -> None:
    volume = np.zeros(GRID.shape, bool)
    volume[[1, 2, 4, 7], 0, 0] = True
    along = np.array([[1.0, 0, 0], [-1.0, 0, 0], [0, 1.0, 0], [0.0, 0, 1]])
    assert readout.occupied_runs([volume, ~volume], GRID, np.array([0.5, 0.5, 0.5]), along, far=8).tolist() == [[3, 0, 0, 0], [3, 1, 1, 1]]
    assert readout.occupied_runs([volume], GRID, np.array([0.5, 0.5, 0.5]), along[:1], far=4).tolist() == [[2]], "it ends at 4.5 m"
    before, slanted = np.array([-3.0, 0.5, 0.5]), np.array([[0.8, 0.6, 0]])
    assert readout.occupied_runs([volume], GRID, before, along[:1], far=30).tolist() == [[3]], "it begins outside"
    assert readout.occupied_runs([volume], GRID, np.array([0.5, 0.5, 0.5]), slanted, far=8).tolist() == [[1]], (
        "it leaves the row at x = 1.17"
    )


def test_rays_go_to_points_nearby() -> None:
    pose = np.eye(4)
    pose[:3, 3] = [1, 0, 2]
    points = np.array([[10, 0, 0, 0, 0], [0, 40, 0, 0, 0], [0.5, 0, 0, 0, 0], [0, 0, -2, 0, 0]], np.float32)
    lidar = SimpleNamespace(ego2global=np.eye(4), lidar2ego=pose, load=lambda: points)
    origin, ways = readout.lidar_rays(SimpleNamespace(ego2global=np.eye(4), lidar=lidar))  # type: ignore[arg-type]
    assert origin.tolist() == [1, 0, 2]
    np.testing.assert_allclose(ways, [[1, 0, 0], [0, 0, -1]])


def test_the_best_threshold_is_the_lowest_of_the_best() -> None:
    assert readout.best_of({"0.01": 0.1, "0.05": 0.3, "0.08": 0.3, "0.5": float("nan")}) == 0.05
    assert readout.best_of({"0.02": float("nan"), "0.03": float("nan")}) == 0.02


class Fixed(nn.Module):
    """Says of three voxels in a row how opaque they are."""

    def __init__(self) -> None:
        super().__init__()
        self.config, self.calls = get_recipe("renderocc-mini").model, 0

    def forward(self, batch: Any) -> torch.Tensor:
        self.calls += 1
        return torch.tensor([0.04, 0.1, 0.6]).expand(1, 1, 1, 3)

    def predict(self, outputs: torch.Tensor, batch: Any) -> list[Any]:
        logits = torch.zeros(*outputs.shape, 17)
        found = read_voxels(outputs, logits, self.config.threshold, GRID, OCC3D_CLASSES[:-1])
        return [Prediction(token, occupancy) for token, occupancy in zip(batch.tokens, found, strict=True)]


def test_a_network_runs_once_for_all_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [SimpleNamespace(tokens=[token], to=lambda device: SimpleNamespace(tokens=["a"])) for token in ("a",)]
    labels = SimpleNamespace(semantics=np.array([[[17, 0, 0]]], np.uint8), mask_camera=np.ones((1, 1, 3), np.uint8))
    monkeypatch.setattr(readout, "evaluation_batches", lambda *_: iter(batches))
    monkeypatch.setattr(readout, "occupancy_of", lambda *_: iter([labels]))
    source: Any = SimpleNamespace(tokens=lambda split: ["a"], hides_labels=lambda token: False)
    network = Fixed()
    miou = readout.sweep(get_recipe("renderocc-mini"), network, source)
    assert network.calls == 1
    assert network.config.threshold == 0.05, "it is put back"
    found = {name: round(value, 3) for name, value in miou.items() if value == value}
    assert (found["0.03"], found["0.05"], found["0.12"]) == (0.667, 1.0, 0.5)
    assert readout.best_of(miou) == 0.05


def test_a_voxel_is_occupied_where_that_is_likely_enough() -> None:
    """Three classes, the last one free: of those that are left the likeliest."""
    logits = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6], [0.05, 0.05, 0.9]]).log()
    classes = {at: readout.at_least(logits, at).argmax(-1).tolist() for at in (0.05, 0.3, 0.5, 0.9)}
    assert classes == {0.05: [0, 1, 0], 0.3: [0, 1, 2], 0.5: [0, 2, 2], 0.9: [2, 2, 2]}


def test_figures_of_moving_and_of_static_classes() -> None:
    free, car, road, wall = (OCC3D_CLASSES.index(name) for name in ("free", "car", "driveable_surface", "manmade"))
    assert "car" in MOVING
    true = np.full(GRID.shape, free, np.uint8)
    true[:, :, 0] = [[car, road]] * 4 + [[wall, road]] * 4
    guess = true.copy()
    guess[:2, 0] = free  # half of the cars
    guess[4:, 0] = road  # no wall, and road where there is none
    mask = np.ones(GRID.shape, np.uint8)
    labels = SimpleNamespace(semantics=true, mask_camera=mask, mask_lidar=mask)
    one = readout.Score()
    part = PredictedOccupancy(torch.from_numpy(guess), GRID, OCC3D_CLASSES)
    rays = np.array([0.5, 0.5, 0.5]), np.array([[1.0, 0, 0]])
    one.add("a", part, TrueOccupancy(None, "a", labels), rays)  # type: ignore[arg-type]
    found = one.figures()
    assert found["class_iou"] == pytest.approx({"car": 0.5, "driveable_surface": 2 / 3, "manmade": 0})
    assert (found["moving"], found["static"], found["ray_iou"]) == (0.5, pytest.approx(1 / 3), None)
    assert (found["runs"], found["true_runs"], found["excess"]) == (1, 1, 0)


def test_shapes_are_scored_without_classes_and_without_the_ground() -> None:
    free, car, road, wall = (OCC3D_CLASSES.index(name) for name in ("free", "car", "driveable_surface", "manmade"))
    mask = np.ones((1, 1, 6), np.uint8)
    labels = readout.true_shape(Occupancy(np.array([[[free, car, road, wall, IGNORE, road]]], np.uint8), mask, mask))
    assert labels.semantics.tolist() == [[[free, wall, wall, wall, IGNORE, wall]]], "rays still end on the ground"
    assert labels.mask_camera.tolist() == labels.mask_lidar.tolist() == [[[1, 1, 0, 1, 1, 0]]]
    part = PredictedOccupancy(torch.tensor([[[car, free, road, free, wall, free]]], dtype=torch.uint8), GRID, OCC3D_CLASSES)
    shape = readout.shape_of(part).semantics
    assert (shape.tolist(), shape.dtype) == ([[[wall, free, wall, free, wall, free]]], torch.uint8)


# ---- all results ------------------------------------------------------------------------------------------------------------------


def row(seed: int, miou: float, threshold: float | None = 0.05, **figures: float) -> dict[str, Any]:
    values = {
        "miou": miou,
        "ray_iou": miou + 0.02,
        "geometric_iou": 0.3,
        "moving": 0.1,
        "static": 0.2,
        "runs": 1.5,
        "true_runs": 1.4,
        "excess": 0.1,
    }
    found = {"seed": seed, "steps": 7, "threshold": threshold, "chosen": values | figures}
    return found if threshold is None else found | {"own": values | {"miou": miou / 2}}


@pytest.fixture
def finished(tmp_path: Path) -> Any:
    options = gsrender.parse(["--out", str(tmp_path / "runs"), "--json", str(tmp_path / "x.json"), "--steps", "7"])
    tasks = gsrender.tasks_of(options)
    tasks.write("blind", row(0, 0.04)["chosen"] | {"name": "blind prior"})
    levels = {"march-32": 0.06, "march-64": 0.07, "march-128": 0.09, "march-256": 0.08, "gaussians-silog": 0.1, "gaussians": 0.07}
    for arm, miou in levels.items():
        for seed in (0, 1):
            tasks.write(gsrender.training(arm, seed, options), row(seed, miou + 0.02 * seed))
    for arm, miou in (("traversal", 0.09), ("camera-1", 0.07)):
        tasks.write(gsrender.training(arm, 1, options), row(1, miou, runs=1.38, excess=0.02))
    tasks.write(gsrender.training("labels3d", 0, options), row(0, 0.14, threshold=None))
    return options


def test_gaps_and_statements(finished: Any) -> None:
    numbers = gsrender.collect(finished)
    accuracy, gap = numbers["accuracy"], numbers["gap_closed"]
    assert accuracy["march-32"]["chosen"]["miou"]["mean"] == pytest.approx(0.07)
    assert accuracy["march-32"]["own"]["miou"]["values"] == pytest.approx([0.03, 0.04])
    assert "own" not in accuracy["labels3d"]
    assert gap["march-32"] == pytest.approx({"miou": 0.3, "ray_iou": 0.3})
    assert gap["labels3d"]["miou"] == pytest.approx(1)
    assert gsrender.gap_closed(0.1, 0.2, 0.2) is None
    found = {entry["statement"]: entry for entry in numbers["statements"]}

    def about(*words: str) -> dict[str, Any]:
        (entry,) = [entry for text, entry in found.items() if all(word in text for word in words)]
        return entry

    moved = about("number of samples along a ray", "best threshold")
    assert (moved["values"], moved["held"]) == (pytest.approx([0.03, 0.03]), False)
    above = about("above the best of them")
    assert (above["values"], above["held"]) == (pytest.approx([0.01, 0.01]), True)
    fewer = about("(camera)", "fewer duplicates")
    assert (fewer["values"], fewer["held"], fewer["unit"]) == (pytest.approx([0.08]), True, "runs"), "of the seed that both have"
    assert about("(camera)", "better than none")["held"] is False
    assert not any("resample" in text or "shifts" in text for text in found), "nothing is known of them"


def test_tables(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    gsrender.show(gsrender.collect(finished))
    printed = capsys.readouterr().out
    for words in ("blind prior", "gap mIoU", "7.00 +- 1.41", "0.05, 0.05", "not held  mIoU of RenderOcc", "held      Gaussians, which"):
        assert words in printed
    assert "interval" in printed
    assert "no-shifts" not in printed


def test_kitti_is_beside_the_groups(tmp_path: Path, finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    options = gsrender.parse(["--out", str(tmp_path / "runs"), "--steps", "7", "--kitti", "drive"])
    recipe, tasks = gsrender.recipe_of("kitti", 0, options), gsrender.tasks_of(options)
    assert (recipe.data.root, recipe.model.views.source, recipe.train.steps) == ("drive", "lidar", 7)
    tasks.write("blind+kitti", row(0, 0.2)["chosen"] | {"name": "blind prior"})
    tasks.write(gsrender.training("kitti", 0, options), row(0, 0.25))
    numbers = gsrender.collect(options)
    assert "kitti" not in numbers["accuracy"]
    assert numbers["kitti"]["depth alone"]["chosen"]["miou"]["mean"] == 0.25
    gsrender.show(numbers)
    assert "depth alone" in capsys.readouterr().out


def test_results_in_the_json_are_not_made_again(finished: Any, tmp_path: Path) -> None:
    numbers = gsrender.collect(finished)
    assert str(tmp_path) not in json.dumps(numbers)
    finished.json.write_text(json.dumps(numbers))
    second = gsrender.parse(["--out", str(tmp_path / "two"), "--json", str(finished.json), "--steps", "7", "--arms", "shifts"])
    gsrender.tasks_of(second).restore(second.json, second.fingerprint)
    assert gsrender.collect(second)["accuracy"] == numbers["accuracy"]
    with pytest.raises(SystemExit, match="another budget"):
        gsrender.tasks_of(second).restore(second.json, gsrender.parse(["--steps", "8"]).fingerprint)


def test_an_arm_that_changed_is_another_result(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gsrender.ARMS, "gaussians", gsrender.Arm("gsrender-mini", ("model.compensation=none", "model.width=200")))
    assert "gaussians" not in gsrender.collect(finished)["accuracy"]
    assert "march-32" in gsrender.collect(finished)["accuracy"]


@pytest.mark.slow
def test_from_end_to_end(tmp_path: Path) -> None:
    arms = ["march-32", "gaussians", "labels3d"]

    def run(*more: str) -> tuple[str, dict]:
        words = [sys.executable, str(ROOT / "benchmarks/claims/gsrender.py"), "--out", str(tmp_path / "runs"), "--json"]
        words += [str(tmp_path / "x.json"), "--steps", "2", "--seeds", "1", "--scenes", "1", "--val-scenes", "1", "--frames", "2"]
        done = subprocess.run([*words, "--arms", *arms, *more], capture_output=True, text=True, check=False, timeout=1500)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, json.loads((tmp_path / "x.json").read_text())

    printed, numbers = run()
    assert "gap mIoU" in printed
    assert list(numbers["accuracy"]) == arms
    assert set(numbers["accuracy"]["gaussians"]) == {"seeds", "thresholds", "chosen", "own"}
    assert 1 < numbers["blind"]["true_runs"] < 2
    rows = [found for name, found in numbers["results"].items() if "march-32" in name]
    assert [list(found["sweep"]) for found in rows] == [[f"{threshold:g}" for threshold in readout.THRESHOLDS]]
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")}
    assert run("--finished")[1]["accuracy"] == run()[1]["accuracy"] == numbers["accuracy"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")} == kept
