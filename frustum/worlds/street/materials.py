"""Materials of the street world: what a cell looks like and which class it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frustum.data.classes import GENERAL_CLASSES, OCC3D_CLASSES

# How the renderer varies the base colour over a surface.
TEXTURES = ("plain", "asphalt", "paint", "tiles", "grass", "gravel", "brick", "plaster", "glass", "foliage", "bark", "wood", "metal", "cloth", "lamp")


@dataclass(frozen=True)
class Material:
    """A kind of surface. `category` is one of nuScenes' general classes and decides the Occ3D class; actors override it with their own."""

    name: str
    category: str
    colour: tuple[float, float, float]  # linear RGB, 0..1
    texture: str = "plain"
    tintable: bool = False  # multiplied by the actor's tint
    reflectivity: float = 0.3  # LiDAR intensity, 0..1


_MANMADE, _OTHERS, _GREEN = "static.manmade", "static.other", "static.vegetation"
_ROAD, _WALK, _SOIL, _FLAT = "flat.driveable_surface", "flat.sidewalk", "flat.terrain", "flat.other"
_ACTOR = "noise"  # replaced by the actor's own category

MATERIALS: tuple[Material, ...] = (
    Material("air", "noise", (0, 0, 0)),
    # ground
    Material("asphalt", _ROAD, (0.115, 0.115, 0.12), "asphalt", reflectivity=0.12),
    Material("asphalt_worn", _ROAD, (0.165, 0.16, 0.155), "asphalt", reflectivity=0.15),
    Material("marking", _ROAD, (0.75, 0.75, 0.72), "paint", reflectivity=0.7),
    Material("marking_yellow", _ROAD, (0.72, 0.50, 0.10), "paint", reflectivity=0.6),
    Material("kerb", _WALK, (0.42, 0.41, 0.39), "plain", reflectivity=0.3),
    Material("paving", _WALK, (0.40, 0.37, 0.34), "tiles", reflectivity=0.3),
    Material("paving_red", _WALK, (0.40, 0.22, 0.17), "tiles", reflectivity=0.3),
    Material("grass", _SOIL, (0.11, 0.22, 0.05), "grass", reflectivity=0.35),
    Material("grass_dry", _SOIL, (0.30, 0.27, 0.11), "grass", reflectivity=0.35),
    Material("soil", _SOIL, (0.22, 0.15, 0.09), "gravel", reflectivity=0.3),
    Material("gravel", _FLAT, (0.36, 0.34, 0.31), "gravel", reflectivity=0.3),
    Material("island", _FLAT, (0.33, 0.18, 0.13), "brick", reflectivity=0.3),
    # buildings and street furniture
    Material("plaster_white", _MANMADE, (0.72, 0.70, 0.65), "plaster"),
    Material("plaster_sand", _MANMADE, (0.60, 0.48, 0.30), "plaster"),
    Material("plaster_rose", _MANMADE, (0.55, 0.30, 0.26), "plaster"),
    Material("plaster_grey", _MANMADE, (0.36, 0.38, 0.40), "plaster"),
    Material("plaster_blue", _MANMADE, (0.26, 0.36, 0.48), "plaster"),
    Material("brick_red", _MANMADE, (0.34, 0.12, 0.08), "brick"),
    Material("brick_brown", _MANMADE, (0.26, 0.17, 0.11), "brick"),
    Material("concrete", _MANMADE, (0.42, 0.42, 0.41), "plaster"),
    Material("roof_tile", _MANMADE, (0.28, 0.10, 0.07), "tiles"),
    Material("roof_dark", _MANMADE, (0.08, 0.08, 0.09), "plain"),
    Material("window", _MANMADE, (0.10, 0.14, 0.19), "glass", reflectivity=0.1),
    Material("window_lit", _MANMADE, (0.85, 0.70, 0.40), "lamp", reflectivity=0.1),
    Material("door", _MANMADE, (0.20, 0.11, 0.06), "wood"),
    Material("fence_wood", _MANMADE, (0.34, 0.22, 0.12), "wood"),
    Material("pole", _MANMADE, (0.22, 0.23, 0.24), "metal", reflectivity=0.5),
    Material("sign_blue", _MANMADE, (0.04, 0.14, 0.50), "plain", reflectivity=0.95),
    Material("sign_red", _MANMADE, (0.62, 0.04, 0.04), "plain", reflectivity=0.95),
    Material("light_lamp", _MANMADE, (0.95, 0.92, 0.80), "lamp"),
    Material("bin", _OTHERS, (0.08, 0.26, 0.14), "plain"),
    Material("bench", _OTHERS, (0.38, 0.22, 0.10), "wood"),
    Material("box", _OTHERS, (0.55, 0.50, 0.10), "plain"),
    # vegetation
    Material("leaf", _GREEN, (0.10, 0.26, 0.05), "foliage", reflectivity=0.4),
    Material("leaf_dark", _GREEN, (0.05, 0.15, 0.05), "foliage", reflectivity=0.4),
    Material("leaf_autumn", _GREEN, (0.48, 0.26, 0.05), "foliage", reflectivity=0.4),
    Material("bark", _GREEN, (0.16, 0.10, 0.06), "bark", reflectivity=0.3),
    # actors; the class is the actor's own
    Material("body", _ACTOR, (0.95, 0.95, 0.95), "metal", tintable=True, reflectivity=0.5),
    Material("body_dark", _ACTOR, (0.45, 0.45, 0.45), "metal", tintable=True, reflectivity=0.4),
    Material("cargo", _ACTOR, (0.62, 0.62, 0.60), "metal", reflectivity=0.5),
    Material("tyre", _ACTOR, (0.02, 0.02, 0.02), "plain", reflectivity=0.05),
    Material("rim", _ACTOR, (0.45, 0.45, 0.47), "metal", reflectivity=0.6),
    Material("glass", _ACTOR, (0.05, 0.07, 0.09), "glass", reflectivity=0.08),
    Material("headlamp", _ACTOR, (0.95, 0.93, 0.85), "lamp", reflectivity=0.9),
    Material("taillamp", _ACTOR, (0.70, 0.03, 0.03), "lamp", reflectivity=0.9),
    Material("plate", _ACTOR, (0.80, 0.80, 0.75), "plain", reflectivity=0.95),
    Material("chassis", _ACTOR, (0.06, 0.06, 0.06), "plain", reflectivity=0.15),
    Material("machine_yellow", _ACTOR, (0.75, 0.45, 0.02), "metal", reflectivity=0.4),
    Material("skin", _ACTOR, (0.55, 0.34, 0.24), "plain", reflectivity=0.4),
    Material("hair", _ACTOR, (0.06, 0.04, 0.03), "plain", reflectivity=0.2),
    Material("shirt", _ACTOR, (0.90, 0.90, 0.90), "cloth", tintable=True, reflectivity=0.4),
    Material("trousers", _ACTOR, (0.08, 0.10, 0.20), "cloth", reflectivity=0.3),
    Material("helmet", _ACTOR, (0.85, 0.85, 0.85), "metal", tintable=True, reflectivity=0.5),
    Material("cone_orange", _ACTOR, (0.85, 0.20, 0.02), "plain", reflectivity=0.6),
    Material("cone_white", _ACTOR, (0.85, 0.85, 0.85), "plain", reflectivity=0.95),
    Material("barrier_concrete", _ACTOR, (0.50, 0.50, 0.48), "plaster", reflectivity=0.35),
    Material("barrier_red", _ACTOR, (0.65, 0.06, 0.04), "plain", reflectivity=0.6),
)

MATERIAL_ID: dict[str, int] = {m.name: i for i, m in enumerate(MATERIALS)}
_GENERAL_ID = {c.name: i for i, c in enumerate(GENERAL_CLASSES)}

# Look-up tables for the kernels, indexed by material id.
GENERAL_OF_MATERIAL = np.array([_GENERAL_ID[m.category] for m in MATERIALS], np.uint8)
OCC3D_OF_GENERAL = np.array([OCC3D_CLASSES.index(c.occ3d) for c in GENERAL_CLASSES], np.uint8)
