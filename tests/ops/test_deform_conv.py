"""deform_conv2d: both backends against a plain loop, mmcv's numbers, gradients, threads, the export to ONNX, and bad input."""

from __future__ import annotations

import itertools
import math
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from frustum.errors import ConfigError, ShapeError
from frustum.ops.deform_conv import deform_conv2d

BACKENDS = ["torch", "numba"]
CASES = {  # kernel, stride, padding, dilation, groups, offset groups
    "3x3": ((3, 3), 1, 1, 1, 1, 1),
    "groups": ((3, 3), 1, 1, 1, 4, 1),
    "offset groups": ((3, 3), 2, 1, 1, 1, 3),
    "crossing groups": ((3, 2), 2, 0, 2, 4, 3),
    "1x3": ((1, 3), (2, 1), (1, 2), 1, 3, 2),
    "5x5": ((5, 5), 1, 2, 1, 2, 6),
    "1x1": ((1, 1), 2, 0, 1, 1, 1),
}


def _pair(value) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _inputs(case, seed: int = 0, batch: int = 2, size=(7, 9), reach: float = 2.0, dtype=torch.float64):
    """The five tensors, and the keywords of a call; offsets reach beyond the map."""
    kernel, stride, padding, dilation, groups, offset_groups = case
    draw = torch.Generator().manual_seed(seed)
    h, w = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, kernel, *map(_pair, (stride, padding, dilation)), strict=True)
    )
    taps = kernel[0] * kernel[1]
    shapes = [(batch, 12, *size), (24, 12 // groups, *kernel), (batch, 2 * offset_groups * taps, h, w), (batch, offset_groups * taps, h, w)]
    x, weight, offset, mask, bias = (torch.randn(shape, generator=draw, dtype=dtype) for shape in (*shapes, (24,)))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "offset_groups": offset_groups}
    return (x, weight, reach * offset, mask.sigmoid(), bias), options


def _by_hand(x, weight, offset, mask, bias, stride, padding, dilation, groups, offset_groups) -> Tensor:
    x, weight, offset, mask, bias = (t.double().numpy() for t in (x, weight, offset, mask, bias))
    (b, channels, height, width), (o, per_group, kh, kw), (h, w) = x.shape, weight.shape, offset.shape[2:]
    (sy, sx), (py, px), (dy, dx) = map(_pair, (stride, padding, dilation))
    out = np.zeros((b, o, h, w)) + bias[:, None, None]
    for i, y, z, t, c in itertools.product(range(b), range(h), range(w), range(kh * kw), range(channels)):
        k = c // (channels // offset_groups) * kh * kw + t
        v = y * sy - py + t // kw * dy + offset[i, 2 * k, y, z]
        u = z * sx - px + t % kw * dx + offset[i, 2 * k + 1, y, z]
        value = 0.0
        for row, column in itertools.product((math.floor(v), math.floor(v) + 1), (math.floor(u), math.floor(u) + 1)):
            if 0 <= row < height and 0 <= column < width:
                value += (1 - abs(v - row)) * (1 - abs(u - column)) * x[i, c, row, column]
        group, place = divmod(c, per_group)
        filters = slice(group * (o // groups), (group + 1) * (o // groups))
        out[i, filters, y, z] += weight[filters, place, t // kw, t % kw] * value * mask[i, k, y, z]
    return torch.from_numpy(out)


def _gradients(tensors, options, backend) -> list[Tensor]:
    """The result, and the gradients of a sum of it with fixed factors."""
    tensors = [t.detach().requires_grad_() for t in tensors]
    out = deform_conv2d(*tensors, **options, backend=backend)
    factors = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad(out, tensors, factors)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_a_plain_loop(case, backend):
    tensors, options = _inputs(case, size=(5, 6))
    torch.testing.assert_close(deform_conv2d(*tensors, **options, backend=backend), _by_hand(*tensors, **options))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_backends_agree_with_gradients(case):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        tensors, options = _inputs(case, seed=1, dtype=dtype)
        for reference, fast in zip(*(_gradients(tensors, options, backend) for backend in BACKENDS), strict=True):
            torch.testing.assert_close(fast, reference, rtol=tolerance, atol=tolerance)


def test_images_of_several_matrix_products():
    tensors, options = _inputs(CASES["crossing groups"], batch=5, size=(45, 51))  # 21 x 25: two images at a time
    for reference, fast in zip(*(_gradients(tensors, options, backend) for backend in BACKENDS), strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-10, atol=1e-10)


@given(
    seed=st.integers(0, 999), kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)), stride=st.integers(1, 3), padding=st.integers(0, 3),
    dilation=st.integers(1, 2), groups=st.sampled_from([1, 2, 3, 12]), offset_groups=st.sampled_from([1, 4, 6]), reach=st.floats(0, 30),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_backends_agree(seed, kernel, stride, padding, dilation, groups, offset_groups, reach):
    tensors, options = _inputs((kernel, stride, padding, dilation, groups, offset_groups), seed, 1, (8, 9), reach)
    for reference, fast in zip(*(_gradients(tensors, options, backend) for backend in BACKENDS), strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["groups", "crossing groups"])
def test_gradients_are_those_of_small_differences(case, backend):
    (x, weight, offset, mask, bias), options = _inputs(CASES[case], batch=1, size=(5, 5))
    weight, bias = weight[:4], bias[:4]
    tensors = [t.clone().requires_grad_() for t in (x, weight, offset, mask, bias)]
    assert torch.autograd.gradcheck(lambda *t: deform_conv2d(*t, **options, backend=backend), tensors)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_offsets_it_is_a_convolution(backend):
    """Also at whole-numbered places outside, whose offsets get no gradient, as in mmcv."""
    (x, weight, offset, _, bias), options = _inputs(CASES["groups"])
    zero = torch.zeros_like(offset).requires_grad_()
    out = deform_conv2d(x, weight, zero, None, bias, **options, backend=backend)
    torch.testing.assert_close(out, torch.nn.functional.conv2d(x, weight, bias, 1, 1, 1, 4))
    (grad,) = torch.autograd.grad(out.sum(), zero)
    assert (grad[:, :6, 0] == 0).all()  # the upper taps at the upper border
    assert (grad[:, :6, 1:-1, 1:-1] != 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("nowhere", [1e9, -1e30, float("inf"), float("nan")])
def test_places_that_do_not_exist_hold_zeros(backend, nowhere):
    tensors, options = _inputs(CASES["3x3"])
    tensors[2][0, :, 3] = nowhere
    out, *gradients = _gradients(tensors, options, backend)
    torch.testing.assert_close(out[0, :, 3], tensors[4][:, None].expand(-1, out.shape[3]))
    assert out.isfinite().all()
    assert all(g.isfinite().all() for g in gradients)
    assert (gradients[2][0, :, 3] == 0).all()


def gen(name: str, shape: tuple[int, ...], kind: str = "normal") -> Tensor:
    """The inputs of the stored numbers, by their rule."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    return torch.from_numpy(draw.random(shape) if kind == "uniform" else draw.standard_normal(shape)).float()


@pytest.mark.data
@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_of_mmcv(shared, backend):
    x, weight = gen("dcn.x", (2, 8, 7, 9)), gen("dcn.w", (12, 2, 3, 3))
    offset, mask = gen("dcn.o", (2, 18, 7, 9)) * 2, gen("dcn.m", (2, 9, 7, 9), "uniform")
    with np.load(shared / "golden/3dppe/misc.npz", allow_pickle=False) as stored:
        for name, factors in (("dcn_v1", None), ("dcn_v2", mask)):
            found = deform_conv2d(x, weight, offset, factors, groups=4, backend=backend)
            torch.testing.assert_close(found, torch.from_numpy(stored[name]), rtol=0, atol=1e-5)


def test_the_same_bits_for_any_number_of_threads():
    before, results = torch.get_num_threads(), []
    draw = torch.Generator().manual_seed(0)
    shapes = (2, 64, 16, 44), (48, 16, 3, 3), (2, 18, 16, 44), (2, 9, 16, 44), (48,)
    tensors = [torch.randn(shape, generator=draw) for shape in shapes]
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            results.append(_gradients(tensors, {"groups": 4}, "numba"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_types_and_layouts(backend):
    tensors, options = _inputs(CASES["3x3"], dtype=torch.float32)
    exact = deform_conv2d(*tensors, **options, backend=backend)
    half = deform_conv2d(*(t.bfloat16() for t in tensors), **options, backend=backend)
    assert half.dtype == torch.bfloat16
    x, weight, offset, *rest = tensors
    with torch.autocast("cpu", torch.bfloat16):
        mixed = deform_conv2d(x.bfloat16(), weight, offset, *rest, **options, backend=backend)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, deform_conv2d(x.bfloat16().float(), weight, offset, *rest, **options, backend=backend))
    last = [t.contiguous(memory_format=torch.channels_last) for t in tensors[:4]]
    moved = deform_conv2d(*last, tensors[4], **options, backend=backend)
    torch.testing.assert_close(moved, exact)
    if backend == "numba":
        assert moved.is_contiguous(memory_format=torch.channels_last)
        assert exact.is_contiguous()
    empty = deform_conv2d(x[:0], weight, offset[:0], rest[0][:0], rest[1], **options, backend=backend)
    assert empty.shape == (0, *exact.shape[1:])


def test_only_what_is_asked_for_gets_a_gradient():
    (x, weight, offset, mask, bias), options = _inputs(CASES["3x3"])
    weight.requires_grad_()
    out = deform_conv2d(x, weight, offset, mask, bias, **options)
    (alone,) = torch.autograd.grad(out.sum(), weight)
    x, offset = x.requires_grad_(), offset.requires_grad_()
    together = torch.autograd.grad(deform_conv2d(x, weight, offset, mask, bias, **options).sum(), weight)
    torch.testing.assert_close(alone, together[0])
    with torch.no_grad():
        assert not deform_conv2d(x, weight, offset, mask, bias, **options).requires_grad


class _Exported(nn.Module):
    def __init__(self, masked: bool):
        super().__init__()
        self.offsets, self.masked = nn.Conv2d(8, 27, 3, 2, 1), masked
        self.weight, self.bias = nn.Parameter(torch.randn(12, 2, 3, 3)), nn.Parameter(torch.randn(12))

    def forward(self, x: Tensor) -> Tensor:
        found = self.offsets(x)
        mask, bias = (found[:, 18:].sigmoid(), self.bias) if self.masked else (None, None)
        return deform_conv2d(x, self.weight, found[:, :18], mask, bias, stride=2, groups=4).relu()


@pytest.mark.parametrize("masked", [False, True])
def test_exports_as_deform_conv(masked):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    model, x = _Exported(masked).eval(), torch.randn(2, 8, 11, 14)
    proto = torch.onnx.export(model, (x,), dynamo=True, opset_version=19, verbose=False).model_proto
    onnx.checker.check_model(proto, full_check=True)
    (node,) = (n for n in proto.graph.node if n.op_type == "DeformConv")
    assert node.domain == ""
    (found,) = ReferenceEvaluator(proto).run(None, {proto.graph.input[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(x).detach(), rtol=1e-5, atol=2e-5)


def test_traces_as_plain_torch():
    model, x = _Exported(True), torch.randn(2, 8, 11, 14)
    traced = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-4)
    tensors, options = _inputs(CASES["groups"])
    assert deform_conv2d(*(t.to("meta") for t in tensors), **options).shape == (2, 24, 7, 9)


def test_bad_input():
    (x, weight, offset, mask, bias), options = _inputs(CASES["groups"])
    with pytest.raises(ShapeError, match=r"offset must have shape \(2, 18, 7, 9\).*\(2, 16, 7, 9\)"):
        deform_conv2d(x, weight, offset[:, :16], mask, bias, **options)
    with pytest.raises(ShapeError, match=r"offset must have shape \(2, 18, 4, 5\)"):
        deform_conv2d(x, weight, offset, mask, bias, stride=2, groups=4)
    with pytest.raises(ShapeError, match=r"mask must have shape \(2, 9, 7, 9\)"):
        deform_conv2d(x, weight, offset, mask[:, :8], bias, **options)
    with pytest.raises(ShapeError, match=r"bias must have shape \(24,\)"):
        deform_conv2d(x, weight, offset, mask, bias[:5], **options)
    with pytest.raises(ShapeError, match=r"whole groups.*groups=3"):
        deform_conv2d(x, weight, offset, mask, bias, groups=3)
    with pytest.raises(ShapeError, match=r"whole groups.*offset_groups=5"):
        deform_conv2d(x, weight, offset, mask, bias, groups=4, offset_groups=5)
    with pytest.raises(ShapeError, match="too small"):
        deform_conv2d(x[:, :, :2], weight, offset, mask, bias, groups=4, padding=0)
    with pytest.raises(ShapeError, match=r"\(B, C, H, W\)"):
        deform_conv2d(x[0], weight, offset, mask, bias, **options)
    with pytest.raises(ConfigError, match="triton"):
        deform_conv2d(x, weight, offset, mask, bias, **options, backend="triton")
    with pytest.raises(ConfigError, match="meta"):
        deform_conv2d(*(t.to("meta") for t in (x, weight, offset, mask, bias)), **options, backend="numba")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu():
    tensors, options = _inputs(CASES["crossing groups"])
    on_gpu = deform_conv2d(*(t.cuda() for t in tensors), **options).cpu()
    torch.testing.assert_close(on_gpu, deform_conv2d(*tensors, **options))
