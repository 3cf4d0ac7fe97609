"""The static half of a scene: terrain, roads, plots and street furniture, built in the order in which a town grows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frustum.worlds.street.canvas import CELL, Canvas
from frustum.worlds.street.config import SceneConfig
from frustum.worlds.street.frontage import FrontLine, Plot, Spot, kerb_spots, pave_car_parks, plan_plots
from frustum.worlds.street.greenery import SEASONS
from frustum.worlds.street.ground import paint_ground
from frustum.worlds.street.materials import MATERIAL_ID
from frustum.worlds.street.parcels import Builder, build_plot
from frustum.worlds.street.paths import Network, Rect
from frustum.worlds.street.roads import DISTRICTS, plan_network
from frustum.worlds.street.streetside import line_streets
from frustum.worlds.street.terrain import Terrain

_BASE = {
    "row": "paving",
    "house": "lawn",
    "park": "lawn",
    "carpark": "lawn",
    "plaza": "paving",
    "hall": "gravel",
    "site": "soil",
    "field": "grass_dry",
}


@dataclass
class City:
    """The result of `build_city` and what traffic needs to know about it."""

    style: str
    season: str
    terrain: Terrain
    network: Network
    plots: list[Plot]
    spots: list[Spot]
    canvas: Canvas
    length: float  # of the ego vehicle's part of the main road, which begins at arc length 0


def build_city(rng: np.random.Generator, config: SceneConfig, length: float, lit: float) -> City:
    """A city around `length` metres of main road; `lit` is the share of windows with light."""
    style = config.style if config.style != "any" else str(rng.choice(list(DISTRICTS), p=[0.32, 0.28, 0.22, 0.18]))
    season = str(rng.choice(SEASONS, p=[0.3, 0.3, 0.4] if SEASONS[0] == "autumn" else [0.5, 0.22, 0.28]))
    district = DISTRICTS[style]
    terrain = Terrain.random(rng, config.hilliness)
    network = plan_network(rng, district, length, config.margin + 12.0)
    low, shape = _extent(network, length, config.margin)
    high = low + np.array(shape) * CELL
    plots = plan_plots(rng, network, district, low[0], high[0], length)
    stalls, drops = pave_car_parks(rng, network, plots)
    drops += [Rect(c.road, c.s0, c.s1, -network.roads[c.road].right - 0.8, network.roads[c.road].left + 0.8) for c in network.crossings]
    pick = lambda *names: str(rng.choice(names))  # noqa: E731
    paving = pick("paving", "paving", "paving_sand", "paving_red")
    lawn = pick("grass", "grass_lush") if season != "autumn" else pick("grass", "grass_dry", "grass")
    road = pick("asphalt", "asphalt", "asphalt_worn", "asphalt_dark")
    palette = {
        "road": road,
        "side": pick("asphalt", "asphalt_worn"),
        "lot": pick("asphalt_worn", "asphalt_dark"),
        "left": paving,
        "right": paving,
        "verge": lawn,
    }
    material = _plot_ground(plots, network, low, shape, {"paving": paving, "lawn": lawn})
    ground, zone, kerb = paint_ground(network, terrain, material, CELL, (float(low[0]), float(low[1])), palette, drops)
    canvas = Canvas(ground, zone, kerb)
    builder = Builder(
        canvas, rng, district, season, FrontLine(network), paving, lawn, lit, config.greenery, stalls + kerb_spots(network, length)
    )
    for plot in plots:
        back = (high[1] - plot.front) if plot.side > 0 else (plot.front - low[1])
        build_plot(builder, plot, float(back))
    line_streets(builder, network)
    canvas.prune()
    return City(style, season, terrain, network, plots, builder.spots, canvas, length)


def _extent(network: Network, length: float, margin: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Lower corner and shape in cells of the map around the ego vehicle's path."""
    xy, _ = network.main.path.at(np.linspace(0.0, length, 64))
    low = np.floor(xy.min(0) - margin)
    size = np.ceil(xy.max(0) + margin) - low
    return low, (round(float(size[0]) / CELL), round(float(size[1]) / CELL))


def _plot_ground(plots: list[Plot], network: Network, low: np.ndarray, shape: tuple[int, int], names: dict[str, str]) -> np.ndarray:
    """Materials (2X, 2Y) of the land before roads are laid over it."""
    half = CELL / 2
    material = np.full((2 * shape[0], 2 * shape[1]), MATERIAL_ID[names["lawn"]], np.uint8)
    for plot in plots:
        base = _BASE[plot.kind]
        i0, i1 = (int(np.clip((x - low[0]) / half, 0, material.shape[0])) for x in (plot.x0, plot.x1))
        middle = float(network.main.path.at(network.main.path.nearest(np.array([(plot.x0 + plot.x1) / 2, plot.front]))[0])[0][1])
        j = int(np.clip((middle - low[1]) / half, 0, material.shape[1]))
        strip = material[i0:i1, j:] if plot.side > 0 else material[i0:i1, :j]
        strip[:] = MATERIAL_ID[names.get(base, base)]
        if base == "paving":  # courtyards
            k = int(abs(plot.y(15) - middle) / half)
            (strip[:, k:] if plot.side > 0 else strip[:, : max(strip.shape[1] - k, 0)])[:] = MATERIAL_ID[names["lawn"]]
    return material
