"""The raw recordings of KITTI on disk: calibration, GPS/IMU poses, LiDAR scans and tracklets of one synchronised drive.

Layout (Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013): `<date>/calib_*.txt` next to
`<date>/<date>_drive_<number>_sync/{image_02,image_03,oxts,velodyne_points}` and, where annotated, `tracklet_labels.xml` in the drive.
`data.kitti.importer` turns a drive into this project's database format.
"""

from __future__ import annotations

import math
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from frustum.data.pixels import read_image
from frustum.errors import DataError, FrustumWarning
from frustum.files import check_is_file, inside
from frustum.geometry import pose, rotation_xyz, rotation_z
from frustum.geometry.plausible import BOX, NEAR, POINT, Bounds, Fault, first_fault, intrinsics_fault, plausible_points, pose_fault

_EARTH_RADIUS = 6378137.0
_SPIN_SECONDS = 0.1
IMAGE_FOLDERS = ("image_02", "image_03")
_SUFFIXES = dict.fromkeys(IMAGE_FOLDERS, (".png", ".jpg", ".jpeg")) | {"velodyne_points": (".bin",), "oxts": (".txt",)}
_READ = [0, 1, 2, 3, 4, 5, 8, 9, 10, 17, 18, 19]  # of the numbers of a GPS/IMU file
_OXTS = (
    Bounds("the latitude", -89, 89, " degrees"),
    Bounds("the longitude", -180, 180, " degrees"),
    Bounds("the altitude", -NEAR, NEAR, " m"),
    *(Bounds(name, -7, 7, " rad") for name in ("roll", "pitch", "yaw")),
    *(Bounds(f"the velocity {name}", -300, 300, " m/s") for name in ("forward", "leftward", "upward")),
    *(Bounds(f"the turn rate {name}", -100, 100, " rad/s") for name in ("forward", "leftward", "upward")),
)
_CATEGORY_OF_KIND = {
    "Car": "vehicle.car", "Van": "vehicle.car", "Truck": "vehicle.truck", "Pedestrian": "human.pedestrian.adult",
    "Person (sitting)": "human.pedestrian.adult", "Cyclist": "vehicle.bicycle", "Tram": "vehicle.bus.rigid",
}  # fmt: skip


@dataclass(frozen=True)
class Track:
    """One annotated object: its KITTI type, size and pose in every frame of its life."""

    kind: str
    size: np.ndarray  # (3,) length, width, height in metres
    first_frame: int
    box2lidar: np.ndarray  # (F, 4, 4), box origin at its centre
    occlusion: np.ndarray  # (F,) int, 0 visible, 1 partly, 2 fully hidden, -1 unknown

    @property
    def category(self) -> str:
        """Its category in nuScenes."""
        return _CATEGORY_OF_KIND.get(self.kind, "movable_object.pushable_pullable")


@dataclass(frozen=True)
class KittiDrive:
    """One synchronised drive. All lists and arrays are indexed by position in `frames`, the file numbers that every sensor has."""

    name: str
    frames: tuple[int, ...]
    images: dict[str, tuple[Path, ...]]  # by image folder
    scans: tuple[Path, ...]
    intrinsics: dict[str, np.ndarray]  # (3, 3), corner-origin pixels
    lidar2cam: dict[str, np.ndarray]  # (4, 4)
    lidar2imu: np.ndarray  # (4, 4)
    imu2global: np.ndarray  # (F, 4, 4), origin at the first frame, x east, y north, z up
    twist: np.ndarray  # (F, 6) velocity (m/s) and turn rate (rad/s) in IMU axes
    timestamps: dict[str, np.ndarray]  # seconds, by sensor folder
    tracks: tuple[Track, ...]

    def __len__(self) -> int:
        return len(self.frames)

    def boxes(self, index: int) -> dict[int, np.ndarray]:
        """box2lidar (4, 4) of the tracks that are annotated at a position in `frames`, by their position in `tracks`."""
        ages = [(t, track.box2lidar, self.frames[index] - track.first_frame) for t, track in enumerate(self.tracks)]
        return {t: poses[age] for t, poses, age in ages if 0 <= age < len(poses)}

    def scan(self, index: int) -> np.ndarray:
        """Points (P, 5) float32 of one turn: x, y, z in the LiDAR frame, reflectance 0..1, ring (0 = lowest beam).

        The motion of the car during the turn is taken out: every point is moved to the moment the beam looked straight ahead.
        """
        check_is_file(self.scans[index], "LiDAR file")
        raw = np.fromfile(self.scans[index], np.float32)
        if raw.size == 0 or raw.size % 4:
            raise DataError(f"{self.scans[index]} holds {raw.size} floats, not a multiple of 4 (x, y, z, reflectance). Unpack it again.")
        raw = raw.reshape(-1, 4)
        raw = raw[plausible_points(raw, self.scans[index])]
        points = raw[:, :3].astype(np.float64)
        seconds = np.arctan2(points[:, 1], points[:, 0]) / (2 * np.pi) * _SPIN_SECONDS  # counter-clockwise, 0 straight ahead
        imu2lidar = self.lidar2imu[:3, :3].T
        velocity, turn = imu2lidar @ self.twist[index, :3], imu2lidar @ self.twist[index, 3:]
        points += seconds[:, None] * (velocity + np.cross(turn, points))
        return np.column_stack([points, raw[:, 3], rings(raw)]).astype(np.float32)


