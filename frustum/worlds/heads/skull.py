"""The standard head: a closed grid of points around the skull, and the chart on which a face is sculpted and painted.

Head frame, centimetres: x to the person's left (right in an image of a frontal face), y up, z out of the face; the origin is between the
ears at the height of the eyes. The chart (X, Y) unrolls the head: X is 7.5 times the angle around the vertical axis, Y the height of the
standard head, continued below the jaw. A feature has one place on the chart, whoever the person is and whatever the face does.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

UNROLL = 7.5  # centimetres of X per radian
LIP_LINE = -6.9  # Y at which closed lips meet
LIP_GAP = 0.08  # half the height on the chart of what is between the lips
COLUMNS = 145
_BELOW = 14  # rows under the jaw
_BALLS = (  # centre y, centre z, radii: skull, face, jaw
    (2.7, -1.5, 7.5, 8.8, 9.4),
    (-2.2, 1.4, 6.6, 8.4, 7.0),
    (-5.6, 2.2, 5.0, 5.5, 5.7),
)
_BLEND = 1.6


class Skull(NamedTuple):
    """The standard head's grid; rows go down from the crown, columns around from the back over the person's right to the back again.

    Attributes:
        points: (R, C, 3) float64 positions.
        chart: (R, C, 2) float64 chart coordinates.
    """

    points: np.ndarray
    chart: np.ndarray


def standard_radius(theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Distance of the standard head's surface from the origin in the direction of longitude `theta` and latitude `phi`."""
    direction = np.stack([np.sin(theta) * np.cos(phi), np.sin(phi), np.cos(theta) * np.cos(phi)], axis=-1)
    radius = np.zeros(np.shape(theta))
    for cy, cz, *radii in _BALLS:
        d, c = direction / radii, np.array([0.0, cy, cz]) / radii
        a, b, k = (d * d).sum(-1), (d * c).sum(-1), (c * c).sum() - 1.0
        found = (b + np.sqrt(np.maximum(b * b - a * k, 0.0))) / a
        near = np.maximum(_BLEND - np.abs(radius - found), 0.0)
        radius = np.maximum(radius, found) + near * near / (4.0 * _BLEND)
    return radius


@cache
def skull() -> Skull:
    """The standard head. The lips' two edges are rows of their own, so that a mouth can open between them."""
    u = np.linspace(-1.0, 1.0, COLUMNS)
    theta = np.pi * (0.42 * u + 0.58 * u**3)
    gap = [LIP_LINE + LIP_GAP, LIP_LINE - LIP_GAP]
    heights = [
        *np.linspace(11.2, 4.2, 20), *np.linspace(4.0, -6.0, 54), *np.linspace(-6.12, gap[0], 6), *np.linspace(gap[1], -7.8, 7),
        *np.linspace(-7.95, -9.8, 11),
    ]  # fmt: skip
    phi = np.linspace(-np.pi / 2, np.pi / 2, 1500)
    points, chart = [], []
    for angle in theta:
        y = standard_radius(np.full_like(phi, angle), phi) * np.sin(phi)
        y = np.maximum.accumulate(y)
        rows = np.interp(heights, y, phi)
        low = np.linspace(rows[-1], -np.pi / 2, _BELOW + 1)[1:]
        rows = np.concatenate([[np.pi / 2], rows, low])
        at = np.array([11.6, *heights, *(-9.8 - 0.42 * np.arange(1, _BELOW + 1))])
        radius = standard_radius(np.full_like(rows, angle), rows)
        points.append(
            np.stack([np.sin(angle) * np.cos(rows) * radius, np.sin(rows) * radius, np.cos(angle) * np.cos(rows) * radius], axis=-1)
        )
        chart.append(np.stack([np.full_like(rows, UNROLL * angle), at], axis=-1))
    return Skull(np.ascontiguousarray(np.stack(points, 1)), np.ascontiguousarray(np.stack(chart, 1)))


def grid_place(places: np.ndarray) -> np.ndarray:
    """(N, 2) row and column, fractional, of chart positions (N, 2) on the head's grid."""
    chart = skull().chart  # all columns have the same heights, all rows the same longitudes
    rows = np.interp(-places[:, 1], -chart[:, 0, 1], np.arange(chart.shape[0]))
    return np.stack([rows, np.interp(places[:, 0], chart[0, :, 0], np.arange(chart.shape[1]))], axis=-1)


def points_at(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(N, 3) places of a head's surface (R, C, 3) at rows and columns (N, 2)."""
    i, j = np.minimum(at.astype(int), np.array(points.shape[:2]) - 2).T
    u, v = at[:, :1] - i[:, None], at[:, 1:] - j[:, None]
    upper, lower = points[i, j] * (1 - v) + points[i, j + 1] * v, points[i + 1, j] * (1 - v) + points[i + 1, j + 1] * v
    return upper * (1 - u) + lower * u
