"""LiDAR points in other frames: depth maps of cameras and several sweeps in one frame."""

from __future__ import annotations

import numpy as np

from frustum.data.sample import CameraFrame, LidarFrame, Sample
from frustum.errors import DataError
from frustum.geometry import invert, transform_points


def lidar2camera(lidar: LidarFrame, camera: CameraFrame) -> np.ndarray:
    """(4, 4) from the LiDAR at its time to the camera at its time, through both ego poses and the global frame."""
    return invert(camera.cam2ego) @ invert(camera.ego2global) @ lidar.ego2global @ lidar.lidar2ego


def depth_map(
    points: np.ndarray, lidar: LidarFrame, camera: CameraFrame, image_aug: np.ndarray, size: tuple[int, int], min_depth: float = 1.0
) -> np.ndarray:
    """Depth (H, W) float32 in metres along the optical axis; 0 where no point falls, the nearest where several do.

    Args:
        points: (P, 3 or more) in the LiDAR frame.
        lidar, camera: calibration and poses.
        image_aug: (3, 3) from original pixels to pixels of the output.
        size: (height, width) of the output.
        min_depth: nearer points are left out (parts of the vehicle), as BEVDepth does: one would stand for its whole block of pixels in a
            depth loss, and hide what can be learned there.
    """
    local = transform_points(lidar2camera(lidar, camera), points[:, :3].astype(np.float64))
    local = local[local[:, 2] >= min_depth]
    homogeneous = local @ (image_aug @ camera.intrinsics).T
    pixels = np.floor(homogeneous[:, :2] / homogeneous[:, 2:])
    inside = ((pixels >= 0) & (pixels < (size[1], size[0]))).all(1)
    column, row = pixels[inside].astype(np.int64).T
    depth = local[inside, 2]
    order = np.argsort(-depth, kind="stable")  # the nearest is written last
    result = np.zeros(size, np.float32)
    result[row[order], column[order]] = depth[order]
    return result


def aggregate_sweeps(sample: Sample, min_distance: float = 1.0) -> np.ndarray:
    """Points (P, 6) float32 of the keyframe's scan and `sample.lidar_sweeps` in the keyframe's LiDAR frame: x, y, z, intensity, ring, age.

    Points within `min_distance` of the sensor in both x and y (returns from the vehicle) are left out, as the devkit does; age is in
    seconds before the keyframe. Raises DataError when the sample has no LiDAR.
    """
    if sample.lidar is None:
        raise DataError(f"keyframe {sample.token} has no LiDAR scan to aggregate.")
    global2key = invert(sample.lidar.ego2global @ sample.lidar.lidar2ego)
    scans = []
    for frame in (sample.lidar, *sample.lidar_sweeps):
        points = frame.load()
        points = points[(abs(points[:, :2]) >= min_distance).any(1)]
        moved = transform_points(global2key @ frame.ego2global @ frame.lidar2ego, points[:, :3].astype(np.float64))
        age = np.full((len(points), 1), sample.lidar.timestamp - frame.timestamp)
        scans.append(np.concatenate([moved, points[:, 3:], age], 1).astype(np.float32))
    return np.concatenate(scans)
