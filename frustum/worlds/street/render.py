"""SceneRenderer: cameras, LiDAR and labels of one street scene at any time and pose, all from the same exact geometry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np

from frustum.data.sample import Occupancy
from frustum.errors import ConfigError
from frustum.geometry import VoxelGrid
from frustum.types.classes import OCC3D_FREE
from frustum.worlds.street.arrays import pack_surfaces
from frustum.worlds.street.culling import TILE, pixel_table, sector_lists, sector_of, tile_lists
from frustum.worlds.street.jit import forget_stale
from frustum.worlds.street.kernels_cast import ACTOR, HORIZON_SECTORS, RINGS, cast_rays, meet_actors, tile_starts
from frustum.worlds.street.kernels_labels import mark_hits, passed_by_beams, seen_through
from frustum.worlds.street.kernels_shade import shade
from frustum.worlds.street.labels import Frame, LabelRules, instance_ids
from frustum.worlds.street.lidar import LidarPattern, Sweep, strength
from frustum.worlds.street.materials import GENERAL_OF_MATERIAL
from frustum.worlds.street.moment import Stage
from frustum.worlds.street.types import Actor, Ground, Look, Scene, Track, VoxelModel
from frustum.worlds.street.visibility import visibility_levels

__all__ = ["Hits", "LidarPattern", "SceneRenderer", "Shot", "Sweep", "warm_up"]

FAR_CAMERA = 400.0  # metres
HIT_REACH = 60.0  # metres to which accumulated sweeps are cast
SKY_ID = 255
_FACES = np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1], [0, 0, 1]], np.float64)


@dataclass(frozen=True)
class Shot:
    """What one camera sees. Pixel (row i, column j) looks through (j + .5, i + .5).

    Attributes:
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) float32 metres along the optical axis, 0 = sky.
        category: (H, W) uint8 general class id, 255 = sky.
        instance: (H, W) uint16 actor id, 0 = none.
    """

    image: np.ndarray
    depth: np.ndarray
    category: np.ndarray
    instance: np.ndarray


@dataclass(frozen=True)
class Hits:
    """What N rays met.

    Attributes:
        distance: (N,) float32 in multiples of the ray's direction, 0 = nothing.
        kind: (N,) uint8, see kernels_cast.
        face: (N,) uint8: 0..5 = -x +x -y +y -z +z of the cell (actors: of their own grid), 6 = ground surface.
        material: (N,) uint8.
        actor: (N,) int16 row in Scene.actors, -1 = none.
        model_cell: (N,) int32 flat cell of the actor's model.
    """

    distance: np.ndarray
    kind: np.ndarray
    face: np.ndarray
    material: np.ndarray
    actor: np.ndarray
    model_cell: np.ndarray

    @classmethod
    def empty(cls, n: int) -> Hits:
        """Room for N rays."""
        return cls(
            np.empty(n, np.float32),
            np.empty(n, np.uint8),
            np.empty(n, np.uint8),
            np.empty(n, np.uint8),
            np.empty(n, np.int16),
            np.empty(n, np.int32),
        )

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The fields in order, as the kernels take them."""
        return self.distance, self.kind, self.face, self.material, self.actor, self.model_cell


@cache
def _check_kernels() -> None:
    """Once per process: drop compiled kernels that are older than their sources."""
    forget_stale(Path(cast_rays.stats.cache_path), Path(__file__).parent.glob("*.py"))


