"""Where a head stands before the camera, and the buffers that it is drawn into."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from frustum.worlds.heads.motion import Motion
from frustum.worlds.heads.parts import Threads
from frustum.worlds.heads.raster import draw_grid, draw_threads, grid_normals, project

NECK_JOINT = np.array([0.0, -8.0, -2.5])
"""Where the head turns, in its own frame and, before it moves, the world's."""


def rotation(motion: Motion) -> np.ndarray:
    """(3, 3) from the head's frame to the world's."""
    (cy, sy), (cx, sx), (cz, sz) = ((np.cos(a), np.sin(a)) for a in (motion.yaw, motion.pitch, motion.roll))
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    roll = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    return roll @ yaw @ pitch


class Pose(NamedTuple):
    """From the head's frame to the world's: turned about the neck's joint, then moved."""

    turn: np.ndarray
    move: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3)."""
        return (points - NECK_JOINT) @ self.turn.T + (NECK_JOINT + self.move)


class Canvas:
    """Depth, part and surface of every sub-pixel.

    Args:
        size: height and width in sub-pixels.
        camera: (4,) focal length, middle column and row in sub-pixels, distance from the origin in centimetres.
        with_surface: keep chart and normal too.
    """

    def __init__(self, size: int, camera: np.ndarray, with_surface: bool = True):
        self.camera = camera
        self.depths = np.full((size, size), 1e9, np.float32)
        self.parts = np.zeros((size, size), np.uint8)
        self.surface = np.zeros((size, size, 5) if with_surface else (1, 1, 0), np.float32)

    def mesh(self, part: int, points: np.ndarray, values: np.ndarray, columns: int) -> None:
        """Draw a grid of points (N, 3) in the camera's frame with `columns` columns and values (N, 5)."""
        screen = np.empty_like(points)
        project(points, self.camera, screen)
        if not self.surface.shape[2]:
            values = values[:, :0]
        draw_grid(screen, values, len(points) // columns, columns, part, self.depths, self.parts, self.surface)

    def threads(self, threads: Threads) -> None:
        """Draw threads in the camera's frame."""
        flat = threads.points.reshape(-1, 3)
        screen = np.empty_like(flat)
        project(flat, self.camera, screen)
        draw_threads(
            screen.reshape(threads.points.shape), threads.points, threads.width, threads.part, threads.tone, self.camera[0], self.depths,
            self.parts, self.surface,
        )  # fmt: skip


def surface_values(points: np.ndarray, chart: np.ndarray, is_closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """World points (R, C, 3) flat, and their (N, 5) values: chart and normal."""
    rows, columns = points.shape[:2]
    flat = np.ascontiguousarray(points.reshape(-1, 3))
    normals = np.empty_like(flat)
    grid_normals(flat, rows, columns, is_closed, normals)
    return flat, np.concatenate([chart.reshape(-1, 2), normals], axis=1)
