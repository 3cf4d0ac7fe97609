"""Light: where it comes from, shadows of the head on itself, and how much sky a point sees."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from frustum.worlds.heads.person import Colour
from frustum.worlds.heads.shape import smooth_step
from frustum.worlds.street.jit import SHADING


class Light(NamedTuple):
    """A key light, light from all around, and a light from behind.

    Attributes:
        key: unit vector to the key light, in the world. rim: the same of the one behind.
        key_colour, sky, ground, rim_colour: linear RGB.
        exposure: factor.
    """

    key: tuple[float, float, float] = (-0.45, 0.5, 0.74)
    key_colour: Colour = (2.3, 2.2, 2.05)
    sky: Colour = (0.50, 0.53, 0.58)
    ground: Colour = (0.30, 0.27, 0.24)
    rim: tuple[float, float, float] = (0.7, 0.3, -0.65)
    rim_colour: Colour = (0.5, 0.5, 0.5)
    exposure: float = 0.75


def light_frame(light: Light) -> np.ndarray:
    """(3, 3) rotation from the world to the key light's view: its z axis points to the light."""
    z = np.array(light.key) / np.linalg.norm(light.key)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x) + 1e-9
    return np.stack([x, np.cross(z, x), z])


@numba.njit(**SHADING)
def shadow_at(px, py, pz, frame, camera, depths, bias, soft):
    """How much of the key light reaches a point, 0..1, from the depths (S, S) that the light sees."""
    x = frame[0, 0] * px + frame[0, 1] * py + frame[0, 2] * pz
    y = frame[1, 0] * px + frame[1, 1] * py + frame[1, 2] * pz
    depth = camera[3] - (frame[2, 0] * px + frame[2, 1] * py + frame[2, 2] * pz)
    k = camera[0] / depth
    u, v = camera[1] + k * x - 0.5, camera[2] - k * y - 0.5
    i, j = int(np.floor(v)), int(np.floor(u))
    if i < 1 or j < 1 or i > depths.shape[0] - 4 or j > depths.shape[1] - 4:
        return 1.0
    fu, fv = u - j, v - i
    total = 0.0
    for a in range(-1, 3):
        wa = (1.0 - fv) if a == -1 else (fv if a == 2 else 1.0)
        for b in range(-1, 3):
            wb = (1.0 - fu) if b == -1 else (fu if b == 2 else 1.0)
            total += wa * wb * min(max(1.0 - (depth - bias - depths[i + a, j + b]) / soft, 0.0), 1.0)
    return total / 9.0


@numba.njit(**SHADING)
def open_sky(depths, parts, surface, first_thread, focal, ss, reach, out):
    """Fill `out` (H, W) with the share of the surroundings, 0..1, that is not hidden nearby (screen-space ambient occlusion).

    Looks at 14 places around the first sub-pixel of every pixel. Parts from `first_thread` on have no normal.
    """
    H, W = out.shape
    for row in range(H):
        for column in range(W):
            i, j = row * ss, column * ss
            out[row, column] = 1.0
            if parts[i, j] == 0:
                continue
            depth = depths[i, j]
            radius = reach * focal / depth
            h = ((row * 7919) ^ (column * 104729)) & 15
            turn = h * (6.2832 / 16.0)
            has_normal = parts[i, j] < first_thread
            hidden = 0.0
            for s in range(14):
                r = radius * np.sqrt((s + 0.5) / 14.0)
                a = turn + 2.39996 * s
                du, dv = r * np.cos(a), r * np.sin(a)
                y, x = int(i + dv), int(j + du)
                if y < 0 or x < 0 or y >= depths.shape[0] or x >= depths.shape[1]:
                    continue
                dz = depth - depths[y, x]  # towards the camera
                if dz < -reach or dz > 2.5 * reach:
                    continue
                dx, dy = du * depth / focal, -dv * depth / focal
                length = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-6
                c = dz / length
                if has_normal:
                    c = (dx * surface[i, j, 2] + dy * surface[i, j, 3] + dz * surface[i, j, 4]) / length
                hidden += max(c - 0.12, 0.0) * smooth_step(2.5 * reach, 0.8 * reach, length)
            out[row, column] = max(1.0 - 2.0 * hidden / 14.0, 0.0)


@numba.njit(**SHADING)
def ball_shadow(px, py, pz, lx, ly, lz, cx, cy, cz, radius):
    """How much light from direction l reaches a point past a ball, 0..1, with a soft edge."""
    x, y, z = cx - px, cy - py, cz - pz
    along = x * lx + y * ly + z * lz
    if along <= 0.0:
        return 1.0
    away = np.sqrt(max(x * x + y * y + z * z - along * along, 0.0))
    edge = 1.0 + 0.14 * along
    return smooth_step(radius - edge, radius + edge, away)
