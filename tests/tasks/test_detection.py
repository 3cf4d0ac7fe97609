"""Submissions scored with a database: the devkit's figures through reader and filters, copies of the truth, files that do not fit."""

from __future__ import annotations

import json
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frustum.data.nuscenes.detection_results import DetectionResults, read_detections, write_detections
from frustum.data.nuscenes.detection_truth import detection_truth
from frustum.data.nuscenes.reader import NuScenes
from frustum.engine.evaluate import evaluate
from frustum.engine.reports import EvalReport, class_tables, compare, figures_table, notes
from frustum.errors import DataError
from frustum.tasks.detection import DetectionFile, DetectionTask
from frustum.types.boxes import DetectionBoxes
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.predictions import PredictedBoxes
from tests.data.toy import VERSION, toy_database
from tests.metrics.figures import assert_figures

DATA = Path(__file__).parents[1] / "data"
GOLDEN = ("mini_val_0.0", "mini_val_0.5", "my_val_0.5")


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database nuscenes_synth/ with its expected values, and three submissions."""
    folder = tmp_path_factory.mktemp("golden")
    for archive in (DATA / "nuscenes_synth.tar.gz", DATA / "metrics" / "det_submissions.tar.xz"):
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else file.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def synth(golden: Path) -> NuScenes:
    return NuScenes(golden / "nuscenes_synth", "v1.0-mini", camera_only=True)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> NuScenes:
    return NuScenes(toy_database(tmp_path_factory.mktemp("toy")), VERSION)


def copied(database: NuScenes, split: str) -> DetectionResults:
    """The truth as predictions with score 1."""
    boxes = {token: detection_truth(database, token).boxes for token in database.tokens(split)}
    return DetectionResults({token: replace(b, scores=np.ones(len(b))) for token, b in boxes.items()}, {})


def score_file(path: Path, database: NuScenes, split: str) -> EvalReport:
    found = DetectionTask.recognise(path)
    assert found is not None
    return evaluate(None, found, database, split, progress=False)


def score(results: DetectionResults, database: NuScenes, split: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        write_detections(Path(folder) / "detector.json", results.boxes)
        return score_file(Path(folder) / "detector.json", database, split).results["detection"]


def nan_for_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: nan_for_none(entry) for key, entry in value.items()}
    return float("nan") if value is None else value


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_submissions(golden: Path, synth: NuScenes, name: str) -> None:
    expected = json.loads((golden / "nuscenes_synth_expected.json").read_text())[name]
    metrics = score_file(golden / f"{name}.json", synth, name.rpartition("_")[0]).results["detection"]
    counts = metrics["counts"].values()
    assert sum(c["true"] for c in counts) == expected.pop("n_gt")
    assert sum(c["predicted"] for c in counts) == expected.pop("n_pred")
    assert assert_figures(nan_for_none(metrics), expected, 1e-9) >= 10 * (4 + 5)


def test_the_truth_is_what_the_golden_copy_was_made_of(golden: Path, synth: NuScenes) -> None:
    """The submission mini_val_0.0 is the devkit's own truth, velocities included."""
    for token, theirs in read_detections(golden / "mini_val_0.0.json").boxes.items():
        ours = detection_truth(synth, token).boxes
        np.testing.assert_allclose(ours.centres, theirs.centres, atol=1e-12)
        np.testing.assert_allclose(ours.sizes, theirs.sizes, atol=1e-12)
        np.testing.assert_allclose(np.nan_to_num(ours.velocities), theirs.velocities, atol=1e-9)  # unknown ones were submitted as 0
        np.testing.assert_allclose(ours.yaws, theirs.yaws, atol=1e-12)
        assert ours.names == theirs.names


def test_what_is_left_out_of_the_truth(synth: NuScenes) -> None:
    truths = [detection_truth(synth, token) for token in synth.tokens()]
    assert sum(len(t.rack_poses) for t in truths) > 0
    assert all(t.rack_sizes.shape == (len(t.rack_poses), 3) for t in truths)
    in_tables = sum(len(synth.annotations(token)[1]["category"]) for token in synth.tokens())
    assert in_tables == 88
    racks_and_police = in_tables - sum(len(t.boxes) for t in truths)
    names = [name for token in synth.tokens() for name in synth.sample(token).boxes.names]  # type: ignore[union-attr]
    assert racks_and_police == sum("." in name for name in names) > 0, "a raw category has a dot in its name"
    assert sum(int((t.boxes.num_points == 0).sum()) for t in truths) > 0, "boxes without points are kept for the filter to drop"


def test_a_copy_of_the_truth_is_perfect(toy: NuScenes) -> None:
    """The toy world has cars and cones; its cones hold no point, so they do not count as true boxes."""
    metrics = score(copied(toy, "train"), toy, "train")
    assert metrics["counts"]["car"] == {"true": 3, "predicted": 3, "found": 3}
    assert metrics["mean_dist_aps"]["car"] == pytest.approx(1.0)
    assert metrics["label_tp_errors"]["car"] == pytest.approx(dict.fromkeys(metrics["tp_errors"], 0.0), abs=1e-9)
    assert metrics["counts"]["traffic_cone"] == {"true": 0, "predicted": 3, "found": 0}
    assert metrics["recall"] == 1.0


