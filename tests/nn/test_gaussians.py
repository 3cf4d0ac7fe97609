"""Voxels as Gaussians: where they begin, how far they may move, and what they add up to in voxels."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from frustum.geometry import VoxelGrid
from frustum.nn.gaussians import NUMBERS, GaussianHead, Gaussians, most_opaque, rendered_gaussians, splat_to_voxels, to_gaussians

GRID = VoxelGrid(lower=(-4, -4, -1), upper=(4, 4, 1), cell=(1, 1, 0.5))


def test_numbers_of_zero_stand_at_the_middle_of_their_cells():
    found = to_gaussians(torch.zeros(2, *GRID.shape, NUMBERS + 3), GRID, GaussianHead())
    torch.testing.assert_close(found.means[1], GRID.centres().flatten(0, 2))
    torch.testing.assert_close(found.scales[0, 0], torch.tensor([0.43, 0.43, 0.215]))
    torch.testing.assert_close(found.opacities, torch.full_like(found.opacities, 1 / (1 + math.exp(4))))
    assert found.logits.shape == (2, GRID.num_cells, 3)


@pytest.mark.parametrize("sign", [-1, 1])
def test_shifts_have_limits_and_can_be_switched_off(sign):
    numbers = torch.zeros(1, *GRID.shape, NUMBERS + 1)
    numbers[..., :6] = 100 * sign
    found = to_gaussians(numbers, GRID, GaussianHead())
    torch.testing.assert_close(found.means[0] - GRID.centres().flatten(0, 2), sign * torch.tensor([0.5, 0.5, 0.25]).expand(128 * 2, 3))
    share = 1 + 0.5 * sign
    torch.testing.assert_close(found.scales[0, 0], torch.tensor([0.43, 0.43, 0.215]) * share)
    wide = to_gaussians(numbers, GRID, GaussianHead(scale=1.4 if sign > 0 else 0.2))
    torch.testing.assert_close(wide.scales[0, 0], torch.tensor([1.0, 1.0, 0.5]) * (1.5 if sign > 0 else 0.125))
    still = to_gaussians(numbers, GRID, GaussianHead(mean_shift=0, scale_shift=0))
    plain = to_gaussians(0 * numbers, GRID, GaussianHead())
    assert torch.equal(still.means, plain.means)
    assert torch.equal(still.scales, plain.scales)


def test_an_opacity_that_would_not_be_rendered_is_refused():
    with pytest.raises(ValidationError, match=r"greater than -5\.54"):
        GaussianHead(opacity_bias=-6)


def test_the_most_opaque_stay_in_their_order():
    found = to_gaussians(torch.randn(2, *GRID.shape, NUMBERS + 1), GRID, GaussianHead())
    some = most_opaque(found, 20)
    for b in range(2):
        kept = (found.opacities[b] >= found.opacities[b].topk(20).values[-1]).nonzero()[:, 0]
        for whole, part in zip(found, some, strict=True):
            assert torch.equal(part[b], whole[b, kept])
    assert most_opaque(found, 0) is found
    assert most_opaque(found, GRID.num_cells) is found


@pytest.mark.parametrize("most", [0, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_rendered_is_those_that_are_not_faint(most, dtype):
    """Against a choice among all of them, with gradients; the second sample has fewer than the first."""
    head = GaussianHead(opacity_bias=-5, most=most)
    numbers = torch.randn(2, *GRID.shape, NUMBERS + 3).to(dtype)
    numbers[1, 2:, ..., 6] -= 9
    is_valid = torch.rand(2, *GRID.shape) > 0.2
    ways = [numbers.clone().requires_grad_() for _ in range(2)]
    found, opacities = rendered_gaussians(ways[0], GRID, head, is_valid)
    every = to_gaussians(ways[1].float(), GRID, head, is_valid)
    torch.testing.assert_close(opacities, every.opacities)
    sums = [opacities.square().sum(), every.opacities.square().sum()]
    for b in range(2):
        seen = (every.opacities[b] >= 1 / 255).nonzero()[:, 0]
        seen = seen[every.opacities[b, seen].topk(min(most, len(seen))).indices.sort().values] if most else seen
        assert 0 < len(seen) < GRID.num_cells
        assert not found.opacities[b, len(seen) :].any()
        for part, whole in zip(found, every, strict=True):
            torch.testing.assert_close(part[b, : len(seen)], whole[b, seen])
            sums[0], sums[1] = sums[0] + part[b, : len(seen)].sin().sum(), sums[1] + whole[b, seen].sin().sum()
    grads = [torch.autograd.grad(total, way)[0] for total, way in zip(sums, ways, strict=True)]
    torch.testing.assert_close(*grads)


def test_gaussians_add_up_at_centres_of_voxels():
    """Against a loop over all Gaussians and the voxels next to them."""
    numbers = torch.randn(1, *GRID.shape, NUMBERS + 2, dtype=torch.float64)
    found = Gaussians(*(t.double() for t in to_gaussians(numbers, GRID, GaussianHead(opacity_bias=-1))))
    opacity, logits = splat_to_voxels(found, GRID)
    centres = GRID.centres(torch.float64)
    for voxel in ((0, 0, 0), (3, 4, 2), (7, 7, 3)):
        total, sums = 0.0, torch.zeros(2, dtype=torch.float64)
        for g in range(GRID.num_cells):
            index = torch.tensor([g // 32, g // 4 % 8, g % 4])
            if (index - torch.tensor(voxel)).abs().max() > 1:
                continue
            distance = (centres[voxel] - found.means[0, g]) / found.scales[0, g]
            weight = -math.log(1 - float(found.opacities[0, g])) * math.exp(-0.5 * float((distance * distance).sum()))
            total, sums = total + weight, sums + weight * found.logits[0, g]
        assert float(opacity[0][voxel]) == pytest.approx(1 - math.exp(-total))
        torch.testing.assert_close(logits[0][voxel], sums / total)
