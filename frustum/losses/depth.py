"""Supervision of predicted depth distributions by sparse LiDAR depth maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ShapeError
from frustum.geometry.depth import DepthBins
from frustum.geometry.transforms import without_autocast


def block_minimum(depth: Tensor, feature_size: Sequence[int]) -> Tensor:
    """Nearest known depth in the block of pixels under each feature: (M, H, W) metres -> (M, h, w), 0 where none is known."""
    height, width = depth.shape[-2:]
    h, w = feature_size
    if height % h or width % w:
        raise ShapeError(f"a depth map of {height} x {width} pixels does not divide into {h} x {w} features.")
    far = torch.finfo(depth.dtype).max
    blocks = torch.where(depth > 0, depth, far).unflatten(-1, (w, width // w)).unflatten(-3, (h, height // h))
    nearest = blocks.amin((-3, -1))
    return torch.where(nearest == far, 0, nearest)


def depth_targets(depth: Tensor, feature_size: Sequence[int], bins: DepthBins) -> Tensor:
    """Depth bin of each feature: (M, H, W) metres, 0 unknown -> (M, h, w) int64, -1 without a target."""
    return bins.index(block_minimum(depth, feature_size))


def depth_bce(probabilities: Tensor, depth: Tensor, bins: DepthBins) -> Tensor:
    """BEVDepth's depth loss: binary cross-entropy of every bin, summed over bins and averaged over the features with a target.

    Args:
        probabilities: (M, D, h, w) after the soft-max.
        depth: (M, H, W) metres, 0 where unknown.
        bins: the D bins.
    """
    target = depth_targets(depth, probabilities.shape[-2:], bins)
    known = target >= 0
    with without_autocast(probabilities):
        rows = probabilities.permute(0, 2, 3, 1).float()  # (M, h, w, D)
        if probabilities.device.type != "cpu":  # a GPU takes all rather than tell the host how many there are
            one_hot = F.one_hot(target.clamp(min=0), bins.count).float()
            return F.binary_cross_entropy(rows, one_hot, known[..., None].float(), reduction="sum") / known.sum().clamp(min=1)
        one_hot = F.one_hot(target[known], bins.count).float()
        return F.binary_cross_entropy(rows[known], one_hot, reduction="sum") / max(1, len(one_hot))


def depth_cross_entropy(probabilities: Tensor, depth: Tensor, bins: DepthBins) -> Tensor:
    """Negative log probability of the true bin, averaged over the features with a target. Arguments as in `depth_bce`."""
    target = depth_targets(depth, probabilities.shape[-2:], bins)
    known = target >= 0
    chosen = probabilities.gather(1, target.clamp(min=0)[:, None])[:, 0]
    if probabilities.device.type != "cpu":
        return -chosen.float().clamp(min=1e-8).log().where(known, 0).sum() / known.sum().clamp(min=1)
    chosen = chosen[known]
    return -chosen.float().clamp(min=1e-8).log().sum() / max(1, len(chosen))
