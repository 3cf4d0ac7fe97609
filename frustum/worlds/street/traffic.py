"""Vehicles in motion: queues on the main road with the ego vehicle among them, turning and waiting cars on side roads, cyclists."""

from __future__ import annotations

import numpy as np

from frustum.worlds.street.city import City
from frustum.worlds.street.crowd import ROADS, Crowd, Kind
from frustum.worlds.street.kinds import random_kind
from frustum.worlds.street.lanes import EGO_BACK, EGO_LENGTH, EGO_WIDTH, STEP, ego_track, follow, lane_pace
from frustum.worlds.street.paths import Path
from frustum.worlds.street.types import Track

Train = list[Kind]  # a vehicle and what it pulls


def _length(train: Train) -> float:
    return sum(k.model.size[0] for k in train) + 0.35 * (len(train) - 1)


def _place(crowd: Crowd, path: Path, s: np.ndarray, train: Train, attribute: str) -> bool:
    """Admit a train whose middle moves along `s` (K,); what does not fit stays away with all that hangs on it."""
    lane = Path.through(path.xy, path.s[0])  # `path` counts in metres of the road's middle, couplings need those of the lane
    head = np.interp(s, path.s, lane.s) + _length(train) / 2
    for k, kind in enumerate(train):
        size = kind.model.size[0]
        xy, yaw = lane.at(head - size / 2)
        head = head - size - 0.35
        if not crowd.add(kind, xy, yaw, attribute, ROADS, gap=0.12):
            return k > 0
    return True


def _random_train(rng: np.random.Generator, cycles: bool = True) -> Train:
    name = str(
        rng.choice(
            ["car", "truck", "bus", "rider_motorcycle", "combination", "camper", "rider_bicycle"],
            p=[0.72, 0.08, 0.04, 0.06, 0.04, 0.03, 0.03],
        )
    )
    return _train(rng, name if cycles or name != "rider_bicycle" else "car")


def _train(rng: np.random.Generator, name: str) -> Train:
    if name == "combination":
        return [random_kind(rng, "tractor"), random_kind(rng, "semi")]
    if name == "camper":
        return [random_kind(rng, "car"), random_kind(rng, "light_trailer")]
    return [random_kind(rng, name)]


def _attribute(kind: Kind, moving: bool) -> str:
    if kind.category in ("vehicle.bicycle", "vehicle.motorcycle"):
        return "cycle.with_rider"
    return "vehicle.moving" if moving else "vehicle.stopped"


def _sampled(s: np.ndarray, crowd: Crowd) -> np.ndarray:
    """Positions at the crowd's times from positions at the lane model's steps."""
    return np.interp(crowd.times, np.arange(len(s)) * STEP, s)


def drive_ego(
    rng: np.random.Generator, city: City, crowd: Crowd, speed: tuple[float, float], tilt: float, density: float
) -> tuple[Track, Path]:
    """The ego vehicle in one of the forward lanes with vehicles before and behind it.

    Returns:
        its track, and the path of its lane by arc length along the main road.
    """
    road, main = city.network.main, city.network.main.path
    offset = road.forward[int(rng.integers(len(road.forward)))]
    path = Path(main.s, *main.at(main.s, offset))
    steps = round(crowd.times[-1] / STEP) + 2
    pace = lane_pace(rng, main, city.network, main.s[0], main.s[-1])
    wish = float(np.clip(1.25 * city.length / crowd.times[-1], speed[0] * 1.1, speed[1]))
    ahead = int(rng.integers(0, 3)) if density > 0.3 else 0
    behind = int(rng.integers(0, 3)) if density > 0.3 else 0
    trains: list[Train] = (
        [_random_train(rng, cycles=False) for _ in range(ahead)]
        + [[random_kind(rng, "car")]]
        + [_random_train(rng, cycles=False) for _ in range(behind)]
    )
    lengths = np.array([_length(t) for t in trains])
    lengths[ahead] = EGO_LENGTH
    gaps = rng.uniform(9, 24, len(trains))
    middle = np.zeros(len(trains))
    for k in range(ahead - 1, -1, -1):
        middle[k] = middle[k + 1] + (lengths[k] + lengths[k + 1]) / 2 + gaps[k]
    for k in range(ahead + 1, len(trains)):
        middle[k] = middle[k - 1] - (lengths[k] + lengths[k - 1]) / 2 - gaps[k]
    wishes = wish * rng.uniform(0.95, 1.15, len(trains))
    wall = city.length + 52.0
    for _ in range(3):  # the drive has to end where the map is made for it
        s = follow(middle, lengths, wishes, np.minimum(pace, speed[1] / wishes[ahead]), main.s[0], wall, steps, STEP)
        excess = s[ahead, -1] / city.length
        if 0.9 < excess < 1.03:
            break
        wishes = np.clip(wishes * (0.98 / excess), 2.5, 13.0)
    back = EGO_LENGTH / 2 - EGO_BACK
    xy, yaw = path.at(_sampled(s[ahead], crowd))
    crowd.reserve(np.concatenate([xy, yaw[:, None]], 1), EGO_LENGTH + 1.2, EGO_WIDTH + 0.5)
    for k, train in enumerate(trains):
        if k != ahead and middle[k] > -52:
            _place(crowd, path, _sampled(s[k], crowd), train, _attribute(train[0], True))
    return ego_track(rng, path, s[ahead] - back, city.terrain, tilt), path


