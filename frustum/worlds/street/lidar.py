"""The spinning LiDAR: its beam pattern and what one turn returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LidarPattern:
    """Beams of a spinning LiDAR. Sensor frame: x right, y forward, z up, as nuScenes' LIDAR_TOP.

    Attributes:
        elevations: (R,) radians, ring 0 first.
        num_azimuths: columns of one turn.
        near, far: metres between which a return counts.
    """

    elevations: tuple[float, ...]
    num_azimuths: int
    near: float = 0.5
    far: float = 105.0

    @classmethod
    def nuscenes(cls) -> LidarPattern:
        """The HDL-32E of nuScenes: 32 rings from -30.67 to +10.67 degrees, 1090 columns a turn."""
        return cls(tuple(float(e) for e in np.radians(np.linspace(-30.67, 10.67, 32))), 1090)

    def directions(self) -> np.ndarray:
        """Unit directions (N, 3) float32, column after column, ring 0 first. The turn runs clockwise from behind."""
        azimuth = -np.pi / 2 - 2 * np.pi * np.arange(self.num_azimuths) / self.num_azimuths
        elevation = np.array(self.elevations)
        a, e = np.meshgrid(azimuth, elevation, indexing="ij")
        return np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], -1).reshape(-1, 3).astype(np.float32)

    def borders(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the beams part space among them: the slopes (R + 1,) halfway between neighbouring rings, half a gap outside the first and
        the last one included, and the directions (num_azimuths, 2) x, y halfway between each column and the next."""
        e = np.array(self.elevations)
        middle = np.concatenate([[1.5 * e[0] - 0.5 * e[1]], 0.5 * (e[:-1] + e[1:]), [1.5 * e[-1] - 0.5 * e[-2]]])
        azimuth = -np.pi / 2 - 2 * np.pi * (np.arange(self.num_azimuths) + 0.5) / self.num_azimuths
        return np.tan(middle), np.stack([np.cos(azimuth), np.sin(azimuth)], 1)


@dataclass(frozen=True)
class Sweep:
    """One turn of the LiDAR.

    Attributes:
        points: (P, 5) float32 x, y, z in the sensor frame in metres, intensity 0..255, ring.
        category: (P,) uint8 general class id.
        instance: (P,) uint16 actor id, 0 = none.
    """

    points: np.ndarray
    category: np.ndarray
    instance: np.ndarray


def strength(table: np.ndarray, distance: np.ndarray, normal: np.ndarray, reflectivity: np.ndarray) -> np.ndarray:
    """Returned intensity (N,) float32 0..255: reflectivity times the cosine of incidence, with a mild loss over distance."""
    cosine = np.abs((table * normal).sum(-1))
    loss = 1 / (1 + (distance / 60.0) ** 2)
    return np.round(255 * np.clip(reflectivity * (0.25 + 0.75 * cosine) * (0.4 + 0.6 * loss), 0, 1)).astype(np.float32)
