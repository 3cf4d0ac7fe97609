"""Lists of actors per tile and sector lose nobody."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.geometry import invert, pose, rotation_xyz
from frustum.worlds.street.culling import (
    SECTORS,
    TILE,
    box_corners_global,
    image_rectangles,
    pixel_table,
    sector_lists,
    sector_of,
    tile_lists,
)
from frustum.worlds.street.lidar import LidarPattern
from frustum.worlds.street.render import FAR_CAMERA, SceneRenderer
from tests.worlds.street.street_samples import small_scene

K = np.array([[80.0, 0, 64], [0, 80, 32], [0, 0, 1]])
CAM2BODY = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])


@pytest.fixture(scope="module")
def renderer():
    renderer = SceneRenderer(small_scene())
    renderer.stage.set_time(1.0)
    return renderer


def everyone(groups: int, actors: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(groups + 1) * actors, np.tile(np.arange(actors), groups)


def random_sensors(seed: int, count: int = 8) -> list[np.ndarray]:
    """Poses all over the road, some inside the cars, tilted any way."""
    rng = np.random.default_rng(seed)
    places = [rng.uniform([-10, -4, 0.5], [14, 6, 3.0]) for _ in range(count - 2)] + [
        np.array([8.5, -3.5, 0.6]),
        np.array([7.5, -5.0, 1.0]),
    ]
    return [pose(rotation_xyz(*rng.uniform(-0.4, 0.4, 2), rng.uniform(-np.pi, np.pi)), p) for p in places]


@pytest.mark.parametrize("seed", [0, 1])
def test_tile_lists_change_nothing(renderer, seed):
    size = (64, 128)
    table, tile = pixel_table(K, size)
    for body in random_sensors(seed):
        cam = np.ascontiguousarray(body @ pose(CAM2BODY, np.zeros(3)))
        first, items, _ = tile_lists(renderer.stage.corners, K, cam, size)
        a = renderer.cast(cam, table, tile, first, items, FAR_CAMERA)
        b = renderer.cast(cam, table, tile, *everyone(len(first) - 1, len(renderer.scene.actors)), FAR_CAMERA)
        np.testing.assert_array_equal(a.distance, b.distance)
        np.testing.assert_array_equal(a.actor, b.actor)


@pytest.mark.parametrize("seed", [2, 3])
def test_sector_lists_change_nothing(renderer, seed):
    table = LidarPattern(tuple(np.linspace(-0.6, 0.4, 24)), 240).directions()
    for sensor in random_sensors(seed):
        first, items = sector_lists(renderer.stage.corners, sensor, 80.0)
        sector = sector_of(table)
        a = renderer.cast(sensor, table, sector, first, items, 80.0)
        b = renderer.cast(sensor, table, sector, *everyone(SECTORS, len(renderer.scene.actors)), 80.0)
        np.testing.assert_array_equal(a.distance, b.distance)
        np.testing.assert_array_equal(a.actor, b.actor)


def test_rectangles_hold_all_visible_corners():
    rng = np.random.default_rng(4)
    size = (90, 160)
    poses = np.stack([pose(rotation_xyz(*rng.uniform(-1, 1, 3)), rng.uniform([-3, -12, -2], [25, 12, 3])) for _ in range(200)])
    low, high = -rng.uniform(0.2, 3, (200, 3)), rng.uniform(0.2, 3, (200, 3))
    corners = box_corners_global(low, high, poses)
    np.testing.assert_allclose(corners.mean(1), np.einsum("nij,nj->ni", poses[:, :3, :3], (low + high) / 2) + poses[:, :3, 3], atol=1e-9)
    cam = pose(CAM2BODY, np.array([0, 0, 1.5]))
    rectangles = image_rectangles(corners, K, cam, size)
    # Points anywhere in the boxes, not only corners.
    share = rng.random((200, 400, 3))
    local = low[:, None] + share * (high - low)[:, None]
    points = np.einsum("nij,npj->npi", poses[:, :3, :3], local) + poses[:, None, :3, 3]
    seen = points @ invert(cam)[:3, :3].T + invert(cam)[:3, 3]
    front = seen[..., 2] > 0.06
    depth = np.where(front, seen[..., 2], 1)
    u, v = K[0, 0] * seen[..., 0] / depth + K[0, 2], K[1, 1] * seen[..., 1] / depth + K[1, 2]
    inside = front & (u >= 0) & (u < size[1]) & (v >= 0) & (v < size[0])
    r0, r1, c0, c1 = (rectangles[:, i, None] for i in range(4))
    assert inside.any(1).sum() > 50
    assert ((v >= r0) & (v <= r1) & (u >= c0) & (u <= c1))[inside].all()
    behind = (corners @ invert(cam)[:3, :3].T + invert(cam)[:3, 3])[..., 2].max(1) < 0
    assert behind.any()
    assert (rectangles[behind] == 0).all()


def test_pixel_table_goes_through_pixel_centres():
    table, tile = pixel_table(K, (40, 50))
    assert table.dtype == np.float32
    pixels = table.reshape(40, 50, 3) @ K.T.astype(np.float32)
    v, u = np.meshgrid(np.arange(40) + 0.5, np.arange(50) + 0.5, indexing="ij")
    np.testing.assert_allclose(pixels[..., 0], u, atol=1e-4)
    np.testing.assert_allclose(pixels[..., 1], v, atol=1e-4)
    assert (table[:, 2] == 1).all()
    columns = -(-50 // TILE)
    assert tile.reshape(40, 50)[17, 33] == 1 * columns + 2


def test_no_actors_at_all():
    first, items = sector_lists(np.zeros((0, 8, 3)), np.eye(4), 50.0)
    assert (first == 0).all()
    assert len(items) == 0
    first, items, rectangles = tile_lists(np.zeros((0, 8, 3)), K, np.eye(4), (64, 64))
    assert first.shape == (17,)
    assert rectangles.shape == (0, 4)
