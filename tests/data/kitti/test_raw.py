"""Reading of KITTI's raw files: poses, calibration, beams, motion during a turn, and damaged input."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from frustum.data.kitti.raw import find_drives, open_drive, oxts_poses, read_tracklets, rings
from frustum.errors import DataError, FrustumWarning
from tests.data.kitti_drive import (
    BASELINE,
    CAM_SHIFT,
    CENTRE,
    FOCAL,
    FRAMES,
    HEADING,
    LIDAR_HEIGHT,
    RINGS,
    STEP,
    altitude,
    scan,
    write_drive,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_drive(tmp_path_factory.mktemp("kitti_raw"))


def test_drives_are_found_from_root_date_and_drive(folder, tmp_path):
    for src in (folder.parent.parent, folder.parent, folder):
        assert [p.name for p in find_drives(src)] == [folder.name]
    with pytest.raises(DataError, match=r"no KITTI raw drive.*Unpack"):
        find_drives(tmp_path)


def test_poses_follow_the_drive(folder):
    drive = open_drive(folder)
    assert len(drive) == FRAMES
    expected = np.array([np.cos(HEADING), np.sin(HEADING)]) * STEP * 7
    np.testing.assert_allclose(drive.imu2global[7, :2, 3], expected, atol=1e-4)
    np.testing.assert_allclose(drive.imu2global[7, 2, 3], altitude(7) - altitude(0), atol=1e-6)
    np.testing.assert_allclose(drive.imu2global[7, :3, 0], [np.cos(HEADING), np.sin(HEADING), 0], atol=1e-12)


def test_mercator_is_metric_near_the_start():
    degree = 6378137.0 * np.pi / 180
    rows = np.array([[49.0, 8.0, 0, 0, 0, 0], [49.0 + 100 / degree, 8.0, 2, 0.1, 0.2, 0.3]])
    second = oxts_poses(rows)[1]
    assert abs(second[1, 3] - 100) < 0.01  # 100 m north
    assert second[2, 3] == 2
    assert abs(np.linalg.det(second[:3, :3]) - 1) < 1e-12
    assert abs(second[2, 0] + np.sin(0.2)) < 1e-12  # positive pitch: nose down


def test_projection_equals_kittis_formula(folder):
    """P_rect * R_rect * (R|T) * x, plus half a pixel for the corner origin."""
    drive = open_drive(folder)
    point = np.array([12.0, 1.5, -0.7, 1.0])
    velo2cam = np.array([[0, -1, 0, CAM_SHIFT[0]], [0, 0, -1, CAM_SHIFT[1]], [1, 0, 0, CAM_SHIFT[2]], [0, 0, 0, 1]])
    for name, offset in (("image_02", 0.0), ("image_03", BASELINE)):
        projection = np.array([[FOCAL, 0, CENTRE[0], offset], [0, FOCAL, CENTRE[1], 0], [0, 0, 1, 0]])
        kitti = projection @ velo2cam @ point
        ours = drive.intrinsics[name] @ (drive.lidar2cam[name] @ point)[:3]
        np.testing.assert_allclose(ours[:2] / ours[2], kitti[:2] / kitti[2] + 0.5, atol=1e-9)


def test_timestamps_have_microseconds_and_cameras_come_later(folder):
    drive = open_drive(folder)
    np.testing.assert_allclose(np.diff(drive.timestamps["velodyne_points"]), 0.1, atol=1e-6)
    np.testing.assert_allclose(drive.timestamps["image_02"] - drive.timestamps["velodyne_points"], 0.01, atol=1e-6)


def test_rings_are_recovered_from_the_order_and_from_elevation():
    points = scan(0)
    elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    truth = np.rint((elevation + 24.8) / 26.8 * (RINGS - 1)).astype(int)
    assert (rings(points) == truth).mean() > 0.999
    shuffled = np.random.default_rng(0).permutation(len(points))
    assert np.abs(rings(points[shuffled]) - truth[shuffled]).max() <= 1


def test_motion_during_the_turn_is_taken_out(folder):
    """A still point is seen from where the car was when the beam passed it."""
    drive = open_drive(folder)
    velocity, turn = np.array([8.0, 0, 0]), np.array([0, 0, 0.3])
    still = np.array([[10.0, 0.1, 0], [0.1, 9, 1], [-12, 0.5, 0], [1, -7, 0.5]])
    seconds = np.array([0.0, 0.025, 0.05, -0.025])  # straight ahead, left, behind, right
    seen = []
    for point, t in zip(still, seconds, strict=True):
        angle = turn[2] * t
        rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        lidar_shift = velocity * t
        seen.append(rotation.T @ (point - lidar_shift))
    path = folder.parent / "moving.bin"
    np.column_stack([np.array(seen), np.zeros(4)]).astype(np.float32).tofile(path)
    object.__setattr__(drive, "scans", (path,))
    object.__setattr__(drive, "twist", np.array([[*velocity, *turn]]))
    recovered = drive.scan(0)[:, :3]
    assert np.abs(np.array(seen) - still).max() > 0.3
    assert np.abs(recovered - still).max() < 0.03


def test_ground_is_below_the_lidar():
    points = scan(3)
    assert abs(np.percentile(points[:, 2], 1) + LIDAR_HEIGHT) < 0.01


def test_a_drive_without_annotation_has_no_tracks(tmp_path):
    assert read_tracklets(tmp_path / "tracklet_labels.xml") == ()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d.parent / "calib_velo_to_cam.txt").unlink(), "calib_velo_to_cam.txt is missing"),
        (lambda d: (d.parent / "calib_imu_to_velo.txt").write_text("R: 1 0 0 0 1 0 0 0 1\nT: 1 nan 0\n"), "no usable T"),
        (lambda d: (d.parent / "calib_cam_to_cam.txt").write_text("R_rect_00: 1 0 0 0 1 0 0 0 1\n"), "no usable P_rect_02"),
        (lambda d: [p.unlink() for p in (d / "image_03" / "data").glob("*")], "no files in image_03/data"),
        (lambda d: (d / "velodyne_points" / "timestamps.txt").write_text("2011-01-01 12:00:00.0\n"), "has 1 lines"),
        (lambda d: (d / "image_02" / "timestamps.txt").write_text("yesterday\n" * 3), "cannot read the timestamps"),
        (lambda d: (d / "oxts" / "data" / "0000000001.txt").write_text("49.0 8.4"), "at least 20 finite"),
        (lambda d: (d / "tracklet_labels.xml").write_text("<boost_serialization><tracklets><item>"), "cannot read the tracklets"),
    ],
)
def test_damaged_input_is_named(tmp_path, damage, message):
    drive = write_drive(tmp_path, frames=3)
    damage(drive)
    with pytest.raises(DataError, match=message):
        open_drive(drive)


def test_a_singular_projection_is_refused(tmp_path):
    drive = write_drive(tmp_path, frames=2)
    path = drive.parent / "calib_cam_to_cam.txt"
    path.write_text(path.read_text().replace("P_rect_02: 1.800000000e+02", "P_rect_02: 0.000000000e+00"))
    with pytest.raises(DataError, match="singular"):
        open_drive(drive)


def test_a_truncated_scan_is_refused(tmp_path):
    drive = write_drive(tmp_path, frames=2)
    (drive / "velodyne_points" / "data" / "0000000000.bin").write_bytes(b"\0" * 30)
    with pytest.raises(DataError, match="truncated"):
        open_drive(drive).scan(0)


def test_frames_without_a_scan_are_left_out(tmp_path):
    drive = write_drive(tmp_path, frames=4)
    (drive / "velodyne_points" / "data" / "0000000001.bin").unlink()
    with pytest.warns(FrustumWarning, match=r"1 frames of .* are left out, .* 1 first \(.*1 without velodyne_points"):
        opened = open_drive(drive)
    assert opened.frames == (0, 2, 3)
    track = opened.tracks[0]
    np.testing.assert_allclose(opened.boxes(1)[0], track.box2lidar[2 - track.first_frame])  # annotations follow file numbers


def test_images_of_the_unrectified_download_are_refused(tmp_path):
    drive = write_drive(tmp_path, frames=2)
    path = drive.parent / "calib_cam_to_cam.txt"
    width, height = Image.open(next((drive / "image_02" / "data").glob("*"))).size
    given = path.read_text()
    path.write_text(given + f"S_rect_02: {width:.6e} {height:.6e}\nS_rect_03: {width:.6e} {height:.6e}\n")
    assert len(open_drive(drive)) == 2
    path.write_text(given + f"S_rect_02: {width} {height}\nS_rect_03: {2 * width} {height}\n")
    with pytest.raises(DataError, match=r"image_03.* is for rectified images of .*Unpack the synced"):
        open_drive(drive)
    with pytest.raises(DataError, match="Give the drive's _sync folder"):
        open_drive(drive.rename(drive.with_name(drive.name.replace("_sync", "_extract"))))
