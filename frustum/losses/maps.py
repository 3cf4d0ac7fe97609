"""Losses of maps seen from above: which cells a class fills, and where the centre of the object is that a cell belongs to (SimpleBEV).

Shape letters: B batch, K classes, Y X cells, M objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.geometry.transforms import without_autocast

_SIGMA = 3.0  # cells
_FAINT = 1e-3  # below which a bump is zero
_EPS = 1e-6


class CentreTargets(NamedTuple):
    """Where the centres of objects are.

    Attributes:
        heat: (B, 1, Y, X) a bump of height 1 at each centre; the highest where they overlap.
        offset: (B, 2, Y, X) from the centre of a cell's object to the cell, to the right and forward, in cells; 0 where no object is.
        is_object: (B, 1, Y, X) bool.
    """

    heat: Tensor
    offset: Tensor
    is_object: Tensor


def centre_targets(instances: Tensor, centres: Sequence[Tensor], doubled: bool = False) -> CentreTargets:
    """Targets from numbered objects.

    Args:
        instances: (B, Y, X) number of the object of each cell, from 1; 0 for none.
        centres: per sample (M, 2) row and column of the centre of each object.
        doubled: offsets twice as large, as SimpleBEV's code makes them, by adding the smallest and the largest of one number.
    """
    rows, columns = (torch.arange(size, device=instances.device, dtype=torch.float32) for size in instances.shape[-2:])
    heats, offsets = [], []
    for numbers, cells in zip(instances, centres, strict=True):
        places = F.pad(cells.float(), (0, 0, 1, 0))  # (M + 1, 2): the first for no object
        squares = (rows[:, None] - places[:, 0]).square().T[:, :, None] + (columns[:, None] - places[:, 1]).square().T[:, None, :]
        bumps = (-squares / (2 * _SIGMA**2)).exp()  # (M + 1, Y, X)
        bumps[0] = 0
        heat = bumps.amax(0)
        heats.append(heat.where(heat >= _FAINT, 0))
        own = places[numbers.long()]  # (Y, X, 2)
        offsets.append(torch.stack([own[..., 0] - rows[:, None], columns - own[..., 1]]))
    is_object = (instances > 0)[:, None]
    offset = torch.stack(offsets) * (2.0 if doubled else 1.0)
    return CentreTargets(torch.stack(heats)[:, None], offset.where(is_object, 0), is_object)


def cell_cross_entropy(logits: Tensor, classes: Tensor, counts: Tensor, positive_weight: float) -> Tensor:
    """Binary cross-entropy, the mean over the cells that count and then over the classes.

    Args:
        logits: (B, K, Y, X).
        classes, counts: (B, K, Y, X) bool.
        positive_weight: of cells that a class fills.
    """
    with without_autocast(logits):
        weight = torch.full((1,), positive_weight, device=logits.device)
        entropy = F.binary_cross_entropy_with_logits(logits.float(), classes.float(), pos_weight=weight, reduction="none")
        return _masked_mean(entropy, counts, (0, 2, 3)).mean()


def centre_loss(predicted: Tensor, target: Tensor, is_labelled: Tensor) -> Tensor:
    """Squared error of the bumps (B, 1, Y, X): half the mean where the target is above 1/2, half where it is below.

    `is_labelled` (B,) is False for samples that teach nothing. Cells of barely visible objects count, as in SimpleBEV.
    """
    error, known = (predicted.float() - target).square(), is_labelled[:, None, None, None]
    return 0.5 * (_masked_mean(error, (target > 0.5) & known) + _masked_mean(error, (target < 0.5) & known))


def offset_loss(predicted: Tensor, targets: CentreTargets, counts: Tensor) -> Tensor:
    """Sum of both absolute errors of the offsets (B, 2, Y, X), the mean over cells of objects that `counts` (B, 1, Y, X) has."""
    error = (predicted.float() - targets.offset).abs().sum(1, keepdim=True)
    return _masked_mean(error, targets.is_object & counts)


def _masked_mean(values: Tensor, mask: Tensor, dims: tuple[int, ...] = (0, 1, 2, 3)) -> Tensor:
    return (values * mask).sum(dims) / (_EPS + mask.sum(dims))
