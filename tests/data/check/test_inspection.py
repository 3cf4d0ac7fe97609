"""The data check: a consistent data set is silent, and each kind of damage is found and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.check.inspection import inspect, judge
from frustum.data.check.projection import REACH, EdgeFit, edge_image, scan_edges
from frustum.data.check.tables import inspect_tables
from frustum.data.nuscenes.detection_truth import detection_truth
from frustum.data.nuscenes.lacking import lacking
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.occ3d.label_files import read_labels, write_labels
from frustum.data.sample import Occupancy
from frustum.files import ALSO_READ
from frustum.geometry import matrix_to_quaternion, quaternion_to_matrix, rotation_xyz
from tests.data.consistent import CAM2EGO, INTRINSICS, VERSION, sweep, write_consistent


@pytest.fixture(scope="module")
def consistent(tmp_path_factory) -> Path:
    return write_consistent(tmp_path_factory.mktemp("consistent"))


@pytest.fixture
def root(consistent, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(consistent, tmp_path / "broken"))


def edit(root: Path, table: str, change) -> None:
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def found(root: Path, severity: str | None = None) -> list[str]:
    return [f.what for f in inspect(NuScenes(root, VERSION)) if severity in (None, f.severity)]


def calibration_of(root: Path, channel: str):
    """A change of one sensor's calibration: `lambda rows: change(row)`."""
    sensors = json.loads((root / VERSION / "sensor.json").read_text())
    token = next(s["token"] for s in sensors if s["channel"] == channel)
    return lambda change: edit(root, "calibrated_sensor", lambda rows: [change(r) for r in rows if r["sensor_token"] == token])


def turned(row: dict, roll: float = 0, pitch: float = 0, yaw: float = 0) -> None:
    """Turn a camera about the ego axes, degrees."""
    rotation = rotation_xyz(*np.radians([roll, pitch, yaw])) @ quaternion_to_matrix(np.array(row["rotation"]))
    row["rotation"] = matrix_to_quaternion(rotation).tolist()


def test_a_consistent_data_set_is_silent(consistent):
    findings = inspect(NuScenes(consistent, VERSION))
    assert [f.what for f in findings if f.severity != "note"] == []
    assert all("hold no point" in f.what for f in findings)


def test_keyframes_that_lack_a_camera_are_counted(root):
    dataset = NuScenes(root, VERSION)
    token = dataset.tokens()[-1]
    gone = dataset.sample(token).cameras[-1]
    name = gone.path.relative_to(root).as_posix()
    edit(root, "sample_data", lambda rows: [row.update(is_key_frame=False) for row in rows if row["filename"] == name])
    dataset = NuScenes(root, VERSION)
    assert dataset.lacking_cameras(dataset.tokens()) == {gone.channel: [token]}
    assert any(f"1 of {len(dataset.tokens())} keyframes have no image of {gone.channel}" in what for what in found(root, "warning"))
    assert [f"no image of {gone.channel}" in said for said in lacking(dataset, dataset.tokens())] == [True]


def test_boxes_that_detection_leaves_out_are_counted_by_category(root):
    """A category named like a class counts for the reader and for the truth; one of another spelling for neither, and check says so."""
    dataset = NuScenes(root, VERSION)
    before = sum(len(detection_truth(dataset, token).boxes) for token in dataset.tokens())
    counts = dataset.class_counts(dataset.tokens(), 0).sum()
    assert before == counts

    def rename(name: str, new: str) -> None:
        edit(root, "category", lambda rows: [row.update(name=new) for row in rows if row["name"] == name])

    rename("vehicle.car", "car")
    dataset = NuScenes(root, VERSION)
    assert sum(len(detection_truth(dataset, token).boxes) for token in dataset.tokens()) == before
    assert dataset.class_counts(dataset.tokens(), 0).sum() == counts
    assert not dataset.other_boxes(dataset.tokens())
    rename("car", "Car")
    dataset = NuScenes(root, VERSION)
    number = dataset.other_boxes(dataset.tokens())["Car"]
    assert number > 0
    assert sum(len(detection_truth(dataset, token).boxes) for token in dataset.tokens()) == before - number
    assert dataset.class_counts(dataset.tokens(), 0).sum() == counts - number
    assert any(f"{number} boxes are of none of the ten detection classes" in what for what in found(root, "warning"))


