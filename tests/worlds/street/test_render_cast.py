"""The compiled ray caster against the readable reference, and against geometry one can work out by hand."""

from __future__ import annotations

import os

import numpy as np
import pytest

from frustum.errors import ConfigError, DataError
from frustum.geometry import pose, rotation_xyz
from frustum.worlds.street.jit import forget_stale
from frustum.worlds.street.kernels_cast import ACTOR, BELOW, GROUND, KERB, SKY, STATIC
from frustum.worlds.street.lidar import LidarPattern
from frustum.worlds.street.materials import MATERIAL_ID
from frustum.worlds.street.render import SceneRenderer, warm_up
from tests.worlds.street.street_samples import small_scene


@pytest.fixture(scope="module")
def renderers():
    scene = small_scene()
    return SceneRenderer(scene), SceneRenderer(scene, backend="torch")


def around(renderer, sensor2global, table, far=200.0):
    from frustum.worlds.street.culling import sector_lists, sector_of

    first, items = sector_lists(renderer.stage.corners, sensor2global, far)
    return renderer.cast(sensor2global, table, sector_of(table), first, items, far)


@pytest.mark.parametrize("seed", range(6))
def test_random_rays_equal_the_reference(renderers, seed):
    fast, slow = renderers
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(500, 3))
    table[::2, 2] *= 0.15  # half of them grazing, where height fields are hard
    table = (table / np.linalg.norm(table, axis=1, keepdims=True)).astype(np.float32)
    position = rng.uniform([-18, -15, 1.0], [18, 7, 4.0])  # clear of the house
    if seed == 5:
        position = np.array([60.0, 40.0, 20.0])  # from outside the map
    sensor = pose(rotation_xyz(*rng.uniform(-0.3, 0.3, 2), rng.uniform(-3, 3)), position)
    for renderer in renderers:
        renderer.stage.set_time(1.3)
    a, b = around(fast, sensor, table), around(slow, sensor, table)
    same = np.isclose(a.distance, b.distance, atol=2e-4, rtol=1e-5)
    assert same.mean() > 0.998  # the rest passes within rounding of an edge
    same &= a.kind == b.kind
    for field in ("kind", "face", "material", "actor", "model_cell"):
        assert (getattr(a, field) == getattr(b, field))[same].mean() > 0.995, field
    if seed < 5:
        assert len(np.unique(a.kind)) >= 4
    assert np.isfinite(a.distance).all()


def test_every_kind_of_hit_occurs_and_images_agree(renderers):
    k = np.array([[30.0, 0, 24], [0, 30, 12], [0, 0, 1]])
    cam = pose(np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]), np.array([-12.0, -1.0, 1.7]))
    fast, slow = (r.camera(k, cam, (24, 48), 1.0) for r in renderers)
    same = np.isclose(fast.depth, slow.depth, atol=1e-3)
    assert same.mean() > 0.998
    assert (fast.category == slow.category).mean() > 0.998
    assert (fast.instance == slow.instance).mean() > 0.998
    assert (np.abs(fast.image.astype(int) - slow.image).max(-1) <= 1).mean() > 0.99
    kinds = set(next(iter(renderers[0]._recent.values())).kind.tolist())
    assert {GROUND, KERB, STATIC, ACTOR, SKY} <= kinds


def test_flat_ground_and_wall_have_the_distance_of_plain_geometry():
    scene = small_scene(hills=0.0)
    scene.ground.base[:] = 0.0
    renderer = SceneRenderer(scene)
    renderer.stage.set_time(0.0)
    down = np.array([[0, 0, -1], [0.6, 0, -0.8], [0, 0.6, -0.8]], np.float32)
    hits = around(renderer, pose(np.eye(3), np.array([-20.0, 0.3, 2.0])), down)
    np.testing.assert_allclose(hits.distance, [2.0, 2.5, 2.5], rtol=1e-6)
    assert (hits.kind == GROUND).all()
    # A level ray 10 cm up meets the kerb face at y = 5 from the road side, with the outward normal -y.
    hits = around(renderer, pose(np.eye(3), np.array([-20.0, 0.3, 0.1])), np.array([[0, 1, 0]], np.float32))
    np.testing.assert_allclose(hits.distance, 4.8, atol=0.11)
    assert hits.kind[0] == KERB
    assert hits.face[0] == 2
    # The concrete wall at y = -18 .. -17.8, from the north.
    hits = around(renderer, pose(np.eye(3), np.array([-12.0, -10.0, 1.0])), np.array([[0, -1, 0]], np.float32))
    np.testing.assert_allclose(hits.distance, 7.8, atol=1e-4)
    assert hits.material[0] == MATERIAL_ID["concrete"]
    assert hits.face[0] == 3