class SceneRenderer:
    """Renders one scene.

    Args:
        scene: what to render.
        backend: `numba` casts rays with compiled kernels; `torch` with the slow, readable reference (shading stays the same).

    Not thread-safe: it moves its actors to the time of each call.
    """

    def __init__(self, scene: Scene, backend: Literal["numba", "torch"] = "numba") -> None:
        if backend not in ("numba", "torch"):
            raise ConfigError(f"unknown renderer backend {backend!r}: use 'numba' or 'torch'.")
        _check_kernels()
        self.scene, self.backend = scene, backend
        self.stage = Stage(scene)
        self.surfaces = pack_surfaces()
        self.rules = LabelRules()
        self._horizon = np.empty((HORIZON_SECTORS, RINGS), np.float32)
        self._tables: dict[tuple[LidarPattern, int], tuple[np.ndarray, np.ndarray]] = {}
        self._recent: dict[tuple, Hits] = {}  # what the sensors met last, for the masks
        self._still: dict[tuple, Hits] = {}  # what thinned-out sweeps meet of all that stands still

    def cast(
        self, sensor2global: np.ndarray, table: np.ndarray, group: np.ndarray, first: np.ndarray, items: np.ndarray, far: float,
        begin: np.ndarray | None = None,
    ) -> Hits:  # fmt: skip
        """Cast rays with directions `table` (N, 3) float32 from a sensor into the scene as it stands at the time set last.

        `group`, `first`, `items` and `begin` narrow the search, see kernels_cast.cast_rays.
        """
        stage, pose = self.stage, np.ascontiguousarray(sensor2global, np.float64)
        if self.backend == "torch":
            from frustum.worlds.street.reference import cast_reference

            return Hits(*cast_reference(self.scene, stage.poses, pose, table, far))
        begin = np.zeros(len(first) - 1) if begin is None else begin
        hits = Hits.empty(len(table))
        cast_rays(
            stage.world, stage.models, stage.actors, pose, table, group, first, items, begin, float(far), self._horizon, *hits.arrays()
        )
        return hits

    def camera(self, intrinsics: np.ndarray, cam2global: np.ndarray, size: tuple[int, int], time: float) -> Shot:
        """Photograph the scene.

        Args:
            intrinsics: (3, 3) in pixels.
            cam2global: (4, 4).
            size: (height, width).
            time: seconds from the start of the scene.
        """
        stage, pose = self.stage, np.ascontiguousarray(cam2global, np.float64)
        hits = self._cast_camera(intrinsics, pose, size, time)
        table, _ = pixel_table(intrinsics, size)
        image = np.empty((len(table), 3), np.uint8)
        pixel = 1.0 / float(intrinsics[0, 0])
        self.stage.set_time(time)  # the rays may have been recalled; shadows have to be of this time
        shade(
            stage.world, stage.models, stage.actors, self.surfaces, stage.light, pose, table, pixel, int(size[1]),
            self._noise_seed(pose, time), image, *hits.arrays(),
        )  # fmt: skip
        category, instance = self._names(hits)
        return Shot(image.reshape(*size, 3), hits.distance.reshape(size), category.reshape(size), instance.reshape(size))

    def _cast_camera(self, intrinsics: np.ndarray, pose: np.ndarray, size: tuple[int, int], time: float) -> Hits:
        """Cast all pixels of a camera."""
        intrinsics = np.ascontiguousarray(intrinsics, np.float64)

        def cast() -> Hits:
            table, tile = pixel_table(intrinsics, size)
            first, items, _ = tile_lists(self.stage.corners, intrinsics, pose, size)
            begin = np.empty(len(first) - 1)
            tile_starts(self.stage.world, pose, table, int(size[1]), TILE, begin)
            return self.cast(pose, table, tile, first, items, FAR_CAMERA, begin)

        return self._recall((intrinsics.tobytes(), pose.tobytes(), tuple(size), time), cast)

    def _cast_sweep(self, pose: np.ndarray, pattern: LidarPattern, time: float) -> Hits:
        """Cast all beams of one turn."""

        def cast() -> Hits:
            table, sector = self._beams(pattern, 1)
            return self.cast(pose, table, sector, *sector_lists(self.stage.corners, pose, pattern.far), pattern.far)

        return self._recall((pattern, pose.tobytes(), time), cast)

    def _cast_thinly(self, pose: np.ndarray, pattern: LidarPattern) -> tuple[np.ndarray, Hits]:
        """Cast some columns of a turn at the time set last, for the masks: directions and hits.

        Several keyframes ask for the same place, so what stands still there is met once and remembered.
        """
        table, sector = self._beams(pattern, self.rules.hit_every)
        reach = min(pattern.far, HIT_REACH)
        first, items = sector_lists(self.stage.corners, pose, reach)
        if self.backend == "torch":
            return table, self.cast(pose, table, sector, first, items, reach)
        key = (pattern, pose.tobytes())
        if key not in self._still:
            while len(self._still) >= 32:
                self._still.pop(next(iter(self._still)))
            self._still[key] = self.cast(pose, table, sector, np.zeros_like(first), items, reach)
        hits = Hits(*(a.copy() for a in self._still[key].arrays()))
        meet_actors(self.stage.models, self.stage.actors, pose, table, sector, first, items, reach, *hits.arrays())
        return table, hits

    def _recall(self, key: tuple, cast: Callable[[], Hits]) -> Hits:
        """What `cast` returned for `key` (which ends in the time) a moment ago, or cast now: labels need the same rays as pictures."""
        if key not in self._recent:
            self.stage.set_time(key[-1])
            while len(self._recent) >= 12:
                self._recent.pop(next(iter(self._recent)))
            self._recent[key] = cast()
        return self._recent[key]

    def lidar(self, lidar2global: np.ndarray, time: float, pattern: LidarPattern | None = None) -> Sweep:
        """One turn of a LiDAR that stands still at `lidar2global` (4, 4). Misses are dropped.

        Points lie 0.2 mm inside the surface they hit, so that a point of an actor lies inside its box.
        """
        pattern = pattern or LidarPattern.nuscenes()
        stage = self.stage
        stage.set_time(time)
        pose = np.ascontiguousarray(lidar2global, np.float64)
        table, _ = self._beams(pattern, 1)
        hits = self._cast_sweep(pose, pattern, time)
        kept = np.nonzero(hits.distance >= pattern.near)[0]
        hits = Hits(*(a[kept] for a in hits.arrays()))
        table, ring = table[kept].astype(np.float64), kept % len(pattern.elevations)
        normal = self._normals(hits) @ pose[:3, :3]  # sensor frame
        points = table * hits.distance[:, None].astype(np.float64) - 2e-4 * normal
        intensity = strength(table, hits.distance, normal, self.surfaces.reflectivity[hits.material])
        category, instance = self._names(hits)
        return Sweep(np.column_stack([points, intensity, ring]).astype(np.float32), category, instance)

    def occupancy(
        self,
        ego2global: np.ndarray,
        time: float,
        grid: VoxelGrid,
        cameras: Sequence[tuple[np.ndarray, np.ndarray, tuple[int, int]]] = (),
        lidar_origins: Sequence[np.ndarray] = (),
        pattern: LidarPattern | None = None,
    ) -> Occupancy:
        """Labels, masks and instances of `grid` at the full ego pose (4, 4); `labels` says precisely what they mean.

        Args:
            ego2global: (4, 4); the grid pitches and rolls with it.
            time: seconds.
            grid: usually VoxelGrid.occ3d().
            cameras: (intrinsics (3, 3), cam2global (4, 4), (height, width)) of each camera at `time`.
            lidar_origins: lidar2global (4, 4) of the accumulated sweeps; the first one is the keyframe's own.
            pattern: beams; nuScenes' by default.
        """
        stage, frame, rules = self.stage, Frame(grid, ego2global), self.rules
        stage.set_time(time)
        semantics, owner = frame.semantics(stage, rules)
        mask_lidar = np.zeros(grid.shape, np.uint8)
        pattern = pattern or LidarPattern.nuscenes()
        for number, lidar2global in enumerate(lidar_origins):
            pose = np.ascontiguousarray(lidar2global, np.float64)
            if number > 0:  # of the accumulated sweeps only what they hit inside the grid matters
                self._mark(frame, pose, *self._cast_thinly(pose, pattern), semantics, mask_lidar)
            else:
                table, _ = self._beams(pattern, 1)
                hits = self._cast_sweep(pose, pattern, time)
                self._mark(frame, pose, table, hits, semantics, mask_lidar)
                grid2lidar = np.ascontiguousarray(np.linalg.inv(frame.global2grid @ pose)[:3])
                passed_by_beams(grid2lidar, *pattern.borders(), hits.distance, pattern.far, OCC3D_FREE, semantics, mask_lidar)
        seen = np.zeros(grid.shape, np.uint8)
        for intrinsics, cam2global, size in cameras:
            pose = np.ascontiguousarray(cam2global, np.float64)
            hits = self._cast_camera(intrinsics, pose, size, time)
            self._mark(frame, pose, pixel_table(intrinsics, size)[0], hits, semantics, seen)
            k = np.asarray(intrinsics, np.float64)
            grid2camera = np.ascontiguousarray(np.linalg.inv(frame.global2grid @ pose)[:3])
            lens = (float(k[0, 0]), float(k[0, 1]), float(k[0, 2]), float(k[1, 1]), float(k[1, 2]))
            seen_through(grid2camera, *lens, hits.distance.reshape(size), OCC3D_FREE, semantics, mask_lidar, seen)
        return Occupancy(semantics, mask_lidar, seen & mask_lidar, instance_ids(semantics, owner))

    def _mark(self, frame: Frame, pose: np.ndarray, table: np.ndarray, hits: Hits, semantics: np.ndarray, seen: np.ndarray) -> None:
        stage = self.stage
        turn = np.ascontiguousarray(frame.global2grid[:3, :3])
        mark_hits(
            stage.models, stage.actors, stage.world.cell, frame.from_sensor(pose), turn, table,
            hits.distance, hits.kind, hits.face, hits.actor, OCC3D_FREE, semantics, seen,
        )  # fmt: skip

    def visibility(
        self,
        ids: Sequence[int],
        time: float,
        views: Mapping[str, tuple[np.ndarray, np.ndarray, tuple[int, int]]],
        shots: Mapping[str, Shot],
    ) -> list[int]:
        """nuScenes visibility levels of actors `ids`: 1..4 = 0-40, 40-60, 60-80, 80-100 % of their pixels visible; 0 = not one pixel.

        The share counts, over all cameras, the pixels that show the actor among those that would if nothing stood before it, on a grid
        of pixels inside each image (at most about 400 per actor and camera).

        Args:
            ids: Actor.id.
            time: seconds; where the actors stand. Cameras that fired earlier are compared at this time, too.
            views: channel -> (intrinsics, cam2global, size).
            shots: channel -> what that camera took.
        """
        self.stage.set_time(time)
        return visibility_levels(self.stage, list(ids), [(*views[name], shots[name].instance) for name in views])

    def _beams(self, pattern: LidarPattern, every: int) -> tuple[np.ndarray, np.ndarray]:
        """Directions and sectors of every `every`-th column of a pattern."""
        key = (pattern, every)
        if key not in self._tables:
            table = pattern.directions().reshape(pattern.num_azimuths, -1, 3)[::every].reshape(-1, 3)
            table = np.ascontiguousarray(table)
            self._tables[key] = (table, sector_of(table))
        return self._tables[key]

    def _names(self, hits: Hits) -> tuple[np.ndarray, np.ndarray]:
        """General class id (N,) uint8, 255 = nothing, and actor id (N,) uint16 of hits."""
        category = np.where(hits.distance > 0, GENERAL_OF_MATERIAL[hits.material], SKY_ID).astype(np.uint8)
        instance = np.zeros(len(category), np.uint16)
        rows = np.nonzero(hits.kind == ACTOR)[0]
        category[rows] = self.stage.actors.category[hits.actor[rows]]
        instance[rows] = self.stage.actors.ident[hits.actor[rows]]
        return category, instance

    def _normals(self, hits: Hits) -> np.ndarray:
        """Unit face normals (N, 3) in the global frame; the ground counts as level."""
        normal = _FACES[hits.face]
        rows = np.nonzero(hits.kind == ACTOR)[0]
        normal[rows] = np.einsum("nij,nj->ni", self.stage.actors.rotation[hits.actor[rows]], normal[rows])
        return normal

    def _noise_seed(self, pose: np.ndarray, time: float) -> int:
        """A number that differs between scenes, moments and cameras, and is the same in every process."""
        parts = [self.scene.look.seed, round(time * 1e4), *(round(float(v) * 1e3) for v in pose[:3, 2]), round(float(pose[0, 3]) * 1e2)]
        value = 17
        for part in parts:
            value = (value * 1000003 + part) % 0x7FFFFFF
        return value


