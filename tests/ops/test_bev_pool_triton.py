"""The Triton kernels: against the torch reference on a GPU, or in Triton's interpreter on any machine; and compiled for several GPUs.

The tests that take `device` need a GPU. Without one, `test_in_the_interpreter` runs them in a second process on the CPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from frustum.errors import ConfigError
from frustum.geometry import VoxelGrid
from frustum.ops import bev_pool as module
from frustum.ops.bev_pool import bev_pool, default_backend
from frustum.ops.pool_plan import PoolPlan, sort_by_cell_torch

pytest.importorskip("triton", reason="Triton is not installed")

GRID = VoxelGrid(lower=(-4, -3, -1), upper=(4, 3, 2), cell=(1, 1, 1.5))  # 8 x 6 x 2
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CASES = [  # batch, cameras, bins, h, w, channels, spread of the points in metres
    pytest.param((2, 2, 5, 2, 3, 4), 3.0, id="batch"),
    pytest.param((1, 1, 17, 3, 2, 9), 1.0, id="channels are no power of two"),
    pytest.param((1, 2, 33, 2, 2, 70), 2.0, id="more channels than one program takes"),
    pytest.param((1, 3, 2, 2, 2, 1), 30.0, id="most points outside"),
    pytest.param((1, 1, 40, 3, 3, 2), 0.01, id="all in a few cells"),
]


@pytest.fixture(params=["cpu" if INTERPRETED else pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; test_in_the_interpreter runs this on the CPU")
    return torch.device(request.param)


def _case(shape: tuple[int, ...], spread: float, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, PoolPlan]:
    batch, cameras, bins, h, w, channels = shape
    points = torch.randn(batch, cameras, bins, h, w, 3, dtype=torch.float64) * spread
    depth = torch.rand(batch * cameras, bins, h, w, dtype=dtype)
    return depth, torch.randn(batch * cameras, channels, h, w, dtype=dtype), PoolPlan.create(points, GRID)


def _run(depth: torch.Tensor, features: torch.Tensor, plan: PoolPlan, device: torch.device | str, backend: str) -> list[torch.Tensor]:
    """Pooled cells, and the gradients of depth and features, on the CPU."""
    d, f = (t.to(device).requires_grad_() for t in (depth, features))
    pooled = bev_pool(d, f, plan.to(device), backend)  # type: ignore[arg-type]
    return [t.detach().cpu() for t in (pooled, *torch.autograd.grad(pooled.sin().sum(), (d, f)))]


def _with_everything(plan: PoolPlan) -> PoolPlan:
    """The plan as a GPU makes it: with all points and all cells."""
    order, occupied, starts = sort_by_cell_torch(plan.cells, plan.batch * GRID.num_cells)
    _, depth, h, w = plan.frustum
    return replace(plan, order=order, pixels=order // (depth * h * w) * (h * w) + order % (h * w), occupied=occupied, starts=starts)


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_a_plan_as_a_gpu_makes_it_gives_the_reference(backend, device):
    depth, features, plan = _case((2, 2, 17, 3, 4, 6), 4.0)
    assert not (plan.cells >= 0).all()
    whole = _with_everything(plan)
    if backend == "torch":  # whose way on a GPU this is
        rows, weights = features.permute(0, 2, 3, 1).reshape(-1, 6).to(device), depth.flatten().to(device)
        pooled = module._KernelPool.apply(weights, rows, whole.to(device), module._Segments)
        x, y, z = plan.shape
        ours = [pooled.view(plan.batch, y, x, z, 6).permute(0, 4, 3, 1, 2).cpu()]
    else:
        ours = _run(depth, features, whole, device, backend)
    for found, reference in zip(ours, _run(depth, features, plan, "cpu", "torch"), strict=False):
        torch.testing.assert_close(found, reference, rtol=1e-5, atol=1e-5)


def test_half_precision_features_are_read_as_they_are(device):
    depth, features, plan = _case((1, 2, 9, 3, 4, 6), 2.0)
    half = features.bfloat16()
    ours = _run(depth, half, plan, device, "triton")
    reference = _run(depth, half.float(), plan, "cpu", "torch")
    assert ours[2].dtype == torch.bfloat16
    torch.testing.assert_close(ours[0], reference[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[1], reference[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[2].float(), reference[2], rtol=8e-3, atol=1e-5)  # rounded once, at the end


@pytest.mark.parametrize(("shape", "spread"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_equals_the_reference(shape, spread, dtype, tolerance, device):
    case = _case(shape, spread, dtype)
    for ours, reference in zip(_run(*case, device, "triton"), _run(*case, "cpu", "torch"), strict=True):
        torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance)


def test_same_bits_every_time(device):
    case = _case((1, 2, 33, 4, 4, 8), 1.0)
    first, *others = (_run(*case, device, "triton") for _ in range(3))
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_empty_view(device):
    depth, features, _ = _case((1, 1, 3, 2, 2, 4), 1.0)
    nothing = PoolPlan.create(torch.full((1, 1, 3, 2, 2, 3), 1e4), GRID)
    assert not any(t.any() for t in _run(depth, features, nothing, device, "triton"))


def test_half_precision_is_added_up_in_float32(device):
    plan = PoolPlan.create(torch.zeros(1, 1, 1, 32, 16, 3), GRID).to(device)  # 512 points in one cell: bfloat16 sums would stop at 256
    ones = torch.ones(1, 1, 32, 16, dtype=torch.bfloat16, device=device)
    pooled = bev_pool(ones, ones, plan, "triton")
    assert pooled.dtype == torch.float32
    assert pooled.max() == 512


def test_a_first_kernel_is_tried(device):
    from frustum.ops.bev_pool_triton import why_not

    assert why_not(device) == ""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_at_full_size_on_a_gpu(backend, dtype):
    """M0's sizes: 6 cameras x 44 bins x 16 x 44, 64 channels. `auto` takes Triton."""
    assert default_backend(torch.device("cuda")) == "triton"
    depth, features, plan = _case((1, 6, 44, 16, 44, 64), 3.0)
    features = features.to(dtype)
    first, second = (_run(depth, features, plan, "cuda", backend) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for ours, reference in zip(first, _run(depth, features.float(), plan, "cpu", "numba"), strict=True):
        rough = ours.dtype == torch.bfloat16  # the gradient of the features, rounded once
        torch.testing.assert_close(ours.float(), reference, rtol=1e-2 if rough else 1e-4, atol=1e-2 if rough else 1e-3)


@pytest.mark.skipif(INTERPRETED, reason="is what runs this")
def test_in_the_interpreter():
    on_a_device = "reference or bits or empty or half or first"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", on_a_device, "--no-header", str(Path(__file__))]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))} | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "17 passed" in done.stdout, done.stdout[-2000:]


@pytest.mark.skipif(INTERPRETED, reason="compiles for real")
@pytest.mark.parametrize("target", [("cuda", 75, 32), ("cuda", 80, 32), ("cuda", 90, 32), ("hip", "gfx942", 64)], ids=str)
def test_compiles_for_gpus_that_are_not_here(target, tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from frustum.ops import bev_pool_triton as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    whole = {name: "*i32" for name in ("order", "pixels", "occupied", "starts", "cells")} | {"area": "i32", "bins": "i32"}
    sizes = {"C": 64, "BLOCK_P": 16, "BLOCK_C": 64}
    for kernel in (kernels._forward, kernels._backward):
        signature = {name: "constexpr" if name in sizes else whole.get(name, "*fp32") for name in kernel.arg_names}
        compiled = triton.compile(ASTSource(kernel, signature, sizes), target=GPUTarget(*target))
        assert len(compiled.asm["cubin" if target[0] == "cuda" else "hsaco"]) > 1000


@pytest.mark.skipif(INTERPRETED, reason="the interpreter takes CPU tensors")
def test_cpu_tensors_are_refused():
    with pytest.raises(ConfigError, match="needs CUDA tensors, got cpu"):
        bev_pool(*_case((1, 1, 2, 2, 2, 3), 1.0), "triton")


class _Broken:
    @staticmethod
    def why_not(device: torch.device) -> str:
        return "RuntimeError: Failed to find C compiler"


def test_auto_falls_back_with_a_warning(monkeypatch):
    """Triton is installed, but cannot compile: say so once, and take torch."""
    import frustum.ops
    from frustum.ops import bev_pool_triton  # noqa: F401  # is in sys.modules from here on

    monkeypatch.setitem(sys.modules, "frustum.ops.bev_pool_triton", _Broken)  # type: ignore[arg-type]
    monkeypatch.setattr(frustum.ops, "bev_pool_triton", _Broken)
    module._triton_works.cache_clear()
    with pytest.warns(
        UserWarning, match="takes plain torch, because Triton does not work on cuda:0: RuntimeError: Failed to find C compiler"
    ):
        assert default_backend(torch.device("cuda:0")) == "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert default_backend(torch.device("cuda:0")) == "torch"
    module._triton_works.cache_clear()


def test_without_triton(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    module._triton_works.cache_clear()
    assert default_backend(torch.device("cuda:1")) == "torch"
    module._triton_works.cache_clear()
    with pytest.raises(ConfigError, match="pip install triton"):
        bev_pool(*_case((1, 1, 2, 2, 2, 3), 1.0), "triton")
