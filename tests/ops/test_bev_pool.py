"""bev_pool: both backends against a plain loop, their gradients, and the cases at the edge."""

from __future__ import annotations

import importlib.util
import itertools

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import ConfigError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.ops import bev_pool as module
from frustum.ops import bev_pool_numba, pool_plan
from frustum.ops.bev_pool import bev_pool
from frustum.ops.pool_plan import PoolPlan

GRID = VoxelGrid(lower=(-4, -3, -1), upper=(4, 3, 2), cell=(1, 1, 1.5))  # 8 x 6 x 2
BACKENDS = ("torch", "numba")


def _points(seed: int, batch: int = 2, cameras: int = 3, bins: int = 5, h: int = 2, w: int = 3, spread: float = 4.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, cameras, bins, h, w, 3, generator=generator, dtype=torch.float64) * spread


def _inputs(points: torch.Tensor, channels: int = 4, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    batch, cameras, bins, h, w = points.shape[:5]
    return torch.rand(batch * cameras, bins, h, w, dtype=dtype), torch.randn(batch * cameras, channels, h, w, dtype=dtype)


def _by_hand(depth, features, points, grid, rounding="floor") -> np.ndarray:
    """(B, C, Z, Y, X) by walking over every point."""
    batch, cameras, bins, h, w = points.shape[:5]
    x_cells, y_cells, z_cells = grid.shape
    out = np.zeros((batch, features.shape[1], z_cells, y_cells, x_cells))
    for b, n, d, i, j in itertools.product(range(batch), range(cameras), range(bins), range(h), range(w)):
        place = (points[b, n, d, i, j].numpy() - np.array(grid.lower)) / np.array(grid.cell)
        x, y, z = (np.floor(place) if rounding == "floor" else np.trunc(place)).astype(int)
        if 0 <= x < x_cells and 0 <= y < y_cells and 0 <= z < z_cells:
            m = b * cameras + n
            out[b, :, z, y, x] += depth[m, d, i, j].item() * features[m, :, i, j].numpy()
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rounding", ["floor", "truncate"])
def test_equals_a_plain_loop(backend, rounding):
    points = _points(1)
    depth, features = _inputs(points)
    pooled = bev_pool(depth, features, PoolPlan.create(points, GRID, rounding), backend)
    np.testing.assert_allclose(pooled.numpy(), _by_hand(depth, features, points, GRID, rounding), atol=1e-12)


@given(
    seed=st.integers(0, 10_000), batch=st.integers(1, 3), cameras=st.integers(1, 4), bins=st.integers(1, 7), channels=st.integers(1, 9),
    spread=st.floats(0.1, 30),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_backends_agree_on_random_rigs(seed, batch, cameras, bins, channels, spread):
    points = _points(seed, batch, cameras, bins, spread=spread)
    plan = PoolPlan.create(points, GRID)
    torch.manual_seed(seed)
    depth, features = (t.float() for t in _inputs(points, channels))
    results = []
    for backend in BACKENDS:
        d, f = depth.clone().requires_grad_(), features.clone().requires_grad_()
        pooled = bev_pool(d, f, plan, backend)
        pooled.square().sum().backward()
        results.append((pooled.detach(), d.grad, f.grad))
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(backend):
    points = _points(2, batch=1, cameras=2, bins=3)
    plan = PoolPlan.create(points, GRID)
    depth, features = (t.requires_grad_() for t in _inputs(points, 3))
    assert torch.autograd.gradcheck(lambda d, f: bev_pool(d, f, plan, backend), (depth, features))


def test_only_needed_gradients_are_taken():
    points = _points(3)
    plan = PoolPlan.create(points, GRID)
    depth, features = _inputs(points)
    bev_pool(depth.requires_grad_(), features, plan, "numba").sum().backward()
    assert depth.grad is not None
    assert features.grad is None


@given(seed=st.integers(0, 10_000), spread=st.floats(0.1, 20))
@settings(max_examples=20, deadline=None)
def test_counting_sort_equals_torch_sort(seed, spread):
    points = _points(seed, spread=spread)
    plan = PoolPlan.create(points, GRID)
    order, every, starts = pool_plan.sort_by_cell_torch(plan.cells, plan.batch * GRID.num_cells)
    held = starts.diff() > 0
    order, occupied, starts = order[: starts[-1]], every[held], torch.cat([starts[:-1][held], starts[-1:]])
    for ours, reference in ((plan.order, order), (plan.occupied, occupied), (plan.starts, starts)):
        torch.testing.assert_close(ours, reference)
    assert len(plan.kept_cells) == len(order)


@given(seed=st.integers(0, 10_000), batch=st.integers(1, 3), spread=st.floats(0.1, 20), half=st.booleans())
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("rounding", ["floor", "truncate"])
def test_cells_equal_those_of_torch(rounding, seed, batch, spread, half):
    points = _points(seed, batch, spread=spread)
    points = points.float() if half else points
    points.view(-1)[:6] = torch.tensor([torch.nan, torch.inf, -torch.inf, *GRID.lower])  # the last is a corner of the grid
    ours, reference = PoolPlan.create(points, GRID, rounding).cells, pool_plan.cells_torch(points, GRID, rounding)
    assert torch.equal(ours, reference)
    assert ours[0] == -1
    assert ours[1] == 0


def test_points_on_borders_of_cells_fall_where_torch_says():
    axis = torch.arange(-5, 6, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, axis * 0.75, indexing="ij"), -1).view(1, 1, 11, 11, 11, 3)
    for rounding in ("floor", "truncate"):
        assert torch.equal(PoolPlan.create(points, GRID, rounding).cells, pool_plan.cells_torch(points, GRID, rounding))


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_view_gives_zeros_and_zero_gradients(backend):
    points = torch.full((1, 1, 3, 2, 2, 3), 1e4)
    plan = PoolPlan.create(points, GRID)
    depth, features = (t.float().requires_grad_() for t in _inputs(points))
    pooled = bev_pool(depth, features, plan, backend)
    assert pooled.shape == (1, 4, 2, 6, 8)
    assert not pooled.any()
    pooled.sum().backward()
    assert not depth.grad.any()
    assert not features.grad.any()


def test_points_outside_change_nothing():
    points = _points(4)
    inside = GRID.indices(points)[1]
    depth, features = _inputs(points)
    plan = PoolPlan.create(points, GRID)
    pooled = bev_pool(depth, features, plan)
    silenced = torch.where(inside.flatten(0, 1), depth, torch.full_like(depth, 123.0))
    torch.testing.assert_close(bev_pool(silenced, features, plan), pooled)
    assert len(plan.order) == inside.sum()


def test_one_camera_and_a_batch_of_different_rigs():
    points = _points(5, batch=3, cameras=1)
    depth, features = _inputs(points)
    together = bev_pool(depth, features, PoolPlan.create(points, GRID))
    for b in range(3):
        alone = bev_pool(depth[b : b + 1], features[b : b + 1], PoolPlan.create(points[b : b + 1], GRID))
        torch.testing.assert_close(together[b : b + 1], alone, rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_deterministic(backend):
    points = _points(6, cameras=6, bins=40, h=8, w=16)
    plan = PoolPlan.create(points, GRID)
    depth, features = (t.float().requires_grad_() for t in _inputs(points, 32))
    runs = []
    for _ in range(3):
        pooled = bev_pool(depth, features, plan, backend)
        runs.append((pooled.detach(), *torch.autograd.grad(pooled.square().sum(), (depth, features))))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_is_added_up_in_float32(backend):
    points = torch.zeros(1, 1, 1, 64, 64, 3)  # all 4096 points in one cell: bfloat16 sums would stop growing at 256
    plan = PoolPlan.create(points, GRID)
    depth = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16, requires_grad=True)
    features = torch.ones(1, 2, 64, 64, dtype=torch.bfloat16)
    pooled = bev_pool(depth, features, plan, backend)
    assert pooled.dtype == torch.float32
    assert pooled.max() == 4096
    pooled.sum().backward()
    assert depth.grad.dtype == torch.bfloat16


def test_heights_join_the_channels_without_a_copy():
    points = _points(7)
    pooled = bev_pool(*_inputs(points), PoolPlan.create(points, GRID))
    joined = pooled.transpose(1, 2).flatten(1, 2)
    assert joined.data_ptr() == pooled.data_ptr()
    assert joined.is_contiguous(memory_format=torch.channels_last)


def test_bad_arguments_are_explained():
    points = _points(8)
    plan = PoolPlan.create(points, GRID)
    depth, features = _inputs(points)
    with pytest.raises(ShapeError, match="depth must have shape"):
        bev_pool(depth[:, 1:], features, plan)
    with pytest.raises(ShapeError, match="features must have shape"):
        bev_pool(depth, features[..., 1:], plan)
    with pytest.raises(ShapeError, match="frustum points"):
        PoolPlan.create(points[0], GRID)
    with pytest.raises(ConfigError, match="choose auto, torch, numba or triton"):
        bev_pool(depth, features, plan, "cuda")
    with pytest.raises(ConfigError, match="needs CPU tensors"):
        bev_pool(depth.to("meta"), features.to("meta"), plan, "numba")


def test_plan_moves_between_devices():
    plan = PoolPlan.create(_points(9), GRID)
    moved = plan.to("meta")
    assert moved.cells.device.type == moved.starts.device.type == "meta"
    assert moved.frustum == plan.frustum


def test_segments_equal_the_reference_and_their_gradients():
    """What runs with CUDA, here on the CPU."""
    points = _points(10)
    plan = PoolPlan.create(points, GRID)
    depth, features = _inputs(points)
    rows, weights = features.permute(0, 2, 3, 1).reshape(-1, 4), depth.reshape(-1)
    results = []
    for pool in (module._pool_torch, lambda *inputs: module._KernelPool.apply(*inputs, module._Segments)):
        w, r = weights.clone().requires_grad_(), rows.clone().requires_grad_()
        out = pool(w, r, plan)
        out.sin().sum().backward()
        results.append((out.detach(), w.grad, r.grad))
    for reference, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)
    nothing = PoolPlan.create(points + 1e4, GRID)
    assert not module._KernelPool.apply(weights, rows, nothing, module._Segments).any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu_and_itself():
    points = _points(11, cameras=6, bins=40, h=8, w=16)
    plan = PoolPlan.create(points, GRID)
    on_gpu = PoolPlan.create(points.cuda(), GRID)
    for name in ("cells", "order", "pixels"):  # where the CPU's plan ends, the points outside begin
        ours, reference = getattr(on_gpu, name).cpu(), getattr(plan, name)
        assert torch.equal(ours[: len(reference)], reference), name
    inputs = [t.float() for t in _inputs(points, 32)]
    runs = []
    for device, p in (("cpu", plan), *[("cuda", on_gpu)] * 5):
        depth, features = (t.to(device).requires_grad_() for t in inputs)
        pooled = bev_pool(depth, features, p)
        runs.append([t.cpu() for t in (pooled.detach(), *torch.autograd.grad(pooled.square().sum(), (depth, features)))])
    for ours, reference in zip(runs[1], runs[0], strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-3)
    for other in runs[2:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[1], other, strict=True))


