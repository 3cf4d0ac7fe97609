"""A small database made with the writer: two cameras, a LiDAR, moving boxes, sweeps, labels for the first scene only."""

from __future__ import annotations

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
from frustum.data.nuscenes.writer import DatabaseWriter
from frustum.data.occ3d.label_files import labels_path, write_labels
from frustum.data.sample import Occupancy
from frustum.geometry import pose, rotation_xyz, rotation_z

VERSION = "v1.0-toy"
SIZE = (90, 160)
SHAPE = (200, 200, 16)
CAMERA_AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # camera x right, y down, z forward in a forward, left, up frame
CAM2EGO = {
    "CAM_FRONT": pose(CAMERA_AXES, np.array([1.7, 0.0, 1.5])),
    "CAM_BACK": pose(rotation_z(np.pi) @ CAMERA_AXES, np.array([0.0, 0.1, 1.6])),
}
INTRINSICS = np.array([[126.6, 0, 80], [0, 126.6, 45], [0, 0, 1]])
LIDAR2EGO = pose(rotation_z(-np.pi / 2), np.array([0.94, 0.0, 1.84]))
START = 1_600_000_000_000_000
APART = 20_000_000  # between the scenes' first keyframes: the devkit cannot list scenes that start together


def ego2global(scene: int, time: int) -> np.ndarray:
    """Ego pose at `time` microseconds after the start: turning, climbing, pitching."""
    t = time / 1e6
    return pose(rotation_xyz(0.02, -0.03 + 0.01 * t, 0.3 * scene + 0.1 * t), np.array([100.0 + 8 * t, 50.0 * scene + t, 0.5 * t]))


def box2global(scene: int, time: int) -> np.ndarray:
    """A car that drives at (6, 2, 0.1) m/s."""
    t = time / 1e6
    return pose(rotation_z(0.3 * scene + 0.2), np.array([115.0 + 6 * t, 50.0 * scene + 2 * t + 3, 1.0 + 0.1 * t]))


def coordinate_image(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 whose red encodes the column and green the row, smoothly."""
    rows, columns = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5, indexing="ij")
    blue = np.full(size, 128.0)
    return np.stack([columns / size[1] * 255, rows / size[0] * 255, blue], -1).round().astype(np.uint8)


def random_labels(seed: int, shape: tuple[int, int, int] = SHAPE) -> Occupancy:
    """Sparse random semantics, masks and instances."""
    rng = np.random.default_rng(seed)
    semantics = np.where(rng.random(shape) < 0.05, rng.integers(0, 17, shape), 17).astype(np.uint8)
    lidar = rng.random(shape) < 0.2
    camera = lidar & (rng.random(shape) < 0.7)
    return Occupancy(semantics, lidar.astype(np.uint8), camera.astype(np.uint8), (semantics < 11).astype(np.uint8))


def scene_record(root: Path, scene: int, num_keyframes: int = 3, fingerprint: str = "", num_sweeps: int = 1) -> SceneRecord:
    """Write the files of one scene and describe them; `num_sweeps` lie between two keyframes."""
    name = f"scene-{scene + 1:04d}"
    rng, start = np.random.default_rng(scene), START + scene * APART

    def files(time: int, folder: str) -> tuple[SampleDataRecord, ...]:
        records = []
        for i, channel in enumerate(CAM2EGO):
            stamp = start + time + 8000 * (i + 1)
            filename = f"{folder}/{channel}/{name}__{channel}__{stamp}.png"
            (root / filename).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(coordinate_image(SIZE)).save(root / filename)
            records.append(SampleDataRecord(channel, stamp, filename, ego2global(scene, time + 8000 * (i + 1)), SIZE))
        filename = f"{folder}/LIDAR_TOP/{name}__LIDAR_TOP__{start + time}.pcd.bin"
        (root / filename).parent.mkdir(parents=True, exist_ok=True)
        points = np.concatenate([rng.uniform(-30, 30, (400, 2)), rng.uniform(-2, 2, (400, 1)), rng.integers(0, 32, (400, 2))], 1)
        points.astype(np.float32).tofile(root / filename)
        segments = panoptic = None
        if folder == "samples":
            segments, panoptic = (f(VERSION, name, "LIDAR_TOP", start + time) for f in (lidarseg_file, panoptic_file))
            for relative in (segments, panoptic):
                (root / relative).parent.mkdir(parents=True, exist_ok=True)
            np.full(400, 17, np.uint8).tofile(root / segments)
            np.savez_compressed(root / panoptic, data=np.full(400, 17001, np.uint16))
        return (*records, SampleDataRecord("LIDAR_TOP", start + time, filename, ego2global(scene, time), (0, 0), segments, panoptic))

    keyframes = []
    for k in range(num_keyframes):
        time = 500_000 * k
        boxes = [AnnotationRecord("car-1", "vehicle.car", box2global(scene, time), (4.5, 1.9, 1.6), 3, "vehicle.moving", 12)]
        boxes.append(AnnotationRecord("cone", "movable_object.trafficcone", box2global(scene, 0), (0.4, 0.5, 1.0), num_lidar_pts=0))
        if k == 0:
            boxes.append(AnnotationRecord("once", "animal", box2global(scene, 0), (1.0, 0.5, 0.5), 1, num_lidar_pts=2))
        keyframes.append(KeyframeRecord(start + time, files(time, "samples"), tuple(boxes)))
        if scene == 0:
            write_labels(labels_path(root, name, sample_token(name, start + time)), random_labels(k))
    steps = num_sweeps + 1
    between = [500_000 * k // steps for k in range(steps * (num_keyframes - 1)) if k % steps]
    sweeps = [record for time in between for record in files(time, "sweeps")]
    sensors = [SensorRecord(channel, "camera", matrix, INTRINSICS) for channel, matrix in CAM2EGO.items()]
    sensors.append(SensorRecord("LIDAR_TOP", "lidar", LIDAR2EGO))
    return SceneRecord(name, tuple(sensors), tuple(keyframes), tuple(sweeps), "a toy", fingerprint=fingerprint)


def add_scene(root: Path, scene: int, num_keyframes: int, num_sweeps: int = 1) -> None:
    """What a worker process does."""
    DatabaseWriter(root, VERSION).add_scene(scene_record(root, scene, num_keyframes, num_sweeps=num_sweeps))


def toy_database(root: Path, num_scenes: int = 2, num_keyframes: int = 3, num_sweeps: int = 1) -> Path:
    """Write a whole database: train is every scene but the last, val the last."""
    writer = DatabaseWriter(root, VERSION)
    for scene in range(num_scenes):
        add_scene(root, scene, num_keyframes, num_sweeps)
    names = writer.scenes()
    writer.finish({"train": names[:-1], "val": names[-1:]})
    return root
