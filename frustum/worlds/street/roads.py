"""The plan of the road network: a winding main road, side roads, lanes, islands and everything painted on the asphalt."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from frustum.worlds.street.paths import Crossing, Network, Path, Rect, Road


@dataclass(frozen=True)
class District:
    """How a kind of district tends to look; ranges are drawn uniformly, lists with equal chances."""

    lanes: tuple[tuple[int, int], ...]  # forward, backward
    lane_width: tuple[float, float]
    median: float  # probabilities of features
    parking: float
    verge: float
    pavement: tuple[float, float]
    junctions: tuple[int, ...]
    frontage: dict[str, float]  # weights of the kinds of parcels
    storeys: tuple[int, int]
    trees: float


DISTRICTS: dict[str, District] = {
    "downtown": District(
        ((1, 1), (2, 1), (2, 2), (2, 2)), (3.1, 3.4), 0.45, 0.65, 0.25, (2.6, 3.8), (1, 2, 2, 3),
        {"row": 7, "plaza": 1.6, "park": 1.2, "carpark": 1.0, "site": 0.8}, (3, 6), 0.8,
    ),
    "suburb": District(
        ((1, 1), (1, 1), (1, 1), (2, 2)), (3.0, 3.4), 0.25, 0.6, 0.65, (1.8, 2.6), (0, 1, 2, 3),
        {"house": 7, "park": 1.5, "carpark": 1.0, "row": 1.2, "field": 0.6}, (1, 3), 1.2,
    ),
    "park": District(
        ((1, 1), (1, 1), (2, 1), (2, 2)), (3.1, 3.5), 0.5, 0.5, 0.8, (2.0, 3.0), (0, 1, 1, 2),
        {"park": 6, "house": 1.5, "row": 1.5, "field": 1.2, "carpark": 0.8, "plaza": 0.6}, (2, 4), 1.6,
    ),
    "industrial": District(
        ((1, 1), (2, 1), (2, 2)), (3.3, 3.6), 0.35, 0.5, 0.5, (1.8, 2.4), (0, 1, 2),
        {"hall": 6, "carpark": 1.6, "site": 1.2, "field": 1.4, "row": 0.8, "park": 0.8}, (1, 3), 0.7,
    ),
}  # fmt: skip

ZEBRA = 3.2  # metres along the road


def winding_path(rng: np.random.Generator, start: float, stop: float) -> Path:
    """A curve that heads east on the whole and swings by up to about 15 degrees; arc length 0 lies near the origin."""
    s = np.arange(start, stop + 0.5, 0.5)
    yaw = np.zeros_like(s)
    for amplitude, (low, high) in ((0.16, (130, 240)), (0.09, (75, 130))):
        length = rng.uniform(low, high)
        yaw += rng.uniform(0.3, 1.0) * amplitude * np.sin(2 * np.pi * s / length + rng.uniform(0, 2 * np.pi))
    xy = np.concatenate([np.zeros((1, 2)), np.cumsum(0.5 * np.stack([np.cos(yaw[:-1]), np.sin(yaw[:-1])], 1), 0)])
    xy -= xy[int(np.argmin(abs(s)))]
    return Path(s, xy, yaw)


def plan_network(rng: np.random.Generator, district: District, length: float, reach: float) -> Network:
    """Roads for an ego path of `length` metres; everything reaches `reach` metres beyond it."""
    forward, backward = district.lanes[int(rng.integers(len(district.lanes)))]
    width = rng.uniform(*district.lane_width)
    parked = [rng.random() < district.parking for _ in range(2)]
    cycle = 1.6 if not any(parked) and rng.random() < 0.6 else 0.0
    if not cycle and not any(parked):
        parked[int(rng.integers(2))] = True
    median = round(rng.uniform(1.6, 3.2), 1) if rng.random() < district.median else 0.0
    strip = [2.5 if p else 0.0 for p in parked]
    road = Road(
        path=winding_path(rng, -reach, length + reach),
        start=-reach,
        stop=length + reach,
        forward=tuple(-(median / 2 + (k + 0.5) * width) for k in range(forward)),
        backward=tuple(median / 2 + (k + 0.5) * width for k in range(backward)),
        lane_width=width,
        left=median / 2 + backward * width + cycle + strip[0],
        right=median / 2 + forward * width + cycle + strip[1],
        parking_left=strip[0],
        parking_right=strip[1],
        median=median,
        cycle=cycle,
    )
    verge = [round(rng.uniform(1.4, 2.4), 1) if rng.random() < district.verge else 0.0 for _ in range(2)]
    pavement = [round(rng.uniform(*district.pavement), 1) for _ in range(2)]
    network = Network([road], pavement[0], pavement[1], verge[0], verge[1], float(rng.uniform(4.0, 7.0)))
    _add_side_roads(rng, network, district, length, reach)
    _add_crossings(rng, network, length)
    _add_islands(rng, network)
    _mark_lanes(rng, network)
    return network


def free_stretches(network: Network, room: float = 0.0) -> list[tuple[float, float]]:
    """The stretches of the main road between junctions and their crossings, `room` metres shorter at every end."""
    blocked = []
    for at, sides in network.junctions:
        half = max(network.roads[k].left for k in sides) + network.corner_radius
        blocked.append([at - half, at + half])
    blocked += [[c.s0 - 1.5, c.s1 + 1.5] for c in network.crossings if c.road == 0]
    result, begin = [], network.main.start
    for low, high in sorted(blocked):
        if low - begin > 2 * room + 1.0:
            result.append((begin + room, low - room))
        begin = max(begin, high)
    result.append((begin + room, network.main.stop - room))
    return result


def _add_side_roads(rng: np.random.Generator, network: Network, district: District, length: float, reach: float) -> None:
    count = min(district.junctions[int(rng.integers(len(district.junctions)))], max(1, int(length // 45)))
    if count == 0:
        return
    slots = (np.arange(count) + 0.5) * length / count
    for at in slots + rng.uniform(-0.22, 0.22, count) * length / count:
        centre, yaw = network.main.path.at(at)
        sides = [1] if rng.random() < 0.5 else [-1]
        if rng.random() < 0.45:
            sides = [1, -1]
        numbers = []
        lane = rng.uniform(2.9, 3.3)
        gap = 0.9 if rng.random() < 0.5 else 0.0  # half width of a splitter island
        tilt = rng.uniform(-0.14, 0.14)
        for side in sides:
            direction = float(yaw) + side * np.pi / 2 + tilt
            s = np.arange(0.0, reach + 40.0, 0.5)
            xy = centre + s[:, None] * np.array([np.cos(direction), np.sin(direction)])
            half = gap + lane + 0.2
            numbers.append(len(network.roads))
            path = Path(s, xy, np.full_like(s, direction))
            network.roads.append(Road(path, 0.0, float(s[-1]), (-(gap + lane / 2),), (gap + lane / 2,), lane, half, half, median=2 * gap))
        network.junctions.append((float(at), tuple(numbers)))


def pavement_middle(network: Network, left: bool) -> float:
    """Offset of the middle of the main road's pavement, signed."""
    road = network.main
    if left:
        return road.left + 0.2 + network.verge_left + (network.pavement_left - 0.2) / 2
    return -(road.right + 0.2 + network.verge_right + (network.pavement_right - 0.2) / 2)