def test_findings_say_what_to_do_and_come_worst_first(root):
    (root / "samples" / "CAM_FRONT" / "1.png").unlink()
    findings = inspect(NuScenes(root, VERSION))
    assert all(f.hint and f.what for f in findings)
    ranks = [("error", "warning", "note").index(f.severity) for f in findings]
    assert ranks == sorted(ranks)
    assert vars(findings[0])["severity"] == "error"


@pytest.mark.parametrize("angles", [{"yaw": 2.0}, {"yaw": -3.0}, {"pitch": 2.0}, {"yaw": 2.0, "pitch": -2.0}])
def test_a_wrong_camera_calibration_is_found(root, angles):
    calibration_of(root, "CAM_FRONT")(lambda row: turned(row, **angles))
    warnings = [w for w in found(root) if "does not sit on the images" in w]
    assert len(warnings) == 1
    assert "CAM_FRONT:" in warnings[0]
    if angles == {"yaw": 2.0}:  # the calibration turns left, so the points appear too far right and fit further left
        assert "2.0 degrees further left and 0.0 degrees" in warnings[0]


def test_a_wrong_focal_length_or_exchanged_camera_is_found(root):
    left, front = (calibration_of(root, c) for c in ("CAM_FRONT_LEFT", "CAM_FRONT"))
    poses: dict[str, dict] = {}
    front(lambda row: poses.update(front={k: row[k] for k in ("translation", "rotation")}))
    left(lambda row: poses.update(left={k: row[k] for k in ("translation", "rotation")}))
    front(lambda row: row.update(poses["left"]))
    left(lambda row: row.update(poses["front"]))
    assert len([w for w in found(root) if "LiDAR" in w and "image" in w]) >= 1


def test_a_camera_that_looks_away_is_found(root):
    calibration_of(root, "CAM_FRONT")(lambda row: turned(row, pitch=-89))
    assert any("CAM_FRONT: only" in w and "fall into the image" in w for w in found(root, "error"))


def test_a_wrong_lidar_calibration_is_found_by_the_boxes(root):
    calibration_of(root, "LIDAR_TOP")(lambda row: turned(row, yaw=8))
    assert any("boxes do not hold the LiDAR points" in w for w in found(root, "error"))


def test_a_box_that_is_shifted_is_found(root):
    def shift(rows):
        row = max(rows, key=lambda r: r["num_lidar_pts"])
        row["translation"][2] += 4.0

    edit(root, "sample_annotation", shift)
    assert any("1 of 26 boxes do not hold the LiDAR points that num_lidar_pts says (1 car" in w for w in found(root, "warning"))


def test_boxes_without_points_are_noted(consistent):
    assert any("boxes hold no point" in w for w in found(consistent, "note"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(rotation=[0.6, -0.5, 0.5, -0.5]), "the length of its quaternion is 1.05"),
        (lambda r: r.update(translation=[1, float("nan"), 0]), "y is nan m, which must be -10,000 to 10,000 m"),
        (lambda r: r.update(camera_intrinsic=[[0, 0, 200], [0, 300, 100], [0, 0, 1]]), "fx is 0 pixels, which must be 1 to"),
        (lambda r: r.update(camera_intrinsic=[[300, 0, float("inf")], [0, 300, 100], [0, 0, 1]]), "cx is inf pixels"),
        (lambda r: r.update(camera_intrinsic=[]), "has 'camera_intrinsic' of shape (0,)"),
        (lambda r: r.update(rotation=[1, 0, 0]), "has 'rotation' of shape (3,), not (4,)"),
        (lambda r: r.update(camera_intrinsic=[[-300, 0, 200], [0, 300, 100], [0, 0, 1]]), "fx is -300 pixels"),
    ],
)
def test_tables_with_bad_calibration(root, change, message):
    calibration_of(root, "CAM_FRONT")(change)
    findings = inspect_tables(root / VERSION)
    assert len(findings) == 1
    assert findings[0].severity == "error"
    assert "CAM_FRONT" in findings[0].what
    assert message in findings[0].what


