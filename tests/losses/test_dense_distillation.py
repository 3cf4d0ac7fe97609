"""Distillation of maps: numbers of the reference implementations (tests/data/cwd), hand-made cases, invariances, gradients, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.losses.dense_distillation import (
    at_loss,
    cwd_loss,
    dist_loss,
    ifvd_loss,
    kd_loss,
    pair_loss,
    pixel_loss,
    pkd_loss,
    voxel_maps,
)  # fmt: skip
from frustum.losses.label_maps import label_map_loss
from frustum.nn.adapters import Adapter

GOLDEN = Path(__file__).parents[1] / "data" / "cwd" / "golden_cwd.npz"
LABELS = torch.tensor([[[0, 0, 1, 255], [1, 1, 2, 2], [0, 2, 2, 1]]]).expand(2, -1, -1)
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cwd": cwd_loss,
    "kd": kd_loss,
    "pixel": pixel_loss,
    "pair": lambda s, t: pair_loss(s, t, norm_gradient=True),
    "pair, all positions": lambda s, t: pair_loss(s, t, None, norm_gradient=True),
    "at": at_loss,
    "ifvd": lambda s, t: ifvd_loss(s, t, LABELS, 3),
    "pkd": pkd_loss,
    "dist": dist_loss,
}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def maps(channels: int = 5, *size: int) -> tuple[Tensor, Tensor]:
    shape = (2, channels, *(size or (3, 4)))
    return torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)


# ---- the references ---------------------------------------------------------------------------------------------------------------


def _softmaxed(dim: int) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(s: Tensor, t: Tensor) -> Tensor:
        s, t = (x.flatten(2).softmax(dim) for x in (s, t))
        return pixel_loss(s, t, mean_over="channels" if dim == 2 else "positions")

    return loss


TAUS = (0.5, 1, 2, 4, 5, 10)
REFERENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{f"torchdistiller/channel_kl/tau{tau:g}": lambda s, t, tau=tau: cwd_loss(s, t, tau) for tau in TAUS},
    **{f"mmrazor/cwd/tau{tau:g}": lambda s, t, tau=tau: cwd_loss(s, t, tau) for tau in TAUS},
    **{f"torchdistiller/spatial_kl/tau{tau:g}": lambda s, t, tau=tau: kd_loss(s, t, tau) for tau in TAUS},
    **{f"mmrazor/kl_batchmean/tau{tau:g}": lambda s, t, tau=tau: kd_loss(s, t, tau, mean_over="samples") for tau in TAUS},
    "mmrazor/kl_mean/tau1": lambda s, t: kd_loss(s, t, 1, mean_over="elements"),
    "torchdistiller/kd_mean": lambda s, t: kd_loss(s, t, 1, mean_over="elements"),
    "torchdistiller/kd_mean_tau4": lambda s, t: kd_loss(s, t, 4, mean_over="elements", tau_squared=False),
    "skd/pixelwise": lambda s, t: kd_loss(s, t, 1, mean_over="map", value="ce"),
    "torchdistiller/channel_mse": _softmaxed(2),
    "torchdistiller/spatial_mse": _softmaxed(1),
    "torchdistiller/channel_mean_mse": lambda s, t: pixel_loss(s.mean((2, 3))[..., None], t.mean((2, 3))[..., None], mean_over="channels"),
    # The reference takes the first sample only and divides by all.
    "torchdistiller/none_mse": lambda s, t: pixel_loss(s[:1], t[:1], mean_over="positions") / len(s),
    "skd/pairwise_scale0.5": pair_loss,
    "skd/pairwise_scale0.34": lambda s, t: pair_loss(s, t, 0.34),
    "skd/pairwise_nopool": lambda s, t: pair_loss(s, t, None),
    "mmrazor/at": at_loss,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_values_and_gradients_of_the_references(name: str, golden: dict[str, Tensor]) -> None:
    exact = 1e-5 if "pairwise" in name else 1e-10  # the reference of the pair-wise loss computes in float32
    for dtype, tolerance in ((torch.float64, exact), (torch.float32, 1e-5)):
        student = golden["student"].to(dtype, copy=True).requires_grad_()
        loss = REFERENCES[name](student, golden["teacher"].to(dtype))
        loss.backward()
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(golden[f"{name}/loss"].item(), rel=tolerance)
        grad = golden[f"{name}/grad"]
        assert float((student.grad - grad).abs().max() / grad.abs().max()) < tolerance


def test_ifvd_of_the_reference(golden: dict[str, Tensor]) -> None:
    student = golden["student"].clone().requires_grad_()
    loss = ifvd_loss(student, golden["teacher"], golden["label"], 5)
    loss.backward()
    assert loss.item() == pytest.approx(golden["ifvd/loss"].item(), rel=1e-5)
    torch.testing.assert_close(student.grad, golden["ifvd/grad"], rtol=1e-5, atol=1e-7)


def test_the_supervised_loss_of_the_reference(golden: dict[str, Tensor]) -> None:
    """TorchDistiller's: main and auxiliary logits stretched with aligned corners, ids of 255 left out, the auxiliary with 0.4."""
    main, auxiliary = (golden[name].clone().requires_grad_() for name in ("student", "teacher"))
    loss = label_map_loss(main, golden["label"], True) + 0.4 * label_map_loss(auxiliary, golden["label"], True)
    loss.backward()
    assert loss.item() == pytest.approx(golden["dsn/loss"].item(), rel=1e-6)
    torch.testing.assert_close(main.grad, golden["dsn/grad_main"], rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(auxiliary.grad, golden["dsn/grad_aux"], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("tau", TAUS)
def test_the_cross_entropy_form_has_another_value_and_the_same_gradient(tau: float, golden: dict[str, Tensor]) -> None:
    student = golden["student"].double().requires_grad_()
    loss = cwd_loss(student, golden["teacher"].double(), tau, value="ce")
    loss.backward()
    assert loss.item() == pytest.approx(golden[f"pppppM/cwd/tau{tau:g}/loss"].item(), rel=1e-10)
    torch.testing.assert_close(student.grad, golden[f"torchdistiller/channel_kl/tau{tau:g}/grad"], rtol=1e-10, atol=1e-15)


def test_an_adapter_before_the_loss_as_in_the_reference(golden: dict[str, Tensor]) -> None:
    """mmsegmentation-distiller: a 1x1 convolution with bias; divided by the student's five channels, not the teacher's eight."""
    student, adapter = golden["student"].double().requires_grad_(), Adapter(5, 8).double()
    adapter.linear.load_state_dict({"weight": golden["align_weight"][:, :, 0, 0], "bias": golden["align_bias"]})
    loss = cwd_loss(adapter(student), golden["teacher_wide"].double(), tau=1, value="ce", channels=5)
    loss.backward()
    assert loss.item() == pytest.approx(golden["pppppM/align/loss"].item(), rel=1e-10)
    found = {"student": student.grad, "weight": adapter.linear.weight.grad[:, :, None, None], "bias": adapter.linear.bias.grad}
    for name, grad in found.items():
        torch.testing.assert_close(grad, golden[f"pppppM/align/grad_{name}"], rtol=1e-9, atol=1e-12)


def test_large_logits_are_finite(golden: dict[str, Tensor]) -> None:
    assert cwd_loss(100 * golden["student"], 100 * golden["teacher"], 1).item() == pytest.approx(759.6902465820312, rel=1e-5)


# ---- by hand ----------------------------------------------------------------------------------------------------------------------


def test_cwd_by_hand() -> None:
    """Two positions: the teacher 3/4 and 1/4, the student one half each."""
    student, teacher = torch.zeros(1, 1, 2), torch.tensor([[[math.log(3), 0.0]]])
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert cwd_loss(student, teacher, tau=1).item() == pytest.approx(kl, rel=1e-6)
    assert cwd_loss(2 * student, 2 * teacher, tau=2).item() == pytest.approx(4 * kl, rel=1e-6)
    assert cwd_loss(student, teacher, tau=1, channels=2).item() == pytest.approx(kl / 2, rel=1e-6)


def test_kd_by_hand() -> None:
    student, teacher = torch.zeros(1, 2, 3), torch.tensor([math.log(3), 0.0])[None, :, None].expand(1, 2, 3)
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    given = {"positions": kl, "elements": kl / 2, "samples": 3 * kl, "channels": 1.5 * kl, "map": kl}
    for mean_over, expected in given.items():
        assert kd_loss(student, teacher, 1, mean_over=mean_over).item() == pytest.approx(expected, rel=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [None, 0.4])
@pytest.mark.parametrize("channels", [2, 60])
def test_pair_loss_equals_its_affinities(scale: float | None, channels: int) -> None:
    """With few channels no affinity is written down; the result is the same. The numbers of channels may differ."""
    student, teacher = maps(channels, 6, 7)[0], maps(3, 6, 7)[1]
    alike = []
    for x in (student, teacher):
        x = x if scale is None else F.max_pool2d(x, (2, 2), (2, 2), ceil_mode=True)
        x = F.normalize(x.flatten(2), dim=1)
        alike.append(x.mT @ x)
    expected = ((alike[0] - alike[1]) ** 2).mean()
    assert pair_loss(student, teacher, scale).item() == pytest.approx(expected.item(), rel=1e-6)
    assert pair_loss(student.float(), teacher.float(), scale).item() == pytest.approx(expected.item(), rel=1e-5)


def test_ifvd_equals_a_loop() -> None:
    student, teacher = maps()
    expected = 0.0
    for sample in range(2):
        for place in np.ndindex(3, 4):
            kind, cosines = int(LABELS[(sample, *place)]), []
            for x in (student[sample], teacher[sample]):
                at = x[(slice(None), *place)]
                centre = at if kind == 255 else x[:, LABELS[sample] == kind].mean(1)
                cosines.append(F.cosine_similarity(at, centre, dim=0))
            expected += float((cosines[0] - cosines[1]) ** 2) / 24
    assert ifvd_loss(student, teacher, LABELS, 3).item() == pytest.approx(expected, rel=1e-5)
    large = LABELS.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert ifvd_loss(student, teacher, large, 3) == ifvd_loss(student, teacher, LABELS, 3)


def test_correlations() -> None:
    """PKD is near 1 minus the correlation of channels; DIST is 1 minus the correlations of probabilities, of positions and of classes."""
    student, teacher = maps(4, 30, 30)
    rows = [x.transpose(0, 1).flatten(1) for x in (student, teacher)]
    each = [np.corrcoef(a, b)[0, 1] for a, b in zip(*rows, strict=True)]
    assert pkd_loss(student, teacher).item() == pytest.approx(1 - np.mean(each), rel=1e-3)
    p = [(x / 2).softmax(0) for x in rows]
    inter = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p[0].T, p[1].T, strict=True)])
    intra = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*p, strict=True)])
    assert dist_loss(student, teacher, tau=2, intra=0.5).item() == pytest.approx(4 * (1 - inter + 0.5 * (1 - intra)), rel=1e-6)