def warm_up() -> float:
    """Compile every kernel, or load it from numba's cache, on a scene of a few metres; returns the seconds it took.

    Call it before workers are started: the first process pays about 20 seconds once per machine, all others a fraction of one.
    """
    start = perf_counter()
    ground = Ground(np.zeros((9, 9), np.float32), np.zeros((8, 8), np.float32), np.ones((16, 16), np.uint8), 0.2, (0.0, 0.0))
    cells = np.zeros((8, 8, 8), np.uint8)
    cells[5] = 1
    pose = np.eye(4)
    pose[:3, 3] = 0.8, 0.8, 0.0
    track = Track(np.zeros(1), pose[None])
    actor = Actor(1, "vehicle.car", 0, (0.2, 0.2, 0.2), (1.0, 1.0, 1.0), track, False)
    model = VoxelModel(np.ones((2, 2, 2), np.uint8), 0.1, (-0.1, -0.1, 0.0))
    look = Look((0.0, 0.6, 0.8), (1.0,) * 3, (0.5,) * 3, (0.3,) * 3, (0.5,) * 3, 0.001, 1.0, 0.01, 0)
    static = VoxelModel(cells, 0.2, (0.0, 0.0, -0.2))
    renderer = SceneRenderer(Scene("warm-up", 0, ground, static, (model,), (actor,), track, look, 1.0))
    sensor = np.eye(4)
    sensor[:3, 3] = 0.3, 0.3, 1.0
    camera = (np.array([[8.0, 0, 4], [0, 8, 4], [0, 0, 1]]), sensor, (8, 8))
    shot = renderer.camera(*camera, 0.0)
    renderer.lidar(sensor, 0.0, LidarPattern((-0.5, 0.0), 8))
    grid = VoxelGrid(lower=(0, 0, -0.4), upper=(1.6, 1.6, 1.2), cell=(0.4, 0.4, 0.4))
    renderer.occupancy(np.eye(4), 0.0, grid, [camera], [sensor, sensor], LidarPattern((-0.5, 0.0), 8))
    renderer.visibility([1], 0.0, {"camera": camera}, {"camera": shot})
    return perf_counter() - start
