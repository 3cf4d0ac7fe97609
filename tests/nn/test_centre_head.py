"""The centre head and its peaks, against the reference's decoding and against peaks found one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from frustum.geometry import VoxelGrid
from frustum.nn.centre_head import BOXES, CentreHead, CompactCentreHead, decode_centres
from tests.models import golden_panoptic as gold

GRID = VoxelGrid(lower=(-8, -4, -1), upper=(8, 4, 1), cell=(0.5, 0.5, 2))  # 32 x 16


def test_peaks_equal_the_reference():
    stored = np.load(gold.SMALL / "crafted_pano.npz")
    _, outputs = gold.scene()
    centres = decode_centres(outputs, VoxelGrid.occ3d())
    found = centres.scores[0] > 0.3
    assert found.sum() == len(stored["scores"]) == 38
    np.testing.assert_allclose(centres.points[0, found].numpy(), stored["centers"], atol=1e-5)
    np.testing.assert_allclose(centres.scores[0, found].numpy(), stored["scores"], atol=1e-6)
    np.testing.assert_array_equal(centres.classes[0, found].numpy(), stored["labels"])


def random_outputs(batch=2, classes=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shapes = {"heatmap": classes, "reg": 2, "height": 1}
    return {name: torch.randn(batch, c, 16, 32, generator=draw) for name, c in shapes.items()}


def test_peaks_are_local_maxima_of_their_class():
    outputs = random_outputs()
    centres = decode_centres(outputs, GRID, max_centres=10_000)
    for b in range(2):
        expected = []
        heat = outputs["heatmap"][b].sigmoid()
        for k, y, x in np.ndindex(3, 16, 32):
            if heat[k, y, x] >= heat[k, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].max():
                dx, dy = outputs["reg"][b, :, y, x].tolist()
                expected.append((heat[k, y, x].item(), k, -8 + 0.5 * (x + dx), -4 + 0.5 * (y + dy), outputs["height"][b, 0, y, x].item()))
        found = centres.scores[b] > 0
        rows = torch.cat([centres.scores[b, found, None], centres.classes[b, found, None], centres.points[b, found]], 1)
        np.testing.assert_allclose(rows.numpy(), sorted(expected, reverse=True), atol=1e-5)


def test_best_first_and_no_more_than_asked():
    outputs = random_outputs()
    some, all_ = decode_centres(outputs, GRID, max_centres=7), decode_centres(outputs, GRID, max_centres=10_000)
    assert some.scores.shape == (2, 7)
    assert (some.scores.diff() <= 0).all()
    torch.testing.assert_close(some.scores, all_.scores[:, :7])


def test_samples_are_decoded_as_if_alone():
    outputs = random_outputs()
    together = decode_centres(outputs, GRID, max_centres=20)
    for b in range(2):
        alone = decode_centres({name: value[b : b + 1] for name, value in outputs.items()}, GRID, max_centres=20)
        torch.testing.assert_close(together.points[b], alone.points[0])
        assert torch.equal(together.classes[b], alone.classes[0])


def test_names_and_idle_branches():
    """Idle branches are in the state dict under the published names, but they are neither computed nor trained."""
    head = CentreHead(6, 10, channels=8, idle=("dim", "rot", "vel"))
    keys = set(head.state_dict())
    assert {"shared_conv.conv.weight", "shared_conv.bn.running_var", "task_heads.0.vel.0.bn.weight", "task_heads.0.heatmap.1.bias"} <= keys
    assert torch.equal(head.task_heads[0]["heatmap"][1].bias, torch.full((10,), -2.19))
    outputs = head(torch.randn(2, 6, 5, 4))
    assert {name: value.shape[1] for name, value in outputs.items()} == {"reg": 2, "height": 1, "heatmap": 10}
    sum(value.square().sum() for value in outputs.values()).backward()
    for name, parameter in head.named_parameters():
        is_idle = any(f".{idle}." in name for idle in ("dim", "rot", "vel"))
        assert parameter.requires_grad is not is_idle
        assert (parameter.grad is None) is is_idle
    assert not any(".dim." in key for key in CentreHead(6).state_dict())


def test_heat_maps_keep_their_precision_under_autocast():
    """Neighbours that are equal would both be peaks: one object would become two."""
    head = CentreHead(6, 3, channels=8).eval()
    bev = torch.randn(1, 6, 32, 32).cumsum(2).cumsum(3) * 0.05  # smooth
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        heat = head(bev)["heatmap"]
    ties = (heat[..., 1:] == heat[..., :-1]).float().mean()
    rounded = heat.bfloat16()
    assert heat.dtype == torch.float32
    assert ties < 0.25 * (rounded[..., 1:] == rounded[..., :-1]).float().mean()


def test_the_compact_head_answers_as_the_large_one():
    """The same outputs in the same shapes, float32 under autocast too; at the start every place is as unlikely; each part learns."""
    bev = torch.randn(2, 24, 8, 12)
    large, small = CentreHead(24, 10, 16, used=BOXES), CompactCentreHead(24, 10, 16)
    expected = {name: value.shape for name, value in large(bev).items()}
    with torch.autocast("cpu", torch.bfloat16):
        found = small(bev)
    assert {name: value.shape for name, value in found.items()} == expected
    assert all(value.dtype == torch.float32 for value in found.values())
    assert small(bev)["heatmap"].sigmoid().mean().item() == pytest.approx(0.1, abs=0.05)
    for name in BOXES:
        small.zero_grad()
        small(bev)[name].sum().backward()
        branch, other = (small.heat, small.regressed) if name == "heatmap" else (small.regressed, small.heat)
        assert branch[1].weight.grad.any()
        assert other[1].weight.grad is None or not other[1].weight.grad.any()
