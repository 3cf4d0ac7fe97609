"""What stands still: parked vehicles, bicycles against walls, building sites and road works."""

from __future__ import annotations

import numpy as np

from frustum.worlds.street.city import City
from frustum.worlds.street.crowd import ANYWHERE, ROADS, Crowd, Kind
from frustum.worlds.street.frontage import Plot, Spot
from frustum.worlds.street.ground import PARCEL, WALK
from frustum.worlds.street.kinds import random_kind
from frustum.worlds.street.paths import Path
from frustum.worlds.street.people import barrier
from frustum.worlds.street.roads import free_stretches


def _near(spots: list[Spot], ego: Path, length: float) -> list[Spot]:
    """Spots sorted by distance from the ego path, near ones only."""
    if not spots:
        return []
    s, d = ego.nearest(np.array([[p.x, p.y] for p in spots]))
    inside = (s > -25) & (s < length + 30) & (abs(d) < 45)
    return [spots[k] for k in np.argsort(abs(d) + 0.1 * abs(s - length / 2)) if inside[k]]


def park(rng: np.random.Generator, city: City, crowd: Crowd, ego: Path, density: float) -> None:
    """Cars at kerbs, in car parks and drives, with a few vans, trailers and motorcycles among them."""
    spots = _near([p for p in city.spots if p.kind != "site"], ego, city.length)
    budget = round(rng.uniform(16, 28) * density)
    trailers = 1 if density > 0.2 else 0
    share = rng.uniform(0.55, 0.9)
    for spot in spots:
        if budget <= 0:
            break
        if rng.random() > (share if spot.kind != "drive" else 0.8):
            continue
        zones = ROADS if spot.kind != "drive" else (PARCEL,)
        jitter = rng.normal(0, [0.06, 0.03, 0.015])
        at = np.array([spot.x, spot.y]) + jitter[:2]
        roll = rng.random()
        if spot.kind == "kerb" and roll < 0.12:  # two motorcycles side by side, nose to the kerb
            for shift in (-1.0, 0.6):
                forward = np.array([np.cos(spot.yaw), np.sin(spot.yaw)])
                yaw = spot.yaw - np.pi / 2 + rng.normal(0, 0.1)
                budget -= crowd.add(random_kind(rng, "motorcycle"), at + shift * forward, yaw, "cycle.without_rider", zones, gap=0.05)
            continue
        name = "light_trailer" if trailers and roll > 0.85 else "car"
        kind = random_kind(rng, name)
        while kind.model.size[0] > spot.length - 0.3:
            kind = random_kind(rng, "car")
        if crowd.add(kind, at, spot.yaw + jitter[2], "vehicle.parked", zones, gap=0.1):
            budget -= 1
            trailers -= name == "light_trailer"
    if rng.random() < 0.5 * density:
        _park_long(rng, city, crowd)


def _park_long(rng: np.random.Generator, city: City, crowd: Crowd) -> None:
    """A truck, bus or semi-trailer along a parking strip."""
    road = city.network.main
    for _ in range(8):
        side = 1 if rng.random() < 0.5 else -1
        strip, edge = (road.parking_left, road.left) if side > 0 else (road.parking_right, road.right)
        if not strip:
            continue
        kind = random_kind(rng, str(rng.choice(["truck", "semi", "bus", "truck"])))
        xy, yaw = road.path.at(rng.uniform(0, city.length), side * (edge - kind.model.size[1] / 2 - 0.08))
        if crowd.add(kind, xy, yaw + (np.pi if side > 0 else 0), "vehicle.parked", ROADS, gap=0.1):
            return


def _barrier(style: str) -> Kind:
    return Kind("movable_object.barrier", (barrier, (style,)))


def open_sites(rng: np.random.Generator, city: City, crowd: Crowd, ego: Path, density: float) -> None:
    """Machines, barriers, cones and workers on the building sites near the ego path."""
    sites = [p for p in city.plots if p.kind == "site" and p.x1 > -30 and p.x0 < city.length + 35]
    for plot in sorted(sites, key=lambda p: abs((p.x0 + p.x1) / 2 - city.length / 2))[:2]:
        _open_site(rng, city, crowd, plot)
    yards = [p for p in city.spots if p.kind == "site" and not any(q.kind == "site" and q.x0 <= p.x <= q.x1 for q in city.plots)]
    for spot in _near(yards, ego, city.length)[: round(2 * density)]:
        name = str(rng.choice(["construction_vehicle", "truck", "semi", "truck"]))
        crowd.add(random_kind(rng, name), np.array([spot.x, spot.y]), spot.yaw, "vehicle.parked", (PARCEL,))


