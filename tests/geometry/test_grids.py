import pytest
import torch
from pydantic import ValidationError

from frustum.errors import ConfigError
from frustum.geometry import VoxelGrid


def test_occ3d_has_the_published_shape_and_bounds():
    grid = VoxelGrid.occ3d()
    assert grid.shape == (200, 200, 16)
    assert grid.num_cells == 640_000
    first = grid.centres(torch.float64)[0, 0, 0]
    torch.testing.assert_close(first, torch.tensor([-39.8, -39.8, -0.8], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_centres_fall_back_into_their_own_cells(dtype):
    grid = VoxelGrid(lower=(-4.0, -3.0, -1.0), upper=(4.0, 5.0, 2.0), cell=(0.5, 0.4, 0.3))
    index, inside = grid.indices(grid.centres(dtype))
    expected = torch.stack(torch.meshgrid(*(torch.arange(n) for n in grid.shape), indexing="ij"), -1)
    assert inside.all()
    assert torch.equal(index, expected)


def test_floor_and_truncation_differ_only_just_below_the_grid():
    grid = VoxelGrid.occ3d().collapsed_z(1)
    points = torch.tensor([[0.0, 0.0, -1.1], [0.0, 0.0, -7.3], [0.0, 0.0, -7.5], [-40.2, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 5.5]])
    assert grid.indices(points)[1].tolist() == [False, False, False, False, True, False]
    assert grid.indices(points, "truncate")[1].tolist() == [True, True, False, True, True, False]


def test_scaled_and_collapsed_keep_the_extent():
    grid = VoxelGrid.occ3d()
    assert grid.scaled(2, 2).shape == (100, 100, 16)
    assert grid.collapsed_z(8).shape == (200, 200, 8)
    assert grid.collapsed_z(8).upper == grid.upper


def test_cells_must_divide_the_extent():
    with pytest.raises(ValidationError, match="do not divide x"):
        VoxelGrid(lower=(0, 0, 0), upper=(1, 1, 1), cell=(0.3, 0.5, 0.5))


def test_require_shape_names_both_shapes():
    with pytest.raises(ConfigError, match=r"\(2, 2, 2\).*\(200, 200, 16\)"):
        VoxelGrid.occ3d().require_shape((2, 2, 2), "the prediction")


def test_json_round_trip():
    grid = VoxelGrid.occ3d()
    assert VoxelGrid.model_validate_json(grid.model_dump_json()) == grid
