"""One SceneRecord as rows of the nuScenes tables: tokens, chains of files and chains of annotations."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from frustum.data.classes import GENERAL_CLASSES
from frustum.data.records import AnnotationRecord, SampleDataRecord, SceneRecord, sample_data_token, sample_token, token
from frustum.data.tables import ATTRIBUTES
from frustum.errors import DataError, nearest_names
from frustum.geometry import matrix_to_quaternion

_CATEGORIES = tuple(c.name for c in GENERAL_CLASSES)
Row = dict[str, Any]


def scene_rows(scene: SceneRecord) -> dict[str, list[Row]]:
    """Rows by table name. Tokens depend on names and timestamps only.

    Raises:
        DataError: no keyframes, times not ascending, an unknown channel, category or attribute, or a pose that is not rigid.
    """
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
            }
        ],
        "sample": [
            {"token": key, "timestamp": int(keyframe.timestamp), "prev": prev, "next": following, "scene_token": scene_token}
            for key, keyframe, prev, following in zip(samples, scene.keyframes, ["", *samples[:-1]], [*samples[1:], ""], strict=True)
        ],
        "sensor": [{"token": token("sensor", s.channel), "channel": s.channel, "modality": s.modality} for s in scene.sensors],
        "calibrated_sensor": [],
    }  # fmt: skip
    for sensor in scene.sensors:
        if sensor.modality == "camera" and (sensor.intrinsics is None or not np.isfinite(sensor.intrinsics).all()):
            raise DataError(f"camera {sensor.channel} of scene {scene.name} needs finite 3x3 intrinsics, got {sensor.intrinsics}.")
        translation, rotation = _pose_lists(sensor.sensor2ego, f"sensor2ego of {sensor.channel} in scene {scene.name}")
        rows["calibrated_sensor"].append(
            {
                "token": token("calibrated_sensor", scene.name, sensor.channel), "sensor_token": token("sensor", sensor.channel),
                "translation": translation, "rotation": rotation,
                "camera_intrinsic": np.asarray(sensor.intrinsics, np.float64).tolist() if sensor.modality == "camera" else [],
            }
        )  # fmt: skip
    rows.update(_file_rows(scene, samples))
    rows.update(_annotation_rows(scene, samples))
    return rows


def _check_times(scene: SceneRecord) -> None:
    times = [k.timestamp for k in scene.keyframes]
    if not times:
        raise DataError(f"scene {scene.name} has no keyframes.")
    if any(b <= a for a, b in itertools.pairwise(times)):
        raise DataError(f"the keyframes of scene {scene.name} must ascend in time (microseconds), got {times[:5]}...")


def _file_rows(scene: SceneRecord, samples: list[str]) -> dict[str, list[Row]]:
    """sample_data and ego_pose with prev and next per channel, lidarseg, panoptic."""
    channels = {s.channel for s in scene.sensors}
    chains: dict[str, list[tuple[SampleDataRecord, str]]] = defaultdict(list)  # per channel: file and the keyframe it is of, or ""
    for key, keyframe in zip(samples, scene.keyframes, strict=True):
        for record in keyframe.data:
            chains[record.channel].append((record, key))
    for record in scene.sweeps:
        chains[record.channel].append((record, ""))
    rows: dict[str, list[Row]] = {"sample_data": [], "ego_pose": [], "lidarseg": [], "panoptic": []}
    for channel in sorted(chains):
        if channel not in channels:
            raise DataError(f"scene {scene.name} has files of {channel!r}, which is no sensor of it; {nearest_names(channel, channels)}")
        chain = sorted(chains[channel], key=lambda item: item[0].timestamp)
        tokens = [sample_data_token(scene.name, channel, record.timestamp) for record, _ in chain]
        if len(set(tokens)) != len(tokens):
            raise DataError(f"scene {scene.name} has two files of {channel} with the same timestamp.")
        for i, (record, key) in enumerate(chain):
            following = key or next((k for _, k in chain[i:] if k), samples[-1])
            translation, rotation = _pose_lists(record.ego2global, f"ego2global of {record.filename}")
            pose_token = token("ego_pose", scene.name, channel, int(record.timestamp))
            rows["ego_pose"].append(
                {"token": pose_token, "timestamp": int(record.timestamp), "rotation": rotation, "translation": translation}
            )
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
    for name, chain in chains.items():
        category = chain[0][2].category
        if category not in _CATEGORIES or any(r.category != category for _, _, r in chain):
            given = sorted({r.category for _, _, r in chain})
            raise DataError(
                f"{name!r} of scene {scene.name} needs one category of the 32, got {given}; {nearest_names(given[0], _CATEGORIES)}"
            )
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
            if not min(length, width, height) > 0:
                raise DataError(f"{what} has the size {record.size}; length, width and height must be positive metres.")
            translation, rotation = _pose_lists(record.box2global, f"the box of {what}")
            rows["sample_annotation"].append(
                {
                    "token": key, "sample_token": sample, "instance_token": instance_token, "visibility_token": str(record.visibility),
                    "attribute_tokens": [token("attribute", record.attribute)] if record.attribute else [], "translation": translation,
                    "size": [width, length, height], "rotation": rotation, "prev": chain[i - 1][0] if i else "",
                    "next": chain[i + 1][0] if i + 1 < len(chain) else "", "num_lidar_pts": int(record.num_lidar_pts),
                    "num_radar_pts": int(record.num_radar_pts),
                }
            )  # fmt: skip
    return rows


def _pose_lists(a2b: np.ndarray, what: str) -> tuple[list[float], list[float]]:
    """Translation (3) and quaternion (4) of a rigid transform."""
    a2b = np.asarray(a2b, np.float64)
    rotation = a2b[:3, :3]
    if (
        a2b.shape != (4, 4)
        or not np.isfinite(a2b).all()
        or abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3
        or np.linalg.det(rotation) < 0
    ):
        raise DataError(f"{what} must be a finite rigid 4x4 transform, got {a2b.tolist()}.")
    return a2b[:3, 3].tolist(), matrix_to_quaternion(rotation).tolist()


def _relative(filename: str) -> str:
    path = PurePosixPath(filename)
    if path.is_absolute() or ".." in path.parts or "\\" in filename:
        raise DataError(f"the file name {filename!r} must be relative to the data root, with forward slashes.")
    return str(path)


def _file_format(filename: str) -> str:
    return "pcd" if ".pcd" in filename else PurePosixPath(filename).suffix.lstrip(".").replace("jpeg", "jpg")
