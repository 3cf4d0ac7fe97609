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
from frustum.data.kitti.point_map import FINE, Ground, PointMap, Relief, Traffic, cell_keys, classify, find_ground
from frustum.data.kitti.raw import KittiDrive, Track
from frustum.data.sample import Occupancy
from frustum.geometry import VoxelGrid, invert, pose, transform_points
from frustum.ops.box_points import in_box
from frustum.types.classes import OCC3D_CLASSES, OCC3D_FREE

OCC3D_OF_KIND = {
    "Car": "car", "Van": "car", "Truck": "truck", "Pedestrian": "pedestrian", "Person (sitting)": "pedestrian",
    "Cyclist": "bicycle", "Tram": "bus", "Misc": "others",
}  # fmt: skip
_SOFT_KINDS = ("Pedestrian", "Person (sitting)", "Cyclist")  # they change shape: only scans close in time are gathered
_SOFT_FRAMES = 1
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
    ground: Ground


def level(drive: KittiDrive, frames: Iterable[int]) -> Ego:
    """Fit the road plane below the car, then correct the heights of the poses so that the ground of all scans agrees.

    GPS altitude wanders by decimetres within seconds, which would smear the ground over two voxels. Latitude, longitude and all three
    angles are taken as recorded. The correction of a frame is the median height difference over all 0.5 m cells of near ground that
    earlier frames have seen.
    """
    imu2ego = _fit_road(drive)
    lidar2ego = imu2ego @ drive.lidar2imu
    ego2global = drive.imu2global @ invert(imu2ego)
    extent = ego2global[:, :2, 3]
    origin = extent.min(0) - 30
    shape = tuple(np.ceil((np.ptp(extent, axis=0) + 60) / 0.5).astype(int))
    total, count = np.zeros(shape), np.zeros(shape)
    ego2global[:, 2, 3] -= ego2global[0, 2, 3]
    shift = 0.0
    for f in frames:
        points = transform_points(lidar2ego, drive.scan(f)[:, :3].astype(np.float64))
        radius = np.hypot(points[:, 0], points[:, 1])
        near = (radius > 3.5) & (radius < 25) & (np.abs(points[:, 2]) < 0.6)
        points = transform_points(ego2global[f], points[near])
        cells = np.floor((points[:, :2] - origin) / 0.5).astype(np.int64)
        flat = np.ravel_multi_index(tuple(cells.T), shape)
        order = np.argsort(flat, kind="stable")
        flat, z = flat[order], points[order, 2]
        cell, start, hits = np.unique(flat, return_index=True, return_counts=True)
        if len(cell) == 0:
            ego2global[f, 2, 3] += shift
            continue
        mean = np.add.reduceat(z, start) / hits
        is_flat = (hits >= 3) & (np.maximum.reduceat(z, start) - np.minimum.reduceat(z, start) < 0.2)
        cell, mean = cell[is_flat], mean[is_flat]
        known = count.flat[cell] > 0
        if known.sum() >= 20:
            shift = float(np.median(total.flat[cell[known]] / count.flat[cell[known]] - mean[known]))
        total.flat[cell] += mean + shift
        count.flat[cell] += 1
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
    margin = np.array([45.0, 45.0, 2.0])
    traffic = Traffic(path.min(0) - margin, path.max(0) + margin + np.array([0, 0, 4.0]))
    relief = Relief(path.min(0) - _REACH, path.max(0) + _REACH)
    cut: list[tuple[int, int, np.ndarray]] = []  # track, frame, global points
    for f in frames:
        scan = drive.scan(f)[:, :3].astype(np.float64)
        scan = scan[(np.hypot(scan[:, 0], scan[:, 1]) < _REACH) & ~_own_car(transform_points(ego.lidar2ego, scan))]
        lidar2global = ego.ego2global[f] @ ego.lidar2ego
        moved = np.zeros(len(scan), bool)
        for t, track in enumerate(drive.tracks):
            box = drive.box(t, f)
            if box is not None:
                moved |= in_box(scan, box, track.size, (0.25, 0.25, 0.4))
                cut.append((t, f, transform_points(lidar2global, scan[in_box(scan, box, track.size, (0.1, 0.1, 0.1))])))
        points = transform_points(lidar2global, scan)
        still.add(points[~moved])
        relief.add(points[~moved])
        if f % 2 == 0:
            traffic.add(lidar2global[:3, 3], points)
    points = still.points()
    # The road directly below the car is in its blind zone, so the path is continued straight ahead and behind.
    first, last = ego.ego2global[0, :3], ego.ego2global[-1, :3]
    ends = [first[:, 3] - 8 * first[:, 0]], [last[:, 3] + 8 * last[:, 0]]
    ground = find_ground(points, np.concatenate([ends[0], path, ends[1]]), relief)
    points = points[ground.covers(points) | ~traffic.is_gone(points)]
    classes = classify(points, ground)
    keep = classes != OCC3D_FREE
    objects: list[dict[int, np.ndarray]] = [{} for _ in drive.tracks]
    for t, f, found in cut:
        above = ~ground.covers(found)
        box = drive.box(t, f)
        assert box is not None  # `cut` holds annotated frames only
        local = transform_points(invert(ego.ego2global[f] @ ego.lidar2ego @ box), found[above])
        objects[t][f] = local[np.unique(cell_keys(local, FINE / 2), return_index=True)[1]]
    return GatheredScene(points[keep], classes[keep], objects, ground)


