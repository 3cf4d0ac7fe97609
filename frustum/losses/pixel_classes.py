"""Supervision of image features by the objects that the LiDAR sees in them: which class is at each feature.

Maps learn slowly what an object looks like, through all the places where its features may lie; an image says it directly.
Shape letters: B batch, N cameras, M = B * N images, H W image, h w feature map, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ShapeError
from frustum.geometry.transforms import without_autocast

_MARGIN = 0.2  # metres beyond a box that still count: a point is as exact as a pixel


@torch.no_grad()
def pixel_class_targets(
    depth: Tensor, points: Tensor, boxes: Sequence[Tensor], classes: Sequence[Tensor], feature_size: tuple[int, int], num_classes: int
) -> Tensor:
    """Class (M, h, w) int64 of the object at each feature: that of the smallest box around its nearest LiDAR point.

    `num_classes` where the point lies in no box, -1 where there is no point.

    Args:
        depth: (B, N, H, W) metres along the optical axis, 0 where unknown.
        points: (B, N, H, W, 3) where the pixels lie at these depths, in the frame of the boxes.
        boxes, classes: per sample (m, 9) of `geometry.BOX_FIELDS` and (m,).
        feature_size: h, w.
        num_classes: K.

    Raises:
        ShapeError: features that do not divide the image.
    """
    (height, width), (h, w) = depth.shape[-2:], feature_size
    if height % h or width % w:
        raise ShapeError(f"a depth map of {height} x {width} pixels does not divide into {h} x {w} features.")

    def blocks(x: Tensor) -> Tensor:  # (B, N * h * w, pixels, *)
        return x.unflatten(3, (w, -1)).unflatten(2, (h, -1)).transpose(3, 4).flatten(4, 5).flatten(1, 3)

    nearest, pixel = blocks(depth.where(depth > 0, torch.inf)).min(-1)
    chosen = blocks(points).gather(2, pixel[..., None, None].expand(-1, -1, 1, 3))[:, :, 0].float()  # (B, N * h * w, 3)
    rows = []
    for place, box, kind in zip(chosen, boxes, classes, strict=True):
        away = place[:, None] - box[:, :3]  # (P, m, 3)
        cos, sin = box[:, 6].cos(), box[:, 6].sin()
        local = torch.stack([away[..., 0] * cos + away[..., 1] * sin, away[..., 1] * cos - away[..., 0] * sin, away[..., 2]], -1)
        is_inside = (local.abs() <= box[:, 3:6] / 2 + _MARGIN).all(-1)
        size = F.pad(box[:, 3:6].prod(-1).where(is_inside, torch.inf), (0, 1), value=torch.finfo(box.dtype).max)  # the last: none
        rows.append(F.pad(kind, (0, 1), value=num_classes)[size.argmin(-1)])
    found = torch.stack(rows).where(nearest.isfinite(), -1)
    return found.unflatten(1, (-1, h, w)).flatten(0, 1)


def pixel_class_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of logits (M, K + 1, *) for the classes (M, *) of `pixel_class_targets`: half the mean of objects, half of others."""
    none = logits.shape[1] - 1
    with without_autocast(logits):
        entropy = F.cross_entropy(logits.float(), target.clamp(min=0), reduction="none")
    is_object, is_none = (target >= 0) & (target < none), target == none
    return sum(0.5 * entropy.where(where, 0).sum() / where.sum().clamp(min=1) for where in (is_object, is_none))  # type: ignore[return-value]
