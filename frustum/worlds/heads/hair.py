"""Hair: guides that are combed over the standard head, and the threads around them; brows and beards from the face itself."""

from __future__ import annotations

from functools import cache

import numba
import numpy as np

from frustum.worlds.heads.parts import HAIR, Threads
from frustum.worlds.heads.person import HairStyle, Shape
from frustum.worlds.heads.shape import floats, smooth_step, stretch
from frustum.worlds.heads.skull import UNROLL, points_at, standard_radius
from frustum.worlds.street.jit import INLINE, KERNEL

GUIDES, PER_GUIDE, POINTS = 300, 11, 22
_LINE = np.array(  # |X| on the chart, height of the hairline
    [(0, 6.2), (2.5, 6.3), (4.5, 5.7), (6.2, 4.2), (7.6, 2.6), (8.4, 1.2), (8.9, -0.6), (9.6, -1.0), (10.0, 1.6), (12.6, 2.0)]
    + [(13.6, -1.5), (16, -5.5), (24, -6.5)]
)  # fmt: skip
_TABLE = (96, 96)  # longitudes, latitudes of the table of radii


def hairline(style: HairStyle) -> np.ndarray:
    """(64,) height of the hairline at |X| = 0, 3/8, 6/8 ... centimetres on the chart."""
    x = np.arange(64) * 0.375
    return np.interp(x, _LINE[:, 0], _LINE[:, 1]) + style.recession * np.exp(-((x / 6.5) ** 2)) * (
        1 + 0.5 * np.exp(-(((x - 4.5) / 1.8) ** 2))
    )


@cache
def radius_table() -> np.ndarray:
    """(96, 96) radii of the standard head by longitude -pi .. pi and latitude -pi/2 .. pi/2."""
    theta, phi = np.meshgrid(np.linspace(-np.pi, np.pi, _TABLE[0]), np.linspace(-np.pi / 2, np.pi / 2, _TABLE[1]), indexing="ij")
    return standard_radius(theta, phi)


@cache
def _scalp() -> np.ndarray:
    """(N, 3) positions on the standard head, evenly spread: where roots may be."""
    n = 1400
    k = np.arange(n) + 0.5
    y, theta = 1 - 2 * k / n, np.mod(np.pi * (1 + 5**0.5) * k, 2 * np.pi) - np.pi
    phi = np.arcsin(y)
    r = standard_radius(theta, phi)
    return np.stack([np.sin(theta) * np.cos(phi) * r, y * r, np.cos(theta) * np.cos(phi) * r], axis=-1)


@numba.njit(**INLINE)
def surface_radius(table, x, y, z):
    """Radius of the standard head in the direction of a point, from the table."""
    r = np.sqrt(x * x + y * y + z * z) + 1e-9
    a = (np.arctan2(x, z) / np.pi * 0.5 + 0.5) * (table.shape[0] - 1)
    b = (np.arcsin(min(max(y / r, -1.0), 1.0)) / np.pi + 0.5) * (table.shape[1] - 1)
    i, j = min(int(a), table.shape[0] - 2), min(int(b), table.shape[1] - 2)
    u, v = a - i, b - j
    low = table[i, j] * (1.0 - v) + table[i, j + 1] * v
    return low * (1.0 - u) + (table[i + 1, j] * (1.0 - v) + table[i + 1, j + 1] * v) * u


