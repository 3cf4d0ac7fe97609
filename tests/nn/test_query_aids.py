"""Anchors on a grid, and denoising queries: where they begin, which box they answer for, whom they see."""

from __future__ import annotations

import torch

from frustum.losses.set_prediction import SetLoss, TrueCodes, denoising_matches, set_losses
from frustum.nn.query_aids import QueryAids, denoising_mask, grid_anchors, noisy_places

RANGE = (-50.0, -50.0, -5.0, 50.0, 50.0, 3.0)


def test_anchors_cover_the_ground_and_are_denser_in_the_middle():
    anchors = grid_anchors(16, RANGE)
    assert anchors.shape == (16, 3)
    torch.testing.assert_close(anchors[:, 2] * 8 - 5, torch.full((16,), 0.8))
    x = (anchors[::4, 0] * 100 - 50).tolist()
    assert x == sorted(x)
    assert x[2] - x[1] < x[1] - x[0]
    torch.testing.assert_close(anchors.mean(0)[:2], torch.tensor([0.5, 0.5]))
    twelve = grid_anchors(12, RANGE)  # without the corners
    kept = [row for i, row in enumerate(anchors.tolist()) if i not in (0, 3, 12, 15)]
    assert twelve.tolist() == kept


def test_denoising_places_are_near_their_boxes():
    boxes = [torch.tensor([[10.0, -20, 1, 4, 2, 2, 0, 0, 0], [0.0, 5, 0, 4, 2, 2, 0, 0, 0]]), torch.zeros(0, 9)]
    learned = [torch.ones(2, dtype=torch.bool), torch.zeros(0, dtype=torch.bool)]
    aids = QueryAids(denoising=3, denoising_metres=2.0)
    places = noisy_places(boxes, learned, aids, RANGE, torch.device("cpu"))
    assert places.shape == (2, 6, 3)
    metres = places[0] * torch.tensor([100.0, 100, 8]) - torch.tensor([50.0, 50, 5])
    away = (metres - boxes[0][:, :3].repeat(3, 1)).abs()
    assert away[:, :2].max() <= 2.0
    assert away[:, 2].max() <= 0.5 + 1e-5
    assert away.min() > 0
    assert (places[1] == 0).all()
    assert noisy_places(boxes[1:], learned[1:], aids, RANGE, torch.device("cpu")).shape == (1, 0, 3)
    learned[0][1] = False
    fewer = noisy_places(boxes, learned, aids, RANGE, torch.device("cpu"))
    assert not fewer[0, 1::2].any()
    assert fewer[0, ::2].all()


def test_denoising_queries_answer_for_the_boxes_that_they_began_at():
    counts, groups, layers = [2, 0, 3], 2, 4
    learned = [torch.ones(n, dtype=torch.bool) for n in counts]
    matches = denoising_matches(learned, groups, layers, torch.device("cpu"))
    rows = list(zip(matches.sample.tolist(), matches.query[0].tolist(), matches.box[0].tolist(), strict=True))
    assert rows == [
        *[(0, 0, 0), (0, 1, 1), (0, 3, 0), (0, 4, 1)],
        *[(2, 0, 2), (2, 1, 3), (2, 2, 4), (2, 3, 2), (2, 4, 3), (2, 5, 4)],
    ]
    assert matches.box.shape == (4, 10)
    truth = TrueCodes.of([torch.randn(n, 10) for n in counts], [torch.zeros(n, dtype=torch.long) for n in counts])
    codes = torch.zeros(layers, 3, 6, 10)
    codes[:, matches.sample, matches.query[0]] = truth.codes[matches.box[0]]
    losses = set_losses(torch.zeros(layers, 3, 6, 10), codes, truth, SetLoss(), matches, prefix="denoising.")
    assert losses["denoising.loss_bbox"] == 0
    assert losses.keys() >= {"denoising.loss_cls", "denoising.d0.loss_cls"}
    learned[2][1] = False
    fewer = denoising_matches(learned, groups, layers, torch.device("cpu"))
    rows = list(zip(fewer.sample.tolist(), fewer.query[0].tolist(), fewer.box[0].tolist(), strict=True))
    assert rows[4:] == [(2, 0, 2), (2, 2, 4), (2, 3, 2), (2, 5, 4)], "without the second box of the last sample"


def test_groups_see_themselves_only():
    mask = denoising_mask(3, 4, 2, torch.device("cpu"))
    expected = torch.block_diag(torch.ones(3, 3), torch.ones(2, 2), torch.ones(2, 2)).bool()
    assert torch.equal(mask, expected)
