"""From a seed to a whole street scene."""

from __future__ import annotations

import zlib

import numpy as np

from frustum.types.classes import DETECTION_CLASSES, DETECTION_OF_CATEGORY
from frustum.worlds.street.city import City, build_city
from frustum.worlds.street.config import SceneConfig
from frustum.worlds.street.crowd import ROADS, Crowd
from frustum.worlds.street.ground import PARCEL, PAVED, WALK
from frustum.worlds.street.kinds import random_kind
from frustum.worlds.street.look import random_look
from frustum.worlds.street.paths import Path
from frustum.worlds.street.standing import lean_cycles, open_sites, park, road_works
from frustum.worlds.street.traffic import drive_ego, fill_lanes, ride_cycle_lanes, side_traffic
from frustum.worlds.street.types import Scene, Track
from frustum.worlds.street.walkers import cross, linger, ride_pavements, stroll

__all__ = ["SceneConfig", "build_scene"]

_REACH = 33.0  # metres from the ego vehicle within which every class occurs
_LARGE = ("truck", "bus", "trailer", "construction_vehicle", "car")
_ATTRIBUTES = {"pedestrian": "pedestrian.standing", "bicycle": "cycle.without_rider", "motorcycle": "cycle.without_rider"}


def build_scene(name: str, seed: int, config: SceneConfig | None = None) -> Scene:
    """The scene that a name, a seed and a configuration describe; equal arguments give equal scenes in every process.

    All ten detection classes come within sight of the ego vehicle (unless `config.density` is very low; about one class in 400 finds no
    room in scenes of 7 seconds).
    """
    config = config or SceneConfig()
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), 7301])
    look, mood = random_look(rng, int(rng.integers(2**31)))
    low, high = config.ego_speed
    length = float(np.clip(rng.uniform(0.42, 0.8) * high, low, high)) * config.duration
    city = build_city(rng, config, length, lit=0.3 if mood == "evening" else 0.03)
    crowd = Crowd(city.canvas, city.terrain, config.duration)
    ego, lane = drive_ego(rng, city, crowd, config.ego_speed, config.tilt, config.density)
    _people_the_city(rng, city, crowd, ego, lane, config.density)
    return Scene(
        name=name,
        seed=seed,
        ground=city.canvas.ground,
        static=city.canvas.model(),
        models=tuple(crowd.models),
        actors=tuple(crowd.actors),
        ego=ego,
        look=look,
        duration=config.duration,
        description=f"{city.style}, {city.season}, {mood}",
        lanes=_lane_lines(city),
    )


def _people_the_city(rng: np.random.Generator, city: City, crowd: Crowd, ego: Track, lane: Path, density: float) -> None:
    """All actors, the constrained ones first."""
    if density <= 0:
        return
    main = city.network.main.path
    offset = float(main.nearest(lane.at(city.length / 2)[0])[1])
    open_sites(rng, city, crowd, main, density)
    fill_lanes(rng, city, crowd, offset, density)
    side_traffic(rng, city, crowd, density)
    if rng.random() < 0.6 * density:
        road_works(rng, city, crowd)
    park(rng, city, crowd, main, density)
    number = lambda low, high: round(rng.uniform(low, high) * density)  # noqa: E731
    wanted = max(1, number(1.5, 4))
    ridden = ride_cycle_lanes(rng, city, crowd, wanted)
    ride_pavements(rng, city, crowd, max(wanted - ridden, 0))
    cross(rng, city, crowd, number(2, 5))
    stroll(rng, city, crowd, number(6, 11))
    linger(rng, city, crowd, number(4, 8))
    lean_cycles(rng, city, crowd, number(3, 6))
    if density > 0.2:
        _complete(rng, city, crowd, ego)


