"""The small car that marks the ego vehicle in pictures of voxels, as convex pieces."""

from __future__ import annotations

import numpy as np


def _prism(profile: list[tuple[float, float]], y0: float, y1: float, taper: float = 0.0) -> np.ndarray:
    """Planes (P, 4) `n . p <= c` of a side profile (x, z), counter-clockwise, between y0 and y1; `taper` leans the sides in with height."""
    planes = []
    for (x0, z0), (x1, z1) in zip(profile, profile[1:] + profile[:1], strict=True):
        normal = np.array([z1 - z0, 0.0, x0 - x1])
        normal /= np.linalg.norm(normal)
        planes.append([*normal, normal @ (x0, 0.0, z0)])
    bottom = min(z for _, z in profile)
    for sign, y in ((-1.0, y0), (1.0, y1)):
        normal = np.array([0.0, sign, taper]) / np.hypot(1, taper)
        planes.append([*normal, normal @ (0.0, y, bottom)])
    return np.array(planes)


def ego_shape(ground: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The car in the ego frame, rear axle at x = 0, standing at height `ground`; no car for None.

    Returns:
        planes (P, 4), starts of the pieces (Q + 1,) int64, RGB per piece (Q, 3).
    """
    if ground is None:
        return np.zeros((0, 4)), np.zeros(1, np.int64), np.zeros((0, 3))
    paint, glass, tyre, lamp, tail = (250, 250, 252), (42, 52, 68), (30, 32, 36), (255, 244, 200), (220, 40, 40)
    body = [(-0.95, 0.32), (3.55, 0.32), (3.75, 0.55), (3.68, 0.80), (2.55, 0.98), (-0.98, 0.98), (-1.08, 0.75)]
    glasshouse = [(-0.80, 0.96), (2.45, 0.96), (1.55, 1.50), (-0.35, 1.50)]
    roof = [(-0.42, 1.47), (1.62, 1.47), (1.50, 1.56), (-0.30, 1.56)]
    lamps, tails = [(3.60, 0.60), (3.76, 0.60), (3.72, 0.76), (3.60, 0.76)], [(-1.10, 0.70), (-0.98, 0.70), (-0.98, 0.86), (-1.08, 0.86)]
    pieces = [
        (_prism(body, -0.93, 0.93, 0.10), paint),
        (_prism(glasshouse, -0.80, 0.80, 0.25), glass),
        (_prism(roof, -0.70, 0.70, 0.25), paint),
    ]
    pairs = [(lamps, 0.42, 0.84, lamp), (tails, 0.40, 0.86, tail)]
    for x in (0.0, 2.75):
        angles = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        pairs.append(([(x + 0.36 * float(np.cos(a)), 0.36 + 0.36 * float(np.sin(a))) for a in angles], 0.72, 0.97, tyre))
    for profile, inner, outer, rgb in pairs:  # on the right and on the left
        pieces += [(_prism(profile, -outer, -inner), rgb), (_prism(profile, inner, outer), rgb)]
    planes = np.concatenate([p for p, _ in pieces])
    planes[:, 3] += planes[:, 2] * ground
    starts = np.concatenate([[0], np.cumsum([len(p) for p, _ in pieces])]).astype(np.int64)
    return planes, starts, np.array([rgb for _, rgb in pieces], np.float64)
