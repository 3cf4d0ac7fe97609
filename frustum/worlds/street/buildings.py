"""Buildings: hollow shells with recessed windows, shop fronts, cornices, balconies and roofs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from frustum.worlds.street.canvas import Canvas
from frustum.worlds.street.ground import BUILDING
from frustum.worlds.street.materials import MATERIAL_ID

_OUT = 6  # cells that a facade may stick out
_WALLS = (
    "plaster_white", "plaster_sand", "plaster_rose", "plaster_grey", "plaster_blue",
    "plaster_yellow", "plaster_green", "brick_red", "brick_brown", "stone",
)  # fmt: skip
WALL, WINDOW, LIT, DOOR, TRIM, ACCENT, AWNING, BALCONY, SHOP = range(9)  # codes of a facade plan


@dataclass(frozen=True)
class Style:
    """How one building looks; lengths in cells of 0.2 m."""

    wall: str
    trim: str
    accent: str
    roof: str  # material
    roof_kind: str  # flat, gable, hip
    storeys: int
    storey: int
    ground_floor: int
    pitch: int  # distance of window axes
    width: int  # of a window
    height: int
    sill: int  # height of the window sill above the floor
    ribbon: bool  # continuous bands of glass
    bands: bool  # string courses between storeys
    sills: bool
    balconies: bool
    shops: bool
    awning: str
    lit: float  # share of lit windows
    hall: bool = False


def random_style(rng: np.random.Generator, kind: str, storeys: tuple[int, int], lit: float) -> Style:
    """A style for a kind of building: house, row, office or hall."""
    pick = lambda *names: str(rng.choice(names))  # noqa: E731
    width = int(rng.integers(4, 8))
    row = Style(
        wall=pick(*_WALLS),
        trim=pick("trim", "trim", "stone", "trim_dark"),
        accent=pick("stone", "concrete", "plaster_grey", "brick_brown"),
        roof=pick("roof_tile", "roof_slate", "roof_dark"),
        roof_kind=pick("flat", "flat", "hip", "gable"),
        storeys=int(rng.integers(storeys[0], storeys[1] + 1)),
        storey=15,
        ground_floor=18,
        pitch=width + int(rng.integers(5, 9)),
        width=width,
        height=int(rng.integers(8, 10)),
        sill=3,
        ribbon=False,
        bands=rng.random() < 0.6,
        sills=rng.random() < 0.7,
        balconies=rng.random() < 0.35,
        shops=rng.random() < 0.6,
        awning=pick("awning_red", "awning_green", "awning_striped", "panel_blue"),
        lit=lit,
    )
    if kind == "row":
        return row
    plain = replace(row, bands=False, balconies=False, sills=False, shops=False)
    if kind == "house":
        roof, form = pick("roof_tile", "roof_tile", "roof_slate", "roof_dark"), pick("gable", "gable", "hip")
        levels = min(row.storeys, 2)
        return replace(
            plain,
            roof=roof,
            roof_kind=form,
            storeys=levels,
            storey=14,
            ground_floor=14,
            pitch=int(rng.integers(11, 16)),
            height=7,
            sill=4,
            sills=True,
        )
    if kind == "office":
        wall = pick("concrete", "panel_white", "plaster_grey", "stone", "trim_dark")
        pitch, ribbon, shops = int(rng.integers(8, 13)), rng.random() < 0.6, rng.random() < 0.5
        levels = row.storeys + 1
        return replace(
            plain,
            wall=wall,
            roof="roof_dark",
            roof_kind="flat",
            storeys=levels,
            storey=16,
            pitch=pitch,
            width=width + 2,
            height=10,
            ribbon=ribbon,
            shops=shops,
        )
    wall, form = pick("panel_white", "panel_blue", "concrete", "brick_red", "plaster_grey"), pick("flat", "flat", "gable")
    tall, pitch, ribbon = int(rng.integers(28, 44)), int(rng.integers(22, 34)), rng.random() < 0.5
    return replace(
        plain,
        wall=wall,
        roof="roof_dark",
        roof_kind=form,
        storeys=1,
        storey=tall,
        ground_floor=tall,
        pitch=pitch,
        width=16,
        height=5,
        ribbon=ribbon,
        hall=True,
    )


def facade_plan(rng: np.random.Generator, style: Style, width: int, height: int, front: bool) -> np.ndarray:
    """Codes (U, Z) of one outer wall, `width` x `height` cells."""
    plan = np.zeros((width, height), np.uint8)
    axes = np.arange(max(3, (width % style.pitch) // 2 + style.pitch // 4), width - style.width - 1, style.pitch)
    door_axis = int(axes[len(axes) // 2]) if len(axes) else -1
    for storey in range(style.storeys):
        floor: int = 0 if storey == 0 else style.ground_floor + (storey - 1) * style.storey
        ceiling = floor + (style.ground_floor if storey == 0 else style.storey)
        if storey == 0 and style.hall:
            for a in axes.tolist():  # roller doors
                if front and rng.random() < 0.7:
                    plan[a : a + 16, 0:20] = DOOR
            if style.ribbon:
                plan[2 : width - 2, ceiling - 8 : ceiling - 4] = WINDOW
            continue
        if storey == 0 and style.shops and front:
            for a in range(3, width - 12, 14):
                plan[a : a + 11, 2 : ceiling - 5] = SHOP
                if rng.random() < 0.55:
                    plan[a - 1 : a + 12, ceiling - 4] = AWNING
            plan[:, ceiling - 1] = TRIM
        elif style.ribbon:
            plan[2 : width - 2, floor + style.sill : floor + style.sill + style.height] = WINDOW
            plan[2 :: style.pitch, floor + style.sill : floor + style.sill + style.height] = WALL
        else:
            for a in axes.tolist():
                z0 = floor + style.sill
                code = LIT if rng.random() < style.lit else WINDOW
                plan[a : a + style.width, z0 : z0 + style.height] = code
                if style.width >= 6:
                    plan[a + style.width // 2, z0 : z0 + style.height] = ACCENT
                if style.sills:
                    plan[a - 1 : a + style.width + 1, z0 - 1] = TRIM
                if style.balconies and storey > 0 and front and (a // style.pitch) % 2 == 0:
                    plan[a - 2 : a + style.width + 2, floor] = BALCONY
        if style.bands and storey > 0:
            plan[:, floor - 1] = np.where(plan[:, floor - 1] == WALL, TRIM, plan[:, floor - 1])
    if front and not style.hall and door_axis > 0:
        plan[door_axis : door_axis + 6, : min(style.ground_floor, 16)] = WALL
        plan[door_axis : door_axis + 5, 0:11] = DOOR
        plan[door_axis - 1 : door_axis + 6, 11] = TRIM
    if style.roof_kind == "flat":
        plan[:, -2:] = TRIM if not style.hall else ACCENT
    return plan


def _apply(view: np.ndarray, plan: np.ndarray, style: Style) -> None:
    """Carve a facade into a view (depth, U, Z) whose layer _OUT is the outer wall."""
    m = MATERIAL_ID
    outer, inner = view[_OUT], view[_OUT + 1]
    for code, name in ((WINDOW, "window"), (LIT, "window_lit"), (SHOP, "window"), (DOOR, "door")):
        where = plan == code
        outer[where] = 0
        inner[where] = m[name]
    outer[plan == ACCENT] = m[style.accent]
    trim = plan == TRIM
    outer[trim] = view[_OUT - 1][trim] = m[style.trim]
    for u, z in np.argwhere(plan == AWNING):
        outer[u, z] = m[style.trim]
        for k in range(1, 6):
            view[_OUT - k, u, z - k // 2] = m[style.awning]
    where = plan == BALCONY
    if where.any():
        view[_OUT - 5 : _OUT][:, where] = m["concrete"]
        us, zs = np.nonzero(where)
        for rise in (1, 3, 5):
            view[_OUT - 5, us, np.minimum(zs + rise, plan.shape[1] - 1)] = m["trim_dark"]
        posts = us % 3 == 0
        for rise in range(1, 6):
            view[_OUT - 5, us[posts], np.minimum(zs[posts] + rise, plan.shape[1] - 1)] = m["trim_dark"]


def put_building(canvas: Canvas, rng: np.random.Generator, rect: tuple[int, int, int, int], style: Style, fronts: str = "xXyY") -> bool:
    """Build over columns [i0, i1) x [j0, j1) if they are free; `fronts` are the walls with doors (x low, X high, y low, Y high)."""
    i0, i1, j0, j1 = rect
    if not canvas.is_free(i0, i1, j0, j1) or min(i1 - i0, j1 - j0) < 12:
        return False
    canvas.claim(i0, i1, j0, j1)
    canvas.zone[i0:i1, j0:j1] = BUILDING
    cells, m = canvas.cells, MATERIAL_ID
    foot = canvas.surface[i0:i1, j0:j1]
    low, floor = int(foot.min()), int(foot.max()) + 1
    height = style.ground_floor + (style.storeys - 1) * style.storey + 2
    height = min(height, cells.shape[2] - floor - 4)
    top = floor + height
    cells[i0:i1, j0:j1, low:top] = m[style.wall]
    cells[i0 + 2 : i1 - 2, j0 + 2 : j1 - 2, low : top - 2] = 0
    cells[i0 + 1 : i1 - 1, j0 + 1 : j1 - 1, top - 1] = m[style.roof]
    views = {
        "x": cells[i0 - _OUT : i0 + 2, j0:j1, floor:top],
        "X": cells[i1 - 2 : i1 + _OUT, j0:j1, floor:top][::-1],
        "y": cells[i0:i1, j0 - _OUT : j0 + 2, floor:top].transpose(1, 0, 2),
        "Y": cells[i0:i1, j1 - 2 : j1 + _OUT, floor:top].transpose(1, 0, 2)[::-1],
    }
    for key, view in views.items():
        _apply(view, facade_plan(rng, style, view.shape[1], height, key in fronts), style)
    if low < floor:  # plinth
        ring = cells[i0:i1, j0:j1, low : floor + 1]
        ring[ring == m[style.wall]] = m["concrete"]
    _put_roof(cells, rng, rect, top, style)
    return True


def _put_roof(cells: np.ndarray, rng: np.random.Generator, rect: tuple[int, int, int, int], top: int, style: Style) -> None:
    i0, i1, j0, j1 = rect
    m, limit = MATERIAL_ID, cells.shape[2]
    if style.roof_kind == "flat":
        rim = cells[i0:i1, j0:j1, top : min(top + 3, limit)]
        rim[:2], rim[-2:], rim[:, :2], rim[:, -2:] = (m[style.trim],) * 4
        for _ in range(int(rng.integers(0, 3))):  # lift shaft, machines
            w, d, h = (int(v) for v in rng.integers(6, 14, 3))
            if i1 - i0 > w + 12 and j1 - j0 > d + 12:
                a, b = int(rng.integers(i0 + 5, i1 - w - 5)), int(rng.integers(j0 + 5, j1 - d - 5))
                cells[a : a + w, b : b + d, top : min(top + h, limit)] = m["concrete"]
        return
    along_x = (i1 - i0) >= (j1 - j0)
    half = (min(i1 - i0, j1 - j0) + 1) // 2
    eaves = 2 if style.roof_kind == "gable" else 1
    steep = 2 if half > 26 else 1  # cells inward per cell of height... wide roofs are flatter
    for k in range(half // steep + 1):
        z = top + k
        if z >= limit:
            break
        inset = k * steep - eaves
        a0, a1, b0, b1 = i0 - eaves, i1 + eaves, j0 - eaves, j1 + eaves
        if style.roof_kind == "hip" or not along_x:
            a0, a1 = i0 + inset, i1 - inset
        if style.roof_kind == "hip" or along_x:
            b0, b1 = j0 + inset, j1 - inset
        if a1 <= a0 or b1 <= b0:
            break
        thick = 2 * steep + 1
        block = cells[a0:a1, b0:b1, z]
        block[:] = m[style.roof]
        if style.roof_kind == "hip":
            block[thick:-thick, thick:-thick] = 0
        elif along_x:
            block[:, thick:-thick] = 0
            for u in (eaves, eaves + 1, -eaves - 1, -eaves - 2):
                block[u, thick:-thick] = m[style.wall]
        else:
            block[thick:-thick] = 0
            for u in (eaves, eaves + 1, -eaves - 1, -eaves - 2):
                block[thick:-thick, u] = m[style.wall]
    if rng.random() < 0.7 and not style.hall:  # chimney
        a, b = (i0 + i1) // 2 + int(rng.integers(-6, 7)), (j0 + j1) // 2 + int(rng.integers(-3, 4))
        cells[a : a + 3, b : b + 3, top : min(top + half // steep + 5, limit)] = m["brick_red"]
