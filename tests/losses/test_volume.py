"""Focal, affinity and Lovasz losses against the reference's values and against formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from frustum.errors import ShapeError
from frustum.losses.occupancy import flashocc_class_weights
from frustum.losses.volume import affinity_losses, distance_weight, focal_loss, lovasz_softmax
from tests.models.golden_weights import crafted_occupancy


def test_published_values():
    """`loss_V2` of the golden file, computed by the reference code."""
    logits, labels, _ = crafted_occupancy()
    far = distance_weight((200, 200))[..., None]
    assert 100 * focal_loss(logits, labels, flashocc_class_weights(), far).item() == pytest.approx(45.58704376220703, rel=1e-5)
    semantic, geometric = affinity_losses(logits, labels, free=17)
    assert semantic.item() == pytest.approx(7.041204929351807, rel=1e-5)
    assert geometric.item() == pytest.approx(4.212259292602539, rel=1e-5)
    assert lovasz_softmax(logits, labels).item() == pytest.approx(0.9443756937980652, rel=1e-5)


def test_distance_weight():
    weight = distance_weight((200, 200))
    assert weight.shape == (200, 200)
    assert weight[0, 0] == 2
    assert weight[100, 100] == 1
    assert weight[199, 199].item() == pytest.approx(1.99)
    assert distance_weight((8, 4))[4].tolist() == pytest.approx(
        [1 + 2 / math.hypot(4, 2), 1 + 1 / math.hypot(4, 2), 1, 1 + 1 / math.hypot(4, 2)]
    )


def volume(shape=(3, 4, 2), classes=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, classes, generator=draw, dtype=torch.float64).float(), torch.randint(0, classes, shape, generator=draw)


def test_focal_loss_is_the_textbook_one():
    logits, labels = volume()
    labels[0, 0, 0] = 255
    weight, far = torch.rand(5) + 0.5, torch.rand(3, 4, 1) + 1
    total, count = 0.0, 0
    for i, j, k in torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(2)).tolist():
        if labels[i, j, k] == 255:
            continue
        count += 1
        for c in range(5):
            p = 1 / (1 + math.exp(-logits[i, j, k, c].item()))
            term = -0.25 * (1 - p) ** 2 * math.log(p) if labels[i, j, k] == c else -0.75 * p**2 * math.log(1 - p)
            total += term * weight[c].item() * far[i, j, 0].item()
    assert focal_loss(logits, labels, weight, far).item() == pytest.approx(total / count, rel=1e-5)


def test_affinity_is_minus_log_of_precision_recall_and_specificity():
    logits, labels = volume()
    labels[labels == 2] = 1  # class 2 does not occur
    labels[1, 1, 1] = 255
    known = labels != 255
    p, t = logits.softmax(-1)[known].double(), labels[known]
    found = []
    for c in (0, 1, 3):
        is_c = (t == c).double()
        precision = (p[:, c] * is_c).sum() / p[:, c].sum()
        recall = (p[:, c] * is_c).sum() / is_c.sum()
        specificity = ((1 - p[:, c]) * (1 - is_c)).sum() / (1 - is_c).sum()
        found.append(-(precision * recall * specificity).log())
    semantic, geometric = affinity_losses(logits, labels, free=4)
    assert semantic.item() == pytest.approx(torch.stack(found).mean().item(), rel=1e-4)
    full, is_full = 1 - p[:, 4], (t != 4).double()
    shares = (
        (full * is_full).sum() / full.sum(),
        (full * is_full).sum() / is_full.sum(),
        ((1 - full) * (1 - is_full)).sum() / (1 - is_full).sum(),
    )
    assert geometric.item() == pytest.approx(-sum(s.log() for s in shares).item(), rel=1e-4)


def test_affinity_of_certain_answers():
    """Right and certain costs next to nothing; wrong and certain is finite and still has a gradient."""
    labels = torch.tensor([0, 1, 2, 2])
    right = (F.one_hot(labels, 3) * 40.0).requires_grad_()
    assert all(0 <= loss < 1e-3 for loss in affinity_losses(right, labels, free=2))
    wrong = (F.one_hot(torch.tensor([1, 0, 2, 2]), 3) * 8.0).requires_grad_()
    semantic, _ = affinity_losses(wrong, labels, free=2)
    semantic.backward()
    assert math.isfinite(semantic.item())
    assert wrong.grad.abs().sum() > 0


def test_lovasz_of_hard_answers_is_the_jaccard_loss():
    """At the corners of the cube the extension equals the set function that it extends (Berman et al., property of the extension)."""
    labels, answers = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([0, 1, 1, 1, 2, 2])
    losses = []
    for c in range(3):
        truth, said = labels == c, answers == c
        losses.append(1 - (truth & said).sum() / (truth | said).sum())
    logits = F.one_hot(answers, 4) * 60.0  # class 3 does not occur and does not count
    assert lovasz_softmax(logits, labels).item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-6)


def test_ignored_voxels_count_nowhere():
    logits, labels = volume()
    labels[:, :2] = 255
    rest, known = logits[:, 2:], labels[:, 2:]
    assert focal_loss(logits, labels).item() == pytest.approx(focal_loss(rest, known).item(), rel=1e-6)
    assert lovasz_softmax(logits, labels).item() == pytest.approx(lovasz_softmax(rest, known).item(), rel=1e-6)
    for a, b in zip(affinity_losses(logits, labels, 4), affinity_losses(rest, known, 4), strict=True):
        assert a.item() == pytest.approx(b.item(), rel=1e-6)


def test_nothing_labelled_is_zero_with_a_gradient():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    labels = torch.full((2, 3), 255)
    total = focal_loss(logits, labels) + lovasz_softmax(logits, labels) + affinity_losses(logits, labels, 3)[0]
    total.backward()
    assert math.isfinite(total.item())
    assert not logits.grad.any()


@pytest.mark.parametrize("loss", [focal_loss, lovasz_softmax, lambda a, b: affinity_losses(a, b, 0)])
def test_shapes_are_checked(loss):
    with pytest.raises(ShapeError, match="one more dimension"):
        loss(torch.randn(3, 4, 18), torch.zeros(4, 3))
