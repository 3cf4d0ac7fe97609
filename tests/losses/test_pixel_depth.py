"""Losses of the depth of pixels: the reference's values, slow formulas, and what may not happen to the inputs."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ShapeError
from frustum.geometry.depth import DepthBins
from frustum.losses.depth import depth_bce
from frustum.losses.pixel_depth import PixelDepthLoss, distribution_focal_loss, known_depth, pixel_depth_bce, pixel_depth_losses


def gen(name: str, shape: tuple[int, ...], uniform: bool = False) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.random(shape) if uniform else rng.standard_normal(shape)


def tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


@pytest.fixture
def golden(shared: Path) -> dict[str, float]:
    path = shared / "golden" / "3dppe" / "misc.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with np.load(path) as stored:
        return {name: stored[name].item() for name in ("smoothl1", "dfl", "bce_depth")}


def case(depths: int = 16) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Depth, logits, truth (a third unknown, some out of range), mask."""
    truth = torch.rand(2, 6, 9) * 70
    truth[torch.rand(2, 6, 9) < 0.3] = 0
    return torch.rand(2, 6, 9) * 60, torch.randn(2, depths, 6, 9), truth, torch.rand(2, 6, 9) < 0.7


def test_smooth_l1_of_the_reference(golden: dict[str, float]) -> None:
    """In the fixture every depth counts, also those below 1 m; the range is the only thing that is set otherwise."""
    found, true = (tensor(gen(name, (200,), uniform=True) * 60).view(1, 10, 20) for name in ("ls.pred", "ls.tgt"))
    losses = pixel_depth_losses(found, None, true, PixelDepthLoss(first=0))
    assert list(losses) == ["loss_depth"]
    assert losses["loss_depth"].item() == pytest.approx(golden["smoothl1"], rel=1e-6)


def test_distribution_loss_of_the_reference(golden: dict[str, float]) -> None:
    place, logits = tensor(gen("ls.bin", (200,), uniform=True) * 14.999), tensor(gen("ls.logit", (200, 16)))
    assert 0.25 * distribution_focal_loss(logits, place).mean().item() == pytest.approx(golden["dfl"], rel=1e-6)
    truth = 1 + place.view(1, 10, 20) * 60.2 / 15
    losses = pixel_depth_losses(truth, logits.T.reshape(1, 16, 10, 20), truth)
    assert losses["loss_dfl"].item() == pytest.approx(golden["dfl"], rel=1e-5)
    assert losses["loss_depth"] == 0


def test_bce_of_the_reference(golden: dict[str, float]) -> None:
    depths = 1 + torch.arange(64) * (60.2 / 64)
    bins = (gen("ls.bcel", (50,), uniform=True) * 64).astype(int)
    truth = (depths[torch.from_numpy(bins)] + 0.4).view(1, 5, 10)
    mask = torch.from_numpy(gen("ls.bcem", (50,), uniform=True) > 0.4).view(1, 5, 10)
    logits = tensor(gen("ls.bce", (50, 64))).T.reshape(1, 64, 5, 10)
    assert pixel_depth_bce(logits, truth, depths, mask=mask).item() == pytest.approx(golden["bce_depth"], rel=1e-6)


def test_both_losses_by_their_words() -> None:
    depth, logits, truth, mask = case()
    total, focal, count = 0.0, 0.0, 0
    for i in np.ndindex(*truth.shape):
        true = truth[i].item()
        if not (mask[i] and 1 <= true < 61.2):
            continue
        count += 1
        error = abs(depth[i].item() - true)
        total += error**2 * 9 / 2 if error < 1 / 9 else error - 1 / 18
        row = logits[i[0], :, i[1], i[2]]
        chances, place = row.softmax(0).tolist(), (true - 1) / (60.2 / 15)
        left = math.floor(place)
        focal -= (left + 1 - place) * math.log(chances[left]) + (place - left) * math.log(chances[left + 1])
    found = pixel_depth_losses(depth, logits, truth, mask=mask)
    assert 0 < count < mask.sum()
    assert found["loss_depth"].item() == pytest.approx(0.1 * total / count, rel=1e-5)
    assert found["loss_dfl"].item() == pytest.approx(0.25 * focal / count, rel=1e-4)
    heavier = pixel_depth_losses(depth, logits, truth, PixelDepthLoss(depth_weight=1, distribution_weight=0.5), mask)
    assert heavier["loss_depth"].item() == pytest.approx(total / count, rel=1e-5)
    assert heavier["loss_dfl"].item() == pytest.approx(0.5 * focal / count, rel=1e-4)


def test_logarithms_compare_ratios() -> None:
    """Ten percent off cost the same near and far; a depth behind the camera has a finite loss."""
    settings = PixelDepthLoss(depth_weight=1, logarithm=True)

    def loss(found: float, true: float) -> float:
        return float(pixel_depth_losses(torch.full((1, 1, 1), found), None, torch.full((1, 1, 1), true), settings)["loss_depth"])

    near, far = loss(5.5, 5.0), loss(55.0, 50.0)
    assert near == pytest.approx(0.5 * math.log(1.1) ** 2 / settings.beta, rel=1e-4)
    assert far == pytest.approx(near, rel=1e-4)
    depth = torch.tensor([[[-3.0, 0.05, 4.0]]], requires_grad=True)
    pixel_depth_losses(depth, None, torch.full((1, 1, 3), 5.0), settings)["loss_depth"].backward()
    assert (depth.grad < 0).all()  # all learn to be farther
    assert depth.grad.isfinite().all()


