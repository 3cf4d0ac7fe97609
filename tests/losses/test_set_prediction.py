"""Hungarian matching and the losses of set prediction: the reference's numbers, slow formulas, and samples with few and many boxes."""

from __future__ import annotations

import itertools
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from frustum.errors import DataError, ShapeError
from frustum.losses.set_prediction import Matches, SetLoss, TrueCodes, focal_costs, focal_loss, match, pair_costs, set_losses

SETTINGS = SetLoss()


def gen(name: str, shape: tuple[int, ...], uniform: bool = False) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.random(shape) if uniform else rng.standard_normal(shape)


@pytest.fixture
def golden(shared: Path) -> dict[str, np.ndarray]:
    path = shared / "golden" / "3dppe" / "misc.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files if name.startswith("as_") or name == "focal"}


def code_of(boxes: np.ndarray) -> Tensor:
    """(M, 9) boxes of the fixture: z at the centre, sizes and yaw as stored."""
    x, y, z, first, second, height, yaw = boxes[:, :7].T
    code = [x, y, np.log(first), np.log(second), z, np.log(height), np.sin(yaw), np.cos(yaw), *boxes[:, 7:].T]
    return torch.from_numpy(np.stack(code, 1)).float()


def case(counts: tuple[int, ...], layers: int = 2, queries: int = 20) -> tuple[Tensor, Tensor, TrueCodes]:
    """Random predictions, which require a gradient, and true boxes."""
    codes = [torch.randn(n, 10) * 3 for n in counts]
    truth = TrueCodes.of(codes, [torch.randint(0, 10, (n,)) for n in counts])
    predicted = torch.randn(layers, len(counts), queries, 10) * 3
    return torch.randn(layers, len(counts), queries, 10).requires_grad_(), predicted.requires_grad_(), truth


def cost_of(logits: Tensor, code: Tensor, true: Tensor, label: int) -> float:
    """One pair in plain words."""
    p = 1 / (1 + math.exp(-logits[label].item()))
    focal = -0.25 * (1 - p) ** 2 * math.log(p + 1e-12) + 0.75 * p**2 * math.log(1 - p + 1e-12)
    return 2 * focal + 0.25 * sum(abs(a - b) for a, b in zip(code[:8].tolist(), true[:8].tolist(), strict=True))


def slow_losses(logits: Tensor, codes: Tensor, truth: TrueCodes, pairs: list[tuple[int, int, int]], drop: bool = False) -> list[float]:
    """Both losses of one layer (B, Q, *); pairs of sample, query and box."""
    label = {(sample, query): int(truth.classes[box]) for sample, query, box in pairs}
    count, classes = max(1, len(pairs)), 0.0
    for sample, query, kind in itertools.product(*map(range, logits.shape)):
        p = 1 / (1 + math.exp(-float(logits[sample, query, kind])))
        is_true = label.get((sample, query)) == kind
        classes -= 0.25 * (1 - p) ** 2 * math.log(p) if is_true else 0.75 * p**2 * math.log(1 - p)
    boxes = 0.0
    for sample, query, box in pairs:
        true = truth.codes[box].tolist()
        if drop and not all(map(math.isfinite, true)):
            continue
        for k, value in enumerate(true):
            if math.isfinite(value):
                boxes += (0.2 if k > 7 else 1) * abs(float(codes[sample, query, k]) - value)
    return [2 * classes / count, 0.25 * boxes / count]


