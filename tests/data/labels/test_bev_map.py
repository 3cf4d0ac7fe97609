"""BEV labels against masks that the published code bases drew, and the geometry of each convention by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from frustum.data.labels.bev_map import BACKGROUND, VEHICLES, bev_cells, draw_boxes, vehicle_label
from frustum.data.nuscenes.reader import NuScenes
from frustum.errors import ConfigError, DataError, ShapeError
from frustum.geometry import box_poses, invert, pose, quaternion_to_matrix, rotation_xyz

GOLDEN = Path(__file__).parents[1] / "metrics"
CONVENTIONS = ("lss", "pointbev", "cvt", "simplebev")


def boxes(*rows: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Poses and sizes of boxes (x, y, length, width, yaw), 1.5 m high, on the ground of the ego frame."""
    table = np.array([(x, y, 0.75, length, width, 1.5, yaw) for x, y, length, width, yaw in rows]).reshape(-1, 7)
    return box_poses(table), table[:, 3:6]


def bits(packed: np.ndarray) -> np.ndarray:
    return np.unpackbits(packed).reshape(200, 200).astype(bool)


FRONT_CAMERA = pose(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([1.5, 0, 1.5]))  # cam2ego


def test_golden_labels_of_lss():
    with np.load(GOLDEN / "bev_labels.npz") as golden:
        masks = np.unpackbits(golden["label"])[: 5 * 200 * 200].reshape(5, 200, 200).astype(bool)
        for i, mask in enumerate(masks):
            rows = golden[f"boxes{i}"]
            label = draw_boxes(*boxes(*rows[:, :5]), rows[:, 5].astype(int), "lss")
            np.testing.assert_array_equal(label.mask, mask)
            np.testing.assert_array_equal(label.visibility, golden["visibility"][i])


def test_golden_labels_of_simplebev():
    scene = json.loads((GOLDEN / "bev_labels_simplebev.json").read_text())
    vehicles = [box for box in scene["boxes"].values() if "vehicle" in box["category_name"]]

    def matrices(records: list[dict]) -> np.ndarray:
        return pose(quaternion_to_matrix(np.array([r["rotation"] for r in records])), np.array([r["translation"] for r in records]))

    box2ego = invert(matrices([scene["ego_pose"]]))[0] @ matrices(vehicles)
    size = np.array([box["size"] for box in vehicles])[:, [1, 0, 2]]
    visibility = np.array([int(box["visibility_token"]) for box in vehicles])
    with np.load(GOLDEN / "bev_labels.npz") as golden:
        label = draw_boxes(golden["simplebev_cam_T_ego"][0].astype(np.float64) @ box2ego, size, visibility, "simplebev")
        np.testing.assert_array_equal(label.instances, golden["simplebev_seg_instance"])
        np.testing.assert_array_equal(label.visibility >= 2, bits(golden["simplebev_valid"]))
        in_ego = draw_boxes(box2ego, size, visibility, "lss")
        np.testing.assert_array_equal(in_ego.mask, bits(golden["simplebev_binimg"]))


def test_cells_of_a_point_by_hand():
    ahead_left = np.array([10.0, 4.0, 0.0])  # column, row
    assert bev_cells(ahead_left, "lss").tolist() == [108, 120]
    assert bev_cells(ahead_left, "pointbev").tolist() == [108, 120]
    assert bev_cells(ahead_left, "cvt").tolist() == [92, 80]  # forward is up, left is left
    in_camera = np.array([-4.0, 1.5, 8.5])  # the same point, x right, y down, z forward
    assert bev_cells(in_camera, "simplebev").tolist() == [91, 116]
    assert bev_cells(np.array([-50.2, 0, -50.9]), "simplebev").tolist() == [0, -2]  # towards zero
    with pytest.raises(ConfigError, match="did you mean 'cvt'"):
        bev_cells(ahead_left, "cvtt")


def test_a_box_lies_where_the_convention_puts_it():
    poses, size = boxes((10, 4, 4, 2, 0))
    expected = {
        "lss": (slice(116, 125), slice(106, 111)),
        "pointbev": (slice(116, 125), slice(106, 111)),
        "cvt": (slice(76, 85), slice(90, 95)),
    }
    for convention, (rows, columns) in expected.items():
        mask = np.zeros((200, 200), bool)
        mask[rows, columns] = True
        np.testing.assert_array_equal(draw_boxes(poses, size, np.array([4]), convention).mask, mask)
    label = draw_boxes(invert(FRONT_CAMERA) @ poses, size, np.array([4]), "simplebev")
    rows, columns = np.nonzero(label.mask)  # z 6.5 to 10.5 m, x -5 to -3 m
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (112, 120, 89, 93)


def test_simplebev_draws_the_top_face():
    poses, size = boxes((20, 0, 4, 2, 0))
    tilted = poses.copy()
    tilted[:, :3, :3] = rotation_xyz(0.5, 0, 0)  # leans over to the right: the roof is displaced against the floor
    upright, leaning = (draw_boxes(invert(FRONT_CAMERA) @ p, size, np.array([4]), "simplebev").mask for p in (poses, tilted))
    assert np.nonzero(leaning)[1].mean() > np.nonzero(upright)[1].mean()
    assert (
        np.nonzero(draw_boxes(tilted, size, np.array([4]), "lss").mask)[1].mean()
        > np.nonzero(draw_boxes(poses, size, np.array([4]), "lss").mask)[1].mean()
    )


