"""The reader against the official devkit's numbers on a golden database, and on two real keyframes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.sample import Sample
from frustum.geometry import invert, points_in_boxes, quaternion_to_matrix, transform_boxes, transform_points
from frustum.types.classes import DETECTION_CLASSES


def matrix(rotation: list[float], translation: list[float]) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = quaternion_to_matrix(np.array(rotation)), translation
    return result


def numbers(values: object) -> np.ndarray:
    """JSON with null for NaN as an array."""
    return np.array(values, dtype=object).astype(float)


@pytest.fixture(scope="module")
def reader(synth: Path) -> NuScenes:
    return NuScenes(synth / "nuscenes_synth", "v1.0-mini")


@pytest.fixture(scope="module")
def expected(synth: Path) -> dict:
    return json.loads((synth / "nuscenes_synth_expected.json").read_text())


@pytest.fixture(scope="module")
def infos(synth: Path) -> dict[str, dict]:
    content = json.loads((synth / "bevdet_infos_synth.json").read_text())
    return {info["token"]: info for part in ("train", "val") for info in content[part]}


def test_official_and_custom_splits(reader: NuScenes) -> None:
    splits = ("my_val", "my_train", "mini_val", "mini_train", "train", "val", "all")
    scenes = {split: list(dict.fromkeys(reader.scene(token).name for token in reader.tokens(split))) for split in splits}
    assert scenes["my_val"] == ["scene-0103"]
    assert scenes["my_train"] == scenes["mini_train"] == scenes["train"] == ["scene-0061"]
    assert sorted(scenes["mini_val"]) == sorted(scenes["val"]) == ["scene-0103", "scene-0916"]
    assert sorted(scenes["all"]) == ["scene-0061", "scene-0103", "scene-0916"]
    assert len(reader.tokens("mini_val")) == 9
    times = [reader.sample(t).timestamp for t in reader.tokens("scene-0103")]
    assert times == sorted(times)


def test_velocities_of_all_annotations(reader: NuScenes, expected: dict) -> None:
    count = unknown = 0
    for token in reader.tokens():
        sample = reader.sample(token)
        assert sample.boxes is not None
        for annotation, box in zip(sample.boxes.tokens, sample.boxes.boxes, strict=True):
            velocity = sample.ego2global[:3, :3] @ (box[7], box[8], 0)  # the sample's ego frame is level
            np.testing.assert_allclose(velocity[:2], numbers(expected["box_velocity"][annotation])[:2], atol=1e-9)
            count, unknown = count + 1, unknown + bool(np.isnan(velocity).any())
    assert count == len(expected["box_velocity"]) == 88
    assert unknown == sum(None in v for v in expected["box_velocity"].values()) > 0


def _lidar2global(sample: Sample) -> np.ndarray:
    assert sample.lidar is not None
    return sample.lidar.ego2global @ sample.lidar.lidar2ego


def test_frames_equal_bevdet_infos(reader: NuScenes, infos: dict[str, dict]) -> None:
    assert set(infos) == set(reader.tokens())
    for token, info in infos.items():
        sample = reader.sample(token)
        assert sample.lidar is not None
        assert sample.timestamp == pytest.approx(info["timestamp"] / 1e6, abs=1e-6)
        assert sample.scene == info["scene_name"]
        assert info["lidar_path"].endswith(str(sample.lidar.path.relative_to(reader.root)))
        np.testing.assert_allclose(sample.lidar.lidar2ego, matrix(info["lidar2ego_rotation"], info["lidar2ego_translation"]), atol=1e-9)
        np.testing.assert_allclose(sample.ego2global, matrix(info["ego2global_rotation"], info["ego2global_translation"]), atol=1e-9)
        assert {c.channel for c in sample.cameras} == set(info["cams"])
        entries = [(camera, info["cams"][camera.channel], camera.cam2ego) for camera in sample.cameras]
        for frame, entry, sensor2ego in entries:
            assert entry["data_path"].endswith(str(frame.path.relative_to(reader.root)))
            assert frame.timestamp == pytest.approx(entry["timestamp"] / 1e6, abs=1e-6)
            np.testing.assert_allclose(sensor2ego, matrix(entry["sensor2ego_rotation"], entry["sensor2ego_translation"]), atol=1e-9)
            np.testing.assert_allclose(frame.ego2global, matrix(entry["ego2global_rotation"], entry["ego2global_translation"]), atol=1e-9)
            sensor2lidar = invert(_lidar2global(sample)) @ frame.ego2global @ sensor2ego
            np.testing.assert_allclose(sensor2lidar[:3, :3], entry["sensor2lidar_rotation"], atol=1e-9)
            np.testing.assert_allclose(sensor2lidar[:3, 3], entry["sensor2lidar_translation"], atol=1e-9)
        for camera in sample.cameras:
            np.testing.assert_array_equal(camera.intrinsics, info["cams"][camera.channel]["cam_intrinsic"])


def test_boxes_equal_bevdet_infos(reader: NuScenes, infos: dict[str, dict]) -> None:
    for token, info in infos.items():
        sample = reader.sample(token)
        boxes = sample.boxes
        assert boxes is not None
        assert sample.lidar is not None
        assert boxes.names == info["gt_names"]
        assert boxes.num_lidar_pts.tolist() == info["num_lidar_pts"]
        assert boxes.num_radar_pts.tolist() == info["num_radar_pts"]
        in_lidar = transform_boxes(invert(sample.lidar.lidar2ego), boxes.boxes)
        golden = numbers(info["gt_boxes"])
        np.testing.assert_allclose(in_lidar[:, :6], golden[:, :6], atol=1e-9)
        np.testing.assert_allclose(np.exp(1j * in_lidar[:, 6]), np.exp(1j * golden[:, 6]), atol=1e-9)
        np.testing.assert_allclose(in_lidar[:, 7:9], numbers(info["gt_velocity"]), atol=1e-9)
        # ann_infos: CAM_FRONT's ego frame, ten classes, some points, velocity 0 where unknown
        front = next(c for c in sample.cameras if c.channel == "CAM_FRONT")
        moved = np.nan_to_num(transform_boxes(invert(front.ego2global) @ sample.ego2global, boxes.boxes))
        keep = [i for i, n in enumerate(boxes.names) if n in DETECTION_CLASSES and info["valid_flag"][i]]
        golden_boxes, golden_classes = info["ann_infos"]
        assert [DETECTION_CLASSES.index(boxes.names[i]) for i in keep] == golden_classes
        np.testing.assert_allclose(moved[keep], golden_boxes, atol=1e-9)


@pytest.mark.data
def test_real_keyframes(shared: Path) -> None:
    root = shared / "data" / "nuscenes_keyframes"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    reader = NuScenes(root, "v1.0-mini")
    counts = []
    for token in reader.tokens("val"):
        sample = reader.sample(token)
        assert sample.boxes is not None
        assert sample.lidar is not None
        assert np.isnan(sample.boxes.boxes[:, 7:9]).all()  # one keyframe a scene: no velocity can be known
        assert np.isfinite(sample.boxes.boxes[:, :7]).all()
        points = transform_points(sample.lidar.lidar2ego, sample.lidar.load()[:, :3].astype(np.float64))
        inside = points_in_boxes(points, sample.boxes.box2ego, sample.boxes.boxes[:, 3:6]).sum(0)
        counts.append((int((inside == sample.boxes.num_lidar_pts).sum()), len(sample.boxes)))
        assert [c.channel for c in sample.cameras] == list(reader.cameras)
        assert sample.cameras[0].open().size == (1600, 900)
    assert sorted(counts) == [(37, 37), (69, 69)]
