"""Cameras, labels and boxes in the frame of LIDAR_TOP, against formulas of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from frustum.data.augment import BevTransform
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.pipeline import RigPipeline
from frustum.data.source import AugmentConfig
from frustum.errors import DataError
from frustum.geometry import invert, pose, rotation_xyz
from frustum.models.ppe3d import Ppe3d
from frustum.nn.lidar_frame import boxes_to_ego, boxes_to_lidar, in_lidar_frame
from frustum.nn.point_encoding import image_to_map
from frustum.types.batch import Batch
from frustum.types.contract import Reads
from frustum.types.frame import keyframe_of
from frustum.types.predictions import PredictedBoxes
from tests.data.toy import LIDAR2EGO, VERSION, toy_database
from tests.data.toy import ego2global as toy_pose
from tests.models.test_contract import rig
from tests.models.test_ppe3d import made_up, tiny

LIDAR = pose(rotation_xyz(0.02, -0.01, -math.pi / 2 + 0.05), np.array([0.94, 0.1, 1.84]))  # as on nuScenes: turned to the right


def batch(**more) -> Batch:
    intrinsics, cam2ego = rig(2, (64, 96))
    poses = np.tile(pose(rotation_xyz(0.01, 0.02, 0.7), np.array([100.0, 50.0, 2.0])), (2, 1, 1))
    return Batch.from_arrays(torch.zeros(1, 1, 2, 3, 64, 96), intrinsics, cam2ego, poses, lidar2ego=LIDAR, **more)


@pytest.mark.parametrize("change", [BevTransform(), BevTransform(0.3, 1.04, flip_y=True)])
def test_a_pixel_is_the_same_point_seen_from_the_sensor(change):
    given = batch(bev_aug=change.matrix())
    frame = keyframe_of(given)
    ego, lidar = image_to_map(frame)[0, 1].double(), image_to_map(in_lidar_frame(frame, given))[0, 1].double()
    pixel = torch.tensor([40.0 * 12, 20.0 * 12, 12.0, 1.0], dtype=torch.float64)  # 12 m away
    back = np.linalg.inv(LIDAR) @ np.append((ego @ pixel).numpy(), 1.0)  # the point in the augmented ego frame, in the sensor's axes
    np.testing.assert_allclose((lidar @ pixel).numpy(), back[:3], atol=1e-4)


def test_boxes_go_there_and_back():
    given, boxes = batch(), torch.tensor([[10.0, -3, 0.5, 4, 2, 1.5, 0.4, 2, 1], [5, 5, 1, 1, 1, 1, -2, math.nan, math.nan]])
    (there,) = boxes_to_lidar([boxes], given)
    for i in range(2):
        centre = np.linalg.inv(LIDAR) @ [*boxes[i, :3].tolist(), 1]
        np.testing.assert_allclose(there[i, :3], centre[:3], atol=1e-5)
        ahead = np.linalg.inv(LIDAR)[:3, :3] @ [math.cos(boxes[i, 6]), math.sin(boxes[i, 6]), 0]
        assert float(there[i, 6]) == pytest.approx(math.atan2(ahead[1], ahead[0]), abs=1e-5)
    speed = np.linalg.inv(LIDAR)[:3, :3] @ [2, 1, 0]
    np.testing.assert_allclose(there[0, 7:], speed[:2], atol=1e-5)
    assert there[1, 7:].isnan().all()
    torch.testing.assert_close(there[:, 3:6], boxes[:, 3:6])
    (back,) = boxes_to_ego([PredictedBoxes(there, torch.zeros(2), torch.ones(2), ("car",))], given)
    torch.testing.assert_close(back.boxes, boxes, atol=2e-2, rtol=0, equal_nan=True)  # a tilted sensor keeps the heading seen from above


def test_the_network_is_the_same_in_a_batch_whose_ego_frame_is_the_sensor():
    """What official files needed by hand: lidar2global as the pose, labels there, boxes brought back."""
    config = tiny(encoding="camera_ray", frame="lidar")
    model, plain = config.build().eval(), tiny(encoding="camera_ray").build().eval()
    plain.load_state_dict(model.state_dict())
    ours = made_up(config, lidar2ego=LIDAR)
    (inside,) = {type(label) for label in config.learns_from()}
    labels = ours.need(inside)
    by_hand = Batch.from_arrays(
        ours.images,
        ours.rig.intrinsics,
        ours.rig.cam2ego,
        ours.rig.ego2global,
        key_ego2global=ours.key_ego2global @ torch.from_numpy(LIDAR),
    )
    moved = []
    for boxes in labels.boxes:
        centres = (torch.cat([boxes[:, :3], torch.ones(len(boxes), 1)], 1).double() @ torch.from_numpy(np.linalg.inv(LIDAR)).T)[:, :3]
        turn = torch.from_numpy(np.linalg.inv(LIDAR)[:2, :2]) @ torch.stack([boxes[:, 6].cos(), boxes[:, 6].sin()]).double()
        moved.append(torch.cat([centres, boxes[:, 3:6], torch.atan2(turn[1], turn[0])[:, None], boxes[:, 7:]], 1).float())
    with torch.no_grad():
        here, there = model(ours), plain(by_hand)
        torch.testing.assert_close(here["box_codes"], there["box_codes"], atol=1e-3, rtol=1e-4)
        found, reference = model.predict(here, ours)[0].boxes.boxes, plain.predict(there, by_hand)[0].boxes.boxes
        losses = model.loss(here, ours), plain.loss(there, by_hand.with_labels({inside: type(labels)(moved, labels.classes)}))
    centres = reference[:, :3].double() @ torch.from_numpy(LIDAR[:3, :3]).T + torch.from_numpy(LIDAR[:3, 3])
    torch.testing.assert_close(found[:, :3].double(), centres, atol=1e-3, rtol=1e-4)
    assert losses[0].keys() == losses[1].keys()
    for name, value in losses[0].items():
        assert float(value) == pytest.approx(float(losses[1][name]), rel=1e-3), name


def test_without_the_sensor_there_is_an_error():
    config = tiny(encoding="camera_ray", frame="lidar")
    with pytest.raises(DataError, match=r"frame of the sensor LIDAR_TOP \(model\.frame=lidar\).*Batch\.from_arrays\(\.\.\., lidar2ego="):
        config.build().eval()(made_up(config))
    assert isinstance(tiny(encoding="camera_ray").build(), Ppe3d)


def test_the_pipeline_brings_the_pose_of_the_sensor(tmp_path):
    """At its own time; relative to the first camera's time where the map is there."""

    toy_root = toy_database(tmp_path)

    def lidar2ego(**data) -> torch.Tensor | None:
        pipeline = RigPipeline(NuScenesData(image_size=(48, 80), **data), Reads(), (), AugmentConfig(), training=False)
        source = NuScenes(toy_root, VERSION, camera_only="cameras" in data)
        return pipeline.collate([pipeline(source, source.scenes[1].tokens[2])]).lidar2ego

    np.testing.assert_allclose(lidar2ego()[0], LIDAR2EGO, atol=1e-9)
    time = 1_000_000
    expected = invert(toy_pose(1, time + 8000)) @ toy_pose(1, time) @ LIDAR2EGO
    np.testing.assert_allclose(lidar2ego(map_frame="camera0")[0], expected, atol=1e-9)
    assert lidar2ego(cameras=("CAM_FRONT", "CAM_BACK")) is None
