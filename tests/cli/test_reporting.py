"""The report of a run: which frames it shows, what it says about the run, and that it is one page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from frustum.checkpoint.weights_file import WEIGHTS, digest, save_weights
from frustum.cli.evaluation import evaluate_run, numbers_of
from frustum.cli.reporting import facts_of, frequencies, pick, report_run, scores_of
from frustum.cli.resolve import resolve_recipe
from frustum.data.nuscenes.reader import NuScenes
from frustum.engine.eval_report import EvalReport, read_reports
from frustum.engine.run import load_run, save_run
from frustum.errors import CheckpointError, ConfigError, DataError
from frustum.types.classes import OCC3D_CLASSES, OCC3D_FREE
from frustum.viewer.report import METRICS
from frustum.weights.loading import load


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, street_root: Path) -> Path:
    """A run whose network has random weights."""
    words = [f"data.root={street_root}", "model.pretrained=false", "model.bev_channels=8", "runtime.precision=fp32", "eval.every=3"]
    folder = tmp_path_factory.mktemp("run")
    recipe = resolve_recipe("flashocc-tiny", words)
    save_run(folder, recipe, source="flashocc-tiny", overrides=words)
    torch.manual_seed(0)
    save_weights(folder / WEIGHTS, recipe.model.build())
    lines = [{"step": s, "loss": 1 / s, "losses": {"occupancy": 1 / s}, "lr": 1e-3, "steps_per_second": 5.0} for s in (10, 20)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def numbers(run: Path) -> dict:
    return evaluate_run(str(run), baselines=True)


def kept_in(run: Path) -> list[EvalReport]:
    return read_reports(run, digest(load(load_run(run).recipe, run)))


def test_evaluation_is_kept_in_the_run(run: Path, numbers: dict) -> None:
    kept = kept_in(run)
    assert [report.images for report in kept] == ["as they are", "none", "black"]
    assert kept[0].metrics == numbers["metrics"]
    assert numbers_of(kept)["baselines"][1]["name"] == "black images"
    assert numbers["frames"] == 1, "every third of three frames"


def test_other_settings_do_not_overwrite_it(run: Path, numbers: dict) -> None:
    before = (run / "eval.json").read_bytes()
    evaluate_run(str(run), ["eval.ray_iou=false"])
    assert (run / "eval.json").read_bytes() == before


def test_numbers_can_be_read_back(numbers: dict) -> None:
    again = EvalReport.from_numbers(json.loads(json.dumps(numbers)))
    assert again.metrics == numbers["metrics"]


def test_scores_have_the_names_of_the_report(run: Path, numbers: dict) -> None:
    scores = scores_of(kept_in(run)[0])
    assert set(scores.values) <= {metric.key for metric in METRICS}
    assert scores.values["miou_camera"] == numbers["metrics"]["miou"]["camera"]
    assert scores.values["rayiou"] == numbers["metrics"]["ray_iou"]["mean"]
    assert scores.values["giou_above_camera"] == numbers["metrics"]["geometric_iou_above_ground"]["camera"]
    assert len(scores.per_class) == len(OCC3D_CLASSES)
    assert scores_of(kept_in(run)[1]).note


def test_frames_are_spread_over_scenes(street_root: Path) -> None:
    database = NuScenes(street_root)
    chosen = pick(database, "all", 3)
    assert len({database.scene(token).name for token in chosen}) == 3
    for token in chosen:
        assert database.scene(token).tokens.index(token) == 1, "the middle one of three"
    assert len(pick(database, "val", 2)) == 2, "fewer scenes than frames: frames of one scene"


def test_frequencies(street_root: Path, run: Path) -> None:
    database = NuScenes(street_root)
    found = np.array(frequencies(database, load_run(run).recipe))
    assert found.sum() == pytest.approx(1)
    labels = [database.sample(token).occupancy for token in database.tokens("val")]
    inside = np.concatenate([frame.semantics[frame.mask_camera > 0] for frame in labels])  # type: ignore[union-attr]
    assert found[OCC3D_FREE] == pytest.approx((inside == OCC3D_FREE).mean())


def test_facts(run: Path) -> None:
    facts = facts_of(load_run(run), [], 1_950_000)
    assert facts["parameters"] == "1.95 M"
    assert facts["steps"] == "20"
    assert facts["images"] == "96 x 256"
    assert all(facts.values())


def test_the_page(run: Path, numbers: dict, tmp_path: Path) -> None:
    page = report_run(run, tmp_path, samples=1)
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "report.html"
    assert (tmp_path / "sample-1.png").is_file()
    assert "blind prior" in text
    assert "flashocc-tiny" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "<script" not in text


def test_a_run_without_weights(run: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes((run / "recipe.json").read_bytes())
    with pytest.raises(CheckpointError, match=WEIGHTS):
        report_run(tmp_path)


def test_a_run_whose_data_were_moved(run: Path, street_root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    described = json.loads((run / "recipe.json").read_text())
    described["recipe"]["data"]["root"] = str(tmp_path / "gone")
    moved.mkdir()
    (moved / "recipe.json").write_text(json.dumps(described))
    (moved / WEIGHTS).write_bytes((run / WEIGHTS).read_bytes())
    for verb in (evaluate_run, lambda name: report_run(Path(name))):
        with pytest.raises(DataError, match=r"gone does not exist.* If the data lie elsewhere, set data\.root=FOLDER\."):
            verb(str(moved))
    page = report_run(moved, samples=1, overrides=[f"data.root={street_root}"])
    assert str(street_root) in page.read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean"):
        report_run(moved, overrides=["data.rot=x"])
