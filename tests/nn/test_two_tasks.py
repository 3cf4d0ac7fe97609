"""Where the cells of one grid lie in the other, and an exchange that begins in silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from frustum.geometry import VoxelGrid
from frustum.nn.two_tasks import Exchange, Window, freeze

GRID = VoxelGrid(lower=(-4, -2, -1), upper=(4, 2, 1), cell=(0.5, 0.5, 1))  # 16 x 8 voxels


def along(grid: VoxelGrid, axis: int) -> torch.Tensor:
    """A map (1, 1, Y, X) that holds the x or y of its own cells."""
    return grid.centres()[:, :, 0, axis].T[None, None]


@pytest.mark.parametrize("ratio", [1, 2, 4])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_place_stays_where_it_is(ratio, axis):
    """Coordinates that are stretched to voxels are the coordinates of the voxels, except half a cell from the border, and back."""
    window = Window(GRID, ratio, 3)
    cells = window.map_grid((-1, 1))
    assert cells.shape[:2] == (16 // ratio + 6, 8 // ratio + 6)
    found, expected = window.to_voxels(along(cells, axis)), along(GRID, axis)
    assert found.shape == expected.shape == (1, 1, 8, 16)
    inner = (..., slice(ratio, -ratio or None), slice(ratio, -ratio or None)) if ratio < 4 else (..., slice(3, 5), slice(2, -2))
    torch.testing.assert_close(found[inner], expected[inner])
    back = window.to_map(expected)
    torch.testing.assert_close(window.cut(back), window.cut(along(cells, axis)))
    assert back.shape[-2:] == along(cells, axis).shape[-2:]
    assert not back[..., :3, :].any()
    assert not back[..., -3:].any()


def test_features_at_the_resolution_of_the_map_stay_as_they_are():
    window = Window(GRID, 2, 1)
    cells = torch.randn(2, 3, 4, 8)
    assert torch.equal(window.cut(window.to_map(cells)), cells)


def test_the_grid_of_the_map():
    cells = Window(GRID, 2, 3).map_grid((-5.0, 3.0), bins=4)
    assert cells == VoxelGrid(lower=(-7, -5, -5), upper=(7, 5, 3), cell=(1, 1, 2))
    Window(GRID, 4, 0).check()
    with pytest.raises(ValueError, match="multiples of 16, got 16 x 8"):
        Window(GRID, 8, 0).check()


@pytest.mark.parametrize("priority", ["equal", "detection", "occupancy"])
def test_the_exchange_begins_in_silence(priority):
    exchange = Exchange(3, 5, priority)
    objects, columns = torch.randn(2, 3, 4, 6, requires_grad=True), torch.randn(2, 5, 4, 6, requires_grad=True)
    for_objects, for_columns = exchange(objects, columns)
    assert for_objects.shape == objects.shape
    assert for_columns.shape == columns.shape
    assert not for_objects.any()
    assert not for_columns.any()
    (for_objects.sum() + for_columns.sum()).backward()
    assert all(p.grad.any() for p in exchange.parameters()), "it can learn to speak"


def test_freeze():
    parts = freeze([None, torch.nn.Linear(2, 2), torch.nn.BatchNorm2d(1)])
    assert len(parts) == 2
    assert not any(p.requires_grad for part in parts for p in part.parameters())
    np.testing.assert_equal([type(part) for part in parts], [torch.nn.Linear, torch.nn.BatchNorm2d])
