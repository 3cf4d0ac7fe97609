"""Boxes and points: as lines in an image, and from above."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from frustum.geometry import VoxelGrid, box_corners, box_poses, transform_points
from frustum.types.layers import BoxLayer, Calibration, Colour, Legend, PointLayer, VoxelLayer
from frustum.viewer.cameras import resized
from frustum.viewer.ground import Paint, draw_segment
from frustum.viewer.voxels import PLAIN, top_view

_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
_TRUTH = (30, 36, 48)  # true boxes under predicted ones, from above
_MOVES, _FASTEST = 0.5, 20.0  # m/s: slower boxes get no arrow, faster ones none that is longer
_NUMBERED = 20  # so many scores are written at most, the highest ones
_ROOM = (18, 11)  # pixels of a written score, across and down: a lower one that would lie over it is left out
_RING = (214, 219, 228)  # every 10 m
_FAR = 50.0  # metres: the end of the depth colours
_SHARP = 2  # pictures are drawn so many times larger than they are shown: smooth lines


# ---- in an image ------------------------------------------------------------------------------------------------------------


def line_colour(colour: Colour) -> Colour:
    """A colour for lines over a photograph: lighter, for lines are thin and images dark."""
    red, green, blue = (int(90 + 0.65 * v) for v in colour)
    return red, green, blue


def draw_box_lines(draw: ImageDraw.ImageDraw, corners: np.ndarray, matrix: np.ndarray, colours: Sequence[Paint], width: int = 2) -> None:
    """The edges of boxes, far ones first, their front crossed.

    Args:
        corners: (M, 8, 3) in camera coordinates, in the order of `geometry.box_corners`.
        matrix: (3, 3) camera coordinates to pixels.
        colours: of each box.
    """
    for m in np.argsort(-corners[:, :, 2].mean(1)):
        front = corners[m, [0, 3, 7, 4]]  # the face at +length, crossed to show the heading
        segments = [(corners[m, a], corners[m, b]) for a, b in _EDGES] + [(front[0], front[2]), (front[1], front[3])]
        for start, end in segments:
            draw_segment(draw, start, end, matrix, colours[m], width)


def boxes_in_image(image: np.ndarray, camera: Calibration, predicted: BoxLayer | None, true: BoxLayer | None) -> np.ndarray:
    """An image, 800 pixels wide, with true boxes in thin white lines and predicted ones in class colours, fainter at low scores."""
    picture = Image.fromarray(resized(image, 800))
    scale = picture.width / image.shape[1]
    draw = ImageDraw.Draw(picture, "RGBA")
    for layer, is_true in ((true, True), (predicted, False)):
        if layer is None or not len(layer.boxes):
            continue
        boxes = np.asarray(layer.boxes, np.float64)
        corners = transform_points(camera.ego2camera, box_corners(box_poses(boxes), boxes[:, 3:6]))
        colours = [(255, 255, 255, 200)] * len(boxes) if is_true else [(*line_colour(c), round(255 * a)) for c, a in _paint(layer)]
        draw_box_lines(
            draw, corners, np.diag([scale, scale, 1.0]) @ camera.intrinsics, colours, 1 if is_true and predicted is not None else 2
        )
    return np.asarray(picture)


# ---- from above -------------------------------------------------------------------------------------------------------------


def to_top(points: np.ndarray, grid: VoxelGrid, scale: float) -> np.ndarray:
    """Pixels (P, 2) = column, row in the view from above of ego points (P, 2), `scale` pixels per cell: forward up, left at the left."""
    column = (grid.upper[1] - points[:, 1]) / grid.cell[1] * scale
    row = (grid.upper[0] - points[:, 0]) / grid.cell[0] * scale
    return np.stack([column, row], -1)


def draw_top_box(
    draw: ImageDraw.ImageDraw, row: np.ndarray, grid: VoxelGrid, scale: float, colour: Paint, width: int = 2, fill: Paint | None = None
) -> None:
    """The outline of a box (9,) from above, and a line that shows its heading."""
    along = np.array([np.cos(row[6]), np.sin(row[6])]) * row[3] / 2
    across = np.array([-np.sin(row[6]), np.cos(row[6])]) * row[4] / 2
    centre = row[:2]
    outline = to_top(centre + np.stack([along + across, along - across, -along - across, -along + across]), grid, scale)
    draw.polygon([tuple(p) for p in outline], outline=colour, width=width, fill=fill)
    heading = to_top(np.stack([centre, centre + 1.4 * along]), grid, scale)
    draw.line([tuple(p) for p in heading], fill=colour, width=width)


def draw_velocity(draw: ImageDraw.ImageDraw, row: np.ndarray, grid: VoxelGrid, scale: float, colour: Paint, width: int = 2) -> None:
    """An arrow from the centre of a box (9,), seen from above, to where it is one second later; none if it stands or is not known."""
    speed = np.hypot(*row[7:9])
    if not speed >= _MOVES:
        return
    along = row[7:9] / speed
    tip, head = row[:2] + row[7:9] * min(1.0, _FASTEST / speed), 1.2
    across = np.array([-along[1], along[0]])
    ends = to_top(np.stack([row[:2], tip, tip - head * (along + 0.5 * across), tip - head * (along - 0.5 * across)]), grid, scale)
    start, end, left, right = (tuple(p) for p in ends)
    draw.line([start, end], fill=colour, width=width)
    draw.polygon([end, left, right], fill=colour)


def depth_colours(depth: np.ndarray) -> np.ndarray:
    """RGB uint8 (*, 3) of depths (*): red near, blue far, logarithmic, because near points matter more."""
    return turbo(1 - np.clip(np.log(np.maximum(depth, 2.0) / 2) / np.log(_FAR / 2), 0, 1))


def turbo(value: np.ndarray) -> np.ndarray:
    """RGB uint8 (*, 3) of numbers 0..1 (*): from blue over green to red."""
    from matplotlib import colormaps

    return (colormaps["turbo"](value)[..., :3] * 255).astype(np.uint8)


def draw_points(picture: Image.Image, pixels: np.ndarray, colours: np.ndarray, radius: int) -> None:
    """Points (P, 2) = column, row as squares of 2 * radius + 1 pixels; later ones lie over earlier ones."""
    canvas = np.array(picture)
    column, row = np.floor(pixels).astype(np.int64).T
    for dy, dx in itertools.product(range(-radius, radius + 1), repeat=2):
        r, c = row + dy, column + dx
        inside = (r >= 0) & (c >= 0) & (r < canvas.shape[0]) & (c < canvas.shape[1])
        canvas[r[inside], c[inside]] = colours[inside]
    picture.paste(Image.fromarray(canvas))


def reach_of(*points: np.ndarray) -> float:
    """How far a view from above reaches, in metres, so that these points (P, 2 or more) are in it: a multiple of 10 from 20 to 60."""
    known = [np.abs(some[:, :2]).max() for some in points if len(some)]
    return float(np.clip(10 * np.ceil(max(known, default=50.0) / 10), 20, 60))


def boxes_above(layer: BoxLayer, reach: float, true: BoxLayer | None = None, side: int = 600) -> np.ndarray:
    """(side, side, 3): boxes in class colours with their heading, fainter at low scores; the true ones under them as dark outlines.

    What moves has an arrow as long as its way in one second; the highest scores are written beside their boxes, in percent,
    where there is room.
    """
    picture, grid, scale = _blank(reach, side)
    draw = ImageDraw.Draw(picture, "RGBA")
    for row in () if true is None else true.boxes:
        draw_top_box(draw, row, grid, scale, (*_TRUTH, 150), width=_SHARP)
    paint, order = _paint(layer), np.arange(len(layer.boxes)) if layer.scores is None else np.argsort(layer.scores, kind="stable")
    for m in order:
        colour, alpha = paint[m]
        draw_top_box(draw, layer.boxes[m], grid, scale, (*colour, round(255 * alpha)), 2 * _SHARP, (*colour, round(80 * alpha)))
        draw_velocity(draw, layer.boxes[m], grid, scale, (*_TRUTH, round(200 * alpha)), _SHARP)
    if layer.scores is not None:
        font, taken = ImageFont.load_default(11 * _SHARP), np.zeros((0, 2))
        for m in order[: -_NUMBERED - 1 : -1]:
            place = to_top(layer.boxes[m, :2][None], grid, scale)[0] + 6 * _SHARP
            if (np.abs(taken - place) < np.array(_ROOM) * _SHARP).all(1).any():
                continue
            taken = np.concatenate([taken, place[None]])
            draw.text(tuple(place), f"{100 * layer.scores[m]:.0f}", (*_TRUTH, 255), font, stroke_width=2, stroke_fill=(255, 255, 255, 200))
    return _smooth(picture)


def points_above(layer: PointLayer, reach: float, side: int = 600) -> np.ndarray:
    """(side, side, 3): points in their colours, high ones over low ones."""
    picture, grid, scale = _blank(reach, side)
    order = np.argsort(layer.points[:, 2], kind="stable")
    draw_points(picture, to_top(layer.points[order, :2], grid, scale), layer.colours[order], radius=1)
    return _smooth(picture)


def _paint(layer: BoxLayer) -> list[tuple[Colour, float]]:
    """Colour and opacity of each box: the root of its score, so that those of an unsure network can be seen; a score of NaN is as 1."""
    scores = np.ones(len(layer.boxes)) if layer.scores is None else np.sqrt(np.clip(np.nan_to_num(layer.scores, nan=1.0), 0, 1))
    colours = layer.legend.colours
    return [(colours[c] if 0 <= c < len(colours) else _TRUTH, float(s)) for c, s in zip(layer.classes, scores, strict=True)]


def _blank(reach: float, side: int) -> tuple[Image.Image, VoxelGrid, float]:
    """The ego vehicle on an empty plane, _SHARP times as large as `side`, the grid of its metres, and pixels per metre."""
    grid = VoxelGrid(lower=(-reach, -reach, 0.0), upper=(reach, reach, 1.0), cell=(1.0, 1.0, 1.0))
    scale = max(1, side // round(2 * reach)) * _SHARP
    empty = VoxelLayer(np.zeros(grid.shape, np.uint8), Legend(("free",), (PLAIN,)), 0, grid)
    picture = Image.fromarray(top_view(empty, scale))
    draw, middle = ImageDraw.Draw(picture), picture.width / 2
    for radius in np.arange(10, reach, 10) * scale:
        draw.ellipse((middle - radius, middle - radius, middle + radius, middle + radius), outline=_RING, width=_SHARP)
    return picture, grid, scale


def _smooth(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((picture.width // _SHARP, picture.height // _SHARP), Image.Resampling.BOX))
