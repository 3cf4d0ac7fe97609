"""Film one street scene: every sensor, every label, every file, and the record that turns them into nuScenes tables."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from frustum.data.nuscenes.records import (
    AnnotationRecord,
    KeyframeRecord,
    SampleDataRecord,
    SceneRecord,
    SensorRecord,
    lidarseg_file,
    panoptic_file,
    sample_token,
)
from frustum.data.occ3d.label_files import append_arrays, write_both_labels
from frustum.files import write_bytes
from frustum.geometry import VoxelGrid
from frustum.ops.box_points import count_points_in_boxes
from frustum.worlds.street.moment import track_poses
from frustum.worlds.street.render import SceneRenderer, Shot, Sweep
from frustum.worlds.street.rigs import StreetRig
from frustum.worlds.street.types import Actor, Scene
from frustum.worlds.street.world_config import WorldConfig


class Filmer:
    """Renders one scene through one rig and writes what it sees below `root`.

    Global coordinates are shifted so that the scene's map begins at (0, 0), where nuScenes' map masks begin.
    """

    def __init__(self, scene: Scene, rig: StreetRig, config: WorldConfig, root: Path, number: int) -> None:
        self.scene, self.rig, self.config, self.root = scene, rig, config, root
        self.renderer = SceneRenderer(scene)
        self.grid = VoxelGrid.occ3d()
        self.start = config.start_stamp(number)
        self.begin = config.camera_spread  # seconds on the scene's clock at the first keyframe: the first camera fires at 0
        self.shift = np.eye(4)
        self.shift[:2, 3] = -np.asarray(scene.ground.origin)
        self._egos: dict[float, np.ndarray] = {}
        self.views = {c.name: c.fitted(*config.image_size) for c in rig.cameras}

    def film(self, on_keyframe: Callable[[], None] = lambda: None) -> SceneRecord:
        """Write all files of the scene and return its record; `on_keyframe` is called after each complete keyframe."""
        sensors = [SensorRecord(c.name, "camera", c.cam2ego.sensor2ego, self.views[c.name][0]) for c in self.rig.cameras]
        sensors.append(SensorRecord("LIDAR_TOP", "lidar", self.rig.lidar.sensor2ego))
        keyframes: list[KeyframeRecord] = []
        sweeps: list[SampleDataRecord] = []
        for index in range(self.config.frames):
            sweeps += self._sweeps_before(index)
            keyframes.append(self._keyframe(self._time(index)))
            on_keyframe()
        return SceneRecord(
            name=self.scene.name,
            sensors=tuple(sensors),
            keyframes=tuple(keyframes),
            sweeps=tuple(sweeps),
            description=self.scene.description,
            fingerprint=self.config.fingerprint(),
        )

    # ---- one moment ---------------------------------------------------------------------------------------------------------

    def _keyframe(self, time: float) -> KeyframeRecord:
        ego = self._ego(time)
        shots = {c.name: self._shoot(c.name, time) for c in self.rig.cameras}
        data = [self._write_shot(name, shot, time, "samples") for name, shot in shots.items()]
        sweep = self.renderer.lidar(ego @ self.rig.lidar.sensor2ego, time)
        data.append(self._write_sweep(sweep, time, ego, "samples", labelled=True))
        self._write_occupancy(time, ego)
        return KeyframeRecord(self._stamp(time), tuple(data), tuple(self._annotations(time, ego, shots, sweep)))

    def _sweeps_before(self, index: int) -> Iterator[SampleDataRecord]:
        """The files between keyframe `index` - 1 and `index`."""
        if index == 0:
            return
        for k in range(1, self.config.sweeps + 1):
            time = self._time(index - 1 + k / (self.config.sweeps + 1))
            for camera in self.rig.cameras:
                yield self._write_shot(camera.name, self._shoot(camera.name, time), time, "sweeps")
            ego = self._ego(time)
            yield self._write_sweep(self.renderer.lidar(ego @ self.rig.lidar.sensor2ego, time), time, ego, "sweeps", labelled=False)

    def _time(self, index: float) -> float:
        """When keyframe `index` is, or a moment between two, in seconds on the scene's clock."""
        return self.begin + index / self.config.rate

    def _ego(self, time: float) -> np.ndarray:
        """Pose (4, 4) of the ego vehicle; every sensor and every neighbour of a keyframe asks for it."""
        if time not in self._egos:
            self._egos[time] = self.scene.ego.pose(time)
        return self._egos[time]

    def _exposure(self, channel: str, time: float) -> float:
        """When a camera fires: all at once, or spread over `camera_spread` seconds before the keyframe, as behind a spinning LiDAR."""
        order = [c.name for c in self.rig.cameras].index(channel)
        share = 1 - order / max(1, len(self.rig.cameras) - 1)
        return time - self.config.camera_spread * share

    def _shoot(self, channel: str, time: float) -> Shot:
        camera = next(c for c in self.rig.cameras if c.name == channel)
        intrinsics, size = self.views[channel]
        when = self._exposure(channel, time)
        return self.renderer.camera(intrinsics, self._ego(when) @ camera.cam2ego.sensor2ego, size, when)

    def _write_occupancy(self, time: float, ego: np.ndarray) -> None:
        cameras = [(self.views[c.name][0], ego @ c.cam2ego.sensor2ego, self.views[c.name][1]) for c in self.rig.cameras]
        occupancy = self.renderer.occupancy(ego, time, self.grid, cameras, self._lidar_poses(time))
        write_both_labels(self.root, self.scene.name, sample_token(self.scene.name, self._stamp(time)), occupancy)

    def _lidar_poses(self, time: float) -> list[np.ndarray]:
        """LiDAR poses whose beams are accumulated for the masks: this keyframe first, then its neighbours in the scene."""
        last = self._time(self.config.frames - 1)
        offsets = [0.0] + [sign * k / self.config.rate for k in range(1, self.config.mask_neighbours + 1) for sign in (-1, 1)]
        return [self._ego(time + d) @ self.rig.lidar.sensor2ego for d in offsets if self.begin - 1e-9 <= time + d <= last + 1e-9]

    def _annotations(self, time: float, ego: np.ndarray, shots: dict[str, Shot], sweep: Sweep) -> Iterator[AnnotationRecord]:
        lidar2global = ego @ self.rig.lidar.sensor2ego
        points = sweep.points[:, :3].astype(np.float64) @ lidar2global[:3, :3].T + lidar2global[:3, 3]
        poses = track_poses([a.track for a in self.scene.actors], time)
        near = np.nonzero(np.linalg.norm(poses[:, :2, 3] - ego[:2, 3], axis=1) < self.config.annotation_range)[0]
        if not len(near):
            return
        actors = [self.scene.actors[row] for row in near]
        poses = _box_poses(actors, poses[near])
        counts = count_points_in_boxes(points, poses, np.array([a.size for a in actors]))
        levels = self.renderer.visibility([a.id for a in actors], time, self._views_at(time), shots)
        for actor, box, count, level in zip(actors, poses, counts, levels, strict=True):
            yield AnnotationRecord(
                instance=f"actor-{actor.id}",
                category=actor.category,
                box2global=self.shift @ box,
                size=actor.size,
                visibility=max(1, int(level)),  # tracked through occlusion, as in nuScenes: 0 points and the lowest level
                attribute=actor.attribute,
                num_lidar_pts=int(count),
            )

    def _views_at(self, time: float) -> dict[str, tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
        views = {}
        for camera in self.rig.cameras:
            ego = self._ego(self._exposure(camera.name, time))
            intrinsics, size = self.views[camera.name]
            views[camera.name] = (intrinsics, ego @ camera.cam2ego.sensor2ego, size)
        return views

    # ---- files --------------------------------------------------------------------------------------------------------------

    def _stamp(self, time: float) -> int:
        return self.start + round(time * 1e6)

    def _file(self, folder: str, channel: str, stamp: int, suffix: str) -> str:
        return f"{folder}/{channel}/{self.scene.name}__{channel}__{stamp}{suffix}"

    def _write_shot(self, channel: str, shot: Shot, time: float, folder: str) -> SampleDataRecord:
        when = self._exposure(channel, time)
        stamp = self._stamp(when)
        name = self._file(folder, channel, stamp, ".jpg")
        write_bytes(self.root / name, _encode(shot.image, "JPEG", quality=self.config.jpeg_quality, subsampling=0))
        for kind in self.config.save:
            extra = self.root / self._file(f"extras/{kind}", channel, stamp, ".png")
            write_bytes(extra, _encode(_as_png(kind, shot), "PNG", compress_level=3))
        return SampleDataRecord(channel, stamp, name, self.shift @ self._ego(when), shot.image.shape[:2])

    def _write_sweep(self, sweep: Sweep, time: float, ego: np.ndarray, folder: str, labelled: bool) -> SampleDataRecord:
        stamp, version, name = self._stamp(time), self.config.version, self.scene.name
        file = self._file(folder, "LIDAR_TOP", stamp, ".pcd.bin")
        write_bytes(self.root / file, np.ascontiguousarray(sweep.points, "<f4").tobytes())
        seg = pan = None
        if labelled:
            seg, pan = lidarseg_file(version, name, "LIDAR_TOP", stamp), panoptic_file(version, name, "LIDAR_TOP", stamp)
            write_bytes(self.root / seg, sweep.category.astype(np.uint8).tobytes())
            write_bytes(self.root / pan, _npz(data=sweep.category.astype(np.uint16) * 1000 + sweep.instance))
        return SampleDataRecord("LIDAR_TOP", stamp, file, self.shift @ ego, lidarseg=seg, panoptic=pan)


def _box_poses(actors: list[Actor], poses: np.ndarray) -> np.ndarray:
    """Centres and orientations (A, 4, 4) of actors' boxes; their model frames (A, 4, 4) stand on the ground."""
    lift = np.tile(np.eye(4), (len(actors), 1, 1))
    lift[:, 2, 3] = [a.size[2] / 2 for a in actors]
    return poses @ lift


def _encode(pixels: np.ndarray, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _npz(**arrays: np.ndarray) -> bytes:
    """An npz in memory, quickly deflated; equal arrays give equal bytes, because every member has the same fixed date."""
    buffer = io.BytesIO()
    append_arrays(buffer, arrays)
    return buffer.getvalue()


def _as_png(kind: str, shot: Shot) -> np.ndarray:
    """Truth images: depth as uint16 in 1/256 m (0 = sky or beyond 255 m), general class ids as uint8 (255 = sky), actor ids as uint16."""
    if kind == "depth":
        return np.where(shot.depth < 255, np.round(shot.depth * 256), 0).astype(np.uint16)
    return shot.category if kind == "semantics" else shot.instance.astype(np.uint16)
