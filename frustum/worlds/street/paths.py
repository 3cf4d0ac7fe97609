"""Roads as curves: positions by arc length s and offset d (positive to the left), lanes, junctions and marks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Path:
    """A smooth curve sampled by arc length; beyond its ends it goes on straight."""

    s: np.ndarray  # (K,) ascending, metres
    xy: np.ndarray  # (K, 2) global metres
    yaw: np.ndarray  # (K,) radians, continuous

    @classmethod
    def through(cls, xy: np.ndarray, s0: float = 0.0) -> Path:
        """The path along dense points (K, 2) that starts at arc length `s0`."""
        xy = np.asarray(xy, float)
        tangent = np.gradient(xy, axis=0)
        length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(xy, axis=0), axis=1))])
        return cls(s0 + length, xy, np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0])))

    def at(self, s: np.ndarray | float, d: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Points (*, 2) and headings (*,) at arc lengths `s` and offsets `d`."""
        s, d = np.broadcast_arrays(np.asarray(s, float), np.asarray(d, float))
        inner = np.clip(s, self.s[0], self.s[-1])
        yaw = np.interp(inner, self.s, self.yaw)
        x, y = np.interp(inner, self.s, self.xy[:, 0]), np.interp(inner, self.s, self.xy[:, 1])
        beyond = s - inner
        cos, sin = np.cos(yaw), np.sin(yaw)
        return np.stack([x + beyond * cos - d * sin, y + beyond * sin + d * cos], -1), yaw

    def offset(self, d: float, s0: float, s1: float, step: float = 0.5) -> Path:
        """The parallel path at offset `d` from `s0` to `s1` of this one, in that direction; it has its own arc length."""
        count = max(2, int(abs(s1 - s0) / step) + 1)
        return Path.through(self.at(np.linspace(s0, s1, count), d)[0])

    def nearest(self, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Arc length and offset (*,) of points (*, 2), by the nearest sample."""
        xy = np.asarray(xy, float)
        flat = xy.reshape(-1, 2)
        k = np.argmin(((flat[:, None] - self.xy[None]) ** 2).sum(-1), 1)
        delta = flat - self.xy[k]
        cos, sin = np.cos(self.yaw[k]), np.sin(self.yaw[k])
        s = self.s[k] + delta[:, 0] * cos + delta[:, 1] * sin
        return s.reshape(xy.shape[:-1]), (delta[:, 1] * cos - delta[:, 0] * sin).reshape(xy.shape[:-1])


@dataclass(frozen=True)
class Road:
    """A carriageway around a path with its cross-section; left is d > 0, right is d < 0. Traffic keeps to the right."""

    path: Path
    start: float  # arc length where the carriageway begins (side roads begin at the main road's centre line)
    stop: float
    forward: tuple[float, ...]  # offsets of the centre lines of lanes in the direction of s (negative), inner lane first
    backward: tuple[float, ...]  # offsets of the lanes against it (positive), inner lane first
    lane_width: float
    left: float  # distance of the left kerb from the path
    right: float
    parking_left: float = 0.0  # width of the parking strip inside the kerb
    parking_right: float = 0.0
    median: float = 0.0  # width of the raised strip in the middle
    cycle: float = 0.0  # width of the red cycle lane inside each kerb


@dataclass(frozen=True)
class Rect:
    """A rectangle in the (s, d) frame of road number `road`; its corners may be given in any order."""

    road: int
    s0: float
    s1: float
    d0: float
    d1: float
    material: str = ""
    dash: float = 0.0  # painted length of each period; 0 is solid
    period: float = 1.0

    def __post_init__(self) -> None:
        for low, high in (("s0", "s1"), ("d0", "d1")):
            a, b = float(getattr(self, low)), float(getattr(self, high))
            object.__setattr__(self, low, min(a, b))
            object.__setattr__(self, high, max(a, b))

    @property
    def row(self) -> tuple[float, ...]:
        """Numbers for the kernels."""
        return (self.road, self.s0, self.s1, self.d0, self.d1, self.dash, self.period)


@dataclass(frozen=True)
class Crossing:
    """A zebra crossing: the strip [s0, s1] of a road, from kerb to kerb."""

    road: int
    s0: float
    s1: float


@dataclass
class Network:
    """The plan of all flat things; filled by `roads.plan_network` and extended by the frontage."""

    roads: list[Road]
    pavement_left: float  # width of the pavement beyond the kerb of the main road (and of side roads on both sides)
    pavement_right: float
    verge_left: float  # width of the grass strip between kerb and pavement, 0 for none
    verge_right: float
    corner_radius: float
    junctions: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)  # arc length on the main road, numbers of the side roads
    crossings: list[Crossing] = field(default_factory=list)
    islands: list[Rect] = field(default_factory=list)  # raised, with kerbs
    paved: list[Rect] = field(default_factory=list)  # car parks and driveways: asphalt at road level
    marks: list[Rect] = field(default_factory=list)  # painted in order

    @property
    def main(self) -> Road:
        """The road of the ego vehicle."""
        return self.roads[0]