def test_overlapping_boxes_and_visibility():
    poses, size = boxes((0, 0, 4, 4, 0), (2, 0, 4, 4, 0), (-30, -30, 4, 4, 0))
    label = draw_boxes(poses, size, np.array([4, 1, 3]), "lss")
    assert label.instances[102, 100] == 2  # the box drawn last owns the overlap
    assert label.visibility[102, 100] == 1
    assert label.visibility[97, 100] == 4
    assert label.visibility[0, 0] == BACKGROUND
    assert draw_boxes(poses, size, np.array([1, 4, 3]), "lss").visibility[102, 100] == 4
    camera_poses = invert(FRONT_CAMERA) @ poses
    for order in ([0, 1, 2], [1, 0, 2]):  # an invisible box is ignored there whichever comes last
        label = draw_boxes(camera_poses[order], size[order], np.array([4, 1, 3])[order], "simplebev")
        assert label.visibility[98, 98] == 1
        assert label.mask[98, 98]


def test_more_boxes_than_a_byte_counts():
    poses, size = boxes(*[(0.0, 0.0, 2.0, 2.0, 0.0)] * 299, (20.0, 0.0, 2.0, 2.0, 0.0))
    label = draw_boxes(poses, size, np.full(300, 3), "lss")
    assert label.instances[100, 100] == 299
    assert label.instances[140, 100] == 300
    assert sorted(np.unique(label.instances)) == [0, 299, 300]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_no_box_and_boxes_far_away(convention):
    empty = draw_boxes(*boxes(), np.zeros(0, int), convention)
    assert not empty.mask.any()
    assert (empty.visibility == BACKGROUND).all()
    far = draw_boxes(*boxes((500, 300, 4, 2, 1)), np.array([4]), convention)
    assert not far.mask.any()


def test_labels_of_keyframes(synth):
    reader = NuScenes(synth / "nuscenes_synth", "v1.0-mini")
    drawn = {convention: 0 for convention in CONVENTIONS}
    for token in reader.tokens():
        sample = reader.sample(token)
        vehicle = np.array([n in VEHICLES or n.startswith("vehicle.") for n in sample.boxes.names], bool)
        poses, size = sample.boxes.box2ego[vehicle], sample.boxes.boxes[vehicle, 3:6]
        direct = draw_boxes(poses, size, sample.boxes.visibility[vehicle], "lss")
        np.testing.assert_array_equal(vehicle_label(sample, "lss").instances, direct.instances)
        for convention in CONVENTIONS:
            drawn[convention] += int(vehicle_label(sample, convention).mask.sum())
    assert min(drawn.values()) > 0
    emergency = replace(sample, boxes=replace(sample.boxes, names=["vehicle.emergency.police"] * len(sample.boxes)))
    assert vehicle_label(emergency, "lss").mask.any()
    assert not vehicle_label(emergency, "cvt").mask.any()


def test_cvt_leaves_out_pitch_and_roll_of_the_ego_pose(synth):
    reader = NuScenes(synth / "nuscenes_synth", "v1.0-mini")
    sample = reader.sample(reader.tokens()[0])
    tilt = np.eye(4)
    tilt[:3, :3] = rotation_xyz(0.2, 0.15, 0)
    boxes = replace(sample.boxes, box2ego=invert(tilt) @ sample.boxes.box2ego)
    tilted = replace(sample, ego2global=sample.ego2global @ tilt, boxes=boxes)  # the same boxes in the world
    cvt, lss = (abs(vehicle_label(tilted, c).mask.astype(int) - vehicle_label(sample, c).mask).sum() for c in ("cvt", "lss"))
    assert cvt < lss


def test_bad_input(synth):
    poses, size = boxes((0, 0, 4, 2, 0))
    with pytest.raises(ShapeError, match=r"poses \(M, 4, 4\)"):
        draw_boxes(poses[0], size, np.array([4]), "lss")
    with pytest.raises(DataError, match="'cvt' labels need visibility 1 to 4, got 0 to 0"):
        draw_boxes(poses, size, np.array([0]), "cvt")
    with pytest.raises(DataError, match="0 to 4, got 5 to 5"):
        draw_boxes(poses, size, np.array([5]), "lss")
    assert draw_boxes(poses, size, np.array([0]), "lss").mask.any()
    with pytest.raises(ConfigError, match="unknown BEV label convention"):
        draw_boxes(poses, size, np.array([4]), "bevformer")
    reader = NuScenes(synth / "nuscenes_synth", "v1.0-mini")
    sample = reader.sample(reader.tokens()[0], with_boxes=False)
    with pytest.raises(DataError, match="read without boxes"):
        vehicle_label(sample)
    with pytest.raises(DataError, match="labels need CAM_FRONT"):
        vehicle_label(replace(reader.sample(sample.token), cameras=()), "simplebev")
