"""For networks that work in the frame of LIDAR_TOP, as those of mmdet3d's projects do: a batch's cameras, labels and boxes there and back.

`key_ego2global` and `bev_aug` of a batch are those of the ego frame. A point p of it is lidar2ego^-1 @ p in the frame of the LiDAR, so a
network there sees the pose key_ego2global @ lidar2ego and the augmentation lidar2ego^-1 @ bev_aug @ lidar2ego.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from frustum.errors import DataError
from frustum.geometry.boxes import transform_boxes
from frustum.geometry.transforms import send, without_autocast
from frustum.types.batch import Batch
from frustum.types.frame import Frame
from frustum.types.predictions import PredictedBoxes


def need_lidar2ego(batch: Batch) -> Tensor:
    """(B, 4, 4) float64. Raises DataError where the batch does not have it."""
    if batch.lidar2ego is None:
        raise DataError(
            "these weights work in the frame of the sensor LIDAR_TOP (model.frame=lidar), but a sample has none, so that its boxes cannot "
            "be placed. Use data that has one, or say in Python where it would be on your vehicle, x to the right, y ahead, z up: "
            "Batch.from_arrays(..., lidar2ego=...)."
        )
    return batch.lidar2ego.double()


def in_lidar_frame(frame: Frame, batch: Batch) -> Frame:
    """The cameras of `frame`, a moment of the batch, as a network in the frame of LIDAR_TOP sees them. Raises DataError."""
    lidar2ego = need_lidar2ego(batch)
    bev_aug = torch.linalg.inv(lidar2ego) @ frame.bev_aug.double() @ lidar2ego
    return frame._replace(ego2global=frame.ego2global.double() @ lidar2ego, bev_aug=bev_aug)


def boxes_to_lidar(boxes: Sequence[Tensor], batch: Batch) -> list[Tensor]:
    """Labels (M, 9) of each sample from the (augmented) ego frame to the (augmented) frame of LIDAR_TOP. Raises DataError."""
    return _moved(torch.linalg.inv(need_lidar2ego(batch)), boxes)


def boxes_to_ego(found: Sequence[PredictedBoxes], batch: Batch) -> list[PredictedBoxes]:
    """Predictions in the frame of LIDAR_TOP brought to the ego frame. Raises DataError."""
    boxes = _moved(need_lidar2ego(batch), [one.boxes for one in found])
    return [replace(one, boxes=box) for one, box in zip(found, boxes, strict=True)]


def _moved(a2b: Tensor, boxes: Sequence[Tensor]) -> list[Tensor]:
    pairs = [(send(matrix, box.device, box.dtype), box) for matrix, box in zip(a2b, boxes, strict=True)]
    if not pairs:
        return []
    with torch.no_grad(), without_autocast(pairs[0][1]):
        return [transform_boxes(matrix, box) for matrix, box in pairs]
