"""Checks on the raw tables, before a reader has normalised anything: calibration, poses, the order of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from frustum.data.check.findings import Finding
from frustum.data.nuscenes.tables import following_schema, load_table
from frustum.geometry.plausible import BOX, NEAR, WORLD, Fault, first_fault, intrinsics_fault, pose_row_fault

_CALIBRATION_HINT = "Correct calibrated_sensor.json, or import the data again from a correct calibration."
_FIRST_DATE = 3e13  # microseconds since 1970, in December of that year
_FASTEST = 100.0  # metres per second
_GAPS = 1e3, 5e6  # microseconds between keyframes that recordings have


def inspect_tables(folder: Path) -> list[Finding]:
    """Findings about `<root>/<version>`: calibrations, ego poses and boxes that cannot be, and keyframes out of time order.

    Raises:
        DataError: a table is missing or is not JSON.
    """
    with following_schema(folder):
        return [*_records(folder), *_time_order(folder), *_time_units(folder), *_speeds(folder)]


def _records(folder: Path) -> list[Finding]:
    """What is wrong with single records."""
    sensors = {row["token"]: row for row in load_table(folder, "sensor")}
    problems: dict[str, None] = {}  # every scene has its own record of the same sensor
    for row in load_table(folder, "calibrated_sensor"):
        sensor = sensors.get(row.get("sensor_token"), {})
        found = (_pose_problem(row, NEAR), _intrinsics_problem(row) if sensor.get("modality") == "camera" else "")
        problems |= {f"the calibration of {sensor.get('channel', 'an unknown sensor')} {problem}": None for problem in found if problem}
    findings = [Finding("error", "", what, _CALIBRATION_HINT) for what in problems]
    for name, kind, problem_of, hint in (
        ("ego_pose", "ego poses", _pose_problem, "Quaternions are (w, x, y, z) of length 1, translations are finite metres."),
        ("sample_annotation", "boxes", _box_problem, "Centres are finite metres, sizes are width, length and height above 0."),
    ):
        broken = [(row["token"], problem) for row in load_table(folder, name) if (problem := problem_of(row))]
        if broken:
            what = f"{len(broken)} {kind} cannot be used; the first, {broken[0][0]}, {broken[0][1]}"
            findings.append(Finding("error", "", what, f"{hint} Keyframes with them cannot be used: correct {name}.json."))
    return findings


def _pose_problem(row: dict[str, Any], farthest: float = WORLD) -> str:
    """What is wrong with the pose of a row, "" if nothing is."""
    numbers = _numbers(row, {"translation": (3,), "rotation": (4,)})
    return numbers if isinstance(numbers, str) else _words(pose_row_fault(numbers, farthest))


def _box_problem(row: dict[str, Any]) -> str:
    """What is wrong with the pose and size of an annotation, "" if nothing is."""
    numbers = _numbers(row, {"size": (3,)})
    return _pose_problem(row) or (numbers if isinstance(numbers, str) else _words(first_fault(numbers[[1, 0, 2]], BOX[3:6])))


def _intrinsics_problem(row: dict[str, Any]) -> str:
    """What is wrong with the intrinsics of a row, "" if nothing is."""
    numbers = _numbers(row, {"camera_intrinsic": (3, 3)})
    return numbers if isinstance(numbers, str) else _words(intrinsics_fault(numbers.reshape(3, 3)))


def _numbers(row: dict[str, Any], fields: dict[str, tuple[int, ...]]) -> np.ndarray | str:
    """The numbers of fields of known shapes in one row, or what is wrong with them."""
    found = []
    for field, shape in fields.items():
        try:
            array = np.array(row[field], np.float64)
        except (KeyError, TypeError, ValueError, OverflowError):
            return f"has no numbers in {field!r}"
        if array.shape != shape:
            return f"has {field!r} of shape {array.shape}, not {shape}"
        found.append(array.ravel())
    return np.concatenate(found)


def _words(fault: Fault | None) -> str:
    return "" if fault is None else f"cannot be right: {fault.words}"


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
