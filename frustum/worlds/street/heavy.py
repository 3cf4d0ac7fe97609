"""Trucks, buses, trailers and construction machines; 0.15 m cells."""

from __future__ import annotations

from functools import cache

from frustum.worlds.street.shapes import Carver
from frustum.worlds.street.types import VoxelModel

_CELL = 0.15


def _cab(c: Carver, front: float, length: float, width: float, height: float, floor: float = 0.5) -> None:
    """A forward-control cab whose nose is at x = `front`."""
    half, back = width / 2, front - length
    slope = (c.z - height * 0.55).clip(0) * 0.16
    c.fill(c.inside(back, front, -half, half, floor, height) & (c.x < front - slope), "body")
    glass = (c.z > height * 0.56) & (c.z < height - 0.35)
    c.recolour(glass & (c.x > front - 0.5) & (c.x < front) & (abs(c.y) < half - 0.2), "glass")
    c.recolour(glass & (c.x > front - length * 0.75) & (c.x < front - 0.5) & (abs(c.y) > half - 0.16), "glass")
    c.recolour((c.x > front - 0.16) & (abs(c.y) < half - 0.5) & (c.z > floor + 0.3) & (c.z < height * 0.42), "machine_dark")
    c.recolour((c.x > front - 0.3) & (abs(c.y) > half - 0.5) & (c.z > floor + 0.1) & (c.z < floor + 0.45) & (c.x < front), "headlamp")
    c.recolour((c.x > back) & (c.z < floor + 0.16), "chassis")
    c.recolour((c.x > front - 0.16) & (abs(c.y) < 0.3) & (c.z > floor) & (c.z < floor + 0.17), "plate")
    c.sides(front - 0.3, front - 0.1, half, half + 0.16, height * 0.6, height * 0.85, "machine_dark")


def _rear(c: Carver, rear: float, half: float, z: float) -> None:
    """Lamps and plate at x = `rear`."""
    c.sides(rear, rear + 0.15, half - 0.45, half, z, z + 0.3, "taillamp")
    c.box(rear, rear + 0.15, -0.3, 0.3, z, z + 0.15, "plate")


@cache
def truck(style: str) -> VoxelModel:
    """A truck: box, curtain, flatbed, tanker, dump or tractor (which pulls trailers)."""
    length, width, height = {
        "box": (7.5, 2.4, 3.3),
        "curtain": (9.0, 2.4, 3.6),
        "flatbed": (8.1, 2.4, 2.7),
        "tanker": (8.4, 2.4, 3.1),
        "dump": (7.2, 2.4, 2.9),
        "tractor": (5.4, 2.4, 3.0),
    }[style]
    c = Carver(length, width + 0.3, height, _CELL)
    front, half = length / 2, width / 2
    cab = 1.95
    c.box(-front, front - cab, -half + 0.4, half - 0.4, 0.6, 0.95, "chassis")
    _cab(c, front, cab, width, min(height, 2.85))
    bed0, bed1 = -front, front - cab - 0.3
    if style in ("box", "curtain"):
        c.box(bed0, bed1, -half, half, 0.95, height, "cargo" if style == "box" else "tarp")
        c.recolour((c.x < bed1) & (c.z > 0.95) & (c.z < 1.12), "chassis")
        if style == "curtain":
            c.recolour((c.x < bed1) & (c.z > height - 0.17), "cargo")
        c.recolour((c.x < bed0 + 0.15) & (abs(c.y) < 0.09) & (c.z > 1.1), "machine_dark")
        c.recolour(
            (abs(c.y) > half - 0.16) & (c.x < bed1 - 0.6) & (c.x > bed0 + 0.6) & (c.z > 1.9) & (c.z < 2.5) & (style == "box"), "body"
        )
    elif style == "flatbed":
        c.box(bed0, bed1, -half, half, 0.9, 1.15, "machine_dark")
        c.box(bed1 - 0.15, bed1, -half, half, 1.0, 2.2, "cargo")
        for k in range(4):
            w = half - 0.15 - 0.22 * k
            c.box(bed0 + 0.5, bed1 - 0.5, -w, w, 1.15 + 0.3 * k, 1.45 + 0.3 * k, "timber")
        for x in (bed0 + 1.0, (bed0 + bed1) / 2, bed1 - 1.0):
            c.recolour((abs(c.x - x) < 0.08) & (c.z > 1.15) & (c.x < bed1), "machine_dark")
    elif style == "tanker":
        c.box(bed0 + 0.3, bed1, -0.6, 0.6, 0.9, 1.4, "chassis")
        r = ((c.y / (half - 0.05)) ** 2 + ((c.z - 2.0) / 0.95) ** 2) < 1
        c.fill(r & (c.x > bed0 + 0.1) & (c.x < bed1), "tank")
        c.recolour(r & (abs(c.z - 2.0) < 0.17) & (c.x < bed1), "body")
        for x in (bed0 + 1.2, bed1 - 1.2):
            c.box(x - 0.3, x + 0.3, -0.3, 0.3, 2.9, 3.1, "machine_dark")
    elif style == "dump":
        rise = 2.6 + 0.0 * c.x
        c.fill((c.x > bed0) & (c.x < bed1) & (abs(c.y) < half) & (c.z > 1.0) & (c.z < rise), "machine_yellow")
        c.box(bed0 + 0.3, bed1 - 0.3, -half + 0.15, half - 0.15, 1.3, 3.0, "air")
        c.ellipsoid(((bed0 + bed1) / 2, 0, 1.4), (2.1, 1.0, 1.2), "timber")
        c.box(bed1 - 0.15, bed1 + 0.45, -half, half, 2.45, 2.6, "machine_yellow")
    else:
        c.box(bed1 - 0.5, bed1, -half + 0.2, half - 0.2, 0.9, 2.6, "machine_dark")
        c.box(bed0 + 0.6, bed0 + 1.9, -0.5, 0.5, 0.95, 1.2, "machine_dark")
    _rear(c, bed0, half, 0.75)
    c.axle(front - 1.05, half - 0.15, 0.5, 0.3)
    for x in [bed0 + 1.5] if style in ("box", "tractor") else [bed0 + 1.1, bed0 + 2.2]:
        c.axle(x, half - 0.2, 0.5, 0.45)
    return c.model()


