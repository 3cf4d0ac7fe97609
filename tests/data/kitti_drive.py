"""A tiny KITTI raw drive for tests: a flat street with a wall on the left and one car ahead, scanned by exact ray casting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

FRAMES = 12
STEP = 0.5  # metres per frame
HEADING = 0.3  # radians, of the drive in the global frame
CAR_SIZE = np.array([4.0, 1.8, 1.5])  # length, width, height
CAR_AHEAD, CAR_STEP = 9.0, 0.8  # metres ahead of the LiDAR in frame 0, metres per frame
WALL_Y = 7.0
LIDAR_HEIGHT = 1.73
IMU2LIDAR = np.array([-0.81, 0.32, -0.80])
SIZE = (94, 310)  # height, width of the images
FOCAL, CENTRE = 180.0, (152.0, 43.0)
BASELINE = -100.0  # fourth column of P_rect_03
CAM_SHIFT = np.array([0.0, -0.08, -0.27])  # T of velo_to_cam
RINGS, AZIMUTHS = 64, 360
_LAT, _LON, _RADIUS = 49.0, 8.4, 6378137.0


def altitude(frame: int) -> float:
    """A GPS error like those of real drives: decimetres within a second."""
    return 0.25 * np.sin(frame / 3.0)


def car_in_lidar(frame: int) -> np.ndarray:
    """Centre of the car's bottom face in the LiDAR frame."""
    return np.array([CAR_AHEAD + (CAR_STEP - STEP) * frame, -0.5, -LIDAR_HEIGHT + 0.05])


def scan(frame: int) -> np.ndarray:
    """Points (P, 4) float32 in file order: ring after ring from the top, each a counter-clockwise turn."""
    elevation = np.radians(np.linspace(2.0, -24.8, RINGS))[:, None]
    azimuth = (np.arange(AZIMUTHS) + 0.5)[None] * 2 * np.pi / AZIMUTHS
    rays = np.stack(np.broadcast_arrays(np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)), -1)
    rays = rays.reshape(-1, 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        ground = np.where(rays[:, 2] < 0, -LIDAR_HEIGHT / rays[:, 2], np.inf)
        wall = np.where(rays[:, 1] > 0, WALL_Y / rays[:, 1], np.inf)
        wall[(rays[:, 2] * wall > 3.0)] = np.inf
        centre = car_in_lidar(frame) + [0, 0, CAR_SIZE[2] / 2]
        half = CAR_SIZE / 2 - 0.03  # the annotated box is a little larger than the car
        low, high = (centre - half) / rays, (centre + half) / rays
        enter, leave = np.minimum(low, high).max(1), np.maximum(low, high).min(1)
    car = np.where((enter < leave) & (enter > 0), enter, np.inf)
    distance = np.minimum(np.minimum(ground, wall), car)
    keep = distance < 60
    points = rays[keep] * distance[keep, None]
    return np.column_stack([points, np.full(len(points), 0.3)]).astype(np.float32)


def write_drive(root: Path, frames: int = FRAMES, tracklets: bool = True) -> Path:
    """Write `root`/2011_01_01/2011_01_01_drive_0001_sync and return that folder."""
    date = root / "2011_01_01"
    drive = date / "2011_01_01_drive_0001_sync"
    for sensor in ("image_02", "image_03", "oxts", "velodyne_points"):
        (drive / sensor / "data").mkdir(parents=True)
        stamps = [f"2011-01-01 12:00:{frame * 0.1 + (0.01 if 'image' in sensor else 0):012.9f}" for frame in range(frames)]
        (drive / sensor / "timestamps.txt").write_text("\n".join(stamps) + "\n")
    row = " ".join
    numbers = lambda values: row(f"{v:.9e}" for v in np.ravel(values))  # noqa: E731
    projection = lambda offset: [[FOCAL, 0, CENTRE[0], offset], [0, FOCAL, CENTRE[1], 0], [0, 0, 1, 0]]  # noqa: E731
    (date / "calib_cam_to_cam.txt").write_text(
        f"calib_time: 01-Jan-2011 12:00:00\nR_rect_00: {numbers(np.eye(3))}\nP_rect_02: {numbers(projection(0))}\n"
        f"P_rect_03: {numbers(projection(BASELINE))}\n"
    )
    (date / "calib_velo_to_cam.txt").write_text(f"R: {numbers([[0, -1, 0], [0, 0, -1], [1, 0, 0]])}\nT: {numbers(CAM_SHIFT)}\n")
    (date / "calib_imu_to_velo.txt").write_text(f"R: {numbers(np.eye(3))}\nT: {numbers(IMU2LIDAR)}\n")
    rng = np.random.default_rng(0)
    for frame in range(frames):
        name = f"{frame:010d}"
        scan(frame).tofile(drive / "velodyne_points" / "data" / f"{name}.bin")
        for camera in ("image_02", "image_03"):
            pixels = rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(drive / camera / "data" / (f"{name}.png" if camera == "image_02" else f"{name}.jpg"))
        scale = np.cos(np.radians(_LAT)) * _RADIUS
        east, north = np.cos(HEADING) * STEP * frame, np.sin(HEADING) * STEP * frame
        latitude = _LAT + np.degrees(north / _RADIUS)
        values = [latitude, _LON + np.degrees(east / scale), 110 + altitude(frame), 0, 0, HEADING, *([0.0] * 24)]
        (drive / "oxts" / "data" / f"{name}.txt").write_text(row(f"{v:.13f}" for v in values))
    if tracklets:
        (drive / "tracklet_labels.xml").write_text(_tracklets(frames))
    return drive


def _tracklets(frames: int) -> str:
    poses = "".join(
        "<item><tx>{}</tx><ty>{}</ty><tz>{}</tz><rx>0</rx><ry>0</ry><rz>0</rz><occlusion>0</occlusion></item>".format(*car_in_lidar(f))
        for f in range(frames)
    )
    length, width, height = CAR_SIZE
    return (
        '<?xml version="1.0"?><!DOCTYPE boost_serialization><boost_serialization><tracklets><count>1</count><item_version>1</item_version>'
        f"<item><objectType>Car</objectType><h>{height}</h><w>{width}</w><l>{length}</l><first_frame>0</first_frame>"
        f"<poses><count>{frames}</count><item_version>2</item_version>{poses}</poses></item></tracklets></boost_serialization>"
    )
