"""The readable reference of `ops.splat`: one camera in plain torch, tile by tile, with autograd. Any device, float32 or float64."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from frustum.geometry.transforms import quaternion_to_matrix

BLUR = 0.3  # square pixels that the image of each Gaussian is widened by
MAX_ALPHA = 0.999
MIN_ALPHA = 1 / 255
MIN_LEFT = 1e-4  # of the light: a ray ends before the Gaussian that would leave no more than this
MARGIN = 0.3  # share of the half image beyond its border, up to which the projection is linearised where a Gaussian is
_TILE = 16


def render(
    means: Tensor, scales: Tensor, quats: Tensor | None, opacities: Tensor, features: Tensor,
    view: Tensor, intrinsics: Tensor, positions: Tensor, limits: Tensor, near: float, far: float, size: tuple[int, int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Features, depth and what is before the limits (P, C + 1 + K), and alpha (P), at positions (P, 2); as `rasterize`, one camera."""
    where = means @ view[:3, :3].T + view[:3, 3]  # in the camera
    kept = ((opacities >= MIN_ALPHA) & (where[:, 2] > near) & (where[:, 2] < far)).nonzero()[:, 0]
    kept = kept[where[kept, 2].argsort(stable=True)]
    where, opacities = where[kept], opacities[kept]
    rotation = torch.eye(3).to(means) if quats is None else quaternion_to_matrix(quats[kept])
    centres, covariances = _project(where, view[:3, :3] @ rotation * scales[kept, None], intrinsics, size)
    # Beyond this no pixel gets as much as MIN_ALPHA; a little more against rounding.
    extent = (2 * (opacities.detach() / MIN_ALPHA).log()).clamp(min=0).sqrt()[:, None] * 1.001 + 0.001
    reach = extent * covariances.detach().diagonal(dim1=1, dim2=2).sqrt()
    lower, upper = centres.detach() - reach, centres.detach() + reach
    colours = torch.cat([features[kept], where[:, 2:]], 1)

    places, weights_of, sums = [], [], []
    for tile in _tiles(positions, size):
        low, high = positions[tile].amin(0), positions[tile].amax(0)
        near_by = ((lower <= high) & (upper >= low)).all(1).nonzero()[:, 0]
        splats = centres[near_by], covariances[near_by], opacities[near_by], colours[near_by]
        found, alpha = checkpoint(_composite, positions[tile], limits[tile], *splats, use_reentrant=False, preserve_rng_state=False)
        places.append(tile)
        sums.append(found)
        weights_of.append(alpha)
    channels = colours.shape[1] + limits.shape[1]
    out, total = colours.new_zeros(len(positions), channels), colours.new_zeros(len(positions))
    if not places:
        return out, total
    return out.index_copy(0, torch.cat(places), torch.cat(sums)), total.index_copy(0, torch.cat(places), torch.cat(weights_of))


def _project(where: Tensor, axes: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Image of Gaussians: centres (G, 2) and covariances (G, 2, 2) in pixels, of centres (G, 3) and scaled axes (G, 3, 3) in the camera.

    The projection is made linear at each centre (EWA splatting, Zwicker et al., 2002).
    """
    focal, principal = intrinsics.diagonal()[:2], intrinsics[:2, 2]
    height, width = size
    depth, slope = where[:, 2:], where[:, :2] / where[:, 2:]
    extent = principal.new_tensor([width, height])
    beyond = MARGIN * extent / (2 * focal)
    clamped = slope.clamp(-principal / focal - beyond, (extent - principal) / focal + beyond)
    jacobian = torch.cat([torch.diag_embed((focal / depth).expand_as(slope)), (-focal * clamped / depth)[:, :, None]], 2)  # (G, 2, 3)
    flat = jacobian @ axes
    return slope * focal + principal, flat @ flat.mT + BLUR * torch.eye(2).to(flat)


def _composite(
    pixels: Tensor, limits: Tensor, centres: Tensor, covariances: Tensor, opacities: Tensor, colours: Tensor
) -> tuple[Tensor, Tensor]:
    """What Gaussians, nearest first, add up to at each pixel: colours, of which depth is the last, and weights before the limits.

    Returns (P, C + K), alpha (P).
    """
    xx, xy, yy = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    dx, dy = (pixels[:, None] - centres).unbind(-1)  # (P, G)
    sigma = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / (2 * (xx * yy - xy * xy))
    alpha = (opacities * (-sigma).exp()).clamp(max=MAX_ALPHA)
    alpha = torch.where((sigma >= 0) & (alpha >= MIN_ALPHA), alpha, 0)
    left = (1 - alpha).cumprod(1)
    light = torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], 1)
    weights = torch.where(left > MIN_LEFT, alpha * light, 0)
    before = [(weights * (colours[:, -1] < limit[:, None])).sum(1) for limit in limits.unbind(1)]
    return torch.cat([weights @ colours, *(b[:, None] for b in before)], 1), weights.sum(1)


def _tiles(positions: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """Which positions lie in each tile of the image; those outside the image lie in none."""
    height, width = size
    inside = ((positions >= 0) & (positions <= positions.new_tensor([width, height]))).all(1).nonzero()[:, 0]
    column, row = (positions[inside] / _TILE).long().unbind(1)
    tiles, order = (row * (width // _TILE + 1) + column).sort(stable=True)
    return [] if not len(inside) else list(inside[order].split(tiles.unique_consecutive(return_counts=True)[1].tolist()))