def _own_car(points: np.ndarray) -> np.ndarray:
    """Echoes of the recording car itself (P,), points in the ego frame."""
    return (np.abs(points[:, 0] - 1.3) < 2.4) & (np.abs(points[:, 1]) < 1.1) & (points[:, 2] > 0.25)


class LabelMaker:
    """Makes the labels of single frames out of a gathered scene."""

    def __init__(
        self,
        drive: KittiDrive,
        ego: Ego,
        scene: GatheredScene,
        grid: VoxelGrid,
        neighbours: tuple[int, ...] = (-10, -5, 0, 5, 10),
    ) -> None:
        """`neighbours` are the scans, relative to the frame, whose beams say what is observed."""
        self.drive, self.ego, self.scene, self.grid = drive, ego, scene, grid
        self._offsets = neighbours
        self._rows = np.searchsorted(_STILL, scene.classes)
        self._rigid = [self._gather(t) for t in range(len(drive.tracks))]

    def _gather(self, t: int) -> np.ndarray:
        """All points of one object in its frame, thinned."""
        parts = list(self.scene.objects[t].values())
        points = np.concatenate(parts) if parts else np.zeros((0, 3))
        return points[np.unique(cell_keys(points, FINE), return_index=True)[1]]

    def object_points(self, t: int, frame: int) -> np.ndarray:
        """The points (P, 3) of track `t` in its box frame that describe it at `frame`."""
        track: Track = self.drive.tracks[t]
        if track.kind not in _SOFT_KINDS:
            return self._rigid[t]
        near = [p for f, p in self.scene.objects[t].items() if abs(f - frame) <= _SOFT_FRAMES]
        return np.concatenate(near) if near else np.zeros((0, 3))

    def semantics(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Occ3D classes and instance ids, both uint8 (X, Y, Z)."""
        votes = np.zeros((*self.grid.shape, len(_STILL)), np.float32)
        lower, cell = np.array(self.grid.lower), np.array(self.grid.cell)
        _vote(votes, invert(self.ego.ego2global[frame]), lower, cell, self.scene.points, self._rows, _WEIGHT)
        semantics = np.where(votes.max(-1) > 0, np.array(_STILL, np.uint8)[votes.argmax(-1)], np.uint8(OCC3D_FREE))
        instances = np.zeros(self.grid.shape, np.uint8)
        number = 0
        for t, track in enumerate(self.drive.tracks):
            box = self.drive.box(t, frame)
            if box is None:
                continue
            points = transform_points(self.ego.lidar2ego @ box, self.object_points(t, frame))
            index = np.floor((points - lower) / cell).astype(np.int64)
            index = index[((index >= 0) & (index < np.array(self.grid.shape))).all(1)]
            if len(index):
                number += 1
                semantics[tuple(index.T)] = OCC3D_CLASSES.index(OCC3D_OF_KIND.get(track.kind, "others"))
                instances[tuple(index.T)] = number
        for label in np.unique(semantics[(semantics != OCC3D_FREE) & (instances == 0)]):  # stuff: one id per class
            number += 1
            instances[(semantics == label) & (instances == 0)] = number
        return semantics, instances

    def labels(self, frame: int, image_sizes: dict[str, tuple[int, int]], load: Callable[[int], np.ndarray]) -> Occupancy:
        """Labels and masks of one frame.

        `image_sizes` is (height, width) per image folder; `load(f)` returns the scan of frame f (a cache around `KittiDrive.scan`).
        """
        semantics, instances = self.semantics(frame)
        seen = np.zeros(self.grid.shape, np.uint8)
        for f in (frame + o for o in self._offsets if 0 <= frame + o < len(self.drive)):
            lidar2key = invert(self.ego.ego2global[frame]) @ self.ego.ego2global[f] @ self.ego.lidar2ego
            points = load(f)[:: 1 if f == frame else 2, :3]  # beams lie closer than voxels: of the others every second does
            carve(seen, self.grid, lidar2key, points)
        cameras = [
            (intrinsics, self.ego.lidar2ego @ invert(self.drive.lidar2cam[name]), image_sizes[name])
            for name, intrinsics in self.drive.intrinsics.items()
        ]
        return Occupancy(semantics, seen, camera_mask(semantics != OCC3D_FREE, seen, self.grid, cameras), instances)


_GROUND = [OCC3D_CLASSES.index(n) for n in ("driveable_surface", "sidewalk", "terrain")]
_STILL = [*_GROUND, OCC3D_CLASSES.index("manmade"), OCC3D_CLASSES.index("vegetation")]  # ascending ids
# A pole is thin and the ground is dense: what stands on the ground gets three votes, or it would vanish into it.
_WEIGHT = np.array([1.0 if label in _GROUND else 3.0 for label in _STILL], np.float32)


@numba.njit(cache=True)
def _vote(votes, global2grid, lower, cell, points, rows, weight):
    """Add the weight of each global point (P, 3) to its voxel's count of its class."""
    cells = np.empty(3, np.int64)
    for p in range(len(points)):
        inside = True
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        for a in range(3):
            value = global2grid[a, 0] * x + global2grid[a, 1] * y + global2grid[a, 2] * z + global2grid[a, 3]
            cells[a] = int(np.floor((value - lower[a]) / cell[a]))
            if cells[a] < 0 or cells[a] >= votes.shape[a]:
                inside = False
                break
        if inside:
            votes[cells[0], cells[1], cells[2], rows[p]] += weight[rows[p]]
