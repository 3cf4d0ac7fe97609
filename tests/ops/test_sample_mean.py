"""sample_mean: both backends beside plain loops and beside the published form, gradients, threads, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.ops.sample_mean import SamplePlan, sample_mean

BACKENDS = ["torch", "numba"]
RULES = [False, True]


def make_plan(seed: int = 0, batch: int = 2, cameras: int = 3, cells: int = 70, share: float = 0.6, reach: float = 1.3) -> SamplePlan:
    """Each camera sees a share of the voxels, some at places beyond the border."""
    draw = torch.Generator().manual_seed(seed)
    voxels = [(torch.rand(cells, generator=draw) < share).nonzero()[:, 0] for _ in range(batch * cameras)]
    return SamplePlan.create(voxels, [reach * (2 * torch.rand(len(v), 2, generator=draw) - 1) for v in voxels], batch, cells)


def make_features(plan: SamplePlan, seed: int = 0, channels: int = 5, size=(4, 6), dtype=torch.float64) -> Tensor:
    """A half of them zero, as behind a ReLU."""
    return torch.randn(len(plan.seen), channels, *size, generator=torch.Generator().manual_seed(seed)).relu().to(dtype)


def by_hand(features: np.ndarray, plan: SamplePlan, by_channel: bool) -> np.ndarray:
    images, channels, h, w = features.shape
    total, count = (np.zeros((plan.batch * plan.cells, channels)) for _ in range(2))
    owners = np.repeat(np.arange(images), plan.seen)
    for voxel, place, m in zip(plan.voxels.tolist(), plan.places.double().numpy(), owners, strict=True):
        x, y = ((place + 1) * (w, h) - 1) / 2
        if not by_channel:
            x, y = np.clip(x, 0, w - 1), np.clip(y, 0, h - 1)
        found = np.zeros(channels)
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < h and 0 <= column < w:
                    found += (1 - abs(x - column)) * (1 - abs(y - row)) * features[m, :, row, column]
        total[voxel] += found
        count[voxel] += found != 0 if by_channel else 1
    mean = total / (1e-6 + count if by_channel else np.maximum(count, 1))
    return mean.reshape(plan.batch, plan.cells, channels).transpose(0, 2, 1)


def gradients(features: Tensor, plan: SamplePlan, by_channel: bool, backend: str) -> list[Tensor]:
    """The result, and the gradient of a sum of it with fixed factors."""
    features = features.detach().requires_grad_()
    out = sample_mean(features, plan, by_channel, backend)
    factors = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)).to(out)
    return [out.detach(), *torch.autograd.grad(out, features, factors)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("by_channel", RULES)
def test_equals_plain_loops(by_channel, backend):
    plan = make_plan()
    features = make_features(plan)
    found = sample_mean(features, plan, by_channel, backend).numpy()
    np.testing.assert_allclose(found, by_hand(features.numpy(), plan, by_channel), atol=1e-12)
    assert (found == 0).all(1).any(), "there are voxels that no camera sees"


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_form_over_all_cameras_and_voxels(backend):
    """As SimpleBEV is published: sample everything, hide what is not seen, count what is not zero."""
    plan = make_plan()
    features = make_features(plan)
    places, seen = torch.zeros(6, 70, 2, dtype=torch.float64), torch.zeros(6, 1, 70, dtype=torch.float64)
    for m, (voxels, at) in enumerate(zip(plan.voxels.split(plan.seen), plan.places.split(plan.seen), strict=True)):
        places[m, voxels % 70], seen[m, 0, voxels % 70] = at.double(), 1
    volumes = (F.grid_sample(features, places[:, None], align_corners=False)[:, :, 0] * seen).unflatten(0, (2, 3))  # (B, N, C, V)
    expected = volumes.sum(1) / (1e-6 + (volumes.abs() > 0).sum(1).double())
    torch.testing.assert_close(sample_mean(features, plan, True, backend), expected, rtol=1e-12, atol=1e-12)


@given(
    seed=st.integers(0, 999), batch=st.integers(1, 3), cameras=st.integers(1, 4), cells=st.integers(1, 150),
    share=st.sampled_from([0.0, 0.3, 1.0]), channels=st.integers(1, 70), by_channel=st.booleans(),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_backends_agree_with_gradients(seed, batch, cameras, cells, share, channels, by_channel):
    plan = make_plan(seed, batch, cameras, cells, share)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        features = make_features(plan, seed, channels, dtype=dtype)
        for reference, fast in zip(*(gradients(features, plan, by_channel, backend) for backend in BACKENDS), strict=True):
            scale = float(reference.abs().max()) if reference.numel() else 1.0  # a million where a feature that counts nowhere is zero
            torch.testing.assert_close(fast, reference, rtol=tolerance, atol=tolerance * max(1.0, scale))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("by_channel", RULES)
def test_gradients_are_those_of_small_differences(by_channel, backend):
    plan = make_plan(cameras=2, cells=9)
    features = (make_features(plan, channels=2) + 1).requires_grad_()  # counts change where a feature becomes zero
    assert torch.autograd.gradcheck(lambda x: sample_mean(x, plan, by_channel, backend), features)


@pytest.mark.parametrize("by_channel", RULES)
def test_any_number_of_threads_gives_the_same_bits(by_channel):
    plan = make_plan(cells=500)
    features, threads, found = make_features(plan, channels=70, dtype=torch.float32), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(gradients(features, plan, by_channel, "numba"))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("by_channel", RULES)
def test_many_cameras_see_one_voxel(by_channel):
    plan = SamplePlan.create([torch.zeros(1, dtype=torch.int64)] * 255, [torch.zeros(1, 2)] * 255, 1, 2)
    found = sample_mean(torch.full((255, 1, 2, 2), 3.0), plan, by_channel)
    torch.testing.assert_close(found, torch.tensor([[[3.0, 0.0]]]))
    with pytest.raises(ShapeError, match="at most 255 cameras"):
        SamplePlan.create([torch.zeros(1, dtype=torch.int64)] * 256, [torch.zeros(1, 2)] * 256, 1, 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("by_channel", RULES)
def test_layouts_half_precision_and_no_gradient(by_channel, backend):
    plan = make_plan()
    features = make_features(plan, dtype=torch.float32)
    exact = sample_mean(features, plan, by_channel, backend)
    assert torch.equal(sample_mean(features.contiguous(memory_format=torch.channels_last), plan, by_channel, backend), exact)
    assert torch.equal(sample_mean(features.repeat(1, 2, 1, 1)[:, ::2][:, :0], plan, by_channel, backend), exact[:, :0])
    with torch.autocast("cpu", torch.bfloat16):
        half = features.bfloat16().requires_grad_()
        mixed = sample_mean(half, plan, by_channel, backend)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, sample_mean(half.float(), plan, by_channel, backend))
    assert torch.autograd.grad(mixed.sum(), half)[0].dtype == torch.bfloat16
    with torch.inference_mode():
        assert not sample_mean(half, plan, by_channel, backend).requires_grad


def test_bad_input():
    plan = make_plan()
    features = make_features(plan)
    with pytest.raises(ShapeError, match=r"the plan's 6 images, got \(5, 5, 4, 6\)"):
        sample_mean(features[:5], plan)
    with pytest.raises(ShapeError, match=r"\(M, C, h, w\)"):
        sample_mean(features[0], plan)
    with pytest.raises(ShapeError, match=r"those of 3 and 3 images for B = 2 and 14 voxels"):
        SamplePlan.create([torch.zeros(0, dtype=torch.int64)] * 3, [torch.zeros(0, 2)] * 3, 2, 7)
    with pytest.raises(ConfigError, match="triton"):
        sample_mean(features, plan, backend="triton")
    with pytest.raises(ConfigError, match="meta"):
        sample_mean(features.to("meta"), plan, backend="numba")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("by_channel", RULES)
def test_cuda_equals_the_cpu(by_channel):
    plan = make_plan()
    features = make_features(plan)
    there = SamplePlan(plan.voxels.cuda(), plan.places.cuda(), plan.seen, plan.batch, plan.cells)
    torch.testing.assert_close(sample_mean(features.cuda(), there, by_channel).cpu(), sample_mean(features, plan, by_channel))
