"""Boxes from the outputs of a centre head: BEVDet's decoding, and three ways to drop boxes of the same object.

Shape letters: B batch, K classes, Q the best cells, X Y map cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from frustum.config import Config
from frustum.geometry import VoxelGrid
from frustum.geometry.transforms import send
from frustum.nn.box_code import MAX_LOG_SIZE
from frustum.nn.centre_head import best_cells, peaks_of
from frustum.ops.rotated_nms import circle_nms, rotated_nms
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.predictions import PredictedBoxes, Prediction

_REACH = (61.2, 61.2, 10.0)
"""Metres from the ego vehicle within which a centre counts."""
_SCALE = {
    "car": 1.0, "truck": 0.7, "construction_vehicle": 0.7, "bus": 0.4, "trailer": 0.55, "barrier": 1.1, "motorcycle": 1.0,
    "bicycle": 1.0, "pedestrian": 1.5, "traffic_cone": 3.5,
}  # fmt: skip
_CIRCLE = {
    "car": 4.0, "truck": 12.0, "construction_vehicle": 12.0, "bus": 10.0, "trailer": 10.0, "barrier": 1.0, "motorcycle": 0.85,
    "bicycle": 0.85, "pedestrian": 0.175, "traffic_cone": 0.175,
}  # fmt: skip

Suppression = Literal["scale", "rotated", "circle"]


class BoxDecoding(Config):
    """How boxes are read from the outputs of the head; as BEVDet by default.

    Attributes:
        max_boxes: cells of a sample that are read, best first.
        peaks: read only cells that no neighbour of the same class exceeds. BEVDet reads all and relies on suppression; the cells of one
            blurred bump give small boxes side by side that hardly overlap.
        score_threshold: a box needs a higher score.
        suppression: what drops a box that overlaps a better one. `rotated` compares the boxes as seen from above, whatever their classes;
            `scale` (BEVDet's Scale-NMS) the same after small objects were enlarged and large ones shrunk, by class: boxes of one
            pedestrian often do not overlap at all, and those of one bus beside another do; `circle` compares the centres of boxes of
            one class, by CenterPoint's radii.
        iou: overlap above which `rotated` and `scale` drop a box.
        max_kept: boxes of a sample that are kept.
    """

    max_boxes: int = Field(500, ge=1)
    peaks: bool = False
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.1
    suppression: Suppression = "scale"
    iou: Annotated[NonNegativeFloat, Field(le=1)] = 0.2
    max_kept: int = Field(500, ge=1)


class DecodedBoxes(NamedTuple):
    """The Q best cells of each sample, best first.

    Attributes:
        boxes: (B, Q, 9) of `geometry.BOX_FIELDS`.
        classes: (B, Q) int64 in the order of the heat map's channels.
        scores: (B, Q).
    """

    boxes: Tensor
    classes: Tensor
    scores: Tensor


def decode_boxes(outputs: dict[str, Tensor], grid: VoxelGrid, max_boxes: int = 500, peaks: bool = False) -> DecodedBoxes:
    """The boxes at the `max_boxes` highest entries of the heat maps; with `peaks`, others than peaks have a score of 0.

    Args:
        outputs: `heatmap` (B, K, Y, X) logits, `reg` (B, 2, Y, X) offset in cells, `height` (B, 1, Y, X) metres, `dim` (B, 3, Y, X)
            logarithms of length, width and height, `rot` (B, 2, Y, X) sine and cosine of the yaw, `vel` (B, 2, Y, X) m/s.
        grid: the map's cells.
    """
    heat = outputs["heatmap"].float().sigmoid()
    centres, cell = best_cells(peaks_of(heat) if peaks else heat, outputs, grid, max_boxes)
    rest = torch.cat([outputs[name] for name in ("dim", "rot", "vel")], 1).float().flatten(2)  # (B, 7, Y*X)
    size, turn, velocity = rest.gather(2, cell[:, None].expand(-1, 7, -1)).mT.split([3, 2, 2], -1)
    yaw = torch.atan2(turn[..., :1], turn[..., 1:])
    boxes = torch.cat([centres.points, size.clamp(max=MAX_LOG_SIZE).exp(), yaw, velocity], -1)
    return DecodedBoxes(boxes, centres.classes, centres.scores)


@torch.no_grad()
def box_predictions(outputs: dict[str, Tensor], tokens: Sequence[str], grid: VoxelGrid, config: BoxDecoding) -> list[Prediction]:
    """The boxes of each sample, for the ten classes of DETECTION_CLASSES, with the best score first. Arguments as in `decode_boxes`."""
    found = decode_boxes(outputs, grid, config.max_boxes, config.peaks)
    reach = send(torch.tensor(_REACH), found.boxes.device)
    counts = (found.scores > config.score_threshold) & (found.boxes[..., :3].abs() <= reach).all(-1)
    predictions = []
    for token, boxes, classes, scores, is_in in zip(tokens, *found, counts, strict=True):
        boxes, classes, scores = boxes[is_in], classes[is_in], scores[is_in]
        part = without_overlaps(PredictedBoxes(boxes, classes, scores, DETECTION_CLASSES), config)
        predictions.append(Prediction(token, boxes=part))
    return predictions


def without_overlaps(found: PredictedBoxes, config: BoxDecoding) -> PredictedBoxes:
    """Those of boxes of DETECTION_CLASSES that `config.suppression` keeps, best first."""
    kept = suppressed(found.boxes, found.classes, found.scores, config)
    return PredictedBoxes(found.boxes[kept], found.classes[kept], found.scores[kept], found.class_names)


def suppressed(boxes: Tensor, classes: Tensor, scores: Tensor, config: BoxDecoding) -> Tensor:
    """Positions of the boxes (M, 9) with classes (M,) in DETECTION_CLASSES and scores (M,) that are kept, best first."""
    if config.suppression == "circle":
        return circle_nms(boxes[:, :2], classes, scores, _table(_CIRCLE, boxes), config.max_kept)
    seen = boxes[:, [0, 1, 3, 4, 6]]
    if config.suppression == "scale":
        seen[:, 2:4] *= _table(_SCALE, boxes)[classes, None]
    return rotated_nms(seen, scores, config.iou, config.max_kept)


def _table(by_class: dict[str, float], like: Tensor) -> Tensor:
    return send(torch.tensor([by_class[name] for name in DETECTION_CLASSES]), like.device)
