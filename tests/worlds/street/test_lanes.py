import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.worlds.street.lanes import STEP, ego_track, follow, lane_pace
from frustum.worlds.street.paths import Path
from frustum.worlds.street.roads import DISTRICTS, plan_network
from frustum.worlds.street.terrain import Terrain

FLAT = np.ones(400)


def drive(s, lengths, wish, wall=1e6, steps=1000, pace=FLAT):
    return follow(np.array(s, float), np.array(lengths, float), np.array(wish, float), pace, -50.0, wall, steps, STEP)


def test_a_free_vehicle_keeps_its_wish():
    s = drive([0], [4.5], [8.0])
    assert np.diff(s[0])[-1] / STEP == pytest.approx(8.0, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(2, 14), min_size=2, max_size=7), st.integers(0, 1000))
def test_vehicles_never_touch(wishes, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(2, 18, len(wishes))
    s = [0.0]
    for a, b in itertools.pairwise(lengths):
        s.append(s[-1] - (a + b) / 2 - rng.uniform(4, 30))
    tracks = drive(s, lengths, wishes, wall=60.0, steps=750)
    gaps = tracks[:-1] - tracks[1:] - (lengths[:-1] + lengths[1:])[:, None] / 2
    assert gaps.min() > 0.3
    assert (np.diff(tracks, axis=1) >= -1e-9).all()  # nobody reverses
    assert (tracks[0] + lengths[0] / 2).max() < 60.0


def test_followers_adapt_to_the_slower_leader():
    s = drive([40, 0], [4.5, 4.5], [4.0, 12.0], steps=1500)
    speed = np.diff(s, axis=1)[:, -1] / STEP
    assert speed[1] == pytest.approx(speed[0], rel=0.05)


def test_accelerations_are_those_of_a_car():
    pace = np.clip(1 + 0.4 * np.sin(np.arange(400) / 12), 0.4, 1.2)
    s = drive([0, -15], [4.5, 4.5], [9.0, 10.0], pace=pace)
    a = np.diff(s, 2, axis=1) / STEP**2
    assert a.max() < 1.6
    assert a.min() > -5.1


@pytest.mark.parametrize("style", list(DISTRICTS))
def test_pace_slows_before_junctions(style):
    net = plan_network(np.random.default_rng(4), DISTRICTS[style], 150.0, 80.0)
    pace = lane_pace(np.random.default_rng(0), net.main.path, net, -80.0, 230.0)
    assert pace.min() >= 0.35
    assert pace.max() <= 1.15
    assert len(pace) == 310


def straight() -> Path:
    x = np.arange(-50, 400, 0.5)
    return Path(x.copy(), np.stack([x, 0 * x], 1), 0 * x)


def test_the_ego_vehicle_pitches_rolls_and_climbs():
    terrain = Terrain.random(np.random.default_rng(2), 1.0)
    s = np.arange(0, 20, STEP) * 7.0
    track = ego_track(np.random.default_rng(0), straight(), s, terrain, tilt=1.0)
    assert np.allclose(np.diff(track.times), STEP)
    r = track.poses[:, :3, :3]
    assert np.allclose(r @ r.swapaxes(1, 2), np.eye(3), atol=1e-9)
    assert np.ptp(track.poses[:, 2, 3]) > 0.1
    assert np.allclose(track.poses[:, 2, 3], terrain.height(track.poses[:, :2, 3]))


def test_tilt_has_the_promised_spread():
    """Bias per scene about 0.86 degrees, wander about 0.34 degrees, for pitch and roll."""
    terrain = Terrain.random(np.random.default_rng(2), 0.0)
    s = np.arange(0, 20, STEP) * 7.0
    pitch, roll = [], []
    for seed in range(60):
        r = ego_track(np.random.default_rng(seed), straight(), s, terrain, tilt=1.0).poses[:, :3, :3]
        pitch.append(np.degrees(np.arcsin(-r[:, 2, 0])))
        roll.append(np.degrees(np.arctan2(r[:, 2, 1], r[:, 2, 2])))
    for angle in (np.array(pitch), np.array(roll)):
        assert 0.6 < angle.mean(1).std() < 1.15
        assert 0.2 < angle.std(1).mean() < 0.5


def test_braking_dips_the_nose():
    terrain = Terrain.random(np.random.default_rng(2), 0.0)
    t = np.arange(0, 8, STEP)
    speed = np.where(t < 4, 10.0, np.maximum(10.0 - 3.0 * (t - 4), 1.0))
    s = np.cumsum(speed) * STEP
    nose = []
    for seed in range(20):
        r = ego_track(np.random.default_rng(seed), straight(), s, terrain, tilt=1.0).poses[:, :3, :3]
        down = np.degrees(np.arcsin(-r[:, 2, 0]))
        nose.append(down[120:160].mean() - down[40:80].mean())
    assert np.mean(nose) > 0.6


def test_no_tilt_follows_the_ground_exactly():
    terrain = Terrain.random(np.random.default_rng(2), 1.0)
    s = np.arange(0, 5, STEP) * 7.0
    track = ego_track(np.random.default_rng(0), straight(), s, terrain, tilt=0.0)
    up = track.poses[:, :3, 2]
    gradient = terrain.gradient(track.poses[:, :2, 3])
    assert np.allclose(up[:, :2] / up[:, 2:], -gradient, atol=1e-9)
