"""Driving in a lane: the intelligent driver model, and the ego vehicle's motion."""

from __future__ import annotations

import numpy as np
from numba import njit

from frustum.worlds.street.paths import Network, Path
from frustum.worlds.street.terrain import Terrain, poses_on_ground
from frustum.worlds.street.types import Track

STEP = 0.04  # seconds
EGO_LENGTH, EGO_WIDTH, EGO_BACK = 4.1, 1.75, 1.0  # metres; EGO_BACK: rear bumper to rear axle


@njit(cache=True)
def follow(s, lengths, wish, pace, pace0, wall, steps, dt):
    """Positions (N, steps) of N vehicles in one lane, the first in front (Treiber, Hennecke and Helbing 2000).

    Args:
        s: (N,) positions of the middles at the start, descending; lengths: (N,) metres.
        wish: (N,) desired speeds, m/s, multiplied by `pace[int(s - pace0)]`, the lane's own profile per metre.
        wall: position where the lane ends; everyone stops before it.
    """
    n = len(s)
    out = np.empty((n, steps))
    x, v = s.copy(), wish.copy()
    for k in range(n):
        v[k] = wish[k] * pace[min(max(int(x[k] - pace0), 0), len(pace) - 1)]
        if k > 0:  # nobody starts faster than he can brake
            room = max(x[k - 1] - x[k] - (lengths[k] + lengths[k - 1]) / 2 - 3.0, 0.0)
            v[k] = min(v[k], np.sqrt(v[k - 1] ** 2 + 2 * 2.0 * room))
    for t in range(steps):
        for k in range(n):
            out[k, t] = x[k]
        for k in range(n):
            goal = wish[k] * pace[min(max(int(x[k] - pace0), 0), len(pace) - 1)]
            if k == 0:
                gap, ahead = wall - x[k] - lengths[k] / 2, 0.0
            else:
                gap, ahead = out[k - 1, t] - x[k] - (lengths[k] + lengths[k - 1]) / 2, v[k - 1]
                left = wall - x[k] - lengths[k] / 2
                if left < gap:
                    gap, ahead = left, 0.0
            gap = max(gap, 0.1)
            want = 2.5 + max(0.0, 1.2 * v[k] + v[k] * (v[k] - ahead) / (2 * np.sqrt(1.3 * 2.0)))
            a = 1.3 * (1 - (v[k] / max(goal, 0.5)) ** 4 - (want / gap) ** 2)
            v[k] = max(0.0, v[k] + max(min(a, 1.5), -5.0) * dt)
            x[k] = x[k] + v[k] * dt
    return out


def lane_pace(rng: np.random.Generator, path: Path, network: Network, low: float, high: float) -> np.ndarray:
    """Speed profile (S,) of the main road per metre from `low` to `high`: slower in bends, before crossings and junctions, and by mood."""
    s = np.arange(low, high, 1.0)
    pace = 1.0 + 0.16 * np.sin(2 * np.pi * s / rng.uniform(60, 120) + rng.uniform(0, 6.3))
    for at, _ in network.junctions:
        pace *= 1 - rng.uniform(0.15, 0.5) * np.exp(-(((s - at + 8) / 16) ** 2))
    for crossing in network.crossings:
        if crossing.road == 0:
            pace *= 1 - rng.uniform(0.0, 0.35) * np.exp(-(((s - crossing.s0 + 4) / 10) ** 2))
    bend = abs(np.gradient(np.interp(s, path.s, path.yaw)))
    return np.clip(pace * (1 - np.clip(bend * 12, 0, 0.35)), 0.35, 1.15)


def _wander(rng: np.random.Generator, count: int, sigma: float, seconds: float) -> np.ndarray:
    """Smooth noise (count,) at STEP with standard deviation `sigma` radians and a given correlation time."""
    keep = np.exp(-STEP / seconds)
    x = np.empty(count)
    y = z = 0.0
    noise = rng.normal(size=count)
    for k in range(count):
        y = keep * y + np.sqrt(1 - keep**2) * noise[k]
        z = keep * z + (1 - keep) * y * 1.9
        x[k] = z
    return x * sigma


def ego_track(rng: np.random.Generator, path: Path, s: np.ndarray, terrain: Terrain, tilt: float) -> Track:
    """The ego vehicle on a lane: rear axle at arc lengths `s` (K,), STEP apart.

    It follows the ground and leans by load, braking and bends.
    """
    count = len(s)
    times = np.arange(count) * STEP
    xy, yaw = path.at(s)
    smooth = np.exp(-0.5 * (np.arange(-15, 16) / 6.0) ** 2)
    smooth /= smooth.sum()
    blur = lambda x: np.convolve(np.pad(x, 15, mode="edge"), smooth, mode="valid")  # noqa: E731
    speed = blur(np.gradient(s, STEP))
    forward = blur(np.gradient(speed, STEP))
    sideways = blur(speed * np.gradient(yaw, STEP))
    degree = np.pi / 180
    load = rng.normal(0.0, 0.86 * degree, 2) * tilt
    pitch = load[0] + tilt * (_wander(rng, count, 0.34 * degree, 0.7) - np.clip(forward, -4, 3) * 0.45 * degree)  # > 0: nose down
    roll = load[1] + tilt * (_wander(rng, count, 0.34 * degree, 0.9) + np.clip(sideways, -3, 3) * 0.5 * degree)  # > 0: right side down
    lean = np.zeros((count, 3, 3))
    cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    lean[:, 0] = np.stack([cp, sp * sr, sp * cr], 1)
    lean[:, 1] = np.stack([0 * cp, cr, -sr], 1)
    lean[:, 2] = np.stack([-sp, cp * sr, cp * cr], 1)
    poses = poses_on_ground(terrain, xy, yaw)
    poses[:, :3, :3] = poses[:, :3, :3] @ lean
    return Track(times, poses)
