"""A small world in which images, LiDAR, boxes and labels agree, by exact ray casting; tests of the data check break it on purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from frustum.data.nuscenes.records import AnnotationRecord, KeyframeRecord, SampleDataRecord, SceneRecord, SensorRecord, sample_token
from frustum.data.nuscenes.writer import DatabaseWriter
from frustum.data.occ3d.label_files import labels_path, write_labels
from frustum.data.sample import Occupancy
from frustum.geometry import VoxelGrid, pose, rotation_z

VERSION = "v1.0-mini"
SIZE = (200, 400)
INTRINSICS = np.array([[300.0, 0, 200], [0, 300.0, 100], [0, 0, 1]])
AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
CAM2EGO = {
    "CAM_FRONT": pose(AXES, np.array([1.5, 0.0, 1.6])),
    "CAM_FRONT_LEFT": pose(rotation_z(0.9) @ AXES, np.array([1.4, 0.4, 1.6])),
}
LIDAR2EGO = pose(rotation_z(-np.pi / 2), np.array([0.9, 0.0, 1.9]))
START = 1_500_000_000_000_000
FRAMES = 3


def objects() -> np.ndarray:
    """Upright boxes (M, 6): centre and size in metres, the global frame; scattered around the path, standing on the ground."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(26):
        angle, radius = rng.uniform(-0.6, 1.6), 7.0 + 0.9 * i
        size = rng.uniform([0.5, 0.5, 0.9], [1.6, 1.6, 2.6])
        rows.append([radius * np.cos(angle), radius * np.sin(angle), size[2] / 2 + 0.05, *size])
    return np.array(rows)


def cast(origin: np.ndarray, rays: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance along each ray (R, 3), infinite for none, and what it hits: object number, -1 ground, -2 nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ground = np.where(rays[:, 2] < 0, -origin[2] / rays[:, 2], np.inf)
        low = (boxes[:, None, :3] - boxes[:, None, 3:] / 2 - origin) / rays
        high = (boxes[:, None, :3] + boxes[:, None, 3:] / 2 - origin) / rays
    enter, leave = np.minimum(low, high).max(-1), np.maximum(low, high).min(-1)
    hit = np.where((enter < leave) & (enter > 0), enter, np.inf)
    nearest = hit.argmin(0)
    distance = hit.min(0)
    what = np.where(distance < ground, nearest, np.where(np.isfinite(ground), -1, -2))
    return np.minimum(distance, ground), what


def ego2global(frame: int) -> np.ndarray:
    return pose(np.eye(3), np.array([0.7 * frame, 0.1 * frame, 0.0]))


def photograph(frame: int, channel: str) -> np.ndarray:
    """(H, W, 3) uint8: every object in its own grey."""
    camera2global = ego2global(frame) @ CAM2EGO[channel]
    rows, columns = np.indices(SIZE) + 0.5
    rays = np.stack([columns, rows, np.ones(SIZE)], -1).reshape(-1, 3) @ np.linalg.inv(INTRINSICS).T @ camera2global[:3, :3].T
    _, what = cast(camera2global[:3, 3], rays, objects())
    grey = np.select([what == -2, what == -1], [210, 110], 20 + (what * 71) % 75)
    return np.repeat(grey.reshape(*SIZE, 1), 3, -1).astype(np.uint8)


def sweep(frame: int) -> np.ndarray:
    """(P, 5) float32 in the LiDAR frame."""
    elevation, azimuth = np.meshgrid(np.radians(np.linspace(-18, 6, 64)), np.arange(1080) * 2 * np.pi / 1080, indexing="ij")
    local = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], -1).reshape(-1, 3)
    lidar2global = ego2global(frame) @ LIDAR2EGO
    distance, _ = cast(lidar2global[:3, 3], local @ lidar2global[:3, :3].T, objects())
    ring = np.repeat(np.arange(64), 1080)
    distance = np.minimum(distance, 55.0)  # a backdrop: against an empty sky the range does not jump
    distance = distance - 0.004  # points lie just outside surfaces: rounding must not put them inside or outside by chance
    points = np.column_stack([local * distance[:, None], np.full(len(local), 30.0), ring])
    return points.astype(np.float32)


def labels(frame: int) -> Occupancy:
    grid = VoxelGrid.occ3d()
    centres = grid.centres().double().numpy() + ego2global(frame)[:3, 3]
    semantics = np.full(grid.shape, 17, np.uint8)
    semantics[np.abs(centres[..., 2]) < 0.2] = 11
    for row in objects():
        semantics[(np.abs(centres - row[:3]) <= row[3:] / 2).all(-1)] = 4
    near = np.linalg.norm(grid.centres().double().numpy()[..., :2], axis=-1) < 30
    seen = near & (grid.centres().numpy()[..., 0] > 0)
    return Occupancy(semantics, near.astype(np.uint8), seen.astype(np.uint8))


def write_consistent(root: Path, frames: int = FRAMES) -> Path:
    """Write the database below `root`; every keyframe has labels."""
    writer = DatabaseWriter(root, VERSION)
    keyframes = []
    for frame in range(frames):
        stamp = START + 500_000 * frame
        data = []
        for channel in CAM2EGO:
            name = f"samples/{channel}/{frame}.png"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photograph(frame, channel)).save(root / name)
            data.append(SampleDataRecord(channel, stamp + 1000, name, ego2global(frame), SIZE))
        name = f"samples/LIDAR_TOP/{frame}.pcd.bin"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        points = sweep(frame)
        points.tofile(root / name)
        data.append(SampleDataRecord("LIDAR_TOP", stamp, name, ego2global(frame)))
        lidar2global = ego2global(frame) @ LIDAR2EGO
        seen = points[:, :3].astype(np.float64) @ lidar2global[:3, :3].T + lidar2global[:3, 3]
        boxes = []
        for i, row in enumerate(objects()):
            size = row[3:] + 0.02
            count = int((np.abs(seen - row[:3]) <= size / 2).all(1).sum())
            boxes.append(AnnotationRecord(f"car-{i}", "vehicle.car", pose(np.eye(3), row[:3]), tuple(size), 4, "vehicle.parked", count))
        keyframes.append(KeyframeRecord(stamp, tuple(data), tuple(boxes)))
        write_labels(labels_path(root, "scene-0001", sample_token("scene-0001", stamp)), labels(frame))
    sensors = [SensorRecord(channel, "camera", matrix, INTRINSICS) for channel, matrix in CAM2EGO.items()]
    writer.add_scene(SceneRecord("scene-0001", (*sensors, SensorRecord("LIDAR_TOP", "lidar", LIDAR2EGO)), tuple(keyframes)))
    writer.finish({"val": ["scene-0001"]})
    return root