def _open_site(rng: np.random.Generator, city: City, crowd: Crowd, plot: Plot) -> None:
    spots = [p for p in city.spots if p.kind == "site" and plot.x0 <= p.x <= plot.x1]
    for k, spot in enumerate(spots):
        for _ in range(4):
            kind = random_kind(rng, "construction_vehicle" if k == 0 or rng.random() < 0.5 else "truck")
            if crowd.add(
                kind, np.array([spot.x, spot.y]) + rng.normal(0, 0.4, 2), spot.yaw + rng.normal(0, 0.1), "vehicle.parked", (PARCEL,)
            ):
                break
    style = str(rng.choice(["plastic", "board", "jersey", "plastic"]))
    pitch = barrier(style).size[1] + 0.25
    gate = rng.uniform(plot.x0 + 3, plot.x1 - 9)
    for x in np.arange(plot.x0 + 1.6, plot.x1 - 1.4, pitch):  # along the front, with an opening
        if not gate < x < gate + 5:
            at = np.array([x, plot.y(0.75)]) + rng.normal(0, 0.05, 2)
            crowd.add(_barrier(style), at, -plot.side * np.pi / 2 + rng.normal(0, 0.04), "", (PARCEL,), gap=0.03)
    for x in (gate + 0.2, gate + 4.8, *rng.uniform(plot.x0 + 2, plot.x1 - 2, 5)):
        crowd.add(
            random_kind(rng, "traffic_cone"), np.array([x, plot.y(rng.uniform(1.4, 2.6))]), rng.uniform(0, 6.28), "", (PARCEL,), gap=0.1
        )
    workers = int(rng.integers(1, 4))
    for _ in range(8 * workers):
        at = np.array([rng.uniform(plot.x0 + 2, plot.x1 - 2), plot.y(rng.uniform(1.5, 9.5))])
        workers -= crowd.add(random_kind(rng, "worker"), at, rng.uniform(0, 6.28), "pedestrian.standing", (PARCEL,))
        if workers <= 0:
            break


def road_works(rng: np.random.Generator, city: City, crowd: Crowd) -> None:
    """A fenced-off stretch of parking strip, cycle lane or pavement: cones, barriers, a worker, sometimes a small machine."""
    road, network = city.network.main, city.network
    stretches = [(max(a, 4.0), min(b, city.length + 12)) for a, b in free_stretches(network, 2.0)]
    stretches = [(a, b) for a, b in stretches if b - a > 12]
    if not stretches:
        return
    low, high = stretches[int(rng.integers(len(stretches)))]
    side = 1 if rng.random() < 0.5 else -1
    edge = road.left if side > 0 else road.right
    strip = (road.parking_left if side > 0 else road.parking_right) or road.cycle
    size = rng.uniform(8, 13)
    s0 = rng.uniform(low, high - min(size, high - low - 1))
    zones: tuple[int, ...] = ROADS
    if strip:
        lane_side, middle = edge - strip + 0.3, edge - strip / 2
    else:
        lane_side, middle, zones = edge + 0.35, edge + 0.9, ANYWHERE
    for s in np.arange(s0, s0 + size, 1.9):
        xy, yaw = road.path.at(s, side * lane_side)
        crowd.add(random_kind(rng, "traffic_cone"), xy, float(yaw), "", zones, gap=0.05)
    for s, turn in ((s0 - 0.9, np.pi), (s0 + size + 0.9, 0.0)):
        xy, yaw = road.path.at(s, side * middle)
        crowd.add(_barrier("board" if strip else "plastic"), xy, float(yaw) + turn, "", zones, gap=0.05)
    xy, yaw = road.path.at(s0 + size / 2, side * middle)
    if strip > 2 and rng.random() < 0.5:
        kind = Kind("vehicle.construction", random_kind(rng, "construction_vehicle").key)
        if kind.model.size[1] < 1.9:
            crowd.add(kind, xy, float(yaw), "vehicle.parked", zones, gap=0.05)
    crowd.add(random_kind(rng, "worker"), xy + rng.normal(0, 0.3, 2), rng.uniform(0, 6.28), "pedestrian.standing", zones)


def lean_cycles(rng: np.random.Generator, city: City, crowd: Crowd, count: int) -> int:
    """Bicycles and motorcycles left on the pavements; the number that found a place."""
    road, network = city.network.main, city.network
    done = 0
    for _ in range(8 * count):
        if done >= count:
            break
        side = 1 if rng.random() < 0.5 else -1
        edge, verge, walk = (
            (road.left, network.verge_left, network.pavement_left)
            if side > 0
            else (road.right, network.verge_right, network.pavement_right)
        )
        s = rng.uniform(2, city.length + 8)
        xy, yaw = road.path.at(s, side * (edge + verge + walk - 0.5))
        name = "bicycle" if rng.random() < 0.75 else "motorcycle"
        turn = rng.choice([0, np.pi]) + rng.normal(0, 0.12)
        if crowd.add(random_kind(rng, name), xy, float(yaw) + turn, "cycle.without_rider", (WALK, PARCEL), gap=0.08):
            done += 1
            if rng.random() < 0.5:
                more, _ = road.path.at(s + 2.1, side * (edge + verge + walk - 0.5))
                done += crowd.add(random_kind(rng, name), more, float(yaw) + turn, "cycle.without_rider", (WALK, PARCEL), gap=0.08)
    return done
