"""A small street scene made by hand, with everything the renderer has to cope with, for the renderer's tests."""

from __future__ import annotations

import numpy as np

from frustum.geometry import pose, rotation_xyz
from frustum.worlds.street.materials import MATERIAL_ID as M
from frustum.worlds.street.types import Actor, Ground, Look, Scene, Track, VoxelModel

LOOK = Look((0.48, 0.36, 0.8), (2.3, 2.2, 2.0), (0.46, 0.54, 0.68), (0.16, 0.34, 0.72), (0.62, 0.76, 0.9), 0.002, 1.0, 0.01, 5)


def small_scene(seed: int = 0, hills: float = 0.6, cells: int = 240) -> Scene:
    """48 m x 48 m: a road with kerbs, a house with windows, a wall, a tree, poles, a parked and a moving car, a person, a cone."""
    rng = np.random.default_rng(seed)
    c, x0 = 0.2, -24.0
    axis = x0 + np.arange(cells + 1) * c
    x, y = np.meshgrid(axis, axis, indexing="ij")
    base = (hills * np.sin(x / 11) * np.cos(y / 13) + 0.01 * x).astype(np.float32)
    middle = x0 + (np.arange(cells) + 0.5) * c
    step = np.where(abs(middle) > 5, 0.15, 0.0).astype(np.float32)[None].repeat(cells, 0)
    half = x0 + (np.arange(2 * cells) + 0.5) * c / 2
    paint = np.full((2 * cells, 2 * cells), M["grass"], np.uint8)
    paint[:, abs(half) < 8] = M["paving"]
    paint[:, abs(half) < 5.2] = M["kerb"]
    paint[:, abs(half) < 5] = M["asphalt"]
    paint[:, abs(half) < 0.1] = M["marking"]
    low = float(np.floor(base.min() / c) * c) - c
    static = np.zeros((cells, cells, 70), np.uint8)

    def height(u: int, v: int) -> int:
        return int((base[u, v] - low) / c)

    k = height(140, 200)
    static[110:180, 170:230, k : k + 40] = M["brick_red"]
    static[112:178, 172:228, k + 1 : k + 38] = 0
    static[130:140, 170, k + 8 : k + 15] = M["window"]
    k = height(60, 30)
    static[30:100, 30:31, k - 2 : k + 8] = M["concrete"]
    k = height(70, 150)
    static[69:71, 149:151, k : k + 14] = M["bark"]
    i, j, z = np.ogrid[-8:9, -8:9, -8:9]
    static[62:79, 142:159, k + 12 : k + 29][(i * i + j * j + z * z < 60) & (rng.random((17, 17, 17)) < 0.8)] = M["leaf"]
    k = height(150, 92)
    static[150, 92, k - 1 : k + 25] = M["pole"]
    ground = Ground(base, step, paint, c, (x0, x0))
    car = np.zeros((44, 18, 15), np.uint8)
    car[:, :, 3:9] = M["body"]
    car[10:36, 1:17, 9:15] = M["glass"]
    car[12:34, 1:17, 14] = M["body"]
    car[5:11, [0, 17], 0:6] = car[32:38, [0, 17], 0:6] = M["tyre"]
    person = np.zeros((4, 6, 18), np.uint8)
    person[1:3, 1:5, 0:8] = M["trousers"]
    person[:, :, 8:14] = M["shirt"]
    person[1:4, 2:5, 15:18] = M["skin"]
    person[2, 3, 14] = M["skin"]
    cone = np.zeros((8, 8, 14), np.uint8)
    for z in range(14):
        w = 4 - int(z / 4)
        cone[4 - w : 4 + w, 4 - w : 4 + w, z] = M["cone_white"] if 6 <= z < 9 else M["cone_orange"]
    models = (
        VoxelModel(car, 0.1, (-2.2, -0.9, 0.0)),
        VoxelModel(person, 0.1, (-0.2, -0.3, 0.0)),
        VoxelModel(cone, 0.05, (-0.2, -0.2, 0.0)),
    )

    def stand(px: float, py: float, yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
        u, v = int((px - x0) / c), int((py - x0) / c)
        return pose(rotation_xyz(roll, pitch, yaw), np.array([px, py, float(base[u, v] + step[u, v])]))

    times = np.arange(0, 4.05, 0.1)
    drive = np.stack([stand(12 - 3 * t, 2.5, np.pi, 0.02, -0.01) for t in times])
    actors = (
        Actor(
            1, "vehicle.car", 0, models[0].size, (0.8, 0.1, 0.1), Track(times[:1], stand(8, -3.5, 0.1, 0.03)[None]), False, "vehicle.parked"
        ),
        Actor(2, "vehicle.car", 0, models[0].size, (0.1, 0.2, 0.8), Track(times, drive), True, "vehicle.moving"),
        Actor(7, "human.pedestrian.adult", 1, models[1].size, (0.2, 0.7, 0.2), Track(times[:1], stand(6, 6.5, 1.0)[None]), False),
        Actor(9, "movable_object.trafficcone", 2, models[2].size, (1, 1, 1), Track(times[:1], stand(4.5, -0.8, 0.4)[None]), False),
    )
    # The ego vehicle's plane follows the hill and rolls a little.
    ego = np.stack([stand(-12 + t, -2.0, 0.0, -0.02, 0.03) for t in times])
    return Scene("small", seed, ground, VoxelModel(static, c, (x0, x0, low)), models, actors, Track(times, ego), LOOK, 4.0)
