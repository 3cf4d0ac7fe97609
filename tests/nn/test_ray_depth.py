"""3DPPE's depth net: what it reads of the cameras, the three kinds of depth, and its gates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from frustum.errors import ShapeError
from frustum.geometry import rotation_z
from frustum.nn.ray_depth import LightDepthNet, MapGate, RayDepth, RayDepthNet, camera_numbers
from frustum.recipes.finding import get_recipe
from frustum.types.frame import keyframe_of
from tests.models import golden_ppe3d as reference
from tests.models import golden_weights as gold

CANDIDATES = torch.linspace(1, 61.2, 4)


def test_the_numbers_of_a_camera_equal_the_reference(shared):
    """Their mean over the rig is known."""
    misc = np.load(reference.folder(shared) / "misc.npz")
    numbers = camera_numbers(keyframe_of(reference.batch(shared, (320, 800))))
    assert numbers.shape == (6, 18)
    assert numbers.dtype == torch.float32
    np.testing.assert_allclose(numbers.mean(0), misc["rig_320x800_bnmean"], atol=1e-3)


def test_the_augmentations_are_in_the_numbers():
    frame = keyframe_of(gold.batch())
    rig = frame.rig
    turned = torch.eye(4, dtype=torch.float64)[None]
    turned[:, :3, :3] = 1.05 * torch.from_numpy(rotation_z(0.3))
    numbers = camera_numbers(frame._replace(bev_aug=turned))
    torch.testing.assert_close(numbers[:, :6], (rig.image_aug @ rig.intrinsics)[0, :, :2].flatten(1).float())
    frame2cam = torch.eye(4, dtype=torch.float64).repeat(6, 1, 1)
    frame2cam[:, :3] = numbers[:, 6:].double().unflatten(1, (3, 4))
    back = frame2cam @ turned @ rig.cam2key(frame.ego2global)[0].double()
    torch.testing.assert_close(back, torch.eye(4, dtype=torch.float64).expand(6, 4, 4), atol=1e-5, rtol=0)


def test_parallel_cameras_need_two_samples_a_step():
    """Turned by chance, the cameras of a stereo rig look the same way: of one sample a step, batch statistics hold no spread of the turn,
    and in evaluation the numbers are far from all that was learned. The reason why `ppe3d-mini-kitti` reads two."""
    frame, rng = keyframe_of(gold.batch()), np.random.default_rng(0)

    def stereo(turn: float) -> torch.Tensor:
        turned = torch.eye(4, dtype=torch.float64)[None]
        turned[:, :3, :3] = torch.from_numpy(rotation_z(turn))
        left = camera_numbers(frame._replace(bev_aug=turned))[0]
        return torch.stack([left, left + 0.5 * (torch.arange(18) == 9)])  # 0.5 m to the side

    worst = {}
    for samples in (1, 2):
        norm = RayDepthNet(8, 8, 8, "hybrid", bins=4).bn1
        learned = max(
            float(norm(torch.cat([stereo(rng.uniform(-0.39, 0.39)) for _ in range(samples)])).detach().abs().max()) for _ in range(200)
        )
        worst[samples] = float(norm.eval()(stereo(0.0)).detach().abs().max()) / learned
    assert worst[1] > 3
    assert worst[2] < 2
    assert get_recipe("ppe3d-mini-kitti").train.batch_size == 2


@pytest.mark.parametrize("kind", ["direct", "probabilistic", "hybrid"])
def test_shapes_and_gradients(kind):
    net = RayDepthNet(8, 8, 12, kind, bins=4)
    found = net(torch.randn(2, 8, 5, 7), torch.randn(2, 18))
    assert found.context.shape == (2, 12, 5, 7)
    assert found.logits.shape == (2, 1 if kind == "direct" else 4, 5, 7)
    assert (found.metres is None) == (kind != "hybrid")
    depth = net.depth(found, None if kind == "direct" else CANDIDATES)
    assert depth.shape == (2, 5, 7)
    (depth.square().sum() + found.context.square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("kind", ["direct", "probabilistic", "hybrid"])
def test_the_light_net_has_the_same_shapes(kind):
    net, features = LightDepthNet(8, 8, kind, bins=4), torch.randn(2, 8, 5, 7)
    found = net(features)
    assert found.context is features
    assert found.logits.shape == (2, 1 if kind == "direct" else 4, 5, 7)
    depth = net.depth(found, None if kind == "direct" else CANDIDATES)
    assert depth.shape == (2, 5, 7)
    assert (depth > 0).all()
    depth.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_what_the_light_net_predicts_is_linear_in_the_inverse_depth():
    net = LightDepthNet(1, 8, "direct")
    with torch.no_grad():
        net.direct.weight.zero_()
        depths = [float(net.depth(net(torch.zeros(1, 1, 1, 1)))) for net.direct.bias.data in torch.tensor([[0.5], [10.0], [20.0], [-50.0]])]
    assert depths[0] == pytest.approx(10, rel=0.05)
    assert 1 / depths[2] == pytest.approx(2 / depths[1], rel=1e-3)
    assert np.isfinite(depths[3])
    net.direct.bias.data.fill_(-8.0)
    net.depth(net(torch.zeros(1, 1, 1, 1))).log().sum().backward()
    assert net.direct.bias.grad < 0  # what is very far still learns


def test_depths_by_hand():
    context, logits = torch.zeros(1, 1, 1, 1), torch.full((1, 4, 1, 1), -50.0)
    logits[0, 2] = 50.0  # certain
    direct, mean, hybrid = (RayDepthNet(8, 8, 8, kind, bins=4) for kind in ("direct", "probabilistic", "hybrid"))
    assert float(direct.depth(RayDepth(context, logits[:, :1] * 0 + 2, None))) == pytest.approx(np.exp(2))
    assert float(mean.depth(RayDepth(context, logits, None), CANDIDATES)) == pytest.approx(float(CANDIDATES[2]))
    found = RayDepth(context, logits, torch.full((1, 1, 1), -3.0))  # may be behind the camera early in training
    assert hybrid.fuse_lambda.sigmoid().item() == pytest.approx(0.500025)
    with torch.no_grad():
        assert float(hybrid.depth(found, CANDIDATES)) == pytest.approx((float(CANDIDATES[2]) - 3) / 2, abs=1e-2)
        hybrid.fuse_lambda.fill_(20.0)
        assert float(hybrid.depth(found, CANDIDATES)) == pytest.approx(-3, abs=1e-4)


def test_depth_stays_in_float32():
    net = RayDepthNet(8, 8, 8, "hybrid", bins=4)
    with torch.autocast("cpu", torch.bfloat16):
        found = net(torch.randn(2, 8, 5, 7), torch.randn(2, 18))
        assert found.logits.dtype == torch.bfloat16
        assert net.depth(found, CANDIDATES).dtype == torch.float32


def test_depth_listens_to_the_focal_length_and_context_to_the_pose_too():
    net = RayDepthNet(8, 8, 8, "hybrid", bins=4).eval()
    features, cameras = torch.randn(2, 8, 5, 7), torch.randn(2, 18)
    moved = cameras.clone()
    moved[1, 6:] += 30
    with torch.no_grad():
        before, after = net(features, cameras), net(features, moved)
    torch.testing.assert_close(before.logits, after.logits)
    torch.testing.assert_close(before.context[0], after.context[0])
    assert (before.context[1] - after.context[1]).abs().max() > 1e-3


def test_a_context_encoder_is_a_matter_of_blocks():
    keys = set(RayDepthNet(8, 8, 8, "hybrid", context_blocks=3).state_dict())
    assert {"context_conv.0.conv1.weight", "context_conv.3.weight"} <= keys
    assert "context_conv.weight" in RayDepthNet(8, 8, 8, "hybrid").state_dict()


def test_one_image_cannot_train():
    with pytest.raises(ShapeError, match="at least two images"):
        RayDepthNet(8, 8, 8, "hybrid")(torch.randn(1, 8, 5, 7), torch.randn(1, 18))


def test_a_gate_scales_by_a_vector_or_a_map():
    gate, x = MapGate(4, 6), torch.randn(2, 4, 3, 5)
    for other in (torch.randn(2, 6, 1, 1), torch.randn(2, 6, 3, 5)):
        share = gate(x, other) / x
        assert ((share > 0) & (share < 1)).all()
    assert MapGate(4)(x, torch.randn(2, 4, 1, 1)).shape == x.shape
