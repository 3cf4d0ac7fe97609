"""The ten numbers by which PETR, 3DPPE and their relatives regress a box, and how their predictions are read (Liu et al., ECCV 2022).

A code is (cx, cy, log s0, log s1, cz, log h, sin r, cos r, vx, vy): centre and velocity as in a box, z fifth. What s0, s1 and r are depends
on the version of mmdet3d under which a checkpoint was trained:

`mmdet3d>=1.0`: s0 the length, s1 the width, r the yaw. Official files of 3DPPE.
`mmdet3d<1.0`: s0 the width, s1 the length, r = -yaw - pi/2. Official files of PETR and PETRv2.

Codes have the frame of their boxes, whichever that is. Shape letters: B batch, Q queries, K classes, M boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from frustum.errors import CheckpointError, ShapeError
from frustum.geometry.transforms import without_autocast
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.predictions import PredictedBoxes

BoxConvention = Literal["mmdet3d<1.0", "mmdet3d>=1.0"]
CODE_FIELDS = ("cx", "cy", "log s0", "log s1", "cz", "log h", "sin", "cos", "vx", "vy")
CENTRE = (0, 1, 4)
"""Where x, y and z are in a code."""
MAX_LOG_SIZE = 5.0
"""Of predictions: 148 m. No object is larger, and nothing overflows."""
_LOG_SIZES = (2, 3, 5)


def stated_convention(around: Mapping[str, Any]) -> BoxConvention | None:
    """The convention of an upstream file by the version of mmdet3d in its `meta`; None if it does not hold one."""
    major = str(around.get("mmdet3d_version", "")).partition(".")[0]
    return ("mmdet3d>=1.0" if int(major) else "mmdet3d<1.0") if major.isdecimal() else None


def unstated_convention(what: str, say: str) -> CheckpointError:
    """The error for weights whose convention nobody states; `say` is what to type in front of the setting."""
    return CheckpointError(
        f"{what} does not say how its boxes are coded: no version of mmdet3d is named in it. Files of PETR and PETRv2 are mmdet3d<1.0, "
        "those of 3DPPE mmdet3d>=1.0; under the wrong one lengths and widths are exchanged and headings turned. Say which it is: "
        f"{say} 'model.box_convention=mmdet3d<1.0' or 'model.box_convention=mmdet3d>=1.0'; in Python box_convention='mmdet3d<1.0'. "
        "Weights that were trained here become a file that says it by: frustum weights convert FILE --source frustum --recipe NAME -o OUT."
    )


def check_start(own: BoxConvention, frame: str, trained: Mapping[str, Any] | None, around: Mapping[str, Any], what: str) -> list[str]:
    """Refuse to start a training with the convention `own` from the box branches of weights with another one, or with who knows which.

    Args:
        own: of the training.
        frame: of the training, `ego` or `lidar`.
        trained: settings of the weights' own network, where their file holds them.
        around: what is around the weights in an upstream file.
        what: the file.

    Returns:
        A sentence about the frame, where that is probably another one.

    Raises:
        CheckpointError: as above.
    """
    theirs = (trained or {}).get("box_convention") or stated_convention(around)
    if theirs is None:
        raise unstated_convention(what, f"convert it first, and start from the result: frustum weights convert {what} -o start.safetensors")
    if theirs != own:
        raise CheckpointError(
            f"{what} codes boxes by the convention {theirs}, this training by {own}: what the weights know of sizes and headings would be "
            f"wrong in it. Train with 'model.box_convention={theirs}'; it changes nothing else."
        )
    is_turned = trained is None and frame == "ego"
    return [f"an official file works in the frame of LIDAR_TOP, this run in that of the ego (model.frame): {what}"] if is_turned else []


def boxes_to_code(boxes: Tensor, convention: BoxConvention = "mmdet3d>=1.0") -> Tensor:
    """Codes (*, 10) of boxes (*, 9) of `geometry.BOX_FIELDS`; (*, 8) of boxes (*, 7) without a velocity.

    A size of 0 becomes -inf, an unknown velocity stays NaN: `losses.set_prediction` leaves both out. Raises ShapeError.
    """
    if boxes.shape[-1] not in (7, 9):
        raise ShapeError(f"boxes have 9 numbers, or 7 without a velocity; got the shape {tuple(boxes.shape)}.")
    x, y, z, length, width, height, yaw = boxes[..., :7].unbind(-1)
    if convention == "mmdet3d<1.0":
        first, second, sine, cosine = width, length, -yaw.cos(), -yaw.sin()  # of -yaw - pi/2
    else:
        first, second, sine, cosine = length, width, yaw.sin(), yaw.cos()
    code = torch.stack([x, y, first.log(), second.log(), z, height.log(), sine, cosine], -1)
    return torch.cat([code, boxes[..., 7:]], -1)


def code_to_boxes(codes: Tensor, convention: BoxConvention = "mmdet3d>=1.0") -> Tensor:
    """The inverse of `boxes_to_code`: boxes (*, 9) of codes (*, 10), or (*, 7) of (*, 8), yaw in -pi..pi. Sine and cosine need not be
    normalised. Raises ShapeError.
    """
    if codes.shape[-1] not in (8, 10):
        raise ShapeError(f"codes have 10 numbers, or 8 without a velocity; got the shape {tuple(codes.shape)}.")
    x, y, first, second, z, height, sine, cosine = codes[..., :8].unbind(-1)
    if convention == "mmdet3d<1.0":
        length, width, yaw = second, first, torch.atan2(-cosine, -sine)
    else:
        length, width, yaw = first, second, torch.atan2(sine, cosine)
    box = torch.stack([x, y, z, length.exp(), width.exp(), height.exp(), yaw], -1)
    return torch.cat([box, codes[..., 8:]], -1)


@torch.no_grad()
def decode_boxes(
    logits: Tensor,
    codes: Tensor,
    convention: BoxConvention = "mmdet3d>=1.0",
    *,
    max_boxes: int = 300,
    limits: Sequence[float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0),
    score_threshold: float | None = None,
    class_names: tuple[str, ...] = DETECTION_CLASSES,
) -> list[PredictedBoxes]:
    """The boxes that a set prediction means, best first, without non-maximum suppression: a query may give a box of several classes.

    Args:
        logits: (B, Q, K) of the last decoder layer, before the sigmoid.
        codes: (B, Q, 10) of that layer, in metres.
        convention: of the codes.
        max_boxes: pairs of query and class with the highest scores that are taken from each sample.
        limits: x, y, z from and to, in metres: boxes with a centre outside are left out afterwards (`post_center_range`).
        score_threshold: scores must be above it; None takes all.
        class_names: of the K classes.

    Returns:
        One for each sample: float32, in the frame of the codes.

    Raises:
        ShapeError: where these shapes do not fit together.
    """
    if logits.shape[:2] != codes.shape[:2] or logits.ndim != 3 or logits.shape[2] != len(class_names):
        shapes = f"logits {tuple(logits.shape)} and codes {tuple(codes.shape)} with {len(class_names)} classes"
        raise ShapeError(f"predictions need logits (B, Q, K) and codes (B, Q, 10), got {shapes}.")
    with without_autocast(logits):
        scores, place = logits.float().sigmoid().flatten(1).topk(min(max_boxes, logits[0].numel()))  # (B, max_boxes)
        classes, query = place % len(class_names), place.div(len(class_names), rounding_mode="floor")
        chosen = codes.float().gather(1, query[..., None].expand(-1, -1, codes.shape[2]))
        for column in _LOG_SIZES:
            chosen[..., column].clamp_(max=MAX_LOG_SIZE)
        boxes = code_to_boxes(chosen, convention)
        centre = boxes[..., :3]
        keep = torch.stack([(centre[..., i] >= limits[i]) & (centre[..., i] <= limits[3 + i]) for i in range(3)]).all(0)
        if score_threshold is not None:
            keep &= scores > score_threshold
    rows = zip(boxes, classes, scores, keep, strict=True)
    return [PredictedBoxes(box[kept], kind[kept], score[kept], class_names) for box, kind, score, kept in rows]