TRUCK_STYLES = ("box", "curtain", "flatbed", "tanker", "dump")


@cache
def bus(style: str) -> VoxelModel:
    """A city bus or a coach."""
    length, width, height = {"city": (11.7, 2.55, 3.15), "coach": (12.3, 2.55, 3.6), "midi": (8.4, 2.4, 3.0)}[style]
    c = Carver(length, width + 0.3, height, _CELL)
    front, half = length / 2, width / 2
    corner = (abs(c.x) - (front - 0.3)).clip(0) ** 2 * 1.2
    c.fill((abs(c.y) < half - corner) & (c.z > 0.3) & (c.x < front - (c.z - 1.2).clip(0) * 0.07), "body")
    low, high = (1.5, height - 0.75) if style == "coach" else (1.05, height - 0.6)
    window = (c.z > low) & (c.z < high)
    side = abs(c.y) > half - 0.16
    pillars = ((c.x + front) % 1.35) < 0.16
    c.recolour(window & side & ~pillars & (abs(c.x) < front - 0.35), "glass")
    c.recolour((c.z > low - 0.2) & (c.z < height - 0.7) & (c.x > front - 0.5) & (abs(c.y) < half - 0.15), "glass")
    c.recolour((c.z > high - 0.5) & (c.z < high) & (c.x < -front + 0.2) & (abs(c.y) < half - 0.3), "glass")
    c.recolour((c.x > front - 0.5) & (c.z > height - 0.55) & (c.z < height - 0.2) & (abs(c.y) < half - 0.3), "machine_dark")  # destination
    c.recolour((c.z < 0.5), "body_dark")
    c.recolour(side & (c.z > 0.75) & (c.z < 0.92), "body_dark")
    for x in (front - 1.0,) if style == "coach" else (front - 1.0, 0.1) if style == "midi" else (front - 1.0, 0.4, -front + 2.4):
        c.recolour((c.y < -half + 0.16) & (abs(c.x - x) < 0.6) & (c.z > 0.4) & (c.z < high), "glass")
        c.recolour((c.y < -half + 0.16) & (abs(c.x - x) < 0.08) & (c.z > 0.4) & (c.z < high), "machine_dark")
    c.box(-front + 1.2, front - 3, -0.7, 0.7, height - 0.16, height + 0.2, "cargo")
    for sign in (1, -1):
        c.recolour((c.x > front - 0.3) & (sign * c.y > half - 0.55) & (c.z > 0.6) & (c.z < 0.95), "headlamp")
        c.recolour((c.x < -front + 0.3) & (sign * c.y > half - 0.4) & (c.z > 0.75) & (c.z < 1.35), "taillamp")
    for sign in (1, -1):
        c.recolour((sign * c.x > front - 0.2) & (abs(c.y) < 0.3) & (c.z > 0.5) & (c.z < 0.65), "plate")
    c.sides(front - 0.3, front - 0.1, half, half + 0.15, 1.8, 2.3, "machine_dark")
    for x in (front - 2.6, -front + 3.4 if style != "midi" else -front + 1.9):
        c.recolour(((c.x - x) ** 2 + (c.z - 0.48) ** 2 < 0.62**2) & (abs(c.y) > half - 0.4), "chassis")
        c.axle(x, half - 0.15, 0.48, 0.3)
    return c.model()


