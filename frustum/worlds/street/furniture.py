"""Street furniture: lamps, signs, signals, benches, bins, cabinets, shelters, fences and walls."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise

import numpy as np

from frustum.worlds.street.canvas import CELL, Canvas
from frustum.worlds.street.materials import MATERIAL_ID


class _Block:
    """A template in cells, centred on a column; x is the direction that the thing faces."""

    def __init__(self, length: int, width: int, height: int):
        self.cells = np.zeros((length, width, height), np.uint8)
        self.a, self.b = length // 2, width // 2

    def box(self, x0: int, x1: int, y0: int, y1: int, z0: int, z1: int, material: str) -> _Block:
        self.cells[self.a + x0 : self.a + x1, self.b + y0 : self.b + y1, z0:z1] = MATERIAL_ID[material]
        return self


def _lamp(double: bool) -> np.ndarray:
    b = _Block(31, 5, 36).box(0, 1, 0, 1, 0, 34, "pole").box(-1, 2, -1, 2, 0, 2, "pole")
    for sign in (1, -1) if double else (1,):
        x0, x1 = sorted((0, sign * 9))
        b.box(x0, x1 + 1, 0, 1, 33, 34, "pole")
        x0, x1 = sorted((sign * 6, sign * 11))
        b.box(x0, x1 + 1, -1, 2, 33, 34, "trim_dark").box(x0, x1 + 1, 0, 1, 32, 33, "light_lamp")
    return b.cells


def _park_lamp() -> np.ndarray:
    return (
        _Block(5, 5, 21).box(0, 1, 0, 1, 0, 18, "pole").box(-1, 2, -1, 2, 17, 20, "light_lamp").box(-1, 2, -1, 2, 20, 21, "trim_dark").cells
    )


def _signal(green: bool) -> np.ndarray:
    b = _Block(5, 5, 19).box(0, 1, 0, 1, 0, 13, "pole").box(0, 2, -1, 2, 12, 18, "trim_dark")
    return (
        b.box(2, 3, 0, 1, 13, 14, "signal_green" if green else "trim_dark")
        .box(2, 3, 0, 1, 16, 17, "trim_dark" if green else "signal_red")
        .cells
    )


def _signal_arm(green: bool) -> np.ndarray:  # faces +x, arm towards +y
    b = _Block(5, 49, 33).box(0, 1, 0, 1, 0, 32, "pole").box(0, 1, 0, 24, 30, 31, "pole")
    for y in (0, 20):
        z = 13 if y == 0 else 26
        b.box(1, 2, y - 1, y + 2, z, z + 6, "trim_dark").box(
            2, 3, y, y + 1, z + (1 if green else 4), z + (2 if green else 5), "signal_green" if green else "signal_red"
        )
    return b.cells


def _sign(kind: str) -> np.ndarray:
    b = _Block(5, 9, 15).box(0, 1, 0, 1, 0, 13, "pole")
    if kind == "stop":
        return b.box(1, 2, -2, 3, 10, 14, "sign_red").box(1, 2, -1, 2, 11, 13, "sign_white").box(1, 2, -1, 2, 12, 13, "sign_red").cells
    if kind == "limit":
        return b.box(1, 2, -2, 3, 10, 14, "sign_red").box(1, 2, -1, 2, 11, 13, "sign_white").cells
    if kind == "crossing":
        return b.box(1, 2, -2, 3, 10, 14, "sign_blue").box(1, 2, -1, 2, 11, 13, "sign_white").cells
    return b.box(1, 2, -4, 5, 10, 14, "sign_blue").box(1, 2, -3, 4, 11, 12, "sign_white").cells


def _billboard() -> np.ndarray:
    b = _Block(5, 19, 22).box(0, 1, -6, -5, 0, 10, "pole").box(0, 1, 5, 6, 0, 10, "pole").box(0, 1, -9, 10, 8, 21, "trim_dark")
    return b.box(1, 2, -8, 9, 9, 20, "sign_white").box(1, 2, -8, 2, 9, 15, "container_blue").box(1, 2, 3, 8, 12, 18, "awning_red").cells


def _bench() -> np.ndarray:
    b = _Block(5, 11, 6).box(-1, 2, -4, 5, 2, 3, "bench").box(-1, 0, -4, 5, 3, 5, "bench")
    return b.box(-1, 2, -4, -3, 0, 2, "bench").box(-1, 2, 4, 5, 0, 2, "bench").cells


def _bin() -> np.ndarray:
    return _Block(3, 3, 6).box(-1, 2, -1, 2, 0, 5, "bin").box(-1, 2, -1, 2, 5, 6, "cabinet").cells


def _dumpster() -> np.ndarray:
    return (
        _Block(7, 11, 8)
        .box(-3, 3, -5, 5, 1, 6, "bin")
        .box(-3, 3, -5, 5, 6, 7, "cabinet")
        .box(-3, -2, -5, -4, 0, 1, "cabinet")
        .box(2, 3, 4, 5, 0, 1, "cabinet")
        .cells
    )


def _cabinet() -> np.ndarray:
    return _Block(3, 7, 7).box(-1, 1, -3, 4, 0, 6, "cabinet").box(-1, 2, -3, 4, 6, 7, "cabinet").cells


def _mailbox() -> np.ndarray:
    return _Block(3, 3, 7).box(-1, 2, -1, 2, 1, 7, "mailbox").box(0, 1, 0, 1, 0, 1, "mailbox").box(1, 2, -1, 2, 5, 6, "cabinet").cells


def _crate() -> np.ndarray:
    return _Block(7, 7, 6).box(-3, 3, -3, 3, 0, 5, "box").box(-3, 3, -3, 3, 2, 3, "bench").cells


def _pallets() -> np.ndarray:
    b = _Block(7, 9, 8)
    for z in (0, 2, 4):
        b.box(-3, 3, -4, 4, z, z + 1, "bench").box(-3, -2, -4, 4, z + 1, z + 2, "bench").box(2, 3, -4, 4, z + 1, z + 2, "bench")
    return b.box(-2, 2, -3, 3, 6, 8, "box").cells


def _planter() -> np.ndarray:
    b = _Block(7, 7, 9).box(-3, 4, -3, 4, 0, 3, "concrete")
    rng = np.random.default_rng(5)
    x, y, z = np.ogrid[-3:4, -3:4, 0:9]
    ball = (x * x + y * y + (z - 5) ** 2 < 9.5) & (z >= 3) & (rng.random((7, 7, 9)) < 0.85)
    b.cells[ball] = MATERIAL_ID["leaf"]
    return b.cells


def _bollard() -> np.ndarray:
    return _Block(1, 1, 5).box(0, 1, 0, 1, 0, 5, "pole").box(0, 1, 0, 1, 4, 5, "sign_white").cells


def _shelter() -> np.ndarray:  # open towards +x
    b = (
        _Block(9, 23, 14)
        .box(-3, -2, -10, 11, 1, 11, "window")
        .box(-3, 4, -11, 12, 12, 13, "trim_dark")
        .box(-3, 1, -10, -9, 1, 11, "window")
    )
    for y in (-10, 0, 10):
        b.box(-3, -2, y, y + 1, 0, 12, "pole")
    b.box(2, 3, -10, -9, 0, 12, "pole").box(2, 3, 10, 11, 0, 12, "pole")
    return b.box(-2, 0, -6, 7, 2, 3, "bench").box(-2, 0, -6, -5, 0, 2, "bench").box(-2, 0, 6, 7, 0, 2, "bench").cells


def _kiosk() -> np.ndarray:
    b = _Block(17, 17, 17).box(-6, 7, -6, 7, 0, 13, "panel_blue").box(-8, 9, -8, 9, 13, 15, "trim").box(-4, 5, -4, 5, 15, 16, "trim_dark")
    return b.box(6, 7, -4, 5, 5, 11, "window").box(6, 8, -5, 6, 4, 5, "trim").cells


def _column() -> np.ndarray:
    b = _Block(9, 9, 19)
    x, y, _ = np.ogrid[-4:5, -4:5, 0:19]
    b.cells[np.broadcast_to(x * x + y * y < 13, b.cells.shape)] = MATERIAL_ID["sign_white"]
    b.cells[b.a + 2 :, :, 4:11] = np.where(b.cells[b.a + 2 :, :, 4:11] > 0, MATERIAL_ID["awning_red"], 0)
    b.cells[:, : b.b - 1, 6:14] = np.where(b.cells[:, : b.b - 1, 6:14] > 0, MATERIAL_ID["sign_blue"], 0)
    b.cells[:, :, 16:] = np.where(b.cells[:, :, 16:] > 0, MATERIAL_ID["trim_dark"], 0)
    b.cells[:, :, :2] = np.where(b.cells[:, :, :2] > 0, MATERIAL_ID["trim_dark"], 0)
    return b.cells


def _container(colour: str) -> np.ndarray:
    b = _Block(31, 13, 13).box(-15, 15, -6, 6, 0, 12, colour)
    b.cells[::3, :1] = 0
    return b.cells


def _heap(material: str) -> np.ndarray:
    n = 25
    b = _Block(n, n, 11)
    x, y, z = np.ogrid[-12:13, -12:13, 0:11]
    rng = np.random.default_rng(9)
    b.cells[np.hypot(x, y * 1.2) + z * 1.15 < 11.5 + 1.2 * rng.random((n, n, 1))] = MATERIAL_ID[material]
    return b.cells


_MAKERS: dict[str, Callable[[], np.ndarray]] = {
    "lamp": partial(_lamp, False), "double_lamp": partial(_lamp, True), "park_lamp": _park_lamp,
    "signal_green": partial(_signal, True), "signal_red": partial(_signal, False),
    "arm_green": partial(_signal_arm, True), "arm_red": partial(_signal_arm, False),
    "stop": partial(_sign, "stop"), "limit": partial(_sign, "limit"), "crossing": partial(_sign, "crossing"),
    "guide": partial(_sign, "guide"),
    "billboard": _billboard, "bench": _bench, "bin": _bin, "dumpster": _dumpster, "cabinet": _cabinet, "mailbox": _mailbox, "crate": _crate,
    "pallets": _pallets, "planter": _planter, "bollard": _bollard, "shelter": _shelter, "kiosk": _kiosk, "column": _column,
    "container_red": partial(_container, "container_red"), "container_blue": partial(_container, "container_blue"),
    "sand": partial(_heap, "sand_heap"), "rubble": partial(_heap, "rubble"),
}  # fmt: skip
KINDS = tuple(_MAKERS)


@cache
def furniture(kind: str, quarter: int) -> np.ndarray:
    """Template of a thing that faces +x turned by `quarter` quarter turns to the left."""
    cells = np.ascontiguousarray(np.rot90(_MAKERS[kind](), quarter))
    cells.setflags(write=False)
    return cells


def quarter_of(yaw: float) -> int:
    """The number of quarter turns nearest to a heading."""
    return int(np.round(yaw / (np.pi / 2))) % 4


def put(canvas: Canvas, kind: str, x: float, y: float, yaw: float = 0.0) -> None:
    """Place a thing facing `yaw`, rounded to quarter turns."""
    canvas.stamp(furniture(kind, quarter_of(yaw)), x, y)


def put_if_free(canvas: Canvas, kind: str, x: float, y: float, yaw: float = 0.0) -> bool:
    """Place a thing on free parcel ground and claim its place."""
    template = furniture(kind, quarter_of(yaw))
    i, j = canvas.index(x, y)
    a, b = template.shape[0] // 2, template.shape[1] // 2
    rect = (i - a, i + a + 1, j - b, j + b + 1)
    if not canvas.is_free(*rect, gap=1):
        return False
    canvas.claim(*rect)
    canvas.stamp(template, x, y)
    return True


def run_fence(canvas: Canvas, points: np.ndarray, kind: str) -> None:
    """A fence or wall along a polyline (K, 2) that follows the ground; kinds: wood, brick, concrete, railing, mesh."""
    height, thick, material = {
        "wood": (8, 1, "fence_wood"),
        "brick": (6, 2, "brick_red"),
        "concrete": (10, 2, "concrete"),
        "railing": (5, 1, "pole"),
        "mesh": (9, 1, "pole"),
    }[kind]
    steps = np.concatenate([np.linspace(a, b, max(2, int(np.linalg.norm(b - a) / CELL * 1.5))) for a, b in pairwise(points)])
    columns: dict[tuple[int, int], None] = {}
    for x, y in steps:
        columns.setdefault(canvas.index(x, y))
    m, cells = MATERIAL_ID, canvas.cells
    for n, (i, j) in enumerate(columns):
        if not canvas.inside(i, j, 2):
            continue
        for di in range(thick):
            for dj in range(thick):
                k = int(canvas.surface[i + di, j + dj])
                column = cells[i + di, j + dj]
                if column[k : k + height].any() and column[k] not in (0, m[material]):
                    continue
                if kind in ("railing", "mesh"):
                    if n % 12 == 0:
                        column[k : k + height] = m[material]
                    else:
                        column[k + height - 1] = m[material]
                        column[k + (2 if kind == "railing" else 1) : k + height : 2] = m[material]
                elif kind == "wood":
                    if n % 5 != 4:
                        column[k : k + height - (1 if n % 5 in (0, 3) else 0)] = m[material]
                    else:
                        column[k + 2] = column[k + 5] = m[material]
                else:
                    column[k : k + height] = m[material]
                    column[k + height] = m["trim"] if kind == "brick" else m[material]
