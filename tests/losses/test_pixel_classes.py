"""Which class an image feature should name, and what it costs to name another."""

from __future__ import annotations

import math

import pytest
import torch

from frustum.errors import ShapeError
from frustum.losses.pixel_classes import pixel_class_loss, pixel_class_targets

CAR, PEDESTRIAN, NONE = 0, 8, 10


def box(x: float, y: float, length: float = 4.0, width: float = 2.0, yaw: float = 0.0) -> list[float]:
    return [x, y, 1.0, length, width, 2.0, yaw, 0.0, 0.0]


def targets(seen: dict[tuple[int, int], tuple[float, float, float, float]], boxes: list[list[float]], classes: list[int]) -> torch.Tensor:
    """Of one camera of 4 x 6 pixels and 2 x 3 features, whose pixels (row, column) saw (depth, x, y, z)."""
    depth, points = torch.zeros(1, 1, 4, 6), torch.full((1, 1, 4, 6, 3), 500.0)
    for (row, column), (metres, *place) in seen.items():
        depth[0, 0, row, column], points[0, 0, row, column] = metres, torch.tensor(place)
    rows = torch.tensor(boxes).reshape(-1, 9)
    return pixel_class_targets(depth, points, [rows], [torch.tensor(classes, dtype=torch.long)], (2, 3), NONE)[0]


def test_the_nearest_point_of_a_feature_names_its_class() -> None:
    """A car, a pedestrian before it, a place in no box, and features without a point."""
    found = targets(
        {(0, 0): (10.0, 10.0, 0.5, 1.0), (1, 2): (10.0, 9.0, 0.0, 1.0), (0, 3): (6.0, 6.0, 0.0, 1.0), (3, 5): (20.0, 20.0, 9.0, 1.0)},
        [box(10, 0), box(6, 0, 0.6, 0.6)],
        [CAR, PEDESTRIAN],
    )
    assert found.tolist() == [[CAR, PEDESTRIAN, -1], [-1, -1, NONE]]


def test_of_boxes_in_each_other_the_smallest_counts() -> None:
    seen = {(0, 0): (10.0, 10.0, 0.0, 1.0)}
    assert targets(seen, [box(10, 0), box(10, 0, 0.6, 0.6)], [CAR, PEDESTRIAN])[0, 0] == PEDESTRIAN
    assert targets(seen, [box(10, 0, 0.6, 0.6), box(10, 0)], [PEDESTRIAN, CAR])[0, 0] == PEDESTRIAN


@pytest.mark.parametrize(
    ("point", "is_in"), [((10.0, 1.9, 1.0), True), ((11.9, 0.0, 1.0), False), ((10, 0, 2.1), True), ((10, 0, 2.3), False)]
)
def test_boxes_are_turned_and_have_a_margin(point: tuple[float, float, float], is_in: bool) -> None:
    """4 m along y, 2 m along x, from 0 to 2 m above the ground; 0.2 m beyond still count."""
    found = targets({(0, 0): (10.0, *point)}, [box(10, 0, yaw=math.pi / 2)], [CAR])
    assert found[0, 0] == (CAR if is_in else NONE)


def test_a_sample_without_boxes() -> None:
    assert targets({(0, 0): (10.0, 10.0, 0.0, 1.0)}, [], []).tolist() == [[NONE, -1, -1], [-1, -1, -1]]


def test_features_must_divide_the_image() -> None:
    with pytest.raises(ShapeError, match="4 x 6 pixels does not divide into 3 x 3"):
        pixel_class_targets(torch.ones(1, 1, 4, 6), torch.ones(1, 1, 4, 6, 3), [torch.zeros(0, 9)], [torch.zeros(0).long()], (3, 3), NONE)


def test_objects_weigh_as_much_as_the_rest() -> None:
    """However few they are; features without a point do not count."""
    logits = torch.randn(1, NONE + 1, 2, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([[[CAR, NONE, NONE], [NONE, -1, -1]]])
    log_p = logits.log_softmax(1)
    rest = -(log_p[0, NONE, 0, 1] + log_p[0, NONE, 0, 2] + log_p[0, NONE, 1, 0]) / 3
    assert pixel_class_loss(logits, target).item() == pytest.approx(float(0.5 * (-log_p[0, CAR, 0, 0] + rest)), abs=1e-6)
    assert pixel_class_loss(logits, target.clamp(max=-1)).item() == 0
