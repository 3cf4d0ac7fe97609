"""Calibrations of other programs as entries of calibration.json: camera_info of ROS and camchain of Kalibr, both YAML.

    {"name": "front", "images": "front/*.png", "intrinsics_from": "front.yaml", "cam2ego": ...}
    {"name": "left", "images": "left/*.png", "intrinsics_from": "camchain.yaml", "kalibr_camera": "cam1"}

give `intrinsics`, `width`, `height`, `distortion` and `distortion_model`. Kalibr also knows where its cameras are to each other: of those
of one file a single one needs its `cam2ego`. Both count pixels from the centre of the first one, as OpenCV does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]  # a dependency of accelerate

from frustum.errors import DataError, nearest_names
from frustum.files import check_is_file, inside

FILE, CAMERA = "intrinsics_from", "kalibr_camera"
_GIVEN = ("intrinsics", "fx", "fy", "cx", "cy", "width", "height", "distortion", "distortion_model")  # by the file, so not by the entry
_OF_LENS = ("distortion_coefficients", "D", "d")
_KNOWN = "It must be a camera_info of ROS (camera_matrix or K, image_width) or a camchain of Kalibr (cam0, cam1, ...)"


def with_files(entries: Iterable[Any], src: Path, shift: float, read_pose: Callable[[Any, str], np.ndarray]) -> list[Any]:
    """Entries of "cameras" with what the files say that they name, in the keys of calibration.json; others as they are.

    Args:
        entries: of calibration.json.
        src: its folder, in which the files lie.
        shift: added to cx and cy, 0.5 where calibration.json counts pixels from the corner.
        read_pose: a 4x4 transform from how calibration.json writes one; its second argument names it in messages.

    Raises:
        DataError: a file is missing, damaged or of another kind, it lacks the camera, or an entry repeats what the file says.
    """
    filled: list[Any] = []
    chains: dict[str, list[tuple[dict[str, Any], np.ndarray, str]]] = {}  # by file: entry, from its first camera, name
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or FILE not in entry:
            filled.append(entry)
            continue
        what = f"camera {entry.get('name', number)} in {src / 'calibration.json'}"
        twice = [key for key in _GIVEN if key in entry]
        if twice:
            raise DataError(f"{what} gives {', '.join(twice)} and {FILE}, which says them too: leave out one or the other.")
        file = str(entry[FILE])
        content = _read(inside(src, file), what)
        if "cam0" in content:
            first2own, said = _of_kalibr(content, entry, f"{file}, named by {what},")
        else:
            first2own, said = None, _of_ros(content, f"{file}, named by {what},")
        said["intrinsics"][0][2] += shift
        said["intrinsics"][1][2] += shift
        filled.append({key: value for key, value in entry.items() if key not in (FILE, CAMERA)} | said)
        if first2own is not None:
            chains.setdefault(file, []).append((filled[-1], first2own, what))
    for members in chains.values():
        known = next(((entry, first2own, what) for entry, first2own, what in members if "cam2ego" in entry), None)
        if known is None:
            continue  # the importer says that it lacks its pose
        first2ego = read_pose(known[0]["cam2ego"], f"cam2ego of {known[2]}") @ known[1]
        for entry, first2own, _ in members:
            if "cam2ego" not in entry:
                entry["cam2ego"] = (first2ego @ np.linalg.inv(first2own)).tolist()
    return filled


def _read(path: Path, what: str) -> dict[str, Any]:
    """The first document of a YAML file: of recorded camera_info, the first message."""
    check_is_file(path, "calibration")
    try:
        content = next(iter(yaml.safe_load_all(path.read_text(encoding="utf-8"))), None)
    except OSError as error:
        raise DataError(f"{what} names the calibration {path}, which cannot be read ({error.strerror or error}).") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        first = " ".join(str(error).split())[:160]
        raise DataError(f"{what} names the calibration {path}, which is not valid YAML ({first}). {_KNOWN}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{what} names the calibration {path}, which holds no keys. {_KNOWN}.")
    return content


def _of_ros(content: dict[str, Any], what: str) -> dict[str, Any]:
    """From what camera_calibration saves (camera_matrix, ...) or `rostopic echo` prints (K, D, ...)."""

    def numbers(*names: str) -> list[Any]:
        found = next((content[name] for name in names if name in content), None)
        found = found.get("data") if isinstance(found, dict) else found
        return list(found) if isinstance(found, list | tuple) else []

    matrix = numbers("camera_matrix", "K", "k")
    width, height = (next((content[n] for n in (f"image_{side}", side) if n in content), None) for side in ("width", "height"))
    if len(matrix) != 9 or width is None or height is None:
        raise DataError(f"{what} does not say the camera matrix (9 numbers) and the size of the image. {_KNOWN}.")
    if not any(isinstance(content.get(name), dict | list) for name in _OF_LENS):
        raise DataError(f"{what} does not say the distortion of the lens (distortion_coefficients or D). If it has none, write D: [].")
    said = {"intrinsics": [_floats(matrix[i : i + 3], what) for i in (0, 3, 6)], "width": width, "height": height}
    return said | _lens(content.get("distortion_model"), numbers(*_OF_LENS))


def _of_kalibr(content: dict[str, Any], entry: dict[str, Any], what: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The transform from the first camera of the file to this one (4, 4), and what is said of it."""
    cameras = [name for name in content if str(name).startswith("cam") and isinstance(content[name], dict)]
    name = entry.get(CAMERA, entry.get("name") if entry.get("name") in cameras else cameras[0] if len(cameras) == 1 else None)
    if name not in cameras:
        hint = nearest_names(str(name), cameras) if name else f'say which it is: "{CAMERA}": {cameras[0]!r}.'.replace("'", '"')
        raise DataError(f"{what} holds the cameras {', '.join(cameras)}; {hint}")
    camera = content[name]
    if camera.get("camera_model", "pinhole") != "pinhole":
        model = camera["camera_model"]
        raise DataError(f"{what} has the camera_model {model!r} for {name}; calibrate it as pinhole with radtan or equidistant distortion.")
    values, size = camera.get("intrinsics"), camera.get("resolution")
    if not isinstance(values, list) or len(values) != 4 or not isinstance(size, list) or len(size) != 2:
        raise DataError(f"{what} lacks the intrinsics (4 numbers) or the resolution (2 numbers) of {name}.")
    fx, fy, cx, cy = _floats(values, what)
    said = {"intrinsics": [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], "width": size[0], "height": size[1]}
    said |= _lens(camera.get("distortion_model", "none"), camera.get("distortion_coeffs") or [])
    return _from_first(content, cameras, name, what), said


