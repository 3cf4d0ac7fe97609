"""A depthwise convolution in bfloat16 whose gradients are fast on a CPU.

In bfloat16 oneDNN's weight gradient of a depthwise convolution is three times as slow as in float32, and its input gradient forty times
for a stride of two. It has a fast weight gradient for 3x3 kernels only: that of a 5x5 one is put together from four of them.
Backends: `onednn`, which picks the fast kernels, and `torch`, the readable reference.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

DepthwiseBackend = Literal["onednn", "torch"]


def is_cpu_bf16(x: Tensor) -> bool:
    """Whether autocast computes in bfloat16 on the CPU, where `x` lies."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def depthwise_bf16(
    x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, ...], padding: int, backend: DepthwiseBackend = "onednn"
) -> Tensor:
    """Depthwise convolution of numbers rounded to bfloat16, on the CPU.

    Args:
        x: (M, C, H, W).
        weight: (C, 1, k, k).
        bias: (C,).
        stride: of rows and columns.
        padding: rows and columns of zeros on each side.
        backend: see the module.

    Returns:
        (M, C, H', W') bfloat16. Gradients are of the rounded numbers; those of weight and bias are added up in float32.
    """
    if backend == "onednn":
        return _Depthwise.apply(x, weight, bias, stride, padding)
    with torch.autocast("cpu", enabled=False):
        x, weight, bias = (t + (t.bfloat16().float() - t).detach() for t in (x.float(), weight, bias))  # rounded; gradients are not
        return F.conv2d(x, weight, bias, stride, padding, 1, len(weight)).bfloat16()


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, ...], padding: int) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            x, half = x.bfloat16(), weight.bfloat16()
            ctx.save_for_backward(x, half)
            ctx.stride, ctx.padding = stride, padding
            return F.conv2d(x, half, bias.bfloat16(), stride, padding, 1, len(half))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        full, grad_x = grad.float(), None
        if ctx.needs_input_grad[0]:
            g, w = (grad.bfloat16(), weight) if stride[0] == 1 else (full, weight.float())
            grad_x = _depthwise_gradient(g, x.to(g.dtype), w, stride, padding, 0).to(x.dtype)
        return grad_x, _weight_gradient(full, x.float(), weight.float(), stride, padding), full.sum((0, 2, 3)), None, None


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: int) -> Tensor:
    """Gradient (C, 1, k, k) of a depthwise kernel, float32; of a 5x5 one by those of its 3x3 corners, which overlap in the middle."""
    if weight.shape[-2:] != (5, 5):
        return _depthwise_gradient(grad, x, weight, stride, padding, 1)
    x = F.pad(x, [padding] * 4)
    result, corner = torch.empty_like(weight), weight[..., :3, :3]
    rows, columns = ((size - 1) * s + 3 for size, s in zip(grad.shape[-2:], stride, strict=True))
    for i in (0, 2):
        for j in (0, 2):
            window = x[:, :, i : i + rows, j : j + columns].contiguous(memory_format=torch.channels_last)
            result[..., i : i + 3, j : j + 3] = _depthwise_gradient(grad, window, corner, stride, 0, 1)
    return result


def _depthwise_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: int, which: int) -> Tensor:
    """Gradient of a depthwise convolution with respect to x (which = 0) or weight (1)."""
    needed, pads = [which == 0, which == 1, False], [padding] * 2
    return torch.ops.aten.convolution_backward(grad, x, weight, None, stride, pads, [1, 1], False, [0, 0], len(weight), needed)[which]
