import numpy as np
import pytest

from frustum.worlds.street.canvas import CELL
from frustum.worlds.street.ground import BUILDING, CARRIAGEWAY, ISLAND, PARCEL, PAVED, WALK
from frustum.worlds.street.materials import MATERIAL_ID, MATERIALS
from tests.worlds.street.scenes import STYLES, city

CLASS = {m: MATERIALS[i].category for m, i in MATERIAL_ID.items()}


def centres(c) -> np.ndarray:
    g = c.canvas.ground
    x, y = (g.origin[a] + (np.arange(c.canvas.zone.shape[a]) + 0.5) * g.cell for a in (0, 1))
    return np.stack(np.meshgrid(x, y, indexing="ij"), -1)


@pytest.mark.parametrize("style", STYLES)
def test_shapes_fit(style):
    c = city(style)
    g, (x, y) = c.canvas.ground, c.canvas.zone.shape
    assert g.base.shape == (x + 1, y + 1)
    assert g.step.shape == (x, y)
    assert g.material.shape == (2 * x, 2 * y)
    assert g.base.dtype == g.step.dtype == np.float32
    assert g.material.dtype == np.uint8
    assert g.cell == CELL
    assert c.canvas.cells.shape[:2] == (x, y)


@pytest.mark.parametrize("style", STYLES)
def test_carriageway_is_where_the_road_says(style):
    """Zones away from junctions against the road's own cross-section, projected by brute force."""
    c = city(style)
    road, zone = c.network.main, c.canvas.zone
    xy = centres(c)[::9, ::9].reshape(-1, 2)
    zones = zone[::9, ::9].ravel()
    s, d = road.path.nearest(xy)
    clear = (s > road.path.s[0] + 5) & (s < road.path.s[-1] - 5)
    for at, sides in c.network.junctions:
        clear &= abs(s - at) > c.network.roads[sides[0]].left + c.network.corner_radius + 12
    lots = np.zeros(len(s), bool)
    for r in c.network.paved:
        lots |= (s > r.s0 - 1) & (s < r.s1 + 1) & (d > r.d0 - 1) & (d < r.d1 + 1)
    clear &= ~lots
    inside = (d < road.left - 0.2) & (d > -road.right + 0.2)
    assert np.isin(zones[clear & inside], (CARRIAGEWAY, ISLAND)).all()
    left = (d > road.left + 0.3) & (d < road.left + c.network.verge_left + c.network.pavement_left - 0.3)
    right = (d < -road.right - 0.3) & (d > -road.right - c.network.verge_right - c.network.pavement_right + 0.3)
    assert (zones[clear & (left | right)] == WALK).all()
    beyond = (abs(d) > max(road.left, road.right) + 8) & (abs(d) < 40)
    assert np.isin(zones[clear & beyond], (PARCEL, BUILDING)).mean() > 0.9


@pytest.mark.parametrize("style", STYLES)
def test_kerbs_rise_from_the_road_to_the_pavement(style):
    c = city(style)
    kerb, zone = c.canvas.kerb, c.canvas.zone
    assert kerb.min() >= 0
    assert kerb.max() == pytest.approx(0.15)
    middle = kerb[:-1, :-1]
    assert np.median(middle[zone == CARRIAGEWAY]) == 0
    assert np.median(middle[zone == WALK]) == pytest.approx(0.15)
    assert np.median(middle[zone == PARCEL]) == pytest.approx(0.15)
    if (zone == PAVED).any():
        assert np.median(middle[zone == PAVED]) == 0
    # lowered where people cross
    for crossing in c.network.crossings:
        road = c.network.roads[crossing.road]
        xy, _ = road.path.at((crossing.s0 + crossing.s1) / 2, road.left + 0.4)
        i, j = c.canvas.index(*xy)
        if c.canvas.inside(i, j, 2):
            assert kerb[i, j] < 0.08


@pytest.mark.parametrize("style", STYLES)
def test_materials_agree_with_zones(style):
    c = city(style)
    material = c.canvas.ground.material
    flat = np.array([CLASS[m.name] for m in MATERIALS])[material]
    zone = c.canvas.zone.repeat(2, 0).repeat(2, 1)
    assert (flat[zone == CARRIAGEWAY] == "flat.driveable_surface").mean() > 0.97
    assert np.isin(flat[zone == WALK], ("flat.sidewalk", "flat.terrain")).mean() > 0.97
    assert all(name.startswith("flat.") for name in np.unique(flat))


@pytest.mark.parametrize("style", STYLES)
def test_roads_carry_marks_and_zebras(style):
    c = city(style)
    painted = np.isin(c.canvas.ground.material, [MATERIAL_ID["marking"], MATERIAL_ID["marking_yellow"]])
    road = c.canvas.zone.repeat(2, 0).repeat(2, 1) == CARRIAGEWAY
    assert 0.01 < painted[road].mean() < 0.15
    for crossing in c.network.crossings:
        if crossing.road:
            continue
        main = c.network.main
        d = np.arange(-main.right + 0.5, main.left - 0.5, 0.05)
        xy, _ = main.path.at(np.full_like(d, (crossing.s0 + crossing.s1) / 2), d)
        i, j = (((xy[:, a] - c.canvas.ground.origin[a]) / CELL * 2).astype(int) for a in (0, 1))
        if i.min() < 0 or j.min() < 0 or i.max() >= painted.shape[0] or j.max() >= painted.shape[1]:
            continue
        assert 0.35 < painted[i, j].mean() < 0.65  # half stripes, half gaps


@pytest.mark.parametrize("style", STYLES)
def test_the_ground_has_no_cliffs(style):
    base = city(style).canvas.ground.base
    for axis in (0, 1):
        assert abs(np.diff(base, axis=axis)).max() < 0.15 + 0.06 * CELL + 1e-3
