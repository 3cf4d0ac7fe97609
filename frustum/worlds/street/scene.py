"""From a seed to a whole street scene."""

from __future__ import annotations

import numpy as np

from frustum.worlds.street.config import SceneConfig
from frustum.worlds.street.look import random_look
from frustum.worlds.street.materials import MATERIAL_ID
from frustum.worlds.street.terrain import Terrain, poses_on_ground
from frustum.worlds.street.types import Actor, Ground, Scene, Track, VoxelModel
from frustum.worlds.street.vehicles import CAR_STYLES, car

__all__ = ["SceneConfig", "build_scene"]


def build_scene(name: str, seed: int, config: SceneConfig) -> Scene:
    """The scene that `seed` and `config` describe; equal arguments give equal scenes in every process."""
    rng = np.random.default_rng([seed, 7301])
    terrain = Terrain.random(rng, config.hilliness)
    c, m = config.cell, MATERIAL_ID
    length = 7.0 * config.duration
    nx, ny = int((length + 130) / c), int(130 / c)
    x0, y0 = -65.0, -65.0
    base = terrain.grid(x0 + np.arange(nx + 1) * c, y0 + np.arange(ny + 1) * c)
    yc = y0 + (np.arange(ny) + 0.5) * c
    step = np.where(abs(yc)[None] > 7.0, 0.15, 0.0).astype(np.float32) * np.ones((nx, 1), np.float32)
    yh = y0 + (np.arange(2 * ny) + 0.5) * c / 2
    xh = x0 + (np.arange(2 * nx) + 0.5) * c / 2
    material = np.full((2 * nx, 2 * ny), m["grass"], np.uint8)
    material[:, abs(yh) < 10] = m["paving"]
    material[:, abs(yh) < 7.3] = m["kerb"]
    material[:, abs(yh) < 7] = m["asphalt"]
    dash = (xh % 9 < 3)[:, None] & (abs(abs(yh) - 3.5) < 0.07)[None]
    material[dash] = m["marking"]
    material[:, abs(yh) < 0.1] = m["marking"]
    ground = Ground(base, step, material, c, (x0, y0))
    low = float(np.floor(base.min() / c) * c) - c
    nz = int((base.max() - low + 17) / c)
    cells = np.zeros((nx, ny, nz), np.uint8)
    for k in range(int(length // 18)):
        for side in (1, -1):
            u, v = int((20 + k * 18) / c), int((65 + side * 20 - 6) / c)
            h = int((base[u, v] - low) / c)
            top = h + int(rng.uniform(4, 13) / c)
            cells[u : u + 60, v : v + 60, h:top] = m[str(rng.choice(["brick_red", "plaster_white", "plaster_sand"]))]
            cells[u + 2 : u + 58, v + 2 : v + 58, h : top - 2] = 0
            for z in range(h + 5, top - 8, 15):
                for w in range(5, 52, 12):
                    for line in (slice(v, v + 1), slice(v + 59, v + 60)):
                        cells[u + w : u + w + 6, line, z : z + 7] = m["window"]
            t, w = u - 12, int((65 + side * 9) / c)
            h = int((base[t, w] - low) / c)
            cells[t - 1 : t + 1, w - 1 : w + 1, h : h + 16] = m["bark"]
            i, j, z = np.ogrid[-8:9, -8:9, -8:9]
            ball = (i * i + j * j + z * z < 60) & (rng.random((17, 17, 17)) < 0.8)
            cells[t - 8 : t + 9, w - 8 : w + 9, h + 14 : h + 31][ball] = m["leaf"]
    static = VoxelModel(cells, c, (x0, y0, low))
    models = tuple(car(s) for s in CAR_STYLES)
    actors = []
    times = np.arange(0, config.duration + 0.05, 0.1)
    for k in range(24):
        model = k % len(models)
        moving = k % 2 == 0
        side = -1 if k % 4 < 2 else 1
        x = k * length / 24 + (times * 6 * -side if moving else 0 * times)
        y = np.full_like(x, side * (1.8 if moving else 5.8))
        poses = poses_on_ground(terrain, np.stack([x, y], 1), np.full_like(x, 0.0 if side < 0 else np.pi))
        track = Track(times, poses) if moving else Track(times[:1], poses[:1])
        tint = tuple(float(v) for v in rng.uniform(0.05, 0.9, 3))
        actors.append(
            Actor(k + 1, "vehicle.car", model, models[model].size, tint, track, moving, "vehicle.moving" if moving else "vehicle.parked")
        )
    times = np.arange(0, config.duration + 0.02, 0.04)
    ego_xy = np.stack([times * 7, np.full_like(times, -1.8)], 1)
    ego = Track(times, poses_on_ground(terrain, ego_xy, np.zeros_like(times)))
    look, mood = random_look(rng, seed)
    return Scene(name, seed, ground, static, models, tuple(actors), ego, look, config.duration, mood)
