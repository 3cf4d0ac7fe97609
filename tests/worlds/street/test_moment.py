"""A scene at an instant: poses, shadows, packed arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from frustum.worlds.street.arrays import BRICK, INTERIOR, pack_models, pack_world
from frustum.worlds.street.culling import SECTORS
from frustum.worlds.street.kernels_shade import sunlit
from frustum.worlds.street.moment import Stage, track_poses
from frustum.worlds.street.render import SceneRenderer
from frustum.worlds.street.types import Track
from tests.worlds.street.street_samples import small_scene


@pytest.fixture(scope="module")
def scene():
    return small_scene()


def unpack(world, shape: tuple[int, ...]) -> np.ndarray:
    bricks = world.bricks.reshape(world.bx, world.by, world.bz)
    dense = np.zeros((world.bx, world.by, world.bz, BRICK, BRICK, BRICK), np.uint8)
    filled = bricks >= 0
    dense[filled] = world.cells.reshape(-1, BRICK, BRICK, BRICK)[bricks[filled]]
    dense = dense.transpose(0, 3, 1, 4, 2, 5).reshape(world.bx * BRICK, world.by * BRICK, world.bz * BRICK)
    return dense[: shape[0], : shape[1], : shape[2]]


def test_bricks_hold_the_static_grid(scene):
    world = pack_world(scene)
    cells = scene.static.cells
    dense = unpack(world, cells.shape)
    np.testing.assert_array_equal(dense & (INTERIOR - 1), cells)
    solid = np.pad(cells != 0, 1)
    middle = (slice(1, -1),) * 3
    buried = solid[middle].copy()
    for axis in range(3):
        for shift in (-1, 1):
            buried &= np.roll(solid, shift, axis)[middle]
    np.testing.assert_array_equal(dense >= INTERIOR, buried)


def test_empty_bricks_know_how_far_the_next_full_one_is(scene):
    world = pack_world(scene)
    bricks = world.bricks.reshape(world.bx, world.by, world.bz)
    full = np.argwhere(bricks >= 0)
    for index in np.argwhere(bricks < 0)[::97]:
        assert np.abs(full - index).max(1).min() == -bricks[tuple(index)]


def test_cubes_that_rays_may_skip_are_empty_and_as_large_as_can_be(scene):
    world = pack_world(scene)
    full = world.bricks.reshape(world.bx, world.by, world.bz) >= 0
    gaps = world.gaps.reshape(8, *full.shape)
    assert ((gaps == 0) == full).all()
    for octant in range(8):
        flip = tuple(slice(None) if octant & bit else slice(None, None, -1) for bit in (4, 2, 1))
        there, gap = full[flip], gaps[octant][flip]  # every direction ascends
        for i, j, k in np.argwhere(gap > 0)[::53]:
            n = int(gap[i, j, k])
            assert not there[i : i + n, j : j + n, k : k + n].any()
            assert n == 255 or there[i : i + n + 1, j : j + n + 1, k : k + n + 1].any()


def test_blocks_near_solids_are_marked(scene):
    world = pack_world(scene)
    dense = np.zeros((world.bx * BRICK, world.by * BRICK, world.bz * BRICK), bool)
    cells = unpack(world, scene.static.cells.shape)
    dense[tuple(slice(n) for n in cells.shape)] = (cells > 0) & (cells < INTERIOR)
    blocks = dense.reshape(dense.shape[0] // 2, 2, dense.shape[1] // 2, 2, dense.shape[2] // 2, 2).any((1, 3, 5))
    wanted = binary_dilation(blocks, np.ones((3, 3, 3)))
    near = world.near.reshape(blocks.shape)
    np.testing.assert_array_equal(near > 0, wanted)
    layer = np.arange(1, near.shape[2] + 1)
    np.testing.assert_array_equal(world.roof.reshape(near.shape[:2]), (wanted * layer).max(2))


def test_an_empty_world_packs_and_renders(scene):
    empty = replace(scene, static=replace(scene.static, cells=np.zeros_like(scene.static.cells)), actors=(), models=())
    world = pack_world(empty)
    assert (world.bricks < 0).all()
    assert len(pack_models(()).cells) == 0
    shot = SceneRenderer(empty).camera(np.array([[20.0, 0, 16], [0, 20, 8], [0, 0, 1]]), _level(empty), (16, 32), 0.0)
    assert set(np.unique(shot.category)) <= {24, 26, 27, 255}  # road, pavement, terrain, sky
    assert (shot.instance == 0).all()


def _level(scene) -> np.ndarray:
    cam = np.eye(4)
    cam[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    cam[:3, 3] = -10, -2, 2.0
    return cam


def test_track_poses_are_the_tracks_own(scene):
    for time in (-1.0, 0.0, 0.05, 1.234, 4.0, 9.0):
        poses = track_poses([a.track for a in scene.actors], time)
        for actor, found in zip(scene.actors, poses, strict=True):
            np.testing.assert_allclose(found, actor.track.pose(time), atol=1e-9)
    assert track_poses([], 0.0).shape == (0, 4, 4)
    spin = Track(np.array([0.0, 1.0]), np.stack([np.eye(4), np.diag([-1.0, -1, 1, 1])]))
    np.testing.assert_allclose(np.abs(track_poses([spin], 0.5)[0, :2, :2]), [[0, 1], [1, 0]], atol=1e-6)


def test_actor_grids_map_to_cells(scene):
    stage = Stage(scene)
    stage.set_time(1.7)
    for row, actor in enumerate(scene.actors):
        model = scene.models[actor.model]
        corner = actor.track.pose(1.7) @ np.array([*model.origin, 1.0])
        cells = stage.actors.to_cells[row] @ corner
        np.testing.assert_allclose(cells, 0, atol=1e-9)
        end = actor.track.pose(1.7) @ np.array([*(np.array(model.origin) + model.size), 1.0])
        np.testing.assert_allclose(stage.actors.to_cells[row] @ end, model.cells.shape, atol=1e-9)


def test_shadows_are_where_the_sun_is_blocked(scene):
    """The shadow map against rays cast towards the sun, at points on open ground; the rest lies at blurred edges."""
    renderer = SceneRenderer(scene)
    stage = renderer.stage
    stage.set_time(1.0)
    world, light = stage.world, stage.light
    rng = np.random.default_rng(1)
    points = []
    for x, y in rng.uniform(-20, 20, (500, 2)):
        i, j = int((x - world.origin[0]) / world.cell), int((y - world.origin[1]) / world.cell)
        points.append((x, y, float(scene.ground.base[i, j] + scene.ground.step[i, j]) + 0.1))
    blocked, lit = [], []
    everyone = (np.arange(SECTORS + 1) * len(scene.actors), np.tile(np.arange(len(scene.actors)), SECTORS))
    for p in points:
        pose = np.eye(4)
        pose[:3, 3] = p
        hits = renderer.cast(pose, light.sun[None].astype(np.float32), np.zeros(1, np.int32), *everyone, 100.0)
        blocked.append(hits.distance[0] > 0)
        lit.append(sunlit(light, *((np.array(p) - world.origin) / world.cell)))
    blocked, lit = np.array(blocked), np.array(lit)
    assert 10 < blocked.sum() < 400
    clear = (lit < 0.05) | (lit > 0.95)
    assert clear.mean() > 0.8
    assert ((lit < 0.5) == blocked)[clear].mean() > 0.97


def test_contact_darkens_below_cars_and_at_walls_only(scene):
    stage = Stage(scene)
    stage.set_time(1.0)

    def at(x: float, y: float) -> float:
        i, j = ((np.array([x, y]) - stage.world.origin[:2]) / stage.world.cell).astype(int)
        return float(stage.light.contact[i, j])

    car = scene.actors[1].track.pose(1.0)
    assert at(car[0, 3], car[1, 3]) > 0.4  # the moving one
    assert at(8.0, -3.5) > 0.4  # the parked one
    assert at(5.0, 9.8) > 0.1  # at the house
    assert at(-20.0, 0.0) == 0.0
    assert 0 <= stage.light.contact.min() <= stage.light.contact.max() < 1


def test_smooth_normals_point_outwards(scene):
    models = pack_models(scene.models)
    for m, model in enumerate(scene.models):
        start, size = models.start[m], model.cells.size
        np.testing.assert_array_equal(models.cells[start : start + size], model.cells.ravel())
    car = models.normals[: scene.models[0].cells.size].reshape(*scene.models[0].cells.shape, 3) / 127.0
    assert car[22, 0, 5, 1] < -0.7  # right side looks right
    assert car[22, 17, 5, 1] > 0.7
    assert car[22, 9, 14, 2] > 0.7  # roof
    assert np.linalg.norm(car[0, 9, 5]) == pytest.approx(1, abs=0.02)
