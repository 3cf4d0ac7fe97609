"""Checks on the raw tables, before a reader has normalised anything: calibration, poses, the order of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from frustum.data.check.findings import Finding
from frustum.data.nuscenes.tables import load_table

_CALIBRATION_HINT = "Correct calibrated_sensor.json, or import the data again from a correct calibration."
_FIRST_DATE = 3e13  # microseconds since 1970, in December of that year
_FASTEST = 100.0  # metres per second
_GAPS = 1e3, 5e6  # microseconds between keyframes that recordings have


def inspect_tables(folder: Path) -> list[Finding]:
    """Findings about `<root>/<version>`: calibrations that are not finite, singular or not rigid, and keyframes out of time order.

    Raises:
        DataError: a table is missing or is not JSON.
    """
    sensors = {row["token"]: row for row in load_table(folder, "sensor")}
    problems: dict[str, None] = {}  # every scene has its own record of the same sensor
    for row in load_table(folder, "calibrated_sensor"):
        sensor = sensors.get(row.get("sensor_token"), {})
        found = (_pose_problem(row), _intrinsics_problem(row) if sensor.get("modality") == "camera" else "")
        problems |= {f"the calibration of {sensor.get('channel', 'an unknown sensor')} {problem}": None for problem in found if problem}
    findings = [Finding("error", "", what, _CALIBRATION_HINT) for what in problems]
    broken = [row["token"] for row in load_table(folder, "ego_pose") if _pose_problem(row)]
    if broken:
        hint = "Quaternions are (w, x, y, z) of length 1, translations are finite metres; correct ego_pose.json."
        findings.append(Finding("error", "", f"{len(broken)} ego poses are not rigid transforms, the first is {broken[0]}", hint))
    return findings + _time_order(folder) + _time_units(folder) + _speeds(folder)


def _pose_problem(row: dict[str, Any]) -> str:
    """What is wrong with the pose of a row, "" if nothing is."""
    try:
        translation, rotation = np.array(row["translation"], float), np.array(row["rotation"], float)
    except (KeyError, TypeError, ValueError):
        return "lacks a translation or a rotation"
    if translation.shape != (3,) or rotation.shape != (4,):
        return "needs 3 numbers of translation and 4 of rotation"
    if not np.isfinite([*translation, *rotation]).all():
        return "holds NaN or infinity"
    length = float(np.linalg.norm(rotation))
    return "" if abs(length - 1) < 1e-3 else f"is not rigid: its quaternion has length {length:.4f} instead of 1"


def _intrinsics_problem(row: dict[str, Any]) -> str:
    """What is wrong with the intrinsics of a row, "" if nothing is."""
    try:
        matrix = np.array(row["camera_intrinsic"], float)
    except (KeyError, TypeError, ValueError):
        return "does not have intrinsics"
    if matrix.shape != (3, 3):
        return f"has intrinsics of shape {matrix.shape}, not (3, 3)"
    if not np.isfinite(matrix).all():
        return "holds NaN or infinity in its intrinsics"
    if abs(np.linalg.det(matrix)) < 1e-9:
        return "has singular intrinsics"
    return "" if matrix[0, 0] > 0 and matrix[1, 1] > 0 else "has a negative focal length"


def _time_units(folder: Path) -> list[Finding]:
    """Scenes whose keyframes are not as far apart as those of recordings: their times are in another unit."""
    times: dict[str, list[float]] = {}
    for row in load_table(folder, "sample"):
        times.setdefault(row["scene_token"], []).append(row["timestamp"])
    gaps = {scene: float(np.median(np.diff(np.sort(stamps)))) for scene, stamps in times.items() if len(stamps) > 1}
    names = {row["token"]: row["name"] for row in load_table(folder, "scene")}
    findings = []
    early = [scene for scene, stamps in times.items() if max(stamps) < _FIRST_DATE]
    if early:
        what = f"the keyframes of {len(early)} scenes are of 1970 by their timestamps, those of {names.get(early[0])} first"
        hint = "Right for times that count from the start of a recording; else timestamps are not microseconds since 1970."
        findings.append(Finding("warning", "", what, hint))
    off = [scene for scene, gap in gaps.items() if not _GAPS[0] <= gap <= _GAPS[1]]
    if not off:
        return findings
    what = f"the keyframes of {len(off)} scenes are not as far apart as in a recording: {gaps[off[0]] / 1e6:,.6g} s in {names.get(off[0])}"
    hint = "Right for pictures taken now and then; else the timestamps of sample.json are not microseconds."
    return [*findings, Finding("warning", "", what, hint)]


def _speeds(folder: Path) -> list[Finding]:
    """Scenes in which the vehicle is faster than any: ego poses are not in metres."""
    places = {row["token"]: row["translation"] for row in load_table(folder, "ego_pose") if not _pose_problem(row)}
    scenes = {row["token"]: row["scene_token"] for row in load_table(folder, "sample")}
    names = {row["token"]: row["name"] for row in load_table(folder, "scene")}
    tracks: dict[tuple[str, str], list[tuple[float, Any]]] = {}
    for row in load_table(folder, "sample_data"):
        if row["is_key_frame"] and row["sample_token"] in scenes:
            of = scenes[row["sample_token"]], row["calibrated_sensor_token"]
            tracks.setdefault(of, []).append((row["timestamp"], places.get(row["ego_pose_token"])))
    fast: dict[str, float] = {}
    for (scene, _), track in tracks.items():
        track.sort(key=lambda moment: moment[0])
        seconds = np.diff([moment[0] for moment in track]) / 1e6
        if len(track) < 2 or (seconds <= 0).any() or any(place is None for _, place in track):
            continue  # another finding says so
        speed = float(np.median(np.linalg.norm(np.diff([place for _, place in track], axis=0), axis=1) / seconds))
        if speed > _FASTEST:
            fast[scene] = speed
    if not fast:
        return []
    first, speed = next(iter(fast.items()))
    what = f"the vehicle moves at {speed:,.0f} m/s in {names.get(first)}, and faster than {_FASTEST:g} m/s in {len(fast)} scenes"
    return [Finding("error", "", what, "Translations of ego_pose.json are metres; millimetres are multiplied by 0.001.")]


def _time_order(folder: Path) -> list[Finding]:
    samples = {row["token"]: row for row in load_table(folder, "sample")}
    findings = []
    for scene in load_table(folder, "scene"):
        token, last, count = scene.get("first_sample_token", ""), -np.inf, 0
        while token and token in samples and count <= len(samples):
            row = samples[token]
            if row["timestamp"] <= last:
                what = f"scene {scene['name']} goes back in time at this keyframe ({row['timestamp']} after {last} microseconds)"
                findings.append(Finding("error", token, what, "Correct timestamp, prev and next in sample.json."))
                break
            token, last, count = row["next"], row["timestamp"], count + 1
        if token and token not in samples:
            what = f"scene {scene['name']} links to the keyframe {token}, which is not in sample.json"
            findings.append(Finding("error", "", what, "The tables belong to different releases; restore all of them from one archive."))
    return findings
