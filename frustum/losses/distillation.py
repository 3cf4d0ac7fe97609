"""What one set prediction learns from another that answers with the same queries: scores and boxes of a teacher (3DPPE, our reading).

Shape letters: L decoder layers, B batch, Q queries, K classes, N matches of a layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.geometry.transforms import send, without_autocast
from frustum.losses.set_prediction import Matches, SetLoss


def imitation_losses(
    logits: Tensor, codes: Tensor, their_logits: Tensor, their_codes: Tensor, matches: Matches, settings: SetLoss, prefix: str = ""
) -> dict[str, Tensor]:
    """`loss_scores` and `loss_boxes`, means over the L layers; both are 0 where a student answers as its teacher.

    Scores of all queries: the quality focal loss (Li et al., NeurIPS 2020), |p - q|^gamma times the cross-entropy of the probability q with
    the teacher's p. Boxes of the matched queries: the L1 distance of the codes, with their weights. Both are divided by the number of
    matches, at least 1, and have the weights of the set loss. float32 whatever the precision; no gradient reaches the teacher.

    Args:
        logits, codes: (L, B, Q, K) before the sigmoid and (L, B, Q, 10) of the student.
        their_logits, their_codes: the same of the teacher.
        matches: of the teacher.
        settings: weights.
        prefix: before each name.
    """
    with without_autocast(logits):
        aim, given = their_logits.detach().float().sigmoid(), logits.float()
        off = (aim - given.sigmoid()).abs() ** settings.gamma
        scores = (off * F.binary_cross_entropy_with_logits(given, aim, reduction="none")).sum()
        rows = (matches.sample * logits.shape[2] + matches.query)[..., None].expand(-1, -1, codes.shape[-1])  # (L, N, 10)
        pairs = (c.float().flatten(1, 2).gather(1, rows) for c in (codes, their_codes.detach()))
        weights = send(torch.tensor(settings.code_weights), codes.device)
        boxes = (torch.sub(*pairs).abs() * weights).sum()
        share = 1 / (max(1, rows.shape[1]) * len(logits))
        return {f"{prefix}loss_scores": scores * settings.class_weight * share, f"{prefix}loss_boxes": boxes * settings.box_weight * share}
