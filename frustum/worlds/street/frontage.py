"""What lines the main road: a row of plots on each side, planned before the ground is painted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from frustum.worlds.street.paths import Network, Rect
from frustum.worlds.street.roads import District

# kind of plot: range of widths along the road, metres
_WIDTH = {
    "row": (11, 24),
    "house": (13, 19),
    "park": (24, 44),
    "carpark": (25, 42),
    "plaza": (18, 30),
    "hall": (28, 46),
    "site": (22, 32),
    "field": (18, 34),
}
STALL = 2.7  # metres along the road per parking space
STALL_DEPTH = 5.2
AISLE = 6.2


@dataclass(frozen=True)
class Spot:
    """A place where a vehicle can stand."""

    kind: str  # stall, kerb, drive, site
    x: float
    y: float
    yaw: float
    length: float  # free length, metres


@dataclass(frozen=True)
class Plot:
    """A piece of land along the road. `depth coordinate` u runs away from the road, from u = 0 at the straight front line."""

    kind: str
    x0: float
    x1: float
    side: int  # +1 left of the main road, -1 right
    front: float  # y of the front line, the farthest that the pavement reaches into the plot

    def y(self, u: float) -> float:
        """Global y at depth `u`."""
        return self.front + self.side * u

    def span(self, u0: float, u1: float) -> tuple[float, float]:
        """Global y range between two depths, ascending."""
        a, b = self.y(u0), self.y(u1)
        return (a, b) if a < b else (b, a)


class FrontLine:
    """The outer edge of the main road's pavement as y over x, for both sides."""

    def __init__(self, network: Network):
        road = network.main
        s = np.arange(road.path.s[0], road.path.s[-1], 1.0)
        self._curves = {}
        for side, d in (
            (1, road.left + network.verge_left + network.pavement_left),
            (-1, -(road.right + network.verge_right + network.pavement_right)),
        ):
            xy, _ = road.path.at(s, d)
            self._curves[side] = (xy[:, 0], xy[:, 1])

    def at(self, x: np.ndarray | float, side: int) -> np.ndarray:
        """y of the line at x."""
        return np.interp(x, *self._curves[side])

    def farthest(self, x0: float, x1: float, side: int) -> float:
        """The y that is farthest from the road over a range of x."""
        y = self.at(np.linspace(x0, x1, 16), side)
        return float(y.max() if side > 0 else y.min())


def _blocked(network: Network, side: int) -> list[tuple[float, float]]:
    """Ranges of x that side roads take on one side."""
    result = []
    reach = network.main.left if side > 0 else network.main.right
    for road in network.roads[1:]:
        if np.sign(np.sin(road.path.yaw[0])) == side:
            xy, _ = road.path.at(np.linspace(reach, reach + 26, 6))
            half = road.left + 3.4
            result.append((float(xy[:, 0].min()) - half, float(xy[:, 0].max()) + half))
    return sorted(result)


def plan_plots(rng: np.random.Generator, network: Network, district: District, low: float, high: float, length: float) -> list[Plot]:
    """Plots on both sides between x = `low` and `high`; one is a building site beside the first `length` metres of the road."""
    line = FrontLine(network)
    kinds = list(district.frontage)
    weights = np.array([district.frontage[k] for k in kinds])
    weights = weights / weights.sum()
    plots = []
    for side in (1, -1):
        begin, gaps = low, [*_blocked(network, side), (high, high)]
        for gap0, gap1 in gaps:
            x = begin
            while gap0 - x > 9:
                kind = str(rng.choice(kinds, p=weights))
                width = min(rng.uniform(*_WIDTH[kind]), gap0 - x)
                if gap0 - x - width < 9:
                    width = gap0 - x
                if width < 0.8 * _WIDTH[kind][0]:
                    kind = "row" if "row" in kinds and rng.random() < 0.5 else "field"
                plots.append(Plot(kind, x, x + width, side, line.farthest(x, x + width, side)))
                x += width
            begin = max(begin, gap1)
    plots = _with(rng, plots, "site", 15.0, length)
    if not (network.main.parking_left or network.main.parking_right):
        plots = _with(rng, plots, "carpark", 19.0, length)
    return plots


