"""Canvas, buildings, plants and furniture."""

import numpy as np
import pytest

from frustum.worlds.street.buildings import AWNING, DOOR, SHOP, WINDOW, facade_plan, put_building, random_style
from frustum.worlds.street.canvas import CELL, CLEAR, Canvas
from frustum.worlds.street.furniture import KINDS, furniture, put, put_if_free, quarter_of, run_fence
from frustum.worlds.street.greenery import SEASONS, SPECIES, VARIANTS, bush, grow_hedge, plant_tree, season_table, tree
from frustum.worlds.street.ground import BUILDING, CARRIAGEWAY, PARCEL, PAVED, WALK
from frustum.worlds.street.materials import MATERIAL_ID, MATERIALS
from frustum.worlds.street.types import Ground
from tests.worlds.street.scenes import STYLES, city

CATEGORY = np.array([m.category for m in MATERIALS])


def field(slope: float = 0.03, size: int = 200) -> Canvas:
    """An empty sloping field of 40 m x 40 m."""
    x = np.arange(size + 1) * CELL
    base = (slope * x)[:, None].repeat(size + 1, 1).astype(np.float32)
    ground = Ground(base, np.zeros((size, size), np.float32), np.zeros((2 * size, 2 * size), np.uint8), CELL, (0.0, 0.0))
    return Canvas(ground, np.full((size, size), PARCEL, np.uint8), np.zeros((size + 1, size + 1), np.float32))


def test_surface_is_the_cell_that_holds_the_ground():
    c = field()
    x = (np.arange(200) + 0.5) * CELL
    below = c.low + c.surface[:, 0] * CELL
    assert (below <= 0.03 * x + 1e-5).all()
    assert (0.03 * x < below + CELL + 1e-5).all()


def test_stamps_stand_on_the_ground_and_spare_what_is_there():
    c = field()
    block = np.full((3, 3, 5), MATERIAL_ID["box"], np.uint8)
    c.stamp(block, 20.1, 20.1)
    k = c.surface[100, 100]
    assert (c.cells[99:102, 99:102, k : k + 5] == MATERIAL_ID["box"]).all()
    assert (c.cells > 0).sum() == 45
    c.stamp(np.full((3, 3, 9), MATERIAL_ID["bin"], np.uint8), 20.1, 20.1)
    assert (c.cells == MATERIAL_ID["box"]).sum() == 45
    c.stamp(block, 0.05, 0.05)  # clipped at the border
    c.stamp(block, -5.0, 3.0)  # outside: ignored


def test_claims_and_zones_keep_rectangles():
    c = field()
    assert c.is_free(50, 60, 50, 60)
    c.claim(50, 60, 50, 60)
    assert not c.is_free(55, 70, 55, 70)
    assert not c.is_free(61, 70, 50, 60, gap=2)
    assert c.is_free(63, 70, 50, 60, gap=2)
    assert not c.is_free(0, 20, 50, 60)  # too near to the border


def test_clearance_counts_free_cells():
    c = field(slope=0.0)
    k = int(c.surface[0, 0])
    c.cells[10, 10, k + 1] = 1
    c.cells[11, 10, k + 8] = 1
    clear = c.clearance()
    assert clear[10, 10] == 0
    assert clear[11, 10] == 7
    assert clear[12, 10] == CLEAR


def test_prune_clears_roads_and_headroom():
    c = field(slope=0.0)
    c.zone[:40], c.zone[40:80] = CARRIAGEWAY, WALK
    k = int(c.surface[0, 0])
    c.cells[:, :, k + 3 : k + 30] = MATERIAL_ID["leaf"]
    c.cells[60, 60, k : k + 30] = MATERIAL_ID["pole"]
    c.prune()
    assert not c.cells[:40, :, : k + 22].any()
    assert c.cells[:40, :, k + 22 : k + 30].all()
    assert not (c.cells[40:80, :, : k + 12] == MATERIAL_ID["leaf"]).any()
    assert (c.cells[60, 60, k : k + 30] == MATERIAL_ID["pole"]).all()
    assert (c.cells[80:, :, k + 3] == MATERIAL_ID["leaf"]).all()


