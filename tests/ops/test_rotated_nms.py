"""Rotated IoU by both backends against clipped polygons and cases that one can see; suppression against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import ConfigError, ShapeError
from frustum.ops.rotated_nms import circle_nms, rotated_iou, rotated_nms

BACKENDS = ("torch", "numba")


def corners(box):
    x, y, length, width, yaw = box
    turn = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    return np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * [length / 2, width / 2] @ turn.T + [x, y]


def area(polygon):
    if len(polygon) < 3:
        return 0.0
    x, y = np.array(polygon).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def iou_by_hand(one, other):
    """Clip a polygon by each edge of the other one, in the frame of the world."""
    polygon, sides = list(corners(one)), corners(other)
    for a, b in zip(sides, np.roll(sides, -1, 0), strict=True):
        edge = b - a
        left = [edge[0] * (p - a)[1] - edge[1] * (p - a)[0] for p in polygon]
        cut = []
        for i, here in enumerate(polygon):
            j = (i + 1) % len(polygon)
            if left[i] >= 0:
                cut.append(here)
            if left[i] * left[j] < 0:
                cut.append(here + (polygon[j] - here) * left[i] / (left[i] - left[j]))
        polygon = cut
    shared = area(polygon)
    union = one[2] * one[3] + other[2] * other[3] - shared
    return shared / union if union > 0 else 0.0


def both(one, other):
    found = [rotated_iou(torch.tensor([one], dtype=torch.float64), torch.tensor([other], dtype=torch.float64), b).item() for b in BACKENDS]
    assert found[0] == pytest.approx(found[1], abs=1e-9)
    return found[0]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((1, 2, 4, 2, 0.7), (1, 2, 4, 2, 0.7), 1.0),  # identical
        ((1, 2, 4, 2, 0.7), (1, 2, 4, 2, 0.7 + math.pi), 1.0),  # turned round
        ((0, 0, 4, 2, 0), (0, 0, 2, 4, math.pi / 2), 1.0),  # the same sides by other names
        ((0, 0, 2, 2, 0), (2, 0, 2, 2, 0), 0.0),  # a side in common
        ((0, 0, 2, 2, 0), (2, 2, 2, 2, 0), 0.0),  # a corner in common
        ((0, 0, 6, 1, 0), (0, 0, 6, 1, math.pi / 2), 1 / 11),  # a cross
        ((0, 0, 6, 4, 0.3), (0.2, 0.1, 1, 2, 1.3), 2 / 24),  # one inside the other
        ((0, 0, 2, 2, 0), (0, 0, 2, 2, math.pi / 4), 8 * (math.sqrt(2) - 1) / (8 - 8 * (math.sqrt(2) - 1))),  # an octagon
        ((0, 0, 4, 2, 0), (1, 0, 4, 2, 0), 6 / 10),
        ((0, 0, 4, 2, 0), (50, 0, 4, 2, 1), 0.0),
        ((0, 0, 0, 2, 0), (0, 0, 4, 2, 0), 0.0),  # no length
        ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0), 0.0),
        ((0, 0, -3, 2, 0), (0, 0, 4, 2, 0), 0.0),  # nonsense
    ],
)
def test_cases_that_one_can_see(one, other, expected):
    assert both(one, other) == pytest.approx(expected, abs=1e-12)
    assert both(other, one) == pytest.approx(expected, abs=1e-12)


_BOX = st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.1, 6), st.floats(0.1, 6), st.floats(-7, 7))


@settings(max_examples=150, deadline=None)
@given(_BOX, _BOX)
def test_equals_clipped_polygons(one, other):
    assert both(one, other) == pytest.approx(iou_by_hand(one, other), abs=1e-9)


def test_points_drawn_at_random_agree():
    one, other = (0.4, -0.3, 4.0, 2.0, 0.5), (1.2, 0.6, 3.0, 2.5, -0.8)
    points = np.random.default_rng(0).uniform(-4, 5, (400_000, 2))
    inside = []
    for x, y, length, width, yaw in (one, other):
        local = (points - [x, y]) @ np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
        inside.append((np.abs(local) <= [length / 2, width / 2]).all(1))
    assert both(one, other) == pytest.approx((inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum(), abs=0.01)


def scene(count, seed=0, extent=20.0):
    draw = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 5, generator=draw) * torch.tensor([extent, extent, 4, 2, 6.28]) + torch.tensor([0, 0, 0.5, 0.5, 0])
    return boxes, torch.rand(count, generator=draw)


def test_backends_agree_on_many_pairs():
    boxes, _ = scene(200)
    found = [rotated_iou(boxes, boxes[:150], backend) for backend in BACKENDS]
    assert found[0].shape == (200, 150)
    torch.testing.assert_close(found[0], found[1], atol=1e-10, rtol=0)
    assert (found[0] > 0).float().mean() > 0.01


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 40), st.floats(0.05, 0.7), st.integers(1, 50))
def test_suppression_equals_a_plain_loop(seed, count, threshold, max_boxes):
    boxes, scores = scene(count, seed, extent=6.0)
    scores = (scores * 8).round() / 8  # with equal ones
    expected: list[int] = []
    for i in sorted(range(count), key=lambda i: -float(scores[i])):
        if len(expected) < max_boxes and all(iou_by_hand(boxes[i].tolist(), boxes[j].tolist()) <= threshold for j in expected):
            expected.append(i)
    for backend in BACKENDS:
        assert rotated_nms(boxes, scores, threshold, max_boxes, backend).tolist() == expected, backend


def test_circles_by_class():
    points = torch.tensor([[0.0, 0.0], [1.9, 0.0], [2.1, 0.0], [0.1, 0.0], [0.0, 0.2]])
    classes, scores = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0.9, 0.8, 0.7, 0.95, 0.5])
    radius = torch.tensor([4.0, 0.01])
    assert circle_nms(points, classes, scores, radius).tolist() == [3, 0, 2, 4]
    assert circle_nms(points, classes, scores, radius, max_boxes=2).tolist() == [3, 0]


def test_nothing_to_do():
    for backend in BACKENDS:
        assert rotated_iou(torch.zeros(0, 5), torch.ones(3, 5), backend).shape == (0, 3)
        assert rotated_nms(torch.zeros(0, 5), torch.zeros(0), 0.2, backend=backend).tolist() == []


def test_bad_input():
    boxes = torch.zeros(3, 5)
    with pytest.raises(ShapeError, match=r"\(N, 5\)"):
        rotated_iou(torch.zeros(3, 7), boxes)
    with pytest.raises(ShapeError, match=r"scores \(N,\) = \(3,\)"):
        rotated_nms(boxes, torch.zeros(2), 0.2)
    with pytest.raises(ShapeError, match=r"points \(N, 2\)"):
        circle_nms(boxes, torch.zeros(3), torch.zeros(3), torch.ones(1))
    with pytest.raises(ConfigError, match="numba"):
        rotated_nms(boxes.to("meta"), torch.zeros(3, device="meta"), 0.2, backend="numba")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu():
    boxes, scores = scene(300)
    found = rotated_nms(boxes.cuda(), scores.cuda(), 0.2)
    assert found.is_cuda
    assert torch.equal(found.cpu(), rotated_nms(boxes, scores, 0.2))
