"""The rules of a nuScenes detection evaluation, and what it needs to know of the surroundings of a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from frustum.errors import ConfigError

ERRORS: tuple[str, ...] = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
"""The five errors of true positives, by the official names: ATE, ASE, AOE, AVE, AAE."""


@dataclass(frozen=True)
class DetectionRules:
    """The settings of an evaluation; the default is nuScenes' `detection_cvpr_2019`.

    Args:
        ranges: class names and the horizontal distance from the ego vehicle, in metres, below which their boxes count. The position of a
            class is its label.
        thresholds: horizontal distances between centres, in metres, below which a prediction may match.
        error_threshold: the one of `thresholds` whose matches the five errors are taken from.
        min_recall, min_precision: what lies below does not count.
        max_boxes: predictions that one sample may have.
        map_weight: weight of mAP in NDS, each error score having 1.
        half_turn: classes whose front and back look alike.
        rack_classes: classes that do not count inside a bicycle rack.
        unmeasured: errors that are not defined for a class.

    Raises:
        ConfigError: `error_threshold` is not one of the thresholds.
    """

    ranges: tuple[tuple[str, float], ...] = (
        ("car", 50.0), ("truck", 50.0), ("construction_vehicle", 50.0), ("bus", 50.0), ("trailer", 50.0), ("barrier", 30.0),
        ("motorcycle", 40.0), ("bicycle", 40.0), ("pedestrian", 40.0), ("traffic_cone", 30.0),
    )  # fmt: skip
    thresholds: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    error_threshold: float = 2.0
    min_recall: float = 0.1
    min_precision: float = 0.1
    max_boxes: int = 500
    map_weight: float = 5.0
    half_turn: tuple[str, ...] = ("barrier",)
    rack_classes: tuple[str, ...] = ("bicycle", "motorcycle")
    unmeasured: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("barrier", ("vel_err", "attr_err")),
        ("traffic_cone", ("orient_err", "vel_err", "attr_err")),
    )

    def __post_init__(self) -> None:
        if self.error_threshold not in self.thresholds:
            raise ConfigError(f"error_threshold must be one of the thresholds {self.thresholds}, got {self.error_threshold}.")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label."""
        return tuple(name for name, _ in self.ranges)

    def labels_of(self, names: tuple[str, ...]) -> np.ndarray:
        """Bool (K,): which labels have one of these names."""
        return np.array([name in names for name in self.classes])

    def is_measured(self, name: str, error: str) -> bool:
        """Whether this error is defined for this class."""
        return error not in dict(self.unmeasured).get(name, ())


class Surroundings(NamedTuple):
    """What the filters need to know of a sample, in the frame of its boxes."""

    ego: np.ndarray  # (2,) or (3,) position of the ego vehicle
    rack_poses: np.ndarray = np.zeros((0, 4, 4))  # (R, 4, 4) of bicycle racks
    rack_sizes: np.ndarray = np.zeros((0, 3))  # (R, 3) length, width, height