def _seen(crowd: Crowd, ego: Track) -> set[str]:
    """Detection classes that come within reach of the ego vehicle, sampled once a second."""
    seen = set()
    times = np.arange(0.0, ego.times[-1], 1.0)
    where = ego.poses[np.clip(np.searchsorted(ego.times, times), 0, len(ego.times) - 1), :2, 3]
    for actor in crowd.actors:
        k = np.clip(np.searchsorted(actor.track.times, times), 0, len(actor.track.times) - 1)
        if np.linalg.norm(actor.track.poses[k, :2, 3] - where, axis=1).min() < _REACH:
            seen.add(DETECTION_OF_CATEGORY[actor.category])
    return seen


def _complete(rng: np.random.Generator, city: City, crowd: Crowd, ego: Track) -> None:
    """Put what is still missing where it can plausibly stand: on parcels and pavements beside the ego path, in parking spaces."""
    missing = [c for c in DETECTION_CLASSES if c not in _seen(crowd, ego)]
    for name in missing:
        for attempt in range(400):
            kind = random_kind(rng, name)
            xy, yaw, zones, attribute = _berth(rng, city, kind.model.size, name, attempt)
            if crowd.add(kind, xy, yaw, attribute, zones, gap=0.1):
                break


def _berth(
    rng: np.random.Generator, city: City, size: tuple[float, float, float], name: str, attempt: int
) -> tuple[np.ndarray, float, tuple[int, ...], str]:
    """A place beside the ego path to try: position, heading, zones that it may cover, attribute.

    Small things go to pavements and plots. Large vehicles wait at side roads, park at the kerb or in yards and car parks, and only when
    all that fails in gardens.
    """
    main = city.network.main
    side = 1 if rng.random() < 0.5 else -1
    edge, strip = (main.left, main.parking_left) if side > 0 else (main.right, main.parking_right)
    turn = float(rng.choice([0.0, np.pi]))
    if name not in _LARGE:
        xy, yaw = main.path.at(rng.uniform(0, city.length + 5), side * rng.uniform(edge + 0.4, edge + 8))
        return xy, float(yaw) + turn, (PARCEL, WALK), _ATTRIBUTES.get(name, "")
    way = rng.random()
    if attempt < 250 and way < 0.3 and len(city.network.roads) > 1 and name != "construction_vehicle":
        number = int(rng.integers(1, len(city.network.roads)))
        road = city.network.roads[number]
        stop = next(c.s1 for c in city.network.crossings if c.road == number) + 1.6
        xy, yaw = road.path.at(stop + size[0] / 2 + rng.uniform(0, 8), road.backward[0])
        return xy, float(yaw) + np.pi, ROADS, "vehicle.stopped"
    if attempt < 250 and way < 0.6 and strip and name != "construction_vehicle":
        xy, yaw = main.path.at(rng.uniform(0, city.length + 5), side * (edge - size[1] / 2 - 0.12))
        return xy, float(yaw) + (np.pi if side > 0 else 0.0), ROADS, "vehicle.parked"
    yards = [p for p in city.plots if p.kind in ("hall", "field", "site", "carpark") and p.x1 > 0 and p.x0 < city.length]
    if yards and attempt < 300:
        plot = yards[int(rng.integers(len(yards)))]
        xy = np.array([rng.uniform(plot.x0, plot.x1), plot.y(rng.uniform(1.5, 14))])
        return xy, turn + float(rng.choice([0.0, np.pi / 2])), (PARCEL, PAVED), "vehicle.parked"
    xy, yaw = main.path.at(rng.uniform(0, city.length + 5), side * rng.uniform(edge + 0.4, edge + 16))
    return xy, float(yaw) + turn, (PARCEL, PAVED), "vehicle.parked"


def _lane_lines(city: City) -> tuple[np.ndarray, ...]:
    """Centre lines (K, 3) of all lanes in driving direction."""
    lines = []
    for road in city.network.roads:
        s = np.arange(road.start, min(road.stop, road.path.s[-1]), 2.0)
        for d in (*road.forward, *road.backward):
            xy, _ = road.path.at(s, d)
            xy = xy if d < 0 else xy[::-1]
            lines.append(np.concatenate([xy, city.terrain.height(xy)[:, None]], 1))
    return tuple(lines)
