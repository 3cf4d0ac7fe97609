"""The demo, shortened: all stages, resuming, the plan; and its parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from frustum.cli import demo
from frustum.cli.demo import run_demo, verdict
from frustum.engine.reports import EvalReport
from frustum.errors import ConfigError
from frustum.worlds.street.world_config import WorldConfig
from tests.cli.conftest import Run

SMALL = ["model.pretrained=false", "model.bev_channels=8", "train.checkpoint_every=2", "train.log_every=1", "runtime.precision=fp32"]


def report(name: str, miou: float, rays: float, images: str = "as they are") -> EvalReport:
    masks = ("camera", "lidar", "none")
    metrics = {
        "miou": dict.fromkeys(masks, miou),
        "geometric_iou": dict.fromkeys(masks, 0.4),
        "geometric_iou_above_ground": dict.fromkeys(masks, 0.1),
        "ray_iou": {"mean": rays, "1": rays, "2": rays, "4": rays},
        "class_iou": {mask: {} for mask in masks},
        "class_ray_iou": None,
        "mask_share": dict.fromkeys(masks, 0.1),
        "occupied_share": dict.fromkeys(masks, 0.1),
    }
    return EvalReport(name, "val", 1, 1, images, {"occupancy": metrics}, 1.0)


def test_verdict() -> None:
    good = verdict(report("model", 0.1, 0.12), report("prior", 0.04, 0.03, "none"), report("black", 0.01, 0.01, "black"))
    assert good[0].startswith("Against the prior: mIoU 10.0 against 4.0 (2.5 times); ")
    assert "RayIoU 12.0 against 3.0 (4.0 times)" in good[0]
    assert good[1].endswith("it uses the images.")
    bad = verdict(report("model", 0.1, 0.12), report("prior", 0.04, 0.03), report("black", 0.05, 0.01))
    assert "not below the prior" in bad[1]


def test_verdict_without_a_base() -> None:
    assert "times)" not in verdict(report("m", 0.1, 0.1), report("p", 0.0, 0.0), report("b", 0.0, 0.0))[0].split(";")[0]


def test_peak_memory_is_plausible() -> None:
    peak = demo.peak_memory_gib()
    assert peak is None or 0.05 < peak < 64


def test_another_seed_is_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def generate(config: WorldConfig, root: Path) -> None:
        made.append(config.seed)
        raise KeyboardInterrupt  # before there is a plan

    monkeypatch.setattr(demo, "generate_world", generate)
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path, seed=3)
    with pytest.raises(ConfigError, match=r"demo with seed 3.*--fresh"):
        run_demo(tmp_path, seed=4)
    assert made == [3]
    for words in ({"seed": 3}, {"seed": 4, "fresh": True}):  # the same seed goes on, and a fresh demo may have any
        with pytest.raises(KeyboardInterrupt):
            run_demo(tmp_path, **words)
    assert made == [3, 3, 4]
    assert demo.stored_plan(tmp_path / "plan.json", 4) == {"seed": 4}
    assert demo.stored_plan(tmp_path / "none.json", 4) == {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("demo")
    world = WorldConfig(train_scenes=1, val_scenes=1, frames=2, image_size=(64, 176))
    return out, run_demo(out, minutes=0.2, changes=[*SMALL, "data.image_size=64,176"], minimum_steps=3, world=world)


@pytest.mark.slow
def test_all_stages_leave_their_results(finished: tuple[Path, dict]) -> None:
    out, numbers = finished
    assert (out / "world" / "v1.0-trainval" / "sample.json").is_file()
    assert (out / "train" / "weights.safetensors").is_file()
    assert (out / "report" / "report.html").stat().st_size > 50_000
    stored = json.loads((out / "demo.json").read_text())
    assert stored["steps"] == numbers["plan"]["steps"] >= 3
    assert [baseline["images"] for baseline in stored["baselines"]] == ["none", "black"]
    assert stored["results"]["occupancy"]["ray_iou"]["mean"] is not None
    recipe = json.loads((out / "train" / "recipe.json").read_text())["recipe"]
    assert recipe["train"]["steps"] == numbers["plan"]["steps"], "the chosen number of steps is stored in the recipe"


@pytest.mark.slow
def test_a_second_run_does_nothing_again(finished: tuple[Path, dict]) -> None:
    out, first = finished
    weights = (out / "train" / "eval.json").stat().st_mtime_ns
    world = WorldConfig(train_scenes=1, val_scenes=1, frames=2, image_size=(64, 176))
    second = run_demo(out, minutes=0.2, changes=[*SMALL, "data.image_size=64,176"], minimum_steps=3, world=world)
    assert second["world"]["generated"] == 0
    assert second["plan"] == first["plan"]
    assert second["results"] == first["results"]
    assert (out / "train" / "eval.json").stat().st_mtime_ns == weights


@pytest.mark.slow
def test_another_seed_needs_another_folder(finished: tuple[Path, dict]) -> None:
    out, _ = finished
    world = WorldConfig(train_scenes=1, val_scenes=1, frames=2, image_size=(64, 176))
    with pytest.raises(ConfigError, match="--fresh"):
        run_demo(out, minutes=0.2, seed=5, changes=[*SMALL, "data.image_size=64,176"], minimum_steps=3, world=world)


@pytest.mark.slow
def test_verbs_on_a_finished_run(finished: tuple[Path, dict], frustum: Run, tmp_path: Path) -> None:
    out, numbers = finished
    run = out / "train"
    code, text, err = frustum("eval", run, "--json", tmp_path / "eval.json")
    assert code == 0, err
    assert "mIoU" in text
    again = json.loads((tmp_path / "eval.json").read_text())
    assert again["results"]["occupancy"]["miou"] == numbers["results"]["occupancy"]["miou"]

    code, text, err = frustum(
        "predict", run, out / "world", "--split", "val", "--limit", 1, "--out", tmp_path / "p", "--json", tmp_path / "p.json"
    )
    assert code == 0, err
    (file,) = json.loads((tmp_path / "p.json").read_text())["files"]
    assert Path(file).is_file()
    assert Path(file).with_suffix(".png").is_file()

    code, text, err = frustum("report", run, "--out", tmp_path / "r", "--samples", 1)
    assert code == 0, err
    assert (tmp_path / "r" / "report.html").is_file()

    code, text, err = frustum("train", run)
    assert code == 0, err
    assert f"nothing was left to do: trained {numbers['steps']} steps" in text
