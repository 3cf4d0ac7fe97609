"""The reader on the toy database: frames, boxes, labels, sweeps, splits, and what it says about wrong input."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.writer import DatabaseWriter
from frustum.errors import DataError
from frustum.geometry import invert
from tests.data.toy import APART, CAM2EGO, INTRINSICS, LIDAR2EGO, SIZE, START, VERSION, box2global, ego2global, random_labels, scene_record


@pytest.fixture(scope="module")
def reader(toy_root: Path) -> NuScenes:
    return NuScenes(toy_root, VERSION)


def test_overview(reader: NuScenes) -> None:
    assert [s.name for s in reader.scenes] == ["scene-0001", "scene-0002"]
    assert reader.cameras == ("CAM_FRONT", "CAM_BACK")  # FlashOCC's order, not the alphabet
    assert reader.channels == {"CAM_BACK": "camera", "CAM_FRONT": "camera", "LIDAR_TOP": "lidar"}
    assert reader.scenes[0].location == "boston-seaport"
    assert reader.scenes[0].description == "a toy"
    assert reader.categories[17] == "vehicle.car"
    assert len(reader.categories) == 32


def test_splits(reader: NuScenes) -> None:
    assert {"train", "val"} <= set(reader.splits())
    assert reader.tokens("train") == list(reader.scenes[0].tokens)
    assert reader.tokens("val") == reader.tokens("scene-0002") == list(reader.scenes[1].tokens)
    assert reader.tokens() == reader.tokens("train") + reader.tokens("val")
    assert reader.scene(reader.tokens("val")[1]).name == "scene-0002"


def test_frames_are_what_was_written(reader: NuScenes) -> None:
    for scene, info in enumerate(reader.scenes):
        for k, token in enumerate(info.tokens):
            sample, time = reader.sample(token), 500_000 * k
            assert (sample.token, sample.scene) == (token, info.name)
            assert sample.timestamp == pytest.approx((START + scene * APART + time) / 1e6, abs=1e-6)
            np.testing.assert_allclose(sample.ego2global, ego2global(scene, time), atol=1e-12)
            assert sample.lidar is not None
            np.testing.assert_allclose(sample.lidar.lidar2ego, LIDAR2EGO, atol=1e-12)
            assert sample.lidar.load().shape == (400, 5)
            for i, camera in enumerate(sample.cameras):
                assert (camera.channel, camera.size) == (list(CAM2EGO)[i], SIZE)
                np.testing.assert_allclose(camera.cam2ego, CAM2EGO[camera.channel], atol=1e-12)
                np.testing.assert_allclose(camera.ego2global, ego2global(scene, time + 8000 * (i + 1)), atol=1e-12)
                np.testing.assert_array_equal(camera.intrinsics, INTRINSICS)
                assert camera.open().size == (SIZE[1], SIZE[0])


def test_boxes_are_in_the_ego_frame_with_velocities(reader: NuScenes) -> None:
    sample = reader.sample(reader.scenes[1].tokens[1])
    boxes = sample.boxes
    assert boxes is not None
    assert boxes.names == ["car", "traffic_cone"]
    expected = invert(ego2global(1, 500_000)) @ box2global(1, 500_000)
    np.testing.assert_allclose(boxes.box2ego[0], expected, atol=1e-9)
    np.testing.assert_allclose(boxes.boxes[0, :3], expected[:3, 3], atol=1e-9)
    np.testing.assert_allclose(boxes.boxes[0, 3:6], (4.5, 1.9, 1.6))
    assert boxes.boxes[0, 6] == pytest.approx(np.arctan2(expected[1, 0], expected[0, 0]))
    velocity = invert(ego2global(1, 500_000))[:3, :3] @ (6, 2, 0.1)
    np.testing.assert_allclose(boxes.boxes[0, 7:9], velocity[:2], atol=1e-9)
    assert boxes.attributes == ["vehicle.moving", ""]
    assert boxes.visibility.tolist() == [3, 4]
    assert boxes.num_lidar_pts.tolist() == [12, 0]
    first = reader.sample(reader.scenes[1].tokens[0]).boxes
    assert first is not None
    assert first.names[2] == "animal"  # no detection class: the raw category
    assert np.isnan(first.boxes[2, 7:9]).all()  # seen once
    assert first.instances[0] == boxes.instances[0]


def test_labels_where_there_are_some(reader: NuScenes) -> None:
    sample = reader.sample(reader.scenes[0].tokens[2])
    assert sample.occupancy is not None
    np.testing.assert_array_equal(sample.occupancy.semantics, random_labels(2).semantics)
    assert reader.sample(reader.scenes[1].tokens[0]).occupancy is None
    assert reader.sample(reader.scenes[0].tokens[2], occupancy=False).occupancy is None


def test_the_panoptic_variant_is_preferred_on_request(toy_root: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_root, tmp_path / "db")
    reader = NuScenes(tmp_path / "db", VERSION)
    scene, token = "scene-0001", reader.tokens()[0]
    (tmp_path / "db" / "occ3d_panoptic" / scene).parent.mkdir(parents=True)
    shutil.copytree(tmp_path / "db" / "gts" / scene, tmp_path / "db" / "occ3d_panoptic" / scene)
    assert reader.labels_path(scene, token) == tmp_path / "db" / "gts" / scene / token / "labels.npz"
    assert reader.labels_path(scene, token, instances=True) == tmp_path / "db" / "occ3d_panoptic" / scene / token / "labels.npz"
    shutil.rmtree(tmp_path / "db" / "gts")
    assert reader.sample(token).occupancy is not None
    assert reader.labels_path("scene-0002", token) is None


def test_history_and_sweeps_stay_within_the_scene(reader: NuScenes) -> None:
    tokens = reader.scenes[1].tokens
    last = reader.sample(tokens[2], history=5, num_sweeps=3)
    assert [len(cameras) for cameras in last.history] == [2, 2]
    assert last.history[0][0].path == reader.sample(tokens[1]).cameras[0].path
    ages = [last.timestamp - sweep.timestamp for sweep in last.lidar_sweeps]
    np.testing.assert_allclose(ages, [0.25, 0.5, 0.75], atol=1e-6)  # keyframes count as sweeps, too
    assert reader.sample(tokens[0], history=2, num_sweeps=2).history == ()
    assert reader.sample(tokens[0], num_sweeps=2).lidar_sweeps == ()
    assert len(reader.sample(tokens[1], num_sweeps=1).lidar_sweeps) == 1
    moments = reader.sample(tokens[1], camera_sweeps=9).camera_sweeps
    assert moments is not None
    assert [[frame.path.parts[-3] for frame in moment] for moment in moments] == [["sweeps"] * 2, ["samples"] * 2]


def test_point_labels(reader: NuScenes) -> None:
    labels = reader.point_labels(reader.tokens()[0])
    assert labels is not None
    classes, instances = labels
    assert classes.shape == (400,)
    assert set(classes) == {17}
    assert instances is not None
    assert set(instances) == {1}


def test_lidar_poses(reader: NuScenes) -> None:
    lidar2ego, poses = reader.lidar_poses("scene-0002")
    assert lidar2ego.shape == poses.shape == (3, 4, 4)
    np.testing.assert_allclose(poses[2], ego2global(1, 1_000_000), atol=1e-12)


def test_chosen_cameras(toy_root: Path) -> None:
    reader = NuScenes(toy_root, VERSION, cameras=["CAM_BACK"])
    assert [c.channel for c in reader.sample(reader.tokens()[0]).cameras] == ["CAM_BACK"]
    with pytest.raises(DataError, match="no camera 'CAM_BAKC'; did you mean 'CAM_BACK'"):
        _ = NuScenes(toy_root, VERSION, cameras=["CAM_BAKC"]).cameras


def test_camera_only_needs_no_lidar_files(toy_root: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_root, tmp_path / "db", ignore=shutil.ignore_patterns("LIDAR_TOP", "lidarseg", "panoptic"))
    reader = NuScenes(tmp_path / "db", VERSION, camera_only=True)
    sample = reader.sample(reader.tokens()[1], num_sweeps=2)
    assert sample.lidar is None
    assert sample.lidar_sweeps == ()
    np.testing.assert_allclose(sample.ego2global, ego2global(0, 500_000), atol=1e-12)  # still the LiDAR's time
    with_lidar = NuScenes(tmp_path / "db", VERSION)
    lidar = with_lidar.sample(reader.tokens()[1]).lidar
    assert lidar is not None
    with pytest.raises(DataError, match="cannot read the LiDAR file"):
        lidar.load()
    with pytest.raises(DataError, match="Restore the file"):
        with_lidar.point_labels(reader.tokens()[0])


def test_a_keyframe_without_its_scan_has_no_lidar(tmp_path: Path) -> None:
    """And not a camera's file in its place."""
    record = scene_record(tmp_path, 0, 2)
    first = replace(record.keyframes[0], data=record.keyframes[0].data[:-1])
    writer = DatabaseWriter(tmp_path, VERSION)
    writer.add_scene(replace(record, keyframes=(first, record.keyframes[1])))
    writer.finish({"train": writer.scenes()})
    reader = NuScenes(tmp_path, VERSION)
    scans = [reader.sample(token).lidar for token in reader.tokens()]
    assert scans[0] is None
    assert scans[1] is not None