def test_painting_spares_roads():
    c = field()
    c.zone[:100] = WALK
    c.paint(10.0, 30.0, 10.0, 30.0, "soil")
    assert not (c.ground.material[:200] == MATERIAL_ID["soil"]).any()
    assert (c.ground.material[200:300, 100:300] == MATERIAL_ID["soil"]).all()


# ---- buildings --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["house", "row", "office", "hall"])
@pytest.mark.parametrize("seed", range(4))
def test_buildings_are_closed_hollow_and_have_openings(kind, seed):
    rng = np.random.default_rng(seed)
    c = field()
    style = random_style(rng, kind, (2, 4), 0.1)
    assert put_building(c, rng, (60, 120, 70, 125), style, "y")
    cells = c.cells
    assert (c.zone[60:120, 70:125] == BUILDING).all()
    floor = int(c.surface[60:120, 70:125].max()) + 1
    # hollow inside, closed on all sides at every height of the walls: 2 cells, the outer one may be a recess
    top = floor + 12
    assert not cells[64:116, 74:121, floor:top].any()
    for wall in (cells[60:62, 70:125], cells[118:120, 70:125], cells[60:120, 70:72].swapaxes(0, 1), cells[60:120, 123:125].swapaxes(0, 1)):
        assert wall[:, :, floor:top].any(0).all()
    # no gap between wall and sloping ground
    for i in range(60, 120):
        assert cells[i, 70:72, c.surface[i, 70]].any()
    # a roof over every inner column
    assert cells[62:118, 72:123, floor + 10 :].any(2).all()
    used = set(CATEGORY[np.unique(cells[cells > 0])])
    assert used == {"static.manmade"}
    assert not put_building(c, rng, (100, 140, 100, 140), style, "y")  # taken


def test_doors_are_on_front_walls_only():
    rng = np.random.default_rng(0)
    style = random_style(rng, "house", (2, 2), 0.0)
    assert (facade_plan(rng, style, 60, 30, front=True) == DOOR).any()
    back = facade_plan(rng, style, 60, 30, front=False)
    assert not (back == DOOR).any()
    assert (back == WINDOW).any()


def test_shops_have_glass_and_awnings():
    rng = np.random.default_rng(1)
    style = next(s for s in (random_style(rng, "row", (3, 3), 0.0) for _ in range(50)) if s.shops)
    plans = [facade_plan(rng, style, 80, 50, front=True) for _ in range(5)]
    assert all((p == SHOP).any() for p in plans)
    assert any((p == AWNING).any() for p in plans)


def test_styles_vary():
    rng = np.random.default_rng(2)
    styles = {random_style(rng, "row", (2, 5), 0.0) for _ in range(40)}
    assert len(styles) > 35
    assert {s.roof_kind for s in styles} == {"flat", "gable", "hip"}
    assert len({s.wall for s in styles}) > 6


# ---- plants -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("species", SPECIES)
@pytest.mark.parametrize("variant", range(VARIANTS))
def test_trees_have_trunk_and_crown(species, variant):
    cells = tree(species, variant)
    used = np.unique(cells[cells > 0])
    assert set(CATEGORY[used]) == {"static.vegetation"}
    bark = np.isin(cells, [MATERIAL_ID["bark"], MATERIAL_ID["bark_birch"]])
    n = cells.shape[0] // 2
    assert bark[n - 2 : n + 3, n - 2 : n + 3, 0].any()  # stands in the middle of the template
    assert (cells > 0).sum() > 300
    assert 3.5 < np.nonzero((cells > 0).any((0, 1)))[0].max() * CELL < 14.0
    assert tree(species, variant) is cells  # grown once


def test_seasons_change_leaves_but_not_bark():
    rng = np.random.default_rng(0)
    for season in SEASONS:
        for _ in range(10):
            table = season_table(rng, season)
            assert table[MATERIAL_ID["bark"]] == MATERIAL_ID["bark"]
            assert table[0] == 0
            assert MATERIALS[table[MATERIAL_ID["leaf"]]].texture == "foliage"
    assert (season_table(rng, "autumn", evergreen=True) == np.arange(256)).all()


