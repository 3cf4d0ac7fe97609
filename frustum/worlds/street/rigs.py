"""Sensor rigs of the street world: nuScenes' arrangement by default, any other from a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError, model_validator

from frustum.config import Config
from frustum.data.augment import horizon_share
from frustum.data.rig.images import require_pixels
from frustum.data.rig.importer import read_cameras
from frustum.data.rig.units import require_metres
from frustum.data.source import AugmentConfig
from frustum.errors import ConfigError, DataError
from frustum.geometry import horizon_row, matrix_to_quaternion, pose, quaternion_to_matrix, rotation_xyz, rotation_z
from frustum.geometry.plausible import NEAR, intrinsics_fault, pose_row_fault

_EDGE = 0.05  # share of an image: a horizon nearer to its border is cut off

# Camera axes (x right, y down, z forward) in body axes (x forward, y left, z up).
_CAMERA2BODY = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


class Mount(Config):
    """Where a sensor sits: sensor to ego, metres and a (w, x, y, z) quaternion."""

    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]

    @model_validator(mode="after")
    def _check(self) -> Mount:
        if (found := pose_row_fault([*self.translation, *self.rotation], NEAR)) is not None:
            raise ValueError(found.words.rstrip("."))
        return self

    @property
    def sensor2ego(self) -> np.ndarray:
        """(4, 4)."""
        return pose(quaternion_to_matrix(np.array(self.rotation)), np.array(self.translation))


class RigCamera(Config):
    """A pinhole camera; fx, fy, cx, cy in pixels of a `width` x `height` image."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    fx: float = Field(gt=0)
    fy: float = Field(gt=0)
    cx: float
    cy: float
    cam2ego: Mount

    @model_validator(mode="after")
    def _check(self) -> RigCamera:
        if (found := intrinsics_fault(self.intrinsics)) is not None:
            raise ValueError(found.words.rstrip("."))
        require_pixels(self.intrinsics, (self.height, self.width), self.name)
        require_metres(self.cam2ego.sensor2ego, f"cam2ego of {self.name}")
        return self

    @property
    def intrinsics(self) -> np.ndarray:
        """(3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])

    def fitted(self, height: int, width: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Intrinsics (3, 3) and size of the image that a network reads: scaled to `width`, bottom kept (FlashOCC, input pipeline, test).

        Of a camera whose horizon that would cut off, the rows are kept that put it where nuScenes' cameras have it (`augment.window`).
        """
        scale = width / self.width
        cropped = self.height * scale - height
        k = np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])
        horizon = horizon_row(k, self.cam2ego.sensor2ego, (self.height, self.width))
        if horizon is not None and not _EDGE < (horizon * scale - cropped) / height < 1 - _EDGE:
            wanted = horizon * scale - horizon_share(AugmentConfig(), (height, width)) * height
            cropped = min(max(wanted, min(0, cropped)), max(0, cropped))
        k = np.array([[self.fx * scale, 0, self.cx * scale], [0, self.fy * scale, self.cy * scale - cropped], [0, 0, 1]])
        return k, (height, width)


class StreetRig(Config):
    """The cameras and the LiDAR of the vehicle that films the world."""

    cameras: tuple[RigCamera, ...] = Field(min_length=1)
    lidar: Mount

    @model_validator(mode="after")
    def _check(self) -> StreetRig:
        names = [camera.name.casefold() for camera in self.cameras]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two cameras are named {twice!r}, in upper or lower case: give every camera its own name")
        require_metres(self.lidar.sensor2ego, "lidar")
        return self

    @classmethod
    def nuscenes(cls) -> StreetRig:
        """Six cameras of 1600 x 900 and a roof LiDAR, arranged as on nuScenes' cars; rounded numbers, not a real calibration."""
        table = {  # yaw in degrees, focal length in pixels, position in metres
            "CAM_FRONT_LEFT": (55, 1270, (1.52, 0.49, 1.51)),
            "CAM_FRONT": (0, 1266, (1.70, 0.02, 1.51)),
            "CAM_FRONT_RIGHT": (-55, 1262, (1.55, -0.49, 1.50)),
            "CAM_BACK_LEFT": (110, 1258, (1.04, 0.48, 1.57)),
            "CAM_BACK": (180, 810, (0.03, 0.00, 1.57)),
            "CAM_BACK_RIGHT": (-110, 1260, (1.01, -0.48, 1.56)),
        }
        cameras = []
        for i, (name, (yaw, focal, position)) in enumerate(table.items()):
            rotation = rotation_z(np.deg2rad(yaw)) @ rotation_xyz(0, np.deg2rad(0.6 + 0.1 * i), 0) @ _CAMERA2BODY
            mount = Mount(translation=position, rotation=tuple(matrix_to_quaternion(rotation).tolist()))
            cameras.append(RigCamera(name=name, width=1600, height=900, fx=focal, fy=focal, cx=816, cy=491, cam2ego=mount))
        # x right, y forward: nuScenes' LIDAR_TOP is turned by -90 degrees.
        lidar = Mount(translation=(0.94, 0.0, 1.84), rotation=tuple(matrix_to_quaternion(rotation_z(-np.pi / 2)).tolist()))
        return cls(cameras=tuple(cameras), lidar=lidar)

    @classmethod
    def from_calibration(cls, path: Path) -> StreetRig:
        """The cameras of a calibration.json or of a rig folder, under the names that an import gives them. Raises DataError.

        Images are not looked at, and the distortion of lenses is left out: imported images have none either.
        """
        cameras = []
        for camera in read_cameras(path):
            height, width = camera.size or (0, 0)
            rotation = tuple(matrix_to_quaternion(camera.cam2ego[:3, :3]).tolist())
            mount = Mount(translation=tuple(camera.cam2ego[:3, 3].tolist()), rotation=rotation)
            (fx, skew, cx), (_, fy, cy), _ = camera.intrinsics.tolist()
            if skew:
                raise DataError(f"camera {camera.name} of {path} has a skew of {skew:g} pixels, but a world's cameras have none: write 0.")
            cameras.append(RigCamera(name=camera.channel, width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy, cam2ego=mount))
        return cls(cameras=tuple(cameras), lidar=cls.nuscenes().lidar)

    @classmethod
    def from_json(cls, path: Path) -> StreetRig:
        """Read a rig file (docs/data.md shows one), or the cameras of a calibration.json or rig folder, with nuScenes' LiDAR.

        Raises:
            ConfigError: it names the wrong field. DataError: a calibration.json that cannot be imported either.
        """
        try:
            if path.is_dir():
                return cls.from_calibration(path)
            content = json.loads(Path(path).read_bytes())
            if path.name == "calibration.json" or _is_calibration(content):
                return cls.from_calibration(path)
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(
                f"the rig file {path} is wrong at '{where}': {first['msg']}. `frustum data world --print-rig` prints a valid one."
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"cannot read the rig file {path}: {error}. Write one with `frustum data world --print-rig > rig.json`."
            ) from error


def _is_calibration(content: Any) -> bool:
    """Whether JSON is a calibration.json, which names images and no LiDAR, and not a rig file."""
    if not isinstance(content, dict) or "lidar" in content or not isinstance(content.get("cameras"), list):
        return False
    keys = {key for entry in content["cameras"] if isinstance(entry, dict) for key in entry}
    of_images = {"image", "images", "intrinsics", "intrinsics_from", "distortion"} & keys
    return bool(of_images or {"frames", "pixel_origin"} & content.keys())
