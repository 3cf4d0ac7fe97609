"""One SceneRecord as rows of the nuScenes tables: tokens, chains of files and chains of annotations."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from frustum.data.nuscenes.records import AnnotationRecord, SampleDataRecord, SceneRecord, sample_data_token, sample_token, token
from frustum.data.nuscenes.tables import TIME_LIMIT
from frustum.errors import DataError, nearest_names
from frustum.geometry import matrix_to_quaternion
from frustum.geometry.plausible import BOX, COUNTS, NEAR, WORLD, first_fault, intrinsics_fault, pose_fault
from frustum.types.classes import ATTRIBUTES, OCC3D_OF_CATEGORY

_CATEGORIES = tuple(OCC3D_OF_CATEGORY)
Row = dict[str, Any]


def scene_rows(scene: SceneRecord) -> dict[str, list[Row]]:
    """Rows by table name. Tokens depend on names and timestamps only.

    Raises:
        DataError: no keyframes, times not ascending or not microseconds, an unknown channel, category or attribute, or a pose that is not
            rigid.
    """
    times = [keyframe.timestamp for keyframe in scene.keyframes]
    if not times:
        raise DataError(f"scene {scene.name} does not have keyframes.")
    if any(b <= a for a, b in itertools.pairwise(times)):
        raise DataError(f"the keyframes of scene {scene.name} must ascend in time (microseconds), got {times[:5]}...")
    _check_times(scene)
    scene_token = token("scene", scene.name)
    log = scene.log or f"{scene.location}-{scene.name}"
    samples = [sample_token(scene.name, k.timestamp) for k in scene.keyframes]
    rows: dict[str, list[Row]] = {
        "log": [
            {"token": token("log", log), "logfile": log, "vehicle": scene.vehicle, "date_captured": scene.date, "location": scene.location}
        ],
        "scene": [
            {
                "token": scene_token, "log_token": token("log", log), "nbr_samples": len(samples), "first_sample_token": samples[0],
                "last_sample_token": samples[-1], "name": scene.name, "description": scene.description,
            } | ({} if scene.has_poses else {"has_poses": False})
        ],
        "sample": [
            {"token": key, "timestamp": int(keyframe.timestamp), "prev": prev, "next": following, "scene_token": scene_token}
            for key, keyframe, prev, following in zip(samples, scene.keyframes, ["", *samples[:-1]], [*samples[1:], ""], strict=True)
        ],
        "sensor": [{"token": token("sensor", s.channel), "channel": s.channel, "modality": s.modality} for s in scene.sensors],
        "calibrated_sensor": [],
    }  # fmt: skip
    for sensor in scene.sensors:
        if sensor.modality == "camera":
            if sensor.intrinsics is None or sensor.intrinsics.shape != (3, 3):
                raise DataError(f"camera {sensor.channel} of scene {scene.name} needs 3x3 intrinsics, got {sensor.intrinsics}.")
            if (found := intrinsics_fault(sensor.intrinsics)) is not None:
                raise DataError(f"the intrinsics of camera {sensor.channel} of scene {scene.name} cannot be right: {found.words}")
        rows["calibrated_sensor"].append(
            {
                "token": token("calibrated_sensor", scene.name, sensor.channel), "sensor_token": token("sensor", sensor.channel),
                "translation": [], "rotation": [],
                "camera_intrinsic": np.asarray(sensor.intrinsics, np.float64).tolist() if sensor.modality == "camera" else [],
            }
        )  # fmt: skip
    _set_poses(rows["calibrated_sensor"], [(s.sensor2ego, f"sensor2ego of {s.channel} in scene {scene.name}") for s in scene.sensors], NEAR)
    rows.update(_file_rows(scene, samples))
    rows.update(_annotation_rows(scene, samples))
    return rows


def _check_times(scene: SceneRecord) -> None:
    """Refuse what the reader cannot hold. Raises DataError."""
    files = (record for part in (*(k.data for k in scene.keyframes), scene.sweeps) for record in part)
    for stamp in (*(keyframe.timestamp for keyframe in scene.keyframes), *(file.timestamp for file in files)):
        if not 0 <= stamp < TIME_LIMIT:
            raise DataError(
                f"scene {scene.name} has the timestamp {stamp}; timestamps are microseconds since 1970, from 0 to {TIME_LIMIT - 1}. "
                "Divide nanoseconds by 1000."
            )


def _file_rows(scene: SceneRecord, samples: list[str]) -> dict[str, list[Row]]:
    """sample_data and ego_pose with prev and next per channel, lidarseg, panoptic."""
    channels = {s.channel for s in scene.sensors}
    chains: dict[str, list[tuple[SampleDataRecord, str]]] = defaultdict(list)  # per channel: file and the keyframe it is of, or ""
    files = [(record, key) for key, keyframe in zip(samples, scene.keyframes, strict=True) for record in keyframe.data]
    for record, key in (*files, *((sweep, "") for sweep in scene.sweeps)):
        chains[record.channel].append((record, key))
    rows: dict[str, list[Row]] = {"sample_data": [], "ego_pose": [], "lidarseg": [], "panoptic": []}
    poses: list[tuple[np.ndarray, str]] = []
    for channel in sorted(chains):
        if channel not in channels:
            raise DataError(f"scene {scene.name} has files of {channel!r}, which is not a sensor of it; {nearest_names(channel, channels)}")
        chain = sorted(chains[channel], key=lambda item: item[0].timestamp)
        tokens = [sample_data_token(scene.name, channel, record.timestamp) for record, _ in chain]
        if len(set(tokens)) != len(tokens):
            raise DataError(f"scene {scene.name} has two files of {channel} with the same timestamp.")
        for i, (record, key) in enumerate(chain):
            following = key or next((k for _, k in chain[i:] if k), samples[-1])
            poses.append((record.ego2global, f"ego2global of {record.filename}"))
            pose_token = token("ego_pose", scene.name, channel, int(record.timestamp))
            rows["ego_pose"].append({"token": pose_token, "timestamp": int(record.timestamp), "rotation": [], "translation": []})
            rows["sample_data"].append(
                {
                    "token": tokens[i], "sample_token": following, "ego_pose_token": pose_token,
                    "calibrated_sensor_token": token("calibrated_sensor", scene.name, channel), "timestamp": int(record.timestamp),
                    "fileformat": _file_format(record.filename), "is_key_frame": bool(key), "height": int(record.size[0]),
                    "width": int(record.size[1]), "filename": _relative(record.filename), "prev": tokens[i - 1] if i else "",
                    "next": tokens[i + 1] if i + 1 < len(tokens) else "",
                }
            )  # fmt: skip
            for table, filename in (("lidarseg", record.lidarseg), ("panoptic", record.panoptic)):
                if filename is not None:
                    rows[table].append({"token": tokens[i], "sample_data_token": tokens[i], "filename": _relative(filename)})
    _set_poses(rows["ego_pose"], poses)
    return rows


def _annotation_rows(scene: SceneRecord, samples: list[str]) -> dict[str, list[Row]]:
    """instance and sample_annotation with prev and next per object."""
    chains: dict[str, list[tuple[str, str, AnnotationRecord]]] = {}  # per object: annotation token, sample token, record
    for key, keyframe in zip(samples, scene.keyframes, strict=True):
        for record in keyframe.annotations:
            chain = chains.setdefault(record.instance, [])
            if chain and chain[-1][1] == key:
                raise DataError(f"scene {scene.name} annotates {record.instance!r} twice in the keyframe at {keyframe.timestamp}.")
            chain.append((token("sample_annotation", scene.name, record.instance, int(keyframe.timestamp)), key, record))
    rows: dict[str, list[Row]] = {"instance": [], "sample_annotation": []}
    poses: list[tuple[np.ndarray, str]] = []
    for name, chain in chains.items():
        category = chain[0][2].category
        if category not in _CATEGORIES or any(r.category != category for _, _, r in chain):
            given = sorted({r.category for _, _, r in chain})
            raise DataError(f"{name!r} of scene {scene.name} needs one known category, got {given}; {nearest_names(given[0], _CATEGORIES)}")
        instance_token = token("instance", scene.name, name)
        rows["instance"].append(
            {
                "token": instance_token, "category_token": token("category", category), "nbr_annotations": len(chain),
                "first_annotation_token": chain[0][0], "last_annotation_token": chain[-1][0],
            }
        )  # fmt: skip
        for i, (key, sample, record) in enumerate(chain):
            what = f"{name!r} of scene {scene.name}"
            if record.attribute and record.attribute not in ATTRIBUTES:
                raise DataError(f"{what} has the unknown attribute {record.attribute!r}; {nearest_names(record.attribute, ATTRIBUTES)}")
            if record.visibility not in (1, 2, 3, 4):
                raise DataError(f"{what} has visibility {record.visibility}; it must be 1, 2, 3 or 4.")
            length, width, height = (float(s) for s in record.size)
            faults = first_fault([length, width, height], BOX[3:6]), first_fault([record.num_lidar_pts, record.num_radar_pts], COUNTS)
            for found in filter(None, faults):
                raise DataError(f"{what} cannot be right: {found.words}")
            poses.append((record.box2global, f"the box of {what}"))
            rows["sample_annotation"].append(
                {
                    "token": key, "sample_token": sample, "instance_token": instance_token, "visibility_token": str(record.visibility),
                    "attribute_tokens": [token("attribute", record.attribute)] if record.attribute else [], "translation": [],
                    "size": [width, length, height], "rotation": [], "prev": chain[i - 1][0] if i else "",
                    "next": chain[i + 1][0] if i + 1 < len(chain) else "", "num_lidar_pts": int(record.num_lidar_pts),
                    "num_radar_pts": int(record.num_radar_pts),
                }
            )  # fmt: skip
    _set_poses(rows["sample_annotation"], poses)
    return rows


def _set_poses(rows: list[Row], poses: list[tuple[np.ndarray, str]], farthest: float = WORLD) -> None:
    """Fill in translation (3) and rotation (4) of rows from rigid transforms with their names, all at once because one by one is slow."""
    for a2b, what in poses:
        if np.shape(a2b) != (4, 4):
            raise DataError(f"{what} must be a rigid 4x4 transform, got shape {np.shape(a2b)}.")
    stack = np.array([a2b for a2b, _ in poses], np.float64).reshape(-1, 4, 4)
    if (found := pose_fault(stack, farthest)) is not None:
        raise DataError(f"{poses[found.place[0]][1]} cannot be right: {found.words}")
    rotations = stack[:, :3, :3]
    for row, translation, rotation in zip(rows, stack[:, :3, 3].tolist(), matrix_to_quaternion(rotations).tolist(), strict=True):
        row["translation"], row["rotation"] = translation, rotation


def _relative(filename: str) -> str:
    path = PurePosixPath(filename)
    if path.is_absolute() or ".." in path.parts or "\\" in filename:
        raise DataError(f"the file name {filename!r} must be relative to the data root, with forward slashes.")
    return str(path)


def _file_format(filename: str) -> str:
    return "pcd" if ".pcd" in filename else PurePosixPath(filename).suffix.lstrip(".").replace("jpeg", "jpg")
