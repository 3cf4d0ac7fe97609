"""docs/conventions.md, rule by rule."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from frustum import errors
from frustum.geometry import (
    BOX_FIELDS,
    CameraRig,
    VoxelGrid,
    box_corners,
    box_poses,
    invert,
    pose,
    quaternion_to_matrix,
    rotation_xyz,
    rotation_z,
    transform_points,
    yaw_of,
)
from frustum.types.batch import Batch
from frustum.types.classes import CAMERAS, OCC3D_CLASSES, OCC3D_FREE

PAGE = Path(__file__).parents[1] / "docs" / "conventions.md"

# Camera axes in ego axes for a camera that looks forward: right is -y, down is -z, forward is +x.
FORWARD = torch.tensor([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def forward_camera(
    focal: float = 100.0, size: tuple[int, int] = (100, 200), position: tuple[float, float, float] = (1.0, 0.0, 1.5)
) -> CameraRig:
    cam2ego = torch.eye(4)
    cam2ego[:3, :3], cam2ego[:3, 3] = FORWARD, torch.tensor(position)
    intrinsics = torch.tensor([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1.0]])
    return CameraRig.create(intrinsics[None], cam2ego[None], size)


def test_every_rule_names_a_test_that_exists() -> None:
    named = set(re.findall(r"\btest_\w+", PAGE.read_text(encoding="utf-8"))) - {"test_conventions"}
    here = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text(encoding="utf-8"), re.M))
    assert named <= here, f"conventions.md names tests that do not exist: {named - here}"
    assert len(named) >= 15


def test_transforms_map_a_to_b() -> None:
    a2b = np.eye(4)
    a2b[:3, :3], a2b[:3, 3] = rotation_z(np.pi / 2), [1, 2, 3]
    np.testing.assert_allclose(transform_points(a2b, np.array([[1.0, 0, 0]])), [[1, 3, 3]], atol=1e-12)
    b2c = pose(rotation_xyz(0.1, 0.2, 0.3), np.array([4.0, 5, 6]))
    p = np.array([[0.3, -0.7, 2.0]])
    np.testing.assert_allclose(transform_points(b2c @ a2b, p), transform_points(b2c, transform_points(a2b, p)), atol=1e-12)
    np.testing.assert_allclose(invert(a2b) @ a2b, np.eye(4), atol=1e-12)


def test_quaternions_are_wxyz() -> None:
    half = np.sqrt(0.5)
    np.testing.assert_allclose(quaternion_to_matrix(np.array([half, 0, 0, half])), rotation_z(np.pi / 2), atol=1e-12)


def test_camera_axes() -> None:
    rig = forward_camera()
    ahead_left_high = torch.tensor([[11.0, 1.0, 2.5]])  # 10 m ahead of the camera, 1 m left, 1 m up
    pixels, depth, visible = rig.project(ahead_left_high)
    torch.testing.assert_close(depth, torch.tensor([[10.0]]))
    torch.testing.assert_close(pixels, torch.tensor([[[100.0 - 10.0, 50.0 - 10.0]]]))  # left of and above the centre
    assert visible.all()
    assert not rig.project(torch.tensor([[-5.0, 0.0, 1.5]]))[2].any(), "what lies behind is not visible"


def test_yaw_is_counter_clockwise() -> None:
    np.testing.assert_allclose(rotation_z(np.pi / 2) @ np.array([1.0, 0, 0]), [0, 1, 0], atol=1e-12)
    assert yaw_of(rotation_z(0.7)) == pytest.approx(0.7)
    nose = rotation_xyz(0, 0.1, 0) @ np.array([1.0, 0, 0])
    assert nose[2] < 0, "a positive pitch points the nose down"


def test_each_camera_has_its_own_ego_pose() -> None:
    """A vehicle that drives 1 m between the camera's and the keyframe's time sees the same world point shifted by 1 m."""
    rig = forward_camera(position=(0.0, 0.0, 0.0))
    later = torch.eye(4, dtype=torch.float64)
    later[0, 3] = 1.0
    moved = CameraRig.create(rig.intrinsics, rig.cam2ego, rig.image_size, ego2global=torch.eye(4)[None])
    point_in_key = torch.tensor([[9.0, 0.0, 0.0]])  # 10 m ahead of where the camera was
    _, depth, _ = moved.project(point_in_key, key_ego2global=later)
    torch.testing.assert_close(depth, torch.tensor([[10.0]]))


def test_pixel_origin_is_the_corner() -> None:
    rig = forward_camera(size=(2, 4))
    corner = rig.unproject(torch.tensor([[[0.0, 0.0], [4.0, 2.0], [3.999, 1.999]]]), torch.ones(1, 3))[0]
    pixels, _, visible = rig.project(corner)
    torch.testing.assert_close(pixels[0, :2], torch.tensor([[0.0, 0.0], [4.0, 2.0]]), atol=1e-4, rtol=0)
    assert visible[0, 2]
    assert not visible[0, 1], "u = W is outside"


def test_flip_and_resize_are_exact() -> None:
    rig = forward_camera()
    point = torch.tensor([[9.0, 2.0, 1.0]])
    pixel = rig.project(point)[0][0, 0]
    flipped = rig.flipped().project(point)[0][0, 0]
    torch.testing.assert_close(flipped, torch.stack([200 - pixel[0], pixel[1]]))
    torch.testing.assert_close(rig.resized(50, 100).project(point)[0][0, 0], pixel / 2)
    torch.testing.assert_close(rig.cropped(10, 20, 60, 150).project(point)[0][0, 0], pixel - torch.tensor([10.0, 20.0]))


def test_depth_is_along_the_axis() -> None:
    rig = forward_camera(position=(0.0, 0.0, 0.0))
    _, depth, _ = rig.project(torch.tensor([[5.0, 3.0, 1.0]]))
    torch.testing.assert_close(depth, torch.tensor([[5.0]]))  # not the length of the ray, which is 5.9


def test_boxes_are_centred() -> None:
    assert BOX_FIELDS == ("x", "y", "z", "length", "width", "height", "yaw", "vx", "vy")
    box = np.array([[10.0, 5.0, 1.0, 4.0, 2.0, 1.5, np.pi / 2, 0, 0]])
    corners = box_corners(box_poses(box), box[:, 3:6])[0]
    np.testing.assert_allclose(corners.mean(0), box[0, :3], atol=1e-12)
    np.testing.assert_allclose(np.ptp(corners, axis=0), [2.0, 4.0, 1.5], atol=1e-12)  # heading along y: length runs along y


def test_voxels() -> None:
    grid = VoxelGrid.occ3d()
    assert grid.shape == (200, 200, 16)
    index, inside = grid.indices(torch.tensor([[-40.0, -40.0, -1.0], [39.99, 0.0, 5.39], [0.0, 40.0, 0.0]]))
    assert index[0].tolist() == [0, 0, 0]
    assert index[1].tolist() == [199, 100, 15]
    assert inside.tolist() == [True, True, False]
    torch.testing.assert_close(grid.centres()[3, 7, 2], torch.tensor([-40 + 3.5 * 0.4, -40 + 7.5 * 0.4, -1 + 2.5 * 0.4]))


def test_floor_and_truncation() -> None:
    grid = VoxelGrid.occ3d().collapsed_z()
    below = torch.tensor([[0.0, 0.0, -3.0]])  # 2 m under the grid
    assert not grid.indices(below)[1].any()
    assert grid.indices(below, "truncate")[1].all(), "the reference keeps it in the lowest cell"


def test_free_is_a_class() -> None:
    assert OCC3D_CLASSES[OCC3D_FREE] == "free"
    assert len(OCC3D_CLASSES) == 18
    assert OCC3D_FREE == 17


def test_bev_is_y_by_x() -> None:
    """A feature at 30 m ahead and 10 m to the left lands in the row of its y and the column of its x."""
    from frustum.ops.bev_pool import bev_pool
    from frustum.ops.pool_plan import PoolPlan

    grid = VoxelGrid.occ3d().collapsed_z()
    plan = PoolPlan.create(torch.tensor([30.0, 10.0, 0.0]).view(1, 1, 1, 1, 1, 3), grid)
    pooled = bev_pool(torch.ones(1, 1, 1, 1), torch.full((1, 2, 1, 1), 7.0), plan)
    assert pooled.shape == (1, 2, 1, 200, 200)  # B C Z Y X
    assert (pooled[0, 0, 0] > 0).nonzero().tolist() == [[int((10 + 40) / 0.4), int((30 + 40) / 0.4)]]


def test_batch_has_time() -> None:
    eye = torch.eye(4).expand(6, 4, 4)
    batch = Batch.from_arrays(torch.zeros(6, 3, 32, 64), torch.eye(3).expand(6, 3, 3), eye)
    assert batch.images.shape == (1, 1, 6, 3, 32, 64)
    assert batch.rig.intrinsics.shape == (1, 1, 6, 3, 3)
    assert batch.key_ego2global.shape == (1, 4, 4)


def test_camera_order() -> None:
    assert [name.removeprefix("CAM_") for name in CAMERAS] == ["FRONT_LEFT", "FRONT", "FRONT_RIGHT", "BACK_LEFT", "BACK", "BACK_RIGHT"]


def test_exit_codes() -> None:
    table = dict(re.findall(r"^\| (\d+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.M))
    kinds = {
        kind.__name__: kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FrustumError)
    }
    assert {str(code) for code in kinds.values()} <= set(table), "an error class returns a code that the page does not list"
    assert kinds == {
        "FrustumError": 1, "ConfigError": 2, "DataError": 3, "CheckpointError": 4, "ShapeError": 5, "TrainingError": 7,
            "OutputError": 3, "DiedError": 8,
        "StoppedError": 75,
    }  # fmt: skip
