"""A calibration.json to fill in, with comments: keys that begin with // are not read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from frustum.errors import ConfigError, DataError
from frustum.files import write_bytes
from frustum.geometry import matrix_to_quaternion, rotation_z

_NAMES = ("front", "front_left", "left", "back_left", "back", "back_right", "right", "front_right")  # 45 degrees apart, to the left
_AHEAD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # camera axes in the ego frame
_ABOUT = {
    "//": "Replace every null by a number of yours, then: frustum data import rig FOLDER DST. Keys that begin with // are comments.",
    "// pixel_origin": "what (0, 0) is: the centre of the first pixel (OpenCV, ROS, Kalibr), or its corner",
    "pixel_origin": "centre",
    "// cameras": "metres and pixels; the ego frame is x forward, y left, z up, with z = 0 on the ground",
}
_CAMERA = {
    "// images": "a pattern or a list of files, relative to this folder; the k-th image of each camera makes frame k",
    "// fx": 'pixels, for images of width x height; or "intrinsics_from": a YAML file of ROS or Kalibr, for these and the distortion',
    "// distortion": "[k1, k2, p1, p2, k3] in OpenCV's order; [] for none",
}
_POSE = {
    "// translation": "where the camera is: metres forward, to the left, and above the ground",
    "// rotation": "unit quaternion w, x, y, z of camera axes (x right, y down, z forward) in the ego frame",
}


def write_template(folder: Path, count: int) -> Path:
    """Write calibration.json for `count` cameras into a folder, which is created if needed; it is refused until every null is replaced.

    The cameras are named after the directions that they look to, evenly around the vehicle, and level.

    Raises:
        ConfigError: `count` is not positive. DataError: there is a calibration.json already, or it cannot be written.
    """
    if count < 1:
        raise ConfigError(f"--template {count}: give the number of cameras, 1 or more.")
    path = folder / "calibration.json"
    if path.exists():
        raise DataError(f"{path} exists already and is not overwritten: give another folder, or move it away.")
    content = _ABOUT | {"cameras": [_camera(number, count) for number in range(count)]}
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())
    return path


def _camera(number: int, count: int) -> dict[str, object]:
    yaw = 360 * number / count
    name = _NAMES[round(yaw / 45) % 8] if count <= 8 else f"camera_{number + 1}"
    rotation = matrix_to_quaternion(rotation_z(np.radians(yaw)) @ _AHEAD).round(6).tolist()
    about = {"//": f"the rotation below is that of a level camera that looks {yaw:.0f} degrees to the left of straight ahead"}
    numbers = dict.fromkeys(("fx", "fy", "cx", "cy", "width", "height"))
    camera: dict[str, object] = {"name": name, "images": f"{name}/*.jpg", **numbers, "distortion": []}
    pose = {**(_POSE if number == 0 else {}), "translation": [None] * 3, "rotation": rotation}
    return {**about, **(_CAMERA if number == 0 else {}), **camera, "cam2ego": pose}