def test_recall_counts_what_is_found_within_2_m_at_any_score(toy: NuScenes) -> None:
    """One car beyond 2 m, one below every other score, one where it is; the cones that are invented do not count."""
    found = copied(toy, "train").boxes
    moved, count = {}, 0
    for token, boxes in found.items():
        centres, scores = boxes.centres.copy(), boxes.scores.copy()
        for i, name in enumerate(boxes.names):
            if name == "car":
                centres[i, 0] += 2.1 if count == 0 else 0.0
                scores[i] = 0.001 if count == 1 else 1.0
                count += 1
        moved[token] = replace(boxes, centres=centres, scores=scores)
    metrics = score(DetectionResults(moved, {}), toy, "train")
    assert metrics["counts"]["car"] == {"true": 3, "predicted": 3, "found": 2}
    assert metrics["recall"] == pytest.approx(2 / 3)


def test_a_copy_of_a_street_is_perfect(street_root: Path, tmp_path: Path) -> None:
    """Written and read back; predictions of boxes without points would survive as false alarms, so they are left out."""
    database = NuScenes(street_root, "v1.0-trainval", camera_only=True)
    results = copied(database, "all")
    seen = {token: boxes.select(boxes.num_points > 0) for token, boxes in results.boxes.items()}
    write_detections(tmp_path / "copy.json", seen)
    metrics = score_file(tmp_path / "copy.json", database, "all").results["detection"]
    present = [name for name, count in metrics["counts"].items() if count["true"]]
    assert len(present) >= 3
    for name in present:
        assert metrics["counts"][name]["true"] == metrics["counts"][name]["predicted"]
        assert metrics["mean_dist_aps"][name] == pytest.approx(1.0)
        assert metrics["label_tp_errors"][name]["trans_err"] == pytest.approx(0, abs=1e-9)
    absent = len(metrics["counts"]) - len(present)
    assert metrics["mean_ap"] == pytest.approx(1 - absent / 10)
    assert metrics["tp_errors"]["trans_err"] == pytest.approx(absent / 10, abs=1e-9)


def test_files_that_do_not_fit_the_split(toy: NuScenes) -> None:
    whole = copied(toy, "all")
    train, val = toy.tokens("train"), toy.tokens("val")
    less = DetectionResults({t: whole.boxes[t] for t in train[1:]}, {})
    with pytest.raises(DataError, match=rf"lacks 1 of its 3 samples \({train[0]}\).*empty list"):
        score(less, toy, "train")
    with pytest.raises(DataError, match=rf"holds 3 that are not in it \({val[0]}, "):
        score(whole, toy, "train")
    with pytest.raises(DataError, match=r"lacks 3 of its 3 samples .* and holds 2 that are not in it"):
        score(less, toy, "val")
    with pytest.raises(DataError, match="has no split 'vall'"):
        score(whole, toy, "vall")


def test_no_detections_at_all(toy: NuScenes) -> None:
    metrics = score(DetectionResults({token: DetectionBoxes.empty() for token in toy.tokens("val")}, {}), toy, "val")
    assert (metrics["mean_ap"], metrics["nd_score"]) == (0, 0)
    assert metrics["counts"]["car"] == {"true": 3, "predicted": 0, "found": 0}
    assert metrics["recall"] == 0


def test_without_annotations_there_is_nothing_to_compare(toy: NuScenes, monkeypatch: pytest.MonkeyPatch) -> None:
    import frustum.tasks.detection as module

    def bare(database: NuScenes, token: str) -> Any:
        return replace(detection_truth(database, token), boxes=DetectionBoxes.empty())

    monkeypatch.setattr(module, "detection_truth", bare)
    with pytest.raises(DataError, match=r"none of the 3 samples has an annotated box .* nothing to compare with"):
        score(copied(toy, "val"), toy, "val")


def test_the_report_names_its_protocol(toy: NuScenes, tmp_path: Path) -> None:
    write_detections(tmp_path / "mine.json", copied(toy, "train").boxes, {"use_lidar": True})
    report = score_file(tmp_path / "mine.json", toy, "train")
    numbers, metrics = report.numbers(), report.results["detection"]
    assert (numbers["name"], numbers["split"], numbers["frames"], numbers["images"]) == ("mine", "train", 3, "none")
    assert numbers["about"]["meta"]["use_lidar"] is True
    assert "detection_cvpr_2019" in numbers["protocol"]["detection"]["mean_ap"]
    assert EvalReport.from_numbers(json.loads(json.dumps(numbers))).numbers() == numbers
    rows = {row[0]: row[3] for row in figures_table(report).rows}
    assert (rows["mAP"], rows["NDS"], rows["mATE"]) == ("10.00", f"{100 * metrics['nd_score']:.2f}", "0.9000 m")
    (table,) = class_tables(report)
    assert table.columns[:6] == ["class", "AP", "@0.5 m", "@1.0 m", "@2.0 m", "@4.0 m"]
    by_class = {row[0]: row for row in table.rows}
    assert list(by_class["traffic_cone"][8:11]) == ["-", "-", "-"], "orientation, velocity and attribute of a cone"
    assert list(by_class["car"][1:6]) == ["100.00"] * 5
    assert by_class["car"][-2:] == ["3", "3"], "true, found"
    assert by_class["mean"][1] == "10.00"
    assert compare([report]).columns == ["", "mAP", "NDS", "recall", "mATE", "mASE", "mAOE", "mAVE", "mAAE"]
    assert any(note.startswith("counted: boxes nearer than 50 m") for note in notes(report))


