"""The report of a run: which frames it shows, what it says about the run, and that it is one page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from frustum.checkpoint.weights_file import WEIGHTS, digest, read_weights, save_weights
from frustum.cli.evaluation import evaluate_run, numbers_of
from frustum.cli.reporting import facts_of, panel_of, pick, report_run, results_of
from frustum.cli.resolve import resolve_recipe
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.source import DataConfig
from frustum.engine.reports import EvalReport, read_reports
from frustum.engine.run import load_run, save_run
from frustum.engine.sections import header_of
from frustum.errors import CheckpointError, ConfigError, DataError
from frustum.geometry import VoxelGrid
from frustum.types.classes import OCC3D_CLASSES
from frustum.types.predictions import PredictedBoxes, PredictedOccupancy, PredictedSegmentation, Prediction
from frustum.weights.loading import load
from tests.cli.conftest import Run


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
    assert kept[0].results == numbers["results"]
    assert numbers_of(kept)["baselines"][1]["name"] == "black images"
    assert numbers["frames"] == 1, "every third of three frames"


def test_other_settings_do_not_overwrite_it(run: Path, numbers: dict) -> None:
    before = (run / "eval.json").read_bytes()
    evaluate_run(str(run), ["eval.slow_figures=false"])
    assert (run / "eval.json").read_bytes() == before


def test_numbers_can_be_read_back(numbers: dict) -> None:
    again = EvalReport.from_numbers(json.loads(json.dumps(numbers)))
    assert again.results == numbers["results"]


def test_results_are_those_of_the_evaluation(run: Path, numbers: dict) -> None:
    network, prior, black = kept_in(run)
    (found,) = results_of(network).values()
    values = {figure.key: figure.value for figure in found.figures}
    metrics = numbers["results"]["occupancy"]
    assert values["miou.camera"] == metrics["miou"]["camera"]
    assert values["ray_iou.mean"] == metrics["ray_iou"]["mean"]
    assert values["geometric_iou_above_ground.camera"] == metrics["geometric_iou_above_ground"]["camera"]
    assert found.classes is not None
    assert set(found.classes.legend.names) == set(OCC3D_CLASSES) - {"free"}
    assert prior.note
    assert black.note


def test_frames_are_spread_over_scenes(street_root: Path) -> None:
    database = NuScenes(street_root)
    chosen = pick(database, "all", 3)
    assert len({database.scene(token).name for token in chosen}) == 3
    for token in chosen:
        assert database.scene(token).tokens.index(token) == 1, "the middle one of three"
    assert len(pick(database, "val", 2)) == 2, "fewer scenes than frames: frames of one scene"


def test_the_share_of_each_class_is_that_of_the_labels(street_root: Path, run: Path, numbers: dict) -> None:
    found = results_of(kept_in(run)[0])["occupancy"].classes
    assert found is not None
    assert found.share is not None
    labels = NuScenes(street_root).sample(NuScenes(street_root).tokens("val")[0]).occupancy
    assert labels is not None
    inside = labels.semantics[labels.mask_camera > 0]
    for name in ("driveable_surface", "car"):
        assert found.share[name] == pytest.approx((inside == OCC3D_CLASSES.index(name)).mean())


class WithoutTime:
    """A source of single images."""

    root = Path("images")

    def tokens(self, split: str = "all") -> list[str]:
        return [f"{split}-{i}" for i in range(10)]

    def sample(self, token: str) -> Any:
        return SimpleNamespace(token=token, scene="a town")

    def neighbours(self, token: str) -> list[str]:
        return [token]

    def labels(self, token: str) -> np.ndarray:
        if token == "val-0":
            raise DataError(f"{token} has no labels.")
        return np.zeros((8, 16), np.uint8)


class Photographs(DataConfig):
    """A data section whose samples are single images."""

    def show(self, source: Any, token: str) -> list[tuple[str, np.ndarray]]:
        return [("camera", np.full((8, 16, 3), 90, np.uint8))]


def test_samples_without_time_are_spread_over_the_split() -> None:
    assert pick(WithoutTime(), "val", 3) == ["val-0", "val-4", "val-9"]


@pytest.mark.parametrize(("token", "layers"), [("val-1", 1), ("val-0", 0)])
def test_a_sample_of_another_question(token: str, layers: int) -> None:
    """Whatever a prediction answers is shown, with the truth where there is one."""
    labels = torch.zeros(8, 16, dtype=torch.uint8)
    prediction = Prediction(token, segmentation=PredictedSegmentation(labels, ("road", "sky")))
    panel = panel_of(Photographs(), WithoutTime(), prediction)
    assert panel.title == "a town"
    assert [(question.heading, len(question.prediction), len(question.truth)) for question in panel.questions] == [
        ("Segmentation", 1, layers)
    ]
    assert list(panel.cameras) == []
    assert not panel_of(Photographs(), WithoutTime(), prediction, ()).questions[0].truth


def test_several_questions_of_one_keyframe(street_root: Path) -> None:
    """Occupancy and boxes of one prediction, each with its truth, and the calibration that draws boxes into the images."""
    data = NuScenesData(root=str(street_root))
    source = data.open()
    token = source.tokens("val")[0]
    labels = source.sample(token).occupancy
    assert labels is not None
    occupancy = PredictedOccupancy(torch.from_numpy(labels.semantics), VoxelGrid.occ3d(), OCC3D_CLASSES)
    boxes = PredictedBoxes(torch.tensor([[9.0, 1, 0, 4, 2, 2, 0, 0, 0]]), torch.tensor([0]), torch.tensor([0.7]), ("car",))
    panel = panel_of(data, source, Prediction(token, occupancy=occupancy, boxes=boxes))
    assert [question.heading for question in panel.questions] == ["Occupancy", "Detection"]
    assert all(len(question.prediction) == len(question.truth) == 1 for question in panel.questions)
    assert [name for name, _ in panel.images] == [camera.channel for camera in source.sample(token).cameras]
    assert len(panel.cameras) == len(panel.images)
    assert np.array_equal(panel.questions[0].truth[0].mask, labels.mask_camera)


def test_calibrations_place_the_ego_frame_in_the_image(street_root: Path) -> None:
    """What a camera looks at 10 m before it is projected to its principal point."""
    source = NuScenes(street_root)
    token = source.tokens()[0]
    sample = source.sample(token)
    for camera, found in zip(sample.cameras, NuScenesData().calibrations(source, token), strict=True):
        ahead = np.linalg.inv(sample.ego2global) @ camera.ego2global @ camera.cam2ego @ [0, 0, 10, 1]
        u, v, depth = found.intrinsics @ (found.ego2camera @ ahead)[:3]
        assert depth == pytest.approx(10)
        assert [u / depth, v / depth] == pytest.approx(camera.intrinsics[:2, 2])


def test_facts(run: Path) -> None:
    facts = facts_of(load_run(run), [], 1_950_000)
    assert facts["parameters"] == "1.95 M"
    assert facts["steps"] == "20"
    assert facts["images"] == "96 x 256"
    assert all(facts.values())
    assert not {"learned from", "started from"} & set(facts)
    taught = {"labels": ["boxes: all", "depth"], "start": ["random weights"]}
    assert facts_of(load_run(run), [], 1, taught).items() >= {"learned from": "boxes: all; depth", "started from": "random weights"}.items()


def test_what_weights_were_taught_with_is_shown(frustum: Run, run: Path, tmp_path: Path) -> None:
    """In the tables and numbers of an evaluation, in the report, and where a file is inspected; of weights that do not say it, nothing."""
    state, header = read_weights(run)
    recipe = load_run(run).recipe
    taught = {"labels": ["3D labels (class of each voxel)", "depth of LiDAR points"], "start": ["image encoder from the package x"]}
    save_weights(tmp_path / "w.safetensors", state, header_of(recipe) | {"taught_with": taught})
    root = f"data.root={recipe.data.root}"
    code, out, _ = frustum("eval", tmp_path / "w.safetensors", root, "--json", tmp_path / "e.json")
    assert code == 0
    lines = ["learned from: 3D labels (class of each voxel); depth of LiDAR points", "started from: image encoder from the package x"]
    assert [line for line in out.splitlines() if " from: " in line] == lines
    assert json.loads((tmp_path / "e.json").read_text())["taught_with"] == taught
    assert " from: " not in frustum("eval", run).out
    assert "taught_with" not in header
    out = " ".join(frustum("weights", "inspect", tmp_path / "w.safetensors").out.split())
    assert "learned from 3D labels (class of each voxel); depth of LiDAR points started from image encoder from the package x" in out
    page = report_run(tmp_path / "w.safetensors", samples=1, overrides=[root]).read_text(encoding="utf-8")
    assert "depth of LiDAR points" in page
    for text in (page, (tmp_path / "e.json").read_text(), (tmp_path / "w.safetensors").read_bytes().decode("latin-1")):
        assert str(Path(recipe.data.root).parent) not in text, "where the user keeps things"


def test_the_page(run: Path, numbers: dict, tmp_path: Path) -> None:
    page = report_run(run, tmp_path, samples=1)
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "report.html"
    assert (tmp_path / "sample-1.png").is_file()
    assert "blind prior" in text
    assert "flashocc-tiny" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "<script" not in text


def test_other_runs_are_shown_beside(run: Path, numbers: dict, tmp_path: Path) -> None:
    """A teacher and the same network without it: the page has the figures of all, by the names of their folders."""
    words = [*load_run(run).overrides, "model.bev_channels=16"]
    recipe, teacher = resolve_recipe("flashocc-tiny", words), tmp_path / "large"
    save_run(teacher, recipe, source="flashocc-tiny", overrides=words)
    network = recipe.model.build()
    save_weights(teacher / WEIGHTS, network, header_of(recipe) | {"taught_with": {"distilled": ["huge: cwd of bev"]}})
    with pytest.raises(ConfigError, match=f"large has no numbers .* run `frustum eval {teacher}` first"):
        report_run(run, tmp_path / "page", samples=0, beside=[teacher])
    about = EvalReport.from_numbers(json.loads((run / "eval.json").read_text()))
    theirs = replace(about, weights=digest(network), taught_with={"distilled": ["huge: cwd of bev"]})
    (teacher / "eval.json").write_text(json.dumps(theirs.numbers()))
    text = report_run(run, tmp_path / "page", samples=0, beside=[teacher]).read_text(encoding="utf-8")
    assert all(name in text for name in (run.name, "large", "blind prior", "imitated: huge: cwd of bev"))
    (teacher / "eval.json").write_text(json.dumps(replace(theirs, frames=99).numbers()))
    with pytest.raises(ConfigError, match="evaluate both alike"):
        report_run(run, tmp_path / "page", samples=0, beside=[teacher])


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
        with pytest.raises(DataError, match=r"gone does not exist.* If the data are elsewhere, set data\.root=FOLDER\."):
            verb(str(moved))
    page = report_run(moved, samples=1, overrides=[f"data.root={street_root}"])
    assert str(street_root) not in page.read_text(encoding="utf-8"), "where the user keeps things"
    bare = tmp_path / "w.safetensors"
    recipe = load_run(run).recipe
    save_weights(bare, recipe.model.build(), header_of(recipe))
    with pytest.raises(DataError, match=r"w\.safetensors says only that the folder of its data set was called 'street'.*data\.root=FOLDER"):
        evaluate_run(str(bare))
    with pytest.raises(ConfigError, match="did you mean"):
        report_run(moved, overrides=["data.rot=x"])