def rings(points: np.ndarray, count: int = 64) -> np.ndarray:
    """Beam numbers (P,), 0 = lowest, of a scan (P, >=3) whose file lost them.

    The files list one beam after another from the top, each with rising azimuth, so the drops of azimuth count the beams; where that
    count is implausible (points were shuffled or removed) the elevation is cut into `count` equal parts instead.
    """
    azimuth = np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi)
    turn = np.concatenate([[0], np.cumsum(np.diff(azimuth) < -0.3)])
    if 0.6 * count <= turn[-1] + 1 <= count:
        return turn[-1] - turn
    elevation = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
    low, high = np.radians(-24.9), np.radians(2.0)
    return np.clip((elevation - low) / (high - low) * count, 0, count - 1).astype(np.int64)


def find_drives(src: Path) -> list[Path]:
    """The drive folders at or below `src`: a KITTI raw root, a date folder, or one drive. Raises DataError if there is none."""
    src = Path(src)
    if (src / "oxts").is_dir():
        return [src]
    for pattern in ("*_drive_*", "*/*_drive_*"):
        if found := sorted(p for p in src.glob(pattern) if (p / "oxts").is_dir()):
            return found
    raise DataError(
        f"no KITTI raw drive found in {src}: expected <date>/<date>_drive_<number>_sync/oxts below it. "
        "Unpack the archives of one drive (synced data, calibration, tracklets) into one folder and give that folder."
    )


