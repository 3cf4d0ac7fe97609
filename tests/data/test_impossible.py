"""Numbers that cannot be: refused by the reader, the importers and `from_arrays`, with the table, file or argument and the record."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frustum import Batch
from frustum.data.check.tables import inspect_tables
from frustum.data.kitti.raw import open_drive
from frustum.data.labels.boxes import BoxLabels, TrueBoxes
from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.lidar_points import LidarPoints, Scans
from frustum.data.labels.view_points import Views, view_points
from frustum.data.nuscenes.detection_results import read_detections
from frustum.data.nuscenes.detection_truth import detection_truth
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.sample import LidarFrame
from frustum.errors import DataError
from frustum.tasks.detection import DetectionTask
from tests.data.kitti_drive import write_drive
from tests.data.toy import VERSION

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def root(toy_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_root, tmp_path / "db"))


def edit(root: Path, table: str, change: Callable[[dict[str, Any]], Any], row: int = 0) -> str:
    """Change one row of a table; returns its token."""
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text())
    change(rows[row])
    path.write_text(json.dumps(rows))
    return str(rows[row]["token"])


def errors(read: Callable[[str], Any], database: NuScenes) -> list[str]:
    """What reading each keyframe says."""
    found = []
    for token in database.tokens():
        try:
            read(token)
        except DataError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(size=[-1.9, 4.5, 1.6]), "width is -1.9 m, which must be 0.001 to 200 m"),
        (lambda r: r.update(size=[1.9, NAN, 1.6]), "length is nan m"),
        (lambda r: r.update(size=[1.9, None, 1.6]), "length is nan m"),
        (lambda r: r.update(size=[1.9, 4.5, INF]), "height is inf m"),
        (lambda r: r["translation"].__setitem__(1, NAN), "y is nan m"),
        (lambda r: r["translation"].__setitem__(0, 1e300), "x is 1e+300 m"),
        (lambda r: r.update(rotation=[0, 0, 0, 0]), "the length of its quaternion is 0"),
        (lambda r: r.update(num_lidar_pts=-3), "num_lidar_pts is -3"),
    ],
)
def test_a_box_that_cannot_be_is_named(root: Path, change: Callable[[dict[str, Any]], Any], words: str) -> None:
    token = edit(root, "sample_annotation", change)
    database = NuScenes(root, VERSION)
    for read in (database.sample, lambda t: detection_truth(database, t), lambda t: BoxLabels().read(database, t)):
        told = [e for e in errors(read, database) if e.startswith(f"the box {token} in ")]
        assert len(told) == 1
        assert f"sample_annotation.json cannot be right: {words}" in told[0]
    assert not errors(lambda t: database.sample(t, with_boxes=False), database), "nobody needs the boxes"


@pytest.mark.parametrize(
    ("table", "row", "change", "words"),
    [
        ("calibrated_sensor", 0, lambda r: r["camera_intrinsic"][0].__setitem__(0, -126.6), "fx is -126.6 pixels"),
        ("calibrated_sensor", 0, lambda r: r["camera_intrinsic"][1].__setitem__(1, 1e300), "fy is 1e+300 pixels"),
        ("calibrated_sensor", 0, lambda r: r["translation"].__setitem__(0, 1e300), "x is 1e+300 m, which must be -10,000 to 10,000 m"),
        ("calibrated_sensor", 2, lambda r: r["rotation"].__setitem__(0, NAN), "the length of its quaternion is nan"),
        (
            "sample_data",
            0,
            lambda r: r.update(height=-90, is_key_frame=True),
            "the height is -90 pixels, which must be 1 to 100,000 pixels",
        ),
        ("ego_pose", 0, lambda r: r["translation"].__setitem__(2, -1e300), "z is -1e+300 m, which must be -40,000,000 to 40,000,000 m"),
    ],
)
def test_calibrations_and_poses_that_cannot_be_are_named(
    root: Path, table: str, row: int, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    channel = {0: "CAM_BACK", 2: "LIDAR_TOP"}
    rows = json.loads((root / VERSION / "calibrated_sensor.json").read_text())
    sensors = {s["token"]: s["channel"] for s in json.loads((root / VERSION / "sensor.json").read_text())}
    row = next(i for i, r in enumerate(rows) if sensors[r["sensor_token"]] == channel[row]) if table == "calibrated_sensor" else row
    edit(root, table, change, row)
    database = NuScenes(root, VERSION)
    told = errors(lambda t: database.sample(t, history=2, num_sweeps=3, with_boxes=False), database)
    assert told
    assert all(f"{table}.json cannot be right: {words}" in e for e in told)
    assert database.tokens(), "the other keyframes can be used"


def test_lidar_scans(root: Path) -> None:
    database = NuScenes(root, VERSION)
    sample = database.sample(database.tokens()[0])
    assert sample.lidar is not None
    raw = np.fromfile(sample.lidar.path, np.float32).reshape(-1, 5)
    points = raw.copy()
    points[::4, 2] = NAN
    points[1] = 1e38
    points.tofile(sample.lidar.path)
    kept = np.ones(len(raw), bool)
    kept[::4] = kept[1] = False
    np.testing.assert_array_equal(sample.lidar.load(), raw[kept])
    labelled = view_points(database, sample, Views(source="lidarseg"))
    assert sum(len(image.depth) for image in labelled) > 0, "classes are still those of their points"
    for content in (b"", np.full((9, 5), NAN, np.float32).tobytes(), np.full((9, 5), 1e38, np.float32).tobytes()):
        sample.lidar.path.write_bytes(content)
        for read in (LidarFrame.load, lambda lidar: DepthLabels().read(database, sample.token)):
            with pytest.raises(DataError, match=f"{sample.lidar.path.name} cannot be a scan"):
                read(sample.lidar)


def arrays(**change: Any) -> dict[str, Any]:
    """Arguments of `from_arrays` for two cameras."""
    eye = np.tile(np.eye(4), (2, 1, 1))
    lens = np.tile(np.array([[100.0, 0, 32], [0, 100, 16], [0, 0, 1]]), (2, 1, 1))
    return {"images": np.zeros((2, 3, 32, 64), np.float32), "intrinsics": lens, "cam2ego": eye, "ego2global": eye} | change


def test_arrays_from_anybody() -> None:
    Batch.from_arrays(**arrays())
    given = arrays()
    given["intrinsics"][1, 0, 0] = 1e300
    with pytest.raises(DataError, match=r"intrinsics cannot be right at camera 1 of entry \(0, 0\): fx is 1e\+300 pixels"):
        Batch.from_arrays(**given)
    given = arrays()
    given["cam2ego"][0, 0, 3] = 1e5
    with pytest.raises(DataError, match=r"cam2ego cannot be right at camera 0 .*: x is 100,000 m"):
        Batch.from_arrays(**given)
    for value in (NAN, -1.0, 1e38):
        depth = torch.zeros(1, 2, 32, 64)
        depth[0, 1, 3, 4] = value
        with pytest.raises(DataError, match=r"the depth maps cannot be right at \(0, 1, 3, 4\): a depth is"):
            Batch.from_arrays(**arrays(labels={DepthLabels: depth}))


def test_labels_from_anybody() -> None:
    car = torch.tensor([10.0, -3.0, 1.0, 4.5, 1.9, 1.6, 0.3, NAN, NAN])
    TrueBoxes([car[None]], [torch.zeros(1, dtype=torch.long)])
    with pytest.raises(DataError, match=r"the true box 1 cannot be right: length is -4\.5 m"):
        TrueBoxes([torch.stack([car, car * torch.tensor([1, 1, 1, -1, 1, 1, 1, 1, 1])])], [torch.zeros(2, dtype=torch.long)])
    with pytest.raises(DataError, match="LiDAR point 2 cannot be right: y is nan m"):
        Scans([torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, NAN, 1]])], [np.ones((1, 2))], [-1])
    assert LidarPoints.check is not None


@pytest.mark.parametrize("field", ["translation", "size", "velocity", "rotation", "detection_score"])
def test_detections_beyond_all_numbers_of_boxes(tmp_path: Path, field: str) -> None:
    box = {
        "sample_token": "a", "translation": [1.0, 2, 3], "size": [1.0, 2, 1], "rotation": [1.0, 0, 0, 0], "velocity": [0.0, None],
        "detection_name": "car", "attribute_name": "", "detection_score": 0.5,
    }  # fmt: skip
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"meta": {}, "results": {"a": [box]}}))
    assert len(read_detections(path).boxes["a"]) == 1
    box[field] = 1e308 if field == "detection_score" else [1e308, *box[field][1:]]  # type: ignore[index]
    path.write_text(json.dumps({"meta": {}, "results": {"a": [box]}}))
    with pytest.raises(DataError, match=f"box 0 of sample a: '{field}' must be .* of at most 40,000,000"):
        read_detections(path)


def test_predicted_boxes_that_cannot_be(tmp_path: Path) -> None:
    stored = {"boxes": np.ones((1, 9), np.float32), "classes": np.zeros(1, np.int64), "scores": np.ones(1, np.float32)}
    stored |= {"class_names": np.array(["car"]), "token": np.array("a"), "scene": np.array("")}
    np.savez(tmp_path / "a.boxes.npz", **stored)  # type: ignore[arg-type]
    assert len(DetectionTask.load(tmp_path / "a.boxes.npz").scores) == 1
    for name, value in (("boxes", NAN), ("boxes", 1e38), ("scores", INF)):
        array = stored[name].copy()
        array.flat[0] = value
        np.savez(tmp_path / "b.boxes.npz", **stored | {name: array})  # type: ignore[arg-type]
        with pytest.raises(DataError, match="not finite, or beyond 40,000,000"):
            DetectionTask.load(tmp_path / "b.boxes.npz")


def test_kitti(tmp_path: Path) -> None:
    drive = write_drive(tmp_path)
    scan = np.fromfile(open_drive(drive).scans[0], np.float32).reshape(-1, 4)
    scan[: len(scan) // 2 + 1] = 1e38
    scan.tofile(open_drive(drive).scans[0])
    with pytest.raises(DataError, match="cannot be a scan"):
        open_drive(drive).scan(0)
    calibration = drive.parent / "calib_velo_to_cam.txt"
    good = calibration.read_text()
    calibration.write_text(good.replace("T: ", "T: 1e300 ").rpartition(" ")[0] + "\n")
    with pytest.raises(DataError, match=r"calib_velo_to_cam\.txt cannot be right: x is 1e\+300 m"):
        open_drive(drive)
    calibration.write_text(good)
    second = sorted((drive / "oxts" / "data").glob("*.txt"))[1]
    row = second.read_text().split()
    for place, value in ((0, "91"), (1, "1e6"), (2, "-1e300"), (8, "1e38")):  # latitude, longitude, altitude, velocity
        second.write_text(" ".join([*row[:place], value, *row[place + 1 :]]))
        with pytest.raises(DataError, match=f"{second.name} cannot be right"):
            open_drive(drive)


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        ("lidarseg", lambda rows: rows[0].update(filename=["x"]), "cannot be the name of a file"),
        ("lidarseg", lambda rows: rows[0].update(filename="1" * 5000), "cannot be the name of a file"),
        ("lidarseg", lambda rows: rows.append(7), "must be a JSON list of records"),
        ("sensor", lambda rows: rows[0].update(modality={}), "do not follow the nuScenes schema"),
        ("scene", lambda rows: rows[0].update(description=[]), "do not follow the nuScenes schema"),
        ("sample", lambda rows: rows[0].update(timestamp=None), "do not follow the nuScenes schema"),
        ("ego_pose", lambda rows: rows[0].update(translation=[10**400, 0, 0]), "do not follow the nuScenes schema"),
        ("category", lambda rows: rows[0].update(name=None), "do not follow the nuScenes schema"),
    ],
)
def test_fields_of_another_kind(root: Path, table: str, change: Callable[[Any], Any], words: str) -> None:
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=words):
        _read_all(root)
    with contextlib.suppress(DataError):
        inspect_tables(root / VERSION)


def _read_all(root: Path) -> None:
    database = NuScenes(root, VERSION)
    for token in database.tokens():
        database.sample(token)
        database.point_labels(token)


def test_instances_of_points_of_another_kind(root: Path) -> None:
    database = NuScenes(root, VERSION)
    token = database.tokens()[0]
    path = root / json.loads((root / VERSION / "panoptic.json").read_text())[0]["filename"]
    sound, where = database.point_labels(token), list(path.parent.iterdir())
    assert sound is not None
    for bad in (np.zeros(3, np.uint16), np.zeros(len(sound[0])), np.array({"a": 1}, object), np.zeros((1, 1 << 26), np.uint8)):
        for file in where:
            np.savez_compressed(file, data=bad)
        with pytest.raises(DataError, match="point labels"):
            database.point_labels(token)
    for file in where:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="damaged or not an npz"):
        database.point_labels(token)
