"""3DPPE's claim runs from end to end at a tiny size, does nothing twice, and treats all arms alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.claims import ppe3d

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "model.pretrained=false", "model.channels=16", "model.queries=16", "model.layers=1", "model.heads=2", "model.hidden=32",
    "model.depth_bins=8", "model.depth_channels=8", "model.ray_depths=4",
]  # fmt: skip
ROW = {"lr": 1e-3, "recall": 0.5, "nd_score": 0.2, "mean_ate": 0.9, "loss": 1.0}
QUICK = ["--steps", "2", "--lr-steps", "1", "--seeds", "1", "--scenes", "1", "--val-scenes", "1", "--frames", "1", "--jobs", "1"]


def test_arms_differ_in_their_encoding_and_depth_alone() -> None:
    options = ppe3d.parse(["--world", "w"])
    recipes = {arm: ppe3d.recipe_of(arm, options, **{"train.steps": 7}) for arm in ppe3d.ARMS}
    point = recipes["point"]
    assert (point.train.steps, point.data.root, point.model.encoding, point.model.aids.votes) == (7, "w", "point3d", False)
    same = {
        "encoding": "point3d",
        "depth": "direct",
        "score_loss": point.model.score_loss,
        "depth_loss": point.model.depth_loss,
        "shared_embedding": True,
        "ray_depths": point.model.ray_depths,
        "ray_spacing": "lid",
    }
    for recipe in recipes.values():
        assert recipe.model_copy(update={"model": recipe.model.model_copy(update=same)}) == point
    assert [recipes[arm].model.encoding for arm in ppe3d.TABLE_5] == [
        *["camera_ray", "ray_mean", "feature_guided", "topk", "depth_guided_feature", "point3d", "point3d", "point3d_lidar"]
    ]
    assert not recipes["no_depth_loss"].model.learns_depth


def test_the_learning_rate_is_the_best_of_the_other_city(tmp_path: Path) -> None:
    options = ppe3d.parse(["--out", str(tmp_path), "--lr", "0.001", "0.002", "--seeds", "1", "--arms", "camera_ray", "point", "oracle"])
    tasks = ppe3d.tasks_of(options)
    for arm, best in (("camera_ray", "0.002"), ("point", "0.001"), ("oracle", "0.001")):
        for lr in ("0.001", "0.002"):
            tasks.write(f"choose+{arm}+{lr}", {"lr": float(lr), "mean_ap": 0.2 if lr == best else 0.1})
        assert ppe3d.finalists(arm, options) == [float(best)]
    assert ppe3d.collect(options)["accuracy"] == {}, "nothing is trained yet"
    for arm, lr, value in (("camera_ray", "0.002", 0.1), ("point", "0.001", 0.16), ("oracle", "0.001", 0.3)):
        tasks.write(f"train+{arm}+{lr}+0", ROW | {"mean_ap": value, "lr": float(lr)})
    accuracy = ppe3d.collect(options)["accuracy"]
    assert ppe3d._of_gap(accuracy, "point") == "30 %"
    assert ppe3d._of_gap({"point": accuracy["point"]}, "point") == "-"


def test_among_finalists_whole_trainings_in_the_other_city_decide(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path), "--lr", "0.001", "0.002", "0.004", "--seeds", "2", "--arms", "point", "--finalists", "2"]
    options = ppe3d.parse(words)
    tasks = ppe3d.tasks_of(options)
    for lr, value in (("0.001", 0.2), ("0.002", 0.3), ("0.004", 0.1)):
        tasks.write(f"choose+point+{lr}", {"lr": float(lr), "mean_ap": value})
    assert ppe3d.trainings("point", options, [0]) == ["train+point+0.002+0", "train+point+0.001+0"]
    for seed, lr, here, there in ((0, "0.002", 0.5, 0.1), (0, "0.001", 0.4, 0.2), (1, "0.002", 0.5, 0.1)):
        row = ROW | {"lr": float(lr), "mean_ap": here, "other_city": {"mean_ap": there}}
        tasks.write(f"train+point+{lr}+{seed}", row)
        chosen = ppe3d.runs_of("point", options)
    assert [row["lr"] for row in chosen] == [0.002, 0.002], "the other has one seed less"
    tasks.write("train+point+0.001+1", ROW | {"lr": 0.001, "mean_ap": 0.4, "other_city": {"mean_ap": 0.2}})
    assert [row["lr"] for row in ppe3d.runs_of("point", options)] == [0.001, 0.001]
    alone = ppe3d.parse([*words, "--finalists", "1"])
    assert alone.fingerprint == options.fingerprint
    assert [row["lr"] for row in ppe3d.runs_of("point", alone)] == [0.002, 0.002]


def test_results_in_the_json_are_not_made_again(tmp_path: Path) -> None:
    words = ["--json", str(tmp_path / "x.json"), "--steps", "5", "--arms", "point", "--lr", "1e-3"]
    first = ppe3d.parse(["--out", str(tmp_path / "one"), *words])
    row = ROW | {"mean_ap": 0.1}
    ppe3d.tasks_of(first).write("train+point+0.001+0", row)
    (tmp_path / "x.json").write_text(json.dumps(ppe3d.collect(first)))
    second = ppe3d.parse(["--out", str(tmp_path / "two"), *words])
    ppe3d.tasks_of(second).restore(second.json, second.fingerprint)
    assert ppe3d.tasks_of(second).read("train+point+0.001+0") == row
    assert ppe3d.runs_of("point", second) == [row]
    assert ppe3d.runs_of("point", ppe3d.parse(["--out", str(tmp_path / "two"), *words[:-1], "2e-3"])) == [], "another learning rate"
    other = ppe3d.parse(["optim.clip_norm=1", "--out", str(tmp_path / "one"), *words])
    assert not ppe3d.tasks_of(other).path("train+point+0.001+0").is_file(), "results with other settings are not taken for these"
    with pytest.raises(SystemExit, match="another budget"):
        ppe3d.tasks_of(second).restore(second.json, ppe3d.parse([*words, "--steps", "6"]).fingerprint)


@pytest.mark.slow
def test_from_end_to_end(tmp_path: Path) -> None:
    def run() -> tuple[str, dict]:
        words = [
            sys.executable,
            str(ROOT / "benchmarks/claims/ppe3d.py"),
            "model.dropout=0",
            *SMALL,
            "--out",
            str(tmp_path / "runs"),
            "--json",
        ]
        words += [str(tmp_path / "x.json"), *QUICK, "--arms", "camera_ray", "ray_mean", "point", "oracle", "--lr", "1e-3", "2e-3"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=1500)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, json.loads((tmp_path / "x.json").read_text())

    printed, numbers = run()
    assert "of the gap" in printed
    assert list(numbers["accuracy"]) == ["camera_ray", "ray_mean", "point", "oracle"]
    assert all(len(choices) == 2 for choices in numbers["learning_rates"].values())
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")}
    assert run()[1]["accuracy"] == numbers["accuracy"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")} == kept
