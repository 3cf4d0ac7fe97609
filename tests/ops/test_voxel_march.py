"""Marching: RenderOcc's numbers with gradients, and metric marching that becomes the exact traversal for small steps and cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from frustum.errors import ConfigError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.ops import voxel_march as module
from frustum.ops.voxel_march import march_reference, voxel_march
from frustum.ops.voxel_render import voxel_render

GRID = VoxelGrid(lower=(-4.0, -4.0, -1.0), upper=(4.0, 4.0, 2.2), cell=(0.4, 0.4, 0.4))


def _golden_field() -> tuple[torch.Tensor, torch.Tensor]:
    i, j, k = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (200, 200, 16)), indexing="ij")
    density = 18 * (k <= 2) + 16 * ((j > 140) & (j < 150) & (k < 12)) + 14 * ((i > 150) & (i < 158) & (k < 9))
    density = density + 20 * ((i > 60) & (i < 72) & (j > 80) & (j < 88) & (k < 7))
    density = density + 1.5 * torch.sin(0.13 * i + 0.07 * j) * torch.cos(0.3 * k) + 1.5
    c = torch.arange(17, dtype=torch.float64)
    i, j, k = (x[..., None] for x in (i, j, k))
    return density, 2 * torch.sin(0.05 * i * (1 + c / 7) + 0.11 * j + 0.23 * k * c / 5)


def _losses(out, samples, rays, weights) -> torch.Tensor:
    """RenderOcc's four: depth (SILog), class-weighted cross-entropy, entropy of what is left, distortion."""
    difference = (out.depth + 1e-7).log() - rays[:, 2].log()
    silog = ((difference**2).mean() - 0.85 * difference.mean() ** 2).sqrt()
    classes = F.cross_entropy(out.features, rays[:, 3].long(), weights)
    left = (1 - out.alpha).clamp(1e-6, 1 - 1e-6)
    entropy = -(left * left.log() + (1 - left) * (1 - left).log()).mean()
    s, distortion = samples.t / (1 + samples.t), 0
    for r in range(len(rays)):
        w, place = samples.weights[samples.rays == r], s[samples.rays == r]
        pairs = (w[:, None] * w * (place[:, None] - place).abs()).sum()
        distortion = distortion + pairs + (w * w).sum() / 3 / len(samples.t)
    return torch.stack([silog, classes, 0.01 * entropy, 0.01 * distortion / len(rays)])


@pytest.mark.data
def test_numbers_of_renderocc(shared, monkeypatch):
    monkeypatch.setattr(module, "_RAYS", 50)  # in two parts
    with np.load(shared / "golden/gs/renderocc_nerf.npz", allow_pickle=False) as stored:
        gold = {name: torch.from_numpy(stored[name]) for name in stored.files}
    density, semantics = (t.requires_grad_() for t in _golden_field())
    rays = gold["rays"][gold["mask"]].double()
    out, samples = march_reference(density, semantics, VoxelGrid.occ3d(), rays[:, 4:7], rays[:, 7:10])
    near = {"rtol": 1e-9, "atol": 1e-12}
    assert torch.equal(samples.rays, gold["ray_id"])
    torch.testing.assert_close(samples.t, gold["t"], **near)
    torch.testing.assert_close(samples.weights, gold["weights"], **near)
    torch.testing.assert_close(out.depth, gold["depth_official"], **near)
    torch.testing.assert_close(out.features, gold["semantic"], **near)
    torch.testing.assert_close(1 - out.alpha, gold["alphainv_last"], **near)
    metric = torch.zeros(len(rays)).double().index_add(0, samples.rays, 39 * samples.weights * samples.t)
    torch.testing.assert_close(metric, gold["depth_metric"], **near)

    losses = _losses(out, samples, rays, gold["class_weights"])
    torch.testing.assert_close(losses, gold["losses"], rtol=1e-8, atol=0)
    for grad, name in zip(torch.autograd.grad(losses.sum(), (density, semantics)), ("dens", "sem"), strict=True):
        wanted = gold[f"{name}_grad"]
        torch.testing.assert_close(grad.flatten()[gold[f"{name}_grad_idx"]], wanted, rtol=1e-7, atol=1e-7 * float(wanted.abs().max()))
        torch.testing.assert_close(grad.abs().sum(), gold[f"{name}_grad_abs"], rtol=1e-7, atol=0)

    single = march_reference(density.float().detach(), semantics.float().detach(), VoxelGrid.occ3d(), *rays[:, 4:10].float().split(3, 1))[0]
    torch.testing.assert_close(single.features.double(), gold["semantic"], rtol=0, atol=2e-3)