def fill_lanes(rng: np.random.Generator, city: City, crowd: Crowd, ego_offset: float, density: float) -> None:
    """Traffic in all other lanes of the main road; the oncoming one brings a truck, a bus, a trailer and a motorcycle."""
    road, main = city.network.main, city.network.main.path
    wanted = ["bus", "truck", "combination", "rider_motorcycle"]
    rng.shuffle(wanted)
    steps = round(crowd.times[-1] / STEP) + 2
    lanes = [(d, 1) for d in road.forward if abs(d - ego_offset) > 0.5] + [(d, -1) for d in road.backward]
    for number, (offset, direction) in enumerate(lanes):
        low, high = -50.0, city.length + 52.0
        travel = lambda s, g=direction: s if g > 0 else -s  # noqa: E731
        begin, end = sorted((travel(low), travel(high)))
        pace = lane_pace(rng, main, city.network, main.s[0], main.s[-1])
        pace = pace if direction > 0 else pace[::-1]
        quota = [wanted.pop() for _ in range(-(-len(wanted) // (len(lanes) - number)))] if wanted else []
        trains, middle = [], []
        # Oncoming vehicles are met if they start beside or ahead of the ego vehicle.
        head = end - rng.uniform(4, 14)
        slots = int(np.clip((end - begin) / rng.uniform(20, 34) * max(density, 0.4), 3, 12))
        order = list(rng.permutation(min(slots, max(len(quota), int(slots * 0.7)))))
        names = {int(order[k]): name for k, name in enumerate(quota[: len(order)])}
        for k in range(slots):
            train = _train(rng, names[k]) if k in names else _random_train(rng)
            size = _length(train)
            if head - size < begin + 2:
                break
            trains.append(train)
            middle.append(head - size / 2)
            head -= size + (end - begin) / slots * rng.uniform(0.35, 1.0)
        if not trains:
            continue
        lengths = np.array([_length(t) for t in trains])
        wishes = rng.uniform(6.0, 10.0) * rng.uniform(0.9, 1.1, len(trains))
        wishes = np.where([t[0].category == "vehicle.bicycle" for t in trains], 4.5, wishes)
        s = follow(np.array(middle), lengths, wishes, pace, travel(main.s[0]) if direction > 0 else travel(main.s[-1]), end, steps, STEP)
        path = Path(main.s, *main.at(main.s, offset))
        if direction < 0:
            path = Path(-path.s[::-1], path.xy[::-1], path.yaw[::-1] + np.pi)
        for k, train in enumerate(trains):
            _place(crowd, path, _sampled(s[k], crowd), train, _attribute(train[0], s[k, -1] - s[k, 0] > 1.0))


def side_traffic(rng: np.random.Generator, city: City, crowd: Crowd, density: float) -> None:
    """Vehicles that wait at the stop lines of side roads, and others that turn right into the main road or out of it."""
    network = city.network
    for number, road in enumerate(network.roads[1:], 1):
        zebra = next(c for c in network.crossings if c.road == number)
        stop = zebra.s1 + 1.6
        if rng.random() < 0.75:
            _turn(rng, city, crowd, number, outward=rng.random() < 0.5)
        head = stop
        for _ in range(int(rng.integers(0, 1 + round(2 * max(density, 0.5))))):
            kind = random_kind(rng, "car" if rng.random() < 0.8 else "truck")
            size = kind.model.size[0]
            xy, yaw = road.path.at(head + size / 2, road.backward[0])
            crowd.add(kind, xy, yaw + np.pi, "vehicle.stopped", ROADS)
            head += size + rng.uniform(1.5, 3.0)
        if rng.random() < 0.6 * density:  # someone drives away
            kind = random_kind(rng, "car" if rng.random() < 0.85 else "rider_motorcycle")
            start, speed = rng.uniform(stop, stop + 25), rng.uniform(4, 7)
            s = np.minimum(start + speed * crowd.times, road.path.s[-1] - 5)
            xy, yaw = road.path.at(s, road.forward[0])
            crowd.add(kind, xy, yaw, _attribute(kind, True), ROADS)


def _turn(rng: np.random.Generator, city: City, crowd: Crowd, number: int, outward: bool) -> None:
    """One vehicle that turns right at a side road; tried at several times until it is in nobody's way."""
    network = city.network
    side, main = network.roads[number], network.main
    left = bool(np.sin(side.path.yaw[0]) > 0)
    at = next(a for a, numbers in network.junctions if number in numbers)
    edge = main.left if left else main.right
    lane = (main.backward if left else main.forward)[-1]
    way = -1.0 if left else 1.0  # direction of that lane along s
    bend = edge - abs(lane) + 5.5
    if outward:
        first = main.path.at(np.arange(at - way * 60, at - way * bend, way * 0.5), lane)[0]
        last = side.path.at(np.arange(abs(lane) + bend, abs(lane) + 45, 0.5), side.forward[0])[0]
    else:
        first = side.path.at(np.arange(abs(lane) + 45, abs(lane) + bend, -0.5), side.backward[0])[0]
        last = main.path.at(np.arange(at + way * bend, at + way * 70, way * 0.5), lane)[0]
    corner = _meet(first[-2:], last[:2])
    t = np.linspace(0, 1, 24)[1:-1, None]
    curve = (1 - t) ** 2 * first[-1] + 2 * t * (1 - t) * corner + t**2 * last[0]
    path = Path.through(_even(np.concatenate([first, curve, last])))
    for _ in range(5):
        kind = random_kind(rng, "car" if rng.random() < 0.8 else "rider_motorcycle")
        start, speed = rng.uniform(5, 42), rng.uniform(3.5, 5.0)
        s = start + speed * crowd.times
        if s[-1] > path.s[-1] - 4:
            s = np.minimum(s, path.s[-1] - 4)
        xy, yaw = path.at(s)
        if crowd.add(kind, xy, yaw, _attribute(kind, True), ROADS, gap=0.3):
            return


def _meet(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where the lines through two pairs of points cross."""
    u, v = a[1] - a[0], b[1] - b[0]
    t = np.linalg.solve(np.stack([u, -v], 1), b[0] - a[1])
    return a[1] + t[0] * u


def _even(xy: np.ndarray) -> np.ndarray:
    """The polyline resampled every half metre and lightly smoothed."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(xy, axis=0), axis=1))])
    s = np.arange(0, length[-1], 0.5)
    points = np.stack([np.interp(s, length, xy[:, k]) for k in (0, 1)], 1)
    padded = np.pad(points, ((2, 2), (0, 0)), mode="edge")
    smooth = np.mean([padded[k : k + len(points)] for k in range(5)], axis=0)
    smooth[:2], smooth[-2:] = points[:2], points[-2:]
    return smooth


def ride_cycle_lanes(rng: np.random.Generator, city: City, crowd: Crowd, count: int) -> int:
    """Cyclists in the cycle lanes, if there are any; the number that rides."""
    road = city.network.main
    if not road.cycle:
        return 0
    done = 0
    for _ in range(4 * count):
        way = 1 if rng.random() < 0.5 else -1
        d = -(road.right - road.cycle / 2) if way > 0 else road.left - road.cycle / 2
        start, speed = rng.uniform(-25, city.length + 30), rng.uniform(3.2, 5.5)
        s = np.clip(start + way * speed * crowd.times, -55, city.length + 55)
        if abs(s[-1] - s[-2]) < 0.1:
            continue
        xy, yaw = road.path.at(s, d)
        done += crowd.add(random_kind(rng, "rider_bicycle"), xy, yaw + (0 if way > 0 else np.pi), "cycle.with_rider", ROADS, gap=0.12)
        if done >= count:
            break
    return done