def _add_crossings(rng: np.random.Generator, network: Network, length: float) -> None:
    for at, sides in network.junctions:
        half = max(network.roads[k].left for k in sides)
        away = half + network.corner_radius * 0.55 + 1.2
        for sign in (-1, 1):
            if rng.random() < 0.8:
                s0 = at + sign * away - (ZEBRA if sign < 0 else 0.0)
                network.crossings.append(Crossing(0, s0, s0 + ZEBRA))
        for k in sides:  # in line with the pavement
            left = network.roads[k].path.yaw[0] > network.main.path.at(at)[1]
            middle = abs(pavement_middle(network, bool(left)))
            network.crossings.append(Crossing(k, middle - 1.5, middle + 1.5))
    for low, high in free_stretches(network, 18.0):
        low, high = max(low, 12.0), min(high, length + 10.0)
        if high > low and rng.random() < 0.6:
            s0 = rng.uniform(low, high)
            network.crossings.append(Crossing(0, s0, s0 + ZEBRA))


def _add_islands(rng: np.random.Generator, network: Network) -> None:
    road = network.main
    surface = str(rng.choice(["island", "gravel", "island", "grass"]))
    if road.median:
        for low, high in free_stretches(network, 0.4):
            if high - low > 4:
                network.islands.append(Rect(0, low, high, -road.median / 2 + 0.1, road.median / 2 - 0.1, surface))
    for strip, edge, sign in ((road.parking_left, road.left, 1), (road.parking_right, road.right, -1)):
        if not strip:
            continue
        for low, high in free_stretches(network, 0.0):  # noses that end the rows of parked cars
            spots = [low + 0.5, high - 5.0] + list(np.arange(low + 32.0, high - 32.0, rng.uniform(26, 36)))
            for s0 in spots:
                d0, d1 = sign * (edge - strip + 0.25), sign * (edge + 0.5)
                network.islands.append(
                    Rect(0, float(s0), float(s0) + rng.uniform(3.0, 4.5), d0, d1, str(rng.choice(["island", "gravel", "grass"])))
                )
    for k, side in enumerate(network.roads[1:], 1):
        if side.median:
            zebra = next(c for c in network.crossings if c.road == k)
            half = side.median / 2 - 0.1
            network.islands.append(Rect(k, zebra.s1 + 0.6, zebra.s1 + rng.uniform(6, 12), -half, half, "island"))
            if zebra.s0 - road.left > 3.5 and zebra.s0 - road.right > 3.5:
                network.islands.append(Rect(k, max(road.left, road.right) + 1.5, zebra.s0 - 0.6, -half, half, "island"))


