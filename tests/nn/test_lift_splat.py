"""Lift-splat: features arrive where their rays lead."""

from __future__ import annotations

import pickle

import pytest
import torch

from frustum.geometry import CameraRig, VoxelGrid, rotation_z
from frustum.geometry.depth import DepthBins
from frustum.nn.lift_splat import LiftSplat, Splat, feature_pixels
from frustum.ops.pool_plan import PoolPlan
from tests.nn.frames import EYE, frame_of

GRID = VoxelGrid(lower=(-10, -10, -1), upper=(10, 10, 3), cell=(1, 1, 2))
BINS = DepthBins(start=1.3, stop=9.3, step=1)  # no point on a cell's border
FORWARD = torch.tensor(
    [[0, 0, 1.0, 0], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1]], dtype=torch.float64
)  # half a metre up, looking along x


def _rig(yaws=(0.0,), size=(16, 32)) -> CameraRig:
    turn = torch.eye(4, dtype=torch.float64).repeat(len(yaws), 1, 1)
    turn[:, :3, :3] = rotation_z(torch.tensor(yaws, dtype=torch.float64))
    intrinsics = torch.tensor([[20.0, 0, 16], [0, 20, 8], [0, 0, 1]], dtype=torch.float64).expand(1, len(yaws), 3, 3)
    return CameraRig.create(intrinsics, (turn @ FORWARD)[None], size)


def test_feature_positions():
    assert feature_pixels(704, 44, "corners")[[0, -1]].tolist() == [0, 703]
    assert feature_pixels(32, 4, "centres").tolist() == [4, 12, 20, 28]


def test_a_pixel_lands_where_its_ray_leads():
    splat = Splat(GRID, BINS, sampling="centres")
    rig = _rig(size=(2, 2))
    rig = CameraRig.create(torch.tensor([[[[20.0, 0, 1], [0, 20, 1], [0, 0, 1]]]], dtype=torch.float64), rig.cam2ego, (2, 2))
    depth = torch.zeros(1, BINS.count, 1, 1)
    depth[0, 4] = 1  # 5.3 m ahead
    out = splat(depth, torch.full((1, 3, 1, 1), 2.0), splat.plan(frame_of(rig), (1, 1)))
    assert out.shape == (1, 2 * 3, 20, 20)
    assert out.nonzero().tolist() == [[0, c, 10, 15] for c in range(3)]  # y = 0 m, x = 5 m, lower height bin
    assert out.max() == 2


@pytest.mark.parametrize("yaw", [torch.pi / 2, torch.pi])
def test_turning_the_rig_turns_the_map(yaw):
    features, depth = torch.randn(1, 2, 4, 8), torch.rand(1, BINS.count, 4, 8)
    splat = Splat(GRID, BINS)
    ahead = splat(depth, features, splat.plan(frame_of(_rig()), (4, 8)))
    turned = splat(depth, features, splat.plan(frame_of(_rig((float(yaw),))), (4, 8)))
    # counter-clockwise seen from above: x becomes y; rows of the map are y
    torch.testing.assert_close(turned, ahead.rot90(-round(float(yaw) / (torch.pi / 2)), (2, 3)), atol=1e-5, rtol=1e-5)


def test_cells_of_a_standing_rig_do_not_depend_on_its_heading():
    """Of 371,712 points of six cameras, 49 fell into a neighbouring cell when poses in float32 were inverted by their transpose."""
    splat, rig, found = Splat(GRID, BINS), _rig((0.0, 1.0, 2.5)).to(dtype=torch.float32), []
    for yaw in (0.0, 0.3, 1.1, 2.5):
        here = EYE.clone()
        here[0, :3, :3], here[0, :3, 3] = rotation_z(torch.tensor(yaw, dtype=torch.float64)), torch.tensor([612.3, 1588.9, 0.4])
        here = here.float()
        standing = CameraRig.create(rig.intrinsics, rig.cam2ego, rig.image_size, here.expand(1, 3, 4, 4))
        found.append(splat.points(frame_of(standing, here), (32, 64)))
    assert all(torch.equal(points, found[0]) for points in found)