BUS_STYLES = ("city", "coach", "midi")


@cache
def trailer(style: str) -> VoxelModel:
    """A trailer: semi (box), tarp (semi with curtains), container, utility (behind cars) or caravan."""
    if style in ("utility", "caravan"):
        return _light_trailer(style)
    length, width, height = 10.8, 2.5, 3.75
    c = Carver(length, width, height, _CELL)
    front, half = length / 2, width / 2
    c.box(-front, front, -half + 0.3, half - 0.3, 0.9, 1.2, "chassis")
    if style == "container":
        c.box(-front + 0.15, front - 0.3, -half, half, 1.2, height, "tarp")
        c.recolour((c.z > 1.2) & ((c.x * 3.33).round() % 2 == 0) & (abs(c.y) > half - 0.16), "body_dark")
    else:
        c.box(-front, front, -half, half, 1.05, height, "cargo" if style == "semi" else "tarp")
        c.recolour((c.z > height - 0.17), "cargo")
        c.recolour((c.z > 1.05) & (c.z < 1.22), "chassis")
        if style == "semi":
            c.recolour((abs(c.y) > half - 0.16) & (abs(c.x) < 2.5) & (c.z > 2.0) & (c.z < 2.9), "body")
    c.recolour((c.x < -front + 0.15) & (abs(c.y) < 0.09) & (c.z > 1.2), "machine_dark")
    c.sides(front - 2.2, front - 2.0, half - 0.6, half - 0.4, 0.0, 1.0, "machine_dark")
    c.sides(-front + 4.6, front - 2.6, half - 0.3, half - 0.15, 0.5, 0.7, "machine_dark")
    _rear(c, -front, half, 0.75)
    for x in (-front + 1.2, -front + 2.4, -front + 3.6):
        c.axle(x, half - 0.2, 0.48, 0.4)
    return c.model()


def _light_trailer(style: str) -> VoxelModel:
    if style == "utility":
        c = Carver(3.6, 1.7, 1.5, 0.1)
        c.box(-1.8, 0.7, -0.7, 0.7, 0.45, 1.0, "cargo").box(-1.7, 0.6, -0.6, 0.6, 0.6, 1.1, "air").box(
            -1.7, 0.6, -0.6, 0.6, 0.6, 1.4, "tarp"
        )
    else:
        c = Carver(5.4, 2.2, 2.5, 0.1)
        roof = c.profile([(1.7, 1.2), (1.2, 2.4), (-2.0, 2.5), (-2.7, 1.9)])
        c.fill((c.x < 1.7) & (abs(c.y) < 1.1 - (c.z - 2.1).clip(0) * 0.4) & (c.z > 0.4) & (c.z < roof), "body")
        c.recolour((c.z > 1.3) & (c.z < 1.9) & (abs(c.y) > 0.95) & (abs(c.x + 0.4) % 1.5 > 0.4) & (abs(c.x + 0.4) < 1.8), "glass")
        c.recolour((c.z > 0.8) & (c.z < 1.0), "body_dark")
    front = c.cells.shape[0] * 0.05
    c.box(front - 1.2, front, -0.1, 0.1, 0.4, 0.55, "chassis").box(front - 0.3, front - 0.1, -0.1, 0.1, 0.0, 0.5, "chassis")
    half = c.cells.shape[1] * 0.05
    c.sides(-front, -front + 0.1, half - 0.5, half - 0.2, 0.5, 0.7, "taillamp")
    return c.axle(-0.5, half - 0.1, 0.32, 0.2).model()


TRAILER_STYLES = ("semi", "tarp", "container", "utility", "caravan")


