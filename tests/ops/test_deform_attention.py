"""Deformable attention beside a formula that is written out, and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from frustum.errors import ShapeError
from frustum.ops.deform_attention import deform_attention


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


def test_sums_equal_the_formula():
    draw = np.random.default_rng(0)
    values, places, weights = draw.normal(size=(2, 3, 4, 5, 7)), draw.uniform(-0.2, 1.2, (2, 6, 3, 2, 2)), draw.random((2, 6, 3, 2))
    found = deform_attention(*(torch.from_numpy(array).float() for array in (values, places, weights)))
    np.testing.assert_allclose(found.numpy(), by_hand(values, places, weights), atol=1e-5)


def test_gradients_reach_values_places_and_weights():
    arrays = [torch.rand(1, 2, 3, 4, 4), 0.2 + 0.6 * torch.rand(1, 5, 2, 2, 2), torch.rand(1, 5, 2, 2)]
    tensors = [array.requires_grad_() for array in arrays]
    deform_attention(*tensors).square().sum().backward()
    assert all(tensor.grad.any() for tensor in tensors)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match=r"needs values \(B, heads, c, h, w\).* got \(1, 2, 3, 4, 4\), \(1, 5, 3, 2, 2\)"):
        deform_attention(torch.rand(1, 2, 3, 4, 4), torch.rand(1, 5, 3, 2, 2), torch.rand(1, 5, 3, 2))
