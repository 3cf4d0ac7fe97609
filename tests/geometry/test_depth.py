from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from frustum.geometry.depth import DepthBins


@pytest.mark.parametrize(("step", "count"), [(1.0, 44), (0.5, 88), (0.1, 440)])
def test_uniform_bins(step, count):
    bins = DepthBins(start=1, stop=45, step=step)
    assert bins.count == count == len(bins.values())
    torch.testing.assert_close(bins.values(), torch.arange(1, 45, step)[:count])


def test_sid_bins_are_even_in_log_depth():
    values = DepthBins(start=1, stop=45, step=0.5, spacing="sid").values()
    assert values[0].item() == pytest.approx(1)
    assert values[-1].item() == pytest.approx(44, rel=1e-5)
    steps = values.double().log().diff()
    assert steps.std() < 1e-6
    assert steps.mean().item() == pytest.approx(math.log(44) / 87, rel=1e-5)


@given(depth=st.floats(1.001, 44.99), spacing=st.sampled_from(["uniform", "sid"]))
def test_a_depth_lies_between_its_bin_and_the_next(depth, spacing):
    bins = DepthBins(start=1, stop=45, step=0.5, spacing=spacing)
    index = bins.index(torch.tensor(depth, dtype=torch.float64)).item()
    values = bins.values().tolist()
    if index < 0:
        assert spacing == "sid"
        assert depth > values[-1] - 1e-3
    else:
        assert values[index] <= depth + 1e-4
        assert index + 1 == bins.count or depth <= values[index + 1] + 1e-4


@pytest.mark.parametrize("spacing", ["uniform", "sid"])
def test_outside_and_unknown_have_no_bin(spacing):
    bins = DepthBins(start=1, stop=45, step=1, spacing=spacing)
    assert bins.index(torch.tensor([0.0, 0.5, 48.5, 100.0])).tolist() == [-1, -1, -1, -1]
    assert bins.index(torch.tensor([1.0])).tolist() == [0]


@pytest.mark.parametrize("bad", [{"start": 0}, {"step": 0}, {"stop": 0.5}, {"stop": 1.5, "spacing": "sid"}])
def test_impossible_bins_are_refused(bad):
    with pytest.raises(ValidationError):
        DepthBins(**bad)