def _with(rng: np.random.Generator, plots: list[Plot], kind: str, width: float, length: float) -> list[Plot]:
    """The plots with at least one of a kind beside the ego path; a plot that is wide enough changes its use."""
    for low, high, least in ((0.1 * length, 0.95 * length, width), (-8.0, length + 8.0, 0.85 * width)):
        near = [k for k, p in enumerate(plots) if p.x1 - p.x0 > least and low < (p.x0 + p.x1) / 2 < high]
        if any(plots[k].kind == kind for k in near):
            return plots
        free = [k for k in near if plots[k].kind != "site"]
        if free:
            chosen = free[int(rng.integers(len(free)))]
            return [replace(p, kind=kind) if k == chosen else p for k, p in enumerate(plots)]
    return plots


def pave_car_parks(rng: np.random.Generator, network: Network, plots: list[Plot]) -> tuple[list[Spot], list[Rect]]:
    """Add the asphalt and marks of car parks to the network.

    Returns:
        the parking spaces, and the stretches where the kerb is lowered for the driveways.
    """
    spots: list[Spot] = []
    drops: list[Rect] = []
    path, road = network.main.path, network.main
    for plot in plots:
        if plot.kind != "carpark":
            continue
        side = plot.side
        edge = road.left if side > 0 else road.right
        inner = edge + (network.verge_left + network.pavement_left if side > 0 else network.verge_right + network.pavement_right) + 1.2
        s_ends, _ = path.nearest(np.array([[plot.x0, plot.y(0)], [plot.x1, plot.y(0)]]))
        s0, s1 = float(s_ends[0]) + 2.5, float(s_ends[1]) - 2.5
        count = int((s1 - s0) / STALL)
        if count < 4:
            continue
        rows = 2
        outer = inner + rows * STALL_DEPTH + AISLE
        network.paved.append(Rect(0, s0, s1, side * inner, side * outer))
        gate = int(rng.integers(1, count - 2))
        g0, g1 = s0 + gate * STALL, s0 + (gate + 2) * STALL
        network.paved.append(Rect(0, g0, g1, side * (edge - 1.0), side * (inner + 0.5)))
        for first, kind in ((inner, 0), (inner + STALL_DEPTH + AISLE, 1)):
            for k in range(count + 1):
                s = s0 + k * STALL
                if kind == 0 and gate < k < gate + 2:
                    continue
                network.marks.append(Rect(0, s - 0.06, s + 0.06, side * first, side * (first + STALL_DEPTH), "marking"))
                if k < count and not (kind == 0 and gate <= k < gate + 2):
                    xy, yaw = path.at(s + STALL / 2, side * (first + STALL_DEPTH / 2))
                    turn = np.pi / 2 if rng.random() < 0.5 else -np.pi / 2
                    spots.append(Spot("stall", float(xy[0]), float(xy[1]), float(yaw) + turn, STALL_DEPTH))
    return spots, drops


def kerb_spots(network: Network, length: float) -> list[Spot]:
    """Parking spaces along the kerbs of the main road."""
    road, spots = network.main, []
    from frustum.worlds.street.roads import free_stretches

    for strip, edge, side in ((road.parking_left, road.left, 1), (road.parking_right, road.right, -1)):
        if not strip:
            continue
        for low, high in free_stretches(network, 0.0):
            taken = [
                (r.s0, r.s1) for r in network.islands if r.road == 0 and (r.d0 + r.d1) * side > 0 and abs(r.d1 + r.d0) / 2 > edge - strip
            ]
            for s in np.arange(low + 5.0, high - 11.0, 6.0):
                if -50 < s < length + 50 and not any(a - 0.2 < s + 6 and s < b + 0.2 for a, b in taken):
                    xy, yaw = road.path.at(s + 3.06, side * (edge - strip / 2 - 0.05))
                    spots.append(Spot("kerb", float(xy[0]), float(xy[1]), float(yaw) + (np.pi if side > 0 else 0.0), 6.0))
    return spots
