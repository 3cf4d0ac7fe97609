"""Deformable attention (Zhu et al., 2021): each query reads a feature map at a few places of its own, weighted. Plain torch.

Shape letters: B batch, Q queries, S places of a query, c channels of a head, h w feature map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ShapeError
from frustum.geometry.transforms import without_autocast


def deform_attention(values: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of features at places, bilinearly sampled; beyond the border features are zero.

    Args:
        values: (B, heads, c, h, w).
        places: (B, Q, heads, S, 2) column and row, from 0 to 1 across the map: 0.5 / w is the middle of the first feature.
        weights: (B, Q, heads, S).

    Returns:
        (B, Q, heads * c), float32.

    Raises:
        ShapeError: the shapes do not fit together.
    """
    lead = places.shape[:4]
    if places.shape[-1:] != (2,) or weights.shape != lead or values.dim() != 5 or values.shape[:2] != (lead[0], lead[2]):
        raise ShapeError(
            "deformable attention needs values (B, heads, c, h, w), places (B, Q, heads, S, 2) and weights (B, Q, heads, S), got "
            f"{tuple(values.shape)}, {tuple(places.shape)} and {tuple(weights.shape)}."
        )
    with without_autocast(values):
        grid = (2 * places.float() - 1).transpose(1, 2).flatten(0, 1)  # (B * heads, Q, S, 2)
        found = F.grid_sample(values.float().flatten(0, 1), grid, padding_mode="zeros", align_corners=False)  # (B * heads, c, Q, S)
        weighed = (found * weights.float().transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)  # (B * heads, c, Q)
    return weighed.unflatten(0, (values.shape[0], -1)).flatten(1, 2).mT
