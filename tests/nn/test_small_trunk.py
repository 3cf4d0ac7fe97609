"""The trunk of the small networks: shapes, the two steps it is made of, and where its rays point."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.nn.small_trunk import RENAMED, EvenGrid, SmallTrunk, doubled, ray_directions
from frustum.types.frame import Frame, keyframe_of
from tests.models.moving import Drive

GRID = VoxelGrid(lower=(-16, -16, -1), upper=(16, 16, 5.4), cell=(2, 2, 1.6))


def _trunk() -> SmallTrunk:
    return SmallTrunk(GRID, DepthBins(step=4.0), neck_channels=8, channels=3, pretrained=False, frozen_blocks=5, pool="auto")


def _frame() -> Frame:
    return keyframe_of(Drive(frames=1).batch(0))


def test_shapes():
    trunk = _trunk().eval()
    with torch.no_grad():
        pooled, depth = trunk(_frame())
    assert trunk.out_channels == 2 * 3
    assert pooled.shape == (2, 6, 8, 8)  # B, Z / 2 * C, Y / 2, X / 2
    assert depth.shape == (4, 11, 4, 8)  # M, D, h, w at stride 8
    torch.testing.assert_close(depth.sum(1), torch.ones(4, 4, 8))


def test_it_encodes_then_lifts():
    trunk, frame = _trunk().eval(), _frame()
    with torch.no_grad():
        lifted = trunk.encode(frame)
        assert lifted.shape == (4, 11 + 3, 4, 8)
        for one, other in zip(trunk(frame), trunk.lift_to_bev(lifted, frame), strict=True):
            assert torch.equal(one, other)


def test_rays_point_where_pixels_lie():
    rig = _frame().rig
    rays = ray_directions(rig, (4, 8))
    assert rays.shape == (4, 3, 4, 8)
    assert rays.dtype == torch.float32
    u, v = 8 * torch.arange(8) + 4.0, 8 * torch.arange(4) + 4.0  # centres of 8 x 8 pixels; focal length 40, centre (32, 16)
    torch.testing.assert_close(rays[0, 0, 0], (u - 32) / 40)
    torch.testing.assert_close(rays[0, 1, :, 0], (v - 16) / 40)
    torch.testing.assert_close(rays[0, 2, :, 0], 0.1 / ((v - 16) / 40).clamp(min=0.02))


def test_doubling_is_a_pixel_shuffle():
    x = torch.randn(2, 4 * 3, 5, 7)
    by_channel = x.unflatten(1, (4, 3)).transpose(1, 2).flatten(1, 2)  # torch shuffles with the part innermost
    torch.testing.assert_close(doubled(x), torch.nn.functional.pixel_shuffle(by_channel, 2).permute(0, 2, 3, 1))


def test_names_of_the_first_version():
    assert set(RENAMED) == {f"{name}." for name, part in _trunk().named_children() if list(part.parameters())}
    assert all(new == f"trunk.{old}" for old, new in RENAMED.items())


def test_a_grid_that_cannot_be_halved_is_refused():
    odd = VoxelGrid(lower=(-16, -16, -1), upper=(16, 16, 7), cell=(2, 2, 1.6))
    with pytest.raises(ValidationError, match=r"even number of cells along x, y and z, got 16 x 16 x 5; set model\.grid"):
        TypeAdapter(EvenGrid).validate_python(odd)