def test_planting_puts_roots_in_the_ground():
    c = field()
    plant_tree(c, np.random.default_rng(0), 20.0, 20.0, "oak", "summer")
    i, j = c.index(20.0, 20.0)
    assert c.cells[i - 2 : i + 3, j - 2 : j + 3, c.surface[i, j]].any()


def test_hedges_follow_the_slope():
    c = field(slope=0.05)
    grow_hedge(c, np.random.default_rng(0), 40, 140, 60, 64, 6)
    heights = (c.cells[40:140, 60:64] > 0).sum(2)
    assert set(np.unique(heights)) <= {5, 6}
    for i in (40, 90, 139):
        assert c.cells[i, 61, c.surface[i, 61]]


def test_bushes_are_low():
    assert max(bush(v).shape[2] for v in range(8)) * CELL < 3


# ---- furniture --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_furniture_turns_by_quarters(kind):
    first = furniture(kind, 0)
    assert first.any()
    assert first[:, :, 0].any() or kind in ("bench", "shelter")  # stands on the ground
    for quarter in (1, 2, 3):
        turned = furniture(kind, quarter)
        assert (turned > 0).sum() == (first > 0).sum()
        assert (np.rot90(turned, -quarter) == first).all()


def test_all_classes_of_static_things_exist():
    used = {CATEGORY[m] for kind in KINDS for m in np.unique(furniture(kind, 0)) if m}
    assert {"static.manmade", "static.other"} <= used


@pytest.mark.parametrize(("yaw", "quarter"), [(0, 0), (0.5, 0), (1.4, 1), (np.pi, 2), (-np.pi / 2, 3), (6.2, 0)])
def test_quarters_are_rounded(yaw, quarter):
    assert quarter_of(yaw) == quarter


def test_things_are_placed_once():
    c = field()
    assert put_if_free(c, "kiosk", 20.0, 20.0)
    assert not put_if_free(c, "kiosk", 20.4, 20.0)
    put(c, "lamp", 30.0, 30.0)
    i, j = c.index(30.0, 30.0)
    assert (c.cells[i, j] == MATERIAL_ID["pole"]).sum() > 25


@pytest.mark.parametrize("kind", ["wood", "brick", "concrete", "railing", "mesh"])
def test_fences_are_unbroken_lines(kind):
    c = field(slope=0.05)
    run_fence(c, np.array([[10.0, 10.0], [30.0, 14.0]]), kind)
    columns = (c.cells > 0).any(2)
    assert columns[51:149].any(1).all()
    assert set(CATEGORY[np.unique(c.cells[c.cells > 0])]) == {"static.manmade"}


# ---- whole cities -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_nothing_stands_on_roads(style):
    canvas = city(style).canvas
    clear = canvas.clearance()
    roads = np.isin(canvas.zone, (CARRIAGEWAY, PAVED))
    assert clear[roads].min() * CELL >= 4.0  # room for a truck


@pytest.mark.parametrize("style", STYLES)
def test_cities_are_built_and_planted(style):
    canvas = city(style).canvas
    assert canvas.cells.nbytes < 200e6
    found = CATEGORY[np.unique(canvas.cells)]
    assert {"static.manmade", "static.vegetation", "static.other"} <= set(found)
    share = (canvas.zone == BUILDING).mean()
    assert 0.03 < share < 0.45
    flat = set(CATEGORY[np.unique(canvas.ground.material)])
    assert {"flat.driveable_surface", "flat.sidewalk", "flat.terrain"} <= flat


@pytest.mark.parametrize("style", STYLES)
def test_everything_stands_on_the_ground(style):
    """Of the lowest solid cells of all columns, those near the ground touch it; nothing reaches far below."""
    canvas = city(style).canvas
    solid = canvas.cells > 0
    lowest = np.where(solid.any(2), solid.argmax(2), 1000) - canvas.surface
    assert lowest.min() >= -25  # plinths of buildings on slopes reach down to the lowest corner
    near = lowest[(lowest < 4) & (canvas.zone != BUILDING)]
    assert (near <= 0).mean() > 0.7  # the rest overhangs: benches, low boughs
