"""Losses of maps: targets of the reference implementation, and means by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from frustum.losses.maps import CentreTargets, cell_cross_entropy, centre_loss, centre_targets, offset_loss
from tests.models import golden_simplebev as gold


def test_targets_equal_the_reference():
    truth = gold.drawn()
    targets = centre_targets(truth.instances, truth.centres, doubled=True)
    with np.load(gold.DATA / "labels.npz") as stored:
        np.testing.assert_allclose(gold.own_axes(targets.heat)[0, 0, ::2, ::2], stored["center"], atol=1e-6)
        np.testing.assert_array_equal(gold.own_axes(targets.offset)[0, :, ::2, ::2], stored["offset"])
    plain = centre_targets(truth.instances, truth.centres)
    torch.testing.assert_close(2 * plain.offset, targets.offset)


def test_offsets_point_from_the_centre_to_the_cell():
    """Rows are to the left, columns forward; offsets to the right and forward."""
    instances = torch.zeros(1, 8, 8, dtype=torch.int32)
    instances[0, 2:5, 3:7] = 1
    targets = centre_targets(instances, [torch.tensor([[3, 4]])])
    assert targets.offset[0, :, 4, 6].tolist() == [-1, 2], "one cell to the left of the centre, two ahead"
    assert targets.heat[0, 0, 3, 4] == 1
    assert targets.heat[0, 0, 3, 7] == pytest.approx(np.exp(-9 / 18))
    assert not targets.offset[0, :, instances[0] == 0].any()


def test_no_object_is_no_centre():
    targets = centre_targets(torch.zeros(2, 4, 4, dtype=torch.int32), [torch.zeros(0, 2, dtype=torch.int32)] * 2)
    assert not targets.heat.any()
    assert not targets.is_object.any()
    assert offset_loss(torch.ones(2, 2, 4, 4), targets, torch.ones(2, 1, 4, 4, dtype=torch.bool)) == 0


def test_cells_that_do_not_count_are_left_out():
    logits, classes = torch.tensor([[[[0.0, 9.0]], [[2.0, -2.0]]]]), torch.tensor([[[[True, False]], [[True, False]]]])
    counts = torch.tensor([[[[True, False]], [[True, True]]]])
    first = 2.13 * np.log(2)
    second = (2.13 + 1) * np.log1p(np.exp(-2)) / 2
    assert float(cell_cross_entropy(logits, classes, counts, 2.13)) == pytest.approx((first + second) / 2, rel=1e-5)
    assert cell_cross_entropy(logits, classes, torch.zeros_like(counts), 2.13) == 0


def test_samples_without_labels_teach_nothing():
    heat = torch.zeros(2, 1, 2, 2)
    heat[0, 0, 0, 0] = 1
    predicted = torch.full_like(heat, 0.5)
    both, none = torch.tensor([True, True]), torch.tensor([False, False])
    assert float(centre_loss(predicted, heat, both)) == pytest.approx(0.25, rel=1e-5)
    assert centre_loss(predicted, heat, none) == 0
    predicted[1] = 1  # only the second sample is wrong by one everywhere
    assert float(centre_loss(predicted, heat, torch.tensor([True, False]))) == pytest.approx(0.25, rel=1e-5)


def test_offsets_count_in_both_directions():
    targets = CentreTargets(torch.zeros(1, 1, 1, 2), torch.zeros(1, 2, 1, 2), torch.tensor([[[[True, True]]]]))
    predicted = torch.tensor([[[[3.0, 5.0]], [[-1.0, 5.0]]]])
    assert float(offset_loss(predicted, targets, torch.tensor([[[[True, False]]]]))) == pytest.approx(4, rel=1e-5)