def test_kernels_are_cached_on_disk(tmp_path, monkeypatch):
    """A second process (here: a second copy of the module) compiles nothing."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    points = _points(12, batch=1, cameras=1, bins=2)
    plan = PoolPlan.create(points, GRID)
    out, grad_rows = np.zeros((GRID.num_cells, 4), np.float32), np.zeros((6, 4), np.float32)
    weights, rows = np.ones(12, np.float32), np.ones((6, 4), np.float32)
    counts = []
    for _ in range(2):
        spec = importlib.util.spec_from_file_location("bev_pool_copy", bev_pool_numba.__file__)
        copy = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(copy)
        order, occupied, starts = copy.sort_by_cell(plan.cells.numpy(), GRID.num_cells)
        copy.forward(weights, rows, order, plan.pixels.numpy(), occupied, starts, out)
        copy.backward(out, weights, rows, plan.cells.numpy(), 2, 6, np.zeros(12, np.float32), grad_rows)
        kernels = (copy.sort_by_cell, copy.forward.__wrapped__, copy.backward.__wrapped__)
        counts.append([(sum(k.stats.cache_hits.values()), sum(k.stats.cache_misses.values())) for k in kernels])
    assert counts == [[(0, 1)] * 3, [(1, 0)] * 3]
    assert len(list(tmp_path.rglob("*.nbc"))) == 3