# ---- what all have in common --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_end_at_the_teacher(name: str) -> None:
    student, teacher = (x.requires_grad_() for x in maps())
    LOSSES[name](student, teacher).backward()
    assert teacher.grad is None
    assert bool(student.grad.abs().sum() > 0)
    assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, teacher), (student,), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_equal_maps_cost_nothing(name: str) -> None:
    student = maps()[0].requires_grad_()
    loss = LOSSES[name](student, student.detach().clone())
    loss.backward()
    assert abs(loss.item()) < 1e-12
    assert float(student.grad.abs().max()) < 1e-7


@pytest.mark.parametrize("name", LOSSES)
def test_short_numbers_are_computed_in_float32(name: str) -> None:
    student, teacher = (x.bfloat16() for x in maps())
    expected = LOSSES[name](student.float(), teacher.float())
    student.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = LOSSES[name](student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert student.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("size", [(6,), (2, 3, 4)], ids=["line", "voxels"])
@pytest.mark.parametrize("name", LOSSES)
def test_any_number_of_dimensions(name: str, size: tuple[int, ...]) -> None:
    """Losses that know nothing of neighbours see positions in a row."""
    student, teacher = maps(5, *size)
    loss, flat_loss = LOSSES[name], LOSSES[name]
    if name == "ifvd":
        labels = torch.randint(0, 3, (2, *size))
        loss, flat_loss = (lambda s, t, at=at: ifvd_loss(s, t, at, 3) for at in (labels, labels.flatten(1)))
    found, flat = loss(student, teacher), flat_loss(student.flatten(2), teacher.flatten(2))
    assert found.isfinite()
    if name != "pair":  # which pools over neighbours
        assert found.item() == pytest.approx(flat.item(), rel=1e-10)


def test_cwd_sees_shapes_not_levels() -> None:
    student, teacher = maps(5, 8, 9)
    loss = cwd_loss(student, teacher)
    assert cwd_loss(student + torch.randn(2, 5, 1, 1), teacher + torch.randn(2, 5, 1, 1)).item() == pytest.approx(loss.item(), rel=1e-9)
    tiled = [x.repeat(1, 1, 2, 3) for x in (student, teacher)]
    assert cwd_loss(*tiled).item() == pytest.approx(loss.item(), rel=1e-9)
    apart = (teacher - student).flatten(2)
    assert cwd_loss(student, teacher, 1e4).item() == pytest.approx(0.5 * apart.var(2, unbiased=False).mean().item(), rel=1e-3)


def test_a_mask_is_as_if_the_rest_were_not_there() -> None:
    student, teacher = (x.requires_grad_() for x in maps(3, 4, 5))
    mask = torch.rand(2, 4, 5) < 0.4
    mask[:, 0] = torch.tensor([True, False, True, True, False])
    for loss in (cwd_loss, lambda s, t, mask=None: kd_loss(s, t, 2, mask), lambda s, t, mask=None: pixel_loss(s, t, mask)):
        found = [loss(student[b : b + 1], teacher[b : b + 1], mask=mask[b : b + 1]) for b in range(2)]
        cut = [loss(student[b][:, mask[b]][None], teacher[b][:, mask[b]][None]) for b in range(2)]
        torch.testing.assert_close(found, cut, rtol=1e-10, atol=0)
    grad = torch.autograd.grad(cwd_loss(student, teacher, mask=mask), student)[0]
    assert not grad[:, :, ~mask[0]][0].any()
    assert float(grad.flatten(2).sum(2).abs().max()) < 1e-12, "both distributions sum to one"
    none = cwd_loss(student, teacher, mask=torch.zeros_like(mask))
    assert none == 0
    assert not torch.autograd.grad(none, student)[0].any()


def test_readings_of_voxels() -> None:
    logits, other = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 3, 4, 5, 6)
    mask = torch.rand(2, 3, 4, 5) < 0.7
    (s, m), (t, _) = (voxel_maps(x, mask) for x in (logits, other))
    assert (s.shape, m.shape) == ((2, 6, 3, 4, 5), (2, 3, 4, 5))
    p, q = (x.masked_fill(~mask[..., None], -torch.inf).flatten(1, 3).softmax(1) for x in (other, logits))
    terms = torch.where(p > 0, p * (p / q).log(), 0)
    assert cwd_loss(s, t, 1, m).item() == pytest.approx((terms.sum() / 12).item(), rel=1e-5)
    (s, m), (t, _) = (voxel_maps(x, mask, "class_height") for x in (logits, other))
    assert (s.shape, m.shape) == ((10, 6, 3, 4), (10, 3, 4))
    assert torch.equal(s[7, 2], logits[1, :, :, 2, 2])
    assert torch.equal(m[7], mask[1, :, :, 2])