def test_the_distribution_is_pulled_to_the_true_depth() -> None:
    """The two bins around the place take all of the mass, so that the mean of the distribution is the place."""
    place = torch.tensor([0.0, 0.25, 7.5, 14.999, 15.0])
    logits = torch.zeros(5, 16, requires_grad=True)
    optimiser = torch.optim.Adam([logits], 0.3)
    for _ in range(400):
        optimiser.zero_grad()
        distribution_focal_loss(logits, place).sum().backward()
        optimiser.step()
    mean = logits.softmax(1) @ torch.arange(16.0)
    torch.testing.assert_close(mean.detach(), place, atol=0.02, rtol=0)


def test_depths_at_the_ends() -> None:
    """The last depth itself does not count; the number before it does, though its place is rounded up to the last bin."""
    before = torch.nextafter(torch.tensor(61.2), torch.tensor(0.0)).item()
    truth = torch.tensor([[[1.0, 0.999, before, 61.2, 61.3, 0.0, -1.0, torch.nan]]])
    known, depth = known_depth(truth, 1, 61.2)
    assert known.tolist() == [[[True, False, True, *[False] * 5]]]
    assert depth[~known].tolist() == [1.0] * 6
    losses = pixel_depth_losses(torch.full_like(truth, 1.0), torch.zeros(1, 16, 1, 8), truth)
    assert losses["loss_dfl"].item() == pytest.approx(0.25 * math.log(16), rel=1e-5)
    assert losses["loss_depth"].item() == pytest.approx(0.1 * (60.2 - 1 / 18) / 2, rel=1e-5)


def test_bce_is_that_of_the_other_networks_on_uniform_bins() -> None:
    """`losses.depth.depth_bce`, written apart, with uniform bins and features of one pixel."""
    _, logits, truth, _ = case(64)
    bins = DepthBins(start=1, stop=61.2, step=60.2 / 64)
    expected = 3 * depth_bce(logits.sigmoid(), truth, bins)
    assert pixel_depth_bce(logits, truth, bins.values()).item() == pytest.approx(expected.item(), rel=1e-5)


def test_bce_of_growing_bins() -> None:
    """LID: each bin holds the depths from its own to the next."""
    i = torch.arange(64)
    depths = 1 + 60.2 / (64 * 65) * i * (i + 1)
    _, logits, truth, mask = case(64)
    total, count = 0.0, 0
    for place in np.ndindex(*truth.shape):
        if mask[place] and 1 <= truth[place] < 61.2:
            own = sum(d <= truth[place].item() for d in depths.tolist()) - 1
            row = logits[place[0], :, place[1], place[2]]
            total += F.binary_cross_entropy_with_logits(row, F.one_hot(torch.tensor(own), 64).float(), reduction="sum").item()
            count += 1
    found = pixel_depth_bce(logits, truth, depths, mask=mask, weight=2)
    assert found.item() == pytest.approx(2 * total / count, rel=1e-5)


def test_nothing_is_written_into_the_inputs() -> None:
    given = case()
    kept = [t.clone() for t in given]
    depth, logits, truth, mask = given
    pixel_depth_losses(depth, logits, truth, mask=mask)
    pixel_depth_bce(logits, truth, torch.linspace(1, 61.2, 16), mask=mask)
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))


def test_no_true_depth_gives_zero_and_a_gradient() -> None:
    depth, logits, truth, _ = case()
    depth.requires_grad_(), logits.requires_grad_()
    losses = pixel_depth_losses(depth, logits, truth * 0)
    assert [value.item() for value in losses.values()] == [0, 0]
    bce = pixel_depth_bce(logits, truth * 0, torch.linspace(1, 61.2, 16))
    (sum(losses.values()) + bce).backward()
    assert not depth.grad.any()
    assert not logits.grad.any()


def test_what_does_not_count_has_no_gradient_though_it_is_infinite() -> None:
    depth, logits, truth, mask = case()
    depth[~mask] = torch.inf
    depth.requires_grad_()
    pixel_depth_losses(depth, logits, truth, mask=mask)["loss_depth"].backward()
    assert depth.grad.isfinite().all()
    assert not depth.grad[~mask].any()


def test_float32_under_autocast() -> None:
    depth, logits, truth, mask = case()
    expected = pixel_depth_losses(depth, logits, truth, mask=mask)
    with torch.autocast("cpu", torch.bfloat16):
        found = pixel_depth_losses(depth, logits, truth, mask=mask)
        bce = pixel_depth_bce(logits, truth, torch.linspace(1, 61.2, 16))
    assert {n: v.item() for n, v in found.items()} == {n: v.item() for n, v in expected.items()}
    low = pixel_depth_losses(depth.bfloat16(), logits.bfloat16(), truth, mask=mask)
    assert all(value.dtype == torch.float32 for value in (*found.values(), bce, *low.values()))


def test_shapes_that_do_not_fit() -> None:
    depth, logits, truth, mask = case()
    with pytest.raises(ShapeError, match=r"truth \(2, 5, 9\)"):
        pixel_depth_losses(depth, logits, truth[:, :5])
    with pytest.raises(ShapeError, match=r"mask \(1, 6, 9\)"):
        pixel_depth_losses(depth, None, truth, mask=mask[:1])
    with pytest.raises(ShapeError, match=r"logits without bins \(2, 6, 8\)"):
        pixel_depth_losses(depth, logits[..., :8], truth)
    with pytest.raises(ShapeError, match="logits of 16 bins, but 64 depths"):
        pixel_depth_bce(logits, truth, torch.linspace(1, 61.2, 64))
