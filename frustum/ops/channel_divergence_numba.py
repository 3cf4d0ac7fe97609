"""Numba kernels of `ops.channel_divergence` for the CPU, compiled on first use and cached on disk.

Shapes: student, teacher and out (R, P * C) float32: R rows of P positions with C channels side by side, the latter 1 where channels lie
apart in memory; mask (B, P) bool with R a multiple of B, or (0, 0) for none. A row is cut into parts, so that several threads share it,
and a part into blocks of a few positions. A block's values stand side by side, each with a sum of its own (a lane), so that the compiler
can vectorise over them.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

from frustum.ops.threads import on_torch_threads

OUTSIDE = float(np.float32(-3e38))  # stands for a position outside the mask: below any logit, and finite
_BLOCK, _PART = 256, 16384  # values of a block, of a part
_FAST = {"contract", "nsz"}  # without re-association, which would undo the two-part logarithm of 2 below


@intrinsic
def _float_of(typingctx, bits):
    """The float32 with these bits (int32)."""
    return types.float32(types.int32), lambda context, builder, signature, given: builder.bitcast(given[0], ir.FloatType())


@njit(cache=True, fastmath=_FAST)
def _exp(x):  # pragma: no cover (compiled)
    """exp of float32 at most about 0, wrong by about one in the last place, 0 below -87.7. The library's is not vectorised."""
    x = np.float32(-88) if x < np.float32(-88) else x  # NaN stays
    power = np.int32(x * np.float32(1.44269504) - np.float32(0.5))
    k = np.float32(power)
    r = x - k * np.float32(0.693359375) + k * np.float32(2.12194440e-4)  # minus k * ln 2
    y = np.float32(1 / 5040)
    y = y * r + np.float32(1 / 720)
    y = y * r + np.float32(1 / 120)
    y = y * r + np.float32(1 / 24)
    y = y * r + np.float32(1 / 6)
    y = y * r + np.float32(0.5)
    y = y * r + np.float32(1)
    y = y * r + np.float32(1)
    return y * _float_of(np.int32((power + np.int32(127)) << np.int32(23)))  # type: ignore[call-arg]


@njit(cache=True)
def _hide(x, mask, channels, out):  # pragma: no cover (compiled)
    """Values x of a few positions in out, OUTSIDE where their mask says so."""
    for j in range(len(mask)):
        for i in range(j * channels, (j + 1) * channels):
            out[i] = x[i] if mask[j] else np.float32(OUTSIDE)


@njit(cache=True)
def _spread_largest(top, channels):  # pragma: no cover (compiled)
    """The largest of each channel among its lanes, in all of them."""
    for g in range(channels, len(top), channels):
        for c in range(channels):
            top[c] = max(top[c], top[g + c])
    for g in range(channels, len(top), channels):
        for c in range(channels):
            top[g + c] = top[c]


def block_and_part(channels: int) -> tuple[int, int]:
    """Positions of a block and of a part, the latter whole blocks."""
    block = max(1, _BLOCK // channels)
    return block, max(1, _PART // (block * channels)) * block


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def forward(student, teacher, mask, block, step, share, with_teacher, parts):  # pragma: no cover (compiled)
    """Fill parts (5, R, parts of a row, C) float64.

    They are the largest value s* of the student and t* of the teacher; sums of q = exp((s - s*) * share) and p = exp((t - t*) * share);
    sums of p * (with_teacher * (t - t*) - (s - s*)).
    """
    rows, count, channels = parts.shape[1:]
    positions, size = student.shape[1] // channels, block * channels
    for job in prange(rows * count):
        r, part = job // count, job % count
        start, end = part * step, min((part + 1) * step, positions)
        sample = r * len(mask) // rows
        work, sums = np.full((4, size), np.float32(OUTSIDE)), np.zeros((3, size), np.float32)
        top_s, top_t, hidden_s, hidden_t = work[0], work[1], work[2], work[3]
        sum_s, sum_t, apart = sums[0], sums[1], sums[2]
        for at in range(start, end, block):
            to = min(at + block, end)
            s, t = student[r, at * channels : to * channels], teacher[r, at * channels : to * channels]
            if len(mask):
                _hide(s, mask[sample, at:to], channels, hidden_s)
                _hide(t, mask[sample, at:to], channels, hidden_t)
                s, t = hidden_s[: len(s)], hidden_t[: len(t)]
            for i in range(len(s)):
                top_s[i] = s[i] if s[i] > top_s[i] else top_s[i]
                top_t[i] = t[i] if t[i] > top_t[i] else top_t[i]
        _spread_largest(top_s, channels)
        _spread_largest(top_t, channels)
        for at in range(start, end, block):  # the values of a part are still in a cache
            to = min(at + block, end)
            s, t = student[r, at * channels : to * channels], teacher[r, at * channels : to * channels]
            if len(mask):
                _hide(s, mask[sample, at:to], channels, hidden_s)
                _hide(t, mask[sample, at:to], channels, hidden_t)
                s, t = hidden_s[: len(s)], hidden_t[: len(t)]
            for i in range(len(s)):
                a, b = s[i] - top_s[i], t[i] - top_t[i]
                p = _exp(b * share)
                sum_s[i] += _exp(a * share)
                sum_t[i] += p
                apart[i] += p * (with_teacher * b - a)
        for c in range(channels):
            parts[0, r, part, c], parts[1, r, part, c] = top_s[c], top_t[c]
            for k in range(3):
                total = 0.0
                for g in range(0, size, channels):
                    total += sums[k, g + c]
                parts[2 + k, r, part, c] = total


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def backward(student, teacher, mask, block, step, share, tops, logs, scale, out):  # pragma: no cover (compiled)
    """out = scale * (q - p), q and p of exp((x - top) * share - log); tops and logs (2, R, C) of student and teacher, scale (R, C)."""
    rows, channels = scale.shape
    positions, size = student.shape[1] // channels, block * channels
    count = (positions + step - 1) // step
    for job in prange(rows * count):
        r, part = job // count, job % count
        start, end = part * step, min((part + 1) * step, positions)
        sample = r * len(mask) // rows
        work = np.empty((7, size), np.float32)
        top_s, top_t, log_s, log_t, factor, hidden_s, hidden_t = work[0], work[1], work[2], work[3], work[4], work[5], work[6]
        for g in range(0, size, channels):
            for c in range(channels):
                top_s[g + c], top_t[g + c], log_s[g + c], log_t[g + c] = tops[0, r, c], tops[1, r, c], logs[0, r, c], logs[1, r, c]
                factor[g + c] = scale[r, c]
        for at in range(start, end, block):
            to = min(at + block, end)
            s, t = student[r, at * channels : to * channels], teacher[r, at * channels : to * channels]
            found = out[r, at * channels : to * channels]
            if len(mask):
                _hide(s, mask[sample, at:to], channels, hidden_s)
                _hide(t, mask[sample, at:to], channels, hidden_t)
                s, t = hidden_s[: len(s)], hidden_t[: len(t)]
            for i in range(len(s)):
                q, p = _exp((s[i] - top_s[i]) * share - log_s[i]), _exp((t[i] - top_t[i]) * share - log_t[i])
                found[i] = factor[i] * (q - p)
