"""Trees, bushes and hedges: templates grown once per process, recoloured by season."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.ndimage import binary_erosion

from frustum.worlds.street.canvas import CELL, Canvas
from frustum.worlds.street.materials import MATERIAL_ID

# species: height, clear trunk, crown radius, crown shape, trunk radius, bark, leaves that change with the season
_SPECIES: dict[str, tuple[float, float, float, str, float, str, bool]] = {
    "oak": (9.6, 3.0, 3.4, "round", 0.34, "bark", True),
    "linden": (8.4, 3.2, 2.5, "oval", 0.24, "bark", True),
    "maple": (7.4, 2.8, 2.6, "round", 0.22, "bark", True),
    "plane": (10.4, 4.2, 3.2, "oval", 0.30, "bark", True),
    "birch": (8.8, 2.6, 1.8, "oval", 0.17, "bark_birch", True),
    "poplar": (12.4, 1.8, 1.3, "column", 0.22, "bark", True),
    "young": (4.8, 2.2, 1.2, "round", 0.12, "bark", True),
    "spruce": (10.0, 0.8, 2.3, "cone", 0.22, "bark", False),
    "pine": (9.0, 5.0, 2.3, "umbrella", 0.22, "bark", False),
}
SPECIES = tuple(_SPECIES)
VARIANTS = 3

# palette of a season: leaf, dark, light
_SEASONS: dict[str, list[tuple[str, str, str]]] = {
    "summer": [("leaf", "leaf_dark", "leaf_light"), ("leaf", "leaf_dark", "leaf"), ("leaf_dark", "leaf_dark", "leaf")],
    "spring": [
        ("leaf_light", "leaf", "leaf_light"),
        ("leaf_light", "leaf", "leaf_light"),
        ("blossom", "leaf_light", "blossom"),
        ("leaf", "leaf_dark", "leaf_light"),
    ],
    "autumn": [
        ("leaf_autumn", "leaf_red", "leaf_yellow"),
        ("leaf_yellow", "leaf_autumn", "leaf_light"),
        ("leaf_red", "leaf_autumn", "leaf_red"),
        ("leaf", "leaf_dark", "leaf_yellow"),
    ],
}
SEASONS = tuple(_SEASONS)


def _blank(width: float, height: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    n, h = 2 * int(np.ceil(width / 2 / CELL)) + 3, int(np.ceil(height / CELL)) + 2
    cells = np.zeros((n, n, h), np.uint8)
    axis = (np.arange(n) - n // 2) * CELL
    return cells, axis[:, None, None], axis[None, :, None], ((np.arange(h) + 0.5) * CELL)[None, None, :]


@cache
def tree(species: str, variant: int) -> np.ndarray:
    """Template (N, N, H) of a tree with its trunk in the middle; leaf colours are those of summer."""
    height, clear, radius, shape, trunk, bark, _ = _SPECIES[species]
    rng = np.random.default_rng([SPECIES.index(species), variant, 11])
    height *= rng.uniform(0.88, 1.08)
    radius *= rng.uniform(0.9, 1.1)
    cells, x, y, z = _blank(2 * radius + 1.0, height + 0.6)
    leaf, dark, light = (
        (MATERIAL_ID[n] for n in ("needles", "needles", "leaf_dark"))
        if shape in ("cone", "umbrella")
        else (MATERIAL_ID[n] for n in ("leaf", "leaf_dark", "leaf_light"))
    )
    crown = np.zeros(cells.shape, bool)
    tone = np.full(cells.shape, leaf, np.uint8)
    if shape == "cone":
        layers = 7
        for k in range(layers):  # drooping tiers
            z1 = height - k * (height - clear) / layers
            r1 = radius * (k + 1) / layers
            z0 = z1 - 1.5 * (height - clear) / layers
            reach = r1 * np.clip((z1 - z) / (z1 - z0), 0, 1) * (0.88 + 0.2 * rng.random(cells.shape))
            crown |= (np.hypot(x, y) < reach) & (z > z0) & (z < z1)
        tone[rng.random(cells.shape) < 0.12] = light
    else:
        z0 = clear * 0.8 if shape != "umbrella" else clear
        middle, half = (z0 + height) / 2, (height - z0) / 2
        blobs = {"round": 22, "oval": 24, "column": 20, "umbrella": 16}[shape]
        for _ in range(blobs):
            v = rng.normal(size=3)
            v *= rng.random() ** 0.4 * 0.72 / np.linalg.norm(v)
            spread = radius * (1.0 - 0.25 * v[2]) if shape != "column" else radius * 0.8
            c = np.array([v[0] * spread, v[1] * spread, middle + v[2] * half])
            r = rng.uniform(0.34, 0.5) * min(radius, half) * (1.25 if shape == "column" else 1.0)
            q = np.sqrt((x - c[0]) ** 2 + (y - c[1]) ** 2 + ((z - c[2]) / 0.85) ** 2) / r
            blob = q < 1.0 + 0.16 * (rng.random(cells.shape) - 0.5)
            shade = leaf if rng.random() < 0.6 else (light if v[2] > 0 else dark)
            tone[blob & ~crown] = shade
            tone[blob & (z < c[2] - 0.45 * r)] = dark
            crown |= blob
    inner = binary_erosion(crown, iterations=4)
    crown &= ~inner & ((rng.random(cells.shape) > 0.22) | binary_erosion(crown, iterations=1))
    cells[crown] = tone[crown]
    bend = rng.normal(0, 0.25, 2)
    lean = np.clip(z / height, 0, 1) ** 2
    stem = np.hypot(x - bend[0] * lean, y - bend[1] * lean) < np.maximum(
        trunk * (1.15 - 0.6 * z / height) * np.where(z < 0.5, 1.3, 1.0), 0.12
    )
    cells[stem & (z < height - 1.2)] = MATERIAL_ID[bark]
    if shape in ("round", "oval"):
        for _ in range(5):  # boughs that show below the crown
            a, rise = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.6)
            reach = np.clip(z - (clear - 0.9), 0, None)
            along = reach / rise
            bough = (np.hypot(x - np.cos(a) * along, y - np.sin(a) * along) < 0.16) & (reach > 0) & (along < radius * 0.6)
            cells[bough] = MATERIAL_ID[bark]
    cells.setflags(write=False)
    return cells


@cache
def bush(variant: int) -> np.ndarray:
    """Template of a bush."""
    rng = np.random.default_rng([variant, 12])
    radius, height = rng.uniform(0.5, 1.2), rng.uniform(0.7, 1.7)
    cells, x, y, z = _blank(2 * radius + 0.8, height + 0.4)
    solid = np.zeros(cells.shape, bool)
    for _ in range(6):
        c = rng.uniform(-0.4, 0.4, 2) * radius
        h = height * rng.uniform(0.6, 1.0)
        solid |= ((x - c[0]) / (0.7 * radius)) ** 2 + ((y - c[1]) / (0.7 * radius)) ** 2 + (z / h) ** 2 < 1.0 + 0.3 * (
            rng.random(cells.shape) - 0.5
        )
    colours = np.array([MATERIAL_ID[n] for n in ("leaf", "leaf_dark", "leaf_light")], np.uint8)
    cells[solid] = colours[rng.choice(3, size=int(solid.sum()), p=[0.6, 0.25, 0.15])]
    cells.setflags(write=False)
    return cells


def season_table(rng: np.random.Generator, season: str, evergreen: bool = False) -> np.ndarray:
    """Look-up table (256,) that recolours a template for one plant."""
    table = np.arange(256, dtype=np.uint8)
    if not evergreen:
        options = _SEASONS[season]
        for old, new in zip(("leaf", "leaf_dark", "leaf_light"), options[int(rng.integers(len(options)))], strict=True):
            table[MATERIAL_ID[old]] = MATERIAL_ID[new]
    return table


def plant_tree(canvas: Canvas, rng: np.random.Generator, x: float, y: float, species: str, season: str) -> None:
    """Plant a random specimen of a species, turned by a random quarter."""
    template = np.rot90(tree(species, int(rng.integers(VARIANTS))), int(rng.integers(4)))
    canvas.stamp(template, x, y, season_table(rng, season, evergreen=not _SPECIES[species][-1]))


def plant_bush(canvas: Canvas, rng: np.random.Generator, x: float, y: float, season: str) -> None:
    """Plant a random bush."""
    evergreen = season != "autumn" or rng.random() < 0.6
    canvas.stamp(np.rot90(bush(int(rng.integers(8))), int(rng.integers(4))), x, y, season_table(rng, season, evergreen))


def crown_radius(species: str) -> float:
    """Metres from the trunk that a species reaches, about."""
    return _SPECIES[species][2] * 1.1


def grow_hedge(canvas: Canvas, rng: np.random.Generator, i0: int, i1: int, j0: int, j1: int, height: int) -> None:
    """A clipped hedge over a rectangle of columns that follows the ground; `height` in cells."""
    colours = np.array([MATERIAL_ID[n] for n in ("leaf", "leaf_dark", "leaf_light")], np.uint8)
    if i1 <= i0 or j1 <= j0 or not (canvas.inside(i0, j0) and canvas.inside(i1, j1)):
        return
    floor = canvas.surface[i0:i1, j0:j1]
    top = floor + height - (rng.random(floor.shape) < 0.25)
    k0, k1 = int(floor.min()), int(top.max())
    k = np.arange(k0, k1)[None, None]
    block = canvas.cells[i0:i1, j0:j1, k0:k1]
    solid = (k >= floor[..., None]) & (k < top[..., None]) & (block == 0)
    block[solid] = colours[rng.choice(3, size=int(solid.sum()), p=[0.55, 0.3, 0.15])]
