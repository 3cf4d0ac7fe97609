import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from frustum.errors import DataError, ShapeError
from frustum.geometry import CameraRig, invert, pose, rotation_xyz, transform_points
from frustum.worlds.street.rigs import StreetRig


def make_rig(num_cameras: int = 6, lead: tuple[int, ...] = (), dtype=torch.float64, seed: int = 0) -> CameraRig:
    rng = np.random.default_rng(seed)
    n = int(np.prod((*lead, num_cameras)))
    cam2ego = pose(Rotation.random(n, random_state=seed).as_matrix(), rng.uniform(-2, 2, (n, 3))).reshape(*lead, num_cameras, 4, 4)
    ego2global = pose(Rotation.random(n, random_state=seed + 1).as_matrix(), rng.uniform(-90, 90, (n, 3))).reshape(*lead, num_cameras, 4, 4)
    k = np.zeros((*lead, num_cameras, 3, 3))
    k[..., 0, 0], k[..., 1, 1], k[..., 2, 2] = rng.uniform(300, 900, (3, *lead, num_cameras))[:2].tolist() + [1.0]
    k[..., 0, 2], k[..., 1, 2] = 350.0, 130.0
    return CameraRig.create(*(torch.tensor(a, dtype=dtype) for a in (k, cam2ego)), (256, 704), torch.tensor(ego2global, dtype=dtype))


def random_pixels(rig: CameraRig, count: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    lead = rig.intrinsics.shape[:-2]
    size = torch.tensor([rig.image_size[1], rig.image_size[0]], dtype=rig.intrinsics.dtype)
    pixels = torch.rand(*lead, count, 2, generator=g, dtype=rig.intrinsics.dtype) * size
    return pixels, torch.rand(*lead, count, generator=g, dtype=rig.intrinsics.dtype) * 60 + 0.5


@pytest.mark.parametrize("num_cameras", [1, 4, 6, 8])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 0.05)])
def test_project_undoes_unproject(num_cameras, lead, dtype, tolerance):
    rig = make_rig(num_cameras, lead, dtype).resized(128, 352).cropped(10, 20, 100, 300).flipped()
    pixels, depth = random_pixels(rig)
    points = rig.unproject(pixels, depth)  # (*, N, P, 3)
    for camera in range(num_cameras):
        again, depth_again, visible = rig.project(points[..., camera, :, :])
        torch.testing.assert_close(again[..., camera, :, :], pixels[..., camera, :, :], atol=tolerance, rtol=0)
        torch.testing.assert_close(depth_again[..., camera, :], depth[..., camera, :], atol=tolerance, rtol=1e-5)
        assert visible[..., camera, :].float().mean() > 0.99


def test_the_same_holds_through_the_global_frame():
    rig = make_rig(lead=(2,))
    key = make_rig(1, (2,), seed=5).ego2global[:, 0]
    pixels, depth = random_pixels(rig)
    points = rig.unproject(pixels, depth, key)
    again, _, _ = rig.project(points[:, 3], key)
    torch.testing.assert_close(again[:, 3], pixels[:, 3], atol=1e-6, rtol=0)


