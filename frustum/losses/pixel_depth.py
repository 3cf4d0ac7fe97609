"""Supervision of the depth of a pixel's 3D point by sparse LiDAR depth: 3DPPE's losses (Shu et al., ICCV 2023, section 3.2).

What is supervised is the depth itself, in metres, and the distribution whose mean it contains; `losses.depth` has those of networks that
lift features along a whole ray.

Shape letters: M images, D depths, h w features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.config import Config
from frustum.errors import ShapeError
from frustum.geometry.transforms import without_autocast
from frustum.ops.floored_log import floored_log

_LEAST = 0.1  # metres: the depth of a hybrid may be negative


class PixelDepthLoss(Config):
    """Weights and range; the default is that of the published recipes with a distribution loss.

    Attributes:
        depth_weight: of the smooth L1 loss of the depth, in metres; the published recipes without the distribution loss have 1.
        distribution_weight: of the distribution focal loss.
        beta: error in metres below which the smooth L1 loss is quadratic.
        logarithm: compare the logarithms of depths instead of metres; beta then is a difference of logarithms, and far depths weigh less.
        first, last: the nearest and the farthest of the D depths, in metres. True depths count from the first up to, but without, the last.
    """

    depth_weight: float = 0.1
    distribution_weight: float = 0.25
    beta: float = 1 / 9
    logarithm: bool = False
    first: float = 1.0
    last: float = 61.2


def pixel_depth_losses(
    depth: Tensor,
    logits: Tensor | None,
    truth: Tensor,
    settings: PixelDepthLoss = PixelDepthLoss(),  # noqa: B008 (frozen)
    mask: Tensor | None = None,
) -> dict[str, Tensor]:
    """`loss_depth` of the depth, and `loss_dfl` of the distribution, weighted; means over the features with a true depth in range.

    float32 whatever the precision; the inputs stay as they are, where the reference zeroes true depths out of range.

    Args:
        depth: (M, h, w) metres: the blend of the depth that is regressed and the mean of the distribution.
        logits: (M, D, h, w) before the soft-max, of D depths at even steps from `first` to `last`; None without a distribution.
        truth: (M, h, w) metres, of the nearest LiDAR point in each feature; 0 where there is none.
        settings: weights and range.
        mask: (M, h, w) bool: features that count, if they have a true depth; those that were not covered by GridMask.

    Raises:
        ShapeError: where these shapes do not fit together.
    """
    _check(depth, truth, mask, logits)
    with without_autocast(depth):
        known, true = known_depth(truth, settings.first, settings.last, mask)
        count = known.sum().clamp(min=1)
        pair = depth.float(), true
        pair = (floored_log(pair[0], _LEAST), floored_log(pair[1], _LEAST)) if settings.logarithm else pair
        error = F.smooth_l1_loss(*pair, reduction="none", beta=settings.beta)
        losses = {"loss_depth": settings.depth_weight * error.where(known, 0).sum() / count}
        if logits is not None:
            place = (true - settings.first) / ((settings.last - settings.first) / (logits.shape[1] - 1))
            focal = distribution_focal_loss(logits.float(), place)
            losses["loss_dfl"] = settings.distribution_weight * focal.where(known, 0).sum() / count
    return losses


def known_depth(truth: Tensor, first: float, last: float, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Where depths (*) in metres count, bool: first <= depth < last, inside `mask`; and the depths, float32, `first` elsewhere."""
    known = (truth >= first) & (truth < last)
    if mask is not None:
        known = known & mask
    return known, truth.float().where(known, first)


def distribution_focal_loss(logits: Tensor, place: Tensor) -> Tensor:
    """Cross-entropy with the two bins around a place, each weighted by how near it is (Li et al., NeurIPS 2020, equation 6).

    Args:
        logits: (M, D, *) before the soft-max.
        place: (M, *) in 0..D-1, in bins.

    Returns:
        (M, *), not summed.
    """
    left = place.detach().floor().long().clamp(0, logits.shape[1] - 2)
    share = (place - left)[:, None]  # of the right one
    chances = logits.log_softmax(1)
    near, far = chances.gather(1, left[:, None]), chances.gather(1, left[:, None] + 1)
    return -(near * (1 - share) + far * share)[:, 0]


def pixel_depth_bce(
    logits: Tensor, truth: Tensor, depths: Tensor, last: float = 61.2, mask: Tensor | None = None, weight: float = 3.0
) -> Tensor:
    """Binary cross-entropy of every bin with the one that holds the true depth: summed over bins, a mean over features with a true depth.

    The loss of the variants that classify depths only (`topk`, `depth_guided_feature`). A bin owns depths from its own to the next.

    Args:
        logits: (M, D, h, w) before the sigmoid.
        truth: (M, h, w) metres, 0 where unknown.
        depths: (D,) metres, ascending, of the bins.
        last: where the last bin ends, in metres.
        mask: (M, h, w) bool, as in `pixel_depth_losses`.
        weight: factor.

    Raises:
        ShapeError: where these shapes do not fit together.
    """
    _check(truth, truth, mask, logits)
    if len(depths) != logits.shape[1]:
        raise ShapeError(f"logits of {logits.shape[1]} bins, but {len(depths)} depths.")
    with without_autocast(logits):
        known = (truth >= depths[0]) & (truth < last)
        if mask is not None:
            known = known & mask
        place = torch.bucketize(truth.float(), depths.float(), right=True).sub(1).clamp(min=0)  # (M, h, w)
        wanted = torch.zeros_like(logits, dtype=torch.float32).scatter_(1, place[:, None], 1.0)
        error = F.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="none").sum(1)
        return weight * error.where(known, 0).sum() / known.sum().clamp(min=1)


def _check(depth: Tensor, truth: Tensor, mask: Tensor | None, logits: Tensor | None) -> None:
    """Raise ShapeError unless these are maps of one size."""
    sizes = {"depth": depth.shape, "truth": truth.shape}
    sizes |= {} if mask is None else {"mask": mask.shape}
    sizes |= {} if logits is None else {"logits without bins": logits.shape[:1] + logits.shape[2:]}
    if len(set(sizes.values())) > 1:
        given = ", ".join(f"{name} {tuple(size)}" for name, size in sizes.items())
        raise ShapeError(f"depths are compared feature by feature, but the shapes differ: {given}.")