def test_moving_between_camera_and_keyframe_moves_the_map():
    features, depth = torch.randn(1, 2, 4, 8), torch.rand(1, BINS.count, 4, 8)
    splat, rig, key = Splat(GRID, BINS), _rig(), EYE.clone()
    key[0, 0, 3] = 2.0  # the ego vehicle drove two metres after the image was taken
    here, later = (splat(depth, features, splat.plan(frame_of(rig, pose), (4, 8))) for pose in (EYE, key))
    torch.testing.assert_close(later[..., :-2], here[..., 2:])


def test_plans_are_kept_by_content():
    splat = Splat(GRID, BINS)
    splat.plans.max_rigs = 2
    first = splat.plan(frame_of(_rig()), (4, 8))
    assert splat.plan(frame_of(_rig()), (4, 8)) is first
    moved = EYE.clone()
    moved[0, 0, 3] = 0.5
    assert splat.plan(frame_of(_rig(), moved), (4, 8)) is not first
    assert splat.plan(frame_of(_rig(), EYE, moved), (4, 8)) is not first
    assert splat.plan(frame_of(_rig()), (4, 8)) is not first  # forgotten: only two are kept
    assert len(splat.plans) == 2


def test_a_device_without_float64_gets_the_finished_plan():
    """`meta` stands in for such a device: geometry is computed where the rig is, only integers move."""
    splat, devices = Splat(GRID, BINS), []
    create = PoolPlan.create.__func__

    def watched(cls, points, *args):
        devices.append((points.device.type, points.dtype))
        return create(cls, points, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PoolPlan, "create", classmethod(watched))
        plan = splat.plan(frame_of(_rig()), (4, 8), "meta")
    assert devices == [("cpu", torch.float64)]
    assert {t.device.type for t in (plan.cells, plan.order, plan.pixels, plan.occupied, plan.starts)} == {"meta"}
    assert splat.plan(frame_of(_rig()), (4, 8), "meta") is plan
    assert splat.plan(frame_of(_rig()), (4, 8)).cells.device.type == "cpu"  # a plan of its own for each device


def test_plans_do_not_travel_with_a_pickle():
    splat = Splat(GRID, BINS)
    splat.plan(frame_of(_rig()), (4, 8))
    assert not len(pickle.loads(pickle.dumps(splat)).plans)
    assert not list(splat.state_dict())


@pytest.mark.parametrize("cameras", [1, 4, 6, 8])
def test_any_number_of_cameras(cameras):
    lift = LiftSplat(5, 3, Splat(GRID, BINS))
    rig = _rig(tuple(torch.linspace(0, 6, cameras).tolist()))
    pooled, depth = lift(torch.randn(cameras, 5, 4, 8), frame_of(rig))
    assert pooled.shape == (1, 6, 20, 20)
    assert depth.shape == (cameras, 8, 4, 8)
    torch.testing.assert_close(depth.sum(1), torch.ones(cameras, 4, 8))


def test_first_channels_are_depth_the_rest_context():
    lift = LiftSplat(2, 3, Splat(GRID, BINS))
    with torch.no_grad():
        lift.depth_net.weight.zero_()
        lift.depth_net.bias.copy_(torch.cat([torch.zeros(8), torch.tensor([1.0, 2.0, 3.0])]))
    pooled, depth = lift(torch.randn(1, 2, 4, 8), frame_of(_rig()))
    torch.testing.assert_close(depth, torch.full_like(depth, 1 / 8))
    torch.testing.assert_close(pooled[:, 1], 2 * pooled[:, 0])
    torch.testing.assert_close(pooled[:, 2], 3 * pooled[:, 0])


@pytest.mark.parametrize("rounding", ["floor", "truncate"])
def test_plans_do_not_change_under_autocast(rounding):
    """Products of matrices in bfloat16 would move a fifth of the points into other cells."""
    plans = []
    for enabled in (False, True):
        splat = Splat(VoxelGrid.occ3d().collapsed_z(), DepthBins(), rounding)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            plans.append(splat.plan(frame_of(_rig((0.1, 1.3))), (8, 22)))
    assert torch.equal(plans[0].cells, plans[1].cells)
