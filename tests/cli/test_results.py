"""frustum eval --results: predictions of any origin, scored without a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from frustum.data.nuscenes.detection_results import write_detections
from frustum.data.nuscenes.detection_truth import detection_truth
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.occ3d.result_files import write_result
from frustum.data.opening import split_of
from frustum.errors import ConfigError, DataError
from frustum.tasks.detection import DetectionTask
from frustum.types.boxes import DetectionBoxes
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.predictions import PredictedBoxes
from tests.cli.conftest import Run
from tests.cli.test_errors import paragraph
from tests.data.toy import VERSION, toy_database


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_database(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def database(toy: Path) -> NuScenes:
    return NuScenes(toy, VERSION)


def submission(path: Path, database: NuScenes, tokens: list[str]) -> Path:
    truths = {token: detection_truth(database, token).boxes for token in tokens}
    write_detections(path, {token: boxes.select(boxes.num_points > 0) for token, boxes in truths.items()})
    return path


def test_a_detection_file(frustum: Run, toy: Path, database: NuScenes, tmp_path: Path) -> None:
    file = submission(tmp_path / "mine.json", database, database.tokens("val"))
    outcome = frustum("eval", "--results", file, "--data", toy, "--json", tmp_path / "numbers.json")
    assert outcome.code == 0, outcome.err
    assert "mine on val, 3 frames" in outcome.out
    said = " ".join(outcome.out.split())
    for words in ("mAP: nuScenes detection_cvpr_2019", "errors: mean over classes", "NDS: (5 mAP + ", "counted: boxes nearer than 50 m"):
        assert words in said
    for word in ("mAP", "NDS", "mATE", "0.9000 m", "mAAE", "construction_vehicle", "true boxes"):
        assert word in outcome.out
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["results"]["detection"]["mean_dist_aps"]["car"] == pytest.approx(1.0)
    assert numbers["results"]["detection"]["mean_ap"] == pytest.approx(0.1)
    assert numbers["results"]["detection"]["label_tp_errors"]["traffic_cone"]["vel_err"] is None
    assert numbers["split"] == "val"


def test_the_split_can_be_chosen(frustum: Run, toy: Path, database: NuScenes, tmp_path: Path) -> None:
    file = submission(tmp_path / "mine.json", database, database.tokens("val"))
    assert "mine on scene-0002" in frustum("eval", "--results", file, "--data", toy, "--split", "scene-0002").out
    paragraph(frustum("eval", "--results", file, "--data", toy, "--split", "train"), DataError.exit_code, "'train'", "lacks 3 of its 3")


def test_a_folder_of_occupancy(frustum: Run, toy: Path, database: NuScenes, tmp_path: Path) -> None:
    for token in database.tokens("train"):
        labels = database.sample(token).occupancy
        assert labels is not None
        write_result(tmp_path / "occ", token, labels.semantics)
    outcome = frustum("eval", "--results", tmp_path / "occ", "--data", toy, "--json", tmp_path / "numbers.json")
    assert outcome.code == 0, outcome.err
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert (list(numbers["results"]), numbers["split"], numbers["frames"]) == (["occupancy"], "train", 3)
    assert numbers["results"]["occupancy"]["miou"]["camera"] == pytest.approx(1.0)


def test_a_folder_that_answers_two_questions(frustum: Run, toy: Path, database: NuScenes, tmp_path: Path) -> None:
    box = torch.tensor([[10.0, 0, 1, 4, 2, 2, 0, 0, 0]])
    part = PredictedBoxes(box, torch.tensor([0]), torch.tensor([0.5]), DETECTION_CLASSES)
    for token in database.tokens("train"):
        labels = database.sample(token).occupancy
        assert labels is not None
        write_result(tmp_path, token, labels.semantics)
        DetectionTask.save(part, tmp_path, token)
    outcome = frustum("eval", "--results", tmp_path, "--data", toy, "--json", tmp_path / "numbers.json")
    assert outcome.code == 0, outcome.err
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert (set(numbers["results"]), numbers["split"]) == ({"occupancy", "detection"}, "train")
    assert numbers["results"]["occupancy"]["miou"]["camera"] == pytest.approx(1.0)

    first, second, _ = (DetectionTask.path(tmp_path, token) for token in database.tokens("train"))
    second.write_bytes(first.read_bytes())
    paragraph(frustum("eval", "--results", tmp_path, "--data", toy), DataError.exit_code, second.name, "holds the prediction of")


def test_what_is_no_file_of_predictions(frustum: Run, toy: Path, tmp_path: Path) -> None:
    def refused(name: Path, *words: str) -> None:
        paragraph(frustum("eval", "--results", name, "--data", toy), DataError.exit_code, *words)

    refused(
        tmp_path / "nowhere.json",
        "there is no file",
        "--results takes what frustum predict wrote, a folder of occupancy predictions",
        "or a nuScenes detection submission (JSON), or a folder of label maps",
    )
    np.savez(tmp_path / "token.npz", np.zeros(3))
    refused(tmp_path / "token.npz", "give its folder", f"--results {tmp_path}")
    (tmp_path / "detector").mkdir()
    write_detections(tmp_path / "detector" / "results_nusc.json", {})
    refused(tmp_path / "detector", "holds no npz file, but JSON", f"--results {tmp_path / 'detector' / 'results_nusc.json'}")
    (tmp_path / "text.json").write_text("hello")
    refused(tmp_path / "text.json", "not a file of predictions that frustum knows")
    (tmp_path / "cut.json").write_text('{"meta": {}, "results": {"a": [')
    refused(tmp_path / "cut.json", "cut.json", "Write it again")
    write_detections(tmp_path / "other.json", {"some-token": DetectionBoxes.empty()})
    refused(tmp_path / "other.json", "none of the 1 samples", "'some-token'", "--data")
    write_detections(tmp_path / "none.json", {})
    refused(tmp_path / "none.json", "hold no sample", "Every keyframe")
    paragraph(frustum("eval", "--results", tmp_path / "other.json", "--data", tmp_path), DataError.exit_code, "not a nuScenes data set")


def test_options_that_do_not_go_together(frustum: Run, toy: Path, tmp_path: Path) -> None:
    for words in (
        ["--results", "x.json"],
        ["run", "--results", "x.json", "--data", toy],
        ["--results", "x.json", "--data", toy, "--baselines"],
    ):
        paragraph(frustum("eval", *words), ConfigError.exit_code, "--results x.json", "--data ROOT")
    for words in ([], ["run", "--data", toy], ["run", "--version", "v1.0-toy"]):
        paragraph(frustum("eval", *words), ConfigError.exit_code, "RUN", "--results FILE --data ROOT", "data.root=")


def test_which_split_is_meant(database: NuScenes) -> None:
    train, val = database.tokens("train"), database.tokens("val")
    assert split_of(database, train) == "train"
    assert split_of(database, train + val) == "all"
    assert split_of(database, [*val, train[0]]) == "val", "the largest that it holds"
    assert split_of(database, val[:1]) == "val", "the smallest that holds it"
    assert split_of(database, [*val[:1], "unknown"]) == "val"
    assert split_of(database, [val[0], train[0]]) == "all"
    with pytest.raises(DataError, match="none of the 1 samples"):
        split_of(database, ["unknown"])
