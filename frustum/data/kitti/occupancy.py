"""Occupancy labels of a KITTI drive: all scans gathered, moving objects cut out by their tracklets and put back at each frame.

Steps: `level` finds the road below the car and with it the ego frame; `build_scene` gathers still points into a classified map and the
points of every annotated object in the object's own frame; `LabelMaker` voxelises both at a frame and carves the observed masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numba
import numpy as np

from frustum.data.kitti.carving import camera_mask, carve
from frustum.data.kitti.point_map import FINE, PointMap, Relief, Traffic, cell_keys, cells_of, classify, find_ground
from frustum.data.kitti.raw import KittiDrive
from frustum.data.sample import Occupancy
from frustum.geometry import VoxelGrid, invert, pose, transform_points
from frustum.ops.box_points import in_box
from frustum.types.classes import OCC3D_CLASSES, OCC3D_FREE, OCC3D_OF_CATEGORY

_SOFT_KINDS = ("Pedestrian", "Person (sitting)", "Cyclist")  # they change shape: only scans close in time are gathered
_SOFT_FRAMES = 1
_NEIGHBOURS = (-10, -5, 0, 5, 10)  # the scans, relative to the frame, whose beams decide what is observed
_IMU_HEIGHT = 0.93  # metres above the road, from KITTI's sensor drawing; used where no road can be fitted
_REACH = 58.0  # metres around the car: the corner of the Occ3D grid


@dataclass(frozen=True)
class Ego:
    """The ego frame of a drive: on the road below the IMU (over the rear axle), x forward, y left, z normal to the road."""

    imu2ego: np.ndarray  # (4, 4)
    ego2global: np.ndarray  # (F, 4, 4), heights corrected
    lidar2ego: np.ndarray  # (4, 4)


@dataclass(frozen=True)
class GatheredScene:
    """Still points of a drive with their classes, and the points of its objects in their own frames."""

    points: np.ndarray  # (P, 3) global
    classes: np.ndarray  # (P,) uint8
    objects: list[dict[int, np.ndarray]]  # per track: frame -> (P, 3) in the box frame


def level(drive: KittiDrive, frames: Iterable[int]) -> Ego:
    """Fit the road plane below the car, then correct the heights of the poses so that the ground of all scans agrees.

    GPS altitude wanders by decimetres within seconds, which would smear the ground over two voxels. Latitude, longitude and all three
    angles are taken as recorded. The correction of a frame is the median height difference over all 0.5 m cells of near ground that
    earlier frames have measured.
    """
    imu2ego = _fit_road(drive)
    lidar2ego = imu2ego @ drive.lidar2imu
    ego2global = drive.imu2global @ invert(imu2ego)
    origin = ego2global[:, :2, 3].min(0) - 30
    shape = tuple(np.ceil((np.ptp(ego2global[:, :2, 3], axis=0) + 60) / 0.5).astype(int))
    total, count = np.zeros(np.prod(shape)), np.zeros(np.prod(shape))
    ego2global[:, 2, 3] -= ego2global[0, 2, 3]
    shift = 0.0
    for f in frames:
        points = transform_points(lidar2ego, drive.scan(f)[:, :3].astype(np.float64))
        radius = np.hypot(points[:, 0], points[:, 1])
        near = (radius > 3.5) & (radius < 25) & (np.abs(points[:, 2]) < 0.6)
        points = transform_points(ego2global[f], points[near])
        flat = np.ravel_multi_index(tuple(cells_of(points[:, :2], origin, 0.5, shape)[0].T), shape)
        order = np.argsort(flat, kind="stable")
        z = points[order, 2]
        cell, start, hits = np.unique(flat[order], return_index=True, return_counts=True)
        mean = np.add.reduceat(z, start) / hits
        is_flat = (hits >= 3) & (np.maximum.reduceat(z, start) - np.minimum.reduceat(z, start) < 0.2)
        cell, mean = cell[is_flat], mean[is_flat]
        known = count[cell] > 0
        if known.sum() >= 20:
            shift = float(np.median(total[cell[known]] / count[cell[known]] - mean[known]))
        total[cell] += mean + shift
        count[cell] += 1
        ego2global[f, 2, 3] += shift
    return Ego(imu2ego, ego2global, lidar2ego)


def _fit_road(drive: KittiDrive) -> np.ndarray:
    """imu2ego (4, 4): the plane of the road 4 to 15 m ahead, over the whole drive, becomes z = 0."""
    samples = []
    for f in range(0, len(drive), max(1, len(drive) // 30)):
        points = transform_points(drive.lidar2imu, drive.scan(f)[:, :3].astype(np.float64))
        near = (points[:, 0] > 4) & (points[:, 0] < 15) & (np.abs(points[:, 1]) < 2.5) & (np.abs(points[:, 2] + _IMU_HEIGHT) < 0.5)
        samples.append(points[near][::5])
    points = np.concatenate(samples)
    plane = np.array([0.0, 0.0, -_IMU_HEIGHT])  # z = a x + b y + c
    for tolerance in (0.4, 0.15, 0.08, 0.05):
        close = np.abs(points[:, 2] - points[:, :2] @ plane[:2] - plane[2]) < tolerance
        if close.sum() < 100:
            break
        design = np.column_stack([points[close, :2], np.ones(close.sum())])
        plane = np.linalg.lstsq(design, points[close, 2], rcond=None)[0]
    if np.abs(plane[:2]).max() > 0.06 or abs(plane[2] + _IMU_HEIGHT) > 0.3:  # not a road: walls, water, an unusual vehicle
        plane = np.array([0.0, 0.0, -_IMU_HEIGHT])
    up = np.array([-plane[0], -plane[1], 1.0]) / np.sqrt(plane[0] ** 2 + plane[1] ** 2 + 1)
    forward = np.array([1.0, 0, 0]) - up[0] * up
    forward /= np.linalg.norm(forward)
    return pose(np.stack([forward, np.cross(up, forward), up]), np.array([0.0, 0.0, -up[2] * plane[2]]))


def build_scene(drive: KittiDrive, ego: Ego, frames: Iterable[int]) -> GatheredScene:
    """Gather all scans. Points within a tracklet enlarged by 0.25 m (0.4 m in height) are not part of the still map."""
    still = PointMap()
    path = ego.ego2global[:, :3, 3]
    traffic = Traffic(path.min(0) - [45, 45, 2], path.max(0) + [45, 45, 6])
    relief = Relief(path.min(0) - _REACH, path.max(0) + _REACH)
    objects: list[dict[int, np.ndarray]] = [{} for _ in drive.tracks]  # in the global frame at first
    for f in frames:
        scan = drive.scan(f)[:, :3].astype(np.float64)
        scan = scan[(np.hypot(scan[:, 0], scan[:, 1]) < _REACH) & ~_own_car(transform_points(ego.lidar2ego, scan))]
        lidar2global = ego.ego2global[f] @ ego.lidar2ego
        moved = np.zeros(len(scan), bool)
        for t, box in drive.boxes(f).items():
            size = drive.tracks[t].size
            moved |= in_box(scan, box, size, (0.25, 0.25, 0.4))
            objects[t][f] = transform_points(lidar2global, scan[in_box(scan, box, size, (0.1, 0.1, 0.1))])
        points = transform_points(lidar2global, scan)
        still.add(points[~moved])
        relief.add(points[~moved])
        if f % 2 == 0:
            traffic.add(lidar2global[:3, 3], points)
    points = still.points()
    # The road directly below the car is in its blind zone, so the path is continued straight ahead and behind.
    first, last = ego.ego2global[0, :3], ego.ego2global[-1, :3]
    ground = find_ground(points, np.vstack([first[:, 3] - 8 * first[:, 0], path, last[:, 3] + 8 * last[:, 0]]), relief)
    points = points[ground.covers(points) | ~traffic.is_gone(points)]
    classes = classify(points, ground)
    keep = classes != OCC3D_FREE
    for t, found in enumerate(objects):
        for f, points_then in found.items():
            global2box = invert(ego.ego2global[f] @ ego.lidar2ego @ drive.boxes(f)[t])
            found[f] = _thinned(transform_points(global2box, points_then[~ground.covers(points_then)]), FINE / 2)
    return GatheredScene(points[keep], classes[keep], objects)


def _thinned(points: np.ndarray, cell: float) -> np.ndarray:
    """One of the points (P, 3) of each cell."""
    return points[np.unique(cell_keys(points, cell), return_index=True)[1]]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """All points (P, 3) of the parts."""
    return np.concatenate([np.zeros((0, 3)), *parts])


def _own_car(points: np.ndarray) -> np.ndarray:
    """Echoes of the recording car itself (P,), points in the ego frame."""
    return (np.abs(points[:, 0] - 1.3) < 2.4) & (np.abs(points[:, 1]) < 1.1) & (points[:, 2] > 0.25)


class LabelMaker:
    """Makes the labels of single frames out of a gathered scene."""

    def __init__(self, drive: KittiDrive, ego: Ego, scene: GatheredScene, grid: VoxelGrid) -> None:
        self.drive, self.ego, self.scene, self.grid = drive, ego, scene, grid
        self._rows = np.searchsorted(_STILL, scene.classes)
        self._rigid = [_thinned(_joined(list(found.values())), FINE) for found in scene.objects]

    def object_points(self, t: int, frame: int) -> np.ndarray:
        """The points (P, 3) of track `t` in its box frame that describe it at `frame`."""
        if self.drive.tracks[t].kind not in _SOFT_KINDS:
            return self._rigid[t]
        return _joined([p for f, p in self.scene.objects[t].items() if abs(f - frame) <= _SOFT_FRAMES])

    def semantics(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Occ3D classes and instance ids, both uint8 (X, Y, Z)."""
        votes = np.zeros((*self.grid.shape, len(_STILL)), np.float32)
        lower, cell = np.array(self.grid.lower), np.array(self.grid.cell)
        _vote(votes, invert(self.ego.ego2global[frame]), lower, cell, self.scene.points, self._rows, _WEIGHT)
        semantics = np.where(votes.max(-1) > 0, np.array(_STILL, np.uint8)[votes.argmax(-1)], np.uint8(OCC3D_FREE))
        instances = np.zeros(self.grid.shape, np.uint8)
        number = 0
        for t, box in self.drive.boxes(frame).items():
            points = transform_points(self.ego.lidar2ego @ box, self.object_points(t, frame))
            index, inside = cells_of(points, lower, cell, self.grid.shape)
            if inside.any():
                number += 1
                at = tuple(index[inside].T)
                semantics[at], instances[at] = OCC3D_CLASSES.index(OCC3D_OF_CATEGORY[self.drive.tracks[t].category]), number
        for label in np.unique(semantics[(semantics != OCC3D_FREE) & (instances == 0)]):  # stuff: one id per class
            number += 1
            instances[(semantics == label) & (instances == 0)] = number
        return semantics, instances

    def labels(self, frame: int, image_sizes: dict[str, tuple[int, int]], load: Callable[[int], np.ndarray]) -> Occupancy:
        """Labels and masks of one frame.

        `image_sizes` is (height, width) per image folder; `load(f)` returns the scan of frame f (a cache around `KittiDrive.scan`).
        """
        semantics, instances = self.semantics(frame)
        observed = np.zeros(self.grid.shape, np.uint8)
        for f in (frame + o for o in _NEIGHBOURS if 0 <= frame + o < len(self.drive)):
            lidar2key = invert(self.ego.ego2global[frame]) @ self.ego.ego2global[f] @ self.ego.lidar2ego
            points = load(f)[:: 1 if f == frame else 2, :3]  # beams lie closer than voxels: every second one of the others is enough
            carve(observed, self.grid, lidar2key, points)
        cameras = [
            (intrinsics, self.ego.lidar2ego @ invert(self.drive.lidar2cam[name]), image_sizes[name])
            for name, intrinsics in self.drive.intrinsics.items()
        ]
        return Occupancy(semantics, observed, camera_mask(semantics != OCC3D_FREE, observed, self.grid, cameras), instances)


_GROUND = [OCC3D_CLASSES.index(n) for n in ("driveable_surface", "sidewalk", "terrain")]
_STILL = [*_GROUND, OCC3D_CLASSES.index("manmade"), OCC3D_CLASSES.index("vegetation")]  # ascending ids
# A pole is thin and the ground is dense: what stands on the ground gets three votes, or it would vanish into it.
_WEIGHT = np.array([1.0 if label in _GROUND else 3.0 for label in _STILL], np.float32)


@numba.njit(cache=True)
def _vote(votes, global2grid, lower, cell, points, rows, weight):
    """Add the weight of each global point (P, 3) to its voxel's count of its class."""
    m, (size_x, size_y, size_z) = global2grid, votes.shape[:3]
    for p in range(len(points)):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        i = int(np.floor((m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3] - lower[0]) / cell[0]))
        j = int(np.floor((m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3] - lower[1]) / cell[1]))
        k = int(np.floor((m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3] - lower[2]) / cell[2]))
        if 0 <= i < size_x and 0 <= j < size_y and 0 <= k < size_z:
            votes[i, j, k, rows[p]] += weight[rows[p]]
