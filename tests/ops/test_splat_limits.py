"""How much of the light ends before given depths, at positions of an image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.ops.test_splat import BACKENDS, SIZE, _call, _gradients, _same, _scene


def _limited(scene: list[Tensor], backend: str, limits: Tensor) -> list[Tensor]:
    draw = torch.Generator().manual_seed(2)
    places = torch.rand(2, limits.shape[1], 2, generator=draw, dtype=torch.float64) * torch.tensor(SIZE[::-1])
    return _gradients(scene, backend, points=places.to(limits), limits=limits)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_ends_before_a_limit(backend):
    """It is what is seen of the nearer Gaussians alone."""
    scene = _scene(200)
    limits = torch.tensor([0.0, 2.5, 5, 1e9]).double().expand(2, 40, 4)
    every = _limited(scene, backend, limits)
    before = every[3]
    assert not before[..., 0].any()
    torch.testing.assert_close(before[..., 3], every[2])
    for k in (1, 2):
        draw = torch.Generator().manual_seed(2)
        places = torch.rand(2, 40, 2, generator=draw, dtype=torch.float64) * torch.tensor(SIZE[::-1])
        near = _call(scene, backend, points=places, far=float(limits[0, 0, k]))
        torch.testing.assert_close(before[..., k], near.alpha)


def test_backends_agree_about_limits():
    draw = torch.Generator().manual_seed(4)
    limits = 8 * torch.rand(2, 60, 3, generator=draw, dtype=torch.float64)
    _same(_limited(_scene(300), "numba", limits), _limited(_scene(300), "torch", limits), 1e-11)
