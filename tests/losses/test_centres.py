"""Centre targets and losses against the reference's values, and against bumps drawn one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.geometry import VoxelGrid
from frustum.losses.centres import centre_losses, centre_targets, gaussian_focal_loss, gaussian_radius
from tests.models import golden_panoptic as gold

GRID = VoxelGrid(lower=(-8, -4, -1), upper=(8, 4, 1), cell=(0.5, 0.5, 2))  # 32 x 16


def test_targets_equal_the_reference():
    stored = np.load(gold.SMALL / "crafted_targets.npz")
    boxes, classes = gold.boxes()
    targets = centre_targets([boxes], [classes], VoxelGrid.occ3d())
    heat = np.zeros((10, 200, 200), np.float32)
    heat[tuple(stored["centerness_heat_idx"].T)] = stored["centerness_heat_val"]
    np.testing.assert_allclose(targets.heatmap[0].numpy(), heat, atol=1e-6)
    mask = stored["centerness_mask"].astype(bool)
    assert mask.sum() == 34
    np.testing.assert_array_equal(targets.is_box[0].numpy(), mask)
    np.testing.assert_array_equal(targets.cells[0].numpy()[mask], stored["centerness_ind"][mask])
    np.testing.assert_allclose(targets.offset[0].numpy()[mask], stored["centerness_anno"][mask, :2], atol=1e-6)
    np.testing.assert_allclose(targets.height[0].numpy()[mask], stored["centerness_anno"][mask, 2], atol=1e-6)


def test_centres_just_before_the_map():
    """Truncation puts them into the first row or column, as the reference does; rounding down leaves them out."""
    rows = torch.tensor([box(-8.2, 1.0), box(3.0, -4.3), box(-8.6, 0.0), box(8.1, 0.0)])
    kinds = torch.zeros(4, dtype=torch.long)
    assert not centre_targets([rows], [kinds], GRID, 1).is_box.any()
    targets = centre_targets([rows], [kinds], GRID, 1, rounding="truncate")
    assert targets.is_box[0].tolist() == [True, True, False, False]
    assert targets.cells[0, :2].tolist() == [10 * 32 + 0, 0 * 32 + 22]
    np.testing.assert_allclose(targets.offset[0, :2], [[-0.4, 0.0], [0.0, -0.6]], atol=1e-5)
    assert (targets.heatmap == 1).nonzero().tolist() == [[0, 0, 0, 22], [0, 0, 10, 0]]


def test_losses_equal_the_reference():
    boxes, classes = gold.boxes()
    losses = centre_losses(gold.head_outputs(), centre_targets([boxes], [classes], VoxelGrid.occ3d()))
    assert losses["centre_heat"].item() == pytest.approx(4074.058349609375, rel=1e-5)
    assert losses["centre_xy"].item() == pytest.approx(0.5099585056304932, rel=1e-5)
    assert losses["centre_z"].item() == pytest.approx(0.29152801632881165, rel=1e-5)


def box(x, y, z=0.0, length=2.0, width=1.0):
    return [x, y, z, length, width, 1.0, 0.3, 0.0, 0.0]


def test_boxes_of_a_batch_stay_apart():
    """Samples with different numbers of boxes, none among them, give what each gives alone."""
    draw = torch.Generator().manual_seed(0)
    counts = (4, 0, 2)
    boxes = [torch.tensor([box(*(14 * torch.rand(2, generator=draw) - 7).tolist()) for _ in range(n)]).reshape(n, 9) for n in counts]
    classes = [torch.randint(0, 3, (n,), generator=draw) for n in counts]
    together = centre_targets(boxes, classes, GRID, 3)
    assert together.is_box.sum(1).tolist() == [int((b[:, 1].abs() < 4).sum()) for b in boxes]
    for i in range(3):
        alone = centre_targets(boxes[i : i + 1], classes[i : i + 1], GRID, 3)
        torch.testing.assert_close(together.heatmap[i], alone.heatmap[0])
        slots = alone.cells.shape[1]
        torch.testing.assert_close(together.cells[i, :slots], alone.cells[0])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-9, 9), st.floats(-5, 5), st.floats(0.3, 9), st.floats(0.3, 3), st.integers(0, 1)), min_size=1, max_size=6)
)
def test_heat_is_the_highest_bump(objects):
    rows = torch.tensor([box(x, y, 0.0, length, width) for x, y, length, width, _ in objects])
    kinds = torch.tensor([kind for *_, kind in objects])
    targets = centre_targets([rows], [kinds], GRID, 2)
    expected = np.zeros((2, 16, 32))
    for row, kind in zip(rows.tolist(), kinds.tolist(), strict=True):
        # In single precision, as the boxes are: a centre within rounding of a cell's border belongs to the cell that it is rounded into.
        i, j = math.floor((np.float32(row[0]) + np.float32(8)) / 0.5), math.floor((np.float32(row[1]) + np.float32(4)) / 0.5)
        if not (0 <= i < 32 and 0 <= j < 16):
            continue
        radius = max(2, int(gaussian_radius(torch.tensor(row[4] / 0.5), torch.tensor(row[3] / 0.5))))
        for y in range(max(0, j - radius), min(16, j + radius + 1)):
            for x in range(max(0, i - radius), min(32, i + radius + 1)):
                bump = math.exp(-((x - i) ** 2 + (y - j) ** 2) / (2 * ((2 * radius + 1) / 6) ** 2))
                expected[kind, y, x] = max(expected[kind, y, x], bump)
    np.testing.assert_allclose(targets.heatmap[0].numpy(), expected, atol=1e-6)


def test_a_bump_larger_than_the_map():
    """Its values are those of the whole bump, and no more than the map is computed."""
    targets = centre_targets([torch.tensor([box(0.1, 0.1, 0.0, 4000.0, 3000.0)])], [torch.zeros(1, dtype=torch.long)], GRID, 1)
    radius = int(gaussian_radius(torch.tensor(6000.0), torch.tensor(8000.0)))
    assert radius > 1000
    y, x = torch.meshgrid(torch.arange(16.0) - 8, torch.arange(32.0) - 16, indexing="ij")
    expected = torch.exp(-(x**2 + y**2) / (2 * ((2 * radius + 1) / 6) ** 2))
    torch.testing.assert_close(targets.heatmap[0, 0], expected)


def test_a_perfect_head_has_no_regression_loss():
    rows, kinds = torch.tensor([box(1.3, -2.2, 0.7), box(-5.1, 3.4, -0.2)]), torch.tensor([0, 1])
    targets = centre_targets([rows], [kinds], GRID, 2)
    outputs = {"heatmap": torch.zeros(1, 2, 16, 32), "reg": torch.zeros(1, 2, 16, 32), "height": torch.zeros(1, 1, 16, 32)}
    for slot in range(2):
        y, x = divmod(int(targets.cells[0, slot]), 32)
        outputs["reg"][0, :, y, x] = targets.offset[0, slot]
        outputs["height"][0, 0, y, x] = rows[slot, 2]
    losses = centre_losses(outputs, targets)
    assert losses["centre_xy"] == losses["centre_z"] == 0
    outputs["height"] += 2.0
    assert centre_losses(outputs, targets)["centre_z"].item() == pytest.approx(0.25 * 2.0, rel=1e-3)


def test_no_boxes_leave_only_the_background():
    targets = centre_targets([torch.zeros(0, 9)] * 2, [torch.zeros(0, dtype=torch.long)] * 2, GRID, 3)
    outputs = {"heatmap": torch.zeros(2, 3, 16, 32), "reg": torch.ones(2, 2, 16, 32), "height": torch.ones(2, 1, 16, 32)}
    losses = centre_losses(outputs, targets)
    assert losses["centre_xy"] == losses["centre_z"] == 0
    assert losses["centre_heat"].item() == pytest.approx(2 * 3 * 16 * 32 * 0.25 * math.log(2), rel=1e-5)


def test_only_so_many_boxes_count():
    rows = torch.tensor([box(x, 0.0) for x in [-6] * 496 + list(range(-5, 6))])
    targets = centre_targets([rows], [torch.zeros(len(rows), dtype=torch.long)], GRID, 1)
    assert targets.is_box.shape == (1, 500)
    assert (targets.heatmap == 1).sum() == 5


def test_focal_loss_falls_with_better_answers():
    heat = torch.zeros(1, 1, 5, 5)
    heat[0, 0, 2, 2], heat[0, 0, 2, 3] = 1.0, 0.8
    unsure, sure = torch.zeros_like(heat), torch.full_like(heat, -5.0)
    sure[0, 0, 2, 2] = 5.0
    assert gaussian_focal_loss(sure, heat) < 0.01 * gaussian_focal_loss(unsure, heat)
    assert torch.isfinite(gaussian_focal_loss(torch.full_like(heat, 1e4), heat))