@cache
def machine(style: str) -> VoxelModel:
    """A construction vehicle: excavator, loader, mini (excavator) or roller."""
    if style in ("excavator", "mini"):
        return _excavator(1.0 if style == "excavator" else 0.62)
    if style == "loader":
        c = Carver(7.2, 2.7, 3.3, _CELL)
        c.box(-3.3, -0.6, -0.9, 0.9, 0.9, 2.0, "machine_yellow").box(-3.45, -3.2, -1.1, 1.1, 0.8, 1.7, "machine_dark")
        c.box(-1.2, 0.4, -0.75, 0.75, 1.4, 3.15, "glass").box(-1.2, 0.4, -0.75, 0.75, 3.0, 3.3, "machine_yellow")
        for x in (-1.15, 0.3):
            c.sides(x - 0.08, x + 0.08, 0.6, 0.76, 1.5, 3.1, "machine_yellow")
        c.box(-0.6, 1.6, -0.6, 0.6, 0.8, 1.5, "machine_dark")
        for y in (-0.5, 0.5):
            c.rod((0.6, y, 1.8), (2.6, y, 0.8), 0.2, "machine_yellow")
        bucket = c.inside(2.4, 3.6, -1.35, 1.35, 0.0, 1.2) & (c.z < 1.25 - (c.x - 2.4) * 0.9)
        c.fill(bucket, "machine_dark").fill(c.inside(2.7, 3.6, -1.2, 1.2, 0.2, 1.2), "air").fill(
            c.inside(2.7, 3.3, -1.2, 1.2, 0.15, 0.6), "timber"
        )
        c.axle(1.3, 1.0, 0.75, 0.5)
        return c.axle(-2.0, 1.0, 0.75, 0.5).model()
    c = Carver(4.8, 2.1, 2.9, _CELL)
    r = ((c.x - 1.6) ** 2 + (c.z - 0.75) ** 2) < 0.75**2
    c.fill(r & (abs(c.y) < 0.95), "rim").sides(0.2, 1.8, 0.85, 1.05, 0.7, 1.05, "machine_yellow")
    c.box(-2.3, 0.6, -0.85, 0.85, 0.7, 1.5, "machine_yellow").box(-2.4, -1.2, -0.8, 0.8, 1.2, 1.8, "machine_yellow")
    c.box(-0.9, 0.5, -0.75, 0.75, 1.5, 2.75, "glass").box(-1.0, 0.6, -0.85, 0.85, 2.65, 2.9, "machine_yellow")
    return c.axle(-1.5, 0.8, 0.7, 0.45).model()


def _excavator(scale: float) -> VoxelModel:
    cell = _CELL if scale == 1.0 else 0.1
    s = scale
    c = Carver(7.6 * s, 2.8 * s, 3.4 * s, cell)
    shift = 1.9 * s  # the arm reaches forward, so the body sits behind the middle
    for sign in (1, -1):
        y0, y1 = sorted((sign * 0.8 * s, sign * 1.35 * s))
        c.box(-1.7 * s - shift, 1.7 * s - shift, y0, y1, 0.15 * s, 0.75 * s, "tyre")
        c.box(-1.5 * s - shift, 1.5 * s - shift, y0, y1, 0.0, 0.9 * s, "tyre")
        c.recolour(c.inside(-1.3 * s - shift, 1.3 * s - shift, y0, y1, 0.3 * s, 0.6 * s), "machine_dark")
    c.box(-0.7 * s - shift, 0.7 * s - shift, -0.8 * s, 0.8 * s, 0.5 * s, 1.1 * s, "machine_dark")
    c.box(-1.85 * s - shift, 1.2 * s - shift, -1.3 * s, 1.3 * s, 1.1 * s, 1.5 * s, "machine_yellow")
    c.box(-1.85 * s - shift, -0.2 * s - shift, -1.3 * s, 1.3 * s, 1.4 * s, 2.2 * s, "machine_yellow")
    c.box(-1.85 * s - shift, -1.5 * s - shift, -1.3 * s, 1.3 * s, 1.2 * s, 2.0 * s, "machine_dark")
    c.box(-0.2 * s - shift, 1.3 * s - shift, 0.35 * s, 1.3 * s, 1.4 * s, 3.0 * s, "glass")
    c.box(-0.2 * s - shift, 1.3 * s - shift, 0.35 * s, 1.3 * s, 2.85 * s, 3.1 * s, "machine_yellow")
    c.recolour(c.inside(-0.25 * s - shift, -0.05 * s - shift, 0.3 * s, 1.3 * s, 1.4 * s, 3.0 * s), "machine_yellow")
    c.rod((0.9 * s - shift, -0.2 * s, 1.5 * s), (3.0 * s - shift, -0.2 * s, 3.1 * s), 0.24 * s, "machine_yellow")
    c.rod((3.0 * s - shift, -0.2 * s, 3.1 * s), (4.9 * s - shift, -0.2 * s, 2.0 * s), 0.22 * s, "machine_yellow")
    c.rod((4.9 * s - shift, -0.2 * s, 2.1 * s), (5.2 * s - shift, -0.2 * s, 0.8 * s), 0.18 * s, "machine_yellow")
    c.rod((1.2 * s - shift, -0.2 * s, 1.3 * s), (2.2 * s - shift, -0.2 * s, 2.3 * s), 0.1 * s, "rim")
    c.box(4.6 * s - shift, 5.5 * s - shift, -0.75 * s, 0.35 * s, 0.1 * s, 0.9 * s, "machine_dark")
    c.box(4.5 * s - shift, 5.2 * s - shift, -0.6 * s, 0.2 * s, 0.25 * s, 0.9 * s, "air")
    return c.model()


MACHINE_STYLES = ("excavator", "loader", "mini", "roller")
