"""How much of an actor the cameras see, as nuScenes grades it."""

from __future__ import annotations

import numba
import numpy as np

from frustum.worlds.street.arrays import Actors, Models
from frustum.worlds.street.culling import image_rectangles, pixel_table
from frustum.worlds.street.jit import KERNEL
from frustum.worlds.street.kernels_cast import FAR, cast_actor
from frustum.worlds.street.moment import Stage

SAMPLES = 20  # pixels per axis of an actor's rectangle that are tested


@numba.njit(**KERNEL)
def _count(models: Models, actors: Actors, rows, rectangles, pose, table, instance, visible, alone):
    """Add to visible (R,) and alone (R,) the tested pixels that show each actor, and that would show it if it were alone."""
    width = instance.shape[1]
    for n in range(rows.shape[0]):
        r0, r1, c0, c1 = rectangles[n, 0], rectangles[n, 1], rectangles[n, 2], rectangles[n, 3]
        if r1 <= r0:
            continue
        a = rows[n]
        down, right = (r1 - r0 + SAMPLES - 1) // SAMPLES, (c1 - c0 + SAMPLES - 1) // SAMPLES
        weight = down * right
        for i in range(r0 + down // 2, r1, down):
            for j in range(c0 + right // 2, c1, right):
                p = i * width + j
                x, y, z = table[p, 0], table[p, 1], table[p, 2]
                ex = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z
                ey = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z
                ez = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z
                t, _, _, _ = cast_actor(models, actors, a, pose[0, 3], pose[1, 3], pose[2, 3], ex, ey, ez, FAR)
                if t < FAR:
                    alone[n] += weight
                    if instance[i, j] == actors.ident[a]:
                        visible[n] += weight


def visibility_levels(stage: Stage, ids: list[int], views: list[tuple[np.ndarray, np.ndarray, tuple[int, int], np.ndarray]]) -> list[int]:
    """Levels 0..4 of actors `ids`, see SceneRenderer.visibility; views are (intrinsics, cam2global, size, instance image)."""
    row_of = {int(ident): row for row, ident in enumerate(stage.actors.ident)}
    rows = np.array([row_of[i] for i in ids], np.int64)
    visible, alone = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    shown, seen = np.zeros(len(rows), bool), np.zeros(np.iinfo(np.uint16).max + 1, bool)
    for intrinsics, cam2global, size, instance in views:
        pose = np.ascontiguousarray(cam2global, np.float64)
        rectangles = image_rectangles(stage.corners[rows], np.asarray(intrinsics, np.float64), pose, size)
        table, _ = pixel_table(intrinsics, size)
        _count(stage.models, stage.actors, rows, rectangles, pose, table, instance, visible, alone)
        seen[:] = False
        seen[instance] = True
        shown |= seen[stage.actors.ident[rows]]
    share = visible / np.maximum(alone, 1)
    level = 1 + (share[:, None] >= np.array([0.4, 0.6, 0.8])).sum(1)
    return [int(v) for v in np.where(shown, level, 0)]