def _from_first(content: dict[str, Any], cameras: list[str], name: str, what: str) -> np.ndarray:
    """From cam0 to a camera: the chain T_cn_cnm1 of all cameras between, or by the IMU that all know (T_cam_imu)."""
    ordered = sorted(cameras, key=lambda camera: (len(camera), camera))
    between = ordered[1 : ordered.index(name) + 1]
    if all("T_cn_cnm1" in content[camera] for camera in between):
        first2own = np.eye(4)
        for camera in between:
            first2own = _matrix(content[camera]["T_cn_cnm1"], f"T_cn_cnm1 of {camera} in {what}") @ first2own
        return first2own
    if not all("T_cam_imu" in content[camera] for camera in (ordered[0], name)):
        raise DataError(
            f"{what} lacks T_cn_cnm1 of {', '.join(between)}: calibrate these cameras together, or give each a file of its own."
        )
    imu2first, imu2own = (_matrix(content[camera]["T_cam_imu"], f"T_cam_imu of {camera} in {what}") for camera in (ordered[0], name))
    return imu2own @ np.linalg.inv(imu2first)


def _lens(model: Any, coefficients: list[Any]) -> dict[str, Any]:
    """Kalibr's and ROS's names of models are those of calibration.json; a fisheye lens without coefficients is refused there."""
    return {"distortion": coefficients, "distortion_model": model} if model else {"distortion": coefficients}


def _matrix(rows: Any, what: str) -> np.ndarray:
    matrix = np.array([_floats(row, what) for row in rows]) if isinstance(rows, list) else np.zeros(0)
    if matrix.shape != (4, 4) or abs(np.linalg.det(matrix)) < 1e-6:
        raise DataError(f"{what} is no 4x4 transform.")
    return matrix


def _floats(values: Any, what: str) -> list[float]:
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{what} must hold numbers, got {values!r:.100}.") from error