def open_drive(folder: Path) -> KittiDrive:
    """Read everything of one drive but images and points.

    Raises:
        DataError: a calibration file, sensor folder, or timestamp is missing or damaged; the text names it.
    """
    folder = Path(folder).resolve()
    if folder.name.endswith("_extract"):
        raise DataError(
            f"{folder} is the unrectified download, whose images have the distortion of their lens. Give the drive's _sync folder."
        )
    cam_to_cam = folder.parent / "calib_cam_to_cam.txt"
    lidar2cam0 = _transform(folder.parent / "calib_velo_to_cam.txt")
    imu2lidar = _transform(folder.parent / "calib_imu_to_velo.txt")
    rectify = pose(_calibration(cam_to_cam, "R_rect_00", 3, 3), np.zeros(3))
    intrinsics, lidar2cam = {}, {}
    for name in IMAGE_FOLDERS:
        projection = _calibration(cam_to_cam, f"P_rect_{name[-2:]}", 3, 4)
        shift = pose(np.eye(3), np.linalg.solve(projection[:, :3], projection[:, 3]))
        intrinsics[name], lidar2cam[name] = projection[:, :3].copy(), shift @ rectify @ lidar2cam0
        intrinsics[name][:2, 2] += 0.5  # KITTI counts from the centre of the first pixel, we from its corner
        _require(f"P_rect_{name[-2:]} in {cam_to_cam}", intrinsics_fault(intrinsics[name]))
    numbered: dict[str, dict[int, Path]] = {}
    for sensor, suffixes in _SUFFIXES.items():
        files = sorted((folder / sensor / "data").glob("*"))
        numbered[sensor] = {int(p.stem): inside(folder, p) for p in files if p.suffix.lower() in suffixes and p.stem.isdigit()}
        if not numbered[sensor]:
            raise DataError(
                f"the KITTI drive {folder} has no files in {sensor}/data ({', '.join(suffixes)}). It needs image_02, image_03, oxts and "
                "velodyne_points of the synced and rectified download; restore that folder."
            )
    frames = tuple(sorted(set.intersection(*(set(files) for files in numbered.values()))))
    if not frames:
        raise DataError(f"no frame number of {folder} has images, LiDAR and GPS/IMU alike: the folders belong to different drives?")
    _note_left_out(numbered, frames, folder)
    for name in IMAGE_FOLDERS:
        _require_rectified(numbered[name][frames[0]], cam_to_cam, name)
    oxts = np.array([_read_oxts(numbered["oxts"][i]) for i in frames])
    return KittiDrive(
        name=folder.name,
        frames=frames,
        images={name: tuple(numbered[name][i] for i in frames) for name in IMAGE_FOLDERS},
        scans=tuple(numbered["velodyne_points"][i] for i in frames),
        intrinsics=intrinsics,
        lidar2cam=lidar2cam,
        lidar2imu=np.linalg.inv(imu2lidar),
        imu2global=oxts_poses(oxts),
        twist=oxts[:, [8, 9, 10, 17, 18, 19]],
        timestamps={s: _read_timestamps(folder / s / "timestamps.txt", frames) for s in (*IMAGE_FOLDERS, "velodyne_points")},
        tracks=read_tracklets(folder / "tracklet_labels.xml"),
    )


def _note_left_out(numbered: Mapping[str, Mapping[int, Path]], frames: tuple[int, ...], folder: Path) -> None:
    """Warn of frames that some sensors have and others lack."""
    left_out = sorted(set().union(*numbered.values()) - set(frames))
    if left_out:
        lacking = ", ".join(f"{len(set(left_out) - set(files))} without {sensor}" for sensor, files in numbered.items())
        warnings.warn(
            f"{len(left_out)} frames of {folder.name} are left out, because a sensor lacks them, {left_out[0]} first ({lacking}). If "
            "KITTI's download has them, unpack it again.",
            FrustumWarning,
            stacklevel=3,
        )


def _require_rectified(image: Path, calibration: Path, folder: str) -> None:
    """Refuse an image of another size than the rectified ones, where the calibration says theirs: the intrinsics are not its own."""
    key = f"S_rect_{folder[-2:]}"
    if f"{key}:" not in calibration.read_text():
        return
    size, rectified = read_image(image, lambda opened: opened.size, "Unpack the drive again."), _calibration(calibration, key, 2)
    if tuple(size) != tuple(rectified):
        raise DataError(
            f"{image} has {size[0]}x{size[1]} pixels, but {calibration.name} is for rectified images of {rectified[0]:.0f}x"
            f"{rectified[1]:.0f}. Unpack the synced and rectified download, in which images are not scaled."
        )


def oxts_poses(oxts: np.ndarray) -> np.ndarray:
    """IMU poses (F, 4, 4) from rows (F, >=6) latitude, longitude (degrees), altitude (m), roll, pitch, yaw (rad).

    Mercator projection scaled at the first latitude, as in KITTI's development kit, with the first position as origin.
    """
    scale = np.cos(np.radians(oxts[0, 0])) * _EARTH_RADIUS
    x = scale * np.radians(oxts[:, 1])
    y = scale * np.log(np.tan(np.pi / 4 + np.radians(oxts[:, 0]) / 2))
    position = np.stack([x, y, oxts[:, 2]], -1)
    rotation = np.stack([rotation_xyz(*row[3:6]) for row in oxts])
    return pose(rotation, position - position[0])


