"""Who drives, parks, walks and stands where."""

import numpy as np
import pytest

from frustum.types.classes import DETECTION_OF_CATEGORY
from frustum.worlds.street.crowd import Crowd
from frustum.worlds.street.ground import CARRIAGEWAY, PARCEL, PAVED, WALK
from frustum.worlds.street.standing import lean_cycles, open_sites, park, road_works
from frustum.worlds.street.traffic import _even, _meet, drive_ego, fill_lanes, ride_cycle_lanes, side_traffic
from frustum.worlds.street.walkers import cross, linger, ride_pavements, stroll
from tests.worlds.street.scenes import STYLES, city, scene

SEEDS = [(style, seed) for style in STYLES for seed in (3, 5)]


def crowd_of(style: str, seed: int, duration: float = 6.0):
    c = city(style, seed)
    return c, Crowd(c.canvas, c.terrain, duration), np.random.default_rng(seed)


def classes(crowd: Crowd) -> list[str]:
    return [DETECTION_OF_CATEGORY[a.category] for a in crowd.actors]


def zones_along(c, actor) -> np.ndarray:
    """Zones under the middle of an actor at all its samples."""
    xy = actor.track.poses[:, :2, 3]
    return np.array([c.canvas.zone[c.canvas.index(x, y)] for x, y in xy])


# ---- vehicles ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("style", "seed"), SEEDS)
def test_ego_ends_where_the_map_is_made_for(style, seed):
    c, crowd, rng = crowd_of(style, seed)
    track, path = drive_ego(rng, c, crowd, (3.0, 12.0), 1.0, 1.0)
    travelled = np.linalg.norm(np.diff(track.poses[:, :2, 3], axis=0), axis=1).sum()
    assert 0.7 * c.length < travelled < 1.15 * c.length
    offsets = path.nearest(track.poses[::10, :2, 3])[1]
    assert abs(offsets).max() < 0.05  # stays in its lane


@pytest.mark.parametrize(("style", "seed"), SEEDS)
def test_lanes_fill_with_the_promised_vehicles(style, seed):
    c, crowd, rng = crowd_of(style, seed)
    fill_lanes(rng, c, crowd, c.network.main.forward[0], 1.0)
    found = set(classes(crowd))
    assert len(found & {"bus", "truck", "trailer", "motorcycle"}) >= 2
    for actor in crowd.actors:
        assert np.isin(zones_along(c, actor), (CARRIAGEWAY,)).all()
        _, d = c.network.main.path.nearest(actor.track.poses[0, :2, 3])
        lanes = np.array([*c.network.main.forward, *c.network.main.backward])
        assert abs(lanes - d).min() < 0.1
        heading = np.cos(
            np.arctan2(actor.track.poses[0, 1, 0], actor.track.poses[0, 0, 0])
            - c.network.main.path.at(c.network.main.path.nearest(actor.track.poses[0, :2, 3])[0])[1]
        )
        assert heading * -d > 0  # right-hand traffic


@pytest.mark.parametrize("number", range(4))
def test_trailers_follow_what_pulls_them(number):
    s = scene(number)
    for trailer in s.actors:
        if trailer.category != "vehicle.trailer" or not trailer.moving:
            continue
        best = np.inf
        for tug in s.actors:
            if tug.category not in ("vehicle.truck", "vehicle.car") or not tug.moving:
                continue
            away = np.linalg.norm(tug.track.poses[:, :3, 3] - trailer.track.poses[:, :3, 3], axis=1)
            best = min(best, abs(away - (tug.size[0] + trailer.size[0]) / 2 - 0.35).max())
        assert best < 0.15


@pytest.mark.parametrize(("style", "seed"), SEEDS)
def test_side_traffic_waits_behind_the_line_or_turns_smoothly(style, seed):
    c, crowd, rng = crowd_of(style, seed)
    for _ in range(3):
        side_traffic(rng, c, crowd, 1.0)
    if len(c.network.roads) > 1:
        assert crowd.actors
    for actor in crowd.actors:
        assert np.isin(zones_along(c, actor), (CARRIAGEWAY,)).all()
        if actor.attribute == "vehicle.stopped":
            away = []
            for k, road in enumerate(c.network.roads[1:], 1):
                s, d = road.path.nearest(actor.track.poses[0, :2, 3])
                zebra = next(z for z in c.network.crossings if z.road == k)
                away.append(s - actor.size[0] / 2 - zebra.s1 if abs(d - road.backward[0]) < 0.2 and s < road.path.s[-1] else -1)
            assert max(away) > 1.0
        if actor.moving:
            yaw = np.unwrap(np.arctan2(actor.track.poses[:, 1, 0], actor.track.poses[:, 0, 0]))
            assert abs(np.diff(yaw)).max() < 0.16


def test_turning_paths_are_even_and_corners_meet():
    a = np.array([[0.0, 0.0], [1.0, 0.0]])
    b = np.array([[5.0, 3.0], [5.0, 4.0]])
    assert np.allclose(_meet(a, b), (5.0, 0.0))
    line = _even(np.array([[0.0, 0.0], [3.0, 0.0], [3.2, 0.0], [9.0, 0.0]]))
    assert np.allclose(np.diff(line[3:-3, 0]), 0.5)