# ---- bad input ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((2, 5, 3, 4), (2, 5, 6, 8)), "to_same_size"),
        (((2, 5, 3, 4), (1, 5, 3, 4)), "the same samples"),
        (((2, 5), (2, 5)), "one to three spatial dimensions"),
        (((2, 5, 3, 4), (2, 5, 12)), "two maps"),
        (((2, 5, 0, 4), (2, 5, 0, 4)), "none empty"),
    ],
)
def test_maps_must_fit(name: str, shapes: tuple[tuple[int, ...], ...], words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        LOSSES[name](*map(torch.zeros, shapes))


@pytest.mark.parametrize("name", ["cwd", "kd", "pixel", "pkd", "dist"])
def test_channels_must_fit_where_they_are_compared(name: str) -> None:
    with pytest.raises(ShapeError, match=r"Adapter\(5, 8\)"):
        LOSSES[name](torch.zeros(2, 5, 3, 4), torch.zeros(2, 8, 3, 4))


def test_settings_must_make_sense() -> None:
    student, teacher = maps()
    wrong = [
        (ConfigError, "tau must be above 0", lambda: cwd_loss(student, teacher, 0)),
        (ConfigError, "tau above 0", lambda: kd_loss(student, teacher, -1)),
        (ConfigError, "tau must be above 0", lambda: dist_loss(student, teacher, 0)),
        (ConfigError, "'kl' or 'ce'", lambda: cwd_loss(student, teacher, value="js")),
        (ConfigError, "'kl' or 'ce'", lambda: kd_loss(student, teacher, value="js")),
        (ConfigError, "mean_over must be one of positions", lambda: pixel_loss(student, teacher, mean_over="all")),
        (ConfigError, "scale of pair_loss", lambda: pair_loss(student, teacher, 2.0)),
        (ConfigError, "'class' or 'class_height'", lambda: voxel_maps(torch.zeros(1, 2, 2, 2, 3), None, "height")),
        (ShapeError, "mask of positions", lambda: cwd_loss(student, teacher, mask=torch.ones(2, 4, 3, dtype=torch.bool))),
        (ShapeError, "mask of positions", lambda: kd_loss(student, teacher, mask=torch.ones(2, 3, 4))),
        (ShapeError, "labels of maps", lambda: ifvd_loss(student, teacher, torch.zeros(2, 5, 3, 4), 3)),
        (ShapeError, "at least two", lambda: pkd_loss(student[:1, :, :1, :1], teacher[:1, :, :1, :1])),
        (ShapeError, "at least two classes", lambda: dist_loss(student[:, :1], teacher[:, :1])),
        (ShapeError, r"logits \(B, X, Y, Z, K\)", lambda: voxel_maps(torch.zeros(2, 2, 2, 3))),
    ]
    for error, words, call in wrong:
        with pytest.raises(error, match=words):
            call()
