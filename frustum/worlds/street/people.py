"""People, bicycles, motorcycles, traffic cones and barriers; fine cells of 0.07 m (barriers 0.1 m)."""

from __future__ import annotations

from functools import cache

import numpy as np

from frustum.worlds.street.shapes import Carver
from frustum.worlds.street.types import VoxelModel

_CELL = 0.07
_SKIN = ("skin", "skin", "skin_dark")
_HAIR = ("hair", "hair_fair", "hair", "hair")
_LEGS = ("trousers", "trousers_grey", "trousers_brown", "trousers")


def _torso(c: Carver, hip: tuple[float, float], neck: tuple[float, float], width: float, material: str) -> None:
    """A torso in the x-z plane from hip to neck."""
    c.rod((hip[0], width * 0.28, hip[1]), (neck[0], width * 0.36, neck[1] - 0.08), 0.13, material)
    c.rod((hip[0], -width * 0.28, hip[1]), (neck[0], -width * 0.36, neck[1] - 0.08), 0.13, material)
    c.rod((hip[0], 0, hip[1]), (neck[0], 0, neck[1]), 0.13, material)


def _head(c: Carver, x: float, z: float, skin: str, hair: str, helmet: bool = False) -> None:
    """A head whose middle is at (x, z), looking forward."""
    c.ellipsoid((x, 0, z), (0.12, 0.11, 0.15), skin)
    if helmet:
        c.fill((((c.x - x) / 0.16) ** 2 + (c.y / 0.15) ** 2 + ((c.z - z - 0.03) / 0.16) ** 2 < 1) & (c.z > z), "helmet")
    else:
        c.fill(
            (((c.x - x + 0.02) / 0.14) ** 2 + (c.y / 0.13) ** 2 + ((c.z - z - 0.02) / 0.16) ** 2 < 1)
            & ((c.z > z + 0.05) | (c.x < x - 0.05)),
            hair,
        )


@cache
def person(kind: str, variant: int) -> VoxelModel:
    """Someone on foot. Kinds: standing, walking, bag (walking), backpack (walking), child, child_walking, worker."""
    rng = np.random.default_rng([variant, 21])
    skin, hair, legs = (str(rng.choice(n)) for n in (_SKIN, _HAIR, _LEGS))
    scale = rng.uniform(0.66, 0.76) if kind.startswith("child") else rng.uniform(0.94, 1.05)
    height = 1.76 * scale
    stride = 0.0 if kind in ("standing", "child") or (kind == "worker" and variant % 2) else rng.uniform(0.2, 0.32) * scale
    top = "vest" if kind == "worker" else "shirt"
    c = Carver(1.1, 0.9, height + 0.1, _CELL)
    hip, shoulder = 0.5 * height, 0.82 * height
    for side in (1, -1):
        y, foot = side * 0.1 * scale, side * stride
        knee = (foot * 0.6 + 0.05 * bool(stride), y, 0.27 * height)
        c.rod((0, y, hip), knee, 0.085, legs).rod(knee, (foot, y, 0.06), 0.075, legs)
        c.box(foot - 0.08, foot + 0.17, y - 0.07, y + 0.07, 0.0, 0.08, "bag")
    width = 0.44 * scale
    _torso(c, (0, hip), (0, shoulder), width, top)
    for side in (1, -1):
        y, swing = side * width * 0.58, -side * stride * 0.9
        bent = kind == "standing" and variant % 3 == 0 and side > 0
        hand = (0.22, y * 0.7, 0.66 * height) if bent else (swing, y * 1.05, 0.46 * height)
        elbow = (swing * 0.3 - 0.03, y * 1.1, 0.63 * height)
        c.rod((0, y * 0.9, shoulder - 0.05), elbow, 0.065, top).rod(elbow, hand, 0.055, top)
        c.ellipsoid(hand, (0.055, 0.055, 0.07), skin)
        if kind == "bag" and side < 0:
            c.box(hand[0] - 0.16, hand[0] + 0.16, hand[1] - 0.08, hand[1] + 0.04, 0.24 * height, 0.42 * height, "bag")
    if kind == "backpack":
        c.box(-0.3, -0.1, -0.15, 0.15, 0.56 * height, 0.8 * height, "bag")
    _head(c, 0.02, height - 0.14, skin, hair, helmet=kind == "worker")
    return c.model()


