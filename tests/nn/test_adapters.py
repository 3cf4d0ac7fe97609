"""Between a student and a teacher of other channels and sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from frustum.errors import ConfigError, ShapeError
from frustum.nn.adapters import Adapter, to_same_size


def test_an_adapter_is_a_1x1_convolution() -> None:
    adapter, x = Adapter(5, 8), torch.randn(2, 5, 3, 4)
    weight, bias = adapter.linear.weight, adapter.linear.bias
    torch.testing.assert_close(adapter(x), F.conv2d(x, weight[:, :, None, None], bias))
    voxels = torch.randn(2, 5, 3, 4, 2)
    torch.testing.assert_close(adapter(voxels), F.conv3d(voxels, weight[:, :, None, None, None], bias))
    assert Adapter(5, 8, bias=False).linear.bias is None


def test_channels_may_lie_last() -> None:
    adapter, tokens = Adapter(5, 8, axis=-1), torch.randn(2, 7, 5)
    torch.testing.assert_close(adapter(tokens), F.linear(tokens, adapter.linear.weight, adapter.linear.bias))


def test_equal_channels_need_nothing() -> None:
    adapter, x = Adapter(5, 5), torch.randn(2, 5, 3)
    assert adapter(x) is x
    assert not adapter.state_dict()


@pytest.mark.parametrize("size", [(6,), (6, 8), (6, 8, 4)])
def test_the_map_that_is_asked_for_is_resized(size: tuple[int, ...]) -> None:
    small, large = torch.full((2, 3, *(s // 2 for s in size)), 0.5, requires_grad=True), torch.randn(2, 4, *size)
    student, teacher = to_same_size(small, large)
    assert teacher is large
    torch.testing.assert_close(student, torch.full((2, 3, *size), 0.5))
    student.sum().backward()
    assert float(small.grad.sum()) == pytest.approx(student.numel())
    student, teacher = to_same_size(small, large, "teacher")
    assert student is small
    corner = large[(slice(None), slice(None), *[slice(0, 2)] * len(size))].flatten(2).mean(2)
    torch.testing.assert_close(teacher[(slice(None), slice(None), *[0] * len(size))], corner)  # the mean of the cells that it stands for
    assert to_same_size(large, large)[0] is large


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="at least one channel"):
        Adapter(0, 4)
    with pytest.raises(ConfigError, match="axis 1 or -1"):
        Adapter(3, 4, axis=2)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="made for 5 channels on axis 1"):
        Adapter(5, 8)(torch.zeros(2, 4, 3, 3))
    with pytest.raises(ShapeError, match="one to three spatial dimensions"):
        to_same_size(torch.zeros(2, 5, 3), torch.zeros(2, 5, 3, 3))
    with pytest.raises(ConfigError, match="'student' or 'teacher'"):
        to_same_size(torch.zeros(2, 5, 3), torch.zeros(2, 5, 6), "both")  # type: ignore[arg-type]
