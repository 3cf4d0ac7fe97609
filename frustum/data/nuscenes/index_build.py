"""From JSON tables to arrays. Poses are rows (x, y, z, qw, qx, qy, qz); strings are fixed-width UTF-8 bytes.

frames: scene_{name,location,description,has_poses}; sample_{token,time,scene}, by scene and time; channel, modality;
key_file (samples, channels) row into file_*, -1 for a sensor without a file; file_{token,name,time,pose,calibration,size};
calibration_{pose,intrinsics}; left_out_{scene,sample}: scenes with times that cannot be held, and the tokens of their keyframes, which are
in none of the others; invalid_{file,sample}: files that sample_data.json marks with is_valid: false, which are in none of the others
either, and the row of the keyframe that each belongs to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frustum.data.nuscenes.image_sizes import image_sizes
from frustum.data.nuscenes.stated_lenses import require_pinhole
from frustum.data.nuscenes.tables import TIME_LIMIT, following_schema, load_table
from frustum.errors import DataError
from frustum.files import check_name

Arrays = dict[str, np.ndarray]
Rows = list[dict[str, Any]]


def _strings(values: Iterable[str]) -> np.ndarray:
    encoded = [v.encode() for v in values]
    return np.array(encoded, f"S{max(map(len, encoded), default=1) or 1}")


def _poses(rows: Rows) -> np.ndarray:
    return np.array([[*r["translation"], *r["rotation"]] for r in rows], np.float64).reshape(-1, 7)


class _Rows(dict[str, int]):
    """Token to row number; an unknown token is a DataError that names both tables."""

    def __init__(self, folder: Path, table: str, tokens: Iterable[str]) -> None:
        super().__init__((t, i) for i, t in enumerate(tokens))
        self.folder, self.table = folder, table

    def __missing__(self, token: str) -> int:
        raise DataError(
            f"a table in {self.folder} refers to the token {token!r}, which {self.table}.json does not have: the tables do not belong "
            f"together. Restore all of them from one source."
        )


def _guarded(build):
    """What `following_schema` does, around a function of the folder."""

    def run(folder: Path, *args: Arrays) -> Arrays:
        with following_schema(folder):
            return build(folder, *args)

    return run


@_guarded
def build_frames(folder: Path) -> Arrays:
    """Scenes, keyframes, calibration and the files of keyframes (see the module's docstring)."""
    scenes, logs = load_table(folder, "scene"), {r["token"]: r for r in load_table(folder, "log")}
    samples, data = load_table(folder, "sample"), load_table(folder, "sample_data")
    scene_of = {s["token"]: s["scene_token"] for s in samples}
    late = {s["scene_token"] for s in samples if not 0 <= s["timestamp"] < TIME_LIMIT}
    late |= {scene_of.get(f["sample_token"], "") for f in data if not 0 <= f["timestamp"] < TIME_LIMIT}
    left_out = {"left_out_scene": _strings(sorted(s["name"] for s in scenes if s["token"] in late))}
    left_out["left_out_sample"] = _strings(s["token"] for s in samples if s["scene_token"] in late)
    samples = [s for s in samples if s["scene_token"] not in late]
    first: dict[str, int] = {}
    for row in samples:
        first[row["scene_token"]] = min(row["timestamp"], first.get(row["scene_token"], row["timestamp"]))
    scenes = sorted((s for s in scenes if s["token"] in first), key=lambda s: (first[s["token"]], s["name"]))
    scene_row = _Rows(folder, "scene", (s["token"] for s in scenes))
    for row in scenes:
        check_name(row["name"], f"the name of a scene in {folder}")
    if twice := [name for name, count in Counter(row["name"] for row in scenes).items() if count > 1]:
        raise DataError(
            f"{folder / 'scene.json'} has {len(twice)} names of several scenes, {twice[0]} first. Labels and splits go by these names: "
            "rename all but one, in splits.json and gts/ too."
        )
    for row in samples:
        check_name(row["token"], f"the token of a keyframe in {folder}")
    for row in logs.values():
        if row.get("location"):
            check_name(row["location"], f"the location of a log in {folder}")  # its map is a file of that name
    samples = sorted(samples, key=lambda r: (scene_row[r["scene_token"]], r["timestamp"]))
    sample_row = _Rows(folder, "sample", (s["token"] for s in samples))

    sensors = load_table(folder, "sensor")
    modality = {s["channel"]: s["modality"] for s in sensors}
    channels = sorted(check_name(channel, f"the channel of a sensor in {folder}") for channel in modality)
    channel_of_sensor = {s["token"]: channels.index(s["channel"]) for s in sensors}
    calibrations = load_table(folder, "calibrated_sensor")
    calibration_row = _Rows(folder, "calibrated_sensor", (c["token"] for c in calibrations))
    channel_of_calibration = [channel_of_sensor[c["sensor_token"]] for c in calibrations]
    are_cameras = [modality[channels[column]] == "camera" for column in channel_of_calibration]
    intrinsics = [c["camera_intrinsic"] or [[np.nan] * 3] * 3 for c in calibrations]

    require_pinhole(folder, calibrations, sensors)
    invalid = [f for f in _readable(data, left_out) if not _flag(folder, f, "is_valid", unsaid=True)]
    left_out["invalid_file"] = _strings(f["filename"] for f in invalid)
    left_out["invalid_sample"] = np.array([sample_row[f["sample_token"]] for f in invalid], np.int32)
    files = [f for f in _readable(data, left_out) if _flag(folder, f, "is_key_frame", unsaid=False)]
    key_file = np.full((len(samples), len(channels)), -1, np.int32)
    for i, file in enumerate(files):
        calibration = calibration_row[file["calibrated_sensor_token"]]
        keyframe, column = sample_row[file["sample_token"]], channel_of_calibration[calibration]
        if key_file[keyframe, column] >= 0:
            other = files[key_file[keyframe, column]]["filename"]
            raise DataError(
                f"{folder / 'sample_data.json'} gives the keyframe {file['sample_token']} two files of {channels[column]}, {other} and "
                f"{file['filename']}. A keyframe has one of each sensor: set is_key_frame: false for the other, or, if they are of two "
                "sensors, give each a channel of its own in sensor.json."
            )
        key_file[keyframe, column] = i
    return (
        left_out
        | {
            "scene_name": _strings(s["name"] for s in scenes),
            "scene_location": _strings(logs.get(s["log_token"], {}).get("location", "") for s in scenes),
            "scene_description": _strings(s.get("description", "") for s in scenes),
            "scene_has_poses": np.array([bool(s.get("has_poses", True)) for s in scenes]),  # a field of ours
            "sample_token": _strings(s["token"] for s in samples),
            "sample_time": np.array([s["timestamp"] for s in samples], np.int64),
            "sample_scene": np.array([scene_row[s["scene_token"]] for s in samples], np.int32),
            "channel": _strings(channels),
            "modality": _strings(modality[c] for c in channels),
            "key_file": key_file,
            "calibration_pose": _poses(calibrations),
            "calibration_intrinsics": np.array(intrinsics, np.float64).reshape(-1, 3, 3),
            "calibration_token": _strings(c["token"] for c in calibrations),
            "calibration_channel": np.array(channel_of_calibration, np.int32),
        }
        | _file_columns(folder, files, calibration_row, are_cameras)
    )


def _flag(folder: Path, row: dict[str, Any], key: str, unsaid: bool) -> bool:
    """What a yes or no of a file says, `unsaid` where it says nothing. Raises DataError for what is neither true nor false."""
    said = row.get(key)
    if said not in (None, True, False):
        raise DataError(f"{folder / 'sample_data.json'} says {key}: {said!r} of {row['filename']}; it must be true or false.")
    return unsaid if said is None else bool(said)


def _readable(rows: Rows, frames: Arrays) -> Rows:
    """Those of the rows that are not of a keyframe that was left out, and not marked as invalid (`is_valid`, tier4's field)."""
    gone = {token.decode() for token in frames["left_out_sample"]}
    bad = {name.decode() for name in frames.get("invalid_file", ())}
    return [row for row in rows if row["sample_token"] not in gone and row.get("filename") not in bad] if gone or bad else rows


def _file_columns(folder: Path, files: Rows, calibration_row: _Rows, are_cameras: Sequence[bool]) -> Arrays:
    """The columns file_*; `are_cameras` by calibration."""
    calibration = np.array([calibration_row[f["calibrated_sensor_token"]] for f in files], np.int32)
    wanted = {f["ego_pose_token"] for f in files}
    poses = [p for p in load_table(folder, "ego_pose") if p["token"] in wanted]
    pose_row = _Rows(folder, "ego_pose", (p["token"] for p in poses))
    return {
        "file_token": _strings(f["token"] for f in files),
        "file_name": _strings(f["filename"] for f in files),
        "file_time": np.array([f["timestamp"] for f in files], np.int64),
        "file_pose": _poses(poses)[[pose_row[f["ego_pose_token"]] for f in files]].reshape(-1, 7),
        "file_calibration": calibration,
        "file_size": image_sizes(folder, files, calibration, np.array(are_cameras, bool)[calibration]),
    }


@_guarded
def build_sweeps(folder: Path, frames: Arrays) -> Arrays:
    """All files, by scene, channel and time: start (scenes, channels + 1) row ranges, and file_* as in `frames`."""
    sample_row = _Rows(folder, "sample", (t.decode() for t in frames["sample_token"]))
    calibration_row = _Rows(folder, "calibrated_sensor", (t.decode() for t in frames["calibration_token"]))
    scene_of, channel_of = frames["sample_scene"], frames["calibration_channel"]
    files = _readable(load_table(folder, "sample_data"), frames)
    scene = np.array([scene_of[sample_row[f["sample_token"]]] for f in files], np.int64)
    channel = np.array([channel_of[calibration_row[f["calibrated_sensor_token"]]] for f in files], np.int64)
    order = np.lexsort(([f["timestamp"] for f in files], channel, scene))
    num_channels = len(frames["channel"])
    group = (scene * num_channels + channel)[order]
    start = np.searchsorted(group, np.arange(len(frames["scene_name"]) * num_channels + 1))
    are_cameras = (frames["modality"][channel_of] == b"camera").tolist()
    return _file_columns(folder, [files[i] for i in order], calibration_row, are_cameras) | {"start": start.astype(np.int64)}


@_guarded
def build_boxes(folder: Path, frames: Arrays) -> Arrays:
    """Annotations by keyframe: start (samples + 1), and per box token, instance, category, attribute, visibility, pose, size
    (length, width, height), velocity (global, m/s, NaN where unknown), points."""
    sample_row = _Rows(folder, "sample", (t.decode() for t in frames["sample_token"]))
    rows = _readable(load_table(folder, "sample_annotation"), frames)
    categories, attributes = load_table(folder, "category"), load_table(folder, "attribute")
    category_row = _Rows(folder, "category", (c["token"] for c in categories))
    attribute_row = _Rows(folder, "attribute", (a["token"] for a in attributes))
    instances = load_table(folder, "instance")
    instance_row = _Rows(folder, "instance", (i["token"] for i in instances))
    category_of_instance = [category_row[i["category_token"]] for i in instances]
    levels = {v["token"]: v["level"] for v in load_table(folder, "visibility")}
    rank = {"v0-40": 1, "v40-60": 2, "v60-80": 3, "v80-100": 4}

    sample = np.array([sample_row[r["sample_token"]] for r in rows], np.int64)
    instance = np.array([instance_row[r["instance_token"]] for r in rows], np.int64)
    velocity = _velocities(folder, rows, frames["sample_time"][sample] if rows else np.zeros(0, np.int64))
    order = np.argsort(sample, kind="stable")
    rows = [rows[i] for i in order]
    return {
        "start": np.searchsorted(sample[order], np.arange(len(frames["sample_token"]) + 1)),
        "token": _strings(r["token"] for r in rows),
        "instance_token": _strings(i["token"] for i in instances),
        "instance": instance[order],
        "category_name": _strings(c["name"] for c in categories),
        "category": np.array([category_of_instance[i] for i in instance[order]], np.int64),
        "attribute_name": _strings(a["name"] for a in attributes),
        "attribute": np.array([attribute_row[r["attribute_tokens"][0]] if r["attribute_tokens"] else -1 for r in rows], np.int64),
        "visibility": np.array([rank.get(levels.get(r["visibility_token"], ""), 0) for r in rows], np.int64),
        "pose": _poses(rows),
        "size": np.array([r["size"] for r in rows], np.float64).reshape(-1, 3)[:, [1, 0, 2]],
        "velocity": velocity[order],
        "num_lidar_pts": np.array([r["num_lidar_pts"] for r in rows], np.int64),
        "num_radar_pts": np.array([r["num_radar_pts"] for r in rows], np.int64),
    }


def _velocities(folder: Path, rows: Rows, times: np.ndarray) -> np.ndarray:
    """Global velocity (M, 3) of every annotation, by nuScenes' rule: difference of the neighbouring annotations of the object, one-sided
    at the ends of its track; NaN for a single annotation, or when the neighbours are more than 1.5 s (centred: 3 s) or no time apart."""
    row_of = _Rows(folder, "sample_annotation", (r["token"] for r in rows))
    here = np.arange(len(rows))
    previous = np.array([row_of[r["prev"]] if r["prev"] else i for i, r in enumerate(rows)], np.int64).reshape(-1)
    following = np.array([row_of[r["next"]] if r["next"] else i for i, r in enumerate(rows)], np.int64).reshape(-1)
    centres = np.array([r["translation"] for r in rows], np.float64).reshape(-1, 3)
    gap = 1e-6 * times[following] - 1e-6 * times[previous]
    limit = np.where((previous != here) & (following != here), 3.0, 1.5)
    known = (previous != following) & (gap <= limit) & (gap != 0)
    return np.where(known[:, None], (centres[following] - centres[previous]) / np.where(known, gap, 1.0)[:, None], np.nan)
