"""From the standard head to a person's: bumps on the chart, a nose, an opening mouth, and the stretch of the whole."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from frustum.worlds.heads.motion import Motion
from frustum.worlds.heads.person import Shape
from frustum.worlds.heads.skull import LIP_GAP, LIP_LINE, skull
from frustum.worlds.street.jit import INLINE, KERNEL

EYE = (3.15, 0.0)  # chart position of the left eye's middle
EYE_HALF = (1.62, 0.70)  # half its width and height when it is open
BROW_Y = 2.05
MOUTH_HALF = 2.45
NOSE_TIP = -4.05
JAW_ANGLE = 0.30  # radians of a wide open mouth
HINGE = (-1.5, -0.5)  # y, z of the jaw's axis


def bumps(shape: Shape, motion: Motion) -> np.ndarray:
    """(N, 7) float64: middle and half widths on the chart, and the move in x, y, z (centimetres) that fades away from there."""
    eye_x, mouth = EYE[0] * shape.eye_spacing, MOUTH_HALF * shape.mouth_width
    smile, pucker, tip = motion.smile, motion.pucker, NOSE_TIP * shape.nose_length
    narrow = 1.0 - 0.3 * pucker
    middle = [  # in the middle of the face
        (0.0, 1.2, 1.1, 1.3, 0.0, 0.0, -0.35),  # the root of the nose
        (0.0, -1.4 * shape.nose_length, 0.75, 1.0, 0.0, 0.0, shape.nose_bridge),
        (0.0, tip + 0.1, 0.85 * shape.nose_width, 0.75, 0.0, 0.0, 0.3),
        (0.0, -5.75, 0.4, 0.5, 0.0, 0.0, -0.14),  # philtrum
        (0.0, -6.3, 3.4, 1.7, 0.0, 0.0, 0.42),  # teeth carry the mouth
        (0.0, LIP_LINE + 0.42, mouth * 0.9 * narrow, 0.42, 0.0, 0.0, 0.36 * shape.upper_lip + 0.3 * pucker),
        (0.0, LIP_LINE - 0.55, mouth * 0.8 * narrow, 0.5, 0.0, 0.0, 0.42 * shape.lower_lip + 0.3 * pucker),
        (0.0, LIP_LINE, mouth, 0.16, 0.0, 0.0, -0.2),
        (0.0, -8.55, 2.3, 0.6, 0.0, 0.0, -0.42),
        (0.0, -9.9, 2.0, 1.2, 0.0, -0.25, 0.75 + shape.chin),
        (0.0, LIP_LINE + 0.4, mouth, 0.7, 0.0, 0.12 * smile, -0.1 * smile),
        (0.0, LIP_LINE - 0.5, mouth, 0.7, 0.0, -0.05 * smile, -0.1 * smile),
    ]
    sides = [  # of the left half; mirrored below
        (eye_x, 0.25, 2.1, 1.5, 0.0, 0.0, -1.0),  # socket
        (eye_x, -0.05, 1.5, 0.85, 0.0, 0.0, 0.55),  # the eyeball under its lids
        (eye_x - 0.3, BROW_Y - 0.1, 2.6, 0.8, 0.0, 0.0, 0.25 + shape.brow_ridge),
        (1.2 * shape.nose_width, tip - 0.2, 0.55, 0.55, 0.18, 0.0, 0.75),  # wing of the nose
        (4.6, -2.3, 2.0, 1.5, 0.35, 0.0, 0.2 + shape.cheekbones),
        (4.7, -5.6, 2.2, 2.2, 0.5 * shape.fullness, 0.0, shape.fullness),
        (8.0, 3.2, 2.2, 2.2, -0.35, 0.0, 0.0),  # temple
        (mouth, LIP_LINE, 0.5, 0.5, 0.0, 0.0, -0.18),
        (mouth, LIP_LINE, 1.3, 1.2, 0.55 * smile - 0.75 * pucker, 0.75 * smile, -0.4 * smile + 0.35 * pucker),
        (mouth + 0.9, LIP_LINE + 0.6, 0.7, 1.1, 0.0, 0.0, 0.22 * max(smile, 0.0)),  # the fold beside a smile
        (3.7, -3.4, 1.7, 1.2, 0.15 * smile, 0.25 * smile, 0.4 * max(smile, 0.0)),
        (1.2 * shape.nose_width, tip, 0.8, 0.9, 0.2 * smile, 0.12 * smile, 0.0),
        (eye_x, BROW_Y + 0.3, 2.2, 1.0, 0.0, 0.12 * motion.brow_raise, 0.0),
    ]
    fold = 0.10 + 0.14 * shape.age + 0.2 * max(smile, 0.0)
    for k in range(5):  # from the wing of the nose to the corner of the mouth
        t = k / 4.0
        sides.append(
            (1.75 + (mouth + 0.35 - 1.75) * t, tip - 0.3 + (LIP_LINE - 0.3 - tip) * t, 0.42, 0.6, 0.0, 0.0, -fold * (1.0 - 0.4 * t))
        )
    mirrored = [(-cx, cy, sx, sy, -dx, dy, dz) for cx, cy, sx, sy, dx, dy, dz in sides]
    return np.array([*middle, *sides, *mirrored])


@numba.njit(**INLINE)
def smooth_step(low, high, x):
    """0 below `low`, 1 above `high`, smooth between; `low` may be the larger one."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@numba.njit(**INLINE)