def _mark_lanes(rng: np.random.Generator, network: Network) -> None:
    road, marks = network.main, network.marks
    paint = lambda *a, **k: marks.append(Rect(*a, **k))  # noqa: E731
    low, high = road.start, road.stop
    for _ in range(int((high - low) / 9)):  # repairs, older lanes and manholes
        s, d = rng.uniform(low, high), rng.uniform(-road.right, road.left)
        paint(0, s, s + rng.uniform(1.5, 9), d, d + rng.uniform(0.7, 2.4), str(rng.choice(["asphalt_dark", "asphalt_worn", "asphalt"])))
    for _ in range(int((high - low) / 14)):
        s, d = rng.uniform(low, high), rng.uniform(-road.right + 0.8, road.left - 0.8)
        paint(0, s, s + 0.6, d, d + 0.6, "manhole")
    if road.cycle:
        for sign, edge in ((1, road.left), (-1, road.right)):
            paint(0, low, high, sign * (edge - road.cycle + 0.1), sign * edge, "asphalt_red")
    centre = str(rng.choice(["solid", "double", "dashed"]))
    yellow = "marking_yellow" if rng.random() < 0.2 else "marking"
    dash, period = (3.0, 9.0) if rng.random() < 0.5 else (2.0, 6.0)
    for a, b in free_stretches(network, 0.0):
        if road.median:
            for d in (-road.median / 2 - 0.25, road.median / 2 + 0.25):
                paint(0, a, b, d - 0.08, d + 0.08, "marking")
        elif centre == "double":
            paint(0, a, b, -0.25, -0.08, yellow)
            paint(0, a, b, 0.08, 0.25, yellow)
        else:
            paint(0, a, b, -0.09, 0.09, yellow, dash=dash if centre == "dashed" else 0.0, period=period)
        for lanes in (road.forward, road.backward):
            for inner, outer in pairwise(lanes):
                d = (inner + outer) / 2
                paint(0, a, b, d - 0.09, d + 0.09, "marking", dash=dash, period=period)
        for sign, edge, strip in ((1, road.left, road.parking_left), (-1, road.right, road.parking_right)):
            if strip:
                line = sign * (edge - strip)
                paint(0, a, b, line - 0.08, line + 0.08, "marking", dash=1.0, period=2.0)
                for s in np.arange(a + 5.0, b - 5.0, 6.0):
                    paint(0, s, s + 0.12, line, sign * edge, "marking")
            elif road.cycle:
                line = sign * (edge - road.cycle)
                paint(0, a, b, line - 0.08, line + 0.08, "marking", dash=1.0, period=1.5)
            else:
                line = sign * (edge - 0.35)
                paint(0, a, b, line - 0.08, line + 0.08, "marking")
    for k, side in enumerate(network.roads[1:], 1):
        begin = max(road.left, road.right) + network.corner_radius
        zebra = next(c for c in network.crossings if c.road == k)
        if side.median:
            for d in (-side.median / 2 - 0.2, side.median / 2 + 0.2):
                paint(k, zebra.s1 + 14, side.stop, d - 0.08, d + 0.08, "marking")
        else:
            paint(k, max(begin, zebra.s1), side.stop, -0.09, 0.09, "marking", dash=2.0, period=5.0)
    for crossing in network.crossings:
        _mark_crossing(network, crossing)
    for at, _ in network.junctions:
        _mark_arrows(rng, network, at)


def _mark_crossing(network: Network, crossing: Crossing) -> None:
    road = network.roads[crossing.road]
    marks = network.marks
    marks.append(Rect(crossing.road, crossing.s0 - 0.4, crossing.s1 + 0.4, -road.right, road.left, "asphalt_dark"))
    for d in np.arange(-road.right + 0.3, road.left - 0.3, 1.0):
        marks.append(Rect(crossing.road, crossing.s0, crossing.s1, float(d), float(d) + 0.5, "marking"))
    inner = road.median / 2 + 0.2
    if crossing.road == 0:
        marks.append(Rect(0, crossing.s0 - 1.4, crossing.s0 - 1.0, -road.right + road.parking_right, -inner, "marking"))
    marks.append(Rect(crossing.road, crossing.s1 + 1.0, crossing.s1 + 1.4, inner, road.left - road.parking_left, "marking"))


def _mark_arrows(rng: np.random.Generator, network: Network, at: float) -> None:
    road = network.main
    for lanes, sign in ((road.forward, 1), (road.backward, -1)):
        for d in lanes:
            for away in (24.0, 40.0):
                tip = at - sign * away
                if any(abs(tip - (c.s0 + c.s1) / 2) < 7 for c in network.crossings if c.road == 0):
                    continue
                network.marks.append(Rect(0, tip - sign * 1.2, tip - sign * 4.2, d - 0.09, d + 0.09, "marking"))
                for k in range(6):
                    half = 0.09 + 0.07 * k
                    back = tip - sign * 0.2 * k
                    network.marks.append(Rect(0, back, back - sign * 0.2, d - half, d + half, "marking"))
