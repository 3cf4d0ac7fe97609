"""A scene at one instant: where its actors are and what shadows they throw."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.spatial.transform import Rotation

from frustum.geometry import invert
from frustum.types.classes import OCC3D_OF_CATEGORY
from frustum.worlds.street.arrays import BRICK, Actors, Models, World, pack_models, pack_world
from frustum.worlds.street.culling import box_corners_global
from frustum.worlds.street.kernels_light import Light, splat_actors, splat_static
from frustum.worlds.street.sky import draw_sky, draw_tone
from frustum.worlds.street.types import Scene, Track

GENERAL_ID = {name: i for i, name in enumerate(OCC3D_OF_CATEGORY)}


def track_poses(tracks: list[Track], time: float) -> np.ndarray:
    """Poses (A, 4, 4) of all tracks at `time`: `Track.pose` for many at once."""
    poses = np.stack([t.poses[0] for t in tracks]).astype(np.float64) if tracks else np.zeros((0, 4, 4))
    rows, nexts, shares = [], [], []
    for row, track in enumerate(tracks):
        if len(track.times) > 1:
            t = min(max(time, float(track.times[0])), float(track.times[-1]))
            i = min(max(int(np.searchsorted(track.times, t, "right")) - 1, 0), len(track.times) - 2)
            poses[row] = track.poses[i]
            rows.append(row)
            nexts.append(track.poses[i + 1])
            shares.append((t - track.times[i]) / (track.times[i + 1] - track.times[i]))
    if rows:
        here, there, share = poses[rows], np.stack(nexts), np.array(shares)[:, None]
        start = Rotation.from_matrix(here[:, :3, :3])
        turn = (start.inv() * Rotation.from_matrix(there[:, :3, :3])).as_rotvec()
        poses[rows, :3, :3] = (start * Rotation.from_rotvec(turn * share)).as_matrix()
        poses[rows, :3, 3] = (1 - share) * here[:, :3, 3] + share * there[:, :3, 3]
    return poses


class Stage:
    """A packed scene that can be set to any time.

    Attributes:
        world, models, light: packed arrays; `light`'s maps always belong to `time`.
        actors: actor poses at `time`.
        corners: (A, 8, 3) corners of the actors' model grids, global frame.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.world: World = pack_world(scene)
        self.models: Models = pack_models(scene.models)
        self.time = float("nan")
        model = np.array([a.model for a in scene.actors], np.int64)
        self._model = model
        self._low = self.models.origin[model].reshape(-1, 3)
        self._high = self._low + self.models.shape[model].reshape(-1, 3) * self.models.cell[model].reshape(-1, 1)
        self._category = np.array([GENERAL_ID[a.category] for a in scene.actors], np.uint8)
        self._ident = np.array([a.id for a in scene.actors], np.uint16)
        self._tint = np.array([a.tint for a in scene.actors], np.float32).reshape(-1, 3)
        self._moving = np.array([a.moving for a in scene.actors], bool)
        self.light = self._draw_light()
        self._set_actors(0.0)
        # Whoever stands still throws its shadow once and for all.
        self._splat(np.nonzero(~self._moving)[0])
        self._still_shadow, self._still_contact = self.light.shadow.copy(), self.light.contact.copy()
        self._patched = np.zeros((0, 8), np.int64)

    def set_time(self, time: float) -> None:
        """Move all actors to `time` seconds and redraw the shadows of those that move."""
        if time == self.time:
            return
        self._set_actors(time)
        for u0, u1, v0, v1, i0, i1, j0, j1 in self._patched:
            self.light.shadow[u0:u1, v0:v1] = self._still_shadow[u0:u1, v0:v1]
            self.light.contact[i0:i1, j0:j1] = self._still_contact[i0:i1, j0:j1]
        self._patched = self._splat(np.nonzero(self._moving)[0])
        self.time = time

    def _set_actors(self, time: float) -> None:
        self.poses = track_poses([a.track for a in self.scene.actors], time)
        to_model = invert(self.poses)
        size = self.models.cell[self._model].reshape(-1, 1, 1)
        to_cells = to_model[:, :3] / size
        to_cells[:, :, 3] -= self._low / size[:, :, 0]
        self.actors = Actors(
            model=self._model,
            to_cells=np.ascontiguousarray(to_cells),
            rotation=np.ascontiguousarray(self.poses[:, :3, :3]),
            category=self._category,
            ident=self._ident,
            tint=self._tint,
        )
        self.corners = box_corners_global(self._low, self._high, self.poses)

    def _draw_light(self) -> Light:
        look, world = self.scene.look, self.world
        sun = np.array(look.sun_direction, np.float64)
        sun = sun / np.linalg.norm(sun)
        rise = max(float(sun[2]), 0.08)  # a lower sun would need an endless map
        kx, ky = float(sun[0]) / rise, float(sun[1]) / rise
        reach_x, reach_y = kx * world.bz * BRICK, ky * world.bz * BRICK
        light = Light(
            sun=sun,
            sun_colour=np.array(look.sun_colour, np.float64),
            ambient=np.array(look.ambient, np.float64),
            sky=draw_sky(look),
            shadow=np.full((int(world.nx + abs(reach_x)) + 3, int(world.ny + abs(reach_y)) + 3), -1e9, np.float32),
            contact=np.zeros((world.nx, world.ny), np.float32),
            kx=kx,
            ky=ky,
            offset_x=max(reach_x, 0.0) + 1.0,
            offset_y=max(reach_y, 0.0) + 1.0,
            haze=float(look.haze),
            exposure=float(look.exposure),
            noise=float(look.noise),
            tone=draw_tone(),
        )
        splat_static(world, light, light.contact)
        width = max(1, round(0.7 / world.cell)) * 2 + 1
        light.contact[:] = 0.85 * uniform_filter(uniform_filter(light.contact, width), width)
        return light

    def _splat(self, rows: np.ndarray) -> np.ndarray:
        """Draw the shadows of actors `rows`; returns the patched rectangles (R, 8) of the shadow and the contact map."""
        world, light = self.world, self.light
        cells = (self.corners[rows] - world.origin) / world.cell  # (R, 8, 3)

        def ranges(x: np.ndarray, y: np.ndarray, margin: float, limit: tuple[int, ...]) -> list[np.ndarray]:
            bounds = [x.min(1) - margin, x.max(1) + margin + 1, y.min(1) - margin, y.max(1) + margin + 1]
            top = [limit[0], limit[0], limit[1], limit[1]]
            return [np.clip(b, 0, t).astype(np.int64) for b, t in zip(bounds, top, strict=True)]

        if not len(rows):
            return np.zeros((0, 8), np.int64)
        u = cells[..., 0] - cells[..., 2] * light.kx + light.offset_x
        v = cells[..., 1] - cells[..., 2] * light.ky + light.offset_y
        around = ranges(cells[..., 0], cells[..., 1], 0.8 / world.cell, light.contact.shape)
        rectangles = np.stack(ranges(u, v, 1.0, light.shadow.shape) + around, 1)
        splat_actors(world, self.models, self.actors, light, rows.astype(np.int64), rectangles)
        return rectangles
