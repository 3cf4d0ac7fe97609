"""What a street scene is made of: the hand-over between the content (layout, objects, traffic) and the renderer.

Global frame: x east, y north, z up, metres. Model frame: x forward, y left, z up, origin at the centre of the footprint on the ground.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class VoxelModel:
    """A solid made of small cubes. Material id 0 is air; ids index `materials.MATERIALS`."""

    cells: np.ndarray  # (X, Y, Z) uint8 material ids, C order
    cell: float  # edge length, metres
    origin: tuple[float, float, float]  # lower corner of cell (0, 0, 0) in the model's own frame

    @property
    def size(self) -> tuple[float, float, float]:
        """Extent along x, y, z in metres."""
        x, y, z = self.cells.shape
        return x * self.cell, y * self.cell, z * self.cell


@dataclass(frozen=True)
class Ground:
    """The ground as a height field: smooth slopes with sharp kerbs.

    The surface over cell (i, j) is the bilinear patch through its four corner heights `base[i:i+2, j:j+2] + step[i, j]`; a difference of
    `step` between neighbours is a vertical face (a kerb). Below the surface everything is solid.
    """

    base: np.ndarray  # (X + 1, Y + 1) float32 corner heights, metres
    step: np.ndarray  # (X, Y) float32 height of kerbs and islands above the base, metres
    material: np.ndarray  # (2X, 2Y) uint8 material ids at half the cell size, for crisp markings
    cell: float  # metres
    origin: tuple[float, float]  # global x, y of the lower corner of cell (0, 0)


@dataclass(frozen=True)
class Track:
    """A motion sampled densely enough (10 Hz or finer) to interpolate linearly in position and spherically in rotation."""

    times: np.ndarray  # (K,) seconds from the start of the scene, ascending
    poses: np.ndarray  # (K, 4, 4) float64, model (or ego) frame to global

    def pose(self, time: float) -> np.ndarray:
        """Pose (4, 4) at `time` seconds, clamped to the ends."""
        from scipy.spatial.transform import Rotation, Slerp

        if len(self.times) == 1:
            return self.poses[0].copy()
        t = float(np.clip(time, self.times[0], self.times[-1]))
        i = int(np.clip(np.searchsorted(self.times, t, "right") - 1, 0, len(self.times) - 2))
        share = (t - self.times[i]) / (self.times[i + 1] - self.times[i])
        result = np.eye(4)
        result[:3, 3] = (1 - share) * self.poses[i, :3, 3] + share * self.poses[i + 1, :3, 3]
        result[:3, :3] = Slerp([0, 1], Rotation.from_matrix(self.poses[i : i + 2, :3, :3]))(share).as_matrix()
        return result


@dataclass(frozen=True)
class Actor:
    """One annotated object: a model on a track."""

    id: int  # 1, 2, ... unique within the scene
    category: str  # a key of types.classes.OCC3D_OF_CATEGORY
    model: int  # index into Scene.models
    size: tuple[
        float, float, float
    ]  # length, width, height of the tight box; the box stands on the model frame's z = 0, centred in x and y
    tint: tuple[float, float, float]  # RGB 0..1, colours the tintable materials
    track: Track
    moving: bool  # False: parked or standing still for the whole scene
    attribute: str = ""  # nuScenes attribute name for most of its life


@dataclass(frozen=True)
class Look:
    """Light, weather and sensor of one scene; linear RGB."""

    sun_direction: tuple[float, float, float]  # unit vector towards the sun, global frame
    sun_colour: tuple[float, float, float]
    ambient: tuple[float, float, float]
    sky_zenith: tuple[float, float, float]
    sky_horizon: tuple[float, float, float]
    haze: float  # extinction per metre
    exposure: float
    noise: float  # standard deviation of the sensor noise at mid grey, 0..1 scale
    seed: int


@dataclass(frozen=True)
class Scene:
    """Everything that a renderer needs, and nothing that depends on a sensor."""

    name: str
    seed: int
    ground: Ground
    static: VoxelModel  # buildings, walls, vegetation, poles; global frame (origin is global); same x-y cells as the ground
    models: tuple[VoxelModel, ...]
    actors: tuple[Actor, ...]
    ego: Track  # ego frame: rear axle projected on the ground; pitches and rolls
    look: Look
    duration: float  # seconds
    description: str = ""
    lanes: tuple[np.ndarray, ...] = field(default=())  # centre lines (K, 3), for maps and tests
