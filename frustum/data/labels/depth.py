"""Depth labels: LiDAR points in the cameras, and several sweeps in one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from frustum.data.augment import Draw
from frustum.data.sample import CameraFrame, LidarFrame, Sample
from frustum.data.source import as_rig_source
from frustum.errors import DataError
from frustum.geometry import invert, transform_points
from frustum.geometry.plausible import DEPTH, first_fault
from frustum.types.contract import Label, Shapes


class _Found(NamedTuple):
    cameras: tuple[CameraFrame, ...]
    lidar: LidarFrame
    points: np.ndarray | None  # (P, 3) float32, LiDAR frame; None where the maps are there
    maps: tuple[tuple[np.ndarray, np.ndarray], ...] = ()  # per camera: flat pixel index and metres


@dataclass(frozen=True)
class DepthLabels(Label[Tensor]):
    """Depth maps (B, N, H, W) float32 of the keyframe's cameras from its LiDAR scan: metres along the optical axis, 0 where unknown.

    `without` says in errors how to train the network without depth; `to_predict`, that it reads depth to predict, too.
    """

    without: str = ""
    to_predict: bool = False

    what: ClassVar[str] = "depth maps"
    advice: ClassVar[str] = "Use a data set with LiDAR, or Batch.from_arrays(..., labels={DepthLabels: ...})."

    @classmethod
    def check(cls, value: Tensor) -> None:
        """Raise DataError for depth that cannot be."""
        if (found := first_fault(value[..., None], DEPTH)) is not None:
            raise DataError(f"the depth maps cannot be right at {found.place}: {found.words} Unknown depth is 0.")

    def read(self, source: Any, token: str, fixed: Draw | None = None) -> _Found:
        """See `Label.read`. Raises DataError when the keyframe has no LiDAR scan."""
        sample = as_rig_source(source, self.what).sample(token, with_boxes=False, occupancy=False)
        if sample.lidar is None:
            why = "this network reads to predict, an oracle" if self.to_predict else "depth supervision needs"
            advice = f" Train {'one that predicts ' * self.to_predict}without: {self.without}." if self.without else ""
            raise DataError(f"keyframe {token} has no LiDAR scan, which {why}.{advice}")
        found = _Found(sample.cameras, sample.lidar, sample.lidar.load()[:, :3])
        if fixed is None:
            return found
        return found._replace(points=None, maps=tuple((np.flatnonzero(m).astype(np.int32), m[m > 0]) for m in _maps(found, fixed)))

    def apply(self, found: _Found, draw: Draw) -> np.ndarray:
        """The maps (N, H, W); what GridMask hides has no depth."""
        if found.points is not None:
            maps = np.stack(_maps(found, draw))
        else:
            flat = np.zeros((len(found.maps), draw.size[0] * draw.size[1]), np.float32)
            for row, (index, metres) in zip(flat, found.maps, strict=True):
                row[index] = metres
            maps = flat.reshape(-1, *draw.size)
        return maps if draw.kept is None else maps * draw.kept

    def collate(self, moved: Sequence[np.ndarray | None]) -> Tensor | None:
        """None if a sample does not have depth."""
        known = [maps for maps in moved if maps is not None]
        return torch.from_numpy(np.stack(known)) if known and len(known) == len(moved) else None

    def example(self, rng: np.random.Generator, shapes: Shapes) -> Tensor:
        """A depth of up to 30 m at three of ten pixels."""
        size = (shapes.batch, shapes.cameras, *shapes.image_size)
        return torch.from_numpy(np.where(rng.random(size) < 0.3, 30 * rng.random(size), 0)).float()

    def described(self, source: Any, tokens: Sequence[str], statistics: Mapping[str, np.ndarray]) -> str:
        """Depth of what."""
        return "depth maps of LiDAR points"


def _maps(found: _Found, draw: Draw) -> list[np.ndarray]:
    assert found.points is not None
    cameras = zip(found.cameras, draw.images, strict=True)
    return [depth_map(found.points, found.lidar, camera, transform.matrix(), draw.size) for camera, transform in cameras]


def lidar2camera(lidar: LidarFrame, camera: CameraFrame) -> np.ndarray:
    """(4, 4) from the LiDAR at its time to the camera at its time, through both ego poses and the global frame."""
    return invert(camera.cam2ego) @ invert(camera.ego2global) @ lidar.ego2global @ lidar.lidar2ego


def depth_map(points: np.ndarray, lidar: LidarFrame, camera: CameraFrame, image_aug: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth (H, W) float32 in metres along the optical axis; 0 where no point falls, the nearest where several do.

    Points nearer than 1 m are left out (parts of the vehicle), as BEVDepth does: one would stand for its whole block of pixels in a depth
    loss, and hide what can be learned there.

    Args:
        points: (P, 3 or more) in the LiDAR frame.
        lidar, camera: calibration and poses.
        image_aug: (3, 3) from original pixels to pixels of the output.
        size: (height, width) of the output.
    """
    local = transform_points(lidar2camera(lidar, camera), points[:, :3].astype(np.float64))
    local = local[local[:, 2] >= 1.0]
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
