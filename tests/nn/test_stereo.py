"""The plane sweep against projections by hand, what matching says about a known scene, and the depth net that reads it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from frustum.geometry import CameraRig
from frustum.geometry.depth import DepthBins
from frustum.nn.encoders.resnet import ResNet
from frustum.nn.lift_splat import feature_pixels
from frustum.nn.stereo import StereoDepthNet, matching, reference_sweep, sweep
from tests.models import golden_weights as gold
from tests.models.moving import SIZE, Drive

DEPTHS = torch.tensor([2.0, 5.0, 12.0, 30.0])


def _rigs(spread: float = 0.03) -> tuple[CameraRig, CameraRig]:
    batch = Drive(spread=spread).batch(3, 1)
    aug = torch.tensor([[1.1, 0.05, -3.0], [-0.05, 1.1, 2.0], [0, 0, 1]], dtype=torch.float64)
    rig = replace(batch.rig, image_aug=aug.expand_as(batch.rig.image_aug))
    return rig[:, 0], rig[:, 1]


@pytest.mark.parametrize("sampling", ["corners", "centres"])
def test_the_sweep_follows_the_world(sampling):
    """A pixel lifted to each depth, carried through the global frame, and projected into the camera of the previous frame."""
    now, then = _rigs()
    size = (8, 16)
    found = sweep(now, then, DEPTHS, size, sampling)  # (M, D, h, w, 2)
    assert found.shape == (4, 4, 8, 16, 2)
    u, v = feature_pixels(SIZE[1], 16, sampling), feature_pixels(SIZE[0], 8, sampling)
    still = replace(now, ego2global=torch.eye(4, dtype=torch.float64).expand_as(now.ego2global))
    checked = 0
    for b in range(2):
        for n in range(2):
            points = still.frustum_points(u, v, DEPTHS.double())[b, n].reshape(-1, 3)  # in the ego frame at this camera's time
            in_global = points @ now.ego2global[b, n, :3, :3].T + now.ego2global[b, n, :3, 3]
            pixels, depth, _ = then[b].select([n]).project(in_global, torch.eye(4, dtype=torch.float64))
            ahead = (depth[0] > 0.01).view(4, 8, 16)
            place = pixels[0].view(4, 8, 16, 2)
            side = torch.tensor([SIZE[1], SIZE[0]], dtype=torch.float64)
            cells = torch.tensor([16, 8], dtype=torch.float64)
            wanted = place / (side - 1) * 2 - 1 if sampling == "corners" else (place / side * cells - 0.5) / (cells - 1) * 2 - 1
            near = ahead & (wanted.abs() < 2).all(-1)
            ours = found[2 * b + n]
            torch.testing.assert_close(ours[near].double(), wanted[near], rtol=0, atol=2e-5)
            assert (ours[~ahead] == -2).all()
            checked += int(near.sum())
    assert checked > 500


@pytest.mark.parametrize("sampling", ["corners", "centres"])
def test_the_reference_rounding_changes_the_last_digits_only(sampling):
    now, then = _rigs()
    exact, rounded = (find(now, then, DEPTHS, (8, 16), sampling) for find in (sweep, reference_sweep))
    assert torch.equal(exact == -2, rounded == -2)
    near = (exact.abs() < 2).all(-1)
    assert 0.2 < near.float().mean() < 1
    torch.testing.assert_close(rounded[near], exact[near], rtol=0, atol=5e-5)
    assert not torch.equal(rounded, exact)


@pytest.mark.slow
def test_matching_equals_the_reference(shared):
    """Costs of the published size, which feel the last digits of the places: both pairs of three frames."""
    folder = gold.golden(shared, "stereo4d")
    shapes, meta = (json.loads((folder / f"{name}.json").read_text()) for name in ("keys", "meta"))
    encoder, name = ResNet(50, outputs=(1, 3, 4)).eval(), "img_backbone."
    encoder.load_state_dict({k.removeprefix(name): v for k, v in gold.state_dict(shapes).items() if k.startswith(name)})
    batch, stored = gold.batch(3), np.load(folder / "outputs.npz")
    depths = DepthBins(start=1, stop=45, step=0.5, spacing="sid").values()
    with torch.inference_mode():
        seen = [encoder(batch.images[0, t], outputs=(1,))[0] for t in range(3)]
        for t, golden in ((0, "cost_1"), (1, "cost_0")):
            likely = matching(seen[t], seen[t + 1], batch.rig[:, t], batch.rig[:, t + 1], depths, "corners", as_reference=True)
            found = gold.strided(likely, meta["stats"][golden]["slice"])
            np.testing.assert_allclose(found, stored[golden], atol=1e-4, rtol=0)


@pytest.mark.parametrize("as_reference", [False, True])
def test_places_do_not_change_under_autocast(as_reference):
    """In bfloat16 they would be pixels off."""
    now, then = _rigs()
    current, previous = torch.randn(2, len(now.intrinsics.flatten(0, 1)), 8, 8, 16)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(matching(current, previous, now, then, DEPTHS, "corners", as_reference))
    assert torch.equal(*found)


def test_no_motion_matches_every_pixel_with_itself():
    now, _ = _rigs()
    found = sweep(now, now, DEPTHS, (8, 16), "corners")
    grid_y, grid_x = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 16), indexing="ij")
    torch.testing.assert_close(found, torch.stack([grid_x, grid_y], -1).expand_as(found), rtol=0, atol=1e-5)


def test_matching_finds_the_depth_of_a_wall():
    """Two views of a textured plane, the second from 1 m to the left: the plane's depth bin must win."""
    torch.manual_seed(0)
    depths = torch.tensor([4.0, 6.0, 9.0, 14.0])
    texture = F.interpolate(torch.rand(1, 8, 12, 40), (48, 160), mode="bilinear", align_corners=True)  # 16 m x 4.8 m at 10 per metre
    intrinsics = torch.tensor([[40.0, 0, 31.5], [0, 40, 15.5], [0, 0, 1]], dtype=torch.float64)[None, None]
    eye = torch.eye(4, dtype=torch.float64)[None, None]
    left = eye.clone()
    left[..., 0, 3] = -1.0

    def view(shift: float) -> torch.Tensor:
        u, v = (torch.linspace(0, n - 1, n) for n in (64, 32))
        x, y = (u - 31.5) / 40 * 9 + shift, (v - 15.5) / 40 * 9  # on a wall 9 m away
        grid_y, grid_x = torch.meshgrid(y / 4, x / 8, indexing="ij")
        return F.grid_sample(texture, torch.stack([grid_x, grid_y], -1)[None], align_corners=True)

    rigs = [CameraRig.create(intrinsics, pose, (32, 64)) for pose in (eye, left)]
    likely = matching(view(0.0), view(-1.0), *rigs, depths, "corners")
    assert likely.shape == (1, 4, 32, 64)
    torch.testing.assert_close(likely.sum(1), torch.ones(1, 32, 64))
    inside = likely[0, :, 6:26, 16:56]
    assert (inside.argmax(0) == 2).float().mean() > 0.9


def test_the_depth_net_uses_the_matching():
    torch.manual_seed(0)
    net = StereoDepthNet(8, 8, 4, 6).eval()
    features, cameras = torch.randn(2, 8, 4, 6), torch.randn(2, 27)
    likely = torch.rand(2, 6, 16, 24).softmax(1)
    out = net(features, cameras, likely)
    assert out.shape == (2, 6 + 4, 4, 6)
    torch.testing.assert_close(net(features, cameras), net(features, cameras, torch.zeros(2, 6, 16, 24)))
    nothing = net(features, cameras)
    assert (out - nothing)[:, :6].abs().max() > 1e-3  # depth
    torch.testing.assert_close(out[:, 6:], nothing[:, 6:])  # context is not touched
