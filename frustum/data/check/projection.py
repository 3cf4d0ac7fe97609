"""Does the LiDAR sit on the image? A test of calibration that needs no labels.

Where the distance of neighbouring beams jumps there is the edge of an object, and images mostly have an edge there too (Levinson and
Thrun, "Automatic Online Calibration of Cameras and Lasers", RSS 2013). So the edges of the scan, shifted over the image, fit best
where they are; if another place fits clearly better, the calibration or the timing is off by about that much.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy import ndimage

from frustum.data.labels.depth import lidar2camera
from frustum.data.sample import CameraFrame, LidarFrame
from frustum.geometry import transform_points

WIDTH = 640  # images are scaled to this width: speed, and less noise in the edges
_STEPS = 10  # shifts on each side
_DEGREES = 0.5  # per step
REACH = _STEPS * _DEGREES
"""Degrees to each side within which shifts are tried: a best shift of this size may be larger."""
MIN_EDGES = 300


@dataclass
class EdgeFit:
    """Sums, over samples, how well scan edges of one camera fit its image at each shift."""

    scores: np.ndarray = field(default_factory=lambda: np.zeros((2 * _STEPS + 1, 2 * _STEPS + 1)))  # (vertical, horizontal)
    edges: int = 0

    def add(self, camera: CameraFrame, image: Image.Image, lidar: LidarFrame, points: np.ndarray) -> None:
        """Add one image and the scan (P, 5) that belongs to it."""
        scale = WIDTH / image.width
        size = WIDTH, max(1, round(image.height * scale))
        strength = edge_image(np.asarray(image.convert("L").resize(size, Image.Resampling.BOX), np.float32))
        local = transform_points(lidar2camera(lidar, camera), points[scan_edges(points), :3].astype(np.float64))
        local = local[local[:, 2] > 1.0]
        pixels = local @ camera.intrinsics.T
        pixels = pixels[:, :2] / pixels[:, 2:] * scale
        step = np.tan(np.radians(_DEGREES)) * camera.intrinsics[0, 0] * scale
        margin = step * _STEPS * 0.2
        pixels = pixels[((pixels > margin) & (pixels < np.array(size) - margin)).all(1)]
        self.edges += len(pixels)
        for row, column in np.ndindex(self.scores.shape):
            shifted = np.floor(pixels + np.array([column - _STEPS, row - _STEPS]) * step).astype(np.int64)
            u, v = shifted[((shifted >= 0) & (shifted < size)).all(1)].T
            if len(u):
                self.scores[row, column] += strength[v, u].mean() * len(pixels)

    def best_shift(self) -> tuple[float, float, float]:
        """(right, down) in degrees of the shift that fits best, and how much better it is than no shift.

        The gain is relative to how far the best fit stands out from all others (their median): 0 means that the scan is where it fits best,
        1 that no shift is as unremarkable as any other.
        """
        mean = self.scores / max(self.edges, 1)
        row, column = np.unravel_index(mean.argmax(), mean.shape)
        height = mean.max() - np.median(mean)
        gain = (mean.max() - mean[_STEPS, _STEPS]) / height if height > 0 else 0.0
        return (int(column) - _STEPS) * _DEGREES, (int(row) - _STEPS) * _DEGREES, float(gain)

    def contrast(self) -> float:
        """How far the best fit stands out, in standard deviations of all shifts."""
        spread = self.scores.std()
        return float((self.scores.max() - np.median(self.scores)) / spread) if spread > 0 else 0.0


def edge_image(grey: np.ndarray) -> np.ndarray:
    """Edge strength (H, W) of a grey image, 0..1, equal in all parts of the image whatever their contrast, slightly blurred."""
    gradient = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
    local = ndimage.uniform_filter(gradient, 41) + 4.0
    return ndimage.gaussian_filter(np.minimum(gradient / (4 * local), 1.0), 1.5)


def scan_edges(points: np.ndarray, jump: float = 0.6) -> np.ndarray:
    """Indices of points (P, 5) at which the range jumps away by more than `jump` metres and 5 %, on the near side, along their ring."""
    distance = np.linalg.norm(points[:, :3], axis=1)
    azimuth = np.arctan2(points[:, 1], points[:, 0])
    order = np.lexsort((azimuth, points[:, 4]))
    in_order = distance[order]
    near = (np.diff(points[order, 4]) == 0) & (np.diff(azimuth[order]) < np.radians(1.5))
    change = np.diff(in_order)
    enough = np.maximum(jump, 0.05 * np.minimum(in_order[1:], in_order[:-1]))
    left = np.flatnonzero(near & (change > enough))  # the point before the jump is nearer
    right = np.flatnonzero(near & (change < -enough)) + 1
    edges = np.concatenate([order[left], order[right]])
    return edges[distance[edges] > 2.0]