def read_tracklets(path: Path) -> tuple[Track, ...]:
    """The annotated tracks of `tracklet_labels.xml`; empty where a drive was never annotated. Raises DataError when it is damaged."""
    if not path.is_file():
        return ()
    tracks = []
    try:
        for item in ElementTree.parse(path).getroot().findall("tracklets/item"):
            size, poses = _floats(item, "l", "w", "h"), item.findall("poses/item")
            found = np.array([_floats(p, "tx", "ty", "tz", "rz") for p in poses]).reshape(-1, 4)
            centre = found[:, :3] + [0, 0, size[2] / 2]
            _require(f"a {item.findtext('objectType')} in the tracklets {path}", first_fault(size, BOX[3:6]) or first_fault(centre, POINT))
            hidden = np.array([int(p.findtext("occlusion", "-1")) for p in poses])
            kind, first = item.findtext("objectType"), int(item.findtext("first_frame"))  # type: ignore[arg-type]
            tracks.append(Track(kind or "Misc", size, first, pose(rotation_z(found[:, 3]), centre), hidden))
    except (ElementTree.ParseError, TypeError, ValueError, OverflowError, LookupError, RecursionError, OSError) as error:
        raise DataError(f"cannot read the tracklets {path}: {error}. Unpack the tracklet archive again, or remove the file.") from error
    return tuple(tracks)


def _floats(node: ElementTree.Element, *keys: str) -> np.ndarray:
    return np.array([float(node.findtext(key)) for key in keys])  # type: ignore[arg-type]


def _calibration(path: Path, key: str, *shape: int) -> np.ndarray:
    """The numbers that a calibration file lists after `key:`; matrices must be invertible. Raises DataError."""
    if not path.is_file():
        raise DataError(f"the calibration file {path} is missing. Unpack the drive's calibration archive next to the drive folder.")
    lines = dict(line.partition(":")[::2] for line in _text(path, "calibration file").splitlines())
    try:
        found = np.array(lines.get(key, "").split(), float)
    except ValueError:
        found = np.zeros(0)
    if found.size != math.prod(shape) or not np.isfinite(found).all():
        raise DataError(f"{path} has no usable {key}: {math.prod(shape)} finite numbers are needed. Restore the calibration file.")
    found = found.reshape(shape)
    if found.ndim == 2 and abs(np.linalg.det(found[:, :3])) < 1e-9:
        raise DataError(f"{key} in {path} is singular: no pixel can be unprojected. Restore the calibration file.")
    return found


def _transform(path: Path) -> np.ndarray:
    found = pose(_calibration(path, "R", 3, 3), _calibration(path, "T", 3))
    _require(f"the transform R, T in {path}", pose_fault(found, NEAR))
    return found


def _require(what: str, found: Fault | None) -> None:
    """Raise DataError for what cannot be."""
    if found is not None:
        raise DataError(f"{what} cannot be right: {found.words} Restore the file from the drive's archive.")


def _read_oxts(path: Path) -> np.ndarray:
    try:
        row = np.array(_text(path, "GPS/IMU file").split(), float)
    except ValueError as error:
        raise DataError(f"cannot read the GPS/IMU file {path}: {error}.") from error
    if row.size < 20 or not np.isfinite(row[:20]).all():
        raise DataError(f"the GPS/IMU file {path} holds {row.size} values; at least 20 finite ones are needed (see oxts/dataformat.txt).")
    _require(f"the GPS/IMU file {path}", first_fault(row[_READ], _OXTS))
    return row[:20]


def _read_timestamps(path: Path, frames: tuple[int, ...]) -> np.ndarray:
    """Seconds of each frame; the files have nanoseconds, which strptime does not know."""
    if not path.is_file():
        raise DataError(f"the timestamp file {path} is missing. Restore it from the drive's archive.")
    lines = _text(path, "timestamp file").splitlines()
    if len(lines) <= max(frames):
        raise DataError(f"{path} has {len(lines)} lines, but the drive has frame {max(frames)}. Restore it from the drive's archive.")
    try:
        parts = [lines[i].strip().partition(".") for i in frames]
        whole = [datetime.strptime(p[0], "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp() for p in parts]
        return np.array(whole) + np.array([float(f"0.{p[2] or 0}") for p in parts])
    except (ValueError, OverflowError) as error:
        raise DataError(f"cannot read the timestamps {path}: {error}.") from error


def _text(path: Path, what: str) -> str:
    check_is_file(path, what)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # the latter of bytes that are no text
        raise DataError(f"cannot read the {what} {path}: {error}. Restore it from the drive's archive.") from error