def stretch(x, y, z, shape):
    """A point of the standard head moved to where this person has it: (x, y, z)."""
    jaw = 1.0 + (shape.jaw_width - 1.0) * smooth_step(-1.0, -8.0, y)
    x *= shape.width * jaw
    z *= shape.depth
    y *= shape.face_length if y < 0.0 else shape.height
    return x, y, z


def floats(value: Any) -> Any:
    """A NamedTuple of numbers and colours with floats only: one type, so that kernels are compiled once."""
    return type(value)(*(tuple(map(float, v)) if isinstance(v, tuple) else float(v) for v in value))


@numba.njit(**KERNEL)
def nose_height(X, Y, length, width):
    """How far the nose stands out of the face, centimetres, at a chart position."""
    top, tip = 1.1, NOSE_TIP * length
    if top < Y or tip - 1.05 > Y:
        return 0.0
    t = min((top - Y) / (top - tip), 1.0)
    height = 2.35 * t * (0.45 + 0.55 * t)
    if tip > Y:
        d = (tip - Y) / 1.05
        height *= max(1.0 - d * d, 0.0)
    w = (0.62 + 0.42 * t * t) * (0.5 + 0.5 * width)
    q = X / w
    return height * np.exp(-0.5 * q * q * (1.0 + 0.3 * q * q))


@numba.njit(**KERNEL)
def sculpt(points, chart, table, shape, mouth, jaw, out):
    """Fill `out` (R, C, 3) with a person's head.

    Args:
        points, chart: the standard head.
        table: bumps.
        shape: a Shape.
        mouth: half the mouth's width on the chart.
        jaw: angle by which the jaw is open, radians.
    """
    for i in range(points.shape[0]):
        for j in range(points.shape[1]):
            X, Y = chart[i, j, 0], chart[i, j, 1]
            x, y, z = points[i, j, 0], points[i, j, 1], points[i, j, 2]
            if abs(X) < 13.0:
                for k in range(table.shape[0]):
                    u, v = (X - table[k, 0]) / table[k, 2], (Y - table[k, 1]) / table[k, 3]
                    d = u * u + v * v
                    if d < 6.0:
                        w = np.exp(-d)
                        x += w * table[k, 4]
                        y += w * table[k, 5]
                        z += w * table[k, 6]
                if abs(X) < 3.5:
                    z += shape.nose_height * nose_height(X, Y, shape.nose_length, shape.nose_width)
                w = smooth_step(-3.5, -9.5, Y)  # how much of the jaw's turn this point makes
                q = X / mouth
                if q * q < 1.0:
                    below = min(max((LIP_LINE + LIP_GAP - Y) / (2.0 * LIP_GAP), 0.0), 1.0)
                    w += (below * (0.85 + 0.15 * smooth_step(-7.0, -9.5, Y)) - w) * np.sqrt(1.0 - q * q) * smooth_step(-3.5, -5.5, Y)
                w *= jaw * smooth_step(13.0, 8.0, abs(X))
                c, s = np.cos(w), np.sin(w)
                dy, dz = y - HINGE[0], z - HINGE[1]
                y, z = c * dy - s * dz + HINGE[0], s * dy + c * dz + HINGE[1]
            out[i, j, 0], out[i, j, 1], out[i, j, 2] = stretch(x, y, z, shape)


def head_points(shape: Shape, motion: Motion) -> np.ndarray:
    """(R, C, 3) float64: a person's head in its own frame, with the expression."""
    standard = skull()
    out = np.empty_like(standard.points)
    mouth = MOUTH_HALF * shape.mouth_width
    sculpt(standard.points, standard.chart, bumps(shape, motion), floats(shape), mouth, JAW_ANGLE * motion.jaw, out)
    return out


@numba.njit(**KERNEL)
def _stretch_many(points, shape, out):
    for i in range(points.shape[0]):
        out[i, 0], out[i, 1], out[i, 2] = stretch(points[i, 0], points[i, 1], points[i, 2], shape)


def stretch_all(points: np.ndarray, shape: Shape) -> np.ndarray:
    """Points (..., 3) of the standard head where this person has them."""
    out = np.empty_like(points)
    _stretch_many(np.ascontiguousarray(points).reshape(-1, 3), floats(shape), out.reshape(-1, 3))
    return out
