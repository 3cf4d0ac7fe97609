"""cost_volume: both backends against a plain loop, at the borders, and bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import ConfigError, ShapeError
from frustum.ops.cost_volume import cost_volume


def _inputs(seed: int = 0, images: int = 2, channels: int = 8, bins: int = 3, h: int = 5, w: int = 7, reach: float = 1.4):
    draw = torch.Generator().manual_seed(seed)
    current, before = (torch.randn(images, channels, h, w, generator=draw).relu() for _ in range(2))
    return current, before, (2 * torch.rand(images, bins, h, w, 2, generator=draw) - 1) * reach


def _by_hand(current, before, lookup, unseen) -> np.ndarray:
    m, c, h, w = current.shape
    out = np.zeros(lookup.shape[:-1])
    for i, d, y, x in itertools.product(range(m), range(lookup.shape[1]), range(h), range(w)):
        u, v = (lookup[i, d, y, x, 0].item() + 1) / 2 * (w - 1), (lookup[i, d, y, x, 1].item() + 1) / 2 * (h - 1)
        seen = np.zeros(c)
        for row, column in itertools.product((math.floor(v), math.floor(v) + 1), (math.floor(u), math.floor(u) + 1)):
            if 0 <= row < h and 0 <= column < w:
                seen += (1 - abs(v - row)) * (1 - abs(u - column)) * before[i, :, row, column].double().numpy()
        out[i, d, y, x] = np.abs(current[i, :, y, x].double().numpy() - seen).sum() + unseen * (seen[-4] == 0)
    return out


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_equals_a_plain_loop(backend):
    current, before, lookup = _inputs()
    np.testing.assert_allclose(
        cost_volume(current, before, lookup, 5.0, backend).numpy(), _by_hand(current, before, lookup, 5.0), atol=1e-4
    )


@given(
    seed=st.integers(0, 999), images=st.integers(1, 3), channels=st.integers(4, 20), bins=st.integers(1, 4), h=st.integers(2, 6),
    w=st.integers(2, 6), reach=st.floats(0.1, 3),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_backends_agree(seed, images, channels, bins, h, w, reach):
    inputs = _inputs(seed, images, channels, bins, h, w, reach)
    reference, fast = (cost_volume(*inputs, unseen=5.0, backend=name) for name in ("torch", "numba"))
    torch.testing.assert_close(fast, reference, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_what_the_frame_before_did_not_see(backend):
    current, before, lookup = _inputs()
    nowhere = torch.full_like(lookup, -2.0)
    alone = current.abs().sum(1)[:, None].expand(lookup.shape[:-1])
    torch.testing.assert_close(cost_volume(current, before, nowhere, 5.0, backend), alone + 5)
    torch.testing.assert_close(cost_volume(current, before, nowhere, 0.0, backend), alone)
    nan = cost_volume(current, before, torch.full_like(lookup, float("inf")), 5.0, "numba")
    torch.testing.assert_close(nan, alone + 5)


def test_an_image_matches_itself_best():
    current, _, _ = _inputs(h=6, w=9)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 6), torch.linspace(-1, 1, 9), indexing="ij")
    here = torch.stack([columns, rows], -1).expand(2, 6, 9, 2)
    lookup = torch.stack([here + 0.3, here, here - 0.3], 1)
    cost = cost_volume(current, current, lookup, 0.0)
    assert (cost.argmin(1) == 1).all()
    assert cost[:, 1].max() < 1e-4


def test_no_gradient_and_half_precision():
    current, before, lookup = _inputs()
    cost = cost_volume(current.bfloat16().requires_grad_(), before.bfloat16(), lookup)
    assert cost.dtype == torch.float32
    assert not cost.requires_grad


def test_bad_input():
    current, before, lookup = _inputs()
    with pytest.raises(ShapeError, match="one shape"):
        cost_volume(current, before[:1], lookup)
    with pytest.raises(ShapeError, match="C >= 4"):
        cost_volume(current[:, :2], before[:, :2], lookup)
    with pytest.raises(ShapeError, match=r"\(2, D, 5, 7, 2\)"):
        cost_volume(current, before, lookup[:, :, :3])
    with pytest.raises(ConfigError, match="triton"):
        cost_volume(current, before, lookup, backend="triton")
    with pytest.raises(ConfigError, match="meta"):
        cost_volume(*(t.to("meta") for t in (current, before, lookup)), backend="numba")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu_and_itself():
    inputs = _inputs(3, images=2, channels=32, bins=6, h=16, w=44)
    first, second = (cost_volume(*(t.cuda() for t in inputs), 5.0).cpu() for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, cost_volume(*inputs, 5.0), rtol=1e-4, atol=1e-3)