def test_the_assignment_of_the_reference(golden: dict[str, np.ndarray]) -> None:
    logits, codes = (torch.from_numpy(golden[name])[None, None] for name in ("as_cls", "as_bbox"))
    truth = TrueCodes.of([code_of(golden["as_gt"])], [torch.from_numpy(golden["as_label"])])
    costs = pair_costs(logits, codes, truth, SETTINGS).view(12, 60).T
    np.testing.assert_allclose(costs, golden["as_cls_cost"] + golden["as_reg_cost"], atol=1e-5)
    classes = focal_costs(logits, SETTINGS)[0, 0][:, truth.classes]
    np.testing.assert_allclose(classes, golden["as_cls_cost"], atol=1e-6)
    boxes = pair_costs(logits, codes, truth, SetLoss(class_weight=0)).view(12, 60).T
    np.testing.assert_allclose(boxes, golden["as_reg_cost"], atol=1e-5)
    matches = match(logits, codes, truth)
    found = np.zeros(60, int)
    found[matches.query[0]] = matches.box[0] + 1
    np.testing.assert_array_equal(found, golden["as_gt_inds"])
    labels = np.where(found > 0, truth.classes.numpy()[found - 1], -1)
    np.testing.assert_array_equal(labels, golden["as_labels"])


def test_the_focal_loss_of_the_reference(golden: dict[str, np.ndarray]) -> None:
    labels = torch.from_numpy((gen("ls.lab", (100,), uniform=True) * 11).astype(int))
    wanted = torch.nn.functional.one_hot(labels, 11)[:, :10].float()
    loss = 2 * focal_loss(torch.from_numpy(gen("ls.cls", (100, 10))).float(), wanted).sum() / (labels < 10).sum()
    assert loss.item() == pytest.approx(golden["focal"].item(), rel=1e-6)


def test_costs_and_the_best_assignment_by_their_words() -> None:
    logits, codes, truth = case((3, 2), layers=2, queries=5)
    costs = pair_costs(logits, codes, truth, SETTINGS)
    matches = match(logits, codes, truth)
    assert matches.sample.tolist() == [0, 0, 0, 1, 1]
    for layer, (sample, first, count) in itertools.product(range(2), ((0, 0, 3), (1, 3, 2))):
        table = np.array(
            [
                [cost_of(logits[layer, sample, q], codes[layer, sample, q], truth.codes[b], int(truth.classes[b])) for q in range(5)]
                for b in range(first, first + count)
            ]
        )
        part = costs[layer, first * 5 : (first + count) * 5].view(count, 5).detach()
        np.testing.assert_allclose(part, table, rtol=1e-4, atol=1e-5)
        best = min(itertools.permutations(range(5), count), key=lambda chosen: sum(table[b, q] for b, q in enumerate(chosen)))
        own = matches.sample == sample
        assert dict(zip((matches.box[layer, own] - first).tolist(), matches.query[layer, own].tolist(), strict=True)) == dict(
            enumerate(best)
        )


@pytest.mark.parametrize("drop", [False, True])
def test_losses_by_their_words(drop: bool) -> None:
    logits, codes, truth = case((3, 4, 0), layers=3, queries=8)
    truth.codes[1, 8:] = torch.nan
    settings = SetLoss(drop_boxes_without_velocity=drop)
    matches = match(logits, codes, truth, settings)
    losses = set_losses(logits, codes, truth, settings)
    assert list(losses) == ["d0.loss_cls", "d0.loss_bbox", "d1.loss_cls", "d1.loss_bbox", "loss_cls", "loss_bbox"]
    for layer, prefix in enumerate(("d0.", "d1.", "")):
        pairs = list(zip(matches.sample.tolist(), matches.query[layer].tolist(), matches.box[layer].tolist(), strict=True))
        expected = slow_losses(logits[layer].detach(), codes[layer].detach(), truth, pairs, drop)
        assert [losses[f"{prefix}loss_{kind}"].item() for kind in ("cls", "bbox")] == pytest.approx(expected, rel=1e-4)


def test_an_unknown_velocity_leaves_out_the_velocity_only() -> None:
    logits, codes, truth = case((1,), layers=1, queries=2)
    truth.codes[0, 8:] = torch.nan
    (ours,) = torch.autograd.grad(set_losses(logits, codes, truth)["loss_bbox"], codes)
    query = match(logits, codes, truth).query.item()
    assert (ours[0, 0, query, :8] != 0).all()
    assert not ours[0, 0, query, 8:].any()
    assert not ours[0, 0, 1 - query].any()
    losses = set_losses(logits, codes, truth, SetLoss(drop_boxes_without_velocity=True))
    assert losses["loss_bbox"] == 0
    assert losses["loss_cls"] == set_losses(logits, codes, truth)["loss_cls"], "the query is trained to name the class in both"


