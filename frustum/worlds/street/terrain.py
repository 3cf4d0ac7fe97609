"""The lie of the land: long smooth waves, so that roads climb, dip and lean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Terrain:
    """Height as a sum of plane waves: `sum_i amplitude_i * sin(kx_i x + ky_i y + phase_i)`; metres and radians."""

    amplitude: np.ndarray  # (N,)
    wave: np.ndarray  # (N, 2) rad / m
    phase: np.ndarray  # (N,)

    @classmethod
    def random(cls, rng: np.random.Generator, hilliness: float, waves: int = 4) -> Terrain:
        """Waves of 65 to 240 m whose slopes add up to at most 5.5 % times `hilliness`, wherever their crests meet."""
        length = np.exp(rng.uniform(np.log(65.0), np.log(240.0), waves))
        direction = rng.uniform(0, 2 * np.pi, waves)
        number = 2 * np.pi / length
        share = rng.dirichlet(np.full(waves, 2.0))
        steepness = 0.055 * hilliness * rng.uniform(0.55, 1.0)
        wave = number[:, None] * np.stack([np.cos(direction), np.sin(direction)], 1)
        return cls(steepness * share / number, wave, rng.uniform(0, 2 * np.pi, waves))

    def height(self, xy: np.ndarray) -> np.ndarray:
        """Heights (*,) at points (*, 2)."""
        return (np.sin(self._phases(xy)) * self.amplitude).sum(-1)

    def gradient(self, xy: np.ndarray) -> np.ndarray:
        """dz/dx and dz/dy (*, 2) at points (*, 2)."""
        slope = np.cos(self._phases(xy)) * self.amplitude
        return np.stack([(slope * self.wave[:, axis]).sum(-1) for axis in (0, 1)], -1)

    def _phases(self, xy: np.ndarray) -> np.ndarray:
        # No matrix products here: BLAS may round differently with another number of threads, and scenes must not.
        x, y = np.asarray(xy, float)[..., 0, None], np.asarray(xy, float)[..., 1, None]
        return x * self.wave[:, 0] + y * self.wave[:, 1] + self.phase

    def grid(self, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        """Heights (X, Y) at all crossings of `xs` and `ys`; sin(a + b) makes each wave two outer products."""
        total = np.zeros((len(xs), len(ys)), np.float32)
        for amplitude, (kx, ky), phase in zip(self.amplitude, self.wave, self.phase, strict=True):
            a, b = kx * xs + phase, ky * ys
            left = (amplitude * np.stack([np.sin(a), np.cos(a)], 1)).astype(np.float32)
            right = np.stack([np.cos(b), np.sin(b)]).astype(np.float32)
            total += left[:, :1] * right[0] + left[:, 1:] * right[1]
        return total


def poses_on_ground(terrain: Terrain, xy: np.ndarray, yaw: np.ndarray, lift: np.ndarray | float = 0.0, upright: bool = False) -> np.ndarray:
    """Poses (K, 4, 4) of things that stand at `xy` (K, 2) with heading `yaw` (K,), `lift` metres above the smooth ground.

    Wheels follow the slope (pitch and roll); `upright` keeps the vertical axis, as people do.
    """
    gradient = np.zeros_like(xy, dtype=float) if upright else terrain.gradient(xy)
    up = np.concatenate([-gradient, np.ones((len(xy), 1))], 1)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    heading = np.stack([np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)], 1)
    left = np.cross(up, heading)
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    poses = np.zeros((len(xy), 4, 4))
    poses[:, :3, 0], poses[:, :3, 1], poses[:, :3, 2] = np.cross(left, up), left, up
    poses[:, :2, 3] = xy
    poses[:, 2, 3] = terrain.height(xy) + lift
    poses[:, 3, 3] = 1
    return poses
