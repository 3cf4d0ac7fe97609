"""Deformable attention (Zhu et al., 2021): each query reads a feature map at a few places of its own, weighted.

Backends: `torch`, the readable reference, on any device, and `numba` on the CPU, without the (c, Q, S) intermediates. With numba a result
has the same bits for any number of threads.
Shape letters: B batch, Q queries, S places of a query, c channels of a head, h w feature map.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.geometry.transforms import without_autocast
from frustum.ops import deform_attention_numba

AttentionBackend = Literal["auto", "torch", "numba"]


def deform_attention(values: Tensor, places: Tensor, weights: Tensor, backend: AttentionBackend = "auto") -> Tensor:
    """Weighted sums of features at places, bilinearly sampled; beyond the border features are zero.

    Args:
        values: (B, heads, c, h, w).
        places: (B, Q, heads, S, 2) column and row, from 0 to 1 across the map: 0.5 / w is the middle of the first feature.
        weights: (B, Q, heads, S).
        backend: `auto` takes numba on the CPU and torch elsewhere. Gradients flow to all three in both.

    Returns:
        (B, Q, heads * c) of the type that the three promote to, at least float32, in which it is computed.

    Raises:
        ShapeError: the shapes do not fit together. ConfigError: unknown backend, or numba for tensors that are not on the CPU.
    """
    lead = places.shape[:4]
    if places.shape[-1:] != (2,) or weights.shape != lead or values.dim() != 5 or values.shape[:2] != (lead[0], lead[2]):
        raise ShapeError(
            "deformable attention needs values (B, heads, c, h, w), places (B, Q, heads, S, 2) and weights (B, Q, heads, S), got "
            f"{tuple(values.shape)}, {tuple(places.shape)} and {tuple(weights.shape)}."
        )
    on_cpu = values.device.type == "cpu"
    if backend not in ("auto", "torch", "numba") or (backend == "numba" and not on_cpu):
        raise ConfigError(f"deform_attention has backends auto, torch and (on the CPU) numba, got {backend!r} for {values.device}.")
    dtype = torch.promote_types(torch.promote_types(values.dtype, places.dtype), torch.promote_types(weights.dtype, torch.float32))
    with without_autocast(values):
        values, places, weights = values.to(dtype), places.to(dtype), weights.to(dtype)
        if backend == "torch" or not on_cpu or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
            return _torch(values, places, weights)
        return _numba(values, places, weights)


def _torch(values: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    grid = (2 * places - 1).transpose(1, 2).flatten(0, 1)  # (B * heads, Q, S, 2)
    found = F.grid_sample(values.flatten(0, 1), grid, padding_mode="zeros", align_corners=False)  # (B * heads, c, Q, S)
    weighed = (found * weights.transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)  # (B * heads, c, Q)
    return weighed.unflatten(0, values.shape[:2]).flatten(1, 2).mT


@torch.compiler.disable
def _numba(values: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    return _DeformAttention.apply(values, places, weights)


class _DeformAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, places: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(values, places, weights)
        rows, places, weights = _arranged(values, places, weights)
        out = rows.new_empty(*weights.shape[:3], rows.shape[-1])
        deform_attention_numba.forward(*(t.numpy() for t in (rows, places, weights, out)))
        return out.flatten(2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        rows, places, weights = _arranged(*ctx.saved_tensors)
        above = grad.unflatten(2, (rows.shape[3], -1)).contiguous()
        grad_rows, grad_places, grad_weights = torch.zeros_like(rows), torch.empty_like(places), torch.empty_like(weights)
        if ctx.needs_input_grad[0]:
            deform_attention_numba.scatter(*(t.numpy() for t in (places, weights, above, grad_rows)))
        if any(ctx.needs_input_grad[1:]):
            deform_attention_numba.differentiate(*(t.numpy() for t in (rows, places, weights, above, grad_places, grad_weights)))
        return grad_rows.permute(0, 3, 4, 1, 2), grad_places, grad_weights


def _arranged(values: Tensor, places: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As the kernels read them."""
    return values.detach().permute(0, 3, 4, 1, 2).contiguous(), places.detach().contiguous(), weights.detach().contiguous()
