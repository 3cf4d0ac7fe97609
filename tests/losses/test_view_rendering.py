"""Losses of rendered points, against formulas by hand and RenderOcc's numbers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from frustum.losses.view_rendering import Points, ViewLoss, distortion, ray_entropy, renderocc_class_weights, silog, view_losses
from frustum.types.classes import IGNORE

K = 4


def points(count: int = 50, **changes) -> Points:
    draw = torch.Generator().manual_seed(0)
    before = torch.rand(count, 2, generator=draw).sort(dim=1).values
    made = {
        "depth": 1 + 20 * torch.rand(count, generator=draw), "classes": torch.randint(0, K, (count,), generator=draw).to(torch.uint8),
        "is_inside": torch.ones(count, dtype=torch.bool), "weight": torch.ones(count), "logits": torch.randn(count, K, generator=draw),
        "rendered_depth": 1 + 20 * torch.rand(count, generator=draw), "alpha": torch.rand(count, generator=draw), "before": before,
    }  # fmt: skip
    return Points(**(made | changes))


def test_silog_is_the_formula():
    p = points()
    d = (p.rendered_depth + 1e-7).log() - p.depth.log()
    expected = ((d**2).mean() - 0.85 * d.mean() ** 2).sqrt()
    torch.testing.assert_close(silog(p.rendered_depth, p.depth, torch.ones(50)), expected)
    half = torch.arange(50) % 2
    torch.testing.assert_close(silog(p.rendered_depth, p.depth, half), silog(p.rendered_depth[1::2], p.depth[1::2], torch.ones(25)))
    scaled = silog(3 * p.depth, p.depth, torch.ones(50), focus=1)
    assert float(scaled) < 1e-3, "a factor is forgiven"
    nothing = torch.zeros(50, requires_grad=True)
    silog(nothing, p.depth, torch.zeros(50)).backward()
    assert nothing.grad.isfinite().all()


def test_published_losses():
    p = points()
    weight = torch.rand(K) + 0.5
    found = view_losses(p, ViewLoss(depth_weight=2, class_weight=3), weight, prefix="x.")
    assert list(found) == ["x.depth", "x.class"]
    torch.testing.assert_close(found["x.depth"], 2 * silog(p.rendered_depth, p.depth, torch.ones(50)))
    torch.testing.assert_close(found["x.class"], 3 * F.cross_entropy(p.logits, p.classes.long(), weight))


def test_what_does_not_count_changes_nothing():
    p = points()
    bad = torch.arange(50) >= 40
    worse = p._replace(
        depth=torch.where(bad, 0, p.depth), classes=p.classes.masked_fill(bad, IGNORE), logits=torch.where(bad[:, None], 99.0, p.logits),
        rendered_depth=torch.where(bad, 0, p.rendered_depth),
    )  # fmt: skip
    first = Points(*(x[:40] for x in p))
    for settings in (ViewLoss(alpha_weight=1), ViewLoss(depth="hit", free_weight=1, normalise=True)):
        for name, value in view_losses(first, settings).items():
            torch.testing.assert_close(view_losses(worse, settings)[name], value)
    empty = view_losses(p._replace(depth=0 * p.depth), ViewLoss(depth="hit", free_weight=1, alpha_weight=1))
    assert all(value == 0 for value in empty.values())


def test_hits_by_hand():
    p = points(3, before=torch.tensor([[0.0, 1.0], [0.2, 0.7], [0.5, 0.5]]), is_inside=torch.tensor([True, True, False]))
    found = view_losses(p, ViewLoss(depth="hit", power=0.5, free_weight=2, class_weight=0))
    assert float(found["depth"]) == pytest.approx((0 + (1 - math.sqrt(0.5)) / 0.5) / 2)
    assert float(found["free"]) == pytest.approx(2 * (0 - math.log(0.8) - math.log(0.5)) / 3, rel=1e-5), "beyond the grid, too"
    per_class = torch.tensor([1.0, 2, 3, 4])
    weighted = view_losses(p, ViewLoss(depth="hit", power=1, class_weight=0), depth_weight=per_class)
    a, b = (float(per_class[int(c)]) for c in p.classes[:2])
    assert float(weighted["depth"]) == pytest.approx(b * 0.5 / (a + b))


def test_a_ray_that_sees_nothing_has_a_gradient():
    before = torch.zeros(3, 2, requires_grad=True)
    view_losses(points(3, before=before), ViewLoss(depth="hit", class_weight=0))["depth"].backward()
    assert (before.grad[:, 1] < 0).all()
    alpha = torch.zeros(3, requires_grad=True)
    view_losses(points(3, alpha=alpha), ViewLoss(alpha_weight=1, class_weight=0))["alpha"].backward()
    assert (alpha.grad < 0).all()


def test_numbers_of_renderocc():
    weights = [
        0.0716, 0.0682, 0.0823, 0.0671, 0.0594, 0.0732, 0.0806, 0.0680, 0.0762, 0.0675, 0.0633, 0.0521, 0.0644, 0.0557, 0.0551, 0.0535,
        0.0533,
    ]  # fmt: skip
    torch.testing.assert_close(renderocc_class_weights(), torch.tensor(weights), atol=6e-5, rtol=0)


def test_entropy_and_distortion_by_hand():
    alpha = torch.tensor([0.5, 0.9])
    expected = (math.log(2) - 0.1 * math.log(0.1) - 0.9 * math.log(0.9)) / 2
    assert float(ray_entropy(alpha)) == pytest.approx(expected)
    rays = torch.tensor([0, 0, 0, 2, 2])
    weights, s = torch.rand(5, dtype=torch.float64), torch.tensor([0.1, 0.4, 0.5, 0.2, 0.9], dtype=torch.float64)
    total = 0.0
    for r in range(3):
        w, place = weights[rays == r], s[rays == r]
        total += float((w[:, None] * w * (place[:, None] - place).abs()).sum() + 0.01 / 3 * (w * w).sum())
    assert float(distortion(weights, s, rays, 3, 0.01)) == pytest.approx(total / 3)
