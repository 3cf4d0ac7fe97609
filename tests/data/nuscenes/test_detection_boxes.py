"""Boxes of submissions: to the global frame and back, attributes that nobody gave."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.data.nuscenes.detection_boxes import boxes_to_ego, boxes_to_global, likely_attributes
from frustum.data.nuscenes.reader import NuScenes
from frustum.errors import DataError, ShapeError
from frustum.geometry import pose, quaternion_to_matrix, rotation_xyz, rotation_z, yaw_of
from frustum.types.boxes import DetectionBoxes
from frustum.types.classes import DETECTION_CLASSES

LEVEL = pose(rotation_z(np.pi / 2), np.array([100.0, 200.0, 0.5]))  # the vehicle looks along global y


def random_boxes(num: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.uniform(-40, 40, (num, 3)), rng.uniform(0.5, 6, (num, 3)), rng.uniform(-3, 3, (num, 1)), rng.normal(0, 4, (num, 2))], 1
    )


def test_a_box_ahead_of_a_vehicle_that_looks_along_y() -> None:
    box = np.array([[10.0, 1, 2, 4.5, 1.9, 1.6, 0.0, 3.0, -1.0]])
    there = boxes_to_global(box, ["car"], np.array([0.7]), LEVEL)
    np.testing.assert_allclose(there.centres, [[99, 210, 2.5]])
    np.testing.assert_allclose(there.sizes, [[4.5, 1.9, 1.6]])
    np.testing.assert_allclose(there.yaws, [np.pi / 2])
    np.testing.assert_allclose(there.velocities, [[1, 3]], atol=1e-12)
    assert (there.names, there.attribute_names, there.scores.tolist()) == (["car"], ["vehicle.moving"], [0.7])


@pytest.mark.parametrize("seed", range(3))
def test_there_and_back(seed: int) -> None:
    boxes, names = random_boxes(20, seed), list(DETECTION_CLASSES) * 2
    level = pose(rotation_z(0.3 + seed), np.array([5.0, -7, 1]))
    back = boxes_to_ego(boxes_to_global(boxes, names, np.linspace(0, 1, 20), level), level)
    np.testing.assert_allclose(back, boxes, atol=1e-9)
    tilted = pose(rotation_xyz(0.02, -0.03, 1.0 + seed), np.array([5.0, -7, 1]))
    there = boxes_to_global(boxes, names, np.linspace(0, 1, 20), tilted)
    back = boxes_to_ego(there, tilted)
    np.testing.assert_allclose(back[:, :7], boxes[:, :7], atol=1e-9)
    np.testing.assert_allclose(back[:, 7:], boxes[:, 7:], atol=0.05)  # the vertical part is not in a submission
    up = quaternion_to_matrix(there.rotations)[:, :, 2]
    np.testing.assert_allclose(up, np.tile(tilted[:3, 2], (20, 1)), atol=1e-12)  # boxes stand on the vehicle's ground


def test_the_reader_and_a_submission_agree(synth) -> None:
    """True boxes in the ego frame, moved to the global frame, lie where the tables have them."""
    database = NuScenes(synth / "nuscenes_synth", "v1.0-mini")
    for token in database.tokens("my_val"):
        sample, (ego2global, table) = database.sample(token), database.annotations(token)
        assert sample.boxes is not None
        kept = [i for i, name in enumerate(sample.boxes.names) if name in DETECTION_CLASSES]
        there = boxes_to_global(sample.boxes.boxes[kept], [sample.boxes.names[i] for i in kept], np.ones(len(kept)), ego2global)
        np.testing.assert_allclose(there.centres, table["pose"][kept, :3], atol=1e-9)
        np.testing.assert_allclose(there.sizes, table["size"][kept])
        np.testing.assert_allclose(np.exp(1j * there.yaws), np.exp(1j * yaw_of(quaternion_to_matrix(table["pose"][kept, 3:]))), atol=1e-9)
        np.testing.assert_allclose(there.velocities, table["velocity"][kept, :2], atol=1e-9)


@pytest.mark.parametrize(
    ("name", "fast", "slow"),
    [
        ("car", "vehicle.moving", "vehicle.parked"),
        ("truck", "vehicle.moving", "vehicle.parked"),
        ("construction_vehicle", "vehicle.moving", "vehicle.parked"),
        ("trailer", "vehicle.moving", "vehicle.parked"),
        ("bus", "vehicle.moving", "vehicle.stopped"),
        ("motorcycle", "cycle.with_rider", "cycle.without_rider"),
        ("bicycle", "cycle.with_rider", "cycle.without_rider"),
        ("pedestrian", "pedestrian.moving", "pedestrian.standing"),
        ("barrier", "", ""),
        ("traffic_cone", "", ""),
    ],
)
def test_likely_attributes(name: str, fast: str, slow: str) -> None:
    velocities = np.array([[0.15, -0.15], [0.0, 0.2], [0.1, 0.1], [np.nan, np.nan]])
    assert likely_attributes([name] * 4, velocities) == [fast, slow, slow, slow]


def test_given_attributes_win() -> None:
    there = boxes_to_global(random_boxes(2), ["car", "barrier"], np.ones(2), LEVEL, ["vehicle.stopped", ""])
    assert there.attribute_names == ["vehicle.stopped", ""]


def test_selection() -> None:
    there = boxes_to_global(random_boxes(4), ["car", "bus", "car", "truck"], np.array([0.1, 0.9, 0.5, 0.9]), LEVEL)
    assert there.best(2).names == ["bus", "truck"]
    assert there.best(3).scores.tolist() == [0.9, 0.5, 0.9]
    assert there.best(9).names == there.names
    assert there.select(there.scores < 0.6).names == ["car", "car"]
    assert len(DetectionBoxes.empty()) == 0
    assert DetectionBoxes.empty().yaws.shape == (0,)


def test_bad_detections() -> None:
    boxes = random_boxes(2)
    with pytest.raises(DataError, match=r"unknown class 'cra'; did you mean 'car'"):
        boxes_to_global(boxes, ["car", "cra"], np.ones(2), LEVEL)
    with pytest.raises(ShapeError, match=r"M names and scores, got boxes \(2, 9\)"):
        boxes_to_global(boxes, ["car"], np.ones(2), LEVEL)
    with pytest.raises(ShapeError, match=r"boxes \(2, 7\)"):
        boxes_to_global(boxes[:, :7], ["car", "car"], np.ones(2), LEVEL)
