"""Detection as set prediction (DETR): one query for each true box by the Hungarian method, and the losses of that assignment.

Costs and losses are those of PETR and 3DPPE (Liu et al., ECCV 2022; Shu et al., ICCV 2023). Boxes are given as codes, see `nn.box_code`.

Shape letters: L decoder layers, B batch, Q queries, K classes, M boxes of a sample, N matches of a layer, the same number in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from frustum.config import Config
from frustum.errors import DataError, ShapeError
from frustum.geometry.transforms import send, without_autocast

_VELOCITY = 8  # where it begins in a code
_WORST = 100.0  # the cost of a pair whose cost is not a number


class SetLoss(Config):
    """Weights of matching and losses; the default is that of the published recipes.

    Attributes:
        class_weight: of the focal loss, and of the cost of a class.
        box_weight: of the L1 loss, and of the L1 cost.
        code_weights: of each number of a code in the L1 loss; the cost has no such weights.
        matched_numbers: how many numbers of a code the L1 cost compares: all but the velocity.
        alpha, gamma: of the focal loss, and of the cost of a class.
        drop_boxes_without_velocity: leave a box whose velocity is unknown out of the L1 loss altogether, as the reference does; otherwise
            only its velocity is left out.
    """

    class_weight: float = 2.0
    box_weight: float = 0.25
    code_weights: tuple[float, ...] = (1, 1, 1, 1, 1, 1, 1, 1, 0.2, 0.2)
    matched_numbers: int = 8
    alpha: float = 0.25
    gamma: float = 2.0
    drop_boxes_without_velocity: bool = False


class TrueCodes(NamedTuple):
    """The true boxes of B samples, one after another.

    Attributes:
        codes: (M1 + ... + MB, 10) float32; NaN where unknown.
        classes: (M1 + ... + MB,) int64.
        counts: M of each sample.
    """

    codes: Tensor
    classes: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, codes: Sequence[Tensor], classes: Sequence[Tensor]) -> TrueCodes:
        """From codes (M, 10) and classes (M,) of each sample. Raises ShapeError where they differ in number."""
        counts, others = tuple(map(len, codes)), tuple(map(len, classes))
        if counts != others:
            raise ShapeError(f"each true box needs a code and a class, but the samples have {counts} codes and {others} classes.")
        return cls(torch.cat(list(codes)).float(), torch.cat(list(classes)).long(), counts)


class Matches(NamedTuple):
    """Which query answers for which true box. Denoising queries, whose boxes are known, make their own.

    Attributes:
        sample: (N,) int64.
        query: (L, N) int64, query of that sample.
        box: (L, N) int64, row of `TrueCodes`.
    """

    sample: Tensor
    query: Tensor
    box: Tensor


def denoising_matches(learned: Sequence[Tensor], groups: int, layers: int, device: torch.device) -> Matches:
    """Which of the places of `nn.query_aids.noisy_places` began at which box. A GPU is waited for.

    Args:
        learned: (M,) bool of each sample, whether a box is learned. Boxes are rows of the `TrueCodes` of all.
        groups: of denoising queries.
        layers: of the decoder.
        device: of the result.
    """
    most, sample, query, box, first = max(map(len, learned), default=0), [], [], [], 0
    for i, kept in enumerate(learned):
        rows, count = kept.cpu().nonzero()[:, 0], len(kept)
        sample.append(torch.full((groups * len(rows),), i))
        query.append((torch.arange(groups)[:, None] * most + rows).flatten())
        box.append((rows + first).repeat(groups))
        first += count
    parts = (torch.cat(sample), torch.cat(query).expand(layers, -1), torch.cat(box).expand(layers, -1))
    return Matches(*(send(part.contiguous(), device) for part in parts))


@torch.no_grad()
def match(logits: Tensor, codes: Tensor, truth: TrueCodes, settings: SetLoss = SetLoss()) -> Matches:  # noqa: B008 (frozen)
    """The assignment with the smallest total cost, for every layer and sample. A GPU is waited for: it is computed by scipy on the CPU.

    The cost of a pair is `pair_costs`; one that is not a number counts 100. Of Q queries and M boxes, min(Q, M) are matched.

    Args:
        logits: (L, B, Q, K) before the sigmoid.
        codes: (L, B, Q, 10) in metres.
        truth: of the B samples.
        settings: weights.

    Raises:
        ShapeError: where these shapes do not fit together.
        DataError: a true box of a class that the network does not have.
    """
    _check(logits, codes, truth)
    lowest, highest = truth.classes.aminmax() if len(truth.classes) else (0, 0)
    if int(lowest) < 0 or int(highest) >= logits.shape[-1]:
        wrong, count = int(lowest) if int(lowest) < 0 else int(highest), logits.shape[-1]
        raise DataError(
            f"a true box has class {wrong}, but the network knows {count}, 0 to {count - 1}. Leave such boxes out of the labels."
        )
    layers, _, queries, _ = logits.shape
    costs = pair_costs(logits, codes, truth, settings).cpu().numpy()
    sample, query, box, first = [], [], [], 0
    for i, count in enumerate(truth.counts):
        part = costs[:, first * queries : (first + count) * queries].reshape(layers, count, queries)
        found = [linear_sum_assignment(cost) for cost in part]
        sample.append(np.full(min(count, queries), i))
        box.append(np.stack([rows for rows, _ in found]) + first)
        query.append(np.stack([columns for _, columns in found]))
        first += count
    matches = (np.concatenate(sample), np.concatenate(query, 1), np.concatenate(box, 1))
    return Matches(*(send(torch.from_numpy(part.astype(np.int64)), logits.device) for part in matches))


@torch.no_grad()
def pair_costs(logits: Tensor, codes: Tensor, truth: TrueCodes, settings: SetLoss) -> Tensor:
    """Costs (L, M1*Q + ... + MB*Q), float32, of the pairs of each sample, by box, then query; `_WORST` where one is not a number.

    The cost of a class is what the focal loss would change by, that of a box the L1 distance of the first `matched_numbers`.
    """
    layers, _, queries, _ = logits.shape
    costs, first = codes.new_empty(layers, sum(truth.counts) * queries, dtype=torch.float32), 0
    with without_autocast(logits):
        classes, size = focal_costs(logits.movedim(0, 1).mT.contiguous(), settings), settings.matched_numbers  # (B, L, K, Q)
        boxes = codes[..., :size].float().permute(1, 3, 0, 2).contiguous() * settings.box_weight  # (B, size, L, Q)
        for i, count in enumerate(truth.counts):
            rows, wanted = slice(first, first + count), truth.codes[first : first + count, :size].mT * settings.box_weight
            cost = classes[i].index_select(1, truth.classes[rows])  # (L, M, Q)
            apart = torch.empty_like(cost)
            for found, true in zip(boxes[i], wanted, strict=True):  # number by number into one memory: cdist took twice as long
                cost += torch.sub(found[:, None], true[:, None], out=apart).abs_()
            costs[:, first * queries : (first + count) * queries] = cost.flatten(1)
            first += count
        return costs.nan_to_num_(nan=_WORST, posinf=_WORST, neginf=-_WORST)


def focal_costs(logits: Tensor, settings: SetLoss) -> Tensor:
    """The cost (*) of each class of logits (*), weighted: the focal loss as a positive minus that as a negative."""
    p, alpha, gamma = logits.float().sigmoid(), settings.alpha, settings.gamma
    negative = -(1 - p + 1e-12).log() * (1 - alpha) * p**gamma
    positive = -(p + 1e-12).log() * alpha * (1 - p) ** gamma
    return (positive - negative) * settings.class_weight


def set_losses(
    logits: Tensor,
    codes: Tensor,
    truth: TrueCodes,
    settings: SetLoss = SetLoss(),  # noqa: B008 (frozen)
    matches: Matches | None = None,
    prefix: str = "",
) -> dict[str, Tensor]:
    """`loss_cls` and `loss_bbox` of the last layer, `d0.loss_cls`, `d0.loss_bbox`, `d1.loss_cls`, ... of those before it, weighted.

    Both are sums divided by the number of matches, at least 1: the sigmoid focal loss of all queries, and the L1 distance of the codes of
    matched ones. An unknown velocity (NaN) and a size of 0 (-inf) in a true code are left out. float32 whatever the precision.

    Args:
        logits: (L, B, Q, K) before the sigmoid.
        codes: (L, B, Q, 10) in metres.
        truth: of the B samples.
        settings: weights.
        matches: those of `match` by default, which raises DataError for a class that the network does not have.
        prefix: before each name.

    Raises:
        ShapeError: where these shapes do not fit together.
    """
    _check(logits, codes, truth, settings)
    with without_autocast(logits):
        logits, codes = logits.float(), codes.float()
        chosen = matches if matches is not None else match(logits, codes, truth, settings)
        layers, _, queries, kinds = logits.shape
        flat = chosen.sample * queries + chosen.query  # (L, N)
        wanted = torch.zeros_like(logits).flatten(1).scatter_(1, flat * kinds + truth.classes[chosen.box], 1.0)
        count = max(1, flat.shape[1])
        classes = focal_loss(logits.flatten(1), wanted, settings.alpha, settings.gamma).sum(1) * (settings.class_weight / count)

        numbers = codes.shape[-1]
        found = codes.flatten(1, 2).gather(1, flat[..., None].expand(-1, -1, numbers))  # (L, N, 10)
        expected = truth.codes[chosen.box]
        known = ~expected.isinf() & ~(expected.isnan() & (torch.arange(numbers, device=codes.device) >= _VELOCITY))
        if settings.drop_boxes_without_velocity:
            known = known.all(-1, keepdim=True)
        weights = send(torch.tensor(settings.code_weights), codes.device)
        error = (found - expected.where(known, 0)).abs() * weights * known
        boxes = error.sum((1, 2)) * (settings.box_weight / count)
    names = [f"{prefix}d{i}." for i in range(layers - 1)] + [prefix]
    pairs = zip(names, classes.unbind(), boxes.unbind(), strict=True)
    return {f"{name}{kind}": value for name, cls, box in pairs for kind, value in (("loss_cls", cls), ("loss_bbox", box))}


def focal_loss(logits: Tensor, wanted: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The sigmoid focal loss (*) of logits (*) with targets (*) of 0 or 1, not summed (Lin et al., ICCV 2017)."""
    p = logits.sigmoid()
    missed = p + wanted * (1 - 2 * p)  # how far the probability is off
    weight = (1 - alpha + wanted * (2 * alpha - 1)) * missed**gamma
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * weight


def _check(logits: Tensor, codes: Tensor, truth: TrueCodes, settings: SetLoss | None = None) -> None:
    """Raise ShapeError unless predictions and truth fit together."""
    if logits.ndim != 4 or logits.shape[:3] != codes.shape[:3] or logits.shape[1] != len(truth.counts):
        shapes = f"logits {tuple(logits.shape)}, codes {tuple(codes.shape)} and {len(truth.counts)} samples of true boxes"
        raise ShapeError(f"a set loss needs logits (L, B, Q, K) and codes (L, B, Q, 10), got {shapes}.")
    if truth.codes.shape[-1] != codes.shape[-1]:
        raise ShapeError(f"predicted codes have {codes.shape[-1]} numbers, true ones {truth.codes.shape[-1]}.")
    if settings is not None and len(settings.code_weights) != codes.shape[-1]:
        raise ShapeError(f"codes have {codes.shape[-1]} numbers, but there are {len(settings.code_weights)} code_weights.")
