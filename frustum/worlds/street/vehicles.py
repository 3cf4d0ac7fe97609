"""Cars, trucks, buses, trailers and construction machines, carved from cubes; built once per process."""

from __future__ import annotations

from functools import cache

import numpy as np

from frustum.worlds.street.shapes import Carver
from frustum.worlds.street.types import VoxelModel

# style: length, width, height, bonnet height, side view of the cabin as shares of the length from the front:
# bonnet end / windscreen base, roof start, roof end, rear window base, height of the rear deck, tyre radius
_CARS: dict[str, tuple[float, ...]] = {
    "sedan": (4.7, 1.9, 1.5, 0.95, 0.27, 0.43, 0.70, 0.86, 1.05, 0.33),
    "hatchback": (4.0, 1.8, 1.5, 0.95, 0.24, 0.40, 0.88, 0.97, 1.00, 0.31),
    "estate": (4.8, 1.9, 1.5, 0.95, 0.27, 0.42, 0.90, 0.98, 1.05, 0.33),
    "suv": (4.8, 2.0, 1.8, 1.10, 0.25, 0.38, 0.90, 0.97, 1.15, 0.38),
    "coupe": (4.4, 1.9, 1.4, 0.90, 0.32, 0.50, 0.66, 0.93, 1.00, 0.33),
    "van": (5.2, 2.0, 2.1, 1.20, 0.13, 0.27, 0.97, 1.00, 1.25, 0.35),
    "panel_van": (5.8, 2.1, 2.5, 1.25, 0.14, 0.28, 0.98, 1.00, 1.30, 0.36),
    "pickup": (5.4, 2.0, 1.8, 1.10, 0.25, 0.37, 0.58, 0.62, 1.05, 0.40),
}
CAR_STYLES = tuple(_CARS)


@cache
def car(style: str) -> VoxelModel:
    """A passenger car or van in one of CAR_STYLES, 0.1 m cells."""
    length, width, height, bonnet, base, roof0, roof1, rear, deck, tyre = _CARS[style]
    c = Carver(length, width + 0.4, height, 0.1)  # 0.4: room for the mirrors
    half, front = width / 2, length / 2
    at = lambda share: front - share * length  # noqa: E731
    belt = bonnet + 0.02
    top = c.profile(
        [
            (front, bonnet - 0.15),
            (at(0.05), bonnet - 0.05),
            (at(base), bonnet),
            (at(roof0), height),
            (at(roof1), height),
            (at(rear), deck),
            (-front, deck - 0.05),
        ]
    )
    # Plan view with rounded corners; the cabin leans in above the belt line.
    corner = np.clip(abs(c.x) - (front - 0.35), 0, None) ** 2 * 2.0
    lean = np.clip(c.z - belt, 0, None) * 0.22
    body = (abs(c.y) < half - corner - lean) & (c.z < top) & (c.z > 0.2)
    c.fill(body, "body")
    c.recolour(c.z < 0.32, "chassis")
    if style != "pickup":
        c.recolour((c.z > belt) & (c.z < height - 0.12) & (c.x > at(rear) + 0.05), "glass")
    else:
        c.recolour((c.z > belt) & (c.z < height - 0.12) & (c.x > at(roof1 + 0.02)), "glass")
        c.box(-front + 0.15, at(rear) - 0.1, -half + 0.15, half - 0.15, 0.7, 2.0, "air")
    if style == "panel_van":  # no windows behind the front doors
        c.recolour((c.z > belt) & (c.x < at(0.42)), "body")
    pillars = [at((roof0 + roof1) / 2 + 0.01), at(roof1) - 0.05] if style in ("estate", "suv", "van") else [at((roof0 + roof1) / 2 + 0.03)]
    for x in pillars:
        c.recolour((abs(c.x - x) < 0.06) & (c.z > belt) & (abs(c.y) > half - 0.45), "body")
    # arches and wheels
    for x in (front - 0.85 * length / 4.6, -front + 0.85 * length / 4.6):
        r = np.hypot(c.x - x, c.z - tyre)
        c.recolour((r < tyre + 0.09) & (abs(c.y) > half - 0.35), "chassis")
        c.axle(x, half - 0.1, tyre, 0.22)
    # lamps, grille, plates, mirrors, handles
    face = abs(c.x) > front - 0.25
    outer = abs(c.y) > half - 0.5
    c.recolour(face & (c.x > 0) & outer & (c.z > bonnet - 0.32) & (c.z < bonnet - 0.1), "headlamp")
    c.recolour((c.x > front - 0.12) & (abs(c.y) < half - 0.5) & (c.z > bonnet - 0.42) & (c.z < bonnet - 0.2), "chassis")
    c.recolour((c.x < -front + 0.15) & outer & (c.z > deck - 0.32) & (c.z < deck - 0.1), "taillamp")
    for sign in (1, -1):
        c.recolour((sign * c.x > front - 0.12) & (abs(c.y) < 0.26) & (c.z > 0.4) & (c.z < 0.52), "plate")
    c.sides(at(base) - 0.35, at(base) - 0.1, half - 0.08, half + 0.1, belt - 0.02, belt + 0.15, "body_dark")
    return c.model()
