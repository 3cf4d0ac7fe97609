"""Losses over whole label volumes, as Panoptic-FlashOcc combines them: focal, scene-class affinity (MonoScene) and Lovasz-softmax.

All take voxel logits (*, K) and labels (*), where 255 is ignored, compute in float32 and return a scalar.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ShapeError
from frustum.types.classes import IGNORE

_EPSILON = 1e-5
_GAMMA, _ALPHA = 2.0, 0.25  # of the focal loss, as published


def distance_weight(shape: tuple[int, int], device: torch.device | str | None = None) -> Tensor:
    """Panoptic-FlashOcc's weight of map cells (X, Y): 1 in the middle, growing with the distance from it to 2 in the first corner."""
    x, y = (torch.arange(n, dtype=torch.float32, device=device) - n // 2 for n in shape)
    distance = torch.hypot(x[:, None], y)
    return 1 + distance / distance.max()


def focal_loss(logits: Tensor, labels: Tensor, class_weight: Tensor | None = None, voxel_weight: Tensor | None = None) -> Tensor:
    """Sigmoid focal loss (Lin et al., 2017) of each class against all others, summed over classes, averaged over labelled voxels.

    The exponent is 2; the positive term weighs 0.25, the negative ones 0.75.

    Args:
        logits: (*, K).
        labels: (*) class ids; 255 is ignored.
        class_weight: (K,) factor on the terms of each class, whatever the voxel's own class.
        voxel_weight: broadcasts to (*).
    """
    _require(logits, labels)
    x, known = logits.float(), labels != IGNORE
    target = labels.long().where(known, 0)[..., None]
    p = x.sigmoid()
    negative = (1 - _ALPHA) * p**_GAMMA * F.softplus(x)  # (*, K)
    at_target, p_target = x.gather(-1, target)[..., 0], p.gather(-1, target)[..., 0]
    positive = _ALPHA * (1 - p_target) ** _GAMMA * F.softplus(-at_target)
    if class_weight is not None:
        negative, positive = negative * class_weight, positive * class_weight[target[..., 0]]
    total = negative.sum(-1) - negative.gather(-1, target)[..., 0] + positive
    if voxel_weight is not None:
        total = total * voxel_weight
    return (total * known).sum() / known.sum().clamp(min=1)


def affinity_losses(logits: Tensor, labels: Tensor, free: int) -> tuple[Tensor, Tensor]:
    """Scene-class affinity losses (Cao and de Charette, MonoScene, CVPR 2022, section 3.3.2).

    Precision, recall and specificity of the soft-max volume, as -log of each: of every class but `free` that occurs, averaged over these
    classes; and of occupied against free space.

    Returns:
        The semantic and the geometric loss.
    """
    rows, ids = _labelled(logits, labels)
    p = rows.softmax(-1)
    hit = p * F.one_hot(ids, p.shape[1])
    p_sum, t_sum, both = p.sum(0), torch.bincount(ids, minlength=p.shape[1]).float(), hit.sum(0)
    p_full, t_full = 1 - p[:, free], ids != free
    semantic = _affinity(both, p_sum, t_sum, len(ids))
    present = t_sum > 0
    present[free] = False
    geometric = _affinity((p_full * t_full).sum(), p_full.sum(), t_full.sum(), len(ids))
    return (semantic * present).sum() / present.sum().clamp(min=1), geometric


def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Lovasz extension of the Jaccard loss (Berman et al., CVPR 2018), mean over the classes that occur; all voxels of a batch together."""
    rows, ids = _labelled(logits, labels)
    p = rows.softmax(-1)
    losses = []
    for label in torch.bincount(ids, minlength=p.shape[1]).nonzero()[:, 0]:
        is_label = (ids == label).float()
        error, order = (is_label - p[:, label]).abs().sort(descending=True)
        sorted_truth = is_label[order]
        missed = sorted_truth.sum() - sorted_truth.cumsum(0)
        jaccard = 1 - missed / (sorted_truth.sum() + (1 - sorted_truth).cumsum(0))
        losses.append((error * torch.diff(jaccard, prepend=jaccard.new_zeros(1))).sum())
    return torch.stack(losses).mean() if losses else rows.sum() * 0


def _affinity(both: Tensor, p_sum: Tensor, t_sum: Tensor, count: int) -> Tensor:
    """-log precision - log recall - log specificity from soft counts."""
    outside = count - t_sum
    precision, recall = both / (p_sum + _EPSILON), both / (t_sum + _EPSILON)
    specificity = (outside - p_sum + both) / (outside + _EPSILON)
    terms = torch.stack([_minus_log(precision), _minus_log(recall), torch.where(outside > 0, _minus_log(specificity), 0)])
    return terms.sum(0)


def _minus_log(share: Tensor) -> Tensor:
    """-log of shares (*), first moved off 0 and 1 by a small step that keeps their gradient, as the reference does."""
    share = share + _EPSILON * (share < _EPSILON) - _EPSILON * (share >= 1 - _EPSILON)
    return -share.clamp(min=_EPSILON).log()


def _labelled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, K), float32, and labels (n,), int64, of the voxels that have a label. Raises ShapeError if they do not fit."""
    _require(logits, labels)
    known = labels != IGNORE
    return logits[known].float(), labels[known].long()


def _require(logits: Tensor, labels: Tensor) -> None:
    if logits.shape[:-1] != labels.shape:
        raise ShapeError(
            f"logits {tuple(logits.shape)} do not fit labels {tuple(labels.shape)}: one more dimension is needed, the classes."
        )
