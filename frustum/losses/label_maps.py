"""The loss of networks that label pixels. Shape letters: B batch, K classes, H W image, h w map of logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.geometry.transforms import without_autocast
from frustum.types.classes import IGNORE


def label_map_loss(logits: Tensor, labels: Tensor, align_corners: bool = False, balance: float = 0.0) -> Tensor:
    """Cross-entropy of logits (B, K, h, w), stretched bilinearly over labels (B, H, W), mean over the pixels that are not IGNORE.

    float32 whatever the precision; 0 where no pixel counts.

    With a `balance` b a pixel weighs n^-b, n the pixels of its class in the batch: 0 counts pixels alike, 1 classes that are there.

    Args:
        logits: before the softmax, at any size.
        labels: class ids of any integer type.
        align_corners: whether the outermost logits lie on the middles of the outermost pixels, or their areas cover the same image.
    """
    with without_autocast(logits):
        stretched = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=align_corners)
        if not balance:
            total = F.cross_entropy(stretched, labels.long(), ignore_index=IGNORE, reduction="sum")
            return total / (labels != IGNORE).sum().clamp(min=1)
        flat = labels.flatten().long()
        counts = stretched.new_zeros(IGNORE + 1).scatter_add(0, flat, stretched.new_ones(flat.shape))[: logits.shape[1]]
        weights = torch.where(counts > 0, counts.clamp(min=1) ** -balance, 0.0)
        total = F.cross_entropy(stretched, labels.long(), weights, ignore_index=IGNORE, reduction="sum")
        return total / (weights * counts).sum().clamp(min=torch.finfo(weights.dtype).tiny)