def test_cyclists_use_cycle_lanes_only_where_there_are_any():
    seen = set()
    for style in STYLES:
        for seed in range(4):
            c, crowd, rng = crowd_of(style, seed)
            done = ride_cycle_lanes(rng, c, crowd, 2)
            assert done == len(crowd.actors)
            has = c.network.main.cycle > 0
            seen.add(has)
            assert has or done == 0
            for actor in crowd.actors:
                _, d = c.network.main.path.nearest(actor.track.poses[0, :2, 3])
                edge = c.network.main.left if d > 0 else c.network.main.right
                assert edge - c.network.main.cycle < abs(d) < edge
    assert seen == {True, False}


@pytest.mark.parametrize(("style", "seed"), SEEDS)
def test_parked_vehicles_stand_in_parking_spaces(style, seed):
    c, crowd, rng = crowd_of(style, seed)
    park(rng, c, crowd, c.network.main.path, 1.0)
    spots = np.array([[s.x, s.y] for s in c.spots])
    for actor in crowd.actors:
        assert not actor.moving
        xy = actor.track.poses[0, :2, 3]
        if actor.size[0] < 6.0:
            assert np.linalg.norm(spots - xy, axis=1).min() < 1.6
        assert c.canvas.zone[c.canvas.index(*xy)] in (CARRIAGEWAY, PAVED, PARCEL)
        assert actor.attribute in ("vehicle.parked", "cycle.without_rider")
    near = [s for s in c.spots if s.kind != "site" and -20 < s.x < c.length + 25]
    assert classes(crowd).count("car") >= min(2, len(near) // 4)


@pytest.mark.parametrize(("style", "seed"), SEEDS)
def test_building_sites_are_fenced_and_manned(style, seed):
    c, crowd, rng = crowd_of(style, seed)
    open_sites(rng, c, crowd, c.network.main.path, 1.0)
    found = classes(crowd)
    assert found.count("barrier") >= 3
    assert found.count("traffic_cone") >= 2
    assert "construction_vehicle" in found
    assert any(a.category == "human.pedestrian.construction_worker" for a in crowd.actors)
    sites = [p for p in c.plots if p.kind == "site"]
    for actor in crowd.actors:
        if DETECTION_OF_CATEGORY[actor.category] == "barrier":
            x, y = actor.track.poses[0, :2, 3]
            assert any(p.x0 <= x <= p.x1 and 0 < p.side * (y - p.front) < 2 for p in sites)
            assert abs(actor.track.poses[0, 0, 1]) > 0.9  # its long side (y) runs along the road
        assert not actor.moving


@pytest.mark.parametrize(("style", "seed"), SEEDS)
def test_road_works_close_a_stretch_beside_the_lanes(style, seed):
    c, crowd, rng = crowd_of(style, seed)
    road_works(rng, c, crowd)
    road = c.network.main
    for actor in crowd.actors:
        _, d = road.path.nearest(actor.track.poses[0, :2, 3])
        lanes = road.forward if d < 0 else road.backward
        assert abs(d) > abs(lanes[-1]) + 0.7  # a car in the lane can pass
    assert set(classes(crowd)) <= {"traffic_cone", "barrier", "pedestrian", "construction_vehicle"}
    assert classes(crowd).count("traffic_cone") >= 2


# ---- people -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("style", "seed"), SEEDS)
def test_strollers_stay_on_pavements(style, seed):
    c, crowd, rng = crowd_of(style, seed)
    assert stroll(rng, c, crowd, 8) == len(crowd.actors)
    assert len(crowd.actors) >= 4
    for actor in crowd.actors:
        assert (zones_along(c, actor) == WALK).all()
        assert actor.attribute == "pedestrian.moving"
        speed = np.linalg.norm(np.diff(actor.track.poses[:, :2, 3], axis=0), axis=1) * 10
        assert 0.6 < speed.mean() < 1.9


@pytest.mark.parametrize(("style", "seed"), SEEDS)
def test_people_cross_on_zebras_only(style, seed):
    c, crowd, rng = crowd_of(style, seed)
    cross(rng, c, crowd, 5)
    for actor in crowd.actors:
        xy = actor.track.poses[zones_along(c, actor) == CARRIAGEWAY][:, :2, 3]
        on_zebra = np.zeros(len(xy), bool)
        for zebra in c.network.crossings:
            s, _ = c.network.roads[zebra.road].path.nearest(xy)
            on_zebra |= (s > zebra.s0 - 0.1) & (s < zebra.s1 + 0.1)
        assert on_zebra.all()
        move = np.linalg.norm(actor.track.poses[-1, :2, 3] - actor.track.poses[0, :2, 3])
        assert move > 0.3


@pytest.mark.parametrize(("style", "seed"), SEEDS)
def test_people_linger_off_the_road(style, seed):
    c, crowd, rng = crowd_of(style, seed)
    assert linger(rng, c, crowd, 8) == len(crowd.actors)
    assert len(crowd.actors) >= 5
    for actor in crowd.actors:
        assert not actor.moving
        assert zones_along(c, actor)[0] in (WALK, PARCEL)


@pytest.mark.parametrize(("style", "seed"), SEEDS)
def test_cycles_lean_and_ride_on_pavements(style, seed):
    c, crowd, rng = crowd_of(style, seed)
    leaning = lean_cycles(rng, c, crowd, 4)
    assert leaning == len(crowd.actors) >= 2
    riding = ride_pavements(rng, c, crowd, 2)
    assert leaning + riding == len(crowd.actors)
    for actor in crowd.actors:
        assert np.isin(zones_along(c, actor), (WALK, PARCEL)).all()
        assert actor.moving == (actor.attribute == "cycle.with_rider")
