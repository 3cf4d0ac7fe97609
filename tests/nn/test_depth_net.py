"""The camera-aware depth net: what it reads of the cameras, that it listens, and its shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from frustum.errors import ShapeError
from frustum.geometry import VoxelGrid, invert
from frustum.geometry.depth import DepthBins
from frustum.nn.depth_net import CAMERA_NUMBERS, Aspp, DepthNet, camera_vector
from frustum.nn.lift_splat import LiftSplat, Splat
from frustum.types.frame import keyframe_of
from tests.models import golden_weights as gold


def test_the_vector_equals_the_reference(shared):
    batch = gold.batch()
    frame = keyframe_of(batch)
    stored = np.load(gold.golden(shared, "pano_tiny") / "outputs.npz")["mlp_input"][0]
    np.testing.assert_allclose(camera_vector(frame, frame.rig.cam2key(frame.ego2global)).numpy(), stored, atol=1e-6)


def test_order_of_the_numbers():
    batch = gold.batch()
    rig, flip = batch.rig[:, 0], torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))[None]
    vector = camera_vector(keyframe_of(batch)._replace(bev_aug=flip), rig.cam2ego)
    assert vector.shape == (6, CAMERA_NUMBERS)
    assert vector.dtype == torch.float32
    first = vector[0].tolist()
    assert first[:4] == pytest.approx([1270.0, 1270.0, 816.0, 491.0])
    assert first[4:10] == pytest.approx([0.44, 0, 0, 0, 0.44, -140])
    assert first[10:15] == [-1, 0, 0, 1, 1]
    assert vector[2, 15:].tolist() == pytest.approx(rig.cam2ego[0, 2, :3].flatten().tolist())


def test_a_moved_keyframe_moves_the_cameras_that_it_reads():
    batch = gold.batch()
    rig = batch.rig[:, 0]
    moved = batch.key_ego2global.double().clone()
    moved[:, 0, 3] += 2.0
    expected = (invert(moved)[:, None] @ rig.ego2global.double() @ rig.cam2ego.double())[..., :3, :].flatten(-2)[0]
    torch.testing.assert_close(camera_vector(keyframe_of(batch), rig.cam2key(moved))[:, 15:], expected.float(), atol=1e-4, rtol=1e-5)


def test_depth_and_context_listen_to_the_camera():
    net = DepthNet(8, 8, 4, 6).eval()
    features, cameras = torch.randn(2, 8, 5, 7), torch.randn(2, CAMERA_NUMBERS)
    with torch.no_grad():
        before = net(features, cameras)
        after = net(features, cameras + torch.tensor([[0.0], [30.0]]))
    assert before.shape == (2, 6 + 4, 5, 7)
    torch.testing.assert_close(before[0], after[0])
    assert (before[1, :6] - after[1, :6]).abs().max() > 1e-3
    assert (before[1, 6:] - after[1, 6:]).abs().max() > 1e-3


def test_an_extra_map_reaches_the_depth_only():
    net = DepthNet(8, 8, 4, 6, extra_channels=3).eval()
    assert net.depth_conv[0].downsample.weight.shape == (8, 11, 1, 1)
    features, cameras, extra = torch.randn(2, 8, 5, 7), torch.randn(2, CAMERA_NUMBERS), torch.randn(2, 3, 5, 7)
    with torch.no_grad():
        one, other = net(features, cameras, extra), net(features, cameras, -extra)
    assert (one[:, :6] - other[:, :6]).abs().max() > 1e-3
    assert torch.equal(one[:, 6:], other[:, 6:])


def test_one_image_is_too_few_to_train_on():
    net = DepthNet(8, 8, 4, 6)
    with pytest.raises(ShapeError, match="batch_size=2"):
        net(torch.randn(1, 8, 5, 7), torch.randn(1, CAMERA_NUMBERS))
    assert net.eval()(torch.randn(1, 8, 5, 7), torch.randn(1, CAMERA_NUMBERS)).shape == (1, 10, 5, 7)


def test_the_pyramid_sees_as_far_as_its_dilations():
    """A change at one pixel reaches pixels 1, 6, 12 and 18 away, and all others only through the global mean."""
    net = Aspp(4, 2).eval()
    net.global_avg_pool[1].weight.data.zero_()
    image = torch.randn(1, 4, 41, 41)
    changed = image.clone()
    changed[0, :, 20, 20] += 1
    with torch.no_grad():
        reached = (net(image) - net(changed)).abs().amax(1)[0] > 1e-6
    rows, columns = reached.nonzero().T
    steps = {0, 6, 12, 18}
    assert {abs(int(r) - 20) for r in rows} | {abs(int(c) - 20) for c in columns} == steps
    assert reached[20, 20]


def test_depth_is_a_probability_and_gradients_reach_the_cameras_part():
    grid = VoxelGrid(lower=(-16, -16, -1), upper=(16, 16, 5.4), cell=(2, 2, 6.4))
    bins, frame = DepthBins(step=4.0), keyframe_of(gold.batch())
    lift = LiftSplat(8, 4, Splat(grid, bins, sampling="corners"), DepthNet(8, 8, 4, bins.count))
    cameras = camera_vector(frame, frame.rig.cam2key(frame.ego2global))
    pooled, depth = lift.splat.lift(lift.depth_net(torch.randn(6, 8, 16, 44), cameras), frame)
    assert pooled.shape == (1, 4, 16, 16)
    torch.testing.assert_close(depth.sum(1), torch.ones(6, 16, 44))
    pooled.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in lift.depth_net.depth_mlp.parameters())