@numba.njit(**KERNEL)
def comb(roots, layers, lengths, phases, style, table, out):
    """Grow guides: fill `out` (G, K, 3) with points in the standard head's frame."""
    K = out.shape[1]
    for g in range(roots.shape[0]):
        x, y, z = roots[g, 0], roots[g, 1], roots[g, 2]
        rx, ry, rz = x, y, z
        step = lengths[g] / (K - 1)
        side = 1.0 if x > style.part * smooth_step(-9.0, 2.0, z) else -1.0
        is_fringe = style.fringe > 0.0 and rz > 3.2 and ry > 5.0 and abs(rx) < 5.4
        afro = smooth_step(0.75, 0.95, style.curl)
        travelled = 0.0
        for k in range(K):
            out[g, k, 0], out[g, k, 1], out[g, k, 2] = x, y, z
            r = np.sqrt(x * x + y * y + z * z) + 1e-9
            nx, ny, nz = x / r, y / r, z / r
            if is_fringe:
                cx, cy, cz = 0.35 * side * (1.0 - style.fringe), -1.0, 0.9
            else:
                back = 1.6 * style.back * smooth_step(-6.0, 5.0, z)
                cx, cy, cz = side * (1.0 - 0.75 * style.back) * smooth_step(-11.0, 1.0, z), -0.55, -0.05 - back
                if z > 1.5 and -13.0 < y < 7.5 and abs(x) < 8.2:  # keep out of the face
                    cx += side * 1.6 * smooth_step(0.0, 4.0, z)
                    cz -= 0.5 * smooth_step(6.0, 3.0, y)
            if style.bun > 0.5:
                cx, cy, cz = 0.0 - x, 12.5 - y, -4.5 - z
            d = cx * nx + cy * ny + cz * nz
            cx, cy, cz = cx - d * nx, cy - d * ny, cz - d * nz
            c = 1.0 / (np.sqrt(cx * cx + cy * cy + cz * cz) + 1e-9)
            cx, cy, cz = cx * c, cy * c, cz * c
            free = smooth_step(0.0, -6.0, y) * (1.0 - style.bun)  # hangs
            cx, cy, cz = cx * (1.0 - free) + 0.12 * side * free, cy * (1.0 - free) - free, cz * (1.0 - free)
            lift = (0.9 * style.volume / 1.5 * np.exp(-travelled / 1.5)) * (1.0 - style.bun)
            cx, cy, cz = cx + nx * lift, cy + ny * lift, cz + nz * lift
            if afro > 0.0:
                cx, cy, cz = cx + afro * 3.2 * nx, cy + afro * (3.2 * ny + 0.3), cz + afro * 3.2 * nz
            wave = style.curl**1.3 * 0.9
            p = phases[g] * (0.3 + style.curl) + travelled * (0.25 + 1.6 * style.curl)
            cx += wave * np.sin(p) * 0.8
            cy += wave * np.sin(1.3 * p + 1.0) * 0.35
            cz += wave * np.cos(p) * 0.8
            c = step / (np.sqrt(cx * cx + cy * cy + cz * cz) + 1e-9)
            x, y, z = x + cx * c, y + cy * c, z + cz * c
            travelled += step
            r = np.sqrt(x * x + y * y + z * z) + 1e-9
            wanted = surface_radius(table, x, y, z) + 0.15 + style.volume * layers[g] * min(travelled / 3.0, 1.0)
            if r < wanted:
                x, y, z = x * wanted / r, y * wanted / r, z * wanted / r
            elif style.bun > 0.5 or (y > -4.0 and afro == 0.0):
                c = 1.0 + (wanted / r - 1.0) * 0.35
                x, y, z = x * c, y * c, z * c


@numba.njit(**KERNEL)
def spread(guides, around, clump, frizz, shape, out):
    """Threads around guides: fill `out` (G * M, K, 3), in the person's own head frame.

    Args:
        guides: (G, K, 3).
        around: (G * M, 4) offset in x, y, z, and a phase.
        clump: share of the offset that is gone at the tip. frizz: centimetres.
    """
    M, K = around.shape[0] // guides.shape[0], guides.shape[1]
    for n in range(around.shape[0]):
        g = n // M
        for k in range(K):
            s = k / (K - 1.0)
            w = 1.0 - clump * s
            x, y, z = guides[g, k, 0] + w * around[n, 0], guides[g, k, 1] + w * around[n, 1], guides[g, k, 2] + w * around[n, 2]
            p = around[n, 3] + 9.0 * s
            x, y, z = x + frizz * s * np.sin(p), y + frizz * s * np.sin(1.7 * p + 2.0) * 0.5, z + frizz * s * np.cos(1.2 * p)
            out[n, k, 0], out[n, k, 1], out[n, k, 2] = stretch(x, y, z, shape)


def head_hair(style: HairStyle, shape: Shape, hat_rim: float | None) -> Threads | None:
    """Threads of the hair in the person's head frame; None if there is none. Under a hat (its rim's height) hair lies flat."""
    if style.length <= 0.0:
        return None
    rng = np.random.default_rng([int(style.seed), 7])
    scalp = _scalp()
    X = UNROLL * np.arctan2(scalp[:, 0], scalp[:, 2])
    line = np.interp(np.abs(X), np.arange(64) * 0.375, hairline(style))
    is_scalp = scalp[:, 1] > line + rng.uniform(0.0, 0.5, len(scalp))
    crown = np.exp(-((scalp[:, 0] / 5.5) ** 2 + ((scalp[:, 2] + 2.0) / 6.5) ** 2)) * (scalp[:, 1] > 5.0)
    is_scalp &= ~(crown > 1.05 - style.bald)
    if hat_rim is not None:
        style = style._replace(volume=min(style.volume, 0.4), fringe=0.0, bun=0.0, length=style.length if style.curl < 0.8 else 3.0)
        is_scalp &= scalp[:, 1] < hat_rim + 1.5
    roots = scalp[is_scalp]
    if not len(roots):
        return None
    short = np.linspace(0, len(roots) - 1, min(GUIDES, len(roots))).astype(int)
    roots = roots[short]
    G = len(roots)
    fade = np.clip((roots[:, 1] + 2.0) / 7.0, 0.12, 1.0) if style.length < 10 and style.curl < 0.8 else 1.0  # shorter at the sides
    layers, phases = rng.uniform(0.25, 1.0, G), rng.uniform(0, 2 * np.pi, G)
    lengths = style.length * rng.uniform(0.75, 1.0, G) * fade
    if style.bun > 0.5:
        lengths = np.minimum(np.linalg.norm(roots - [0.0, 12.5, -4.5], axis=1) * 1.2, 24.0)
    is_fringe = (roots[:, 2] > 3.2) & (roots[:, 1] > 5.0) & (np.abs(roots[:, 0]) < 5.4)
    if style.fringe > 0:
        lengths[is_fringe] = np.minimum(
            lengths[is_fringe], (roots[is_fringe, 1] - 3.3 + 1.0) * 1.15 * rng.uniform(0.85, 1.0, is_fringe.sum())
        )
    guides = np.empty((G, POINTS, 3))
    comb(roots, layers, lengths, phases, style, radius_table(), guides)
    if style.bun > 0.5 and hat_rim is None:
        guides = np.concatenate([guides, _bun(rng, 46)])
    G = len(guides)
    around = np.concatenate([rng.normal(0, 0.42, (G * PER_GUIDE, 3)), rng.uniform(0, 2 * np.pi, (G * PER_GUIDE, 1))], axis=1)
    points = np.empty((G * PER_GUIDE, POINTS, 3))
    clump = 0.65 if style.length > 8 else 0.35
    spread(guides, around, clump if style.curl < 0.8 else 0.0, 0.08 + 0.5 * style.curl**1.5, floats(shape), points)
    N = len(points)
    tone = np.repeat(rng.normal(0.5, 0.10, G), PER_GUIDE) + rng.normal(0, 0.10, N)
    return Threads(points, np.full(N, 0.115), np.full(N, HAIR, np.uint8), np.clip(tone, 0.05, 1.0))


