"""Building up the plots: houses, rows, parks, car parks, plazas, industrial halls, building sites and fields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frustum.worlds.street.buildings import put_building, random_style
from frustum.worlds.street.canvas import CELL, Canvas
from frustum.worlds.street.frontage import FrontLine, Plot, Spot
from frustum.worlds.street.furniture import put_if_free, run_fence
from frustum.worlds.street.greenery import crown_radius, grow_hedge, plant_bush, plant_tree
from frustum.worlds.street.roads import District

_BROADLEAF = ("oak", "linden", "maple", "plane", "birch", "poplar")
_ANY_TREE = (*_BROADLEAF, "spruce", "pine", "young")


@dataclass
class Builder:
    """Everything that the plot builders share."""

    canvas: Canvas
    rng: np.random.Generator
    district: District
    season: str
    line: FrontLine
    pavement: str  # material next to shops
    lawn: str
    lit: float
    green: float  # scale of the number of plants
    spots: list[Spot]

    def number(self, low: float, high: float) -> float:
        """A uniform number."""
        return float(self.rng.uniform(low, high))

    def pick(self, *names: str) -> str:
        """One of the names."""
        return str(self.rng.choice(names))

    def building(self, plot: Plot, x0: float, x1: float, u0: float, u1: float, kind: str, storeys: tuple[int, int] | None = None) -> bool:
        """A building of a kind over a rectangle of the plot with its door to the road."""
        y0, y1 = plot.span(u0, u1)
        (i0, j0), (i1, j1) = self.canvas.index(x0, y0), self.canvas.index(x1, y1)
        style = random_style(self.rng, kind, storeys or self.district.storeys, self.lit)
        return put_building(self.canvas, self.rng, (i0, i1, j0, j1), style, "y" if plot.side > 0 else "Y")

    def tree(self, x: float, y: float, species: str, room: float = 0.5) -> bool:
        """A tree on free parcel ground, with `room` of its crown radius kept clear of buildings."""
        i, j = self.canvas.index(x, y)
        r = int(crown_radius(species) * room / CELL) + 1
        if not self.canvas.is_free(i - r, i + r, j - r, j + r, gap=0):
            return False
        self.canvas.claim(i - 2, i + 2, j - 2, j + 2)
        plant_tree(self.canvas, self.rng, x, y, species, self.season)
        return True

    def bush(self, x: float, y: float) -> None:
        """A bush on free parcel ground."""
        i, j = self.canvas.index(x, y)
        if self.canvas.is_free(i - 3, i + 3, j - 3, j + 3, gap=1):
            plant_bush(self.canvas, self.rng, x, y, self.season)

    def scatter(self, plot: Plot, u0: float, u1: float, trees: float, bushes: float, species: tuple[str, ...] = _ANY_TREE) -> None:
        """Plants at random places; `trees` and `bushes` per 100 square metres."""
        area = (plot.x1 - plot.x0) * (u1 - u0) / 100
        for _ in range(self.rng.poisson(area * trees * self.green)):
            self.tree(self.number(plot.x0, plot.x1), plot.y(self.number(u0, u1)), self.pick(*species))
        for _ in range(self.rng.poisson(area * bushes * self.green)):
            self.bush(self.number(plot.x0, plot.x1), plot.y(self.number(u0, u1)))

    def patches(self, plot: Plot, u0: float, u1: float) -> None:
        """Worn grass, flower beds and bare soil, so that lawns are not one colour."""
        for _ in range(int((plot.x1 - plot.x0) * (u1 - u0) / 90)):
            x, u, size = self.number(plot.x0, plot.x1), self.number(u0, u1), self.number(0.8, 3.2)
            material = self.pick("grass", "grass_dry", "grass_lush", "soil", "grass_dry")
            for _ in range(4):
                a, c = x + self.number(-size, size), u + self.number(-size, size)
                w, h = self.number(0.4, 1.0) * size, self.number(0.4, 1.0) * size
                self.canvas.paint(a - w, a + w, *plot.span(c - h, c + h), material)

    def front(self, plot: Plot, kind: str, away: float = 0.35, gap: tuple[float, float] | None = None) -> None:
        """A hedge or fence that follows the pavement, with an opening between two x."""
        pieces = [(plot.x0 + 0.4, plot.x1 - 0.4)] if gap is None else [(plot.x0 + 0.4, gap[0]), (gap[1], plot.x1 - 0.4)]
        for a, b in pieces:
            if b - a < 1.0:
                continue
            x = np.arange(a, b, 1.0)
            y = self.line.at(x, plot.side) + plot.side * away
            if kind == "hedge":
                for xk, yk in zip(x, y, strict=True):
                    (i0, j0), (i1, j1) = (
                        self.canvas.index(xk, yk - 0.1),
                        self.canvas.index(xk + 1.0, yk + 0.7 if plot.side > 0 else yk + 0.1),
                    )
                    if plot.side < 0:
                        j0 -= 3
                    grow_hedge(self.canvas, self.rng, i0, i1, j0, j1, int(5 + 2 * (int(plot.x0) % 3)))
            else:
                run_fence(self.canvas, np.stack([x, y], 1), kind)


def build_plot(b: Builder, plot: Plot, back: float) -> None:
    """Fill one plot; `back` is how far the map reaches behind the front line, metres."""
    if plot.kind in ("house", "park"):
        b.patches(plot, 0, 16)
    _BUILDERS[plot.kind](b, plot)
    if back > 34 and plot.kind not in ("park", "field"):
        _backdrop(b, plot, back)
    elif back > 34:
        b.patches(plot, 10, back)
        b.scatter(plot, 30, back - 3, 1.3, 0.6)


def _backdrop(b: Builder, plot: Plot, back: float) -> None:
    """Taller houses and trees behind the first row."""
    width = plot.x1 - plot.x0
    b.patches(plot, 14, back)
    if b.rng.random() < 0.85 and width > 12:
        u0 = b.number(28, 36)
        depth = min(b.number(10, 15), back - u0 - 2)
        w = min(width - 2, b.number(14, 26))
        x0 = b.number(plot.x0, plot.x1 - w)
        kind = "office" if b.district.storeys[1] > 3 else b.pick("row", "house", "office")
        b.building(plot, x0, x0 + w, u0, u0 + depth, kind, (b.district.storeys[0] + 1, b.district.storeys[1] + 1))
    b.scatter(plot, 15, back - 3, 1.1, 0.5)
    if b.rng.random() < 0.4:
        u = b.number(20, 27)
        run_fence(b.canvas, np.array([[plot.x0 + 1, plot.y(u)], [plot.x1 - 1, plot.y(u)]]), b.pick("brick", "wood", "concrete", "mesh"))


def _row(b: Builder, plot: Plot) -> None:
    b.canvas.paint(plot.x0, plot.x1, *plot.span(-8, 3), b.pavement)
    x0, x1 = plot.x0, plot.x1
    if b.rng.random() < 0.25:
        x1 -= b.number(2.5, 4.0)
    depth = b.number(9, 14)
    setback = 0.6 if b.rng.random() < 0.75 else b.number(1.5, 3.0)
    kind = "office" if b.rng.random() < 0.3 else "row"
    while not b.building(plot, x0 + 0.2, x1 - 0.2, setback, setback + depth, kind) and x1 - x0 > 10:
        x0, x1, setback = x0 + 1.0, x1 - 1.0, setback + 0.5
    if setback > 1.4:
        for x in np.arange(plot.x0 + 1.5, plot.x1 - 1.5, 3.2):
            put_if_free(b.canvas, b.pick("planter", "bench", "planter"), float(x), plot.y(0.9), plot.side * -np.pi / 2)
    if plot.x1 - x1 > 2:
        run_fence(b.canvas, np.array([[x1 + 0.4, plot.y(1.0)], [plot.x1 - 0.4, plot.y(1.0)]]), b.pick("brick", "concrete", "wood"))


def _house(b: Builder, plot: Plot) -> None:
    width = plot.x1 - plot.x0
    w, depth, u0 = min(b.number(8, 11.5), width - 3.5), b.number(8, 10), b.number(3.5, 7.5)
    x0 = b.number(plot.x0 + 1, plot.x1 - w - 1) if width - w > 2.2 else plot.x0 + 1
    built = b.building(plot, x0, x0 + w, u0, u0 + depth, "house")
    door = x0 + w / 2
    b.canvas.paint(door - 0.7, door + 0.9, *plot.span(-8, u0), b.pavement)
    left_room, right_room = x0 - plot.x0, plot.x1 - x0 - w
    drive = None
    if built and max(left_room, right_room) > 3.6:
        middle = plot.x0 + left_room / 2 if left_room > right_room else plot.x1 - right_room / 2
        drive = (middle - 1.5, middle + 1.5)
        b.canvas.paint(*drive, *plot.span(-8, u0 + 5), "gravel")
        b.spots.append(Spot("drive", middle, plot.y(max(u0, 3.5)), plot.side * np.pi / 2 * b.rng.choice([-1, 1]), 5.5))
        b.canvas.claim(*_columns(b.canvas, drive[0], drive[1], *plot.span(0, u0 + 5)))
    kind = b.pick("hedge", "hedge", "wood", "brick", "railing")
    gap = drive or (door - 0.9, door + 1.1)
    b.front(plot, kind, gap=gap)
    for x in (plot.x0, plot.x1):
        if b.rng.random() < 0.5:
            run_fence(b.canvas, np.array([[x, plot.y(1.2)], [x, plot.y(u0 + depth + 6)]]), b.pick("wood", "wood", "mesh"))
    b.scatter(plot, 1.2, u0, 1.6, 2.5, ("maple", "young", "birch", "spruce", "young"))
    b.scatter(plot, u0 + depth + 1, 30, 0.9, 1.0)


def _columns(canvas: Canvas, x0: float, x1: float, y0: float, y1: float) -> tuple[int, int, int, int]:
    (i0, j0), (i1, j1) = canvas.index(x0, y0), canvas.index(x1, y1)
    return i0, i1, j0, j1


def _park(b: Builder, plot: Plot) -> None:
    wave, phase, away = b.number(18, 30), b.number(0, 6.3), b.number(5, 9)
    x = np.arange(plot.x0, plot.x1, 0.4)
    u = away + 1.8 * np.sin(x / wave * 6.28 + phase)
    for xk, uk in zip(x, u, strict=True):
        b.canvas.paint(xk, xk + 0.6, *plot.span(uk - 0.9, uk + 0.9), "gravel")
    cross = b.number(plot.x0 + 3, plot.x1 - 3)
    b.canvas.paint(cross - 0.9, cross + 0.9, *plot.span(-8, away), "gravel")
    for k, xk in enumerate(np.arange(plot.x0 + 4, plot.x1 - 3, 7.5)):
        uk = float(np.interp(xk, x, u))
        kind = ("bench", "park_lamp", "bin")[k % 3]
        put_if_free(b.canvas, kind, float(xk), plot.y(uk + 1.5), plot.side * -np.pi / 2)
    if b.rng.random() < 0.5:
        b.front(plot, b.pick("hedge", "railing", "hedge"), gap=(cross - 1.4, cross + 1.4))
    species = (b.pick(*_BROADLEAF), b.pick(*_ANY_TREE), b.pick(*_BROADLEAF))
    b.scatter(plot, 1.5, away - 2.5, 1.0, 1.6, species)
    b.scatter(plot, away + 2.5, 30, 1.5, 1.2, species)


def _plaza(b: Builder, plot: Plot) -> None:
    paving = b.pick("paving_red", "paving_sand", "paving")
    deep = b.number(14, 20)
    b.canvas.paint(plot.x0, plot.x1, *plot.span(-8, deep + 1), paving)
    b.building(plot, plot.x0 + 0.4, plot.x1 - 0.4, deep, deep + b.number(9, 12), "office" if b.rng.random() < 0.5 else "row")
    put_if_free(
        b.canvas, b.pick("kiosk", "column", "kiosk"), b.number(plot.x0 + 4, plot.x1 - 4), plot.y(b.number(6, 9)), plot.side * -np.pi / 2
    )
    species = b.pick("linden", "plane", "maple", "young")
    for x in np.arange(plot.x0 + 3, plot.x1 - 2, 7.0):
        for u in (2.2, deep - 3.5):
            if b.rng.random() < 0.85:
                b.tree(float(x), plot.y(u), species, 0.1)
    for x in np.arange(plot.x0 + 5.5, plot.x1 - 3, 7.0):
        put_if_free(b.canvas, b.pick("bench", "planter", "bin", "bench"), float(x), plot.y(3.0), plot.side * -np.pi / 2)
        put_if_free(b.canvas, b.pick("bench", "planter"), float(x), plot.y(deep - 5), plot.side * np.pi / 2)


def _hall(b: Builder, plot: Plot) -> None:
    yard = b.pick("asphalt_worn", "gravel", "paving")
    b.canvas.paint(plot.x0, plot.x1, *plot.span(-8, 34), yard)
    width = plot.x1 - plot.x0
    u0, depth = b.number(7, 13), b.number(16, 24)
    x0 = plot.x0 + b.number(1, 3)
    x1 = plot.x1 - b.number(1, max(1.5, width * 0.3))
    b.building(plot, x0, x1, u0, u0 + depth, "hall")
    gate = b.number(plot.x0 + 4, plot.x1 - 10)
    b.front(plot, b.pick("mesh", "concrete", "mesh", "hedge", "brick"), gap=(gate, gate + 6))
    for _ in range(int(b.rng.integers(3, 8))):
        kind = b.pick("container_red", "container_blue", "pallets", "dumpster", "crate", "pallets")
        x, u = b.number(plot.x0 + 2, plot.x1 - 2), b.number(1.6, u0 - 1.5)
        if not gate - 3 < x < gate + 9:
            put_if_free(b.canvas, kind, x, plot.y(u), b.rng.choice([0.0, np.pi / 2]))
    b.spots.append(Spot("site", gate + 3, plot.y(max(u0 - 4.5, 4.0)), b.rng.choice([0.0, np.pi]), 9.0))
    b.scatter(plot, 1.0, 3.0, 1.0, 1.0, ("young", "poplar"))


def _site(b: Builder, plot: Plot) -> None:
    ground = b.pick("soil", "gravel", "soil")
    b.canvas.paint(plot.x0, plot.x1, *plot.span(24, 80), b.lawn)
    b.canvas.paint(plot.x0, plot.x1, *plot.span(-8, 24), ground)
    b.canvas.paint(plot.x0 + 2, plot.x1 - 3, *plot.span(0.5, 7), "gravel" if ground == "soil" else "soil")
    middle = (plot.x0 + plot.x1) / 2
    for x in (middle - 5.5, middle + 5.5):  # machines stand here
        b.spots.append(Spot("site", x, plot.y(5.2), b.rng.choice([0.0, np.pi]) + b.number(-0.35, 0.35), 9.5))
    b.canvas.claim(*_columns(b.canvas, plot.x0, plot.x1, *plot.span(0, 10)))
    for _ in range(int(b.rng.integers(3, 6))):
        put_if_free(
            b.canvas,
            b.pick("sand", "rubble", "crate", "pallets", "container_blue", "sand"),
            b.number(plot.x0 + 3, plot.x1 - 3),
            plot.y(b.number(12.5, 20)),
        )
    back = np.array(
        [[plot.x0 + 0.3, plot.y(10.0)], [plot.x0 + 0.3, plot.y(23)], [plot.x1 - 0.5, plot.y(23)], [plot.x1 - 0.5, plot.y(10.0)]]
    )
    run_fence(b.canvas, back, b.pick("mesh", "wood"))
    if b.rng.random() < 0.5:
        b.building(plot, plot.x0 + 3, plot.x1 - 3, 25, 36, "office")


def _carpark(b: Builder, plot: Plot) -> None:
    behind = 27.0
    b.building(plot, plot.x0 + 2, plot.x1 - 2, behind, behind + b.number(10, 16), b.pick("hall", "office", "row"))
    for x in np.arange(plot.x0 + 2, plot.x1 - 1, 6.5):
        b.tree(float(x), plot.y(23.5), b.pick("linden", "maple", "young"), 0.1)
    b.scatter(plot, 0.4, 1.2, 0.5, 6.0, ("young",))
    b.scatter(plot, 20, 27, 0.3, 3.0)


def _field(b: Builder, plot: Plot) -> None:
    b.canvas.paint(plot.x0, plot.x1, *plot.span(-8, 60), b.pick("grass_dry", "soil", b.lawn))
    if b.rng.random() < 0.35:
        put_if_free(b.canvas, "billboard", (plot.x0 + plot.x1) / 2, plot.y(b.number(2, 5)), plot.side * -np.pi / 2)
    if b.rng.random() < 0.5:
        b.front(plot, b.pick("wood", "mesh", "railing"))
    b.scatter(plot, 1.5, 12, 0.5, 4.5)
    b.scatter(plot, 12, 32, 1.3, 2.0)


_BUILDERS = {
    "row": _row,
    "house": _house,
    "park": _park,
    "plaza": _plaza,
    "hall": _hall,
    "site": _site,
    "carpark": _carpark,
    "field": _field,
}
