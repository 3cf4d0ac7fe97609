"""The numba kernels of the channel divergence against the reference in float64: layouts, masks, temperatures, sizes of parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.ops.channel_divergence import channel_divergence


def maps(shape: tuple[int, ...], channels_last: bool) -> list[Tensor]:
    found = [3 * torch.randn(shape) for _ in range(2)]
    return [x.movedim(1, -1).contiguous().movedim(-1, 1) for x in found] if channels_last else found


def both(student: Tensor, teacher: Tensor, *settings) -> tuple[list[Tensor], list[Tensor]]:
    """Values and gradients of the kernels, and of the reference in float64."""
    above, found = torch.randn(student.shape[:2]), []
    for backend, dtype in (("numba", torch.float32), ("torch", torch.float64)):
        x = student.to(dtype).requires_grad_()
        value = channel_divergence(x, teacher.to(dtype), *settings, backend)
        found.append([value.detach().double(), *(g.double() for g in torch.autograd.grad(value, x, above.to(dtype)))])
    return found[0], found[1]


@pytest.mark.parametrize("value", ["kl", "ce"])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["channels apart", "channels last"])
@pytest.mark.parametrize("shape", [(2, 5, 6, 7), (3, 4, 130), (1, 3, 20000), (2, 300, 9, 9)], ids=str)
def test_kernels_equal_the_reference(shape: tuple[int, ...], channels_last: bool, masked: bool, value: str) -> None:
    student, teacher = maps(shape, channels_last)
    mask = torch.rand(shape[0], *shape[2:]) < 0.3 if masked else None
    for tau in (0.5, 4.0):
        fast, exact = both(student, teacher, tau, mask, value)
        torch.testing.assert_close(fast, exact, rtol=1e-5, atol=1e-5 * float(exact[1].abs().max()))


@pytest.mark.parametrize("value", ["kl", "ce"])
def test_the_recomputed_gradient_equals_the_reference(value: str) -> None:
    student, teacher = (x.double() for x in maps((3, 4, 5, 6), False))
    mask = torch.rand(3, 5, 6) < 0.4
    mask[1] = False
    for where in (None, mask):
        found = []
        for backend in ("recompute", "torch"):
            x = student.clone().requires_grad_()
            values = channel_divergence(x, teacher, 2.0, where, value, backend)
            found.append([values.detach(), *torch.autograd.grad(values, x, torch.arange(12.0).double().view(3, 4))])
        torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", ["numba", "recompute", "torch"])
def test_nothing_but_the_maps_is_kept_and_their_change_is_noticed(backend: str) -> None:
    """Bytes that autograd keeps beside both maps; the reference keeps copies, so that it does not care what becomes of the maps."""
    student, teacher = maps((1, 3, 4, 500), False)
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    leaf = student.clone().requires_grad_()
    used = leaf * 1.0
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        channel_divergence(used, teacher, backend=backend)
    own = {x.untyped_storage().data_ptr() for x in (used, teacher)}
    copies = sum(size for place, size in kept.items() if place not in own)
    assert (copies >= student.nbytes) == (backend == "torch")
    for changed in (0, 1):
        pair = [leaf * 1.0, teacher.clone()]
        values = channel_divergence(*pair, backend=backend).sum()
        pair[changed].detach().zero_() if changed else pair[changed].mul_(0)
        if backend == "torch":
            values.backward()
        else:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                values.backward()


def test_samples_outside_the_mask_are_zero() -> None:
    student, teacher = maps((3, 4, 30), False)
    mask = torch.rand(3, 30) < 0.5
    mask[1] = False
    for value in ("kl", "ce"):
        fast, exact = both(student, teacher, 1.0, mask, value)
        for found in (fast, exact):
            assert not found[0][1].any()
            assert not found[1][1].any()
            assert not found[1].movedim(1, -1)[~mask].any()


def test_extremes() -> None:
    """Probabilities that round to zero, a far offset, and what is not a number."""
    student, teacher = (100 * x for x in maps((2, 3, 500), False))
    torch.testing.assert_close(*both(student, teacher, 1.0, None, "kl"), rtol=1e-5, atol=1e-5)
    near = [x / 100 for x in (student, teacher)]
    moved = channel_divergence(near[0] + 1000, near[1] - 1000)
    torch.testing.assert_close(moved, channel_divergence(*near), rtol=1e-3, atol=0)
    near[0][0, 1, 3] = torch.nan
    assert channel_divergence(*near).isnan().tolist() == [[False, True, False], [False, False, False]]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("what", [torch.nan, -torch.inf, torch.inf])
def test_a_channel_without_a_number_is_not_taken_for_one_outside_the_mask(what: float, masked: bool) -> None:
    student, teacher = maps((2, 3, 50), False)
    student[0, 1] = what
    mask = torch.ones(2, 50, dtype=torch.bool) if masked else None
    for backend in ("numba", "recompute", "torch"):
        assert channel_divergence(student, teacher, 4.0, mask, "kl", backend).isnan().tolist() == [[False, True, False], [False] * 3]


def test_layouts_and_threads_do_not_matter() -> None:
    student, teacher = maps((2, 6, 10, 30, 40), False)
    last = student.movedim(1, -1).contiguous().movedim(-1, 1)
    expected = channel_divergence(student, teacher)
    torch.testing.assert_close(channel_divergence(last, teacher), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(channel_divergence(student.mT, teacher.mT), expected, rtol=1e-5, atol=1e-6)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(channel_divergence(student, teacher), expected)
    finally:
        torch.set_num_threads(threads)
    grad = torch.autograd.grad(channel_divergence(last.requires_grad_(), teacher).sum(), last)[0]
    assert grad.stride() == last.stride(), "the gradient lies in memory as the map does"


def test_it_waits_for_nothing_elsewhere() -> None:
    student, teacher = (x.to("meta") for x in maps((2, 3, 4), False))
    assert channel_divergence(student, teacher, mask=torch.ones(2, 4, dtype=torch.bool, device="meta")).shape == (2, 3)


def test_bad_input() -> None:
    student, teacher = maps((2, 3, 4), False)
    with pytest.raises(ShapeError, match="one shape"):
        channel_divergence(student, teacher[:, :2])
    with pytest.raises(ShapeError, match="at least one"):
        channel_divergence(student[:, :, :0], teacher[:, :, :0])
    with pytest.raises(ShapeError, match="mask of positions"):
        channel_divergence(student, teacher, mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ConfigError, match="above 0"):
        channel_divergence(student, teacher, float("nan"))
    with pytest.raises(ConfigError, match="'kl' or 'ce'"):
        channel_divergence(student, teacher, value="js")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not for float64"):
        channel_divergence(student.double(), teacher.double(), backend="numba")
