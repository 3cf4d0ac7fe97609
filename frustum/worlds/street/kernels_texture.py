"""Procedural surface textures: a brightness factor and a warm shift per point, from integer hashes."""

from __future__ import annotations

import numba
import numpy as np

from frustum.worlds.street.jit import SHADING, SHADING_INLINE
from frustum.worlds.street.materials import TEXTURES

ASPHALT, PAINT, TILES, GRASS, GRAVEL, BRICK, PLASTER = (
    TEXTURES.index(n) for n in ("asphalt", "paint", "tiles", "grass", "gravel", "brick", "plaster")
)
GLASS, LEAVES, BARK, WOOD, METAL, CLOTH, LAMP = (TEXTURES.index(n) for n in ("glass", "foliage", "bark", "wood", "metal", "cloth", "lamp"))


@numba.njit(**SHADING_INLINE)
def hash2(x, y):
    """A number in 0..1 for an integer pair."""
    h = (np.int64(x) * 73856093) ^ (np.int64(y) * 19349663)
    h = (h ^ (h >> 13)) * 1274126177
    h ^= h >> 16
    return (h & 0xFFFF) * (1.0 / 65536.0)


@numba.njit(**SHADING_INLINE)
def hash3(x, y, z):
    """A number in 0..1 for three integers."""
    h = (np.int64(x) * 73856093) ^ (np.int64(y) * 19349663) ^ (np.int64(z) * 83492791)
    h = (h ^ (h >> 13)) * 1274126177
    h ^= h >> 16
    return (h & 0xFFFF) * (1.0 / 65536.0)


@numba.njit(**SHADING)
def smooth_noise(x, y):
    """Value noise in 0..1 with unit period, smooth."""
    i, j = np.floor(x), np.floor(y)
    u, v = x - i, y - j
    u, v = u * u * (3.0 - 2.0 * u), v * v * (3.0 - 2.0 * v)
    i, j = int(i), int(j)
    low = hash2(i, j) * (1.0 - u) + hash2(i + 1, j) * u
    high = hash2(i, j + 1) * (1.0 - u) + hash2(i + 1, j + 1) * u
    return low * (1.0 - v) + high * v


@numba.njit(**SHADING_INLINE)
def _fade(feature, foot):
    """How much of a detail of `feature` metres survives in a pixel of `foot` metres."""
    return min(max(1.6 * feature / foot - 0.6, 0.0), 1.0)


@numba.njit(**SHADING)
def _courses(a, b, length, height, joint, foot):
    """Bricks or slabs: factor from joints and from each stone's own shade."""
    show = _fade(height, foot)
    if show <= 0.0:
        return 1.0
    row = np.floor(b / height)
    s = a / length + 0.5 * (int(row) & 1)
    column = np.floor(s)
    u, v = (s - column) * length, b - row * height
    tone = 0.86 + 0.28 * hash2(int(column), int(row))
    line = _fade(joint * 2.0, foot)
    if (u < joint or v < joint) and line > 0.0:
        tone = tone * (1.0 - line) + line * 0.68
    return 1.0 + (tone - 1.0) * show


@numba.njit(**SHADING)
def surface_tone(texture, a, b, foot, face):
    """Brightness factor and warm shift of a texture at face coordinates a, b (metres); b is the height on upright faces."""
    if texture == ASPHALT:
        tone = 0.82 + 0.36 * smooth_noise(a * 0.23, b * 0.23)
        show = _fade(0.25, foot)
        if show > 0.0:
            tone += show * 0.16 * (smooth_noise(a * 2.1, b * 2.1) - 0.5)
            grain = _fade(0.035, foot)
            if grain > 0.0:
                tone += grain * 0.34 * (hash2(int(a * 34.0), int(b * 34.0)) - 0.5)
        return tone, 0.02 * (tone - 1.0)
    if texture == GRASS:
        patch = smooth_noise(a * 0.31, b * 0.31)
        tone = 0.74 + 0.5 * smooth_noise(a * 1.3, b * 1.3)
        blades = _fade(0.05, foot)
        if blades > 0.0:
            tone += blades * 0.65 * (hash2(int(a * 30.0), int(b * 22.0)) - 0.5)
        return tone, 0.25 * (patch - 0.45)
    if texture == TILES:
        return _courses(a, b, 0.5, 0.5 if face >= 4 else 0.25, 0.018, foot) * (0.93 + 0.14 * smooth_noise(a * 0.4, b * 0.4)), 0.0
    if texture == BRICK:
        return _courses(a, b, 0.25, 0.085, 0.012, foot) * (0.9 + 0.2 * smooth_noise(a * 0.5, b * 0.5)), 0.0
    if texture == PLASTER:
        tone = 0.88 + 0.16 * smooth_noise(a * 0.45, b * 0.2)
        streak = _fade(0.3, foot)
        if streak > 0.0:
            tone += streak * 0.08 * (smooth_noise(a * 3.0, b * 0.5) - 0.5) + 0.06 * _fade(0.03, foot) * (
                hash2(int(a * 40.0), int(b * 40.0)) - 0.5
            )
        return tone, 0.0
    if texture == LEAVES:
        tone = 0.72 + 0.5 * hash2(int(a * 5.0) + face * 131, int(b * 5.0))
        leaf = _fade(0.07, foot)
        if leaf > 0.0:
            tone += leaf * 0.75 * (hash2(int(a * 17.0) + face * 37, int(b * 17.0)) - 0.5)
        return tone, 0.3 * (smooth_noise(a * 0.6 + face, b * 0.6) - 0.5)
    if texture == PAINT:
        wear = smooth_noise(a * 5.0, b * 5.0)
        tone = 0.88 + 0.16 * smooth_noise(a * 0.8, b * 0.8)
        if wear < 0.22:
            tone *= 1.0 - 0.35 * _fade(0.15, foot)
        return tone, 0.0
    if texture == GRAVEL:
        tone = 0.85 + 0.3 * smooth_noise(a * 0.7, b * 0.7)
        stones = _fade(0.06, foot)
        if stones > 0.0:
            tone += stones * 0.55 * (hash2(int(a * 19.0), int(b * 19.0)) - 0.5)
        return tone, 0.0
    if texture == WOOD:
        board = np.floor(a / 0.15)
        tone = 0.8 + 0.35 * hash2(int(board), face) * _fade(0.15, foot) + 0.12 * (1.0 - _fade(0.15, foot))
        if a - board * 0.15 < 0.018:
            tone *= 1.0 - 0.5 * _fade(0.04, foot)
        grain = _fade(0.04, foot)
        if grain > 0.0:
            tone += grain * 0.14 * (smooth_noise(a * 40.0, b * 3.0) - 0.5)
        return tone, 0.0
    if texture == BARK:
        return 0.75 + 0.5 * smooth_noise(a * 14.0, b * 2.5), 0.0
    if texture == CLOTH:
        return 0.88 + 0.24 * smooth_noise(a * 9.0, b * 5.0), 0.0
    if texture in (METAL, LAMP, GLASS):
        return 1.0, 0.0
    return 0.94 + 0.12 * smooth_noise(a * 1.7, b * 1.7), 0.0
