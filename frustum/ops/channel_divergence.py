"""How far apart two maps are, channel by channel, when each channel is read as a distribution over positions.

    p = softmax over positions of teacher / tau, q of student / tau; KL = sum of p * (log p - log q), or the cross-entropy -sum of p * log q

Written out, this takes several tensors as large as the maps, forward and again for the gradients, although the gradient is (q - p) / tau.
Backends: `torch`, the readable reference on any device; `recompute`, the same on any device with that gradient, which keeps nothing but
the maps themselves; and `numba` on the CPU for float32, which reads both maps once forward and once backward, in the order that they have
in memory, and keeps two numbers per map and channel, too. Bits do not depend on the number of threads.

Shape letters: B batch, C channels, * spatial dimensions, P positions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.geometry.transforms import without_autocast
from frustum.ops import channel_divergence_numba as kernels

DivergenceBackend = Literal["auto", "torch", "recompute", "numba"]
DivergenceValue = Literal["kl", "ce"]


def channel_divergence(
    student: Tensor,
    teacher: Tensor,
    tau: float = 1.0,
    mask: Tensor | None = None,
    value: DivergenceValue = "kl",
    backend: DivergenceBackend = "auto",
) -> Tensor:
    """Divergence of the student's distribution from the teacher's, for each sample and channel.

    Args:
        student, teacher: (B, C, *) logits or features. No gradient reaches the teacher.
        tau: temperature, above 0.
        mask: (B, *) bool, the positions that the distributions are over; None for all.
        value: `kl` is 0 for equal maps; `ce` adds the entropy of the teacher, whose gradient is zero.
        backend: `auto` takes numba for float32 and shorter numbers on the CPU, recompute elsewhere, and torch to compile or export.

    Returns:
        (B, C), float32, or float64 for maps of float64; zero where a sample has no position in the mask.

    Raises:
        ShapeError: maps or mask do not fit together. ConfigError: a temperature, value or backend that does not exist, or cannot compute
            here.
    """
    _check(student, teacher, tau, mask, value)
    on_cpu, is_double = student.device.type == "cpu", student.dtype == torch.float64
    has_numba = on_cpu and not is_double
    if backend not in ("auto", "torch", "recompute", "numba") or (backend == "numba" and not has_numba):
        given = f"{backend!r} for {student.dtype} on {student.device}"
        raise ConfigError(f"channel_divergence has backends auto, torch, recompute and (on the CPU, not for float64) numba, got {given}.")
    with without_autocast(student):
        dtype = torch.promote_types(student.dtype, torch.float32)
        student, teacher = student.to(dtype), teacher.detach().to(dtype)
        if backend == "torch" or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
            return _torch(student, teacher, tau, mask, value)
        if backend == "recompute" or not has_numba:
            return _Recomputed.apply(student, teacher, tau, mask, value)
        return _numba(student, teacher, tau, mask, value)


def _check(student: Tensor, teacher: Tensor, tau: float, mask: Tensor | None, value: str) -> None:
    if student.dim() < 3 or student.shape != teacher.shape:
        given = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ShapeError(f"channel_divergence needs student and teacher of one shape (B, C, *), got {given}.")
    if not student.numel():
        raise ShapeError(f"channel_divergence needs at least one sample, channel and position, got {tuple(student.shape)}.")
    places = student.shape[:1] + student.shape[2:]
    if mask is not None and (mask.shape != places or mask.dtype != torch.bool):
        raise ShapeError(f"the mask of positions must be bool of shape {tuple(places)}, got {mask.dtype} of {tuple(mask.shape)}.")
    if not tau > 0:
        raise ConfigError(f"the temperature tau must be above 0, got {tau}.")
    if value not in ("kl", "ce"):
        raise ConfigError(f"value must be 'kl' or 'ce', got {value!r}.")


def _torch(student: Tensor, teacher: Tensor, tau: float, mask: Tensor | None, value: str) -> Tensor:
    """The reference. Logarithms first: a probability may round to zero, its logarithm does not."""
    log_q, log_p = (_inside(x, tau, mask).log_softmax(-1) for x in (student, teacher))
    terms = log_p.exp() * (log_p - log_q if value == "kl" else -log_q)
    if mask is not None:
        terms = terms.masked_fill(~mask.flatten(1)[:, None], 0)
    return terms.sum(-1)


def _inside(x: Tensor, tau: float, mask: Tensor | None) -> Tensor:
    """Maps as (B, C, P), divided by tau, far below any logit outside the mask; 0 where nothing is inside."""
    x = x.flatten(2) / tau
    if mask is None:
        return x
    outside = ~mask.flatten(1)[:, None]
    return x.masked_fill(outside, -1e30).masked_fill(outside.all(-1, keepdim=True), 0)  # finite: 0 * (log p - log q) stays zero


class _Recomputed(torch.autograd.Function):
    """`_torch` with its gradient written out: the maps are kept, which are there anyway, and distributions are computed again."""

    @staticmethod
    def forward(ctx, student: Tensor, teacher: Tensor, tau: float, mask: Tensor | None, value: str) -> Tensor:
        ctx.save_for_backward(student, teacher)
        ctx.tau, ctx.mask = tau, mask
        return _torch(student, teacher, tau, mask, value)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        student, teacher = ctx.saved_tensors
        out = _inside(student, ctx.tau, ctx.mask).softmax(-1)
        out -= _inside(teacher, ctx.tau, ctx.mask).softmax(-1)
        out *= grad[..., None] / ctx.tau
        return out.view(student.shape), None, None, None, None


@torch.compiler.disable
def _numba(student: Tensor, teacher: Tensor, tau: float, mask: Tensor | None, value: str) -> Tensor:
    return _ChannelDivergence.apply(student, teacher, tau, mask, value)


class _ChannelDivergence(torch.autograd.Function):
    """The maps themselves are all that is kept, with the largest value and the logarithm of the sum of each channel.

    They are kept by `save_for_backward`, which notices if they are changed in place before the gradient is asked for.
    """

    @staticmethod
    def forward(ctx, student: Tensor, teacher: Tensor, tau: float, mask: Tensor | None, value: str) -> Tensor:
        batch, channels = student.shape[:2]
        ctx.is_last = not student.is_contiguous() and student.movedim(1, -1).is_contiguous()
        ctx.width = channels if ctx.is_last else 1
        ctx.save_for_backward(student, teacher)
        maps = tuple(_rows(x.detach(), ctx.is_last) for x in (student, teacher))
        mask_rows = np.empty((0, 0), bool) if mask is None else mask.flatten(1).contiguous().numpy()
        block, step = kernels.block_and_part(ctx.width)
        ctx.settings = (mask_rows, block, step, np.float32(1 / tau))
        ctx.tau, ctx.shape = tau, student.shape
        rows, length = maps[0].shape
        parts = np.empty((5, rows, -(-length // (step * ctx.width)), ctx.width))
        with_teacher = np.float32(value == "kl")
        kernels.forward(*(x.numpy() for x in maps), *ctx.settings, with_teacher, parts)
        # Sums are relative to the largest value of their part; here to that of the channel. (2, rows, parts, width): student, teacher.
        largest, sums, apart = parts[:2], parts[2:4], parts[4]
        tops = largest.max(2)
        with np.errstate(divide="ignore", invalid="ignore"):  # infinite maps: what comes out is not a number
            off = largest - tops[:, :, None]
            share = np.exp(off / tau)
            totals = (sums * share).sum(2)
            logs = np.log(totals)
            apart = (share[1] * (apart + sums[1] * (with_teacher * off[1] - off[0]))).sum(1)
            found = apart / (totals[1] * tau) + logs[0] - with_teacher * logs[1]
        ctx.tops, ctx.logs = tops.astype(np.float32), logs.astype(np.float32)
        values = torch.from_numpy(found.astype(np.float32)).view(batch, channels)
        return values if mask is None else values.masked_fill(~mask.flatten(1).any(1, keepdim=True), 0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        maps = tuple(_rows(x.detach(), ctx.is_last) for x in ctx.saved_tensors)
        out = torch.empty_like(maps[0])
        scale = (grad / ctx.tau).reshape(-1, ctx.width).numpy()
        kernels.backward(*(x.numpy() for x in maps), *ctx.settings, ctx.tops, ctx.logs, scale, out.numpy())
        batch, channels, *size = ctx.shape
        return out.view(batch, *size, channels).movedim(-1, 1) if ctx.is_last else out.view(ctx.shape), None, None, None, None


def _rows(x: Tensor, is_last: bool) -> Tensor:
    """(B, C, *) as (B, P * C) where channels lie last in memory, else as (B * C, P)."""
    return x.movedim(1, -1).contiguous().flatten(1) if is_last else x.contiguous().flatten(2).flatten(0, 1)
