"""Materials of the street world: what a cell looks like and which class it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frustum.types.classes import OCC3D_CLASSES, OCC3D_OF_CATEGORY

# How the renderer varies the base colour over a surface.
TEXTURES = (
    "plain",
    "asphalt",
    "paint",
    "tiles",
    "grass",
    "gravel",
    "brick",
    "plaster",
    "glass",
    "foliage",
    "bark",
    "wood",
    "metal",
    "cloth",
    "lamp",
)


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
    Material("asphalt_dark", _ROAD, (0.075, 0.075, 0.08), "asphalt", reflectivity=0.1),
    Material("asphalt_red", _ROAD, (0.26, 0.085, 0.065), "asphalt", reflectivity=0.15),
    Material("manhole", _ROAD, (0.06, 0.058, 0.055), "metal", reflectivity=0.5),
    Material("marking", _ROAD, (0.75, 0.75, 0.72), "paint", reflectivity=0.7),
    Material("marking_yellow", _ROAD, (0.72, 0.50, 0.10), "paint", reflectivity=0.6),
    Material("kerb", _WALK, (0.42, 0.41, 0.39), "plain", reflectivity=0.3),
    Material("paving", _WALK, (0.40, 0.37, 0.34), "tiles", reflectivity=0.3),
    Material("paving_red", _WALK, (0.40, 0.22, 0.17), "tiles", reflectivity=0.3),
    Material("paving_sand", _WALK, (0.46, 0.41, 0.31), "tiles", reflectivity=0.3),
    Material("grass", _SOIL, (0.11, 0.22, 0.05), "grass", reflectivity=0.35),
    Material("grass_dry", _SOIL, (0.30, 0.27, 0.11), "grass", reflectivity=0.35),
    Material("grass_lush", _SOIL, (0.075, 0.20, 0.035), "grass", reflectivity=0.35),
    Material("soil", _SOIL, (0.22, 0.15, 0.09), "gravel", reflectivity=0.3),
    Material("gravel", _FLAT, (0.36, 0.34, 0.31), "gravel", reflectivity=0.3),
    Material("island", _FLAT, (0.33, 0.18, 0.13), "brick", reflectivity=0.3),
    # buildings and street furniture
    Material("plaster_white", _MANMADE, (0.72, 0.70, 0.65), "plaster"),
    Material("plaster_sand", _MANMADE, (0.60, 0.48, 0.30), "plaster"),
    Material("plaster_rose", _MANMADE, (0.55, 0.30, 0.26), "plaster"),
    Material("plaster_grey", _MANMADE, (0.36, 0.38, 0.40), "plaster"),
    Material("plaster_blue", _MANMADE, (0.26, 0.36, 0.48), "plaster"),
    Material("plaster_yellow", _MANMADE, (0.66, 0.54, 0.24), "plaster"),
    Material("plaster_green", _MANMADE, (0.34, 0.42, 0.30), "plaster"),
    Material("stone", _MANMADE, (0.50, 0.47, 0.41), "brick"),
    Material("trim", _MANMADE, (0.70, 0.69, 0.65), "plain"),
    Material("trim_dark", _MANMADE, (0.12, 0.12, 0.13), "plain"),
    Material("panel_white", _MANMADE, (0.62, 0.64, 0.65), "metal"),
    Material("panel_blue", _MANMADE, (0.12, 0.22, 0.36), "metal"),
    Material("brick_red", _MANMADE, (0.34, 0.12, 0.08), "brick"),
    Material("brick_brown", _MANMADE, (0.26, 0.17, 0.11), "brick"),
    Material("concrete", _MANMADE, (0.42, 0.42, 0.41), "plaster"),
    Material("roof_tile", _MANMADE, (0.28, 0.10, 0.07), "tiles"),
    Material("roof_dark", _MANMADE, (0.08, 0.08, 0.09), "plain"),
    Material("roof_slate", _MANMADE, (0.15, 0.16, 0.18), "tiles"),
    Material("awning_red", _MANMADE, (0.46, 0.06, 0.05), "cloth"),
    Material("awning_green", _MANMADE, (0.06, 0.24, 0.12), "cloth"),
    Material("awning_striped", _MANMADE, (0.62, 0.56, 0.44), "cloth"),
    Material("container_red", _MANMADE, (0.42, 0.07, 0.04), "metal"),
    Material("container_blue", _MANMADE, (0.04, 0.14, 0.30), "metal"),
    Material("window", _MANMADE, (0.10, 0.14, 0.19), "glass", reflectivity=0.1),
    Material("window_lit", _MANMADE, (0.85, 0.70, 0.40), "lamp", reflectivity=0.1),
    Material("door", _MANMADE, (0.20, 0.11, 0.06), "wood"),
    Material("fence_wood", _MANMADE, (0.34, 0.22, 0.12), "wood"),
    Material("pole", _MANMADE, (0.22, 0.23, 0.24), "metal", reflectivity=0.5),
    Material("sign_blue", _MANMADE, (0.04, 0.14, 0.50), "plain", reflectivity=0.95),
    Material("sign_red", _MANMADE, (0.62, 0.04, 0.04), "plain", reflectivity=0.95),
    Material("sign_white", _MANMADE, (0.85, 0.85, 0.85), "plain", reflectivity=0.95),
    Material("signal_red", _MANMADE, (0.95, 0.05, 0.03), "lamp"),
    Material("signal_green", _MANMADE, (0.05, 0.85, 0.25), "lamp"),
    Material("light_lamp", _MANMADE, (0.95, 0.92, 0.80), "lamp"),
    Material("bin", _OTHERS, (0.08, 0.26, 0.14), "plain"),
    Material("bench", _OTHERS, (0.38, 0.22, 0.10), "wood"),
    Material("box", _OTHERS, (0.55, 0.50, 0.10), "plain"),
    Material("sand_heap", _SOIL, (0.42, 0.34, 0.20), "gravel"),
    Material("rubble", _OTHERS, (0.34, 0.32, 0.30), "gravel"),
    Material("mailbox", _OTHERS, (0.62, 0.34, 0.02), "plain"),
    Material("cabinet", _OTHERS, (0.34, 0.37, 0.35), "metal"),
    # vegetation
    Material("leaf", _GREEN, (0.10, 0.26, 0.05), "foliage", reflectivity=0.4),
    Material("leaf_dark", _GREEN, (0.05, 0.15, 0.05), "foliage", reflectivity=0.4),
    Material("leaf_autumn", _GREEN, (0.48, 0.26, 0.05), "foliage", reflectivity=0.4),
    Material("leaf_light", _GREEN, (0.19, 0.36, 0.07), "foliage", reflectivity=0.4),
    Material("leaf_yellow", _GREEN, (0.58, 0.42, 0.06), "foliage", reflectivity=0.4),
    Material("leaf_red", _GREEN, (0.40, 0.10, 0.04), "foliage", reflectivity=0.4),
    Material("needles", _GREEN, (0.035, 0.11, 0.055), "foliage", reflectivity=0.4),
    Material("blossom", _GREEN, (0.72, 0.46, 0.50), "foliage", reflectivity=0.4),
    Material("bark_birch", _GREEN, (0.58, 0.56, 0.52), "bark", reflectivity=0.4),
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
    Material("machine_dark", _ACTOR, (0.10, 0.10, 0.11), "metal", reflectivity=0.3),
    Material("tarp", _ACTOR, (0.85, 0.85, 0.85), "cloth", tintable=True, reflectivity=0.4),
    Material("tank", _ACTOR, (0.66, 0.67, 0.68), "metal", reflectivity=0.8),
    Material("timber", _ACTOR, (0.42, 0.28, 0.14), "wood", reflectivity=0.3),
    Material("vest", _ACTOR, (0.90, 0.48, 0.02), "cloth", reflectivity=0.8),
    Material("bag", _ACTOR, (0.16, 0.10, 0.07), "cloth", reflectivity=0.2),
    Material("trousers_grey", _ACTOR, (0.18, 0.18, 0.19), "cloth", reflectivity=0.3),
    Material("trousers_brown", _ACTOR, (0.22, 0.15, 0.09), "cloth", reflectivity=0.3),
    Material("hair_fair", _ACTOR, (0.40, 0.26, 0.11), "plain", reflectivity=0.2),
    Material("barrier_white", _ACTOR, (0.82, 0.82, 0.80), "plain", reflectivity=0.9),
    Material("skin_dark", _ACTOR, (0.22, 0.12, 0.07), "plain", reflectivity=0.3),
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
_GENERAL_ID = {name: i for i, name in enumerate(OCC3D_OF_CATEGORY)}

# Look-up tables for the kernels, indexed by material id.
GENERAL_OF_MATERIAL = np.array([_GENERAL_ID[m.category] for m in MATERIALS], np.uint8)
OCC3D_OF_GENERAL = np.array([OCC3D_CLASSES.index(name) for name in OCC3D_OF_CATEGORY.values()], np.uint8)