def _round(c: Carver, x: float, radius: float, width: float, spokes: bool) -> None:
    """A thin wheel in the middle plane."""
    r = np.hypot(c.x - x, c.z - radius)
    c.fill((r < radius) & (r > radius - 0.075) & (abs(c.y) < width / 2), "tyre")
    c.fill((r < 0.06) & (abs(c.y) < width / 2), "rim")
    if spokes:
        c.fill((r < radius - 0.07) & (abs(c.y) < width / 2) & ((abs(c.x - x) < 0.036) | (abs(c.z - radius) < 0.036)), "rim")


@cache
def bicycle(rider: bool, variant: int) -> VoxelModel:
    """A bicycle, with or without a rider."""
    rng = np.random.default_rng([variant, 22])
    c = Carver(1.9, 0.75, 1.9, _CELL)
    for x in (0.53, -0.53):
        _round(c, x, 0.34, 0.1, spokes=True)
    tube = lambda a, b: c.rod((a[0], 0, a[1]), (b[0], 0, b[1]), 0.045, "body")  # noqa: E731
    for a, b in (
        ((-0.53, 0.34), (-0.15, 0.82)),
        ((-0.53, 0.34), (-0.05, 0.3)),
        ((-0.05, 0.3), (-0.18, 0.86)),
        ((-0.05, 0.3), (0.38, 0.78)),
        ((-0.15, 0.8), (0.36, 0.84)),
        ((0.53, 0.34), (0.36, 0.95)),
    ):
        tube(a, b)
    c.rod((0.36, -0.26, 1.0), (0.36, 0.26, 1.0), 0.045, "chassis").rod((0.36, 0, 0.9), (0.36, 0, 1.0), 0.045, "chassis")
    c.box(-0.32, -0.06, -0.07, 0.07, 0.88, 0.95, "chassis")
    if variant % 2:
        c.box(-0.8, -0.35, -0.11, 0.11, 0.72, 0.78, "chassis")
    if rider:
        _rider(c, rng, hip=(-0.17, 1.0), shoulder=(0.12, 1.44), hands=(0.34, 1.02), pedal=0.3, helmet=variant % 3 != 0, spread=0.09)
    return c.model()


def _rider(
    c: Carver,
    rng: np.random.Generator,
    hip: tuple[float, float],
    shoulder: tuple[float, float],
    hands: tuple[float, float],
    pedal: float,
    helmet: bool,
    spread: float,
) -> None:
    skin, hair, legs = (str(rng.choice(n)) for n in (_SKIN, _HAIR, _LEGS))
    _torso(c, hip, shoulder, 0.4, "shirt")
    for side in (1, -1):
        y, lift = side * spread, 0.09 * side
        knee, foot = (hip[0] + 0.36, y * 1.25, hip[1] - 0.28 + lift), (hip[0] + 0.14 + lift * 0.5, y, pedal + lift)
        c.rod((hip[0], y, hip[1]), knee, 0.09, legs).rod(knee, foot, 0.075, legs)
        c.box(foot[0] - 0.07, foot[0] + 0.16, foot[1] - 0.06, foot[1] + 0.06, foot[2] - 0.1, foot[2] - 0.02, "bag")
        elbow = ((shoulder[0] + hands[0]) / 2, side * 0.24, (shoulder[1] + hands[1]) / 2 - 0.08)
        c.rod((shoulder[0], side * 0.19, shoulder[1] - 0.06), elbow, 0.065, "shirt").rod(
            elbow, (hands[0], side * 0.22, hands[1]), 0.055, "shirt"
        )
    _head(c, shoulder[0] + 0.07, shoulder[1] + 0.2, skin, hair, helmet)


