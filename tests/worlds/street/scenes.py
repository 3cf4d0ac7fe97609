"""Generated scenes and measurements on them, shared by the tests of the street world's content (built once per process)."""

from __future__ import annotations

from functools import cache

import numpy as np

from frustum.worlds.street.city import City, build_city
from frustum.worlds.street.config import SceneConfig
from frustum.worlds.street.scene import build_scene
from frustum.worlds.street.types import Actor, Scene

STYLES = ("downtown", "suburb", "park", "industrial")
SECONDS = 7.0


@cache
def scene(number: int) -> Scene:
    """One scene per style and number; number 0..3 covers all four styles."""
    return build_scene(f"test-{number}", 40 + number, SceneConfig(duration=SECONDS, style=STYLES[number % 4]))


@cache
def city(style: str, seed: int = 3) -> City:
    """The static part only."""
    return build_city(np.random.default_rng(seed), SceneConfig(style=style, duration=6.0), 45.0, lit=0.05)


def ground_height(scene: Scene, xy: np.ndarray) -> np.ndarray:
    """Height (*,) of the bilinear ground at points (*, 2), written independently of the generator."""
    g = scene.ground
    u, v = (xy[..., 0] - g.origin[0]) / g.cell, (xy[..., 1] - g.origin[1]) / g.cell
    i, j = np.floor(u).astype(int), np.floor(v).astype(int)
    a, b = u - i, v - j
    z = g.base[i, j] * (1 - a) * (1 - b) + g.base[i + 1, j] * a * (1 - b) + g.base[i, j + 1] * (1 - a) * b + g.base[i + 1, j + 1] * a * b
    return z + g.step[i, j]


def footprint(actor: Actor, time: float, share: float = 1.0) -> np.ndarray:
    """Corners (4, 2) of an actor's box on the ground, scaled by `share`."""
    pose = actor.track.pose(time)
    half = np.array(actor.size[:2]) / 2 * share
    corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * half
    return corners @ pose[:2, :2].T + pose[:2, 3]


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two convex quadrilaterals (4, 2) overlap: no edge normal separates them."""
    for quad in (a, b):
        for k in range(4):
            edge = quad[(k + 1) % 4] - quad[k]
            normal = np.array([-edge[1], edge[0]])
            p, q = a @ normal, b @ normal
            if p.max() <= q.min() or q.max() <= p.min():
                return False
    return True


def solid_points(scene: Scene, actor: Actor, time: float) -> np.ndarray:
    """Global centres (N, 3) of the solid cells of an actor."""
    model = scene.models[actor.model]
    local = (np.argwhere(model.cells) + 0.5) * model.cell + np.array(model.origin)
    pose = actor.track.pose(time)
    return local @ pose[:3, :3].T + pose[:3, 3]
