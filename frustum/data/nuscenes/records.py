"""What a scene consists of before it becomes nuScenes tables: the input of `writer.DatabaseWriter`.

Names instead of tokens: every token is the md5 of a name, so that the same scene always gets the same tokens, on any number of workers.
Timestamps are integers in microseconds, poses 4x4 float64, paths relative to the database's root with forward slashes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

OWN_RIG = "own-rig"
"""Location of the scenes that were imported from a rig folder, by which the reader knows them."""


def token(*names: object) -> str:
    """32 hexadecimal digits that depend on nothing but `names`."""
    return hashlib.md5("/".join(str(n) for n in names).encode(), usedforsecurity=False).hexdigest()


def sample_token(scene: str, timestamp: int) -> str:
    """Token of the keyframe of `scene` at `timestamp`: the folder name of its occupancy labels."""
    return token("sample", scene, int(timestamp))


def sample_data_token(scene: str, channel: str, timestamp: int) -> str:
    """Token of one file of one sensor: the stem of its lidarseg and panoptic files."""
    return token("sample_data", scene, channel, int(timestamp))


def lidarseg_file(version: str, scene: str, channel: str, timestamp: int) -> str:
    """Where the devkit looks for per-point classes: uint8, one per point, ids in the order of OCC3D_OF_CATEGORY."""
    return f"lidarseg/{version}/{sample_data_token(scene, channel, timestamp)}_lidarseg.bin"


def panoptic_file(version: str, scene: str, channel: str, timestamp: int) -> str:
    """Where the devkit looks for per-point instances: npz, key `data`, uint16 = class id * 1000 + instance (0 for stuff)."""
    return f"panoptic/{version}/{sample_data_token(scene, channel, timestamp)}_panoptic.npz"


@dataclass(frozen=True)
class SensorRecord:
    """One sensor of the rig and its calibration."""

    channel: str  # CAM_FRONT, LIDAR_TOP, ...
    modality: Literal["camera", "lidar", "radar"]
    sensor2ego: np.ndarray  # (4, 4)
    intrinsics: np.ndarray | None = None  # (3, 3) of cameras


@dataclass(frozen=True)
class SampleDataRecord:
    """One file of one sensor."""

    channel: str
    timestamp: int  # microseconds
    filename: str  # relative to the root, e.g. samples/CAM_FRONT/<scene>__CAM_FRONT__<timestamp>.jpg
    ego2global: np.ndarray  # (4, 4) at `timestamp`
    size: tuple[int, int] = (0, 0)  # (height, width) of images
    lidarseg: str | None = None  # relative path of the per-point classes, `lidarseg_file(...)`
    panoptic: str | None = None  # relative path of the per-point instances, `panoptic_file(...)`


@dataclass(frozen=True)
class AnnotationRecord:
    """One box of one object in one keyframe."""

    instance: str  # name of the object, unique within its scene and the same in all keyframes
    category: str  # a key of classes.OCC3D_OF_CATEGORY
    box2global: np.ndarray  # (4, 4) centre and orientation, x along the heading
    size: tuple[float, float, float]  # length, width, height in metres
    visibility: int = 4  # 1..4: up to 40, 60, 80, 100 % of the object's pixels are visible
    attribute: str = ""  # nuScenes attribute name, "" for none
    num_lidar_pts: int = 0
    num_radar_pts: int = 0


@dataclass(frozen=True)
class KeyframeRecord:
    """One annotated moment: one file of every sensor and all boxes."""

    timestamp: int  # microseconds; that of LIDAR_TOP
    data: tuple[SampleDataRecord, ...]
    annotations: tuple[AnnotationRecord, ...] = ()


@dataclass(frozen=True)
class SceneRecord:
    """One scene. `sweeps` are the files between keyframes; each belongs to the keyframe that follows it."""

    name: str  # unique, e.g. scene-0001
    sensors: tuple[SensorRecord, ...]
    keyframes: tuple[KeyframeRecord, ...]  # ascending in time
    sweeps: tuple[SampleDataRecord, ...] = ()
    description: str = ""
    log: str = ""  # name of the drive; scenes may share one; "" makes one per scene
    location: str = "boston-seaport"  # one of tables.MAP_FILES, or any name
    date: str = "2026-01-01"
    vehicle: str = "frustum"
    has_poses: bool = True  # False: ego2global is unknown, and what stands there a mere identity
    fingerprint: str = ""  # anything that says how the scene was made; `has_scene(name, fingerprint)` compares it on resume
