"""The crafted inputs of Panoptic-FlashOcc's golden numbers, and how instance volumes are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from frustum.types.classes import DETECTION_CLASSES, OCC3D_CLASSES
from tests.models.golden_weights import rng

SMALL = Path(__file__).resolve().parents[1] / "data" / "panoptic"
"""Golden files that travel with the repository."""

# class id, size in voxels, number of objects
_OBJECTS = (
    (4, (11, 5, 4), 8), (7, (2, 2, 5), 8), (2, (4, 2, 4), 5), (3, (28, 7, 8), 3), (10, (18, 6, 7), 4), (9, (24, 6, 8), 3),
    (5, (14, 7, 8), 3), (6, (5, 2, 4), 5), (8, (1, 1, 3), 5), (1, (5, 2, 3), 5),
)  # fmt: skip
_SIZES = {
    "car": (4.6, 1.9, 1.7), "truck": (6.9, 2.5, 2.8), "construction_vehicle": (6.4, 2.9, 3.2), "bus": (11, 2.9, 3.4),
    "trailer": (12, 2.9, 3.9), "barrier": (0.5, 2.5, 1.0), "motorcycle": (2.1, 0.8, 1.5), "bicycle": (1.7, 0.6, 1.3),
    "pedestrian": (0.7, 0.7, 1.8), "traffic_cone": (0.4, 0.4, 1.1),
}  # fmt: skip


def scene() -> tuple[Tensor, dict[str, Tensor]]:
    """Labels (1, 200, 200, 16) of a scene with objects, and the outputs of a centre head that finds four of five of them."""
    occ = np.full((200, 200, 16), 17, np.uint8)
    occ[:, :, 0:2], occ[:, :60, 0:3], occ[0:20, :, 0:6] = 11, 13, 15
    draw = rng("crafted.pano")
    heat = np.float32(-6.0) + draw.normal(0, 0.3, (1, 10, 200, 200)).astype(np.float32)
    reg, height = np.zeros((1, 2, 200, 200), np.float32), np.zeros((1, 1, 200, 200), np.float32)
    for label, (length, width, tall), count in _OBJECTS:
        for _ in range(count):
            x, y = int(draw.integers(22, 170)), int(draw.integers(62, 185))
            occ[x : x + length, y : y + width, 2 : 2 + tall] = label
            centre_x, centre_y = x + length / 2, y + width / 2
            i, j, channel = int(centre_x), int(centre_y), DETECTION_CLASSES.index(OCC3D_CLASSES[label])
            if draw.random() < 0.8:
                heat[0, channel, j, i] = draw.uniform(0.0, 3.0)
                heat[0, channel, j, max(i - 1, 0)] = draw.uniform(-2.0, -0.5)
                reg[0, 0, j, i], reg[0, 1, j, i] = centre_x - i, centre_y - j
                height[0, 0, j, i] = -1 + (2 + tall / 2) * 0.4
    outputs = {"heatmap": heat, "reg": reg, "height": height}
    return torch.from_numpy(occ)[None], {name: torch.from_numpy(value) for name, value in outputs.items()}


def boxes(count: int = 40) -> tuple[Tensor, Tensor]:
    """Boxes (M, 9), some outside the map, and their classes (M,), sorted by class as the reference sorts them."""
    draw = rng("crafted.boxes")
    labels = draw.integers(0, 10, count)
    rows = np.zeros((count, 9), np.float32)
    for i in range(count):
        rows[i, :2] = draw.uniform(-45, 45, 2)
        rows[i, 2] = draw.uniform(-0.5, 1.5)
        rows[i, 3:6] = np.array(_SIZES[DETECTION_CLASSES[labels[i]]]) * draw.uniform(0.9, 1.1, 3)
        rows[i, 6] = draw.uniform(-np.pi, np.pi)
        rows[i, 7:] = draw.normal(0, 3, 2)
    order = np.argsort(labels, kind="stable")
    return torch.from_numpy(rows[order]), torch.from_numpy(labels[order])


def head_outputs() -> dict[str, Tensor]:
    """Random outputs of a centre head over 200 x 200 cells."""
    channels = {"reg": 2, "height": 1, "heatmap": 10}
    return {
        n: torch.from_numpy(rng(f"crafted.centerness.{n}").standard_normal((1, c, 200, 200)).astype(np.float32))
        for n, c in channels.items()
    }


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two volumes of numbers cut space into the same parts, whatever the parts are called."""
    pairs = np.unique(np.stack([one.ravel().astype(np.int64), other.ravel().astype(np.int64)]), axis=1)
    return len(pairs[0]) == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))