def test_only_velocities_may_be_unknown() -> None:
    logits, codes, truth = case((1,), layers=1, queries=2)
    for number in range(8):
        spoilt = truth.codes.clone()
        spoilt[0, number] = torch.nan
        assert set_losses(logits, codes, truth._replace(codes=spoilt))["loss_bbox"].isnan(), "a wrong value is not hidden"


def test_what_is_not_a_number_costs_100() -> None:
    logits, codes, truth = case((2,), layers=1, queries=4)
    with torch.no_grad():
        codes[0, 0, 0, 0], codes[0, 0, 1, 3], logits[0, 0, 2] = torch.nan, torch.inf, torch.nan
    costs = pair_costs(logits, codes, truth, SETTINGS).view(2, 4)
    assert (costs[:, :3] == 100).all()
    assert costs[:, 3].isfinite().all()
    assert set_losses(logits, codes, truth)["loss_cls"].isnan(), "a wrong value is not hidden"


def test_a_size_of_zero_is_left_out() -> None:
    """Its logarithm is infinite."""
    logits, codes, truth = case((2,), layers=1, queries=4)
    truth.codes[0, 3] = -torch.inf
    losses = set_losses(logits, codes, truth)
    (gradient,) = torch.autograd.grad(losses["loss_bbox"], codes)
    query = match(logits, codes, truth).query[0, 0].item()
    assert losses["loss_bbox"].isfinite()
    assert gradient[0, 0, query, 3] == 0
    assert gradient[0, 0, query, 4] != 0


@pytest.mark.parametrize(("wrong", "kinds"), [(8, 4), (-1, 10)])
def test_a_class_that_the_network_does_not_know(wrong: int, kinds: int) -> None:
    logits, codes, truth = case((2, 1))
    truth.classes[:] = torch.tensor([0, wrong, 3])
    with pytest.raises(DataError, match=rf"class {wrong}, but the network knows {kinds}, 0 to {kinds - 1}"):
        set_losses(logits[..., :kinds], codes, truth)


@pytest.mark.parametrize("counts", [(0,), (0, 0), (0, 3)])
def test_no_boxes_in_a_sample(counts: tuple[int, ...]) -> None:
    logits, codes, truth = case(counts)
    losses = set_losses(logits, codes, truth)
    sum(losses.values()).backward()
    assert all(value.isfinite() and value.shape == () for value in losses.values())
    assert (losses["loss_bbox"] == 0) == (sum(counts) == 0)
    assert (logits.grad != 0).all(), "every query learns that nothing is there"
    assert codes.grad is not None
    assert not codes.grad[:, 0].any()


def test_2000_boxes_in_a_sample() -> None:
    """More boxes than queries: each query answers for one, and the assignment is still the best."""
    logits, codes, truth = case((2000, 1), layers=2, queries=300)
    matches = match(logits, codes, truth)
    assert matches.sample.tolist() == [0] * 300 + [1]
    for layer in range(2):
        assert sorted(matches.query[layer, :300].tolist()) == list(range(300))
        assert len(set(matches.box[layer, :300].tolist())) == 300
        assert matches.box[layer, 300] == 2000
        costs = pair_costs(logits[layer : layer + 1], codes[layer : layer + 1], truth, SETTINGS)[0, : 2000 * 300].view(2000, 300)
        rows = costs.detach()[matches.box[layer, :300][matches.query[layer, :300].argsort()]]  # (300, 300), matched on the diagonal
        own = rows.diagonal()
        assert (rows + rows.T >= own + own[:, None] - 1e-4).all(), "no two boxes gain by changing queries"
        left = torch.ones(2000, dtype=torch.bool).scatter_(0, matches.box[layer, :300], False)
        assert (costs[left] >= own - 1e-4).all(), "no box without a query would suit one better"
    sum(set_losses(logits, codes, truth, matches=matches).values()).backward()
    assert logits.grad.isfinite().all()


