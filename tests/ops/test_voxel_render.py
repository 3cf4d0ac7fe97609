"""voxel_render: both backends against fine sums along the rays, closed forms, gradients, threads, edge cases and bad input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.ops import voxel_render as module
from frustum.ops.voxel_render import voxel_render

BACKENDS = ["torch", "numba"]
GRID = VoxelGrid(lower=(-2.0, -1.0, 0.5), upper=(2.0, 2.0, 2.5), cell=(0.5, 0.5, 0.4))  # 8 x 6 x 5


def _field(seed: int = 0, channels: int = 3, share: float = 0.5, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    density = 3 * torch.rand(GRID.shape, generator=draw, dtype=dtype) ** 2
    density = torch.where(torch.rand(GRID.shape, generator=draw) < share, density, 0)
    return density, torch.randn(*GRID.shape, channels, generator=draw, dtype=dtype)


def _rays(count: int = 50, seed: int = 0) -> tuple[Tensor, Tensor]:
    """From inside and outside the grid, some along its axes."""
    draw = torch.Generator().manual_seed(seed)
    origins = torch.randn(count, 3, generator=draw, dtype=torch.float64) * 1.5 + torch.tensor([0.0, 0.5, 1.5])
    directions = torch.randn(count, 3, generator=draw, dtype=torch.float64)
    directions[::7, 1:] = 0
    directions[1::7, 2] = 0
    return origins, directions


def _by_sums(density: Tensor, features: Tensor, origin: Tensor, direction: Tensor, near: float, far: float) -> Tensor:
    """A ray by very many small steps: features, depth and alpha in a row."""
    steps = torch.linspace(near, far, 200_001, dtype=torch.float64)
    t = (steps[1:] + steps[:-1]) / 2
    index, inside = GRID.indices(origin + t[:, None] * direction)
    index = index.clamp(torch.zeros(3, dtype=torch.long), torch.tensor(GRID.shape) - 1).unbind(-1)
    thickness = torch.where(inside, density[index], 0) * steps.diff() * direction.norm()
    weight = (-(thickness.cumsum(0) - thickness)).exp() * (1 - (-thickness).exp())
    rows = torch.cat([features[index], t[:, None], torch.ones_like(t)[:, None]], 1)
    return weight @ rows


def _gradients(density: Tensor, features: Tensor, rays: tuple[Tensor, Tensor], backend: str, **options) -> list[Tensor]:
    """The three results and the gradients of a sum of them with fixed factors."""
    density, features = (t.detach().clone().requires_grad_() for t in (density, features))
    out = voxel_render(density, features, GRID, *rays, backend=backend, **options)
    draw = torch.Generator().manual_seed(5)
    loss = sum((o * torch.randn(o.shape, generator=draw, dtype=torch.float64).to(o.dtype)).sum() for o in out)
    return [*(o.detach() for o in out), *torch.autograd.grad(loss, (density, features))]


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_sums_of_small_steps(backend):
    density, features = _field()
    origins, directions = _rays(20)
    directions /= directions.norm(dim=1, keepdim=True) * 2  # lengths of half a metre
    out = voxel_render(density, features, GRID, origins, directions, far=24, backend=backend)
    assert (out.alpha > 0.1).sum() > 5
    for i in range(20):
        wanted = _by_sums(density, features, origins[i], directions[i], 0, 24)
        found = torch.cat([out.features[i], out.depth[i, None], out.alpha[i, None]])
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_slab_of_one_density(backend):
    """Closed forms: alpha = 1 - exp(-d l), mean depth = 1/d - l / (exp(d l) - 1) behind the face."""
    origins, directions = torch.tensor([[-5.0, 0.2, 1.1]]).double(), torch.tensor([[2.0, 0, 0]]).double()
    for d in (1e-9, 1e-3, 0.01, 0.5, 0.61, 3.0, 80.0, 2e3):
        density = torch.full(GRID.shape, d, dtype=torch.float64)
        out = voxel_render(density, density[..., None] * 0 + 7, GRID, origins, directions, backend=backend)
        alpha = -math.expm1(-4 * d)
        assert float(out.alpha) == pytest.approx(alpha, rel=1.1e-6)
        assert float(out.features) == pytest.approx(7 * alpha, rel=1.1e-6)
        mean = 3 + (1 / d - 4 / math.expm1(4 * d) if 4e-3 < 4 * d < 500 else 2 if d < 1 else 1 / d)
        assert float(out.depth / out.alpha) == pytest.approx(mean / 2, rel=1e-3 if d <= 1e-3 else 1e-5), "in lengths of the direction"


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_opaque_cell_is_met_at_its_face(backend):
    density = torch.zeros(GRID.shape)
    density[5, 3, 2] = 1e6
    origins = torch.tensor([[-1.9, 0.7, 1.4], [0.6, 1.9, 1.5], [0.75, 0.75, 9.0]])
    directions = torch.tensor([[1.0, 0, 0], [0, -2, 0], [0, 0, -0.5]])
    out = voxel_render(density, torch.ones(*GRID.shape, 1), GRID, origins, directions, backend=backend)
    torch.testing.assert_close(out.alpha, torch.ones(3))
    torch.testing.assert_close(out.depth, torch.tensor([2.4, 0.45, (9 - 1.7) * 2]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_small_differences(backend):
    density, features = _field(1, 2, share=0.9)
    density = density + 1e-3  # an empty cell has a gradient on one side only
    density[3, 3, 3] = 0.7  # on either side of where the series ends
    tensors = [t.requires_grad_() for t in (density, features)]
    assert torch.autograd.gradcheck(lambda *t: tuple(voxel_render(*t, GRID, *_rays(6), backend=backend)), tensors, eps=1e-7, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_cells_get_a_gradient(backend):
    density, features = _field(share=0)
    *out, grad_density, grad_features = _gradients(density, features, _rays(), backend)
    assert all((o == 0).all() for o in out)
    assert (grad_density != 0).any()
    assert grad_density.isfinite().all()
    assert (grad_features == 0).all()
    moved = density.clone()
    cell = tuple(grad_density.abs().flatten().argmax().reshape(1, 1)[0].tolist())
    moved.view(-1)[cell[0]] = 1e-6
    draw = torch.Generator().manual_seed(5)
    found = voxel_render(moved, features, GRID, *_rays(), backend=backend)
    change = sum((o * torch.randn(o.shape, generator=draw, dtype=torch.float64)).sum() for o in found)
    assert float(change) == pytest.approx(1e-6 * float(grad_density.view(-1)[cell[0]]), rel=1e-4)


@given(
    seed=st.integers(0, 9999), count=st.integers(0, 60), channels=st.integers(0, 5), share=st.floats(0, 1), factor=st.floats(0, 30),
    near=st.floats(0, 2), span=st.floats(0, 5),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_backends_agree(seed, count, channels, share, factor, near, span):
    density, features = _field(seed, channels, share)
    one, other = (_gradients(factor * density, features, _rays(count, seed), b, near=near, far=near + span) for b in BACKENDS)
    for a, b in zip(one, other, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_backends_agree_in_float32():
    density, features = _field(dtype=torch.float32)
    exact = _gradients(density.double(), features.double(), _rays(300), "torch")
    for backend in BACKENDS:
        for found, wanted in zip(_gradients(density, features, _rays(300), backend), exact, strict=True):
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.double(), wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_light_up_to_a_distance(backend):
    """A window's share is a difference of two calls; near moves the start, not depth's zero."""
    density, features = _field()
    origins, directions = _rays()
    at = torch.rand(50, dtype=torch.float64) * 2
    until, upto = (voxel_render(density, features, GRID, origins, directions, far=f, backend=backend) for f in (at, at + 1))
    later = voxel_render(density, features, GRID, origins, directions, near=at, far=at + 1, backend=backend)
    torch.testing.assert_close(upto.alpha - until.alpha, later.alpha * (1 - until.alpha))
    torch.testing.assert_close(upto.depth - until.depth, later.depth * (1 - until.alpha))
    assert (voxel_render(density, features, GRID, origins, directions, near=2, far=1, backend=backend).alpha == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_rays_beside_the_grid_and_on_its_faces(backend):
    density, features = _field(share=1)
    origins = torch.tensor(
        [[-9.0, 5, 1], [0, 0, 9], [0, 9, 1], [-2.0, 0, 1], [-9, 0.5, 0.9], [-9, -1, 0.5], [-9, 2, 1], [2, 2, 2.5]]
    ).double()
    directions = torch.tensor([[1.0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [-1, -1, -1]]).double()
    out, depth, alpha, *gradients = _gradients(density, features, (origins, directions), backend)
    assert alpha[[0, 1, 2, 6]].tolist() == [0, 0, 0, 0], "y = 2 is outside"
    assert (alpha[[3, 4, 5, 7]] > 0.05).all(), "a face belongs to the cell above it"
    assert all(t.isfinite().all() for t in (out, depth, *gradients))


def test_leading_dimensions_and_many_rays(monkeypatch):
    monkeypatch.setattr(module, "_RAYS", 16)
    fields = [_field(i) for i in range(6)]
    rays = [_rays(50, i) for i in range(6)]
    density, features = (torch.stack(f).unflatten(0, (2, 3)) for f in zip(*fields, strict=True))
    origins, directions = (torch.stack(r).unflatten(0, (2, 3)) for r in zip(*rays, strict=True))
    for backend in BACKENDS:
        out = voxel_render(density, features, GRID, origins, directions, backend=backend)
        assert out.features.shape == (2, 3, 50, 3)
        for i in range(6):
            for batch, one in zip(out, voxel_render(*fields[i], GRID, *rays[i], backend=backend), strict=True):
                torch.testing.assert_close(batch[i // 3, i % 3], one)
        empty = voxel_render(density[:0], features[:0], GRID, origins[:0], directions[:0], backend=backend)
        assert empty.features.shape == (0, 3, 50, 3)
        assert voxel_render(*fields[0], GRID, *(r[:0] for r in rays[0]), backend=backend).alpha.shape == (0,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_types(backend):
    density, features = _field(dtype=torch.float32)
    rays = [r.float() for r in _rays()]
    half = density.bfloat16(), features.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = voxel_render(*half, GRID, *rays, backend=backend)
    assert mixed.features.dtype == torch.float32
    exact = voxel_render(*(h.float() for h in half), GRID, *rays, backend=backend)
    for a, b in zip(mixed, exact, strict=True):
        torch.testing.assert_close(a, b)
    strided = density.mT.contiguous().mT, features.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    for a, b in zip(_gradients(*strided, rays, backend), _gradients(density, features, rays, backend), strict=True):
        torch.testing.assert_close(a, b)


def test_the_same_bits_for_any_number_of_threads():
    before, results = torch.get_num_threads(), []
    density, features = _field(0, 17, dtype=torch.float32)
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            results.append(_gradients(density, features, _rays(5000), "numba"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_bad_input():
    density, features = _field()
    origins, directions = _rays()
    with pytest.raises(ShapeError, match=r"density must have shape \(8, 6, 5\).*\(8, 6, 4\)"):
        voxel_render(density[..., :4], features, GRID, origins, directions)
    with pytest.raises(ShapeError, match=r"features must have shape \(8, 6, 5, 3\)"):
        voxel_render(density, features[:7], GRID, origins, directions)
    with pytest.raises(ShapeError, match=r"directions must have shape \(50, 3\).*\(49, 3\)"):
        voxel_render(density, features, GRID, origins, directions[:49])
    with pytest.raises(ShapeError, match=r"features \(\*, X, Y, Z, C\)"):
        voxel_render(density, density, GRID, origins, directions)
    for wrong in (-0.1, math.nan, math.inf):
        bad = density.clone()
        bad[1, 2, 3] = wrong
        with pytest.raises(DataError, match="finite and at least 0"):
            voxel_render(bad, features, GRID, origins, directions)
    with pytest.raises(DataError, match="has no direction"):
        voxel_render(density, features, GRID, origins, 0 * directions)
    with pytest.raises(DataError, match="not finite"):
        voxel_render(density, features, GRID, origins / 0, directions)
    for span in ({"near": math.nan}, {"near": math.inf}, {"far": math.nan}):
        with pytest.raises(DataError, match="a near that is finite"):
            voxel_render(density, features, GRID, origins, directions, **span)
    with pytest.raises(ConfigError, match="'triton'"):
        voxel_render(density, features, GRID, origins, directions, backend="triton")
    with pytest.raises(ConfigError, match="meta"):
        voxel_render(density.to("meta"), features, GRID, origins, directions, backend="numba")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu():
    density, features = _field(dtype=torch.float32)
    rays = _rays()
    on_gpu = _gradients(density.cuda(), features.cuda(), tuple(r.cuda() for r in rays), "auto")
    for a, b in zip(on_gpu, _gradients(density, features, rays, "numba"), strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4)
