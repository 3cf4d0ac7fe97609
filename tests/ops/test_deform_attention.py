"""Deformable attention: both backends beside a formula that is written out, gradients, threads, and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.ops.deform_attention import deform_attention

BACKENDS = ["torch", "numba"]


def by_hand(values: np.ndarray, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Bilinear in pixels whose middles are at (i + 0.5) / size; what is outside is zero."""
    samples, heads, channels, height, width = values.shape
    queries, spots = places.shape[1], places.shape[3]
    found = np.zeros((samples, queries, heads, channels))
    for b, q, m, s in np.ndindex(samples, queries, heads, spots):
        x, y = places[b, q, m, s] * (width, height) - 0.5
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(x - column)) * (1 - abs(y - row))
                    found[b, q, m] += weights[b, q, m, s] * share * values[b, m, :, row, column]
    return found.reshape(samples, queries, -1)


def inputs(seed: int = 0, dtype=torch.float64, samples: int = 2, queries: int = 6, heads: int = 3, spots: int = 2) -> list[Tensor]:
    """Values, places, some of them beyond the border, and weights."""
    draw = torch.Generator().manual_seed(seed)
    values, places = torch.randn(samples, heads, 4, 5, 7, generator=draw), torch.rand(samples, queries, heads, spots, 2, generator=draw)
    return [t.to(dtype) for t in (values, 1.4 * places - 0.2, torch.rand(samples, queries, heads, spots, generator=draw))]


def gradients(tensors: list[Tensor], backend: str) -> list[Tensor]:
    """The result, and the gradients of a sum of it with fixed factors."""
    tensors = [t.detach().requires_grad_() for t in tensors]
    out = deform_attention(*tensors, backend=backend)
    factors = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)).to(out)
    return [out.detach(), *torch.autograd.grad(out, tensors, factors)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_equal_the_formula(backend):
    tensors = inputs()
    found = deform_attention(*tensors, backend=backend)
    np.testing.assert_allclose(found.numpy(), by_hand(*(t.numpy() for t in tensors)), atol=1e-12)


@given(
    seed=st.integers(0, 999), samples=st.integers(0, 3), queries=st.integers(0, 9), heads=st.integers(1, 4), spots=st.integers(1, 5)
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_backends_agree_with_gradients(seed, samples, queries, heads, spots):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        tensors = inputs(seed, dtype, samples, queries, heads, spots)
        if samples * queries == 0:  # which grid_sample refuses
            assert deform_attention(*tensors).shape == (samples, queries, heads * 4)
            continue
        for reference, fast in zip(*(gradients(tensors, backend) for backend in BACKENDS), strict=True):
            torch.testing.assert_close(fast, reference, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_small_differences(backend):
    tensors = [t.requires_grad_() for t in inputs(1, samples=1, queries=3, heads=2)]
    assert torch.autograd.gradcheck(lambda *t: deform_attention(*t, backend=backend), tensors)


def test_any_number_of_threads_gives_the_same_bits():
    tensors, threads, found = inputs(2, torch.float32, queries=300), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(gradients(tensors, "numba"))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_places_far_away_hold_zeros(backend):
    tensors = inputs()
    tensors[1][0, 3] = -9.0
    out, *found = gradients(tensors, backend)
    assert (out[0, 3] == 0).all()
    assert (found[1][0, 3] == 0).all()
    assert (found[2][0, 3] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_layouts_half_precision_and_what_is_asked_for(backend):
    values, places, weights = inputs(dtype=torch.float32)
    exact = deform_attention(values, places, weights, backend=backend)
    last = values.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    turned = deform_attention(last, places.transpose(1, 2).contiguous().transpose(1, 2), weights.flip(1).flip(1), backend=backend)
    torch.testing.assert_close(turned, exact)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = deform_attention(values.bfloat16().requires_grad_(), places, weights, backend=backend)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, deform_attention(values.bfloat16().float(), places, weights, backend=backend))
    assert mixed.requires_grad
    (alone,) = torch.autograd.grad(deform_attention(values, places, weights.requires_grad_(), backend=backend).sum(), weights)
    (together,) = torch.autograd.grad(deform_attention(values.requires_grad_(), places, weights, backend=backend).sum(), weights)
    assert torch.equal(alone, together)


def test_bad_input():
    with pytest.raises(ShapeError, match=r"needs values \(B, heads, c, h, w\).* got \(1, 2, 3, 4, 4\), \(1, 5, 3, 2, 2\)"):
        deform_attention(torch.rand(1, 2, 3, 4, 4), torch.rand(1, 5, 3, 2, 2), torch.rand(1, 5, 3, 2))
    with pytest.raises(ConfigError, match="triton"):
        deform_attention(*inputs(), backend="triton")
    with pytest.raises(ConfigError, match="meta"):
        deform_attention(*(t.to("meta") for t in inputs()), backend="numba")
    assert deform_attention(*(t.to("meta") for t in inputs())).shape == (2, 6, 12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu():
    on_gpu = deform_attention(*(t.cuda() for t in inputs())).cpu()
    torch.testing.assert_close(on_gpu, deform_attention(*inputs()))
