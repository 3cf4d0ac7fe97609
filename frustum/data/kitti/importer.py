"""Import KITTI raw drives: `frustum data import kitti-raw SRC DST` makes a database in the nuScenes format out of them.

What becomes what:

- Cameras `CAM_02` and `CAM_03` are KITTI's rectified colour images, copied or linked unchanged; `LIDAR_TOP` is the Velodyne scan with the
  car's motion during the turn taken out, intensity 0..255, beams numbered from the lowest.
- The ego frame lies on the road below the IMU (over the rear axle). All sensors of a frame carry one ego pose: KITTI's synced data are
  triggered together. Every frame is a keyframe (10 Hz).
- Tracklets become boxes. Car and Van are cars, Truck a truck, Pedestrian and Person (sitting) pedestrians, Cyclist a bicycle with rider,
  Tram a bus, Misc a pushable object (`others`).
- Occupancy comes from all scans of the drive, later ones included (occupancy.py, point_map.py).
- A nuScenes split lists scenes, so every split's share of a drive becomes a scene of its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frustum.data.kitti.occupancy import Ego, LabelMaker, build_scene, level
from frustum.data.kitti.raw import IMAGE_FOLDERS, KittiDrive, find_drives, open_drive
from frustum.data.nuscenes.records import AnnotationRecord, KeyframeRecord, SampleDataRecord, SceneRecord, SensorRecord, sample_token
from frustum.data.nuscenes.writer import DatabaseWriter
from frustum.data.occ3d.label_files import write_both_labels
from frustum.data.pixels import read_image
from frustum.errors import ConfigError, DataError, nearest_names
from frustum.files import copy_file, link_or_copy, write_bytes
from frustum.geometry import VoxelGrid, invert
from frustum.locks import owning
from frustum.ops.box_points import in_box
from frustum.types.classes import OCC3D_CLASSES, OCC3D_FREE

Progress = Callable[[str, Sequence[int]], Iterable[int]]
"""Wraps a loop: `progress(title, items)` yields the items and shows how far it is."""

CHANNELS = {"image_02": "CAM_02", "image_03": "CAM_03"}
DEFAULT_TRAIN_SHARE = 0.78
_FORMAT = "kitti-1"  # change it when the import changes, so that a resumed import does not mix two versions
_VISIBILITY_OF_OCCLUSION = {0: 4, 1: 2, 2: 1}


class _Part(NamedTuple):
    """The share of a drive that becomes one scene."""

    name: str
    frames: range  # positions in the drive
    fingerprint: str


@owning("dst", "frustum data import kitti-raw", "as DST")
def import_kitti_raw(
    src: Path | str,
    dst: Path | str,
    *,
    drive: str | None = None,
    splits: Mapping[str, str | tuple[int, int]] | None = None,
    version: str = "v1.0-trainval",
    grid: VoxelGrid | None = None,
    progress: Progress | None = None,
    link: bool = False,
) -> dict[str, Any]:
    """Import one or all drives below `src` into the database `dst`.

    Args:
        src: a KITTI raw root, a date folder, or a drive folder.
        dst: root of the database. Scenes that were finished by an earlier run with the same settings are kept, other drives stay in their
            splits, and scenes of these drives that share frames with the new ones are left out from now on.
        drive: part of a drive's name, to choose one of several; None imports all.
        splits: frame numbers per split, `{"train": "0-119", "val": "120-153"}`, both ends included; by default the first 78 % of each
            drive are train and the rest is val.
        version: folder of the tables.
        grid: voxels of the labels; Occ3D's by default.
        progress: see `Progress`; None is silent.
        link: give images a second name instead of copying them: whoever edits one then edits the other.

    Returns:
        Numbers for a summary: frames, boxes, scenes per split, shares of occupied and observed voxels, voxels per class.

    Raises:
        DataError: something of the drive is missing or damaged, or `dst` cannot be written.
        ConfigError: a split is malformed, empty, or overlaps another one.
    """
    src, grid = Path(src), grid or VoxelGrid.occ3d()
    show: Progress = progress or (lambda title, items: items)
    folders = [f for f in find_drives(src) if drive is None or drive in f.name]
    if not folders:
        raise DataError(f"{src} has no drive {drive!r}; {nearest_names(str(drive), [f.name for f in find_drives(src)])}")
    writer = DatabaseWriter(dst, version)
    members: dict[str, list[str]] = {}
    totals: dict[str, Any] = {"drives": [f.name for f in folders], "frames": 0, "boxes": 0}
    sums = np.zeros(len(OCC3D_CLASSES) + 4)
    for folder in folders:
        recording, small_files = open_drive(folder), _digest(folder)
        parts = []
        for split, frames in split_frames(recording.frames, splits).items():
            fingerprint = f"{_FORMAT} {[recording.frames[i] for i in frames]} {grid.model_dump_json()} {small_files}"
            parts.append(_Part(f"{recording.name.removesuffix('_sync')}-{split}", frames, fingerprint))
            members.setdefault(split, []).append(parts[-1].name)
            writer.take_back(parts[-1].name)
            totals["frames"] += len(frames)
            totals["boxes"] += sum(len(recording.boxes(f)) for f in frames)
        missing = [part for part in parts if not writer.has_scene(part.name, part.fingerprint)]
        _make_room(recording, writer, parts)
        if missing:
            sums += _import_drive(recording, writer, grid, missing, show, link)
    writer.finish(members, keep_splits=True)
    shares = ("occupied_share", "mask_lidar_share", "mask_camera_share")
    return totals | {
        "splits": members,
        "new_frames": int(sums[-4]),
        **dict(zip(shares, sums[-3:] / max(sums[-4], 1), strict=True)),
        "voxels": {name: int(n) for name, n in zip(OCC3D_CLASSES, sums[:-4], strict=True)},
    }


def _digest(folder: Path) -> str:
    """SHA-256 of the calibration, the poses and the boxes of a drive: where one was corrected, its scenes are made anew."""
    files = [*folder.parent.glob("calib_*.txt"), *folder.glob("oxts/data/*.txt"), *folder.glob("tracklet_labels.xml")]
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(file.name.encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


def _make_room(drive: KittiDrive, writer: DatabaseWriter, parts: list[_Part]) -> None:
    """Set aside what an earlier import with other splits made of the same frames: no frame may be in two scenes."""
    spans = {part.name: (_micro(drive, part.frames[0]), _micro(drive, part.frames[-1])) for part in parts}
    for name in writer.scenes():
        if name.rpartition("-")[0] == drive.name.removesuffix("_sync") and name not in spans:
            first, last = writer.span(name)
            if any(first <= b and a <= last for a, b in spans.values()):
                writer.set_aside(name)
    writer.prepare({name: first for name, (first, _) in spans.items()})


def _micro(drive: KittiDrive, frame: int, sensor: str = "velodyne_points") -> int:
    """The time stamp of a file in microseconds."""
    return round(float(drive.timestamps[sensor][frame]) * 1e6)


def split_frames(frames: Sequence[int], splits: Mapping[str, str | tuple[int, int]] | None) -> dict[str, range]:
    """Positions in `frames` per split. Raises ConfigError for a malformed, empty or overlapping range of frame numbers."""
    if splits is None:
        cut = max(1, min(len(frames) - 1, round(DEFAULT_TRAIN_SHARE * len(frames)))) if len(frames) > 1 else len(frames)
        return {"train": range(cut)} | ({"val": range(cut, len(frames))} if cut < len(frames) else {})
    found: dict[str, range] = {}
    for name, given in splits.items():
        if isinstance(given, str):
            match = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", given)
            if not match:
                raise ConfigError(f"the frames of split {name!r} are {given!r}; write the first and the last frame number, as in 0-119.")
            given = int(match[1]), int(match[2])
        inside = [i for i, number in enumerate(frames) if given[0] <= number <= given[1]]
        if not inside:
            raise ConfigError(f"split {name!r} asks for frames {given[0]} to {given[1]}, but the drive has {frames[0]} to {frames[-1]}.")
        found[name] = range(inside[0], inside[-1] + 1)
        for other, part in found.items():
            if other != name and part.start < found[name].stop and found[name].start < part.stop:
                raise ConfigError(f"the splits {other!r} and {name!r} share frames; make their ranges disjoint.")
    return found


def _import_drive(drive: KittiDrive, writer: DatabaseWriter, grid: VoxelGrid, parts: list[_Part], show: Progress, link: bool) -> np.ndarray:
    """Write labels, files and records of one drive; returns class counts, then frames and the three shares, summed over frames."""
    everything = range(len(drive))
    ego = level(drive, show(f"{drive.name}: heights", everything))
    maker = LabelMaker(drive, ego, build_scene(drive, ego, show(f"{drive.name}: gathering scans", everything)), grid)
    cameras = [SensorRecord(c, "camera", ego.lidar2ego @ invert(drive.lidar2cam[n]), drive.intrinsics[n]) for n, c in CHANNELS.items()]
    load = lru_cache(maxsize=32)(drive.scan)
    sums = np.zeros(len(OCC3D_CLASSES) + 4)
    for name, frames, fingerprint in parts:
        keyframes = []
        for f in show(f"{name}: labels", frames):
            record = _keyframe(drive, ego, f, name, writer.root, load(f), link)
            sizes = {folder: d.size for folder, d in zip(IMAGE_FOLDERS, record.data[1:], strict=True)}
            labels = maker.labels(f, sizes, load)
            write_both_labels(writer.root, name, sample_token(name, record.timestamp), labels)
            sums[:-4] += np.bincount(labels.semantics.ravel(), minlength=len(OCC3D_CLASSES))
            sums[-4:] += 1, (labels.semantics != OCC3D_FREE).mean(), labels.mask_lidar.mean(), labels.mask_camera.mean()
            keyframes.append(record)
        writer.add_scene(
            SceneRecord(
                name=name, sensors=(SensorRecord("LIDAR_TOP", "lidar", ego.lidar2ego), *cameras), keyframes=tuple(keyframes),
                description=f"KITTI raw {drive.name}, frames {drive.frames[frames[0]]} to {drive.frames[frames[-1]]}",
                log=drive.name, location="karlsruhe", date=drive.name[:10].replace("_", "-"), vehicle="kitti", fingerprint=fingerprint,
            )
        )  # fmt: skip
    return sums


def _keyframe(drive: KittiDrive, ego: Ego, f: int, scene: str, root: Path, scan: np.ndarray, link: bool) -> KeyframeRecord:
    """Write the files of one frame below `root` and describe them."""

    def record(channel: str, sensor: str, suffix: str, size: tuple[int, int] = (0, 0)) -> SampleDataRecord:
        micro = _micro(drive, f, sensor)
        return SampleDataRecord(channel, micro, f"samples/{channel}/{scene}__{channel}__{micro}{suffix}", ego.ego2global[f], size)

    data = [record("LIDAR_TOP", "velodyne_points", ".pcd.bin")]
    write_bytes(root / data[0].filename, (scan * np.array([1, 1, 1, 255, 1], np.float32)).tobytes())
    for folder, channel in CHANNELS.items():
        source = drive.images[folder][f]
        width, height = read_image(source, lambda image: image.size, "Unpack the drive again.")
        data.append(record(channel, folder, source.suffix.lower(), (height, width)))
        (link_or_copy if link else copy_file)(source, root / data[-1].filename)
    boxes = [_annotation(drive, ego, t, f, scan) for t in drive.boxes(f)]
    return KeyframeRecord(data[0].timestamp, tuple(data), tuple(boxes))


def _annotation(drive: KittiDrive, ego: Ego, t: int, f: int, scan: np.ndarray) -> AnnotationRecord:
    track, box = drive.tracks[t], drive.boxes(f)[t]
    near = [i for i in range(max(f - 2, 0), min(f + 3, len(drive))) if t in drive.boxes(i)]
    first, last = ((ego.ego2global[i] @ ego.lidar2ego @ drive.boxes(i)[t])[:3, 3] for i in (near[0], near[-1]))
    seconds = drive.timestamps["velodyne_points"][near[-1]] - drive.timestamps["velodyne_points"][near[0]]
    speed = float(np.linalg.norm(last - first) / seconds) if seconds > 0 else 0.0
    if track.category == "human.pedestrian.adult":
        attribute = "pedestrian.sitting_lying_down" if "sitting" in track.kind else f"pedestrian.{'moving' if speed > 0.3 else 'standing'}"
    elif track.category == "vehicle.bicycle":
        attribute = "cycle.with_rider"
    else:
        attribute = f"vehicle.{'moving' if speed > 0.5 else 'parked'}" if track.category.startswith("vehicle") else ""
    return AnnotationRecord(
        instance=f"{drive.name}/track-{t}",
        category=track.category,
        box2global=ego.ego2global[f] @ ego.lidar2ego @ box,
        size=(float(track.size[0]), float(track.size[1]), float(track.size[2])),
        visibility=_VISIBILITY_OF_OCCLUSION.get(int(track.occlusion[drive.frames[f] - track.first_frame]), 4),
        attribute=attribute,
        num_lidar_pts=int(in_box(scan[:, :3].astype(np.float64), box, track.size).sum()),
    )
