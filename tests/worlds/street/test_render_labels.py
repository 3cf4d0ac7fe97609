"""Cameras, LiDAR and occupancy labels of one scene tell the same story."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from frustum.geometry import VoxelGrid, invert, points_in_boxes, pose, rotation_xyz
from frustum.ops.box_points import count_points_in_boxes
from frustum.types.classes import DETECTION_CLASSES, OCC3D_CLASSES, OCC3D_FREE, OCC3D_OF_CATEGORY
from frustum.worlds.street.culling import sector_lists
from frustum.worlds.street.labels import instance_ids
from frustum.worlds.street.lidar import LidarPattern
from frustum.worlds.street.materials import OCC3D_OF_GENERAL
from frustum.worlds.street.render import HIT_REACH, SceneRenderer
from frustum.worlds.street.types import Actor, Track
from tests.worlds.street.street_samples import small_scene

TIME, SIZE = 1.0, (64, 176)
K = np.array([[139.0, 0, 88], [0, 139, 32], [0, 0, 1]])
CAM2BODY = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])


@pytest.fixture(scope="module")
def film():
    """Scene, renderer, ego pose, cameras, their shots, LiDAR poses, sweep and labels at one instant."""
    scene = small_scene()
    renderer = SceneRenderer(scene)
    ego = scene.ego.pose(TIME)
    yaws = np.deg2rad([55, 0, -55, 110, 180, -110])
    cameras = [(K, ego @ pose(rotation_xyz(0, 0.02, y) @ CAM2BODY, np.array([1.0, 0, 1.5])), SIZE) for y in yaws]
    shots = [renderer.camera(*c, TIME) for c in cameras]
    mount = pose(rotation_xyz(0, 0, -np.pi / 2), np.array([0.9, 0, 1.84]))
    lidars = [scene.ego.pose(t) @ mount for t in (TIME, 0.0, 2.0, 3.0)]
    sweep = renderer.lidar(lidars[0], TIME)
    labels = renderer.occupancy(ego, TIME, VoxelGrid.occ3d(), cameras, lidars)
    return scene, renderer, ego, cameras, shots, lidars, sweep, labels


def to_voxels(points: np.ndarray, ego: np.ndarray) -> np.ndarray:
    local = points @ invert(ego)[:3, :3].T + invert(ego)[:3, 3]
    return np.floor((local - [-40, -40, -1]) / 0.4).astype(int)


def inside(index: np.ndarray) -> np.ndarray:
    return ((index >= 0) & (index < [200, 200, 16])).all(-1)


def box_poses(scene, time: float) -> tuple[np.ndarray, np.ndarray]:
    lift = np.eye(4)
    boxes = []
    for actor in scene.actors:
        lift[2, 3] = actor.size[2] / 2
        boxes.append(actor.track.pose(time) @ lift)
    return np.stack(boxes), np.array([a.size for a in scene.actors])


def test_depth_ends_in_the_voxel_that_the_label_names(film):
    _, _, ego, cameras, shots, _, _, labels = film
    right, beside, occupied = [], [], []
    near = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1], indexing="ij"), -1).reshape(-1, 3)
    for (k, cam2global, (h, w)), shot in zip(cameras, shots, strict=True):
        v, u = np.meshgrid(np.arange(h) + 0.5, np.arange(w) + 0.5, indexing="ij")
        rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(k).T
        seen = (shot.depth > 0) & (shot.depth < 60)
        points = (rays * (shot.depth + 1e-3)[..., None])[seen] @ cam2global[:3, :3].T + cam2global[:3, 3]
        index = to_voxels(points, ego)
        ok = ((index >= 1) & (index < [199, 199, 15])).all(-1)
        label, index = OCC3D_OF_GENERAL[shot.category[seen]][ok], index[ok]
        around = labels.semantics[tuple((index[:, None] + near).transpose(2, 0, 1))]  # (P, 27), 13 = the voxel itself
        right.append(around[:, 13] == label)
        occupied.append(around[:, 13] != OCC3D_FREE)
        beside.append((around == label[:, None]).any(1))
    assert sum(map(len, right)) > 20000
    assert np.concatenate(occupied).mean() > 0.99
    assert np.concatenate(right).mean() > 0.95  # a voxel across the edge between two classes has one label only
    assert np.concatenate(beside).mean() > 0.999  # and is next to a voxel of the other


def test_observed_voxels(film):
    _, _, ego, cameras, shots, lidars, _, labels = film
    assert labels.semantics.shape == (200, 200, 16)
    for array in (labels.semantics, labels.mask_lidar, labels.mask_camera, labels.instances):
        assert array.dtype == np.uint8
    assert not (labels.mask_camera & ~labels.mask_lidar).any()  # nested
    assert 0 < labels.mask_camera.sum() < labels.mask_lidar.sum()
    # A free voxel of the camera mask lies before the rendered depth of some camera, seen at its centre.
    free = np.argwhere((labels.semantics == OCC3D_FREE) & (labels.mask_camera > 0))
    centres = (free + 0.5) * 0.4 + [-40, -40, -1]
    world = centres @ ego[:3, :3].T + ego[:3, 3]
    before = np.zeros(len(free), bool)
    for (k, cam2global, (h, w)), shot in zip(cameras, shots, strict=True):
        local = world @ invert(cam2global)[:3, :3].T + invert(cam2global)[:3, 3]
        front = local[:, 2] > 0.1
        pixel = local @ k.T
        u, v = (pixel[:, a] / np.where(front, local[:, 2], 1) for a in (0, 1))
        ok = front & (u >= 0) & (u < w) & (v >= 0) & (v < h)
        met = shot.depth[v[ok].astype(int), u[ok].astype(int)]
        before[ok] |= (met == 0) | (local[ok, 2] < met)
    assert before.all()
    # What is observed as occupied lies near a point of the accumulated sweeps: within a voxel's diagonal.
    occupied = np.argwhere((labels.semantics != OCC3D_FREE) & (labels.mask_lidar > 0))
    hit = np.zeros((202, 202, 18), bool)
    renderer = film[1]
    for lidar in lidars:
        points = renderer.lidar(lidar, TIME).points[:, :3].astype(float) @ lidar[:3, :3].T + lidar[:3, 3]
        index = to_voxels(points, ego)
        index = index[inside(index)] + 1
        hit[tuple(index.T)] = True
    from scipy.ndimage import binary_dilation

    near = binary_dilation(hit, np.ones((3, 3, 3)))[1:-1, 1:-1, 1:-1]
    assert near[tuple(occupied.T)].all()


def test_free_space_of_the_lidar_is_what_its_nearest_beam_passes(film):
    _, renderer, ego, _, _, lidars, _, labels = film
    rng = np.random.default_rng(0)
    free = np.argwhere(labels.semantics == OCC3D_FREE)
    free = free[rng.choice(len(free), 3000, replace=False)]
    centres = (free + 0.5) * 0.4 + [-40, -40, -1]
    local = (centres @ ego[:3, :3].T + ego[:3, 3] - lidars[0][:3, 3]) @ lidars[0][:3, :3]
    distance = np.linalg.norm(local, axis=1)
    table = LidarPattern.nuscenes().directions()
    beam = (local @ table.T).argmax(1)  # the smallest angle between centre and beam
    met = renderer._cast_sweep(np.ascontiguousarray(lidars[0]), LidarPattern.nuscenes(), TIME).distance[beam]
    elevation = np.rad2deg(np.arcsin(local[:, 2] / distance))
    within = (elevation > -31.3) & (elevation < 11.3)
    passed = within & (distance < np.where(met > 0, met, 105.0))
    assert 0.2 < passed.mean() < 0.9
    assert ((labels.mask_lidar[tuple(free.T)] > 0) == passed).mean() > 0.98


def test_points_of_an_actor_lie_in_its_box_and_no_others_do(film):
    scene, _, _, _, _, lidars, sweep, _ = film
    points = sweep.points[:, :3].astype(np.float64) @ lidars[0][:3, :3].T + lidars[0][:3, 3]
    poses, sizes = box_poses(scene, TIME)
    member = points_in_boxes(points, poses, sizes)  # (P, M)
    for m, actor in enumerate(scene.actors):
        own = sweep.instance == actor.id
        assert member[own, m].all(), actor
        category = [*OCC3D_OF_CATEGORY].index(actor.category)
        assert (sweep.category[own] == category).all()
    np.testing.assert_array_equal(count_points_in_boxes(points, poses, sizes), member.sum(0))
    others = member[sweep.instance == 0].any(1)
    assert others.mean() < 1e-3  # ground that rises into a box at most
    assert (sweep.instance > 0).sum() > 100
    assert len(np.unique(sweep.instance)) == 5  # four actors and none


def test_sweep_is_a_sweep(film):
    sweep = film[6]
    x, y, z, intensity, ring = sweep.points.T
    distance = np.sqrt(x**2 + y**2 + z**2)
    elevation = np.rad2deg(np.arcsin(z / distance))
    nominal = np.linspace(-30.67, 10.67, 32)[ring.astype(int)]
    np.testing.assert_allclose(elevation, nominal, atol=0.05)
    assert distance.min() >= 0.499
    assert distance.max() <= 105
    assert set(np.unique(ring)) <= set(range(32))
    assert intensity.min() >= 0
    assert intensity.max() <= 255
    assert sweep.points.dtype == np.float32
    assert not (sweep.category == 255).any()


def test_pattern():
    pattern = LidarPattern.nuscenes()
    table = pattern.directions()
    assert table.shape == (32 * 1090, 3)
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, atol=1e-6)
    assert table[:32, 1].max() < 0  # the turn starts behind the car


def test_beams_part_space_halfway():
    pattern = LidarPattern.nuscenes()
    slopes, borders = pattern.borders()
    elevation = np.arctan(slopes)
    assert len(slopes) == 33
    np.testing.assert_allclose(0.5 * (elevation[1:] + elevation[:-1]), pattern.elevations, atol=1e-12)
    flat = pattern.directions().reshape(1090, 32, 3)[:, 0, :2].astype(float)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    middle = flat + np.roll(flat, -1, axis=0)
    np.testing.assert_allclose(borders, middle / np.linalg.norm(middle, axis=1, keepdims=True), atol=1e-6)


def test_remembered_sweeps_meet_the_actors_of_the_moment(film):
    """What stands still is remembered between keyframes; with the actors of another time the hits are those of a plain cast."""
    scene, _, _, _, _, lidars, _, _ = film
    renderer, pattern = SceneRenderer(scene), LidarPattern.nuscenes()
    moved = []
    for time in (0.0, TIME, 2.5):
        renderer.stage.set_time(time)
        table, hits = renderer._cast_thinly(np.ascontiguousarray(lidars[1]), pattern)
        _, sector = renderer._beams(pattern, renderer.rules.hit_every)
        plain = renderer.cast(lidars[1], table, sector, *sector_lists(renderer.stage.corners, lidars[1], HIT_REACH), HIT_REACH)
        for found, wanted in zip(hits.arrays(), plain.arrays(), strict=True):
            np.testing.assert_array_equal(found, wanted)
        moved.append(hits.actor)
    assert len(renderer._still) == 1
    assert (moved[0] != moved[2]).any()


def test_actor_voxels_carry_the_actors_class(film):
    scene, _, ego, _, _, _, _, labels = film
    poses, sizes = box_poses(scene, TIME)
    centres = VoxelGrid.occ3d().centres().numpy().reshape(-1, 3).astype(np.float64) @ ego[:3, :3].T + ego[:3, 3]
    member = points_in_boxes(centres, poses, sizes).T.reshape(len(poses), 200, 200, 16)
    for m, actor in enumerate(scene.actors):
        wanted = OCC3D_CLASSES.index(OCC3D_OF_CATEGORY[actor.category])
        things = member[m] & (labels.semantics < OCC3D_CLASSES.index("driveable_surface")) & (labels.semantics > 0)
        assert things.any(), actor
        assert (labels.semantics[things] == wanted).all()
        # All voxels of one box belong to one instance.
        assert len(np.unique(labels.instances[things])) == 1


def test_instances(film):
    scene, labels = film[0], film[7]
    ids, semantics = labels.instances, labels.semantics
    assert ((ids == 0) == (semantics == OCC3D_FREE)).all()
    present = np.unique(ids[ids > 0])
    np.testing.assert_array_equal(present, np.arange(1, len(present) + 1))
    for i in present:
        assert len(np.unique(semantics[ids == i])) == 1
    things = [i for i in present if OCC3D_CLASSES[semantics[ids == i][0]] in DETECTION_CLASSES]
    assert things == list(range(1, len(scene.actors) + 1))
    stuff = [semantics[ids == i][0] for i in present if i not in things]
    assert len(stuff) == len(set(stuff))


def test_instance_ids_by_hand():
    car, road, other = (OCC3D_CLASSES.index(n) for n in ("car", "driveable_surface", "others"))
    semantics = np.array([[[car, car, road, OCC3D_FREE, other, other, car]]], np.uint8)
    owner = np.array([[[9, 4, 0, 0, 2, 0, 4]]], np.int32)
    # Cars first in actor order, then `others` (even where an actor owns it) and the road, in class order.
    np.testing.assert_array_equal(instance_ids(semantics, owner), [[[2, 1, 4, 0, 3, 3, 1]]])


def test_everything_repeats(film):
    _, _, ego, cameras, shots, lidars, sweep, labels = film
    again = SceneRenderer(small_scene())
    again.camera(*cameras[2], 3.3)  # another history must not matter
    again.lidar(lidars[1], 2.2)
    for camera, shot in list(zip(cameras, shots, strict=True))[:2]:
        new = again.camera(*camera, TIME)
        for field in ("image", "depth", "category", "instance"):
            np.testing.assert_array_equal(getattr(new, field), getattr(shot, field))
    np.testing.assert_array_equal(again.lidar(lidars[0], TIME).points, sweep.points)
    new = again.occupancy(ego, TIME, VoxelGrid.occ3d(), cameras, lidars)
    for field in ("semantics", "mask_lidar", "mask_camera", "instances"):
        np.testing.assert_array_equal(getattr(new, field), getattr(labels, field))


def test_moving_actors_move_their_shadow_too(film):
    renderer = film[1]
    before = renderer.stage.light.shadow.copy()
    renderer.stage.set_time(TIME + 1.5)
    assert (renderer.stage.light.shadow != before).any()
    renderer.stage.set_time(TIME)
    np.testing.assert_array_equal(renderer.stage.light.shadow, before)


def test_visibility_levels(film):
    scene, renderer, _, cameras, shots, _, _, _ = film
    names = [str(i) for i in range(6)]
    ids = [a.id for a in scene.actors]
    levels = renderer.visibility(ids, TIME, dict(zip(names, cameras, strict=True)), dict(zip(names, shots, strict=True)))
    assert len(levels) == len(ids)
    assert all(0 <= level <= 4 for level in levels)
    assert levels[ids.index(2)] == 4  # the oncoming car stands alone on its lane
    # A camera that looks at a car from behind a second car of the same size right before it.
    car = scene.actors[0]
    ahead = car.track.poses[0].copy()
    ahead[:3, 3] -= 5.0 * ahead[:3, 0]
    blocker = Actor(3, car.category, 0, car.size, car.tint, Track(np.zeros(1), ahead[None]), False)
    blocked = replace(scene, actors=(car, blocker))
    second = SceneRenderer(blocked)
    eye = ahead.copy()
    eye[:3, 3] += -7.0 * ahead[:3, 0] + 0.8 * ahead[:3, 2]
    camera = (K, eye @ pose(CAM2BODY, np.zeros(3)), SIZE)
    shot = second.camera(*camera, 0.0)
    hidden, front = second.visibility([1, 3], 0.0, {"a": camera}, {"a": shot})
    assert front == 4
    assert hidden <= 2


def test_image_has_light_and_no_defects(film):
    shots = film[4]
    for shot in shots:
        assert shot.image.dtype == np.uint8
        assert shot.image.shape == (*SIZE, 3)
        assert np.isfinite(shot.depth).all()
        assert 20 < shot.image.mean() < 240
        assert shot.image.std() > 10
        assert ((shot.depth == 0) == (shot.category == 255)).all()
        assert (shot.instance[shot.category == 255] == 0).all()