def test_rays_that_leave_the_map(renderers):
    renderer = renderers[0]
    renderer.stage.set_time(0.0)
    table = np.array([[1, 0, 0.5], [1, 0, -0.001]], np.float32)
    hits = around(renderer, pose(np.eye(3), np.array([30.0, 0.0, 30.0])), table)
    assert hits.kind.tolist() == [SKY, BELOW]
    assert (hits.distance == 0).all()


@pytest.mark.parametrize("position", [(0.0, 0.0, -3.0), (8.0, -3.5, 0.6), (4.0, 10.1, 3.0), (-8.0, -18.0, 0.5), (500.0, 0.0, 2.0)])
def test_sensor_inside_or_outside_things(renderers, position):
    """Under the ground, in a car, in a house wall, in a wall, off the map: a picture all the same."""
    renderer = renderers[0]
    k = np.array([[40.0, 0, 32], [0, 40, 16], [0, 0, 1]])
    shot = renderer.camera(k, pose(np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]), np.array(position)), (32, 64), 0.5)
    assert np.isfinite(shot.depth).all()
    assert (shot.depth >= 0).all()
    sweep = renderer.lidar(pose(np.eye(3), np.array(position)), 0.5, LidarPattern((-0.2, 0.0, 0.1), 60))
    assert np.isfinite(sweep.points).all()


def test_rays_along_the_planes_between_cells_come_back(renderers):
    """Axis-parallel rays from cell corners: they must end, and see what a ray a hair beside them sees."""
    renderer = renderers[0]
    renderer.stage.set_time(0.0)
    axes = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [1e-17, 1, 0], [-1e-17, 1, -1e-17], [1, -1e-17, 1e-17]], np.float32)
    for x, y in ((8.0, -3.5), (0.0, 0.0), (-12.8, 1.6), (3.2, -8.0)):
        for height in (1.0, 1.6):
            there = pose(np.eye(3), np.array([x, y, height]))
            beside = pose(np.eye(3), np.array([x + 1e-4, y + 1e-4, height + 1e-4]))
            hits, close = around(renderer, there, axes), around(renderer, beside, axes)
            assert np.isfinite(hits.distance).all()
            assert np.isclose(hits.distance, close.distance, atol=0.05).mean() > 0.5


def test_bad_arguments():
    scene = small_scene(cells=240)
    with pytest.raises(ConfigError, match="numba"):
        SceneRenderer(scene, backend="cuda")
    ground = type(scene.ground)(scene.ground.base, scene.ground.step, scene.ground.material, 0.25, scene.ground.origin)
    with pytest.raises(DataError, match="share their columns"):
        SceneRenderer(type(scene)(**{**scene.__dict__, "ground": ground}))


def test_stale_kernels_are_forgotten(tmp_path):
    """Only caches of our own files, and only those older than the newest source."""
    sources = [tmp_path / "kernels_a.py", tmp_path / "kernels_b.py"]
    caches = [tmp_path / name for name in ("kernels_a.f-1.py311.nbi", "kernels_b.g-2.py311.nbi", "other.h-3.py311.nbi")]
    for age, file in zip((100, 50, 200, 10, 200), sources + caches, strict=True):
        file.write_bytes(b"")
        os.utime(file, (1e9 - age, 1e9 - age))
    assert forget_stale(tmp_path, sources) == 1
    assert [c.exists() for c in caches] == [False, True, True]
    assert forget_stale(tmp_path, sources) == 0


def test_warm_up_runs_every_kernel():
    assert 0 < warm_up() < 300
