"""Occupancy labels of a scene at one instant, in the format and meaning of Occ3D.

What a voxel is
    Ground: every voxel that the ground surface passes through, tested at 4 x 4 positions of each column of the (tilted) ego grid.
    Static solids: every voxel in which at least `static_least` of 3 x 3 x 3 sub-samples, spread from face to face, lie in a material
    cell that has an air neighbour (what is buried inside a wall or a crown cannot be observed by anybody and stays free, as in Occ3D).
    Between classes the majority decides; a static sub-sample counts three times a ground sub-sample, so that poles keep their foot.
    Actors: voxels in which one of 4 x 4 x 4 sub-samples lies inside the actor, at least 3 where they displace something static; the
    fuller actor wins over the other.

What is observed
    mask_lidar, occupied voxel: a beam of any accumulated sweep hit it (all `lidar_origins`, cast through the world of this instant, so
    that nothing smears). Free voxel: of the keyframe's own sweep, the beam nearest to the voxel's centre goes beyond it, whether it returns
    or not; what lies outside the fan of beams is not observed.
    mask_camera: in mask_lidar, and seen by a camera. Occupied voxel: the ray of at least one pixel hits it. Free voxel: the ray of the
    pixel at its centre passes it before it hits.
    A hit counts for the voxel just behind the surface and for the one half a material cell further in, because the surface of a solid
    often lies exactly between the voxel that owns the material and the free voxel in front of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frustum.geometry import VoxelGrid, invert
from frustum.types.classes import DETECTION_CLASSES, OCC3D_CLASSES, OCC3D_FREE
from frustum.worlds.street.kernels_labels import label_actors, label_static
from frustum.worlds.street.materials import GENERAL_OF_MATERIAL, OCC3D_OF_GENERAL
from frustum.worlds.street.moment import Stage

_CLASS_OF_MATERIAL = np.full(256, OCC3D_FREE, np.uint8)
_CLASS_OF_MATERIAL[: len(GENERAL_OF_MATERIAL)] = OCC3D_OF_GENERAL[GENERAL_OF_MATERIAL]
_CLASS_OF_MATERIAL[0] = OCC3D_FREE
_THINGS = np.array([name in DETECTION_CLASSES for name in OCC3D_CLASSES])


@dataclass(frozen=True)
class LabelRules:
    """The free choices of the definitions above."""

    static_weight: int = 3
    static_least: int = 1  # of 27
    actor_least: int = 3  # of 64
    hit_every: int = 4  # columns of the accumulated sweeps


class Frame:
    """A label grid at one ego pose, in the forms the kernels need."""

    def __init__(self, grid: VoxelGrid, ego2global: np.ndarray) -> None:
        self.grid = grid
        self.ego2global = np.asarray(ego2global, np.float64)
        self.lower, self.size = np.array(grid.lower, np.float64), np.array(grid.cell, np.float64)
        ego2grid = np.eye(4)
        ego2grid[:3, :3] = np.diag(1 / self.size)
        ego2grid[:3, 3] = -self.lower / self.size
        self.global2grid = ego2grid @ invert(self.ego2global)

    def from_sensor(self, sensor2global: np.ndarray) -> np.ndarray:
        """Sensor metres to voxel coordinates, (3, 4)."""
        return np.ascontiguousarray((self.global2grid @ sensor2global)[:3])

    def semantics(self, stage: Stage, rules: LabelRules) -> tuple[np.ndarray, np.ndarray]:
        """Labels (X, Y, Z) uint8 and the owner (X, Y, Z) int16: actor row + 1, 0 = none."""
        world = stage.world
        global2cells = np.concatenate([np.eye(3) / world.cell, -world.origin[:, None] / world.cell], 1)
        semantics = np.full(self.grid.shape, OCC3D_FREE, np.uint8)
        label_static(
            world, np.ascontiguousarray(global2cells @ np.vstack([self.ego2global[:3], [0, 0, 0, 1]])), self.lower, self.size,
            _CLASS_OF_MATERIAL, OCC3D_FREE, rules.static_weight, rules.static_least,
            np.zeros((self.grid.shape[2], OCC3D_FREE), np.int64), np.zeros(OCC3D_FREE, np.int64), semantics,
        )  # fmt: skip
        owner, share = np.zeros(self.grid.shape, np.int16), np.zeros(self.grid.shape, np.uint8)
        voxels = stage.corners @ self.global2grid[:3, :3].T + self.global2grid[:3, 3]  # (A, 8, 3)
        limit = np.array(self.grid.shape)
        low = np.clip(np.floor(voxels.min(1)), 0, limit).astype(np.int64)
        high = np.clip(np.floor(voxels.max(1)) + 1, 0, limit).astype(np.int64)
        rows = np.nonzero((high > low).all(1))[0].astype(np.int64)
        ranges = np.stack([low, high], -1).reshape(-1, 6)[rows]
        ego2cells = stage.actors.to_cells[rows] @ self.ego2global
        label_actors(
            stage.models, stage.actors, rows, np.ascontiguousarray(ego2cells), np.ascontiguousarray(ranges), self.lower, self.size,
            OCC3D_OF_GENERAL[stage.actors.category], OCC3D_FREE, rules.actor_least, semantics, owner, share,
        )  # fmt: skip
        return semantics, owner


def instance_ids(semantics: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Instances (X, Y, Z) uint8 as Occ3D's panoptic variant: actors of the ten detection classes that own a voxel get 1, 2, ... in actor
    order, then each other class that occurs gets one id; 0 = free. Ids beyond 255 fall back to 0."""
    where = np.flatnonzero(semantics != OCC3D_FREE)
    label, row = semantics.ravel()[where], owner.ravel()[where]
    thing = _THINGS[label] & (row > 0)
    owners, numbers = np.unique(row[thing], return_inverse=True)
    found = np.zeros(len(where), np.int64)
    found[thing] = numbers + 1
    counts = np.bincount(label[~thing], minlength=OCC3D_FREE)
    stuff = np.zeros(OCC3D_FREE, np.int64)
    stuff[counts > 0] = len(owners) + 1 + np.arange(int((counts > 0).sum()))
    found[~thing] = stuff[label[~thing]]
    ids = np.zeros(semantics.shape, np.uint8)
    ids.ravel()[where] = np.where(found < 256, found, 0)
    return ids