def test_rotating_rig_and_world_together_changes_nothing():
    rig = make_rig()
    turn = torch.tensor(pose(rotation_xyz(0.1, -0.2, 0.9), np.array([4.0, -3.0, 1.0])))
    turned = CameraRig.create(rig.intrinsics, turn @ rig.cam2ego, rig.image_size)
    points = torch.randn(50, 3, dtype=torch.float64) * 20
    before, after = rig.project(points), turned.project(transform_points(turn, points))
    for a, b in zip(before[:2], after[:2], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
    assert torch.equal(before[2], after[2])


def test_moving_the_vehicle_and_the_world_together_changes_nothing():
    rig, points = make_rig(), torch.randn(50, 3, dtype=torch.float64) * 20
    key = rig.ego2global[0]
    move = torch.tensor(pose(rotation_xyz(0.0, 0.0, 2.0), np.array([500.0, 900.0, 3.0])))
    moved = CameraRig.create(rig.intrinsics, rig.cam2ego, rig.image_size, move @ rig.ego2global)
    torch.testing.assert_close(rig.project(points, key)[0], moved.project(points, move @ key)[0], atol=1e-5, rtol=1e-6)


@given(st.integers(20, 900), st.integers(20, 900), st.integers(-50, 80), st.integers(-50, 80), st.booleans(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_augmentations_compose_like_the_image_operations(height, width, left, top, flip, seed):
    rig = make_rig(2)
    changed = rig.resized(height, width).cropped(left, top, 60, 90)
    changed = changed.flipped() if flip else changed
    pixels, _ = random_pixels(rig, seed=seed)
    u, v = pixels[..., 0] * width / 704 - left, pixels[..., 1] * height / 256 - top
    u = 90 - u if flip else u
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1)
    mapped = (homogeneous @ changed.image_aug.mT)[..., :2]
    torch.testing.assert_close(mapped, torch.stack([u, v], -1), atol=1e-9, rtol=0)
    assert changed.image_size == (60, 90)


def test_two_flips_are_none_and_crops_add_up():
    rig = make_rig()
    torch.testing.assert_close(rig.flipped().flipped().image_aug, rig.image_aug)
    once, twice = rig.cropped(15, 25, 50, 60), rig.cropped(10, 20, 200, 300).cropped(5, 5, 50, 60)
    torch.testing.assert_close(once.image_aug, twice.image_aug)


def test_frustum_points_lie_at_their_depth_and_pixel():
    rig = make_rig(4)
    u, v, depth = torch.linspace(0, 703, 11).double(), torch.linspace(0, 255, 7).double(), torch.arange(1, 20, 3).double()
    points = rig.frustum_points(u, v, depth)
    assert points.shape == (4, 7, 7, 11, 3)
    pixels, found, _ = rig.project(points[2].reshape(-1, 3))
    torch.testing.assert_close(found[2].reshape(7, 7, 11), depth[:, None, None].expand(7, 7, 11), atol=1e-8, rtol=0)
    torch.testing.assert_close(pixels[2].reshape(7, 7, 11, 2)[0, :, :, 0], u.expand(7, 11), atol=1e-6, rtol=0)


def test_rays_start_at_the_camera_and_have_unit_depth():
    rig = make_rig(3)
    pixels, depth = random_pixels(rig)
    origins, directions = rig.rays(pixels)
    torch.testing.assert_close(origins, rig.cam2ego[..., :3, 3])
    torch.testing.assert_close(origins[:, None] + directions * depth[..., None], rig.unproject(pixels, depth))


def test_points_behind_a_camera_are_not_visible_and_stay_finite():
    rig = CameraRig.create(torch.diag(torch.tensor([500.0, 500.0, 1.0]))[None], torch.eye(4)[None], (100, 100))
    pixels, depth, visible = rig.project(torch.tensor([[0.0, 0.0, -5.0], [0.0, 0.0, 0.0], [0.01, 0.01, 5.0]]))
    assert visible[0].tolist() == [False, False, True]
    assert torch.isfinite(pixels).all()
    assert depth[0].tolist() == [-5.0, 0.0, 5.0]


def test_select_stack_index_and_move():
    rig = make_rig()
    some = rig.select([4, 1])
    torch.testing.assert_close(some.intrinsics, rig.intrinsics[[4, 1]])
    assert some.num_cameras == 2
    both = CameraRig.stack([rig, rig])
    assert both.intrinsics.shape == (2, 6, 3, 3)
    torch.testing.assert_close(both[1].cam2ego, rig.cam2ego)
    assert both.to(dtype=torch.float32).ego2global.dtype == torch.float32
    with pytest.raises(ShapeError, match="select"):
        rig[0]


def test_bad_calibration_is_named():
    rig = make_rig()
    eye3, eye4 = rig.intrinsics, rig.cam2ego
    singular = eye3.clone()
    singular[2, 0, 0] = 0
    with pytest.raises(DataError, match="intrinsics cannot be right at camera 2: fx is 0 pixels, which must be 1 to 1,000,000 pixels"):
        CameraRig.create(singular, eye4, (10, 10))
    infinite = eye4.clone()
    infinite[3, 0, 3] = float("nan")
    with pytest.raises(DataError, match="cam2ego holds NaN or infinity at camera 3"):
        CameraRig.create(eye3, infinite, (10, 10))
    mirrored = eye4.clone()
    mirrored[1, :3, 0] *= -1
    with pytest.raises(DataError, match="cam2ego cannot be right at camera 1: it is not a rigid transform"):
        CameraRig.create(eye3, mirrored, (10, 10))
    with pytest.raises(ShapeError, match="cam2ego must have shape"):
        CameraRig.create(eye3, eye4[:5], (10, 10))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("yaw", [0.3, 1.1, 2.5])
def test_a_standing_rig_has_its_own_poses_wherever_it_heads(dtype, yaw):
    """To the last bit: rounded to float32, the transpose of a rotation is not quite its inverse."""
    rig = make_rig(dtype=dtype)
    here = torch.tensor(pose(rotation_xyz(0.01, -0.02, yaw), np.array([612.3, 1588.9, 0.4])), dtype=dtype)
    standing = CameraRig.create(rig.intrinsics, rig.cam2ego, rig.image_size, here.expand(6, 4, 4))
    assert torch.equal(standing.cam2key(here), rig.cam2ego)
    moved = here.clone()
    moved[0, 3] += 2  # metres along x of the world: the way leads through the global frame
    exact = torch.linalg.inv(moved.double()) @ here.double() @ rig.cam2ego.double()
    torch.testing.assert_close(standing.cam2key(moved), exact.to(dtype))


def test_projecting_undoes_unprojecting_for_poses_rounded_to_float32():
    rig = make_rig().to(dtype=torch.float32)
    pixels, depth = random_pixels(make_rig())
    points = rig.unproject(pixels, depth, rig.ego2global[0])
    again = torch.stack([rig.project(points[n], rig.ego2global[0])[0][n] for n in range(6)])
    torch.testing.assert_close(again, pixels, atol=2e-4, rtol=0)  # float32 has 3e-5 pixels at 500; the transpose was 1e-3 off


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (np.eye(3) * 1.004, "a rotation scaled by 1.004; divide it by that"),
        (np.diag([1.0, -1, 1]), "mirrors. Check the handedness"),
        (np.diag([1.004, 1, 1]), "Check the quaternion order"),
    ],
)
def test_what_is_not_a_rotation_is_refused_and_named(part, text):
    """A scale of 1.004 would move a point 40 m ahead by 16 cm, and by more through two poses."""
    rig = make_rig()
    poses = rig.cam2ego.clone()
    poses[2, :3, :3] = poses[2, :3, :3] @ torch.tensor(part)
    with pytest.raises(DataError, match=f"cam2ego cannot be right at camera 2: it is not a rigid transform: its 3x3 part .*{text}"):
        CameraRig.create(rig.intrinsics, poses, rig.image_size)
    rounded = torch.tensor(np.round(make_rig().cam2ego.numpy(), 4))  # as people write them down
    CameraRig.create(rig.intrinsics, rounded, rig.image_size)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_rig_on_the_gpu_projects_as_on_the_cpu():
    rig = make_rig(lead=(2,))
    points = torch.randn(2, 30, 3, dtype=torch.float64) * 20
    torch.testing.assert_close(rig.to("cuda").project(points.cuda())[0].cpu(), rig.project(points)[0], atol=1e-6, rtol=1e-9)


