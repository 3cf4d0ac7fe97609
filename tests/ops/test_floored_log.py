"""The logarithm that goes on below its floor."""

from __future__ import annotations

import math

import pytest
import torch

from frustum.ops.floored_log import floored_log


def test_it_is_the_logarithm_above_and_its_tangent_below():
    x = torch.tensor([-3.0, 0.05, 0.1, 0.2, 5.0], requires_grad=True)
    found = floored_log(x, 0.1)
    expected = [math.log(0.1) - 31, math.log(0.1) - 0.5, math.log(0.1), math.log(0.2), math.log(5)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    found.sum().backward()
    assert x.grad.tolist() == pytest.approx([10, 10, 10, 5, 0.2], rel=1e-5)
    assert floored_log(x.detach().bfloat16(), 0.1).dtype == torch.float32
