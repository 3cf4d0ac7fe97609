"""The fast gradients of a depthwise convolution in bfloat16 against the plain form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from frustum.ops.depthwise import depthwise_bf16, is_cpu_bf16


def _run(backend: str, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> list[Tensor]:
    """The result, and the gradients of x, weight and bias."""
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    out = depthwise_bf16(*leaves, (stride, stride), weight.shape[-1] // 2, backend)
    out.backward(torch.linspace(-1, 1, out.numel()).reshape(out.shape).bfloat16())
    return [out.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_the_fast_form_equals_the_plain_one(kernel, stride, dtype):
    x, bias = torch.randn(2, 16, 9, 12, dtype=dtype), torch.randn(16)
    weight = torch.empty(16, 1, kernel, kernel).uniform_(-1 / kernel, 1 / kernel)  # as layers start
    fast, plain = (_run(backend, x, weight, bias, stride) for backend in ("onednn", "torch"))
    assert [t.dtype for t in fast] == [torch.bfloat16, dtype, torch.float32, torch.float32]
    for one, other in zip(fast, plain, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0.01, atol=0.02)
    for one, other in zip(fast[2:], plain[2:], strict=True):  # added up in float32
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_an_input_that_needs_no_gradient_gets_none():
    x, weight, bias = torch.randn(1, 4, 6, 6), torch.randn(4, 1, 3, 3, requires_grad=True), torch.zeros(4, requires_grad=True)
    depthwise_bf16(x, weight, bias, (1, 1), 1).float().sum().backward()
    assert x.grad is None
    assert weight.grad.abs().sum() > 0


def test_when_autocast_computes_in_bf16_on_the_cpu():
    x = torch.zeros(1)
    assert not is_cpu_bf16(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert is_cpu_bf16(x)
        assert not is_cpu_bf16(x.to("meta"))
