"""The 68 landmarks of iBUG 300-W, from the chart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from frustum.worlds.heads.paint import Face, brow_line, lids, lip_edges
from frustum.worlds.heads.raster import project
from frustum.worlds.heads.skull import LIP_GAP, LIP_LINE, grid_place, points_at

_JAW = ((-9.2, -0.4), (-9.1, -2.4), (-9.0, -4.4), (-8.6, -6.2), (-7.6, -8.0), (-6.0, -9.4), (-4.2, -10.4), (-2.2, -11.0), (0.0, -11.2))
_INSIDE = 0.93  # eye corners and lip corners lie a little inside what is painted


def chart_places(face: Face) -> np.ndarray:
    """(68, 2) chart positions."""
    places: list[tuple[float, float]] = [*_JAW, *((-x, y) for x, y in reversed(_JAW[:-1]))]
    for side, ts in ((-1, (0.98, 0.74, 0.5, 0.26, 0.04)), (1, (0.04, 0.26, 0.5, 0.74, 0.98))):
        places += [(side * (face.eye_x - 1.75 + 3.75 * t), brow_line(t, face)[0]) for t in ts]
    tip, wide = face.nose_tip, face.nose_width
    places += [(0.0, 0.2 + (tip - 0.2) * k / 3.0) for k in range(4)]
    places += [(x * wide, tip - 0.85) for x in (-1.3, -0.65, 0.0, 0.65, 1.3)]

    def eye(side: int, order: tuple[tuple[float, int], ...]) -> list[tuple[float, float]]:
        opened = face.open_left if side > 0 else face.open_right
        found = []
        for q, edge in order:
            low, top = lids(q, face.eye_high, opened, face.squint)
            y = 0.5 * (low + top) if edge == 0 else (top - 0.08 * (top - low) if edge > 0 else low + 0.08 * (top - low))
            found.append((side * (face.eye_x + q * face.eye_half), y + face.eye_tilt * q * 0.5))
        return found

    places += eye(-1, ((_INSIDE, 0), (0.35, 1), (-0.35, 1), (-_INSIDE, 0), (-0.35, -1), (0.35, -1)))
    places += eye(1, ((-_INSIDE, 0), (-0.35, 1), (0.35, 1), (_INSIDE, 0), (0.35, -1), (-0.35, -1)))

    def lip(q: float, is_upper: bool, share: float) -> tuple[float, float]:
        up, low = lip_edges(q, face)
        y = (LIP_GAP + share * up) if is_upper else (-LIP_GAP + share * low)
        return q * face.mouth_half, LIP_LINE + y

    outer = [(-_INSIDE, True), (-0.6, True), (-0.22, True), (0.0, True), (0.22, True), (0.6, True), (_INSIDE, True)]
    places += [lip(q, up, 0.5 if abs(q) == _INSIDE else 0.92) for q, up in outer]
    places += [lip(q, False, 0.92) for q in (0.6, 0.28, 0.0, -0.28, -0.6)]
    places += [lip(q, True, 0.05) for q in (-0.8, -0.4, 0.0, 0.4, 0.8)] + [lip(q, False, 0.05) for q in (0.4, 0.0, -0.4)]
    return np.array(places)


def landmarks(
    own: np.ndarray, face: Face, place: Callable[[np.ndarray], np.ndarray], camera: np.ndarray, depths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(68, 2) float32 positions in sub-pixels, and (68,) whether each is seen."""
    points = place(points_at(own, grid_place(chart_places(face))))
    screen = np.empty_like(points)
    project(points, camera, screen)
    at = np.floor(screen[:, :2]).astype(int)
    is_inside = ((at >= 0) & (at < depths.shape[0])).all(1)
    at = np.clip(at, 0, depths.shape[0] - 1)
    nearest = depths[at[:, 1], at[:, 0]]
    return screen[:, :2].astype(np.float32), is_inside & (screen[:, 2] < nearest + 0.6)
