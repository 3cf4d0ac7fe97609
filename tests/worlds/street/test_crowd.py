import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from frustum.worlds.street.canvas import CELL, Canvas
from frustum.worlds.street.crowd import ANYWHERE, RATE, ROADS, Crowd, Kind, _apart
from frustum.worlds.street.ground import CARRIAGEWAY, PARCEL, WALK
from frustum.worlds.street.kinds import random_kind
from frustum.worlds.street.people import cone
from frustum.worlds.street.terrain import Terrain
from frustum.worlds.street.types import Ground
from frustum.worlds.street.vehicles import car
from tests.worlds.street.scenes import overlap

CAR = Kind("vehicle.car", (car, ("sedan",)))
SIZE = 200


def plain(hilliness: float = 0.0, duration: float = 4.0) -> Crowd:
    """A crowd on 40 m x 40 m: road for y < 20 m, pavement beyond."""
    terrain = Terrain.random(np.random.default_rng(1), hilliness)
    axis = np.arange(SIZE + 1) * CELL
    kerb = np.where(axis > 20.0, 0.15, 0.0).astype(np.float32)[None].repeat(SIZE + 1, 0)
    ground = Ground(
        terrain.grid(axis, axis) + kerb, np.zeros((SIZE, SIZE), np.float32), np.zeros((2 * SIZE, 2 * SIZE), np.uint8), CELL, (0.0, 0.0)
    )
    zone = np.full((SIZE, SIZE), CARRIAGEWAY, np.uint8)
    zone[:, SIZE // 2 :] = WALK
    canvas = Canvas(ground, zone, kerb)
    canvas.cells[150:152, 40:42, canvas.surface[150, 40] : canvas.surface[150, 40] + 20] = 1  # a post at (30.2, 8.2)
    canvas.cells[20:60, 20:60, canvas.surface[40, 40] + 11 :] = 1  # a low bridge, 2 m, over (4..12, 4..12)
    return Crowd(canvas, terrain, duration)


def rectangle(x, y, yaw, length, width):
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * (length / 2, width / 2) @ np.array([[c, s], [-s, c]]) + (x, y)


@settings(max_examples=300, deadline=None)
@given(*(st.floats(-4, 4) for _ in range(2)), *(st.floats(-3.2, 3.2) for _ in range(2)), *(st.floats(0.3, 5) for _ in range(4)))
def test_separating_axes_agree_with_a_plain_version(x, y, yaw_a, yaw_b, la, wa, lb, wb):
    a, b = rectangle(0, 0, yaw_a, la, wa), rectangle(x, y, yaw_b, lb, wb)
    # Rectangles that touch are for rounding to decide.
    assume(overlap(a, rectangle(x, y, yaw_b, lb + 1e-6, wb + 1e-6)) == overlap(a, rectangle(x, y, yaw_b, lb - 1e-6, wb - 1e-6)))
    assert _apart(0.0, 0.0, yaw_a, la, wa, x, y, yaw_b, lb, wb) == (not overlap(a, b))


def test_actors_never_share_a_place():
    crowd = plain()
    assert crowd.add(CAR, np.array([20.0, 15.0]), 0.0, "vehicle.parked")
    assert not crowd.add(CAR, np.array([22.0, 15.5]), 0.3, "vehicle.parked")
    assert crowd.add(CAR, np.array([20.0, 17.6]), 0.0, "vehicle.parked")
    assert [a.id for a in crowd.actors] == [1, 2]
    assert len(crowd.models) == 1


def test_moving_actors_are_checked_at_all_times():
    crowd = plain()
    assert crowd.add(CAR, np.array([30.0, 15.0]), 0.0, "vehicle.parked")
    x = 12 + 5 * crowd.times
    path = np.stack([x, np.full_like(x, 15.0)], 1)
    assert not crowd.add(CAR, path, np.zeros_like(x), "vehicle.moving")  # would run into the parked one
    path[:, 1] = 12.0
    assert crowd.add(CAR, path, np.zeros_like(x), "vehicle.moving")
    late = path.copy()
    late[:, 0] -= 8.0
    assert crowd.add(CAR, late, np.zeros_like(x), "vehicle.moving")  # follows at a distance
    assert crowd.actors[-1].moving
    assert len(crowd.actors[-1].track.times) == len(crowd.times)
    assert np.allclose(np.diff(crowd.actors[-1].track.times), 1 / RATE)


def test_the_ego_vehicle_keeps_its_space():
    crowd = plain()
    path = np.zeros((len(crowd.times), 3))
    path[:, 0] = 5 + 5 * crowd.times
    path[:, 1] = 15.0
    crowd.reserve(path, 4.5, 2.0)
    assert not crowd.add(CAR, np.array([15.0, 15.0]), 0.0, "vehicle.parked")
    assert crowd.actors == []


def test_zones_posts_bridges_and_borders_are_respected():
    crowd = plain()
    assert not crowd.add(CAR, np.array([20.0, 30.0]), 0.0, "", ROADS)  # on the pavement
    assert not crowd.add(CAR, np.array([20.0, 19.6]), 0.0, "", ROADS)  # half on it
    assert not crowd.add(CAR, np.array([30.0, 8.0]), 0.0, "", ROADS)  # post
    assert not crowd.add(random_kind(np.random.default_rng(0), "bus"), np.array([9.0, 8.0]), 0.0, "", ROADS)  # too tall
    assert crowd.add(CAR, np.array([8.0, 8.0]), 0.0, "", ROADS)  # passes below
    assert not crowd.add(CAR, np.array([39.0, 30.0]), 0.0, "", ANYWHERE)  # beyond the map
    assert not crowd.add(CAR, np.array([20.0, 30.0]), 0.0, "", (PARCEL,))


def test_gaps_are_kept():
    small = Kind("movable_object.trafficcone", (cone, (0,)))
    crowd = plain()
    assert crowd.add(small, np.array([20.0, 15.0]), 0.0, "")
    assert not crowd.add(small, np.array([20.65, 15.0]), 0.0, "", gap=0.25)
    assert crowd.add(small, np.array([20.65, 15.0]), 0.0, "", gap=0.05)


@pytest.mark.parametrize("hilliness", [0.0, 1.0])
def test_people_step_up_kerbs_and_stay_upright(hilliness):
    crowd = plain(hilliness)
    kind = random_kind(np.random.default_rng(3), "walker")
    y = 17.5 + 1.3 * crowd.times
    path = np.stack([np.full_like(y, 25.0), y], 1)
    assert crowd.add(kind, path, np.full_like(y, np.pi / 2), "pedestrian.moving")
    poses = crowd.actors[0].track.poses
    height = poses[:, 2, 3] - crowd._terrain.height(path)
    assert height[0] == pytest.approx(0, abs=1e-6)
    assert height[-1] == pytest.approx(0.15, abs=1e-6)
    assert (np.diff(height) >= -1e-9).all()
    assert np.allclose(poses[:, 2, 2], 1)


def test_cars_lean_with_the_ground():
    crowd = plain(1.0)
    assert crowd.add(CAR, np.array([20.0, 15.0]), 0.4, "vehicle.parked")
    up = crowd.actors[0].track.poses[0, :3, 2]
    gx, gy = crowd._terrain.gradient(np.array([20.0, 15.0]))
    assert np.allclose(up, np.array([-gx, -gy, 1]) / np.linalg.norm([gx, gy, 1]), atol=1e-9)
