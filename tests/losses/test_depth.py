"""Depth losses against the reference's values and slow formulas."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from frustum.errors import ShapeError
from frustum.geometry.depth import DepthBins
from frustum.losses.depth import block_minimum, depth_bce, depth_cross_entropy, depth_targets
from tests.models.golden_weights import crafted_depth, golden

UNIFORM = DepthBins(start=1, stop=45, step=1)
SID = DepthBins(start=1, stop=45, step=0.5, spacing="sid")


def test_published_values():
    depth, probabilities = crafted_depth(44)
    assert depth_bce(probabilities, depth, UNIFORM).item() == pytest.approx(5.277789, abs=2e-5)
    depth, probabilities = crafted_depth(88)
    assert 0.05 * depth_bce(probabilities, depth, SID).item() == pytest.approx(0.298766, abs=2e-6)


def test_targets_equal_the_reference(shared):
    folder = golden(shared, "crafted")
    stored = np.load(folder / "depth_targets.npz")
    depth, _ = crafted_depth(44)
    target = depth_targets(depth, (16, 44), UNIFORM)
    np.testing.assert_array_equal(target.numpy().reshape(-1), stored["bin"].reshape(-1))
    meta = json.loads((folder / "meta.json").read_text())
    assert (target >= 0).sum() == meta["depth_uniform_D44"]["n_fg"]
    assert (depth_targets(depth, (16, 44), SID) >= 0).sum() == meta["depth_sid_D88"]["n_fg"]
    assert np.bincount(target[target >= 0], minlength=44).tolist() == meta["depth_uniform_D44"]["bin_hist"]


def test_block_minimum_takes_the_nearest_known_depth():
    depth = torch.zeros(1, 4, 6)
    depth[0, 0, 0], depth[0, 1, 2], depth[0, 3, 5] = 7.0, 3.0, 9.0
    assert block_minimum(depth, (2, 2)).tolist() == [[[3.0, 0.0], [0.0, 9.0]]]


def test_block_minimum_needs_whole_blocks():
    with pytest.raises(ShapeError, match="does not divide"):
        block_minimum(torch.zeros(1, 5, 6), (2, 2))


def test_cross_entropy_equals_the_plain_formula():
    depth = torch.where(torch.rand(2, 8, 8) < 0.3, torch.rand(2, 8, 8) * 60, 0)
    logits = torch.randn(2, 44, 4, 4, requires_grad=True)
    target = depth_targets(depth, (4, 4), UNIFORM)
    expected = torch.nn.functional.cross_entropy(logits, target, ignore_index=-1)
    loss = depth_cross_entropy(logits.softmax(1), depth, UNIFORM)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    ours = torch.autograd.grad(loss, logits)[0]
    torch.testing.assert_close(ours, torch.autograd.grad(expected, logits)[0])


@pytest.mark.parametrize("loss", [depth_bce, depth_cross_entropy])
def test_no_known_depth_gives_zero(loss):
    probabilities = torch.full((1, 44, 2, 2), 1 / 44, requires_grad=True)
    value = loss(probabilities, torch.zeros(1, 4, 4), UNIFORM)
    value.backward()
    assert value.item() == 0
    assert not probabilities.grad.any()
