"""The plan of a town: plots of every kind, parking spaces, connected roads."""

import numpy as np
import pytest
from scipy.ndimage import label

from frustum.worlds.street import city as city_module
from frustum.worlds.street.canvas import CELL
from frustum.worlds.street.city import City, build_city
from frustum.worlds.street.config import SceneConfig
from frustum.worlds.street.frontage import FrontLine, Plot
from frustum.worlds.street.ground import BUILDING, CARRIAGEWAY, ISLAND, PARCEL, PAVED, WALK
from frustum.worlds.street.materials import MATERIAL_ID, MATERIALS
from tests.worlds.street.scenes import STYLES, city

KINDS = ("row", "house", "park", "carpark", "plaza", "hall", "site", "field")
CATEGORY = np.array([m.category for m in MATERIALS])


def town_of(monkeypatch: pytest.MonkeyPatch, kind: str) -> City:
    """A town with plots of one kind only, no junctions in the way."""

    def plan(rng, network, district, low, high, length):
        line = FrontLine(network)
        return [
            Plot(kind, x, x + 26.0, side, line.farthest(x, x + 26.0, side)) for side in (1, -1) for x in np.arange(low + 8, high - 34, 26.0)
        ]

    monkeypatch.setattr(city_module, "plan_plots", plan)
    return build_city(np.random.default_rng(8), SceneConfig(style="park", duration=6.0), 40.0, lit=0.0)


def area(c: City, plot: Plot, u0: float, u1: float) -> tuple[slice, slice]:
    """Columns of a plot between two depths."""
    y0, y1 = plot.span(u0, u1)
    i0, j0 = c.canvas.index(plot.x0, y0)
    i1, j1 = c.canvas.index(plot.x1, y1)
    return slice(max(i0, 0), i1), slice(max(j0, 0), j1)


def share(c: City, plots: list[Plot], u0: float, u1: float, zone: int) -> float:
    """Mean share of a zone in the plots."""
    return float(np.mean([(c.canvas.zone[area(c, p, u0, u1)] == zone).mean() for p in plots]))


def things(c: City, plots: list[Plot], u0: float, u1: float) -> dict[str, float]:
    """Share of columns of the plots that hold each category of static things."""
    blocks = [c.canvas.cells[area(c, p, u0, u1)] for p in plots]
    result = {}
    for name in ("static.manmade", "static.vegetation", "static.other"):
        ids = np.flatnonzero(name == CATEGORY)
        result[name] = float(np.mean([np.isin(b, ids).any(2).mean() for b in blocks]))
    return result


def grounds(c: City, plots: list[Plot], u0: float, u1: float) -> set[str]:
    """Names of the ground materials of the plots."""
    found: set[int] = set()
    for p in plots:
        i, j = area(c, p, u0, u1)
        found |= set(np.unique(c.canvas.ground.material[2 * i.start : 2 * i.stop, 2 * j.start : 2 * j.stop]).tolist())
    return {MATERIALS[m].name for m in found}


@pytest.mark.parametrize("kind", KINDS)
def test_plots_of_every_kind_have_their_character(monkeypatch, kind):
    c = town_of(monkeypatch, kind)
    plots = [p for p in c.plots if p.x0 > -30 and p.x1 < 70]
    built = share(c, plots, 0, 26, BUILDING)
    has = things(c, plots, 0, 26)
    ground = grounds(c, plots, 1, 12)
    if kind in ("row", "house", "hall", "plaza"):
        assert built > 0.08
        assert has["static.manmade"] > built
    if kind in ("park", "field"):
        assert built == 0
        assert has["static.vegetation"] > 0.1
    if kind == "house":
        assert has["static.vegetation"] > 0.03
        assert [s for s in c.spots if s.kind == "drive"]
    if kind == "park":
        assert "gravel" in ground  # paths
        assert has["static.other"] > 0  # benches
    if kind == "plaza":
        assert ground & {"paving", "paving_red", "paving_sand"}
        assert has["static.other"] > 0
    if kind == "carpark":
        assert share(c, plots, 0, 18, PAVED) > 0.4
        assert [s for s in c.spots if s.kind == "stall"]
    if kind == "hall":
        assert [s for s in c.spots if s.kind == "site"]
    if kind == "site":
        assert ground & {"soil", "gravel"}
        assert share(c, plots, 0.5, 9.5, PARCEL) > 0.8  # room for machines
        assert len([s for s in c.spots if s.kind == "site"]) == 2 * len(c.plots)


@pytest.mark.parametrize("style", STYLES)
def test_roads_hang_together(style):
    zone = city(style).canvas.zone
    parts, count = label(np.isin(zone, (CARRIAGEWAY, PAVED)))
    sizes = np.sort(np.bincount(parts.ravel())[1:])
    assert sizes[-1] / sizes.sum() > 0.95, f"{count} parts: car parks need driveways"


@pytest.mark.parametrize("style", STYLES)
def test_parking_spaces_lie_where_they_say(style):
    c = city(style)
    zones = {"stall": (PAVED,), "kerb": (CARRIAGEWAY, ISLAND), "drive": (PARCEL,), "site": (PARCEL,)}
    for spot in c.spots:
        i, j = c.canvas.index(spot.x, spot.y)
        if c.canvas.inside(i, j):
            assert c.canvas.zone[i, j] in zones[spot.kind], spot
        assert spot.length >= 5


@pytest.mark.parametrize("style", STYLES)
def test_stalls_do_not_overlap(style):
    stalls = [s for s in city(style).spots if s.kind == "stall"]
    xy = np.array([[s.x, s.y] for s in stalls]).reshape(-1, 2)
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=2) + 99 * np.eye(len(xy))
    assert len(xy) == 0 or apart.min() > 2.4


@pytest.mark.parametrize("style", STYLES)
def test_zebras_lead_from_pavement_to_pavement(style):
    c = city(style)
    for crossing in c.network.crossings:
        road = c.network.roads[crossing.road]
        middle = (crossing.s0 + crossing.s1) / 2
        for d in (road.left + 1.0, -road.right - 1.0):
            i, j = c.canvas.index(*road.path.at(middle, d)[0])
            if c.canvas.inside(i, j):
                assert c.canvas.zone[i, j] in ((WALK,) if crossing.road == 0 else (WALK, PARCEL, CARRIAGEWAY))


@pytest.mark.parametrize("style", STYLES)
def test_buildings_keep_off_pavements(style):
    c = city(style)
    built = c.canvas.zone == BUILDING
    assert built.any()
    line = FrontLine(c.network)
    i, j = np.nonzero(built)
    x = c.canvas.ground.origin[0] + (i + 0.5) * CELL
    y = c.canvas.ground.origin[1] + (j + 0.5) * CELL
    assert ((y > line.at(x, 1) - 0.1) | (y < line.at(x, -1) + 0.1)).all()


def test_seasons_and_pavings_vary():
    towns = [build_city(np.random.default_rng(s), SceneConfig(style="suburb", duration=2.0), 20.0, 0.0) for s in range(6)]
    assert len({t.season for t in towns}) >= 2
    assert len({tuple(np.bincount(t.canvas.ground.material.ravel(), minlength=40) > 0) for t in towns}) > 2


def test_greenery_scales_the_number_of_plants():
    leaves = []
    for green in (0.0, 1.0, 2.0):
        c = build_city(np.random.default_rng(5), SceneConfig(style="park", duration=2.0, greenery=green), 20.0, 0.0)
        leaves.append(np.isin(c.canvas.cells, [m for n, m in MATERIAL_ID.items() if n.startswith("leaf")]).sum())
    assert leaves[0] < leaves[1] < leaves[2]
