"""What a scene draws once: its sky as a picture (gradient, sun glow, soft clouds) and the camera's tone curve."""

from __future__ import annotations

import numba
import numpy as np

from frustum.worlds.street.jit import SHADING
from frustum.worlds.street.types import Look

SKY_SIZE = 512
SKY_REACH = 1.1  # stereographic radius at the border; the horizon lies at 1
TONE_SIZE = 4096
TONE_SCALE = 1448.0  # table index = TONE_SCALE * sqrt(exposed value), which resolves the shadows; the last entry is at 8


def draw_tone() -> np.ndarray:
    """Tone curve (TONE_SIZE,) float32: exposed linear light to display value 0..255, filmic shoulder and display gamma."""
    value = (np.arange(TONE_SIZE) / TONE_SCALE) ** 2
    filmic = value * (2.51 * value + 0.03) / (value * (2.43 * value + 0.59) + 0.14)  # Narkowicz's fit of the ACES curve
    return (255 * np.clip(filmic, 0, 1) ** (1 / 2.2)).astype(np.float32)


@numba.njit(**SHADING)
def _add_octaves(tables, x, y, out):  # tables (octaves, 64, 64) float32; x, y, out (N,): sum of the tables, each at twice the frequency
    for n in range(x.shape[0]):
        total, weight, scale = 0.0, 1.0, 1.0
        for octave in range(tables.shape[0]):
            u, v = x[n] * scale, y[n] * scale
            i, j = int(np.floor(u)), int(np.floor(v))
            p, q = u - i, v - j
            i, j, k, l = i & 63, j & 63, (i + 1) & 63, (j + 1) & 63
            table = tables[octave]
            near = table[i, j] * (1.0 - q) + table[i, l] * q
            far = table[k, j] * (1.0 - q) + table[k, l] * q
            total += weight * (near * (1.0 - p) + far * p)
            weight *= 0.5
            scale *= 2.0
        out[n] = total / (2.0 - 2.0 * weight)


def _octaves(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, octaves: int = 5) -> np.ndarray:
    """Fractal noise in 0..1 at positions x, y (N,), period 64."""
    tables = np.stack([rng.random((64, 64)).astype(np.float32) for _ in range(octaves)])
    result = np.empty_like(x)
    _add_octaves(tables, x, y, result)
    return result


def draw_sky(look: Look) -> np.ndarray:
    """Sky radiance (SKY_SIZE, SKY_SIZE, 3) float32, linear RGB.

    Texel (i, j) shows the direction whose stereographic position is p = ((i, j) + 0.5) / SKY_SIZE * 2 SKY_REACH - SKY_REACH, with
    direction = (2 p, 1 - |p|^2) / (1 + |p|^2): the zenith in the middle, the horizon on the unit circle. What lies well outside is never
    looked up and has the horizon's colour.
    """
    rng = np.random.default_rng([look.seed, 77])
    axis = ((np.arange(SKY_SIZE) + 0.5) / SKY_SIZE * 2 - 1) * SKY_REACH
    px, py = np.meshgrid(axis.astype(np.float32), axis.astype(np.float32), indexing="ij")
    shown = px * px + py * py < 1.02**2
    px, py = px[shown], py[shown]
    square = px * px + py * py
    direction = np.stack([2 * px, 2 * py, 1 - square], -1) / (1 + square)[..., None]
    height = np.clip(direction[..., 2], 0, 1)
    zenith, horizon = (np.array(c, np.float32) for c in (look.sky_zenith, look.sky_horizon))
    sky = horizon + (zenith - horizon) * (1 - np.exp(-3.2 * height))[..., None]
    # Clouds on a flat layer overhead; they thin out towards the horizon where the haze takes over.
    cover = rng.uniform(0.35, 0.75)
    scale, shift = rng.uniform(1.5, 3.0), rng.uniform(0, 64, 2)
    plane = direction[..., :2] / (height + 0.12)[..., None] * scale
    density = _octaves(rng, plane[..., 0] + shift[0], plane[..., 1] + shift[1])
    cloud = np.clip((density - (1 - 0.62 * cover)) / 0.16, 0, 1)
    cloud = cloud * cloud * (3 - 2 * cloud) * np.clip(height / 0.12, 0, 1) * 0.85
    sun = np.array(look.sun_direction, np.float32)
    facing = np.clip(direction @ sun, 0, 1)
    sun_colour = np.array(look.sun_colour, np.float32)
    white = 0.55 * sun_colour + 0.45 * horizon * 1.1
    shade = (0.42 + 0.33 * facing + 0.25 * np.clip((0.75 - density) / 0.3, 0, 1))[..., None]
    level = max(float(horizon.mean()), float(zenith.mean()))
    white = white / max(float(white.mean()), 1e-6) * level * 1.5
    sky = sky * (1 - cloud[..., None]) + white * shade * cloud[..., None]
    glow = 0.35 * facing**8 + 0.9 * facing**64
    disc = np.where(facing > 0.9995, 12.0, 0.0) * (1 - cloud)
    sky = sky + (glow * (1 - 0.6 * cloud) + disc)[..., None] * sun_colour * (0.5 * level / max(float(sun_colour.mean()), 1e-6))
    picture = np.empty((SKY_SIZE, SKY_SIZE, 3), np.float32)
    picture[:] = horizon
    picture[shown] = sky
    return picture