def test_cameras_alone_without_boxes(tmp_path: Path) -> None:
    """What an imported rig has: no LiDAR, no annotations, no labels. The first camera's pose defines the keyframe."""
    record = scene_record(tmp_path, 0, 2)
    keyframes = tuple(replace(k, annotations=(), data=k.data[:2]) for k in record.keyframes)
    writer = DatabaseWriter(tmp_path, VERSION)
    writer.add_scene(replace(record, keyframes=keyframes, sensors=record.sensors[:2], sweeps=(), name="scene-0007"))
    writer.finish({})
    reader = NuScenes(tmp_path, VERSION)
    sample = reader.sample(reader.tokens("scene-0007")[1], num_sweeps=1, history=1)
    assert sample.lidar is None
    assert sample.lidar_sweeps == ()
    assert sample.boxes is not None
    assert sample.boxes.boxes.shape == (0, 9)
    assert sample.occupancy is None
    assert reader.point_labels(sample.token) is None
    np.testing.assert_allclose(sample.ego2global, ego2global(0, 508_000), atol=1e-12)
    with pytest.raises(DataError, match="no LiDAR"):
        reader.lidar_poses("scene-0007")


# ---- wrong input ------------------------------------------------------------------------------------------------------------


def test_wrong_roots(toy_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist.*frustum data status.*frustum data world"):
        NuScenes(tmp_path / "none", VERSION)
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"is not a nuScenes data set: it must hold v1.0-toy/\*.json and samples/, but holds photos"):
        NuScenes(tmp_path, VERSION)
    (tmp_path / "photos" / "calibration.json").write_text("{}")
    with pytest.raises(DataError, match=r"is a rig folder.*`frustum data import rig .*photos DST`"):
        NuScenes(tmp_path / "photos", VERSION)
    with pytest.raises(DataError, match=r"no version 'v1.0-mini'; did you mean 'v1.0-toy'"):
        NuScenes(toy_root, "v1.0-mini")
    with pytest.raises(DataError, match=f"try data.root={toy_root} data.version={VERSION}"):
        NuScenes(toy_root / VERSION, VERSION)


def test_unknown_splits_and_tokens(reader: NuScenes) -> None:
    with pytest.raises(DataError, match="no split 'trian'; did you mean 'train'"):
        reader.tokens("trian")
    with pytest.raises(DataError, match="has no scene of split 'test'"):
        reader.tokens("test")
    with pytest.raises(DataError, match="no keyframe 'abc'"):
        reader.sample("abc")


def test_missing_and_broken_images(toy_root: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_root, tmp_path / "db")
    reader = NuScenes(tmp_path / "db", VERSION)
    front, back = reader.sample(reader.tokens()[0]).cameras
    front.path.unlink()
    back.path.write_bytes(back.path.read_bytes()[:200])
    for camera in (front, back):
        with pytest.raises(DataError, match="cannot read the image") as caught:
            camera.open()
        assert str(camera.path) in str(caught.value)
        assert "frustum check" in str(caught.value)


def test_truncated_lidar(toy_root: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_root, tmp_path / "db")
    reader = NuScenes(tmp_path / "db", VERSION)
    lidar = reader.sample(reader.tokens()[0]).lidar
    assert lidar is not None
    lidar.path.write_bytes(lidar.path.read_bytes()[:-4])
    with pytest.raises(DataError, match="not a multiple of 5"):
        lidar.load()
