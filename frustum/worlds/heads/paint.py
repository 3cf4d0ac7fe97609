"""What colours a head has, and where on the chart each thing is painted."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from frustum.worlds.heads.shape import smooth_step
from frustum.worlds.street.jit import SHADING, SHADING_INLINE
from frustum.worlds.street.kernels_texture import hash2, smooth_noise

SKIN, BROW_L, BROW_R, EYE_L, EYE_R, EYE_G, EAR_L, EAR_R, EAR_RING, NOSE, MOUTH, LIP_U, LIP_L, NECK, CHAIN, CLOTH, HAIR_CLASS, HAT_CLASS = (
    range(1, 19)
)
"""CelebAMask-HQ ids; 0 is the background."""


class Face(NamedTuple):
    """Where features are on the chart, centimetres, for this shape and motion."""

    eye_x: float
    eye_half: float
    eye_high: float
    eye_tilt: float
    open_left: float
    open_right: float
    brow_y: float
    brow_thick: float
    brow_arch: float
    brow_frown: float
    mouth_half: float
    upper_lip: float
    lower_lip: float
    mouth_open: float
    nose_tip: float
    nose_width: float
    age: float
    squint: float


@numba.njit(**SHADING)
def lids(q, high, opened, squint):
    """Heights of the lower and the upper lid above the eye's middle, at -1 (inner corner) .. 1 (outer corner)."""
    c = 1.0 - q * q
    low = -0.62 * high * c**0.75 * (1.0 - 0.45 * squint)
    s = (q + 0.12) / 1.12
    top = high * 0.84 * max(1.0 - min(abs(s), 1.0) ** 2.3, 0.0) ** 0.8 * min(4.0 * c, 1.0)
    return low, low + (top - low) * opened


@numba.njit(**SHADING)
def brow_line(t, face):
    """Height of the middle of an eyebrow and half its thickness, at 0 (inner end) .. 1 (outer end)."""
    y = (
        face.brow_y
        + face.brow_arch * np.sin(min(t * 1.35, 2.4)) * 0.9
        - 0.75 * face.brow_arch * t * t
        - face.brow_frown * (1.0 - t) ** 2 * 0.6
    )
    y -= 0.35 * t * t * t
    half = face.brow_thick * smooth_step(-0.12, 0.18, t) * (1.0 - 0.78 * t * t)
    return y, half


@numba.njit(**SHADING)
def lip_edges(q, face):
    """Heights of the upper lip's upper and the lower lip's lower edge above the line of the lips, at -1 .. 1 across the mouth."""
    c = max(1.0 - q * q, 0.0)
    a = abs(q)
    bow = 0.82 + 0.26 * np.exp(-(((a - 0.20) / 0.14) ** 2)) - 0.10 * np.exp(-((q / 0.08) ** 2))
    return face.upper_lip * c**0.62 * bow, -face.lower_lip * c**0.72


@numba.njit(**SHADING_INLINE)
def _mix(a, b, t):
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t


@numba.njit(**SHADING_INLINE)
def _times(a, k):
    return a[0] * k, a[1] * k, a[2] * k


@numba.njit(**SHADING)
def is_nose(X, Y, face):
    """Whether a place on the chart belongs to the nose."""
    top, low = 0.7, face.nose_tip - 1.0
    if top < Y or low > Y:
        return False
    t = (top - Y) / (top - face.nose_tip)
    half = 0.62 + 0.35 * t + 0.75 * face.nose_width * smooth_step(0.62, 0.95, t)
    if t > 1.0:
        half *= np.sqrt(max(1.0 - ((t - 1.0) / 0.24) ** 2, 0.0))
    return abs(X) < half


@numba.njit(**SHADING)
def beard_area(X, Y):
    """How much beard grows at a place on the chart, 0..1: cheeks, chin, lip; not the lips themselves."""
    a = abs(X)
    line = -5.9 + 0.95 * smooth_step(4.0, 9.0, a) * 4.2
    below = smooth_step(line + 0.5, line - 0.5, Y) * smooth_step(10.2, 9.2, a) * smooth_step(-13.5, -11.0, Y)
    lip = smooth_step(-5.25, -5.6, Y) * smooth_step(3.4, 2.9, a)
    return max(below, lip)


