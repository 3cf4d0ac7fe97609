"""The drawing kernels against plain formulas."""

from __future__ import annotations

import numpy as np

from frustum.worlds.heads.canvas import Canvas, surface_values
from frustum.worlds.heads.light import Light, ball_shadow, light_frame, shadow_at
from frustum.worlds.heads.motion import Motion
from frustum.worlds.heads.parts import Threads
from frustum.worlds.heads.person import Shape
from frustum.worlds.heads.shape import head_points
from frustum.worlds.heads.skull import grid_place, points_at, skull, standard_radius

CAMERA = np.array([400.0, 50.0, 50.0, 60.0])  # focal length, middle, distance
RADIUS = 5.0


def ball(rows: int = 121, columns: int = 181) -> np.ndarray:
    """A ball as a grid, rows down from its top, columns around from the back over the left of the picture."""
    v, u = np.linspace(np.pi / 2, -np.pi / 2, rows)[:, None], np.linspace(-np.pi, np.pi, columns)[None]
    return RADIUS * np.stack([np.cos(v) * np.sin(u), np.sin(v) + 0 * u, np.cos(v) * np.cos(u)], axis=-1)


def drawn_ball() -> Canvas:
    canvas, points = Canvas(100, CAMERA), ball()
    flat, values = surface_values(points, points[..., :2], is_closed=True)
    canvas.mesh(7, flat, values, points.shape[1])
    return canvas


def rays() -> np.ndarray:
    """(100, 100, 3) unit directions through the middles of the pixels."""
    at = (np.arange(100) + 0.5 - 50.0) / 400.0
    x, y = np.meshgrid(at, -at)
    return np.stack([x, y, -np.ones_like(x)], -1) / np.sqrt(x * x + y * y + 1)[..., None]


def test_a_ball_has_the_depth_and_normals_of_a_ball() -> None:
    canvas, direction = drawn_ball(), rays()
    b = 60.0 * direction[..., 2]  # the camera is at (0, 0, 60)
    root = b * b - (60.0**2 - RADIUS**2)
    is_hit = root > 0
    assert np.mean((canvas.parts == 7) != is_hit) < 0.01
    inside = root > 2.0  # off the outline, where a grid is a polygon
    t = -b - np.sqrt(np.where(inside, root, 0))
    point = direction * t[..., None] + [0, 0, 60.0]
    np.testing.assert_allclose(canvas.depths[inside], (60.0 - point[..., 2])[inside], atol=0.01)
    np.testing.assert_allclose(canvas.surface[inside][:, 2:], point[inside] / RADIUS, atol=0.03)
    np.testing.assert_allclose(canvas.surface[inside][:, :2], point[inside][:, :2], atol=0.02)


def test_the_nearer_thing_is_seen_whatever_the_order() -> None:
    ends = np.array([[[-8.0, 0.0, 8.0], [8.0, 0.0, 8.0]], [[0.0, -8.0, -8.0], [0.0, 8.0, -8.0]]])
    bar = Threads(ends, np.full(2, 1.0), np.array([1, 2], np.uint8), np.full(2, 0.5))
    first = drawn_ball()
    first.threads(bar)
    assert first.parts[50, 50] == 1  # in front of the ball
    assert first.parts[35, 50] == 7  # the other one is behind it
    assert first.parts[8, 50] == 2
    second = Canvas(100, CAMERA)
    second.threads(bar)
    points = ball()
    second.mesh(7, *surface_values(points, points[..., :2], is_closed=True), points.shape[1])
    assert np.array_equal(first.parts, second.parts)
    assert np.array_equal(first.depths, second.depths)


def test_a_thread_is_as_wide_as_it_says() -> None:
    for end in ((12.0, 0.0, 0.0), (0.0, 12.0, 0.0), (10.0, 10.0, 0.0)):
        canvas, reach = Canvas(100, CAMERA), np.array(end) / 2
        canvas.threads(Threads(np.stack([-reach, reach])[None], np.array([1.5]), np.array([3], np.uint8), np.array([0.5])))
        length = min(np.linalg.norm(end) * 400 / 60, 100 * np.sqrt(2))
        np.testing.assert_allclose((canvas.parts == 3).sum(), length * 10.0, rtol=0.12)  # 1.5 cm at 60 cm are 10 pixels


def test_shadows() -> None:
    light = Light(key=(0.0, 0.0, 1.0))
    frame = light_frame(light)
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(frame @ np.array(light.key), [0, 0, 1], atol=1e-12)
    canvas = drawn_ball()

    def lit(x: float, y: float, z: float) -> float:
        return shadow_at(x, y, z, np.eye(3), CAMERA, canvas.depths, 0.2, 0.5)

    assert lit(0.0, 0.0, RADIUS) == 1.0  # on the ball
    assert lit(0.0, 0.0, -20.0) == 0.0  # behind it
    assert lit(7.0, 0.0, -4.0) == 1.0  # beside it
    assert ball_shadow(0.0, 0.0, -20.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 5.0) == 0.0
    assert ball_shadow(0.0, 0.0, 20.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 5.0) == 1.0
    assert 0.0 < ball_shadow(5.0, 0.0, -20.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 5.0) < 1.0


def test_the_standard_head_and_its_chart() -> None:
    points, chart = skull()
    theta, phi = np.arctan2(points[..., 0], points[..., 2]), np.arcsin(points[..., 1] / np.linalg.norm(points, axis=-1))
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1)[1:-1], standard_radius(theta, phi)[1:-1], rtol=2e-3)
    assert (np.diff(chart[:, 0, 1]) < 0).all()
    assert (np.diff(chart[0, :, 0]) > 0).all()
    places = np.array([[0.0, 0.0], [3.0, -2.0], [-4.0, 4.0]])
    np.testing.assert_allclose(points_at(np.concatenate([chart, chart[..., :1]], axis=-1), grid_place(places))[:, :2], places, atol=1e-9)


def test_a_plain_head_is_symmetric_and_an_open_mouth_lowers_the_chin() -> None:
    closed, opened = head_points(Shape(), Motion()), head_points(Shape(), Motion(jaw=1.0))
    np.testing.assert_allclose(closed[:, ::-1] * [-1, 1, 1], closed, atol=1e-9)
    chin, forehead = grid_place(np.array([[0.0, -9.5]])), grid_place(np.array([[0.0, 4.0]]))
    assert points_at(opened, chin)[0, 1] < points_at(closed, chin)[0, 1] - 1.5
    np.testing.assert_array_equal(points_at(opened, forehead), points_at(closed, forehead))
