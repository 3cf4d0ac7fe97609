"""Boxes of a centre head: the reference's decoding, its key names, and what drops boxes of the same object."""

from __future__ import annotations

import json
import math

import numpy as np
import torch

from frustum.geometry import VoxelGrid
from frustum.nn.centre_boxes import BoxDecoding, box_predictions, decode_boxes, suppressed
from frustum.nn.centre_head import BOXES, CentreHead
from frustum.types.classes import DETECTION_CLASSES
from tests.models import golden_bevdet as gold

GRID = VoxelGrid(lower=(-8, -4, -1), upper=(8, 4, 1), cell=(0.5, 0.5, 2))  # 32 x 16


def test_boxes_equal_the_reference():
    stored = np.load(gold.SMALL / "crafted_targets.npz")
    found = decode_boxes(gold.head_outputs(), gold.GRID)
    np.testing.assert_allclose(found.boxes[0].numpy(), stored["bevdet_dec_boxes"], atol=1e-5)
    np.testing.assert_allclose(found.scores[0].numpy(), stored["bevdet_dec_scores"], atol=1e-6)
    np.testing.assert_array_equal(found.classes[0].numpy(), stored["bevdet_dec_labels"])


def test_the_published_keys():
    shapes = json.loads((gold.SMALL / "head_keys.json").read_text())
    head = CentreHead(256, used=BOXES)
    assert {f"pts_bbox_head.{key}": list(value.shape) for key, value in head.state_dict().items()} == shapes
    assert sum(p.numel() for p in head.parameters()) == 381076
    outputs = head.eval()(torch.randn(1, 256, 4, 6))
    assert {name: value.shape[1] for name, value in outputs.items()} == {
        "reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2, "heatmap": 10,
    }  # fmt: skip


def one_object(x=5, y=7, label=0, **values):
    """Outputs with one strong peak, and what is regressed there."""
    widths = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2, "heatmap": 10}
    outputs = {name: torch.zeros(1, c, 16, 32) for name, c in widths.items()}
    outputs["heatmap"] -= 10
    outputs["heatmap"][0, label, y, x] = 3.0
    for name, value in values.items():
        outputs[name][0, :, y, x] = torch.tensor(value)
    return outputs


def test_a_box_in_metres():
    yaw = 2.0
    outputs = one_object(
        reg=[0.25, 0.5], height=[0.9], dim=[math.log(4.5), math.log(2), math.log(1.5)], rot=[math.sin(yaw), math.cos(yaw)], vel=[3.0, -1.0]
    )
    (prediction,) = box_predictions(outputs, ["a"], GRID, BoxDecoding())
    assert prediction.token == "a"
    part = prediction.boxes
    torch.testing.assert_close(part.boxes, torch.tensor([[-8 + 5.25 * 0.5, -4 + 7.5 * 0.5, 0.9, 4.5, 2.0, 1.5, yaw, 3.0, -1.0]]))
    assert part.classes.tolist() == [0]
    assert part.class_names == DETECTION_CLASSES
    torch.testing.assert_close(part.scores, torch.tensor([3.0]).sigmoid())


def test_the_score_the_place_and_the_number_decide():
    outputs = one_object()
    assert len(box_predictions(outputs, ["a"], GRID, BoxDecoding(score_threshold=0.96))[0].boxes.scores) == 0
    outputs["height"] += 11.0
    assert len(box_predictions(outputs, ["a"], GRID, BoxDecoding())[0].boxes.scores) == 0
    many = {name: torch.randn(2, value.shape[1], 16, 32) for name, value in outputs.items()}
    for prediction in box_predictions(many, ["a", "b"], GRID, BoxDecoding(max_boxes=40, score_threshold=0)):
        assert 0 < len(prediction.boxes.scores) < 40
        assert (prediction.boxes.scores.diff() <= 0).all()
    few = box_predictions(many, ["a", "b"], GRID, BoxDecoding(max_kept=3, score_threshold=0))
    assert [len(p.boxes.scores) for p in few] == [3, 3]


def test_a_size_that_cannot_be_is_finite():
    (prediction,) = box_predictions(one_object(dim=[500.0, 0.0, 0.0]), ["a"], GRID, BoxDecoding())
    assert torch.isfinite(prediction.boxes.boxes).all()


def rows(*boxes):
    return torch.tensor([[x, y, 0.0, length, width, 1.5, yaw, 0.0, 0.0] for x, y, length, width, yaw in boxes])


def kept(boxes, labels, suppression, **settings):
    classes, scores = torch.tensor([DETECTION_CLASSES.index(n) for n in labels], dtype=torch.long), torch.linspace(0.9, 0.5, len(labels))
    return suppressed(boxes, classes, scores, BoxDecoding(suppression=suppression, **settings)).tolist()


def test_cells_beside_a_peak_are_read_unless_only_peaks_are_asked_for():
    """One blurred pedestrian: a box for each of nine cells side by side, none of which overlaps enough to be dropped."""
    outputs = one_object(label=8)
    outputs["dim"] += math.log(0.5)
    outputs["heatmap"][0, 8, 6:9, 4:7] = 2.0
    outputs["heatmap"][0, 8, 7, 5] = 3.0
    outputs["heatmap"][0, 0, 7, 6] = 1.0  # a car beside it is a peak of its own class
    grid = VoxelGrid(lower=(-16, -8, -1), upper=(16, 8, 1), cell=(1, 1, 2))
    settings = [BoxDecoding(peaks=is_on, suppression="circle") for is_on in (False, True)]
    every, peaks = (box_predictions(outputs, ["a"], grid, decoding)[0].boxes for decoding in settings)
    assert sorted(every.classes.tolist()) == [0] + [8] * 9
    assert peaks.classes.tolist() == [8, 0]
    assert peaks.boxes[:, :2].tolist() == [[-11.0, -1.0], [-10.0, -1.0]]


def test_scale_nms_joins_pedestrians_and_parts_buses():
    people = rows((0, 0, 0.6, 0.6, 0), (0.55, 0, 0.6, 0.6, 0))
    assert kept(people, ["pedestrian"] * 2, "rotated") == [0, 1]
    assert kept(people, ["pedestrian"] * 2, "scale") == [0]
    buses = rows((0, 0, 11, 3, 0), (0.5, 1.9, 11, 3, 0))
    assert kept(buses, ["bus"] * 2, "rotated") == [0]
    assert kept(buses, ["bus"] * 2, "scale") == [0, 1]


def test_rotated_nms_asks_for_no_class_and_circle_nms_does():
    same_place = rows((0, 0, 4, 2, 0), (0.2, 0, 4, 2, 0.1), (3, 0, 4, 2, 1.57))
    assert kept(same_place, ["car", "truck", "car"], "rotated") == [0, 2]
    assert kept(same_place, ["car", "truck", "car"], "circle") == [0, 1, 2]
    assert kept(same_place, ["car", "car", "car"], "circle") == [0, 2]  # 2 m, the square root of 4


def test_no_boxes():
    for suppression in ("scale", "rotated", "circle"):
        assert kept(rows().reshape(0, 9), [], suppression) == []