def test_a_batch_is_its_samples() -> None:
    """Matching does not mix samples, and the losses are the mean over matches."""
    logits, codes, truth = case((3, 5), layers=2)
    parts = [TrueCodes.of([truth.codes[:3]], [truth.classes[:3]]), TrueCodes.of([truth.codes[3:]], [truth.classes[3:]])]
    alone = [set_losses(logits[:, i : i + 1], codes[:, i : i + 1], parts[i]) for i in (0, 1)]
    for name, value in set_losses(logits, codes, truth).items():
        assert value.item() == pytest.approx((3 * alone[0][name] + 5 * alone[1][name]).item() / 8, rel=1e-5)


def test_float32_under_autocast() -> None:
    logits, codes, truth = case((4, 2))
    expected = set_losses(logits, codes, truth)
    with torch.autocast("cpu", torch.bfloat16):
        found = set_losses(logits, codes, truth)
    assert all(value.dtype == torch.float32 for value in found.values())
    assert {name: value.item() for name, value in found.items()} == {name: value.item() for name, value in expected.items()}
    low = set_losses(logits.bfloat16(), codes.bfloat16(), truth)
    assert all(value.dtype == torch.float32 for value in low.values())


def test_matches_may_be_known() -> None:
    """As those of denoising queries: the k-th query answers for the k-th box, with names of their own."""
    logits, codes, truth = case((3,), layers=2)
    known = Matches(torch.zeros(3, dtype=torch.long), torch.arange(3).expand(2, 3), torch.arange(3).expand(2, 3))
    losses = set_losses(logits, codes, truth, matches=known, prefix="dn_")
    assert list(losses) == ["dn_d0.loss_cls", "dn_d0.loss_bbox", "dn_loss_cls", "dn_loss_bbox"]
    expected = slow_losses(logits[1].detach(), codes[1].detach(), truth, [(0, i, i) for i in range(3)])
    assert [losses["dn_loss_cls"].item(), losses["dn_loss_bbox"].item()] == pytest.approx(expected, rel=1e-4)


def test_weights_are_weights() -> None:
    logits, codes, truth = case((3,), layers=1)
    matches, base = match(logits, codes, truth), SetLoss()
    plain = set_losses(logits, codes, truth, base, matches)
    double = SetLoss(class_weight=4, box_weight=0.5, code_weights=(2, *base.code_weights[1:]))
    found = set_losses(logits, codes, truth, double, matches)
    assert found["loss_cls"].item() == pytest.approx(2 * plain["loss_cls"].item())
    first = (codes[0, 0, matches.query[0], 0] - truth.codes[matches.box[0], 0]).abs().sum() * 0.25 / 3
    assert found["loss_bbox"].item() == pytest.approx(2 * (plain["loss_bbox"] + first).item(), rel=1e-5)


def test_shapes_that_do_not_fit() -> None:
    logits, codes, truth = case((3, 2))
    with pytest.raises(ShapeError, match="1 samples of true boxes"):
        set_losses(logits, codes, truth._replace(counts=(5,)))
    with pytest.raises(ShapeError, match=r"needs logits \(L, B, Q, K\)"):
        match(logits[0], codes[0], truth)
    with pytest.raises(ShapeError, match="10 numbers, true ones 8"):
        set_losses(logits, codes, truth._replace(codes=truth.codes[:, :8]))
    with pytest.raises(ShapeError, match="there are 3 code_weights"):
        set_losses(logits, codes, truth, SetLoss(code_weights=(1, 1, 1)))
    with pytest.raises(ShapeError, match=r"\(2,\) codes and \(1,\) classes"):
        TrueCodes.of([torch.zeros(2, 10)], [torch.zeros(1)])
