"""Detected or true boxes of the ten nuScenes classes in the global frame, as its official evaluation compares them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from frustum.geometry import quaternion_to_matrix, yaw_of
from frustum.types.classes import ATTRIBUTES, DETECTION_CLASSES

LABEL_OF: dict[str, int] = {name: label for label, name in enumerate(DETECTION_CLASSES)}
ATTRIBUTE_OF: dict[str, int] = {name: i for i, name in enumerate(ATTRIBUTES)} | {"": -1}


@dataclass(frozen=True)
class DetectionBoxes:
    """M boxes of one keyframe, global frame."""

    labels: np.ndarray  # (M,) int, positions in DETECTION_CLASSES
    centres: np.ndarray  # (M, 3) metres
    sizes: np.ndarray  # (M, 3) length, width, height
    rotations: np.ndarray  # (M, 4) quaternions (w, x, y, z)
    velocities: np.ndarray  # (M, 2) m/s, NaN where unknown
    attributes: np.ndarray  # (M,) int, positions in ATTRIBUTES, -1 for none
    scores: np.ndarray  # (M,) confidence; -1 of true boxes
    num_points: np.ndarray  # (M,) LiDAR and radar points inside; -1 unknown

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def yaws(self) -> np.ndarray:
        """(M,) headings seen from above, radians."""
        return yaw_of(quaternion_to_matrix(self.rotations))

    @property
    def names(self) -> list[str]:
        """Class names."""
        return [DETECTION_CLASSES[label] for label in self.labels]

    @property
    def attribute_names(self) -> list[str]:
        """Attribute names, "" for none."""
        return ["" if a < 0 else ATTRIBUTES[a] for a in self.attributes]

    def select(self, rows: np.ndarray) -> DetectionBoxes:
        """The boxes of some rows: indices, or a bool mask."""
        return DetectionBoxes(*(getattr(self, field.name)[rows] for field in fields(self)))

    def best(self, count: int) -> DetectionBoxes:
        """The `count` boxes with the highest scores, in the order that they have."""
        return self.select(np.sort(np.argsort(-self.scores, kind="stable")[:count]))

    @classmethod
    def empty(cls) -> DetectionBoxes:
        """No boxes."""
        integers, numbers = np.zeros(0, np.int64), np.zeros(0)
        return cls(integers, np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 4)), np.zeros((0, 2)), integers, numbers, integers)
