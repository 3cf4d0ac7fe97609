"""Marks that show a calibration without LiDAR: a grid on the ground and the horizon in an image, and the fields of view from above."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from frustum.data.pixels import ImageTransform
from frustum.data.sample import CameraFrame, Sample
from frustum.geometry import horizon_line, invert, transform_points
from frustum.types.layers import Colour

RINGS = (5.0, 10.0, 20.0, 40.0)  # metres around the origin of the ego frame
NEAR = 0.2  # metres: lines are cut at this depth
GRID, X_AXIS, Y_AXIS, HORIZON = (80, 230, 160), (255, 90, 80), (255, 200, 60), (255, 120, 230)
AXES = (("x", (1.0, 0.0), X_AXIS), ("-x", (-1.0, 0.0), X_AXIS), ("y", (0.0, 1.0), Y_AXIS), ("-y", (0.0, -1.0), Y_AXIS))
VIEW_COLOURS = ((255, 200, 60), (120, 220, 120), (255, 130, 90), (230, 120, 220), (205, 205, 205), (180, 230, 80), (240, 90, 110))
Paint = tuple[int, ...]  # RGB, or RGB and opacity
Project = Callable[[np.ndarray], np.ndarray]


def draw_ground(picture: Image.Image, sample: Sample, camera: CameraFrame, transform: ImageTransform) -> None:
    """Draw the plane z = 0 of the keyframe's ego frame into an image that went through `transform`: rings, axes, their names, horizon."""
    key2camera = invert(camera.ego2global @ camera.cam2ego) @ sample.ego2global
    matrix = transform.matrix() @ camera.intrinsics
    draw = ImageDraw.Draw(picture)
    along, named = np.arange(0, RINGS[-1] + 0.25, 0.5)[:, None], np.array([8.0, 6.0, 12.0, 15.0, 4.0, 20.0, 30.0])[:, None]
    lines = [(_ring(radius), _ring(radius, 72), f"{radius:g} m", GRID, 1) for radius in RINGS]
    lines += [(along * [*direction, 0.0], named * [*direction, 0.0], name, colour, 2) for name, direction, colour in AXES]
    for points, _, _, colour, width in lines:
        for start, end in pairwise(transform_points(key2camera, points)):
            draw_segment(draw, start, end, matrix, colour, width)
    for _, points, text, colour, _ in lines:
        _label_visible(draw, picture.size, transform_points(key2camera, points) @ matrix.T, text, colour)
    ends = horizon(key2camera, matrix, transform.size)
    if ends is not None:
        draw.line([tuple(end) for end in ends], fill=HORIZON, width=2)
        left = ends[np.argmin(ends[:, 0])]
        write(draw, (left[0] + 4, min(max(left[1] - 16, 20), picture.height - 16)), "horizon", HORIZON)


