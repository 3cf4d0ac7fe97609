"""OccFeat's two losses: which voxels hold a LiDAR point, and the features of a teacher in those that do (facts, section 3).

Shape letters: N cameras, P points, D features, h w feature map, V voxels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.geometry import CameraRig, VoxelGrid
from frustum.geometry.transforms import send

NEAREST = 0.1
"""Metres in front of a camera from which it sees a point."""


def occupied_voxels(points: Tensor, grid: VoxelGrid) -> Tensor:
    """(X, Y, Z) bool: voxels that hold at least one of the points (P, 3) in metres of the grid's frame."""
    cells, inside = grid.indices(points)
    found = torch.zeros(grid.shape, dtype=torch.bool, device=points.device)
    found[cells[inside].unbind(-1)] = True
    return found


def over_unit_square(rig: CameraRig, to_pixels: Tensor, sizes: Tensor) -> CameraRig:
    """A rig whose images reach from 0 to 1 in both directions.

    Args:
        rig: (N,) cameras.
        to_pixels: (N, 3, 3) from pixels of the photographs to those of the images.
        sizes: (N, 2) height and width of the images.
    """
    sizes = sizes.double()
    scale = torch.diag_embed(torch.stack([1 / sizes[:, 1], 1 / sizes[:, 0], torch.ones_like(sizes[:, 0])], -1))
    return replace(rig, image_aug=(scale @ to_pixels.double()).to(rig.intrinsics), image_size=(1, 1))


def places_in_images(points: Tensor, rig: CameraRig, key_ego2global: Tensor) -> tuple[Tensor, Tensor]:
    """Where points (P, 3) of the ego frame are in the images of a rig `over_unit_square`: (N, P, 2) and whether they are seen, (N, P)."""
    places, depth, visible = rig.project(points.double(), key_ego2global)
    return places, visible & (depth > NEAREST)


def feature_targets(maps: Tensor, places: Tensor, visible: Tensor) -> Tensor:
    """Mean of the teacher's features over the cameras that see a point, (P, D) float32; zero where none does.

    Features stand at the middle of their part of the image; between them they are interpolated, beyond the outermost ones constant.

    Args:
        maps: (N, D, h, w).
        places, visible: of `places_in_images`.
    """
    total = torch.zeros(places.shape[1], maps.shape[1], device=maps.device)
    for one, at, seen in zip(maps, places, visible, strict=True):
        chosen = send(seen.nonzero()[:, 0], maps.device)
        where = send((2 * at[seen] - 1).float(), maps.device)[None, None]
        found = F.grid_sample(one[None].float(), where, padding_mode="border", align_corners=False)[0, :, 0]  # (D, P')
        total.index_add_(0, chosen, found.T)
    return total / send(visible.sum(0).clamp(min=1), maps.device)[:, None]


def occupancy_loss(
    logits: Tensor, occupied: Tensor, counted: Tensor | None = None, positive_weight: float = 1.0, focal: float = 0.0
) -> Tensor:
    """Binary cross-entropy, mean over the voxels that count.

    Args:
        logits: (*) of voxels.
        occupied: (*) bool.
        counted: (*) bool, those that count; None for all.
        positive_weight: of occupied voxels.
        focal: the exponent of the focal loss, in which occupied voxels have the weight 0.25, times `positive_weight`, and free ones 0.75;
            0 for none.
    """
    logits, target = logits.float(), occupied.float()
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=logits.new_tensor(positive_weight))
    if focal:
        wrong = torch.where(occupied, -logits, logits).sigmoid()
        loss = loss * wrong**focal * torch.where(occupied, 0.25, 0.75)
    if counted is None:
        return loss.mean()
    return (loss * counted).sum() / counted.sum().clamp(min=1)


def feature_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Mean of 1 - cosine of predicted (P, D) and a teacher's features (P, D); zero without points."""
    cosine = F.cosine_similarity(predicted.float(), targets.float(), dim=-1, eps=1e-8)
    return (1 - cosine).sum() / max(1, len(cosine))
