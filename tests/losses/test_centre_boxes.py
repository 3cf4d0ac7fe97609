"""Targets and losses of boxes against the reference's values, and at the edges: unknown velocities, no boxes, far too many."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from frustum.geometry import VoxelGrid
from frustum.losses import centres as module
from frustum.losses.centre_boxes import REGRESSED, box_losses, expected_boxes
from frustum.losses.centres import centre_targets
from tests.models import golden_bevdet as gold
from tests.models import golden_panoptic as crafted

GRID = VoxelGrid(lower=(-8, -4, -1), upper=(8, 4, 1), cell=(0.5, 0.5, 2))  # 32 x 16
PUBLISHED = {
    "box_heat": 1410.1058349609375, "box_xy": 0.4705018699169159, "box_z": 0.21507017314434052, "box_size": 0.8156643509864807,
    "box_yaw": 0.5178483724594116, "box_velocity": 0.2696276903152466,
}  # fmt: skip


def random_outputs(batch=1, seed=0):
    draw = torch.Generator().manual_seed(seed)
    widths = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2, "heatmap": 10}
    return {name: torch.randn(batch, c, 16, 32, generator=draw, requires_grad=True) for name, c in widths.items()}


def targets_of(*rows, kinds=None):
    table = torch.tensor(rows).reshape(-1, 9)
    return centre_targets([table], [torch.zeros(len(table), dtype=torch.long) if kinds is None else kinds], GRID)


CAR = [1.3, -2.2, 0.7, 4.0, 2.0, 1.5, 2.5, 3.0, -1.0]


def test_targets_equal_the_reference():
    stored = np.load(gold.SMALL / "crafted_targets.npz")
    boxes, classes = crafted.boxes()
    targets = centre_targets([boxes], [classes], gold.GRID)
    heat = np.zeros((10, 128, 128), np.float32)
    heat[tuple(stored["bevdet_heat_idx"].T)] = stored["bevdet_heat_val"]
    np.testing.assert_allclose(targets.heatmap[0].numpy(), heat, atol=1e-6)
    np.testing.assert_array_equal(targets.is_box[0].numpy(), stored["bevdet_mask"].astype(bool))
    np.testing.assert_array_equal(targets.cells[0].numpy(), stored["bevdet_ind"])
    np.testing.assert_allclose(expected_boxes(targets)[0].numpy(), stored["bevdet_anno"], atol=1e-6)


def test_losses_equal_the_reference():
    boxes, classes = crafted.boxes()
    losses = box_losses(gold.head_outputs(), centre_targets([boxes], [classes], gold.GRID))
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(PUBLISHED, rel=1e-5)


def test_a_device_that_takes_the_whole_map_has_the_same_targets(monkeypatch):
    """What a GPU computes, which must not tell how large the bumps are."""
    boxes, classes = crafted.boxes()
    expected = centre_targets([boxes], [classes], gold.GRID).heatmap
    steps = module._steps
    monkeypatch.setattr(module, "_steps", lambda corner, radius, sides, whole: steps(corner, radius, sides, not whole))
    assert torch.equal(centre_targets([boxes], [classes], gold.GRID).heatmap, expected)


def test_a_perfect_head_has_no_regression_loss():
    targets, outputs = targets_of(CAR), random_outputs()
    cell = int(targets.cells[0, 0])
    with torch.no_grad():
        for name, part in zip(REGRESSED, expected_boxes(targets)[0, 0].split([2, 1, 3, 2, 2]), strict=True):
            outputs[name].flatten(2)[0, :, cell] = part
    losses = box_losses(outputs, targets)
    assert all(loss.item() == 0 for name, loss in losses.items() if name != "box_heat")
    outputs["dim"].data += math.log(2)
    assert box_losses(outputs, targets)["box_size"].item() == pytest.approx(0.25 * 3 * math.log(2), rel=1e-3)


def test_unknown_velocities_do_not_count():
    unknown = [*CAR[:7], math.nan, math.nan]
    other = [*CAR]
    other[0] = -5.0
    outputs = random_outputs()
    alone, both = (box_losses(outputs, targets_of(*rows)) for rows in ([other], [other, unknown]))
    assert both["box_velocity"].item() == pytest.approx(alone["box_velocity"].item() / 2, rel=1e-3)
    none = box_losses(outputs, targets_of(unknown))
    assert none["box_velocity"].item() == 0
    sum(none.values()).backward()
    assert all(torch.isfinite(value.grad).all() for value in outputs.values())
    assert not outputs["vel"].grad.any()
    half = box_losses(outputs, targets_of([*CAR[:7], 3.0, math.nan]))["box_velocity"]
    assert torch.isfinite(half)
    assert half > 0


@pytest.mark.parametrize(("number", "loss"), [(2, "box_z"), (5, "box_size"), (6, "box_yaw")])
def test_only_velocities_may_be_unknown(number, loss):
    spoilt = [*CAR]
    spoilt[number] = math.nan
    assert box_losses(random_outputs(), targets_of(spoilt))[loss].isnan(), "a wrong value is not hidden"


@pytest.mark.parametrize("count", [0, 1, 2000])
def test_any_number_of_boxes(count):
    draw = torch.Generator().manual_seed(0)
    rows = torch.rand(count, 9, generator=draw) * torch.tensor([14, 7, 1, 4, 2, 2, 6, 1, 1]) - torch.tensor([7, 3.5, 0, 0, 0, 0, 3, 0, 0])
    outputs = random_outputs()
    losses = box_losses(outputs, targets_of(*rows.tolist(), kinds=torch.randint(0, 10, (count,), generator=draw)))
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert bool(losses["box_size"] > 0) is (count > 0)
    sum(losses.values()).backward()
    assert torch.isfinite(outputs["dim"].grad).all()


def test_boxes_without_a_height_are_no_crash():
    flat = [*CAR]
    flat[5] = 0.0
    assert all(torch.isfinite(loss) for loss in box_losses(random_outputs(), targets_of(flat)).values())


def test_weights():
    targets, outputs = targets_of(CAR), random_outputs()
    one = box_losses(outputs, targets)
    twice = box_losses(outputs, targets, weight=2.0, l1_weight=0.5, velocity_weight=1.0)
    assert twice["box_heat"].item() == pytest.approx(2 * one["box_heat"].item())
    assert twice["box_yaw"].item() == pytest.approx(4 * one["box_yaw"].item())
    assert twice["box_velocity"].item() == pytest.approx(20 * one["box_velocity"].item())