def ego_boxes(database: NuScenes, token: str) -> PredictedBoxes:
    """The true boxes as a network would give them: ego frame, float32, unsure of nothing."""
    boxes = database.sample(token).boxes
    assert boxes is not None
    kept = [i for i, name in enumerate(boxes.names) if name in DETECTION_CLASSES]
    classes = torch.tensor([DETECTION_CLASSES.index(boxes.names[i]) for i in kept])
    return PredictedBoxes(torch.from_numpy(boxes.boxes[kept]).float(), classes, torch.ones(len(kept)), DETECTION_CLASSES)


def test_boxes_of_a_network_are_brought_to_the_global_frame(toy: NuScenes, tmp_path: Path) -> None:
    """They score as a submission of the same boxes does, also when they went through a file of `frustum predict`."""
    tokens = toy.tokens("train")
    task, merged = DetectionTask(tokens), [DetectionTask(tokens) for _ in range(2)]
    writer = DetectionTask.submission(tmp_path)
    for i, token in enumerate(tokens):
        part, truth = ego_boxes(toy, token), task.truth(toy, token)
        task.add(token, part, truth)
        path = DetectionTask.save(part, tmp_path, token, "scene")
        assert path.name == f"{token}.boxes.npz"
        again = DetectionTask.load(path)
        assert again.class_names == DETECTION_CLASSES
        assert all(torch.equal(getattr(again, name), getattr(part, name)) for name in ("boxes", "classes", "scores"))
        merged[i % 2].add(token, again, truth)
        writer.add(token, part, toy.sample(token))
        predicted, true = DetectionTask.layers(part)[0], DetectionTask.truth_layers(truth)[0]
        np.testing.assert_allclose(predicted.boxes[:, :7], true.boxes[:, :7], atol=1e-4)
        np.testing.assert_allclose(predicted.boxes[:, 7:], true.boxes[:, 7:], atol=5e-3)  # the vehicle pitches: a true velocity is level
        assert predicted.legend == true.legend
    writer.finish()
    found = task.compute()
    assert found["mean_dist_aps"]["car"] == pytest.approx(1.0)
    assert found["tp_errors"]["trans_err"] == pytest.approx(0.9, abs=1e-5)
    assert merged[0].merge(merged[1]).compute() == found
    assert score_file(tmp_path / "detections.json", toy, "train").results["detection"] == found


def test_too_many_boxes_and_other_classes(toy: NuScenes) -> None:
    token = toy.tokens("train")[0]
    task = DetectionTask()
    truth = task.truth(toy, token)
    part = ego_boxes(toy, token)
    many = PredictedBoxes(part.boxes[:1].repeat(600, 1), part.classes[:1].repeat(600), torch.rand(600), DETECTION_CLASSES)
    task.add(token, many, truth)
    assert task.compute()["counts"]["car"]["predicted"] == 500, "those with the highest scores"
    with pytest.raises(DataError, match="unknown class 'lorry'"):
        DetectionTask().add(token, replace(part, class_names=("lorry",) * 10), truth)


def test_only_json_is_taken_for_a_submission(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("hello")
    assert DetectionTask.recognise(tmp_path / "text.json") is None
    write_detections(tmp_path / "mine.json", {"a": DetectionBoxes.empty(), "b": DetectionBoxes.empty()})
    found = DetectionFile(tmp_path / "mine.json")
    assert (found.name, found.tokens) == ("mine", ["a", "b"])
    assert found.ordered(["b", "a"], "val") == ["a", "b"], "equal scores are ranked in the order of the file"


def test_only_velocities_may_be_unknown(toy: NuScenes, tmp_path: Path) -> None:
    token = toy.tokens("train")[0]
    part = ego_boxes(toy, token)
    for column, is_fine in ((8, True), (0, False), (6, False)):
        boxes = part.boxes.clone()
        boxes[0, column] = torch.nan
        if is_fine:
            DetectionTask.save(replace(part, boxes=boxes), tmp_path, token)
        else:
            with pytest.raises(DataError, match="only velocities may be NaN"):
                DetectionTask.save(replace(part, boxes=boxes), tmp_path, token)
    with pytest.raises(DataError, match="only velocities may be NaN"):
        DetectionTask.save(replace(part, scores=torch.full_like(part.scores, torch.inf)), tmp_path, token)
