"""nearest_centre: both backends against a loop over voxels and centres, ties, batches, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import ConfigError, ShapeError
from frustum.ops import nearest_centre as module
from frustum.ops.nearest_centre import nearest_centre

BACKENDS = ("torch", "numba")


def by_hand(semantics, cells, serves):
    result = np.full(semantics.shape, -1, np.int16)
    for b, x, y, z in np.ndindex(*semantics.shape):
        best = None
        for j in range(serves.shape[1]):
            if serves[b, j] == semantics[b, x, y, z]:
                distance = int(((cells[b, j] - np.array([x, y, z])) ** 2).sum())
                if best is None or distance < best:
                    best, result[b, x, y, z] = distance, j
    return result


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(0, 12))
def test_equals_a_plain_loop(seed, batch, count):
    draw = np.random.default_rng(seed)
    semantics = draw.integers(0, 5, (batch, 6, 5, 3)).astype(np.uint8)
    cells = draw.integers(-3, 9, (batch, count, 3))  # also outside the grid, and often equally near
    serves = draw.integers(-1, 5, (batch, count))
    expected = by_hand(semantics, cells, serves)
    for backend in BACKENDS:
        found = nearest_centre(*(torch.from_numpy(a) for a in (semantics, cells, serves)), backend)
        assert found.dtype == torch.int16
        np.testing.assert_array_equal(found.numpy(), expected, err_msg=backend)


def test_of_equally_near_centres_the_first_wins():
    semantics = torch.full((1, 5, 1, 1), 4, dtype=torch.uint8)
    for order in ([0, 4], [4, 0]):
        cells = torch.tensor([[[x, 0, 0] for x in order]])
        for backend in BACKENDS:
            found = nearest_centre(semantics, cells, torch.tensor([[4, 4]]), backend)[0, :, 0, 0].tolist()
            assert found[2] == 0
            assert found[order[0]] == 0
            assert found[order[1]] == 1


def test_height_counts():
    semantics = torch.full((1, 1, 1, 8), 4, dtype=torch.uint8)
    cells = torch.tensor([[[2, 0, 0], [0, 0, 7]]])
    for backend in BACKENDS:
        assert nearest_centre(semantics, cells, torch.tensor([[4, 4]]), backend)[0, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_class_without_centres_stays_alone():
    semantics = torch.tensor([2, 4, 4, 17], dtype=torch.uint8).view(1, 4, 1, 1)
    for backend in BACKENDS:
        found = nearest_centre(semantics, torch.zeros(1, 2, 3, dtype=torch.long), torch.tensor([[-1, 4]]), backend)
        assert found.flatten().tolist() == [-1, 1, 1, -1]


def test_large_distances_are_cut_into_parts(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    semantics = torch.randint(0, 3, (1, 9, 8, 2), generator=draw, dtype=torch.uint8)
    cells, serves = torch.randint(0, 9, (1, 10, 3), generator=draw), torch.randint(0, 3, (1, 10), generator=draw)
    whole = nearest_centre(semantics, cells, serves, "torch")
    monkeypatch.setattr(module, "_CHUNK", 35)
    assert torch.equal(nearest_centre(semantics, cells, serves, "torch"), whole)


def test_volumes_that_are_not_contiguous():
    semantics = torch.randint(0, 3, (1, 4, 6, 5), dtype=torch.uint8)
    cells, serves = torch.randint(0, 5, (1, 7, 3)), torch.randint(0, 3, (1, 7))
    turned = semantics.transpose(1, 3)
    assert not turned.is_contiguous()
    expected = by_hand(turned.numpy(), cells.numpy(), serves.numpy())
    for backend in BACKENDS:
        np.testing.assert_array_equal(nearest_centre(turned, cells, serves, backend).numpy(), expected)


def test_bad_input():
    semantics, cells = torch.zeros(1, 2, 2, 2, dtype=torch.uint8), torch.zeros(1, 3, 3, dtype=torch.long)
    with pytest.raises(ShapeError, match=r"\(B, Q, 3\)"):
        nearest_centre(semantics, cells, torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"\(B, X, Y, Z\)"):
        nearest_centre(semantics[0], cells, torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ShapeError, match="32767"):
        nearest_centre(semantics, torch.zeros(1, 40000, 3), torch.zeros(1, 40000))
    with pytest.raises(ConfigError, match="numba"):
        nearest_centre(semantics.to("meta"), cells, torch.zeros(1, 3, dtype=torch.long), "numba")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu():
    draw = torch.Generator().manual_seed(0)
    semantics = torch.randint(0, 18, (2, 40, 40, 8), dtype=torch.uint8, generator=draw)
    cells, serves = torch.randint(-3, 45, (2, 30, 3), generator=draw), torch.randint(-1, 11, (2, 30), generator=draw)
    found = nearest_centre(semantics.cuda(), cells.cuda(), serves.cuda())
    assert found.is_cuda
    assert torch.equal(found.cpu(), nearest_centre(semantics, cells, serves))