def test_bad_ego_poses_and_times_out_of_order(root):
    edit(root, "ego_pose", lambda rows: rows[0].update(rotation=[2, 0, 0, 0]))
    edit(root, "sample", lambda rows: rows[2].update(timestamp=rows[0]["timestamp"] - 5))
    texts = [f.what for f in inspect_tables(root / VERSION)]
    assert any("1 ego poses cannot be used" in t for t in texts)
    assert any("goes back in time" in t for t in texts)


def test_a_broken_chain_of_keyframes(root):
    edit(root, "sample", lambda rows: rows[0].update(next="0" * 32))
    assert any("which is not in sample.json" in f.what for f in inspect_tables(root / VERSION))


def test_a_principal_point_of_another_image_size(root):
    """Intrinsics of half the size: a quarter of the image away from its middle."""

    def halve(rows):
        for row in rows:
            if row["camera_intrinsic"]:
                row["camera_intrinsic"][0][2], row["camera_intrinsic"][1][2] = 100, 50

    edit(root, "calibrated_sensor", halve)
    assert any("principal point (100, 50) is far from the middle of 400 x 200" in w for w in found(root, "warning"))


def test_a_generated_world_has_nothing_to_warn_of(street_root):
    """Its images are what networks read: the upper rows are cut off, so that principal points lie above the middle."""
    world = NuScenes(street_root)
    assert [f.what for f in inspect(world, world.tokens("val")[:2]) if f.severity != "note"] == []


def test_pixels_that_are_no_squares(root):
    def stretch(rows):
        for row in rows:
            if row["camera_intrinsic"]:
                row["camera_intrinsic"][1][1] *= 1.5

    edit(root, "calibrated_sensor", stretch)
    assert any("fy is 1.50 times fx, so that its pixels are no squares" in w for w in found(root, "warning"))


def test_ego_poses_in_millimetres(root):
    drive = iter(range(10**6))
    edit(root, "ego_pose", lambda rows: [row.update(translation=[5000.0 * next(drive), 0, 0]) for row in rows])
    assert any("m/s in" in finding.what and "faster than 100 m/s" in finding.what for finding in inspect_tables(root / VERSION))


def test_times_in_1970(root):
    for table in ("sample", "sample_data"):
        edit(root, table, lambda rows: [row.update(timestamp=1_600_000_000 + k) for k, row in enumerate(rows)])
    assert any("are of 1970 by their timestamps" in finding.what for finding in inspect_tables(root / VERSION))


def test_principal_point_outside_the_image(root):
    calibration_of(root, "CAM_FRONT")(lambda r: r.update(camera_intrinsic=[[300, 0, 200], [0, 300, 460], [0, 0, 1]]))
    assert any("principal point (200, 460) lies outside the image of 400 x 200" in w for w in found(root, "error"))


def test_image_of_another_size(root):
    path = root / "samples" / "CAM_FRONT" / "0.png"
    Image.open(path).resize((200, 100)).save(path)
    assert any("the image has 200 x 100 pixels, sample_data.json says 400 x 200" in w for w in found(root, "error"))


def test_unreadable_and_missing_files(root):
    (root / "samples" / "CAM_FRONT" / "0.png").write_bytes(b"\x89PNG and nothing more")
    (root / "samples" / "CAM_FRONT_LEFT" / "1.png").unlink()
    (root / "samples" / "LIDAR_TOP" / "2.pcd.bin").write_bytes(b"\0" * 28)
    errors = found(root, "error")
    assert any("CAM_FRONT: cannot read the image" in w for w in errors)
    assert any("CAM_FRONT_LEFT: cannot read the image" in w for w in errors)
    assert any("2.pcd.bin" in w for w in errors)


