"""Triton kernels of `ops.bev_pool` for GPUs, after BEVPoolv2 (Huang and Huang, 2022): one program per cell, one per pixel going back.

Nothing is added concurrently, so a result has the same bits every time. Compiled on first use by Triton, which needs a C compiler.
With TRITON_INTERPRET=1 in the environment before the first import, Triton runs the kernels on the CPU, slowly, for tests.
"""

from __future__ import annotations

import functools
import os
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from frustum.ops.pool_plan import PoolPlan

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_POINTS = 16  # points of a cell, or bins of a ray, that a program reads at once


@triton.jit
def _forward(weights, rows, order, pixels, occupied, starts, out, C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Program (i, j): BLOCK_C channels of the i-th occupied cell."""
    cell = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    first, last = tl.load(starts + cell), tl.load(starts + cell + 1)
    total = tl.zeros([BLOCK_C], dtype=out.dtype.element_ty)
    for start in range(first, last, BLOCK_P):
        k = start + tl.arange(0, BLOCK_P)
        weight = tl.load(weights + tl.load(order + k, mask=k < last, other=0), mask=k < last, other=0.0)
        pixel = tl.load(pixels + k, mask=k < last, other=0).to(tl.int64)
        mask = (k < last)[:, None] & (channel < C)[None, :]
        row = tl.load(rows + pixel[:, None] * C + channel[None, :], mask=mask, other=0.0).to(total.dtype)
        total += tl.sum(weight[:, None] * row, axis=0)
    target = tl.load(occupied + cell).to(tl.int64) * C
    tl.store(out + target + channel, total, mask=channel < C)


@triton.jit
def _backward(
    grad, weights, rows, cells, grad_weights, grad_rows, area, bins, C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Program i: all channels of the i-th pixel, along its ray; `area` is h * w."""
    pixel = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], dtype=grad.dtype.element_ty)
    row = tl.load(rows + pixel * C + channel, mask=channel < C, other=0.0).to(total.dtype)
    origin = pixel // area * bins * area + pixel % area
    for start in range(0, bins, BLOCK_P):
        d = start + tl.arange(0, BLOCK_P)
        point = origin + d * area
        cell = tl.load(cells + point, mask=d < bins, other=-1).to(tl.int64)
        weight = tl.load(weights + point, mask=cell >= 0, other=0.0)
        mask = (cell >= 0)[:, None] & (channel < C)[None, :]
        g = tl.load(grad + cell[:, None] * C + channel[None, :], mask=mask, other=0.0)
        tl.store(grad_weights + point, tl.sum(g * row[None, :], axis=1), mask=d < bins)
        total += tl.sum(weight[:, None] * g, axis=0)
    tl.store(grad_rows + pixel * C + channel, total.to(grad_rows.dtype.element_ty), mask=channel < C)


def forward(weights: Tensor, rows: Tensor, plan: PoolPlan, out: Tensor) -> None:
    """Weights (P,) and rows (M*h*w, C), contiguous, into out (B*Y*X*Z, C), which holds zeros; rows may be of half precision."""
    channels = rows.shape[1]
    block = min(64, triton.next_power_of_2(channels))
    if len(plan.occupied):
        grid = (len(plan.occupied), triton.cdiv(channels, block))
        tables = (plan.order, plan.pixels, plan.occupied, plan.starts)
        _launch(_forward, grid, weights, rows, *tables, out, C=channels, BLOCK_P=_POINTS, BLOCK_C=block)


def backward(grad: Tensor, weights: Tensor, rows: Tensor, plan: PoolPlan, grad_weights: Tensor, grad_rows: Tensor) -> None:
    """Gradient (B*Y*X*Z, C) of `out`, contiguous, into those of weights and rows."""
    _, bins, height, width = plan.frustum
    sizes = {"C": rows.shape[1], "BLOCK_P": _POINTS, "BLOCK_C": triton.next_power_of_2(rows.shape[1])}
    if len(rows):
        arguments = (grad, weights, rows, plan.cells, grad_weights, grad_rows, height * width, bins)
        _launch(_backward, (len(rows),), *arguments, **sizes)


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **sizes: int) -> None:
    """Run on the device of the tensors, which need not be the current one."""
    device = arguments[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*arguments, **sizes)


@functools.cache
def why_not(device: torch.device) -> str:
    """ "" if Triton can compile and run a kernel on `device`, else the reason: a driver without a C compiler, a GPU that is too old."""
    one = torch.zeros(1, dtype=torch.int32, device=device)
    plan = PoolPlan(one, one, one, one, torch.tensor([0, 1], dtype=torch.int32, device=device), (1, 1, 1, 1), 1, (1, 1, 1))
    weights, rows, out = torch.full((1,), 2.0, device=device), torch.full((1, 1), 3.0, device=device), torch.zeros(1, 1, device=device)
    try:
        forward(weights, rows, plan, out)
        return "" if float(out) == 6.0 else "a first kernel returned a wrong number"
    except Exception as error:  # whatever compiler and driver raise
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
