"""Import your own cameras: `frustum data import rig SRC DST` turns images + calibration.json into a database for prediction.

calibration.json, everything in metres, pixels and seconds:

    {"cameras": [
        {"name": "front",
         "images": "front/*.jpg",                          or a list of files, or "image": "front.jpg"
         "fx": 910.0, "fy": 908.5, "cx": 640.2, "cy": 361.7,      or "intrinsics": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
         "distortion": [k1, k2, p1, p2, k3],               optional; in OpenCV's order
         "distortion_model": "plumb_bob",                  optional; pinhole, plumb_bob, rational or equidistant (fisheye)
         "field_of_view": 100,                             optional; degrees across the image, once a lens is undone
         "width": 1280, "height": 720,                     optional; checked against the images
         "cam2ego": {"translation": [1.5, 0.0, 1.6], "rotation": [w, x, y, z]}}       or a 4x4 matrix
     ],
     "pixel_origin": "centre",       optional: where (0, 0) is: the centre of the first pixel (OpenCV, ROS, Kalibr) or its "corner"
     "time_unit": "s",               optional: of the timestamps below: s, ms, us or ns
     "stands_still": true,           optional: the rig does not move; networks over time need to know
     "frames": [                     optional; without it frame k is the k-th image of every camera, half a second apart
        {"timestamp": 0.0, "ego2global": ..., "images": {"front": "front/0001.jpg"}}]}

Keys that begin with // are comments. "intrinsics_from" names a YAML file of ROS or Kalibr instead of the lens (`camera_files`).

The camera frame is x right, y down, z forward, the ego frame x forward, y left, z up with z = 0 on the ground.

Where frames lack poses, and without "stands_still", the data set says that they are unknown: networks that join frames over time then
refuse it; others do not need poses.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from frustum.data.lenses import Lens, lens_of
from frustum.data.nuscenes.records import OWN_RIG, KeyframeRecord, SampleDataRecord, SceneRecord, SensorRecord
from frustum.data.nuscenes.writer import DatabaseWriter
from frustum.data.rig.camera_files import with_files
from frustum.data.rig.images import common_size, pinhole_and_note, require_pixels, store_image
from frustum.data.rig.order import in_number_order, note_listed_order, require_one_numbering
from frustum.data.rig.units import TIME_UNITS, require_metres, require_speed, require_times
from frustum.errors import DataError, nearest_names
from frustum.files import inside, read_json
from frustum.geometry import pose, quaternion_to_matrix
from frustum.geometry.plausible import IMAGE_SIZE, first_fault, intrinsics_fault, pose_fault, pose_row_fault
from frustum.locks import owning

_TOP_KEYS = {"cameras", "frames", "pixel_origin", "stands_still", "time_unit"}
_CAMERA_KEYS = {
    "name", "image", "images", "width", "height", "intrinsics", "fx", "fy", "cx", "cy", "distortion", "distortion_model",
    "field_of_view", "cam2ego",
}  # fmt: skip
_FRAME_KEYS = {"timestamp", "ego2global", "images"}
_EXAMPLE = "docs/your_own_cameras.md shows one"
_FRAME_SECONDS = 0.5
_FIRST_DATE = 1e8  # seconds since 1970; smaller times count from the start of a recording
_START = 1_600_000_000_000_000  # microseconds since 1970


@dataclass(frozen=True)
class RigCamera:
    """One camera of calibration.json."""

    name: str
    intrinsics: np.ndarray  # (3, 3), corner-origin pixels
    cam2ego: np.ndarray  # (4, 4)
    lens: Lens | None  # None without distortion
    field_of_view: float | None  # degrees across the image, once the lens is undone; None keeps the focal length
    size: tuple[int, int] | None  # (height, width) as stated
    files: tuple[Path, ...]  # in time order; empty when `frames` name them

    @property
    def channel(self) -> str:
        """Its name in the database."""
        return self.name if self.name.upper().startswith("CAM") else f"CAM_{self.name.upper()}"


@dataclass(frozen=True)
class RigFrame:
    """One moment: the ego pose and one image per camera."""

    timestamp: float  # seconds
    ego2global: np.ndarray | None  # (4, 4); None where unknown
    images: dict[str, Path]


@owning("dst", "frustum data import rig", "as DST")
def import_rig(
    src: Path | str,
    dst: Path | str,
    *,
    version: str = "v1.0-trainval",
    scene: str | None = None,
    overwrite: bool = False,
    link: bool = False,
) -> dict[str, Any]:
    """Import the folder `src` (images + calibration.json) into the database `dst`; lens distortion is taken out of the images.

    The new scene joins the split `test`. It has no LiDAR, boxes or labels. Scenes of one database must start at different times, so times
    that are not dates (those before 1973) are moved to a date that follows from the scene's name.

    Args:
        src: the rig folder.
        dst: root of the database.
        version: folder of the tables.
        scene: name of the new scene; by default that of the folder.
        overwrite: replace another recording that is there under this name.
        link: give images that need not change a second name instead of copying them: whoever edits one then edits the other.

    Returns:
        Numbers for a summary: scene, cameras, frames, undistorted images, and whether the recording is new (the same one again is not).

    Raises:
        DataError: calibration.json or an image is missing, damaged or inconsistent, another recording of this name is there, or `dst`
            cannot be written.
    """
    src = Path(src)
    cameras, frames = read_rig(src)
    scene = (scene or src.resolve().name).replace(" ", "-") or "rig"
    sizes = {c.name: common_size([frame.images[c.name] for frame in frames], c.size, c.intrinsics, c.name) for c in cameras}
    pinholes = {c.name: pinhole_and_note(c.intrinsics, c.lens, sizes[c.name], c.field_of_view, c.name) for c in cameras}
    fingerprint = _fingerprint(src, cameras, frames)
    writer = DatabaseWriter(dst, version)
    undistorted = len(frames) * sum(c.lens is not None for c in cameras)
    summary = {"scene": scene, "cameras": [c.channel for c in cameras], "frames": len(frames), "undistorted_images": undistorted}
    if not overwrite and _is_there(writer, scene, fingerprint):
        writer.finish({"test": [scene]}, keep_splits=True)
        return summary | {"is_new": False}
    start = 0 if frames[0].timestamp > _FIRST_DATE else _START + zlib.crc32(scene.encode()) * 100_000
    writer.prepare({scene: start + round(frames[0].timestamp * 1e6)})
    keyframes = []
    for frame in frames:
        micro, data = start + round(frame.timestamp * 1e6), []
        ego2global = np.eye(4) if frame.ego2global is None else frame.ego2global
        for camera in cameras:
            source = frame.images[camera.name]
            suffix = ".png" if source.suffix.lower() == ".png" else ".jpg"
            target = f"samples/{camera.channel}/{scene}__{camera.channel}__{micro}{suffix}"
            intrinsics = {"lens": camera.intrinsics, "pinhole": pinholes[camera.name]}
            store_image(source, writer.root / target, camera.lens, intrinsics, link)
            data.append(SampleDataRecord(camera.channel, micro, target, ego2global, sizes[camera.name]))
        keyframes.append(KeyframeRecord(micro, tuple(data)))
    sensors = tuple(SensorRecord(c.channel, "camera", c.cam2ego, pinholes[c.name]) for c in cameras)
    has_poses = len(frames) == 1 or all(frame.ego2global is not None for frame in frames)
    about = f"imported from {src.name}"
    writer.add_scene(
        SceneRecord(
            scene, sensors, tuple(keyframes), description=about, location=OWN_RIG, vehicle="own", has_poses=has_poses,
            fingerprint=fingerprint,
        )
    )  # fmt: skip
    writer.finish({"test": [scene]}, keep_splits=True)
    return summary | {"is_new": True}


def _fingerprint(src: Path, cameras: list[RigCamera], frames: list[RigFrame]) -> str:
    """What makes a recording: calibration.json, and the content of the images in their order."""
    digest = hashlib.blake2b(f"rig {json.dumps(_content(src / 'calibration.json'), sort_keys=True)}".encode(), digest_size=16)
    for frame in frames:
        for camera in cameras:
            digest.update(hashlib.blake2b(frame.images[camera.name].read_bytes()).digest())
    return digest.hexdigest()


def _is_there(writer: DatabaseWriter, scene: str, fingerprint: str) -> bool:
    """Whether this very recording is in the database. Raises DataError when another one has its name."""
    if writer.has_scene(scene, fingerprint):
        return True
    for name in writer.scenes():
        if name.casefold() == scene.casefold():
            replaced = " or replace it with --overwrite (its calibration or images were corrected)," if name == scene else ""
            raise DataError(
                f"{writer.root} already has the scene {name}, and this is another recording, or other settings. Give it a name of its own, "
                f"--scene {scene}-2,{replaced} or choose another folder."
            )
    return False


def read_rig(src: Path | str) -> tuple[list[RigCamera], list[RigFrame]]:
    """Read and check calibration.json. Raises DataError (see `import_rig`)."""
    src = Path(src)
    path = src / "calibration.json"
    _require(path.is_file(), f"{path} does not exist; a rig folder holds images and a calibration.json ({_EXAMPLE}).")
    content = _content(path)
    has_frames = content.get("frames") is not None
    cameras = [_camera(entry, i, src, _shift(content), has_frames) for i, entry in enumerate(content["cameras"])]
    _require_own_names(cameras, path)
    names = [c.name for c in cameras]
    unit = content.get("time_unit")
    _require(unit is None or unit in TIME_UNITS, f'"time_unit" in {path} is {unit!r}; it must be "s", "ms", "us" or "ns".')
    frames = _frames(content["frames"], names, src, path, unit) if has_frames else _paired_frames(cameras, path)
    for number, frame in enumerate(frames):
        for name, file in frame.images.items():
            twin = next(other for other, path_ in frame.images.items() if path_ == file)
            _require(twin == name, f"{path} gives the cameras {twin} and {name} one and the same image in frame {number}: {file}.")
    stands_still = content.get("stands_still", False)
    _require(isinstance(stands_still, bool), f'"stands_still" in {path} is {stands_still!r}; it must be true or false.')
    num_poses = sum(frame.ego2global is not None for frame in frames)
    if stands_still and num_poses:
        raise DataError(f'{path} says "stands_still", but {num_poses} of its frames have an ego2global. Leave out one or the other.')
    return cameras, [replace(frame, ego2global=np.eye(4)) for frame in frames] if stands_still else frames


def read_cameras(path: Path | str) -> list[RigCamera]:
    """The cameras of a calibration.json, or of that in a rig folder, all with a size and as pinholes, as they are imported.

    Images are read only for sizes that are not stated.

    Raises:
        DataError: as `read_rig`, or a size is neither stated nor that of an image.
    """
    path = Path(path) / "calibration.json" if Path(path).is_dir() else Path(path)
    content, cameras = _content(path), []
    for number, entry in enumerate(content["cameras"]):
        bare = {key: value for key, value in entry.items() if key not in ("image", "images")} if isinstance(entry, dict) else entry
        camera = _camera(bare, number, path.parent, _shift(content), has_frames=True)
        size = camera.size
        if size is None:
            what = f"camera {camera.name} in {path}"
            try:
                first = (content.get("frames") or [{}])[0].get("images", {}).get(camera.name)
                file = _listed_images(entry, path.parent, what)[0] if first is None else _existing(path.parent, str(first), what)
            except (DataError, AttributeError, KeyError) as error:
                raise DataError(f'{what} has no image here, so it must state the size of its images: add "width" and "height".') from error
            size = common_size([file], None, camera.intrinsics, camera.name)
        require_pixels(camera.intrinsics, size, camera.name)
        pinhole = pinhole_and_note(camera.intrinsics, camera.lens, size, camera.field_of_view, camera.name)
        cameras.append(replace(camera, size=size, intrinsics=pinhole, lens=None, field_of_view=None))
    _require_own_names(cameras, path)
    return cameras


def _require_own_names(cameras: list[RigCamera], path: Path) -> None:
    """Raise DataError for two cameras of one channel."""
    for i, camera in enumerate(cameras):
        for other in cameras[:i]:
            _require(
                camera.channel.casefold() != other.channel.casefold(),
                f"{path} names a camera twice: {other.name} and {camera.name} are both {other.channel}, and files do not differ in upper "
                "and lower case everywhere. Give every camera its own name.",
            )


def _content(path: Path) -> dict[str, Any]:
    """What calibration.json holds, with what the files of other programs say that it names."""
    content = read_json(path, "calibration")
    _check_keys(content, _TOP_KEYS, f"{path}")
    listed, origin = content.get("cameras"), content.get("pixel_origin", "centre")
    _require(isinstance(listed, list) and listed, f'{path} needs "cameras": a list with one entry per camera ({_EXAMPLE}).')
    _require(origin in ("centre", "corner"), f'pixel_origin in {path} is {origin!r}; it must be "centre" (as in OpenCV) or "corner".')
    return content | {"cameras": with_files(listed, path.parent, 0.5 - _shift(content), _pose)}


def _shift(content: dict[str, Any]) -> float:
    """From the pixels of calibration.json to ours, whose origin is the corner."""
    return 0.5 if content.get("pixel_origin", "centre") == "centre" else 0.0


def _camera(entry: Any, number: int, src: Path, shift: float, has_frames: bool) -> RigCamera:
    what = f"camera {entry.get('name', number) if isinstance(entry, dict) else number} in {src / 'calibration.json'}"
    _check_keys(entry, _CAMERA_KEYS, what)
    name = entry.get("name")
    if not isinstance(name, str) or not name or not all(c.isalnum() or c in "_-" for c in name):
        raise DataError(f"{what} needs a name of letters, digits, _ and -, got {name!r}.")
    twice = [key for key in ("fx", "fy", "cx", "cy") if key in entry and "intrinsics" in entry]
    _require(not twice, f"{what} gives intrinsics and {', '.join(twice)}, which say the same: leave out one or the other.")
    if "intrinsics" in entry:
        intrinsics = _numbers(entry["intrinsics"], (3, 3), f"intrinsics of {what}")
    else:
        lacking = [k for k in ("fx", "fy", "cx", "cy") if k not in entry]
        _require(not lacking, f"{what} lacks {', '.join(lacking)}; give fx, fy, cx, cy or a 3x3 intrinsics matrix, in pixels.")
        fx, fy, cx, cy = (float(_numbers(entry[k], (), f"{k} of {what}")) for k in ("fx", "fy", "cx", "cy"))
        intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    if (found := intrinsics_fault(intrinsics)) is not None:
        hint = "Focal lengths are in pixels, not millimetres or shares of the image: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]."
        raise DataError(f"the intrinsics of {what} cannot be right: {found.words} {hint}")
    intrinsics[:2, 2] += shift
    lens = lens_of(entry.get("distortion_model"), entry.get("distortion"), what)
    field_of_view = None
    if "field_of_view" in entry:
        field_of_view = float(_numbers(entry["field_of_view"], (), f"field_of_view of {what}"))
        _require(10 <= field_of_view <= 160, f'"field_of_view" of {what} is {field_of_view:g}; it must be 10 to 160 degrees across.')
    size = None
    if "width" in entry or "height" in entry:
        sides = [float(_numbers(entry.get(k), (), f"{k} of {what}")) for k in ("height", "width")]
        if (found := first_fault(sides, IMAGE_SIZE)) is not None:
            raise DataError(f"the size of {what} cannot be right: {found.words}")
        is_whole = all(side.is_integer() for side in sides)
        _require(is_whole, f"{what} has a width of {sides[1]:g} and a height of {sides[0]:g}; they are whole numbers of pixels.")
        size = int(sides[0]), int(sides[1])
    if "cam2ego" not in entry:
        raise DataError(f'{what} lacks cam2ego, its pose: {{"translation": [x, y, z], "rotation": [w, x, y, z]}} or a 4x4 matrix.')
    cam2ego = _pose(entry["cam2ego"], f"cam2ego of {what}")
    require_metres(cam2ego, f"cam2ego of {what}")
    files = () if has_frames and not {"image", "images"} & entry.keys() else _listed_images(entry, src, what)
    return RigCamera(name, intrinsics, cam2ego, lens, field_of_view, size, files)


def _listed_images(entry: dict[str, Any], src: Path, what: str) -> tuple[Path, ...]:
    given = entry.get("images", entry.get("image"))
    if isinstance(given, str) and any(c in given for c in "*?["):
        _require(not Path(given).is_absolute() and ".." not in Path(given).parts, f"the images {given!r} of {what} must lie in {src}.")
        try:
            found = [path for path in src.glob(given) if path.is_file()]
        except (ValueError, OSError) as error:  # "**a", a name that is too long
            raise DataError(f"the images {given!r:.200} of {what} cannot be a pattern of files: {error!s:.200}.") from error
        files = in_number_order(found, src, what)
        _require(files, f"no file matches the images {given!r} of {what}.")
        return tuple(inside(src, file) for file in files)
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not given or not all(isinstance(g, str) for g in given):
        raise DataError(f'{what} needs "images": a pattern such as "front/*.jpg" or a list of files, relative to the folder.')
    files = tuple(_existing(src, g, what) for g in given)
    note_listed_order(files, what)
    return files


def _paired_frames(cameras: list[RigCamera], path: Path) -> list[RigFrame]:
    counts = {c.name: len(c.files) for c in cameras}
    if len(set(counts.values())) > 1:
        raise DataError(f'the cameras of {path} have different numbers of images ({counts}); list them moment by moment under "frames".')
    require_one_numbering({c.name: c.files for c in cameras}, path)
    moments = enumerate(zip(*(c.files for c in cameras), strict=True))
    return [RigFrame(k * _FRAME_SECONDS, None, dict(zip(counts, files, strict=True))) for k, files in moments]


def _frames(listed: Any, names: list[str], src: Path, path: Path, unit: str | None) -> list[RigFrame]:
    _require(isinstance(listed, list) and listed, f'"frames" in {path} must list one frame or more; leave it out to pair images by order.')
    frames: list[RigFrame] = []
    has_times = any(isinstance(entry, dict) and "timestamp" in entry for entry in listed)
    for i, entry in enumerate(listed):
        what = f"frame {i} in {path}"
        _check_keys(entry, _FRAME_KEYS, what)
        images = entry.get("images")
        _require(isinstance(images, dict), f'{what} needs "images": {{camera name: file}}.')
        for name in images:
            _require(name in names, f"{what} has an image of the unknown camera {name!r}; {nearest_names(name, names)}")
        lacking = [name for name in names if name not in images]
        _require(not lacking, f"{what} has no image of {', '.join(lacking)}; every frame needs one of each camera.")
        _require(not has_times or "timestamp" in entry, f"{what} has no timestamp, but others have; give each frame its own.")
        stamp = float(_numbers(entry.get("timestamp", i * _FRAME_SECONDS), (), f"timestamp of {what}"))
        ego2global = _pose(entry["ego2global"], f"ego2global of {what}") if "ego2global" in entry else None
        frames.append(RigFrame(stamp, ego2global, {name: _existing(src, str(file), what) for name, file in images.items()}))
    if not has_times:
        for name in names:
            note_listed_order([frame.images[name] for frame in frames], f"camera {name} in {path}")
    frames.sort(key=lambda f: f.timestamp)
    if has_times:
        require_times([frame.timestamp for frame in frames], unit, path)
        frames = [replace(frame, timestamp=frame.timestamp * TIME_UNITS[unit or "s"]) for frame in frames]
    require_speed([frame.timestamp for frame in frames], [frame.ego2global for frame in frames], path)
    return frames


def _require(condition: Any, problem: str) -> None:
    """Raise DataError with the text `problem` unless the condition holds."""
    if not condition:
        raise DataError(problem)


def _existing(src: Path, name: str, what: str) -> Path:
    path = inside(src, name)
    _require(path.is_file(), f"{what} names the image {path}, which does not exist. Paths are relative to the folder of calibration.json.")
    return path


def _check_keys(entry: Any, known: set[str], what: str) -> None:
    _require(isinstance(entry, dict), f"{what} must be a JSON object, got {type(entry).__name__}.")
    for key in entry:
        _require(key in known or key.startswith("//"), f"{what} has the unknown key {key!r}; {nearest_names(key, known)}")


def _numbers(value: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """A finite float array of that shape. Raises DataError."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{what} must be numbers, got {value!r:.200}.") from error
    needed = "a finite number" if shape == () else f"finite numbers of shape {shape}"
    _require(array.shape == shape and np.isfinite(array).all(), f"{what} must be {needed}, got {value!r:.200}.")
    return array


def _pose(value: Any, what: str) -> np.ndarray:
    """A rigid 4x4 transform from a matrix or translation and quaternion. Raises DataError."""
    if isinstance(value, dict):
        _check_keys(value, {"translation", "rotation"}, what)
        quaternion = _numbers(value.get("rotation"), (4,), f"rotation (w, x, y, z) in {what}")
        translation = _numbers(value.get("translation"), (3,), f"translation in {what}")
        if (found := pose_row_fault([*translation, *quaternion])) is not None:
            raise DataError(f"{what} cannot be right: {found.words} Its rotation is a unit quaternion w, x, y, z.")
        return pose(quaternion_to_matrix(quaternion), translation)
    matrix = _numbers(value, (4, 4), what)
    if (found := pose_fault(matrix)) is not None:
        raise DataError(f"{what} cannot be right: {found.words}")
    return matrix