def horizon(key2camera: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """Where the horizon of the ground crosses the borders of an image of `size` = (height, width): pixels (2, 2), None if it does not.

    `matrix` (3, 3) goes from camera coordinates to its pixels.
    """
    a, b, c = horizon_line(matrix, invert(key2camera))
    height, width = size
    found = [(u, -(a * u + c) / b) for u in (0.0, float(width)) if abs(b) > 1e-12]
    found += [(-(b * v + c) / a, v) for v in (0.0, float(height)) if abs(a) > 1e-12]
    inside = np.array([p for p in found if -1e-6 <= p[0] <= width + 1e-6 and -1e-6 <= p[1] <= height + 1e-6]).reshape(-1, 2)
    if len(inside) < 2:
        return None
    far = np.linalg.norm(inside - inside[0], axis=1)
    return np.stack([inside[0], inside[far.argmax()]]) if far.max() > 1e-6 else None


def draw_fields_of_view(panel: Image.Image, sample: Sample, to_panel: Project, reach: float = 40.0) -> None:
    """Draw rings, axes and the field of view of each camera into a view from above.

    Args:
        panel: the view, drawn into.
        to_panel: ego points (P, 2) to pixels (P, 2) of the panel.
        reach: how far the fields of view are drawn, in metres.
    """
    draw = ImageDraw.Draw(panel, "RGBA")
    draw_rings(draw, to_panel)
    for name, direction, colour in AXES:
        start, end, at = to_panel(np.array([(0.0, 0.0), direction, direction]) * [[RINGS[-1]], [RINGS[-1]], [RINGS[-1] - 8]])
        draw.line([tuple(start), tuple(end)], fill=(*colour, 150), width=1)
        write(draw, at + (4, 2), name, colour)
    for number, camera in enumerate(sample.cameras):
        colour = VIEW_COLOURS[number % len(VIEW_COLOURS)]
        origin, directions = field_of_view(sample, camera)
        at = to_panel(origin[None])[0]
        draw.ellipse((at[0] - 4, at[1] - 4, at[0] + 4, at[1] + 4), fill=colour)
        if len(directions):
            wedge = to_panel(np.concatenate([origin[None], origin + reach * directions]))
            draw.polygon([tuple(p) for p in wedge], fill=(*colour, 45), outline=(*colour, 200))
            at = to_panel(origin[None] + (14 + 5 * (number % 3)) * directions[len(directions) // 2])[0]
        write(draw, (at[0] - 3 * len(camera.channel), at[1] - 6), camera.channel, colour)


def draw_rings(draw: ImageDraw.ImageDraw, to_panel: Project, radii: Sequence[float] = RINGS, opacity: int = 90) -> None:
    """Draw rings of `radii` metres around the ego origin into a view from above, with their names; other arguments as above."""
    for radius in radii:
        draw.line([tuple(p) for p in to_panel(_ring(radius)[:, :2])], fill=(*GRID, opacity), width=1)
        write(draw, to_panel(np.array([[0.0, -radius]]))[0] + (-30, 2), f"{radius:g} m", GRID)


def field_of_view(sample: Sample, camera: CameraFrame) -> tuple[np.ndarray, np.ndarray]:
    """Where a camera stands (2,) and the directions (D, 2) of length 1 along the middle row of its image, left to right, from above.

    In the ego frame of the keyframe. Without directions for a camera that points straight up or down.
    """
    camera2key = invert(sample.ego2global) @ camera.ego2global @ camera.cam2ego
    height, width = camera.size
    row = np.stack([np.linspace(0, width, 33), np.full(33, height / 2), np.ones(33)], -1)
    rays = row @ np.linalg.inv(camera.intrinsics).T @ camera2key[:3, :3].T
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    level = np.linalg.norm(rays[:, :2], axis=1)
    flat = rays[:, :2] / np.maximum(level, 1e-9)[:, None]
    return camera2key[:2, 3], flat if level.min() > 0.05 else np.zeros((0, 2))


# ---- parts ------------------------------------------------------------------------------------------------------------------


def _ring(radius: float, count: int = 180) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count + 1)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(count + 1)], -1)


def draw_segment(draw: ImageDraw.ImageDraw, start: np.ndarray, end: np.ndarray, matrix: np.ndarray, colour: Paint, width: int) -> None:
    """Draw a segment between two points in camera coordinates, as far as it lies in front of the camera."""
    if ends := clip_near(start, end):
        pixels = [p[:2] / p[2] for p in (matrix @ ends[0], matrix @ ends[1])]
        if np.abs(pixels).max() < 1e5:
            draw.line([tuple(p) for p in pixels], fill=colour, width=width)


def clip_near(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The part of a segment, in camera coordinates, in front of the camera, or None."""
    if start[2] < NEAR and end[2] < NEAR:
        return None
    if start[2] < NEAR:
        start = start + (end - start) * (NEAR - start[2]) / (end[2] - start[2])
    elif end[2] < NEAR:
        end = end + (start - end) * (NEAR - end[2]) / (start[2] - end[2])
    return start, end


def _label_visible(draw: ImageDraw.ImageDraw, size: tuple[int, int], projected: np.ndarray, text: str, colour: Colour) -> None:
    """Write `text` at one of the projected points (P, 3) that the image shows, a quarter of the way along those, so that labels spread."""
    projected = projected[projected[:, 2] > 0.5]
    pixels = projected[:, :2] / projected[:, 2:]
    pixels = pixels[((pixels > 8) & (pixels < np.array(size) - (40, 16))).all(1)]
    if len(pixels):
        write(draw, pixels[len(pixels) // 4] + (3, 1), text, colour)


def write(draw: ImageDraw.ImageDraw, at: Sequence[float] | np.ndarray, text: str, colour: Colour) -> None:
    """Text that is readable on any picture."""
    draw.text((float(at[0]), float(at[1])), text, fill=colour, font=ImageFont.load_default(12), stroke_width=2, stroke_fill=(0, 0, 0))
