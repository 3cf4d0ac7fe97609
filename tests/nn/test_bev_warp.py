"""Maps in other ego frames: the golden warp of the reference, a world whose map is known everywhere, augmentation, borders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from frustum.geometry import CameraRig, VoxelGrid, invert, rotation_z
from frustum.nn.bev_warp import key_to_past, key_to_past_by_camera, warp_map
from tests.models import golden_weights as gold
from tests.nn.frames import frame_at, frame_of

GRID = VoxelGrid(lower=(-12, -8, -1), upper=(12, 8, 5.4), cell=(0.5, 0.5, 6.4))


def _pose(yaw: float, x: float, y: float) -> torch.Tensor:
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.from_numpy(rotation_z(yaw))
    pose[0, 3], pose[1, 3] = x, y
    return pose[None]


def _golden_rig(frame: int) -> CameraRig:
    arrays = gold.rig(2)
    tensors = {name: torch.from_numpy(arrays[name])[None] for name in ("intrinsics", "cam2ego")}
    return CameraRig.create(**tensors, image_size=(256, 704), ego2global=torch.from_numpy(arrays["ego2global"][:, frame]))


@pytest.mark.parametrize(("name", "augment"), [("identity_bda", (1.0, 1.0)), ("flip_x_bda", (-1.0, 1.0))])
def test_the_warp_of_the_reference(name, augment):
    stored = np.load(Path(__file__).parents[1] / "data" / "time" / "bev_warp.npz")
    past = torch.from_numpy(gold.rng("crafted.bev_prev").standard_normal((1, 4, 200, 200)).astype(np.float32))
    bev_aug = torch.diag(torch.tensor([*augment, 1.0, 1.0], dtype=torch.float64))[None]
    key, previous = _golden_rig(0), _golden_rig(1)
    pose = key.ego2global[:, 0]
    np.testing.assert_allclose(previous.cam2key(pose)[0].numpy(), stored["s2k1"], atol=2e-7)
    frames = frame_of(key, pose, bev_aug), frame_of(previous, previous.ego2global[:, 0], bev_aug)
    motion = key_to_past_by_camera(*frames)
    torch.testing.assert_close(motion, key_to_past(*frames), rtol=0, atol=1e-6)
    warped = warp_map(past, motion, VoxelGrid.occ3d(), centres=False)
    # white noise, looked up at places known to 1e-5 cells in float32
    np.testing.assert_allclose(warped[0, :, ::4, ::4].numpy(), stored[name], atol=3e-4)
    assert (warp_map(past, motion, VoxelGrid.occ3d())[0, :, ::4, ::4] - torch.from_numpy(stored[name])).abs().max() > 0.1


def _world(ego2global: torch.Tensor, bev_aug: torch.Tensor, grid: VoxelGrid) -> torch.Tensor:
    """A map (1, 2, Y, X) that shows two smooth functions of the place in the world, at the centres of its cells."""
    centres = grid.centres(torch.float64)[:, :, 0].transpose(0, 1)  # (Y, X, 3)
    centres[..., 2] = 0
    places = centres @ (ego2global[0] @ torch.linalg.inv(bev_aug[0]))[:3, :3].T + ego2global[0, :3, 3]
    x, y = places[..., 0], places[..., 1]
    return torch.stack([torch.sin(0.3 * x + 0.1 * y), torch.cos(0.25 * y - 0.05 * x)])[None]


@pytest.mark.parametrize("yaw", [0.0, 0.3, -1.2])
@pytest.mark.parametrize("flip", [(1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0)])
def test_the_world_stands_still(yaw, flip):
    bev_aug = torch.diag(torch.tensor([*flip, 1.0, 1.0], dtype=torch.float64))[None]
    key, past = _pose(0.4, 100, 50), _pose(0.4 + yaw, 98.3, 50.6)
    now, past_map = (_world(pose, bev_aug, GRID) for pose in (key, past))
    motion = key_to_past(frame_at(key, bev_aug), frame_at(past, bev_aug))
    seen = warp_map(torch.ones_like(past_map), motion, GRID) > 0.999  # where the past map reaches
    assert 0.3 < seen.float().mean() < 1
    error = {centres: (warp_map(past_map, motion, GRID, centres).double() - now)[seen].abs().max() for centres in (True, False)}
    assert error[True] < 0.004  # bilinear between cells of half a metre
    if abs(yaw) > 0.2:
        assert error[False] > 5 * error[True]  # the corner convention turns about a point 0.35 m away


def test_cells_beyond_the_past_map_are_zero_and_no_motion_changes_nothing():
    past = torch.randn(2, 3, *GRID.shape[1::-1])
    still = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    for centres in (True, False):
        torch.testing.assert_close(warp_map(past, still, GRID, centres), past, rtol=1e-4, atol=1e-4)
    forward = still.clone()
    forward[1, 0, 3] = 4.0  # a point 1 m ahead of the second vehicle was 5 m ahead
    moved = warp_map(past, forward, GRID)
    torch.testing.assert_close(moved[1, :, :, :-8], past[1, :, :, 8:], rtol=1e-4, atol=1e-4)
    assert not moved[1, :, :, -8:].any()


def test_key_to_past_is_the_motion_between_the_poses():
    key, past = _pose(0.7, 10, 5), _pose(0.5, 8, 4.5)
    point = torch.tensor([3.0, -2.0, 0.5, 1.0], dtype=torch.float64)
    in_global = key[0] @ point
    torch.testing.assert_close(key_to_past(frame_at(key), frame_at(past))[0] @ point, invert(past)[0] @ in_global)


def test_half_precision_maps():
    past = torch.randn(1, 3, *GRID.shape[1::-1])
    motion = key_to_past(frame_at(_pose(0.1, 1, 0)), frame_at(_pose(0, 0, 0)))
    with torch.autocast("cpu", torch.bfloat16):
        warped = warp_map(past.bfloat16(), motion, GRID)
    assert warped.dtype == torch.float32
    torch.testing.assert_close(warped, warp_map(past.bfloat16().float(), motion, GRID))
