"""Bird's-eye-view pooling: sum the features of lifted pixels, weighted by depth probability, in the cell that each point falls into.

    out[cell] = sum over frustum points p in the cell of depth[p] * features[pixel of p]

This is the "splat" of Lift-Splat-Shoot and what BEVPoolv2 computes. Which point lies in which cell depends on calibration alone: a
`PoolPlan` holds it, sorted by cell, and is made once for a fixed rig. Backends: `torch` (the readable reference, any device), `numba`
(CPU) and `triton` (GPU). On a CPU and with CUDA a result has the same bits every time: nothing is added concurrently.

Shape letters: B batch, N cameras, M = B * N images, D depth bins, h w feature map, C channels, X Y Z cells, P = M * D * h * w points.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from typing import Any, Literal

import torch
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.ops import bev_pool_numba
from frustum.ops.pool_plan import PoolPlan

Backend = Literal["auto", "torch", "numba", "triton"]


def bev_pool(depth: Tensor, features: Tensor, plan: PoolPlan, backend: Backend = "auto") -> Tensor:
    """Pool features into cells.

    Args:
        depth: (M, D, h, w) weight of each point, usually a soft-max over D.
        features: (M, C, h, w).
        plan: made for the same M, D, h, w.
        backend: `auto` takes what `default_backend` says. Gradients flow to depth and features in all.

    Returns:
        (B, C, Z, Y, X); zero where no point fell. Half-precision inputs are added up, and returned, in float32.

    Raises:
        ShapeError: depth, features and plan do not fit together.
        ConfigError: unknown backend, or one that cannot compute on the device of the tensors.
    """
    images, _, height, width = plan.frustum
    if tuple(depth.shape) != plan.frustum:
        raise ShapeError(f"depth must have shape (M, D, h, w) = {plan.frustum} as the plan, got {tuple(depth.shape)}.")
    if features.dim() != 4 or (features.shape[0], *features.shape[2:]) != (images, height, width):
        raise ShapeError(f"features must have shape ({images}, C, {height}, {width}), got {tuple(features.shape)}.")
    device = depth.device.type
    if backend == "auto" and (torch.onnx.is_in_onnx_export() or device not in ("cpu", "cuda")):
        backend = "torch"
    pool = _pool_torch if backend == "torch" and device != "cuda" else functools.partial(_pool_kernels, backend=backend)
    dtype = torch.promote_types(torch.promote_types(depth.dtype, features.dtype), torch.float32)
    channels = features.shape[1]
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels)  # (M*h*w, C)
    weights = depth.reshape(-1).to(dtype)  # (P,)
    out = pool(weights, rows, plan)
    x, y, z = plan.shape
    return out.view(plan.batch, y, x, z, channels).permute(0, 4, 3, 1, 2)


def _pool_torch(weights: Tensor, rows: Tensor, plan: PoolPlan) -> Tensor:
    """The reference: (P,), (M*h*w, C) -> (B*Y*X*Z, C)."""
    x, y, z = plan.shape
    points = rows.to(weights.dtype).index_select(0, plan.pixels) * weights.index_select(0, plan.order)[:, None]  # (K, C)
    return points.new_zeros(plan.batch * x * y * z, rows.shape[1]).index_add(0, plan.kept_cells, points)


@torch.compiler.disable
def _pool_kernels(weights: Tensor, rows: Tensor, plan: PoolPlan, backend: Backend) -> Tensor:
    """As `_pool_torch`, by the `forward` and `backward` of a backend."""
    chosen = default_backend(weights.device) if backend == "auto" else backend
    if chosen != "triton":  # whose kernels read half precision themselves
        rows = rows.to(weights.dtype)
    return _KernelPool.apply(weights, rows, plan, _kernels(chosen, weights.device))


class _KernelPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, rows: Tensor, plan: PoolPlan, kernels: Any) -> Tensor:
        x, y, z = plan.shape
        weights, rows = weights.detach().contiguous(), rows.detach().contiguous()
        out = weights.new_zeros(plan.batch * x * y * z, rows.shape[1])
        kernels.forward(weights, rows, plan, out)
        ctx.save_for_backward(weights, rows)
        ctx.plan, ctx.kernels = plan, kernels
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        weights, rows = ctx.saved_tensors
        grad_weights, grad_rows = torch.zeros_like(weights), torch.zeros_like(rows)
        ctx.kernels.backward(grad.contiguous(), weights, rows, ctx.plan, grad_weights, grad_rows)
        return grad_weights, grad_rows, None, None


class _Segments:
    """Plain torch that adds in a fixed order: with CUDA, index_add and the gradient of index_select add in any order."""

    @staticmethod
    def forward(weights: Tensor, rows: Tensor, plan: PoolPlan, out: Tensor) -> None:
        if len(plan.order):
            points = rows.index_select(0, plan.pixels) * weights.index_select(0, plan.order)[:, None]  # (K, C), sorted by cell
            out[plan.occupied.long()] = torch.segment_reduce(points, "sum", lengths=plan.starts.diff().long(), axis=0, unsafe=True)

    @staticmethod
    def backward(grad: Tensor, weights: Tensor, rows: Tensor, plan: PoolPlan, grad_weights: Tensor, grad_rows: Tensor) -> None:
        images, bins, height, width = plan.frustum
        cells, depth, by_bin = (t.view(images, bins, height * width) for t in (plan.cells, weights, grad_weights))
        for d in range(bins):  # a pixel has one point per bin: nothing is added concurrently
            cell, weight = cells[:, d].flatten().long(), depth[:, d].flatten()
            g = torch.where((cell >= 0)[:, None], grad.index_select(0, cell.clamp(min=0)), 0)  # (M*h*w, C)
            by_bin[:, d] = (g * rows).sum(1).view(images, -1)
            grad_rows += weight[:, None] * g


class _Numba:
    """The kernels of bev_pool_numba, which are compiled when first used."""

    @staticmethod
    def forward(weights: Tensor, rows: Tensor, plan: PoolPlan, out: Tensor) -> None:
        bev_pool_numba.forward(*(t.numpy() for t in (weights, rows, plan.order, plan.pixels, plan.occupied, plan.starts, out)))

    @staticmethod
    def backward(grad: Tensor, weights: Tensor, rows: Tensor, plan: PoolPlan, grad_weights: Tensor, grad_rows: Tensor) -> None:
        _, bins, height, width = plan.frustum
        g, w, r, cells = (t.numpy() for t in (grad, weights, rows, plan.cells))
        bev_pool_numba.backward(g, w, r, cells, bins, height * width, grad_weights.numpy(), grad_rows.numpy())


def default_backend(device: torch.device) -> Literal["torch", "numba", "triton"]:
    """What `auto` means for tensors on `device`: numba on a CPU, triton on a GPU where it is installed and works, else torch."""
    if device.type == "cpu":
        return "numba"
    return "triton" if device.type == "cuda" and _triton_works(device) else "torch"


@functools.cache
def _triton_works(device: torch.device) -> bool:
    if importlib.util.find_spec("triton") is None:
        return False
    from frustum.ops import bev_pool_triton

    if reason := bev_pool_triton.why_not(device):
        warnings.warn(f"bev_pool takes plain torch, because Triton does not work on {device}: {reason}", stacklevel=2)
    return not reason


def _kernels(backend: str, device: torch.device) -> Any:
    """What has the `forward` and `backward` of a backend. Raises ConfigError if it cannot compute on `device`."""
    if backend == "torch":
        return _Segments
    if backend == "numba":
        if device.type != "cpu":
            raise ConfigError(f"the numba backend of bev_pool needs CPU tensors, got {device}; use backend='auto'.")
        return _Numba
    if backend != "triton":
        raise ConfigError(f"unknown bev_pool backend {backend!r}; choose auto, torch, numba or triton.")
    if importlib.util.find_spec("triton") is None:
        raise ConfigError("the triton backend of bev_pool needs the package triton (Linux): pip install triton; or use backend='auto'.")
    from frustum.ops import bev_pool_triton

    if device.type != "cuda" and not bev_pool_triton.INTERPRETED:
        raise ConfigError(f"the triton backend of bev_pool needs CUDA tensors, got {device}; use backend='auto'.")
    return bev_pool_triton
