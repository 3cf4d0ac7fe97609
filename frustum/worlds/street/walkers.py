"""People: walking along pavements, waiting, crossing on zebras, resting in parks and squares; some ride their bicycles there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from frustum.worlds.street.city import City
from frustum.worlds.street.crowd import Crowd
from frustum.worlds.street.ground import CARRIAGEWAY, ISLAND, PARCEL, WALK
from frustum.worlds.street.kinds import random_kind

_PATHS = (WALK, CARRIAGEWAY, ISLAND)  # zebras belong to the carriageway; only crossings lead over it


def _pavement(city: City, side: int, share: float) -> float:
    """Offset (signed) of a line on the pavement; share 0 is next to kerb or verge, 1 next to the plots."""
    road, network = city.network.main, city.network
    edge, verge, walk = (
        (road.left, network.verge_left, network.pavement_left) if side > 0 else (road.right, network.verge_right, network.pavement_right)
    )
    inner = edge + verge + (0.55 if verge else 1.25)
    outer = edge + verge + walk - 0.45
    return side * (inner + share * max(outer - inner, 0.0))


def _allowed_stretch(city: City, side: int, s0: float, s1: float) -> bool:
    """Whether a walk along the pavement keeps off the mouths of side roads."""
    network = city.network
    for at, sides in network.junctions:
        half = max(network.roads[k].left for k in sides) + network.corner_radius + 1.0
        here = any(np.sign(np.sin(network.roads[k].path.yaw[0])) == side for k in sides)
        if here and min(s0, s1) < at + half and max(s0, s1) > at - half:
            return False
    return True


def _repeat(attempt: Callable[[], int], count: int, tries: int = 10) -> int:
    """Place people until there are `count` of them, in at most `tries * count` attempts; how many there are."""
    done = 0
    for _ in range(tries * count):
        if done >= count:
            break
        done += attempt()
    return done


def stroll(rng: np.random.Generator, city: City, crowd: Crowd, count: int) -> int:
    """People who walk along the pavements, alone or in pairs; the number that walks."""

    def attempt() -> int:
        side = 1 if rng.random() < 0.5 else -1
        way = 1 if rng.random() < 0.5 else -1
        start, speed = rng.uniform(-10, city.length + 25), rng.uniform(0.9, 1.6)
        s = start + way * speed * crowd.times
        if not _allowed_stretch(city, side, s[0], s[-1]):
            return 0
        d = _pavement(city, side, rng.random())
        sway = 0.06 * np.sin(crowd.times * 1.3 + start)
        names = ["walker"] + (["child" if rng.random() < 0.4 else "walker"] if rng.random() < 0.3 else [])
        done = 0
        for k, name in enumerate(names):
            xy, yaw = city.network.main.path.at(s - 0.3 * k, d + sway - side * 0.75 * k)
            kind = random_kind(rng, name)
            done += crowd.add(kind, xy, yaw + (0.0 if way > 0 else np.pi), "pedestrian.moving", (WALK,), gap=0.1)
        return done

    return _repeat(attempt, count)


def cross(rng: np.random.Generator, city: City, crowd: Crowd, count: int) -> int:
    """People on zebra crossings; they start when it suits the traffic. The number that crosses."""
    network = city.network
    zebras = [c for c in network.crossings if c.road > 0 or -5 < c.s0 < city.length + 30]

    def attempt() -> int:
        zebra = zebras[int(rng.integers(len(zebras)))]
        road = network.roads[zebra.road]
        near_left = network.pavement_left + network.verge_left if zebra.road == 0 else 2.3
        near_right = network.pavement_right + network.verge_right if zebra.road == 0 else 2.3
        left, right = road.left + near_left - 0.5, -(road.right + near_right - 0.5)
        a, b = (left, right) if rng.random() < 0.5 else (right, left)
        begin, speed = rng.uniform(-6.0, crowd.times[-1] - 2.0), rng.uniform(1.1, 1.6)
        share = np.clip((crowd.times - begin) * speed / abs(b - a), 0, 1)
        share = np.where(begin < 0, np.maximum(share, 0.0), share)
        s = rng.uniform(zebra.s0 + 0.5, zebra.s1 - 0.5)
        xy, yaw = road.path.at(s, a + share * (b - a))
        heading = yaw + (np.pi / 2 if b > a else -np.pi / 2)
        if share[-1] - share[0] < 0.1:
            return 0
        kind = random_kind(rng, "walker" if rng.random() < 0.85 else "child")
        return crowd.add(kind, xy, heading, "pedestrian.moving", _PATHS, gap=0.25)

    return _repeat(attempt, count, tries=9) if zebras else 0


def linger(rng: np.random.Generator, city: City, crowd: Crowd, count: int) -> int:
    """People who stand: on pavements, at kerbs of crossings, and on squares and lawns near the road. The number that stands."""
    plots = [p for p in city.plots if p.kind in ("park", "plaza", "row", "carpark") and p.x1 > -10 and p.x0 < city.length + 20]

    def attempt() -> int:
        if plots and rng.random() < 0.4:
            plot = plots[int(rng.integers(len(plots)))]
            at, zones = np.array([rng.uniform(plot.x0 + 1, plot.x1 - 1), plot.y(rng.uniform(0.5, 12))]), (PARCEL,)
        else:
            side = 1 if rng.random() < 0.5 else -1
            s = rng.uniform(-5, city.length + 20)
            at, zones = city.network.main.path.at(s, _pavement(city, side, rng.random()))[0], (WALK,)
        yaw = rng.uniform(0, 2 * np.pi)
        kind = random_kind(rng, "pedestrian" if rng.random() < 0.85 else "child")
        if not crowd.add(kind, at, yaw, "pedestrian.standing", zones, gap=0.1):
            return 0
        if rng.random() >= 0.35:
            return 1
        friend = at + 0.95 * np.array([np.cos(yaw), np.sin(yaw)])  # someone to talk to
        return 1 + crowd.add(random_kind(rng, "pedestrian"), friend, yaw + np.pi, "pedestrian.standing", zones, gap=0.05)

    return _repeat(attempt, count)


def ride_pavements(rng: np.random.Generator, city: City, crowd: Crowd, count: int) -> int:
    """Cyclists on the pavement, where there is no cycle lane; the number that rides."""

    def attempt() -> int:
        side = 1 if rng.random() < 0.5 else -1
        way = 1 if rng.random() < 0.5 else -1
        speed = rng.uniform(2.2, 4.0)
        start = rng.uniform(-30, city.length + 40)
        s = start + way * speed * crowd.times
        if s.min() < -52 or s.max() > city.length + 52 or not _allowed_stretch(city, side, s[0], s[-1]):
            return 0
        xy, yaw = city.network.main.path.at(s, _pavement(city, side, 0.5))
        return crowd.add(random_kind(rng, "rider_bicycle"), xy, yaw + (0.0 if way > 0 else np.pi), "cycle.with_rider", (WALK,), gap=0.1)

    return _repeat(attempt, count)