def _bun(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, K, 3) guides that are wound around a knot on the crown."""
    u = rng.uniform(0, 2 * np.pi, (n, 1)) + np.linspace(0, 3.5, POINTS)
    h = rng.uniform(-0.9, 0.9, (n, 1)) + 0.1 * np.sin(u)
    r = 2.9 * np.sqrt(np.maximum(1 - h * h * 0.8, 0.1))
    return np.stack([r * np.cos(u), 13.2 + 2.3 * h, -4.5 + r * np.sin(u)], axis=-1)


def chart_hairs(
    part: int, points: np.ndarray, normals: np.ndarray, at: np.ndarray, flow: np.ndarray, length: np.ndarray, width: float, tone: np.ndarray
) -> Threads:
    """Short hairs that grow out of a grid.

    Args:
        points, normals: (R, C, 3) of the head.
        at: (N, 2) row and column, fractional, of each root.
        flow: (N, 3) direction. length: (N,) centimetres. width: centimetres. tone: (N,).
    """
    root, n = points_at(points, at), normals[at[:, 0].astype(int), at[:, 1].astype(int)]
    flow = flow - 0.8 * n * (flow * n).sum(-1, keepdims=True)
    flow = flow / (np.linalg.norm(flow, axis=-1, keepdims=True) + 1e-9)
    s = np.linspace(0.0, 1.0, 5)[None, :, None]
    L = length[:, None, None]
    out = root[:, None] + s * L * flow[:, None] + (0.06 + 0.35 * s * np.minimum(L, 0.8) * (1 - 0.5 * s)) * n[:, None]
    N = len(at)
    return Threads(out, np.full(N, width), np.full(N, part, np.uint8), tone)


@numba.njit(**KERNEL)
def _hang(points, turn, joint, move, middle, radii, out):
    for n in range(points.shape[0]):
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        w = smooth_step(-7.0, -21.0, y) * 0.75
        u, v, q = x - joint[0], y - joint[1], z - joint[2]
        X = (turn[0, 0] * u + turn[0, 1] * v + turn[0, 2] * q + joint[0]) * (1.0 - w) + x * w
        Y = (turn[1, 0] * u + turn[1, 1] * v + turn[1, 2] * q + joint[1]) * (1.0 - w) + y * w
        Z = (turn[2, 0] * u + turn[2, 1] * v + turn[2, 2] * q + joint[2]) * (1.0 - w) + z * w
        u, v, q = (X - middle[0]) / radii[0], (Y - middle[1]) / radii[1], (Z - middle[2]) / radii[2]
        r = np.sqrt(u * u + v * v + q * q)
        if r < 1.04:
            k = 1.04 / (r + 1e-9)
            X, Y, Z = middle[0] + u * k * radii[0], middle[1] + v * k * radii[1], middle[2] + q * k * radii[2]
        out[n, 0], out[n, 1], out[n, 2] = X + move[0], Y + move[1], Z + move[2]


def hang(points: np.ndarray, turn: np.ndarray, joint: np.ndarray, move: np.ndarray, shoulders: float, slope: float) -> np.ndarray:
    """Hair (N, K, 3) in the world: long hair does not turn with the head as a whole, and lies on the shoulders."""
    out = np.empty_like(points)
    middle, radii = np.array([0.0, -33.0, -3.2]), np.array([21.0 * shoulders, 16.2 - slope, 10.5])
    _hang(points.reshape(-1, 3), turn, joint, move, middle, radii, out.reshape(-1, 3))
    return out
