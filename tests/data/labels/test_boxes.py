"""Box labels: which are kept, how they move, and what is said where there are none."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frustum.data.augment import BevTransform, Draw
from frustum.data.labels.boxes import BoxLabels
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.sample import Boxes, Sample
from frustum.errors import DataError
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.contract import Shapes
from tests.data.toy import VERSION

STILL = Draw((), BevTransform(), (9, 16))


class Annotated:
    """A rig source of keyframes with given boxes: one row of nine numbers, a class and a number of LiDAR and radar points each."""

    root = Path("made-up")

    def __init__(self, *rows: tuple[list[float], str, int, int]):
        self.rows = rows

    def sample(self, token: str, **options: Any) -> Sample:
        assert options == {"with_boxes": True, "occupancy": False}, "nothing may be read in vain"
        names, lidar, radar = ([row[i] for row in self.rows] for i in (1, 2, 3))
        blank, count = [""] * len(self.rows), len(self.rows)
        boxes = Boxes(
            boxes=np.array([row[0] for row in self.rows], float).reshape(-1, 9),
            box2ego=np.tile(np.eye(4), (count, 1, 1)),
            names=names,  # type: ignore[arg-type]
            tokens=blank,
            instances=blank,
            attributes=blank,
            visibility=np.ones(count, int),
            num_lidar_pts=np.array(lidar, int),
            num_radar_pts=np.array(radar, int),
        )
        return Sample(token, "scene", 0.0, np.eye(4), (), boxes=boxes)

    def count_boxes(self, tokens: Iterable[str], min_points: int = 1) -> int:
        return len(list(tokens)) * sum(lidar + radar >= min_points for _, _, lidar, radar in self.rows)


NAN = math.nan
CAR = [1.0, 2, 3, 4.5, 1.9, 1.6, 0.3, 5.0, -1.0]


def test_boxes_without_points_and_of_other_classes_are_left_out() -> None:
    source = Annotated((CAR, "car", 0, 0), (CAR, "animal", 9, 9), (CAR, "bus", 0, 1), (CAR, "bicycle", 2, 0))

    def kept(min_points: int) -> list[str]:
        return [DETECTION_CLASSES[i] for i in BoxLabels(min_points).read(source, "a").classes]

    assert kept(1) == ["bus", "bicycle"]
    assert kept(0) == ["car", "bus", "bicycle"]
    assert kept(2) == ["bicycle"]


@pytest.mark.parametrize("bev", [BevTransform(), BevTransform(flip_x=True), BevTransform(flip_y=True), BevTransform(0.4, 1.1, flip_x=True)])
def test_unknown_velocities_stay_unknown_and_known_ones_turn(bev: BevTransform) -> None:
    labels = BoxLabels()
    found = labels.read(Annotated((CAR, "car", 5, 0), ([*CAR[:7], NAN, NAN], "car", 5, 0)), "a")
    truth = labels.collate([labels.apply(found, replace(STILL, bev=bev))])
    assert truth is not None
    boxes = truth.boxes[0]
    assert boxes.dtype == torch.float32
    assert boxes[1, 7:].isnan().all()
    assert not boxes[:, :7].isnan().any()
    np.testing.assert_array_equal(boxes[0, :7].numpy(), boxes[1, :7].numpy())
    np.testing.assert_allclose(boxes[0, 7:].numpy(), bev.matrix()[:2, :2] @ CAR[7:], rtol=1e-6)
    np.testing.assert_allclose(boxes[0, :3].numpy(), bev.matrix()[:3, :3] @ CAR[:3], rtol=1e-6)


def test_samples_have_numbers_of_boxes_of_their_own() -> None:
    labels = BoxLabels()
    rows = [labels.apply(labels.read(Annotated(*[(CAR, "car", 1, 0)] * count), "a"), STILL) for count in (2, 0, 1)]
    truth = labels.collate(rows)
    assert truth is not None
    assert [box.shape for box in truth.boxes] == [(2, 9), (0, 9), (1, 9)]
    assert [(ids.dtype, len(ids)) for ids in truth.classes] == [(torch.int64, 2), (torch.int64, 0), (torch.int64, 1)]
    assert labels.collate([rows[0], None]) is None


def test_learning_from_boxes_needs_boxes(toy_root: Path) -> None:
    empty, labels = Annotated((CAR, "car", 0, 0)), BoxLabels(without="model.heads=false")
    with pytest.raises(DataError, match=r"none of the 2 training keyframes in made-up has a box .*train without: model\.heads=false$"):
        labels.require(empty, ["a", "b"])
    with pytest.raises(DataError, match=r"\(sample_annotation\.json\)\. Add annotations\.$"):
        BoxLabels().require(empty, ["a"])
    labels.require(empty, [])  # that a split is empty is said elsewhere
    BoxLabels(min_points=0).require(empty, ["a"])
    reader = NuScenes(toy_root, VERSION)
    tokens = reader.tokens("train")
    labels.require(reader, tokens)
    found = [len(BoxLabels(min_points=3).read(reader, token).classes) for token in tokens]
    assert reader.count_boxes(tokens, 3) == sum(found) > 0
    assert reader.count_boxes([]) == 0
    with pytest.raises(DataError, match="train without"):
        replace(labels, min_points=13).require(reader, tokens)


def test_boxes_of_keyframes_with_hidden_labels_are_not_learned(toy_root: Path) -> None:
    source = NuScenes(toy_root, VERSION)
    tokens = source.tokens("train")
    BoxLabels().require(source, tokens)
    source.hide_labels("train", 0.5, by="keyframe")
    with pytest.raises(DataError, match=r"would from those of all keyframes\. Set data.labelled_only=true"):
        BoxLabels().require(source, tokens)
    BoxLabels().require(source, [token for token in tokens if not source.hides_labels(token)])


def test_the_example_is_as_declared() -> None:
    truth = BoxLabels().example(np.random.default_rng(0), Shapes(3, 6, (8, 8)))
    assert [len(boxes) for boxes in truth.boxes] == [len(classes) for classes in truth.classes] == [4, 5, 5]
    for boxes, classes in zip(truth.boxes, truth.classes, strict=True):
        assert (boxes.dtype, classes.dtype) == (torch.float32, torch.int64)
        assert (boxes[:, 3:6] > 0).all()
        assert ((classes >= 0) & (classes < len(DETECTION_CLASSES))).all()


def test_what_is_learned_from_is_said() -> None:
    assert BoxLabels().described(Annotated(), [], {}) == "boxes of objects with at least 1 LiDAR or radar point"
    assert BoxLabels(5).described(Annotated(), [], {}) == "boxes of objects with at least 5 LiDAR or radar points"
