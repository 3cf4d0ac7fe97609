"""Sun shadows and contact darkening: maps that are filled once per scene for all that stands still, and patched for what moves.

The shadow map is seen along the sun. A point (x, y, z) in cell units falls on texel (x - z kx + offset, y - z ky + offset), k = sun.xy /
sun.z; a texel holds the greatest z of anything solid on its line. A point lies in shadow where that is above the point itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from frustum.worlds.street.arrays import Actors, Models, World, cell_at
from frustum.worlds.street.jit import KERNEL
from frustum.worlds.street.kernels_cast import FAR, cast_actor


class Light(NamedTuple):
    """What the shading kernel needs to know about sun, sky and the maps."""

    sun: np.ndarray  # (3,) unit vector towards the sun
    sun_colour: np.ndarray  # (3,)
    ambient: np.ndarray  # (3,)
    sky: np.ndarray  # float32 (S, S, 3) sky radiance, stereographic from the zenith, see sky.py
    shadow: np.ndarray  # float32 (U, V) cell units
    contact: np.ndarray  # float32 (nx, ny) share of ambient light that is blocked near the ground
    kx: float
    ky: float
    offset_x: float
    offset_y: float
    haze: float  # extinction per metre
    exposure: float
    noise: float
    tone: np.ndarray  # float32 (TONE_SIZE,) tone curve: display value 0..255 of exposed value (i / TONE_SCALE)^2


@numba.njit(**KERNEL)
def splat_static(world: World, light: Light, near):
    """Fill the shadow map from the static grid; mark in `near` (nx, ny) the columns with something solid 0.3 to 2.5 m above the ground."""
    u_max, v_max = light.shadow.shape
    steps = int(max(abs(light.kx), abs(light.ky))) + 1
    low, high = 0.3 / world.cell, 2.5 / world.cell
    for i in range(world.nx):
        for j in range(world.ny):
            ground = world.base[i * (world.ny + 1) + j] + world.step[i * world.ny + j]
            for kb in range(world.bz - 1, -1, -1):
                if world.bricks[((i >> 3) * world.by + (j >> 3)) * world.bz + kb] < 0:
                    continue
                for k in range(8 * kb + 7, 8 * kb - 1, -1):
                    if cell_at(world, i, j, k) == 0:
                        continue
                    if low < k - ground < high:
                        near[i, j] = 1.0
                    for s in range(steps):
                        z = k + 1.0 - s / steps
                        u = int(i + 0.5 - z * light.kx + light.offset_x)
                        v = int(j + 0.5 - z * light.ky + light.offset_y)
                        if 0 <= u < u_max and 0 <= v < v_max and light.shadow[u, v] < z:
                            light.shadow[u, v] = z


@numba.njit(**KERNEL)
def splat_actors(world: World, models: Models, actors: Actors, light: Light, rows, rectangles):
    """Add the shadows of actors `rows` (R,) to the shadow map and their contact darkening to the contact map.

    Args:
        rectangles: (R, 8) int64: texel ranges u0 u1 v0 v1 of the shadow map, then column ranges i0 i1 j0 j1 of the contact map.
    """
    cell = world.cell
    for n in range(rows.shape[0]):
        a = rows[n]
        m = actors.model[a]
        f, r = actors.to_cells[a], actors.rotation[a]
        size = models.cell[m]
        hx, hy, hz = models.shape[m, 0] * size, models.shape[m, 1] * size, models.shape[m, 2] * size
        # Global position of the middle of the grid's floor: f maps global metres to model cells, with scale 1 / size.
        px = -size * (r[0, 0] * f[0, 3] + r[0, 1] * f[1, 3] + r[0, 2] * f[2, 3]) + r[0, 0] * 0.5 * hx + r[0, 1] * 0.5 * hy
        py = -size * (r[1, 0] * f[0, 3] + r[1, 1] * f[1, 3] + r[1, 2] * f[2, 3]) + r[1, 0] * 0.5 * hx + r[1, 1] * 0.5 * hy
        pz = -size * (r[2, 0] * f[0, 3] + r[2, 1] * f[1, 3] + r[2, 2] * f[2, 3])
        top = (pz + hz + 0.5 * (hx + hy) * max(abs(r[2, 0]), abs(r[2, 1])) - world.origin[2]) / cell + 1.0
        for u in range(rectangles[n, 0], rectangles[n, 1]):
            for v in range(rectangles[n, 2], rectangles[n, 3]):
                x = (u + 0.5 - light.offset_x + top * light.kx) * cell + world.origin[0]
                y = (v + 0.5 - light.offset_y + top * light.ky) * cell + world.origin[1]
                z = top * cell + world.origin[2]
                t, _, _, _ = cast_actor(models, actors, a, x, y, z, -light.kx * cell, -light.ky * cell, -cell, FAR)
                if t < FAR and light.shadow[u, v] < top - t:
                    light.shadow[u, v] = top - t
        for i in range(rectangles[n, 4], rectangles[n, 5]):
            for j in range(rectangles[n, 6], rectangles[n, 7]):
                x = (i + 0.5) * cell + world.origin[0] - px
                y = (j + 0.5) * cell + world.origin[1] - py
                ax = max(abs(r[0, 0] * x + r[1, 0] * y) - 0.5 * hx, 0.0)
                ay = max(abs(r[0, 1] * x + r[1, 1] * y) - 0.5 * hy, 0.0)
                near = 1.0 - np.sqrt(ax * ax + ay * ay) / (0.25 + 0.25 * min(hz, 2.0))
                if near > 0.0:
                    block = 0.75 * near * near * min(hz, 1.0)
                    light.contact[i, j] = max(light.contact[i, j], np.float32(block))
