"""What a detector must beat: no boxes, and the boxes that are most likely in the training labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from frustum.data.labels.boxes import BoxLabels
from frustum.data.nuscenes.reader import NuScenes
from frustum.engine.evaluate import evaluate, evaluate_with_baselines
from frustum.engine.overrides import apply
from frustum.engine.reports import compare
from frustum.errors import DataError
from frustum.tasks.blind_boxes import CELL, MAX_BOXES_OF_A_CLASS, LikelyBoxes, NoBoxes, likely_boxes
from frustum.tasks.detection import DetectionTask
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.predictions import PredictedBoxes
from tests.data.toy import VERSION, toy_database

CAR, PEDESTRIAN, CONE = (DETECTION_CLASSES.index(name) for name in ("car", "pedestrian", "traffic_cone"))
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def street(street_root: Path) -> NuScenes:
    return NuScenes(street_root, "v1.0-trainval", camera_only=True)


def boxes_at(*rows: tuple[float, ...]) -> np.ndarray:
    """(M, 9) from x, y and, where given, yaw and velocity."""
    found = np.tile([0.0, 0, 1, 4, 2, 1.5, 0, 0, 0], (len(rows), 1))
    for box, row in zip(found, rows, strict=True):
        box[:2], box[6 : 6 + len(row) - 2] = row[:2], row[2:]
    return found


def fitted(boxes: np.ndarray, classes: list[int], frames: int) -> PredictedBoxes:
    return likely_boxes(boxes, np.array(classes, np.int64), frames)


def test_the_most_frequent_places_come_first() -> None:
    rows = [(10.5, 1.0)] * 3 + [(-9.0, 2.0)] * 5 + [(30.0, -3.0)]
    found = fitted(boxes_at(*rows), [CAR] * 9, 10)
    assert found.boxes[:, 0].tolist() == [-9.0, 10.5, 30.0]
    assert found.scores.tolist() == pytest.approx([0.5, 0.3, 0.1])
    assert found.classes.tolist() == [CAR] * 3
    assert found.class_names == DETECTION_CLASSES


def test_classes_do_not_mix_and_far_boxes_do_not_count() -> None:
    """Cars count below 50 m, pedestrians below 40 m, cones below 30 m."""
    place = [(45.0, 0.0), (45.0, 0.0), (35.0, 0.0), (35.0, 0.0), (20.0, 1.0), (49.0, 12.0)]
    found = fitted(boxes_at(*place), [CAR, PEDESTRIAN, PEDESTRIAN, CONE, CONE, CAR], 1)
    assert list(zip(found.classes.tolist(), found.boxes[:, 0].tolist(), strict=True)) == [(CAR, 45), (PEDESTRIAN, 35), (CONE, 20)]
    assert found.scores.tolist() == [1, 1, 1]


def test_a_score_is_a_probability() -> None:
    """Two objects of a class in one place of every frame."""
    found = fitted(boxes_at(*[(10.0, 1.0), (10.5, 2.0)] * 4), [PEDESTRIAN] * 8, 4)
    assert found.scores.tolist() == [1.0]
    assert found.boxes[0, :2].tolist() == [10.25, 1.5]


def test_the_heading_is_the_most_frequent_one() -> None:
    """Oncoming traffic does not turn the box sideways, and headings around 180 degrees have a mean of 180, not 0."""
    turned = fitted(boxes_at(*[(10.0, 1.0, yaw) for yaw in (3.1, -3.1, 3.0, -3.0, 0.1, 0.0)]), [CAR] * 6, 6)
    assert abs(turned.boxes[0, 6].item()) == pytest.approx(np.pi, abs=1e-6)
    mixed = fitted(boxes_at(*[(10.0, 1.0, yaw) for yaw in (0.2, 0.1, 0.3, np.pi)]), [CAR] * 4, 6)
    assert mixed.boxes[0, 6].item() == pytest.approx(0.2)


def test_unknown_velocities_are_left_out() -> None:
    rows = [(10.0, 1.0, 0.0, 3.0, 1.0), (10.0, 1.0, 0.0, np.nan, np.nan), (10.0, 1.0, 0.0, 5.0, 1.0), (20.0, 1.0, 0.0, np.nan, np.nan)]
    found = fitted(boxes_at(*rows), [CAR] * 4, 4)
    assert found.boxes[0, 7:].tolist() == [4.0, 1.0]
    assert found.boxes[1, 7:].isnan().all()
    assert found.boxes[:, :7].isfinite().all()


def test_no_more_boxes_than_a_submission_may_have() -> None:
    places = [(x, y) for x in np.arange(-28, 28, CELL) for y in np.arange(-28, 28, CELL)]
    found = fitted(np.concatenate([boxes_at(*places)] * 10), [k for k in range(10) for _ in places], 1)
    assert MAX_BOXES_OF_A_CLASS == 50
    assert torch.bincount(found.classes).tolist() == [50] * 10


def test_a_split_without_boxes_gives_no_boxes() -> None:
    found = fitted(np.zeros((0, 9)), [], 3)
    assert found.boxes.shape == (0, 9)
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert found.classes.dtype == torch.int64


def test_what_is_learned_is_in_the_training_labels(street: NuScenes) -> None:
    shown: list[str] = []
    nothing, likely = DetectionTask().baselines(street, "train", lambda title, tokens: shown.append(title) or tokens)
    assert isinstance(nothing, NoBoxes)
    assert isinstance(likely, LikelyBoxes)
    assert shown == ["most likely boxes"]
    tokens = street.tokens("train")
    assert likely.num_frames == len(tokens) == 6
    labels = [BoxLabels().read(street, token) for token in tokens]
    boxes, classes = np.concatenate([f.boxes for f in labels]), np.concatenate([f.classes for f in labels])
    part = likely.answer("any").boxes
    for box, kind, score in zip(part.boxes.numpy(), part.classes.tolist(), part.scores.tolist(), strict=True):
        place = np.floor(box[:2] / CELL)
        there = boxes[(classes == kind) & (np.floor(boxes[:, :2] / CELL) == place).all(1)]
        assert score == pytest.approx(min(1, len(there) / 6), abs=0.4)  # a place at the edge has boxes that do not count
        assert score <= len(there) / 6 + 1e-6
        assert there[:, 3].min() - 1e-4 <= box[3] <= there[:, 3].max() + 1e-4
    again = LikelyBoxes.fit(street, "train").answer("other").boxes
    assert all(torch.equal(getattr(again, n).nan_to_num(-99), getattr(part, n).nan_to_num(-99)) for n in ("boxes", "classes", "scores"))


def test_both_are_scored(street: NuScenes) -> None:
    """Nothing scores nothing; on the frames that it learned from, the most likely boxes find something."""
    nothing, likely = (
        evaluate(None, predictor, street, "train", progress=False) for predictor in DetectionTask().baselines(street, "train")
    )
    assert (nothing.name, likely.name) == ("no boxes", "most likely boxes")
    assert (nothing.images, likely.images) == ("none", "none")
    assert nothing.results["detection"]["mean_ap"] == nothing.results["detection"]["nd_score"] == 0
    assert 0.01 < likely.results["detection"]["mean_ap"] < 1
    assert all("frame" in report.note for report in (nothing, likely))
    table = compare([nothing, likely])
    assert [row[0] for row in table.rows] == ["no boxes", "most likely boxes"]


def test_no_image_is_opened(tmp_path: Path) -> None:
    root = toy_database(tmp_path / "toy")
    shutil.rmtree(root / "samples")
    database = NuScenes(root, VERSION, camera_only=True)
    for predictor in DetectionTask().baselines(database, "train"):
        metrics = evaluate(None, predictor, database, "val", progress=False).results["detection"]
        assert metrics["counts"]["car"]["true"] == 3


def test_a_split_without_keyframes(street: NuScenes) -> None:
    class Empty:
        def tokens(self, split: str) -> list[str]:
            return []

    with pytest.raises(DataError, match="'train' has no keyframes to learn the most likely boxes from"):
        LikelyBoxes.fit(Empty(), "train")
    with pytest.raises(DataError, match="has no split 'trian'"):
        LikelyBoxes.fit(street, "trian")


def test_a_detector_is_compared_with_them(street_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example: as `frustum eval --baselines` does."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from bev_detector import bev_detector

    recipe = apply(bev_detector(), [f"data.root={street_root}", "model.width=4", "runtime.device=cpu"])
    reports = evaluate_with_baselines(recipe, recipe.model.build().eval(), progress=False)
    assert [report.name for report in reports] == ["bev-detector", "no boxes", "most likely boxes", "black images"]
    assert [report.images for report in reports] == ["as they are", "none", "none", "black"]
    assert len({report.results["detection"]["counts"]["car"]["true"] for report in reports}) == 1
    table = compare(reports)
    assert table.columns[:3] == ["", "mAP", "NDS"]
    assert [row[0] for row in table.rows] == [report.name for report in reports]
