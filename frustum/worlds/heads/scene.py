"""Where a head is: light, background, and the body that it sits on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numba
import numpy as np

from frustum.worlds.heads.light import Light
from frustum.worlds.heads.parts import Build
from frustum.worlds.heads.person import Colour
from frustum.worlds.heads.shape import smooth_step
from frustum.worlds.street.jit import SHADING
from frustum.worlds.street.kernels_texture import hash2, smooth_noise

NECKLINES = ("crew", "vee", "scoop", "shirt", "turtle")
BACKDROPS = ("studio", "lights", "room", "outside", "stripes")


class Dress(NamedTuple):
    """The body's colours: skin, clothes in two colours, jewellery.

    `pattern` is 0 plain, 1 rings, 2 stripes, 3 checks, 4 dots, 5 jacket over a shirt; `period` its size, centimetres.
    """

    skin: Colour = (0.80, 0.62, 0.50)
    colour: Colour = (0.2, 0.3, 0.5)
    second: Colour = (0.8, 0.8, 0.8)
    metal: Colour = (0.9, 0.75, 0.4)
    pattern: int = 0
    period: float = 3.0


class Backdrop(NamedTuple):
    """The background: one of BACKDROPS by number, three colours (sRGB), and a seed."""

    kind: int = 0
    first: Colour = (0.55, 0.58, 0.62)
    second: Colour = (0.30, 0.32, 0.38)
    third: Colour = (0.8, 0.7, 0.5)
    seed: int = 0


@dataclass(frozen=True)
class Scene:
    """All of a picture that is not the head.

    Attributes:
        light, dress, build, backdrop: see their types. Colours of clothes and skin are sRGB.
        neckline: one of NECKLINES.
        necklace: how deep it hangs, centimetres; 0 for none.
        body_turn: radians, positive to the person's left.
        distance: of the camera, centimetres.
    """

    light: Light = field(default_factory=Light)
    dress: Dress = field(default_factory=Dress)
    build: Build = field(default_factory=Build)
    backdrop: Backdrop = field(default_factory=Backdrop)
    neckline: str = "crew"
    necklace: float = 0.0
    body_turn: float = 0.0
    distance: float = 95.0


def neckline_heights(kind: str) -> np.ndarray:
    """(64,) height at which the clothes begin, around the body from the back over the person's right, centimetres in the world."""
    theta = np.linspace(-np.pi, np.pi, 65)[:-1]
    front = (0.5 + 0.5 * np.cos(theta)) ** 2
    sharp = np.clip(1.0 - np.abs(theta) / 0.75, 0.0, 1.0)
    return {
        "crew": -15.1 - 1.2 * front,
        "vee": -14.9 - 0.6 * front - 5.0 * sharp,
        "scoop": -16.0 - 3.2 * front,
        "shirt": -13.0 - 0.6 * front - 3.6 * np.clip(1.0 - np.abs(theta) / 0.42, 0.0, 1.0),
        "turtle": -12.0 - 0.4 * front,
    }[kind]


@numba.njit(**SHADING)
def draw_backdrop(kind, first, second, third, seed, out):
    """Fill `out` (H, W, 3) float32 with a linear background that is out of focus."""
    H, W = out.shape[0], out.shape[1]
    for row in range(H):
        y = (row + 0.5) / H
        for column in range(W):
            x = (column + 0.5) / W
            k = 0.0
            m = 0.0
            if kind == 0:
                dx, dy = x - 0.35 - 0.3 * hash2(seed, 1), y - 0.3
                k = smooth_step(0.05, 0.9, np.sqrt(dx * dx + dy * dy)) + 0.12 * (smooth_noise(x * 3.0 + seed, y * 3.0) - 0.5)
            elif kind == 1:
                k = 0.75 + 0.5 * (smooth_noise(x * 2.0 + seed, y * 2.0) - 0.5)
                for n in range(22):
                    dx, dy = x - hash2(n, seed), y - hash2(seed, n + 50)
                    r = 0.02 + 0.06 * hash2(n + 7, seed + 3)
                    d = np.sqrt(dx * dx + dy * dy)
                    m += smooth_step(r, r * 0.8, d) * (0.25 + 0.5 * hash2(n, seed + 9)) * (0.8 + 0.3 * smooth_step(r * 0.5, r * 0.8, d))
            elif kind == 2:
                soft = 0.03
                a, b = 0.08 + 0.3 * hash2(seed, 2), 0.5 + 0.4 * hash2(seed, 3)
                window = smooth_step(a - soft, a + soft, x) * smooth_step(b + soft, b - soft, x) * smooth_step(0.62 + soft, 0.62 - soft, y)
                bar = smooth_step(0.022, 0.008, abs(x - 0.5 * (a + b)))
                m = window * (1.0 - 0.7 * bar)
                k = 0.35 + 0.35 * y + 0.15 * (smooth_noise(x * 4.0 + seed, y * 4.0) - 0.5)
                shelf = y * 5.0 + 0.3
                if x > b + 0.04:
                    books = hash2(int(x * 26.0), int(shelf) + seed)
                    edge = smooth_step(0.06, 0.16, shelf - np.floor(shelf))
                    k += (books - 0.4) * edge * smooth_step(b + 0.04, b + 0.09, x)
            elif kind == 3:
                n = smooth_noise(x * 5.0 + seed, y * 5.0) * 0.6 + smooth_noise(x * 11.0, y * 11.0 + seed) * 0.4
                horizon = 0.45 + 0.2 * hash2(seed, 4) + 0.12 * (smooth_noise(x * 3.0, seed + 0.5) - 0.5)
                m = smooth_step(horizon + 0.06, horizon - 0.10, y) * (0.9 - 0.3 * y)
                k = n * 1.2 - 0.1
            else:
                angle = 6.2832 * hash2(seed, 5)
                p = x * np.cos(angle) + y * np.sin(angle)
                k = 0.5 + 0.5 * np.sin(p * (10.0 + 25.0 * hash2(seed, 6)))
                k = smooth_step(0.2, 0.8, k) * 0.7 + 0.3 * y
            k, m = min(max(k, 0.0), 1.0), min(max(m, 0.0), 1.0)
            for n in range(3):
                v = first[n] + (second[n] - first[n]) * k
                out[row, column, n] = 1.6 * (v + (third[n] - v) * m)