def test_points_that_are_not_finite(root):
    points = sweep(0)
    points[5, 1] = np.nan
    points[6, 2] = 2e4
    points.tofile(root / "samples" / "LIDAR_TOP" / "0.pcd.bin")
    assert any("2 of" in w and "not finite, or over 10 km away" in w for w in found(root, "warning"))
    points[: len(points) // 2 + 1, 0] = np.inf
    points.tofile(root / "samples" / "LIDAR_TOP" / "0.pcd.bin")
    assert any("0.pcd.bin cannot be a scan" in w for w in found(root, "error"))


def test_boxes_and_poses_that_cannot_be_do_not_end_the_check(root):
    edit(root, "sample_annotation", lambda rows: rows[0].update(size=[-1, 4, 2]))
    edit(root, "ego_pose", lambda rows: rows[-1].update(translation=[1e300, 0, 0]))
    errors = found(root, "error")
    assert any("1 boxes cannot be used; the first, " in w and "width is -1 m" in w for w in errors)
    assert any("1 ego poses cannot be used; the first, " in w and "x is 1e+300 m" in w for w in errors)
    assert any(w.startswith("the box ") and "sample_annotation.json cannot be right: width is -1 m" in w for w in errors)
    assert any(w.startswith("the pose of samples/") and "ego_pose.json cannot be right: x is 1e+300 m" in w for w in errors)


def change_labels(root: Path, change) -> None:
    path = sorted((root / "gts").rglob("labels.npz"))[0]
    old = read_labels(path)
    arrays = {n: getattr(old, n).copy() for n in ("semantics", "mask_lidar", "mask_camera")}
    write_labels(path, Occupancy(**{n: a for n, a in (change(arrays) or arrays).items()}))


def test_label_files_of_another_shape_truncated_and_missing(root):
    change_labels(root, lambda a: {n: v[:100] for n, v in a.items()})
    files = sorted((root / "gts").rglob("labels.npz"))
    files[1].write_bytes(files[1].read_bytes()[:200])
    files[2].unlink()
    texts = found(root)
    assert any("the labels have shape (100, 200, 16), the grid has (200, 200, 16)" in w for w in texts)
    assert any("is damaged" in w for w in texts)
    assert any("1 of 2 keyframes have no occupancy labels" in w for w in texts)


def test_masks_that_do_not_nest_or_are_empty(root):
    change_labels(root, lambda a: a["mask_lidar"].__setitem__((slice(120, 125), slice(100, 105)), 0))
    assert any("80 voxels".replace("80", "400") in w and "camera mask but not in the LiDAR mask" in w for w in found(root, "warning"))
    change_labels(root, lambda a: a["mask_camera"].fill(0))
    assert any("no voxel is in the camera mask" in w for w in found(root, "warning"))


def test_labels_that_are_shifted_against_the_boxes(root):
    change_labels(root, lambda a: a | {"semantics": np.roll(a["semantics"], 8, axis=1)})
    warnings = found(root, "warning")
    assert any("voxels of objects (car) lie outside every box of their class" in w for w in warnings)


def test_labels_of_another_class_than_the_box(root):
    change_labels(root, lambda a: a["semantics"].__setitem__(a["semantics"] == 4, 10))
    warnings = found(root, "warning")
    assert any("hold voxels that are mostly of another class" in w for w in warnings)
    assert any("(truck) lie outside every box of their class" in w for w in warnings)


def test_poses_and_times_of_cameras(root):
    sensors = {s["channel"]: s["token"] for s in json.loads((root / VERSION / "sensor.json").read_text())}
    calibrations = json.loads((root / VERSION / "calibrated_sensor.json").read_text())
    front = next(c["token"] for c in calibrations if c["sensor_token"] == sensors["CAM_FRONT"])
    poses: list[str] = []

    def late(rows):
        for row in rows:
            if row["calibrated_sensor_token"] == front:
                row["timestamp"] += 400_000
                poses.append(row["ego_pose_token"])

    edit(root, "sample_data", late)
    edit(root, "ego_pose", lambda rows: [r["translation"].__setitem__(0, 500.0) for r in rows if r["token"] in poses])
    texts = found(root)
    assert any("the image was taken +0.40 s away" in w for w in texts)
    assert any("m from that of the keyframe" in w for w in texts)


def test_edges_of_a_scan_are_where_the_range_jumps():
    """One ring over a wall at 20 m with a post at 8 m in front of it: its two sides, on the post."""
    azimuth = np.radians(np.arange(-20, 20, 0.25))
    distance = np.where(np.abs(np.degrees(azimuth)) < 2, 8.0, 20.0)
    points = np.column_stack(
        [distance * np.cos(azimuth), distance * np.sin(azimuth), np.zeros_like(azimuth), azimuth, np.zeros_like(azimuth)]
    )
    edges = scan_edges(points)
    assert len(edges) == 2
    np.testing.assert_allclose(np.sort(np.degrees(azimuth[edges])), [-1.75, 1.75])


def test_edge_image_marks_the_contour_only():
    grey = np.full((60, 80), 50, np.float32)
    grey[:, 40:] = 200
    strength = edge_image(grey)
    assert strength[:, 39:41].min() > 5 * strength[:, :30].max()
    assert strength.max() <= 1


def test_the_fit_measures_the_error(consistent):
    sample = NuScenes(consistent, VERSION).sample(NuScenes(consistent, VERSION).tokens()[0])
    camera = sample.cameras[0]
    fit = EdgeFit()
    fit.add(camera, camera.open(), sample.lidar, sample.lidar.load())
    assert fit.edges > 200
    right, down, gain = fit.best_shift()
    assert abs(right) <= 0.5
    assert abs(down) <= 0.5
    assert gain < 0.2
    assert set(CAM2EGO) == {c.channel for c in sample.cameras}
    np.testing.assert_allclose(camera.intrinsics, INTRINSICS)


@pytest.mark.data
@pytest.mark.parametrize("angles", [{}, {"yaw": 2.5}, {"yaw": -2.0, "pitch": 2.0}])
def test_real_keyframes(shared, tmp_path, monkeypatch, angles):
    """On two real nuScenes keyframes the true calibration is silent and a turned camera is found."""
    source = shared / "data" / "nuscenes_keyframes"
    monkeypatch.setenv(ALSO_READ, str(source))  # linked to, not copied
    for name in ("samples", "maps"):
        (tmp_path / name).symlink_to(source / name)
    shutil.copytree(source / "v1.0-mini", tmp_path / "v1.0-mini")
    for table in (tmp_path / "v1.0-mini").glob("*.json"):
        table.chmod(0o644)
    (tmp_path / "v1.0-mini").chmod(0o755)
    calibration_of(tmp_path, "CAM_FRONT")(lambda row: turned(row, **angles))
    shifts = [w for w in found(tmp_path) if "does not sit" in w]
    assert [("CAM_FRONT:" in w) for w in shifts] == ([True] if angles else [])
    assert found(tmp_path, "error") == []


@pytest.mark.parametrize(("column", "words"), [(0, "5.0 degrees or more further left"), (4, "3.0 degrees further left")])
def test_a_shift_at_the_border_of_the_search_may_be_larger(column: int, words: str) -> None:
    fit = EdgeFit(edges=1000)
    fit.scores[:] = 100 + np.random.default_rng(0).random(fit.scores.shape)
    fit.scores[10, column] = 400
    finding = judge("CAM_FRONT", fit)
    assert finding is not None
    assert f"its edges fit best {words} and 0.0 degrees further up" in finding.what
    assert REACH == 5
