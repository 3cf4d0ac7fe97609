"""Deformable convolution: a convolution whose taps look where learned offsets send them (Dai et al., 2017; with a mask: Zhu et al., 2019).

    out[o, y, x] = bias[o] + sum over taps t and channels c of weight[o, c, t] * mask[t, y, x] * x[c, place(t, y, x)]
    place(t, y, x) = (y, x) * stride - padding + t * dilation + offset[t, y, x]        (bilinear, zeros outside)

Numbers and layout are those of mmcv's DCNv1 and DCNv2 and of ONNX's DeformConv, which an export gets (opset 19, torch.onnx with
dynamo=True). Backends: `torch`, the readable reference, which gathers four neighbours per tap on any device, and `numba` on the CPU,
a few images at a time, without the intermediates. With numba a result has the same bits for any number of threads.

Shape letters: B batch, C channels, O output channels, H W input, h w output, G' groups of offsets, T taps (kh * kw, row by row).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.geometry.transforms import without_autocast
from frustum.ops import deform_conv_numba

DeformBackend = Literal["auto", "torch", "numba"]
Pair = int | tuple[int, int]
_PIXELS = 1024  # of the output, whose columns are in memory at a time


class _Geometry(NamedTuple):
    """Rows first, then columns."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def output(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """h and w for an input of H x W."""
        return tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )


def deform_conv2d(
    x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None = None, bias: Tensor | None = None, *,
    stride: Pair = 1, padding: Pair = 1, dilation: Pair = 1, groups: int = 1, offset_groups: int = 1, backend: DeformBackend = "auto",
) -> Tensor:  # fmt: skip
    """Convolve at moved places.

    Args:
        x: (B, C, H, W).
        weight: (O, C / groups, kh, kw).
        offset: (B, 2 * G' * T, h, w) in pixels of x: down and right for the first tap of the first group of offsets, then the next tap.
        mask: (B, G' * T, h, w) factor of each tap, or None (DCNv1).
        bias: (O,) or None.
        stride, padding, dilation: of rows and columns, or one number for both.
        groups: of channels that are convolved by themselves.
        offset_groups: G', groups of channels with offsets of their own.
        backend: `auto` takes numba on the CPU and torch elsewhere. Gradients flow to all five tensors in both; where the place of a tap
            is a whole number, which has no gradient, an offset gets that of the next larger place.

    Returns:
        (B, O, h, w) of the type that x and weight promote to. Half precision is computed in float32.

    Raises:
        ShapeError: shapes do not fit together. ConfigError: unknown backend, or numba for tensors that are not on the CPU.
    """
    geometry = _Geometry(tuple(weight.shape[2:]), _pair(stride), _pair(padding), _pair(dilation))  # type: ignore[arg-type]
    _check(x, weight, offset, mask, bias, geometry, groups, offset_groups)
    on_cpu = x.device.type == "cpu"
    if backend not in ("auto", "torch", "numba") or (backend == "numba" and not on_cpu):
        raise ConfigError(f"deform_conv2d has backends auto, torch and (on the CPU) numba, got {backend!r} for {x.device}.")
    dtype = torch.promote_types(x.dtype, weight.dtype)
    exact = torch.promote_types(dtype, torch.float32)
    with without_autocast(x):
        x, weight, offset = x.to(exact), weight.to(exact), offset.to(exact)
        mask, bias = (None if t is None else t.to(exact) for t in (mask, bias))
        traced, exported = torch.compiler.is_compiling(), torch.onnx.is_in_onnx_export()
        if traced and exported and hasattr(torch.onnx, "ops"):  # from torch 2.8 on; else the reference is exported
            return _onnx(x, weight, offset, mask, bias, geometry, groups, offset_groups).to(dtype)
        if backend == "torch" or not on_cpu or traced or exported:
            columns = _columns(x, offset, mask, geometry, offset_groups)  # (B, C, T, h, w)
            columns = columns.view(len(x), groups, weight[0].numel(), math.prod(columns.shape[-2:]))  # (B, groups, C / groups * T, h * w)
            out = (weight.reshape(groups, -1, weight[0].numel()) @ columns).view(len(x), len(weight), *offset.shape[-2:])
        else:
            out = _numba(x, weight, offset, mask, geometry, groups)
        return (out if bias is None else out + bias[:, None, None]).to(dtype)


def _columns(x: Tensor, offset: Tensor, mask: Tensor | None, geometry: _Geometry, offset_groups: int) -> Tensor:
    """The reference: what lies under each tap, times its mask, (B, C, T, h, w)."""
    b, c, height, width = x.shape
    (kh, kw), (h, w) = geometry.kernel, offset.shape[-2:]
    numbers = [torch.arange(n, dtype=x.dtype, device=x.device) for n in (kh, kw, h, w)]
    grid = torch.meshgrid(*numbers, indexing="ij")  # tap down, tap right, row, column
    v, u = (grid[2 + i] * geometry.stride[i] - geometry.padding[i] + grid[i] * geometry.dilation[i] for i in (0, 1))  # (kh, kw, h, w)
    offset = offset.reshape(b, offset_groups, kh * kw, 2, h, w)
    v, u = v.flatten(0, 1) + offset[:, :, :, 0], u.flatten(0, 1) + offset[:, :, :, 1]  # (B, G', T, h, w)
    inside = (v > -1) & (v < height) & (u > -1) & (u < width)  # not where it is NaN
    v, u = torch.where(inside, v, 0), torch.where(inside, u, 0)
    pixels = x.reshape(b, offset_groups, c // offset_groups, height * width)
    total = x.new_zeros(())
    top, left = v.detach().floor(), u.detach().floor()
    for row, weight_y in ((top, 1 - (v - top)), (top + 1, v - top)):
        for column, weight_x in ((left, 1 - (u - left)), (left + 1, u - left)):
            known = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            values = pixels.gather(3, index.flatten(2)[:, :, None].expand(-1, -1, pixels.shape[2], -1))  # (B, G', C / G', T * h * w)
            total = total + values * torch.where(known, weight_y * weight_x, 0).flatten(2)[:, :, None]
    if mask is not None:
        total = total * mask.reshape(b, offset_groups, 1, kh * kw * h * w)
    return total.view(b, c, kh * kw, h, w)


def _onnx(
    x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None,
    geometry: _Geometry, groups: int, offset_groups: int,
) -> Tensor:  # fmt: skip
    """The operator of ONNX, which torch does not have."""
    attributes = {
        "kernel_shape": geometry.kernel, "strides": geometry.stride, "pads": geometry.padding * 2, "dilations": geometry.dilation,
        "group": groups, "offset_group": offset_groups,
    }  # fmt: skip
    shape = (x.shape[0], weight.shape[0], *offset.shape[2:])
    inputs = (x, weight, offset, bias, mask)
    return torch.onnx.ops.symbolic("DeformConv", inputs, attributes, dtype=x.dtype, shape=shape, version=19)  # type: ignore[arg-type]


@torch.compiler.disable
def _numba(x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, geometry: _Geometry, groups: int) -> Tensor:
    if mask is None:
        mask = offset.new_ones(()).expand(len(offset), offset.shape[1] // 2, *offset.shape[2:])
    return _DeformConv.apply(x, weight, offset, mask, geometry, groups)


class _DeformConv(torch.autograd.Function):
    """A few images at a time: their columns, and a matrix product. The columns are made again for the gradients rather than kept."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, geometry: _Geometry, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight, offset, mask)
        ctx.geometry, ctx.groups = geometry, groups
        rows, filters, offset, mask, run = _arranged(x, weight, offset, mask, groups)
        is_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        layout = torch.channels_last if is_last else torch.contiguous_format
        out = torch.empty((len(x), len(weight), *offset.shape[-2:]), dtype=x.dtype, memory_format=layout)
        parts = _few_images(offset)
        space = _space(filters, offset, parts, geometry)
        for some in parts:
            columns = _columns_in(space, filters, offset[some], geometry)
            deform_conv_numba.sample(*_arrays(rows[some], offset[some], mask[some]), sum(geometry, ()), run, columns.numpy())
            products = torch.bmm(filters, columns.flatten(2).transpose(1, 2))  # (groups, O / groups, N * h * w)
            out[some] = products.view(len(weight), -1, *offset.shape[-2:]).transpose(0, 1)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight, offset, mask = ctx.saved_tensors
        geometry, numbers, groups = ctx.geometry, sum(ctx.geometry, ()), ctx.groups
        rows, filters, offset, mask, run = _arranged(x, weight, offset, mask, groups)
        strips = torch.get_num_threads()
        grad_rows, grad_filters = torch.zeros_like(rows), torch.zeros_like(filters)
        grad_offset, grad_mask = torch.empty_like(offset), torch.empty_like(mask)
        parts = _few_images(offset)
        spaces = [_space(filters, offset, parts, geometry) for _ in range(2)]
        for some in parts:
            columns, grad_columns = (_columns_in(space, filters, offset[some], geometry) for space in spaces)
            above = grad[some].transpose(0, 1).reshape(groups, len(weight) // groups, -1)  # (groups, O / groups, N * h * w)
            torch.bmm(above.transpose(1, 2), filters, out=grad_columns.flatten(2))
            places, d = _arrays(offset[some], mask[some]), grad_columns.numpy()
            found = _arrays(columns, grad_offset[some], grad_mask[some])
            deform_conv_numba.differentiate(rows[some].numpy(), *places, d, numbers, run, *found)
            grad_filters.baddbmm_(above, columns.flatten(2))
            if ctx.needs_input_grad[0]:
                deform_conv_numba.scatter(*places, d, numbers, run, strips, grad_rows[some].numpy())
        per_tap = grad_filters.view(len(weight), *geometry.kernel, -1)  # (O, kh, kw, C / groups)
        return grad_rows.permute(0, 3, 1, 2), per_tap.permute(0, 3, 1, 2), grad_offset, grad_mask, None, None


def _arranged(x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """As the kernels read them: x (B, H, W, C), weight (groups, O / groups, T * C / groups), offset, mask, and their `run`."""
    rows = x.detach().permute(0, 2, 3, 1).contiguous()
    filters = weight.detach().permute(0, 2, 3, 1).reshape(groups, len(weight) // groups, -1)
    channels, taps = x.shape[1], weight.shape[2] * weight.shape[3]
    run = math.gcd(channels // groups, channels // (mask.shape[1] // taps))
    return rows, filters, offset.detach().contiguous(), mask.detach().contiguous(), run


def _few_images(offset: Tensor) -> list[slice]:
    """Images that one matrix product takes: its rows should be many, its columns fit into a cache."""
    most = max(1, _PIXELS // math.prod(offset.shape[-2:]))
    count = math.ceil(len(offset) / max(1, math.ceil(len(offset) / most)))  # as many in each
    return [slice(first, first + count) for first in range(0, len(offset), max(1, count))]


def _space(filters: Tensor, offset: Tensor, parts: list[slice], geometry: _Geometry) -> Tensor:
    """Memory for the columns of each part in turn: a new piece for each would be asked from the system again and again."""
    return filters.new_empty(math.prod(_shape_of_columns(filters, offset[parts[0]], geometry)) if parts else 0)


def _columns_in(space: Tensor, filters: Tensor, offset: Tensor, geometry: _Geometry) -> Tensor:
    """(groups, N * h * w, T, C / groups)."""
    shape = _shape_of_columns(filters, offset, geometry)
    return space[: math.prod(shape)].view(shape)


def _shape_of_columns(filters: Tensor, offset: Tensor, geometry: _Geometry) -> tuple[int, int, int, int]:
    pixels, taps = len(offset) * math.prod(offset.shape[-2:]), math.prod(geometry.kernel)
    return len(filters), pixels, taps, filters.shape[2] // taps


def _arrays(*tensors: Tensor) -> tuple:
    return tuple(t.numpy() for t in tensors)


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _check(
    x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None,
    geometry: _Geometry, groups: int, offset_groups: int,
) -> None:  # fmt: skip
    if x.dim() != 4 or weight.dim() != 4:
        raise ShapeError(f"x must be (B, C, H, W) and weight (O, C / groups, kh, kw), got {tuple(x.shape)} and {tuple(weight.shape)}.")
    b, c = x.shape[:2]
    o, taps = weight.shape[0], weight.shape[2] * weight.shape[3]
    if weight.shape[1] * groups != c or o % groups or c % offset_groups:
        given = f"{c} channels, weight {tuple(weight.shape)}, groups={groups}, offset_groups={offset_groups}"
        raise ShapeError(f"weight must be (O, C / groups, kh, kw), with C and O in whole groups, got {given}.")
    size = geometry.output(tuple(x.shape[2:]))
    if min(size) < 1:
        raise ShapeError(f"a map of {tuple(x.shape[2:])} is too small for {geometry}: nothing would come out.")
    needed = [
        ("offset", offset, (b, 2 * offset_groups * taps, *size)),
        ("mask", mask, (b, offset_groups * taps, *size)),
        ("bias", bias, (o,)),
    ]
    for name, tensor, shape in needed:
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ShapeError(f"{name} must have shape {shape} for x {tuple(x.shape)}, got {tuple(tensor.shape)}.")