def test_the_street_rig_looks_where_its_names_say():
    rig = StreetRig.nuscenes()
    yaw = {"CAM_FRONT": 0, "CAM_FRONT_LEFT": 55, "CAM_BACK": 180, "CAM_BACK_RIGHT": -110}
    for camera in rig.cameras:
        if camera.name in yaw:
            forward = camera.cam2ego.sensor2ego[:3, 2]
            difference = np.rad2deg(np.arctan2(forward[1], forward[0])) - yaw[camera.name]
            assert abs((difference + 180) % 360 - 180) < 1e-6
    lidar_forward = invert(rig.lidar.sensor2ego)[:3, :3] @ np.array([1.0, 0, 0])
    np.testing.assert_allclose(lidar_forward, [0, 1, 0], atol=1e-12)  # the vehicle's forward is the LiDAR's y


@pytest.mark.data
def test_lidar_points_of_a_real_rig_lie_in_the_images_where_their_boxes_are(shared):
    """Points inside an annotated box must project into the box's outline in every camera that sees it."""
    from frustum.data.nuscenes.reader import NuScenes
    from frustum.geometry import box_corners, points_in_boxes

    data = NuScenes(shared / "data" / "nuscenes_keyframes", "v1.0-mini")
    checked = 0
    for token in data.tokens("all"):
        sample = data.sample(token)
        rig = CameraRig.create(
            torch.tensor(np.stack([c.intrinsics for c in sample.cameras])),
            torch.tensor(np.stack([c.cam2ego for c in sample.cameras])),
            sample.cameras[0].size,
            torch.tensor(np.stack([c.ego2global for c in sample.cameras])),
        )
        lidar = sample.lidar.load()[:, :3].astype(np.float64)
        lidar2key = invert(sample.ego2global) @ sample.lidar.ego2global @ sample.lidar.lidar2ego
        points = transform_points(lidar2key, lidar)
        inside = points_in_boxes(points, sample.boxes.box2ego, sample.boxes.boxes[:, 3:6])
        assert (inside.sum(0) == sample.boxes.num_lidar_pts).mean() > 0.95
        key = torch.tensor(sample.ego2global)
        for m in range(len(sample.boxes)):
            corners, depth, _ = rig.project(torch.tensor(box_corners(sample.boxes.box2ego[m], sample.boxes.boxes[m, 3:6])), key)
            pixels, _, visible = rig.project(torch.tensor(points[inside[:, m]]), key)
            for n in range(rig.num_cameras):
                if (depth[n] > 1).all() and visible[n].any():
                    low, high = corners[n].amin(0) - 1, corners[n].amax(0) + 1
                    assert ((pixels[n] >= low) & (pixels[n] <= high)).all()
                    checked += int(visible[n].sum())
    assert checked > 1000