def test_a_wall_that_renderocc_sees_too_near():
    """s = t / (1 + t): of 3 m at a radius of 3.9 m, 1.7 m are left."""
    density, features = torch.full(GRID.shape, -20.0), torch.ones(*GRID.shape, 1)
    density[-3:] = 100
    origins, directions = torch.tensor([[-0.2, 0, 0.6]]), torch.tensor([[2.0, 0, 0]])
    out, samples = march_reference(density, features, GRID, origins, directions, radius=3.9)
    metric = 3.9 * float((samples.weights * samples.t).sum())
    assert metric == pytest.approx(2.9, abs=0.4)
    assert float(out.depth[0]) == pytest.approx(3.9 * metric / (3.9 + metric), abs=0.05)
    assert float(out.alpha[0]) == pytest.approx(1, abs=2e-3)
    metric_depth = voxel_march(density.clamp(min=0), features, GRID, origins, directions, step=0.01, far=8).depth
    assert float(metric_depth[0]) == pytest.approx(2.9 / 2, abs=0.15), "in lengths of the direction"


def test_small_steps_in_a_constant_field_are_the_exact_traversal():
    draw = torch.Generator().manual_seed(0)
    rays = torch.randn(10, 3, generator=draw) * 0.8, torch.randn(10, 3, generator=draw)
    density, features = torch.full(GRID.shape, 0.4), torch.tensor([2.0, -1]).expand(*GRID.shape, 2)
    found = voxel_march(density, features, GRID, *rays, step=0.005, far=10)
    for a, b in zip(found, voxel_render(density, features, GRID, *rays), strict=True):
        torch.testing.assert_close(a, b, rtol=5e-3, atol=5e-3)


def test_the_field_is_linear_between_centres():
    """A density a + b x along a ray of length l has the thickness a l + b (x l + d l^2 / 2)."""
    density = 0.5 + 0.1 * GRID.centres(torch.float64)[..., 0]
    origins = torch.tensor([[-3.0, -2, 0.1], [1, 2, 1.3], [0.3, 0, 0.2]]).double()
    ways = F.normalize(torch.tensor([[2.0, 1, 0.1], [-1, 0.2, -0.3], [0, 1, 0]]).double(), dim=1)
    out = voxel_march(density, density[..., None] * 0 + 1, GRID, origins, ways, step=0.01, far=2)
    thickness = 2 * 0.5 + 0.1 * (2 * origins[:, 0] + ways[:, 0] * 2)
    torch.testing.assert_close(out.alpha, 1 - (-thickness).exp(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(out.features[:, 0], out.alpha)


def test_metric_marching_has_gradients():
    draw = torch.Generator().manual_seed(1)
    grid = VoxelGrid(lower=(0, 0, 0), upper=(2, 2, 2), cell=(1, 1, 1))
    density, features = torch.rand(2, 2, 2, generator=draw).double() + 0.2, torch.randn(2, 2, 2, 2, generator=draw).double()
    rays = torch.rand(3, 3, generator=draw).double(), torch.randn(3, 3, generator=draw).double()
    tensors = [t.requires_grad_() for t in (density, features)]
    assert torch.autograd.gradcheck(lambda *t: tuple(voxel_march(*t, grid, *rays, step=0.1, far=4)), tensors)


def test_few_samples_and_no_rays():
    density, features = torch.ones(GRID.shape), torch.ones(*GRID.shape, 3)
    none = torch.zeros(0, 3)
    assert voxel_march(density, features, GRID, none, none).features.shape == (0, 3)
    out, samples = march_reference(density, features, GRID, none, none, radius=3.9)
    assert (out.features.shape, len(samples.t)) == ((0, 3), 0)
    out = voxel_march(density, features, GRID, torch.zeros(1, 3), torch.ones(1, 3), step=4, far=8)
    assert 0 < float(out.alpha) < 1
    half = voxel_march(density.bfloat16(), features.bfloat16(), GRID, torch.zeros(1, 3), torch.ones(1, 3), step=4, far=8)
    assert half.alpha.dtype == torch.float32


def test_bad_input():
    density, features, rays = torch.ones(GRID.shape), torch.ones(*GRID.shape, 3), (torch.zeros(5, 3), torch.ones(5, 3))
    for call in (voxel_march, march_reference):
        with pytest.raises(ShapeError, match=r"density \(20, 20, 8\).*got \(20, 20, 7\)"):
            call(density[..., :7], features, GRID, *rays)
        with pytest.raises(ShapeError, match=r"origins and directions \(R, 3\)"):
            call(density, features, GRID, rays[0], rays[1][:4])
    with pytest.raises(ConfigError, match="step=0"):
        voxel_march(density, features, GRID, *rays, step=0)
    with pytest.raises(ConfigError, match=r"radius between 0 and 4.0 m.*radius=39"):
        march_reference(density, features, GRID, *rays)
