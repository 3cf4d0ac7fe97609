"""What an image token sees, as a loss of its own: the class of the box that its LiDAR point lies in, and where the centre is.

Not part of PETR or 3DPPE: a few thousand answers a sample, where the set loss has as many as there are boxes.
Shape letters: B batch, S tokens, K classes, M boxes of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.geometry.boxes import box_poses, points_in_boxes
from frustum.geometry.transforms import without_autocast
from frustum.losses.pixel_classes import pixel_class_loss

_MARGIN = 0.2  # metres that a box is larger: LiDAR points of thin things lie beside them


def token_losses(
    logits: Tensor,
    votes: Tensor,
    points: Tensor,
    known: Tensor,
    boxes: Sequence[Tensor],
    classes: Sequence[Tensor],
    weight: float,
) -> dict[str, Tensor]:
    """`loss_token_cls`, that of `losses.pixel_classes`, and `loss_token_centre`, the smooth L1 distance of the vote; weighted.

    The distance is divided by the number of tokens in boxes, at least 1.

    Args:
        logits: (B, S, K + 1) before the soft-max; the last is that of no object.
        votes: (B, S, 3) where the centre of its box is, in metres.
        points: (B, S, 3) LiDAR point of each token.
        known: (B, S) bool: tokens with a LiDAR point; others do not count.
        boxes: (M, 9) of each sample.
        classes: (M,) of each sample.
        weight: of both losses.
    """
    with without_autocast(logits):
        logits, votes = logits.float(), votes.float()
        wanted = torch.where(known, logits.shape[-1] - 1, -1)  # no object, and not known
        centres, inside = torch.zeros_like(votes), torch.zeros_like(known)
        for i, (found, kinds) in enumerate(zip(boxes, classes, strict=True)):
            if not len(found):
                continue
            hit = points_in_boxes(points[i], box_poses(found), found[:, 3:6] + 2 * _MARGIN) & known[i][:, None]  # (S, M)
            index = found[:, 3:6].prod(-1).where(hit, torch.inf).argmin(1)  # the smallest of several
            inside[i] = hit.any(1)
            wanted[i] = torch.where(inside[i], kinds[index], wanted[i])
            centres[i] = found[index, :3]
        count = inside.sum().clamp(min=1)
        cls = pixel_class_loss(logits.mT, wanted)
        centre = (F.smooth_l1_loss(votes, centres, reduction="none", beta=0.5) * inside[..., None]).sum() / count
    return {"loss_token_cls": cls * weight, "loss_token_centre": centre * weight}