@numba.njit(**SHADING)
def skin_colour(X, Y, face, paint):
    """Albedo of the skin, shine, and how wrinkled it is there (a tilt of the normal's y)."""
    s = paint.seed
    tone = 0.94 + 0.12 * smooth_noise(X * 0.8 + s, Y * 0.8)
    tone += 0.05 * (smooth_noise(X * 4.0 + s, Y * 4.0) - 0.5) + 0.03 * (hash2(int(X * 16.0 + 4000), int(Y * 16.0 + 4000)) - 0.5)
    colour = _times(paint.skin, tone)
    a = abs(X)
    red = np.exp(-(((a - 4.6) / 2.2) ** 2) - ((Y + 3.4) / 1.7) ** 2) + 0.8 * np.exp(-((X / 1.4) ** 2) - ((Y - face.nose_tip) / 1.2) ** 2)
    red += 0.35 * np.exp(-((X / 2.4) ** 2) - ((Y + 9.8) / 1.4) ** 2)
    red *= paint.redness * (0.7 + 0.6 * smooth_noise(X * 1.3 + 9.0, Y * 1.3 + s)) + 1.2 * paint.blush * (1.0 if a > 2.4 else 0.3)
    colour = colour[0] * (1.0 + 0.10 * red), colour[1] * (1.0 - 0.20 * red), colour[2] * (1.0 - 0.16 * red)
    ring = np.exp(-(((a - face.eye_x) / 1.8) ** 2) - ((Y + 0.35) / 1.1) ** 2) * (0.10 + 0.14 * face.age)
    colour = colour[0] * (1.0 - ring), colour[1] * (1.0 - 1.3 * ring), colour[2] * (1.0 - 1.2 * ring)
    if paint.freckles > 0.0:
        f = np.exp(-(((a - 3.2) / 3.4) ** 2) - ((Y + 2.6) / 2.4) ** 2)
        i, j = int(np.floor(X * 2.6 + 500)), int(np.floor(Y * 2.6 + 500))
        u, v = X * 2.6 + 500 - i - 0.25 - 0.5 * hash2(i, j), Y * 2.6 + 500 - j - 0.25 - 0.5 * hash2(j, i + 7)
        if hash2(i + int(s), j) < 0.75 * f * paint.freckles and u * u + v * v < 0.05:
            colour = colour[0] * 0.74, colour[1] * 0.60, colour[2] * 0.52
    if paint.stubble > 0.0:
        d = paint.stubble * beard_area(X, Y) * (0.75 + 0.5 * hash2(int(X * 11.0 + 900), int(Y * 11.0 + 900)))
        colour = _mix(colour, (paint.beard[0] * 0.7 + 0.03, paint.beard[1] * 0.7 + 0.03, paint.beard[2] * 0.7 + 0.035), min(0.6 * d, 0.85))
    wrinkle = 0.0
    if face.age > 0.25:
        k = (face.age - 0.25) * 1.3
        if 3.0 < Y < 6.4 and a < 5.0:
            wave = np.sin(Y * 5.2 + 1.6 * smooth_noise(X * 0.5 + s, 3.0))
            wrinkle += k * 0.4 * wave * smooth_step(5.0, 3.0, a) * smooth_step(3.0, 3.6, Y)
        f = np.exp(-(((a - face.eye_x - 2.4) / 0.8) ** 2) - ((Y + 0.2) / 1.1) ** 2)
        wrinkle += k * 0.45 * f * np.sin((Y + 0.2) / (0.35 + 0.25 * abs(a - face.eye_x - 1.2)) * 3.0)
    shine = paint.oil * (0.5 + np.exp(-((X / 2.0) ** 2)) * 0.8)
    return colour, shine, wrinkle


@numba.njit(**SHADING)
def lip_colour(q, t, is_upper, paint):
    """Albedo and shine of a lip; t is 0 at the line between the lips .. 1 at the outer edge."""
    colour = _mix(paint.lip, paint.skin, 0.35 * smooth_step(0.7, 1.0, t) * (1.0 - paint.lipstick))
    lines = 0.93 + 0.14 * smooth_noise(q * 26.0 + 50.0, t * 1.5 + (3.0 if is_upper else 9.0))
    dark = 0.62 + 0.38 * smooth_step(0.0, 0.25, t)
    return _times(colour, lines * dark), 0.35 + 0.5 * paint.lipstick


@numba.njit(**SHADING)
def mouth_colour(q, v, height):
    """Albedo inside the mouth: teeth, tongue and dark; v is 0 at the upper .. 1 at the lower lip, `height` centimetres between them."""
    top, low = v * height, (1.0 - v) * height
    x = q * 2.6
    side = 1.0 - 0.55 * smooth_step(0.45, 0.95, abs(q))
    shade = 0.55 + 0.45 * smooth_step(0.0, 0.25, top)
    if top < 0.85 - 0.25 * q * q:
        gap = abs(x - np.floor(x / 0.62 + 0.5) * 0.62 - 0.31)
        line = 0.82 + 0.18 * smooth_step(0.0, 0.05, min(gap, abs(gap - 0.62)))
        k = side * shade * line
        return 0.78 * k, 0.73 * k, 0.64 * k
    if low < 0.28 - 0.1 * q * q and height > 0.9:
        return 0.55 * side, 0.50 * side, 0.44 * side
    if low < 1.2 and abs(q) < 0.62:
        k = 0.35 + 0.5 * smooth_step(1.2, 0.3, low)
        return 0.34 * k, 0.09 * k, 0.08 * k
    return 0.045, 0.012, 0.012