@cache
def motorcycle(rider: bool, variant: int) -> VoxelModel:
    """A motorcycle (even variants) or scooter (odd ones), with or without a rider."""
    rng = np.random.default_rng([variant, 23])
    c = Carver(2.3, 0.95, 1.8, _CELL)
    scooter = variant % 2 == 1
    radius = 0.26 if scooter else 0.33
    for x in (0.72, -0.68):
        r = np.hypot(c.x - x, c.z - radius)
        c.fill((r < radius) & (abs(c.y) < 0.11), "tyre").fill((r < radius * 0.5) & (abs(c.y) < 0.11), "rim")
    if scooter:
        c.box(-0.95, -0.1, -0.18, 0.18, 0.4, 0.72, "body").box(-0.25, 0.52, -0.16, 0.16, 0.25, 0.42, "chassis")
        c.rod((0.5, 0, 0.35), (0.42, 0, 0.98), 0.15, "body").box(-0.85, -0.1, -0.14, 0.14, 0.72, 0.8, "machine_dark")
    else:
        c.rod((0.35, 0, 0.78), (-0.1, 0, 0.78), 0.17, "body").box(-0.3, 0.35, -0.17, 0.17, 0.3, 0.65, "machine_dark")
        c.box(-0.85, -0.1, -0.14, 0.14, 0.72, 0.82, "machine_dark").rod((-0.9, 0, 0.85), (-0.5, 0, 0.72), 0.12, "body")
        c.rod((-0.2, -0.2, 0.34), (-0.95, -0.2, 0.42), 0.07, "rim")
        c.rod((0.5, 0, 0.82), (0.62, 0, 0.98), 0.16, "body")
    c.rod((0.72, 0, radius), (0.45, 0, 1.0), 0.06, "rim")
    c.rod((0.42, -0.36, 1.04), (0.42, 0.36, 1.04), 0.05, "machine_dark")
    c.ellipsoid((0.62, 0, 0.86), (0.09, 0.12, 0.1), "headlamp").box(-1.0, -0.9, -0.1, 0.1, 0.62, 0.74, "taillamp")
    c.sides(0.36, 0.46, 0.26, 0.36, 1.08, 1.2, "machine_dark")
    if rider:
        _rider(c, rng, hip=(-0.35, 0.9), shoulder=(-0.1, 1.35), hands=(0.38, 1.06), pedal=0.4, helmet=True, spread=0.2)
    return c.model()


@cache
def cone(variant: int) -> VoxelModel:
    """A traffic cone; odd variants are tall delineators."""
    c = Carver(0.49, 0.49, 1.05, _CELL)
    height = 1.02 if variant % 2 else 0.78
    c.box(-0.25, 0.25, -0.25, 0.25, 0.0, 0.07, "cone_orange")
    r = np.hypot(c.x, c.y)
    c.fill((r < 0.19 * (1 - c.z / height) + 0.05) & (c.z < height), "cone_orange")
    c.recolour(((c.z > 0.3 * height) & (c.z < 0.5 * height)) | ((c.z > 0.68 * height) & (c.z < 0.82 * height)), "cone_white")
    return c.model()


@cache
def barrier(style: str) -> VoxelModel:
    """A barrier across the x axis (its long side lies along y, as in nuScenes): jersey, plastic or board."""
    if style == "jersey":
        c = Carver(0.6, 2.5, 0.9, 0.1)
        half = np.where(c.z < 0.2, 0.3, np.where(c.z < 0.4, 0.3 - (c.z - 0.2) * 0.7, 0.11))
        return c.fill((abs(c.x) < half) & (abs(c.y) < 1.25), "barrier_concrete").model()
    if style == "plastic":
        c = Carver(0.5, 2.0, 1.0, 0.1)
        c.fill((abs(c.x) < np.where(c.z < 0.3, 0.25, 0.15)) & (abs(c.y) < 1.0), "barrier_white")
        c.recolour(((c.y + 5.0) % 1.0) < 0.5, "barrier_red").box(-0.3, 0.3, -0.6, -0.4, 0.4, 0.6, "air").box(
            -0.3, 0.3, 0.4, 0.6, 0.4, 0.6, "air"
        )
        return c.model()
    c = Carver(0.5, 2.0, 1.1, 0.1)
    c.box(-0.05, 0.05, -1.0, 1.0, 0.75, 1.1, "barrier_white").box(-0.05, 0.05, -1.0, 1.0, 0.3, 0.5, "barrier_white")
    c.recolour(((c.y + c.z + 5.0) % 0.6) < 0.3, "barrier_red")
    c.sides(-0.06, 0.06, 0.72, 0.88, 0.0, 0.8, "machine_dark")
    return c.sides(-0.25, 0.25, 0.7, 0.9, 0.0, 0.1, "machine_dark").model()


BARRIER_STYLES = ("jersey", "plastic", "board")
