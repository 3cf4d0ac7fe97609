"""Prediction: what a model says about one sample."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from frustum.geometry import VoxelGrid


@dataclass(frozen=True)
class Prediction:
    """What a model says about one sample, in the ego frame of its keyframe and SI units.

    Attributes:
        token: sample token.
        semantics: (X, Y, Z) uint8 class ids, or None.
        grid, class_names: what the voxels and ids mean.
        instances: (X, Y, Z) integers from 0 to 65535, or None. Voxels of one class that share a number are one segment; so all voxels of a
            class without objects, such as driveable_surface, share one.
    """

    token: str
    semantics: Tensor | None = None
    grid: VoxelGrid | None = None
    class_names: tuple[str, ...] = ()
    instances: Tensor | None = None


@dataclass(frozen=True)
class PanopticOccupancy(Prediction):
    """Occupancy whose objects are told apart.

    Attributes:
        instance_ids: (I,) the numbers in `instances` that are objects.
        instance_classes: (I,) int64 class ids.
        instance_centres: (I, 3) metres.
        instance_scores: (I,) confidence, 0..1.
    """

    instance_ids: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    instance_classes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    instance_centres: Tensor = field(default_factory=lambda: torch.zeros(0, 3))
    instance_scores: Tensor = field(default_factory=lambda: torch.zeros(0))
