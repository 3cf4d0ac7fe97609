"""Losses on voxel logits (*, K) with labels (*), uint8, and an optional mask (*) of the voxels that count."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, ValidationInfo
from torch import Tensor

from frustum.errors import ShapeError
from frustum.geometry.transforms import send
from frustum.types.classes import IGNORE, OCC3D_CLASSES

# Voxels per class in the training split of Occ3D-nuScenes, in the order of OCC3D_CLASSES (FlashOCC's table).
OCC3D_FREQUENCIES: tuple[int, ...] = (
    944004, 1897170, 152386, 2391677, 16957802, 724139, 189027, 2074468, 413451, 2384460, 5916653, 175883646, 4275424, 51393615,
    61411620, 105975596, 116424404, 1892500630,
)  # fmt: skip


def _fits_the_classes(is_on: bool, others: ValidationInfo) -> bool:
    if is_on and (others.data or {}).get("class_names", OCC3D_CLASSES) != OCC3D_CLASSES:  # None where the value alone is checked
        raise ValueError("the frequency table is that of Occ3D's 18 classes; set model.class_balance=false for other class_names")
    return is_on


ClassBalance = Annotated[bool, AfterValidator(_fits_the_classes)]
"""Whether classes are weighed by `flashocc_class_weights`; a field of a config that declares `class_names` above it."""


def flashocc_class_weights(frequencies: tuple[int, ...] = OCC3D_FREQUENCIES) -> Tensor:
    """FlashOCC's class weights (K,), float32: 1 / ln(frequency + 0.001)."""
    return 1 / torch.log(torch.tensor(frequencies, dtype=torch.float64) + 0.001).float()


def masked_cross_entropy(logits: Tensor, labels: Tensor, mask: Tensor | None = None, class_weight: Tensor | None = None) -> Tensor:
    """Cross-entropy averaged over the voxels that count, as in FlashOCC's BEVOCCHead2D.

    Args:
        logits: (*, K).
        labels: (*) class ids; 255 is ignored.
        mask: (*) bool, the voxels that count; None takes all.
        class_weight: (K,); with it the average is weighted as well.

    Returns:
        A scalar, float32. The divisor is the number of voxels in the mask (with a label of 255 or not, as in the reference), or the
        sum of their class weights.
    """
    if logits.shape[:-1] != labels.shape or (mask is not None and mask.shape != labels.shape):
        shapes = f"labels {tuple(labels.shape)}" + ("" if mask is None else f" and mask {tuple(mask.shape)}")
        raise ShapeError(f"logits {tuple(logits.shape)} do not fit {shapes}; logits need one more dimension, the classes.")
    count: Tensor | int = max(1, labels.numel())
    if mask is not None and logits.device.type == "cpu":  # choose first: the soft-max then runs over the masked voxels only
        logits, labels = logits[mask], labels[mask]
        count = max(1, len(labels))
    elif mask is not None:  # a GPU takes all rather than tell the host how many there are
        labels, count = labels.masked_fill(~mask, IGNORE), mask.sum().clamp(min=1)
    rows, ids = logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1).long()
    total = F.cross_entropy(rows, ids, class_weight, ignore_index=IGNORE, reduction="sum")
    if class_weight is None:
        return total / count
    if logits.device.type == "cpu":
        return total / class_weight[ids[ids != IGNORE]].sum().clamp(min=1e-12)
    return total / class_weight[ids.clamp(max=len(class_weight) - 1)].where(ids != IGNORE, 0).sum().clamp(min=1e-12)


def draw_columns(labels: Tensor, mask: Tensor, free: int, free_columns: int) -> tuple[Tensor, Tensor]:
    """Choose the columns of a label volume to train on: all that hold an observed occupied voxel and some random others.

    Most columns hold free space only and are easy: a random part of them, weighted back to the whole, keeps the expectation and makes
    the last layers several times cheaper.

    Args:
        labels: (*, Z) class ids; 255 is ignored.
        mask: (*, Z) bool, the voxels that count.
        free: id of free space.
        free_columns: columns without an occupied voxel to draw at most.

    Returns:
        Index into the flattened (*) of each chosen column (n,), and how many columns it stands for (n,), float32.
    """
    has_occupied = (mask & (labels != free) & (labels != IGNORE)).any(-1).flatten()
    has_free_only = mask.any(-1).flatten() & ~has_occupied
    occupied, empty = has_occupied.nonzero()[:, 0], has_free_only.nonzero()[:, 0]
    total = len(empty)
    if total > free_columns:
        empty = empty[torch.randint(total, (free_columns,), device=empty.device)]
    share = torch.ones(len(occupied) + len(empty), device=labels.device)
    share[len(occupied) :] = total / max(1, len(empty))
    return torch.cat([occupied, empty]), share


def occupancy_losses(
    logits: Tensor, labels: Tensor, mask: Tensor, class_weight: Tensor, free: int, share: Tensor | float = 1.0, flat: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor, Tensor]:
    """Class-weighted cross-entropy, and one minus the soft IoU of occupied space and of what stands on the ground.

    Args:
        logits: (n, Z, K).
        labels: (n, Z) class ids; 255 is ignored.
        mask: (n, Z) bool.
        class_weight: (K,).
        free: id of free space.
        share: how many columns each of the n stands for (n,), or 1.
        flat: ids of the classes that lie on the ground; they count as free in the third loss.

    Returns:
        Three scalars, float32.
    """
    heights, known = logits.shape[1], (mask & (labels != IGNORE)).flatten()
    rows, target = logits.flatten(0, 1), labels.flatten()
    shares = share if isinstance(share, Tensor) else torch.ones(len(logits), device=logits.device)
    if logits.device.type == "cpu":  # choose first, as the rest takes its time
        keep = known.nonzero()[:, 0]
        rows, target, weight = rows.index_select(0, keep), target[keep], shares[keep // heights]
    else:  # a GPU takes all rather than tell the host how many there are
        target, weight = target.where(known, free), shares[:, None].expand(-1, heights).flatten() * known
    log_p, target = rows.float().log_softmax(-1), target.long()
    weighted = weight * class_weight[target]
    cross_entropy = -(weighted * log_p.gather(1, target[:, None])[:, 0]).sum() / weighted.sum().clamp(min=1e-6)
    is_occupied = target != free
    p_occupied = 1 - log_p[:, free].exp()
    low = send(torch.tensor(flat, dtype=torch.long), target.device)
    is_low = torch.isin(target, low)
    p_standing = p_occupied - log_p[:, low].exp().sum(-1)
    return (cross_entropy, 1 - _soft_iou(p_occupied, is_occupied, weight), 1 - _soft_iou(p_standing, is_occupied & ~is_low, weight))


def _soft_iou(p: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """IoU of probabilities (n,) with a binary truth (n,), each entry counted `weight` (n,) times; 1 where nothing counts."""
    p = weight * p
    union = (weight * truth).sum() + (p * ~truth).sum()
    return torch.where(union > 0, (p * truth).sum() / union.clamp(min=1.0), 1)
