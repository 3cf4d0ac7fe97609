"""Submissions scored with a database: the devkit's figures through reader and filters, copies of the truth, files that do not fit."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frustum.engine.score_detections import DetectionReport, score_detections

from frustum.data.nuscenes.detection_results import DetectionResults, read_detections, write_detections
from frustum.data.nuscenes.detection_truth import detection_truth
from frustum.data.nuscenes.reader import NuScenes
from frustum.errors import DataError
from frustum.types.boxes import DetectionBoxes
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


def score(results: DetectionResults, database: NuScenes, split: str) -> DetectionReport:
    return score_detections(results, database, split, name="detector", progress=False)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_submissions(golden: Path, synth: NuScenes, name: str) -> None:
    expected = json.loads((golden / "nuscenes_synth_expected.json").read_text())[name]
    report = score(read_detections(golden / f"{name}.json"), synth, name.rpartition("_")[0])
    counts = report.counts.values()
    assert sum(c["true"] for c in counts) == expected.pop("n_gt")
    assert sum(c["predicted"] for c in counts) == expected.pop("n_pred")
    assert assert_figures(report.metrics, expected, 1e-9) >= 10 * (4 + 5)


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
    report = score(copied(toy, "train"), toy, "train")
    assert report.counts["car"] == {"true": 3, "predicted": 3}
    assert report.metrics["mean_dist_aps"]["car"] == pytest.approx(1.0)
    assert report.metrics["label_tp_errors"]["car"] == pytest.approx(dict.fromkeys(report.metrics["tp_errors"], 0.0), abs=1e-9)
    assert report.counts["traffic_cone"] == {"true": 0, "predicted": 3}


def test_a_copy_of_a_street_is_perfect(street_root: Path, tmp_path: Path) -> None:
    """Written and read back; predictions of boxes without points would survive as false alarms, so they are left out."""
    database = NuScenes(street_root, "v1.0-trainval", camera_only=True)
    results = copied(database, "all")
    seen = {token: boxes.select(boxes.num_points > 0) for token, boxes in results.boxes.items()}
    write_detections(tmp_path / "copy.json", seen)
    report = score(read_detections(tmp_path / "copy.json"), database, "all")
    present = [name for name, count in report.counts.items() if count["true"]]
    assert len(present) >= 3
    for name in present:
        assert report.counts[name]["true"] == report.counts[name]["predicted"]
        assert report.metrics["mean_dist_aps"][name] == pytest.approx(1.0)
        assert report.metrics["label_tp_errors"][name]["trans_err"] == pytest.approx(0, abs=1e-9)
    absent = len(report.counts) - len(present)
    assert report.metrics["mean_ap"] == pytest.approx(1 - absent / 10)
    assert report.metrics["tp_errors"]["trans_err"] == pytest.approx(absent / 10, abs=1e-9)


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
    report = score(DetectionResults({token: DetectionBoxes.empty() for token in toy.tokens("val")}, {}), toy, "val")
    assert (report.metrics["mean_ap"], report.metrics["nd_score"]) == (0, 0)
    assert report.counts["car"] == {"true": 3, "predicted": 0}


def test_without_annotations_there_is_nothing_to_compare(toy: NuScenes, monkeypatch: pytest.MonkeyPatch) -> None:
    import frustum.engine.score_detections as module

    def bare(database: NuScenes, token: str) -> Any:
        return replace(detection_truth(database, token), boxes=DetectionBoxes.empty())

    monkeypatch.setattr(module, "detection_truth", bare)
    with pytest.raises(DataError, match="no annotated box"):
        score(copied(toy, "val"), toy, "val")


def test_the_report_names_its_protocol(toy: NuScenes) -> None:
    report = score(copied(toy, "train"), toy, "train")
    numbers = report.numbers()
    assert numbers["kind"] == "detection"
    assert (numbers["split"], numbers["samples"]) == ("train", 3)
    assert "detection_cvpr_2019" in numbers["protocol"]["mean_ap"]
    (row,) = report.table().rows
    assert row[1:4] == ["10.00", f"{100 * report.metrics['nd_score']:.2f}", "0.9000"]
    table = report.class_table()
    assert table.columns[:6] == ["class", "AP", "@0.5 m", "@1.0 m", "@2.0 m", "@4.0 m"]
    rows = {row[0]: row for row in table.rows}
    assert rows["traffic_cone"][8:11] == ["-", "-", "-"], "orientation, velocity and attribute of a cone"
    assert rows["car"][1:6] == ["100.00"] * 5
    assert all(len(row) == len(table.columns) for row in table.rows)
