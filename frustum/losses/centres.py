"""Training a heat map of object centres: targets from boxes, and the losses of CenterPoint as Panoptic-FlashOcc uses them.

Shape letters: B batch, K classes, X Y map cells, M boxes, S slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from frustum.geometry import VoxelGrid
from frustum.geometry.grids import Rounding
from frustum.geometry.transforms import send

_MOST_BOXES = 500  # per sample


class CentreTargets(NamedTuple):
    """What the head should give.

    Attributes:
        heatmap: (B, K, Y, X) in 0..1, exactly 1 in the cells of centres.
        cells: (B, S) int64, the flat cell y * X + x of each box; 0 in empty slots.
        offset: (B, S, 2) centre relative to its cell, in cells.
        height: (B, S) centre z in metres.
        is_box: (B, S) bool: the slot holds a box whose centre lies in the map.
        boxes: (B, S, 9) the boxes themselves, zeros in empty slots.
    """

    heatmap: Tensor
    cells: Tensor
    offset: Tensor
    height: Tensor
    is_box: Tensor
    boxes: Tensor


def gaussian_radius(length: Tensor, width: Tensor, overlap: float = 0.1) -> Tensor:
    """CornerNet's radius (*) within which a box of `length` x `width` (*) still has IoU `overlap` with itself shifted.

    The formulas are those of the reference implementations, which divide all three roots by 2 instead of 2a.
    """
    b, area = length + width, length * width
    first = (b + torch.sqrt(b**2 - 4 * area * (1 - overlap) / (1 + overlap))) / 2
    second = (2 * b + torch.sqrt(4 * b**2 - 16 * (1 - overlap) * area)) / 2
    c = -2 * overlap * b
    third = (c + torch.sqrt(c**2 - 16 * overlap * (overlap - 1) * area)) / 2
    return torch.minimum(torch.minimum(first, second), third)


@torch.no_grad()
def centre_targets(
    boxes: Sequence[Tensor], classes: Sequence[Tensor], grid: VoxelGrid, num_classes: int = 10, rounding: Rounding = "floor"
) -> CentreTargets:
    """Targets of a batch, all boxes drawn at once.

    Every box paints a Gaussian bump of radius r = max(2, gaussian_radius), sigma = (2r + 1) / 6, into the map of its class;
    where bumps overlap the larger value stays.

    Args:
        boxes: per sample (M, 9), ego frame, centres; the first 500 count.
        classes: per sample (M,) channel of the heat map; a box of a class that it does not have does not count.
        grid: the map's cells.
        rounding: how a centre finds its cell, see `VoxelGrid.indices`. With `truncate`, as in the reference, centres up to one cell below
            the map belong to its first row or column, with a negative offset.
    """
    (num_x, num_y, _), device = grid.shape, boxes[0].device
    slots = max(1, min(_MOST_BOXES, max(len(b) for b in boxes)))
    table, kind = boxes[0].new_zeros(len(boxes), slots, 9), torch.zeros(len(boxes), slots, dtype=torch.long, device=device)
    is_box = torch.zeros(len(boxes), slots, dtype=torch.bool, device=device)
    for i, (box, label) in enumerate(zip(boxes, classes, strict=True)):
        count = min(len(box), slots)
        table[i, :count], kind[i, :count], is_box[i, :count] = box[:count], label[:count], True
    limit = send(torch.tensor([num_x, num_y]), device)
    place, corner = grid.to_cells(table[..., :3])[..., :2], grid.indices(table[..., :3], rounding)[0][..., :2]
    is_box &= ((corner >= 0) & (corner < limit)).all(-1) & (table[..., 3:5] > 0).all(-1) & (kind >= 0) & (kind < num_classes)
    size = table[..., 3:5] / send(torch.tensor(grid.cell[:2], dtype=table.dtype), device)
    radius = gaussian_radius(size[..., 1], size[..., 0]).nan_to_num().long().clamp(min=2)

    dx, dy = _steps(corner, radius, (num_x, num_y), whole=device.type != "cpu")
    sigma = (2 * radius + 1)[..., None, None] / 6
    bump = torch.exp(-(dx**2 + dy**2) / (2 * sigma**2))  # (B, S, 2R + 1, 2R + 1) or (B, S, Y, X)
    x, y = corner[..., 0, None, None] + dx, corner[..., 1, None, None] + dy
    inside = (x >= 0) & (x < num_x) & (y >= 0) & (y < num_y) & is_box[..., None, None]
    inside &= (dx.abs() <= radius[..., None, None]) & (dy.abs() <= radius[..., None, None])
    sample = torch.arange(len(boxes), device=device)[:, None, None, None]
    flat = ((sample * num_classes + kind[..., None, None]) * num_y + y) * num_x + x
    heat = bump.new_zeros(len(boxes) * num_classes * num_y * num_x)
    heat.scatter_reduce_(0, flat.where(inside, 0).flatten(), bump.where(inside, 0).flatten(), "amax")
    return CentreTargets(
        heatmap=heat.view(len(boxes), num_classes, num_y, num_x),
        cells=(corner[..., 1] * num_x + corner[..., 0]).where(is_box, 0),
        offset=place - corner,
        height=table[..., 2],
        is_box=is_box,
        boxes=table,
    )


def _steps(corner: Tensor, radius: Tensor, sides: tuple[int, int], whole: bool) -> tuple[Tensor, Tensor]:
    """Cells around each centre, counted from it: dx (*, 1, n) and dy (*, m, 1), enough for the largest bump or those of the whole map.

    A GPU takes the whole map rather than tell the host how large the bumps are.
    """
    if whole:
        dx, dy = (torch.arange(side, device=corner.device) - corner[..., axis, None] for axis, side in enumerate(sides))
    else:  # a bump may be larger than the map: a box of a kilometre is a mistake, not a crash
        reach = min(int(radius.amax()), max(sides))
        dx = dy = torch.arange(-reach, reach + 1)[None, None]
    return dx[..., None, :], dy[..., :, None]


def centre_losses(outputs: dict[str, Tensor], targets: CentreTargets, weight: float = 1.0) -> dict[str, Tensor]:
    """`centre_heat` (Gaussian focal loss), `centre_xy` and `centre_z` (L1 at the boxes), as Panoptic-FlashOcc weighs them.

    Args:
        outputs: `heatmap` logits, `reg` and `height` of a centre head, (B, *, Y, X).
        targets: of the same map.
        weight: factor on all three; both L1 losses have another 0.25.
    """
    regressed = torch.cat([outputs["reg"], outputs["height"]], 1).float().flatten(2)  # (B, 3, Y*X)
    found = regressed.gather(2, targets.cells[:, None].expand(-1, 3, -1)).mT  # (B, S, 3)
    expected = torch.cat([targets.offset, targets.height[..., None]], -1).float()
    error = ((found - expected).abs() * targets.is_box[..., None]).sum((0, 1)) * 0.25 / (targets.is_box.sum() + 1e-4)
    heat = gaussian_focal_loss(outputs["heatmap"], targets.heatmap.float())
    return {"centre_heat": weight * heat, "centre_xy": weight * (error[0] + error[1]), "centre_z": weight * error[2]}


def gaussian_focal_loss(logits: Tensor, heat: Tensor, alpha: float = 2.0, gamma: float = 4.0) -> Tensor:
    """CornerNet's focal loss of heat maps, summed and divided by the number of centres; probabilities are kept off 0 and 1 by 1e-4."""
    p = logits.float().sigmoid().clamp(1e-4, 1 - 1e-4)
    is_centre = heat == 1
    positive = -(p + 1e-12).log() * (1 - p) ** alpha * is_centre
    negative = -(1 - p + 1e-12).log() * p**alpha * (1 - heat) ** gamma
    return (positive + negative).sum() / is_centre.sum().clamp(min=1)
