"""Training a head of boxes over a map of object centres: the losses of BEVDet (CenterPoint's, in mmdetection3d's form).

Shape letters: B batch, S slots, X Y map cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from frustum.losses.centres import CentreTargets, gaussian_focal_loss

REGRESSED = ("reg", "height", "dim", "rot", "vel")
"""The outputs of the head beside its heat maps, side by side in `expected_boxes`."""


def expected_boxes(targets: CentreTargets) -> Tensor:
    """What the head should regress at each box, (B, S, 10) float32.

    Offset in the cell (2), z, logarithms of length, width and height, sine and cosine of the yaw, velocity (2), which is NaN where unknown.
    """
    boxes = targets.boxes.float()
    size = boxes[..., 3:6].where(targets.is_box[..., None], 1).clamp(min=1e-3).log()  # flat boxes are a mistake, not a crash
    yaw = boxes[..., 6:7]
    return torch.cat([targets.offset.float(), boxes[..., 2:3], size, yaw.sin(), yaw.cos(), boxes[..., 7:9]], -1)


def box_losses(
    outputs: dict[str, Tensor], targets: CentreTargets, weight: float = 1.0, l1_weight: float = 0.25, velocity_weight: float = 0.2
) -> dict[str, Tensor]:
    """`box_heat` (Gaussian focal loss), and `box_xy`, `box_z`, `box_size`, `box_yaw`, `box_velocity` (L1 at the boxes, mean over them).

    A velocity that is unknown does not count.

    Args:
        outputs: `heatmap` logits, `reg`, `height`, `dim`, `rot` and `vel` of a head of boxes, (B, *, Y, X).
        targets: of the same map.
        weight: factor on all losses.
        l1_weight: further factor on what is regressed.
        velocity_weight: further factor on the velocity.
    """
    regressed = torch.cat([outputs[name] for name in REGRESSED], 1).float().flatten(2)  # (B, 10, Y*X)
    found = regressed.gather(2, targets.cells[:, None].expand(-1, regressed.shape[1], -1)).mT  # (B, S, 10)
    expected = expected_boxes(targets)
    known, velocity = expected.split([8, 2], -1)
    counts = targets.is_box[..., None] & torch.cat([torch.ones_like(known, dtype=torch.bool), ~velocity.isnan()], -1)
    error = (found - torch.cat([known, velocity.nan_to_num()], -1)).abs().where(counts, 0).sum((0, 1)) / (targets.is_box.sum() + 1e-4)
    parts = dict(zip(("xy", "z", "size", "yaw", "velocity"), error.split([2, 1, 3, 2, 2]), strict=True))
    losses = {f"box_{name}": weight * l1_weight * part.sum() for name, part in parts.items()}
    losses["box_velocity"] = velocity_weight * losses["box_velocity"]
    return {"box_heat": weight * gaussian_focal_loss(outputs["heatmap"], targets.heatmap.float())} | losses
