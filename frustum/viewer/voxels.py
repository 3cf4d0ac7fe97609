"""Pictures of occupancy: a shaded 3D view and the view from above. Pure numpy and numba; no graphics card, window or network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage

from frustum.errors import ShapeError
from frustum.geometry import VoxelGrid
from frustum.types.layers import Colour, VoxelLayer
from frustum.viewer.ego_shape import ego_shape
from frustum.viewer.voxel_kernels import render_rows

PLAIN = (238, 241, 246)
"""RGB of free columns from above."""


_EYE = np.array([-2.3, -1.0, 1.75])
"""Where the 3D view is taken from, in shares of half the grid's larger side from the grid's centre at z = 0: from behind, on the right."""
_SUPERSAMPLE = 2  # samples per pixel along each side


def _linear(srgb: np.ndarray) -> np.ndarray:
    share = np.asarray(srgb, np.float64) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _encode(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, None)
    light = np.where(light > 0.8, 0.8 + 0.2 * np.tanh((light - 0.8) / 0.2), light)  # roll off highlights
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (srgb * 255 + 0.5).astype(np.uint8)


def palette(colours: Sequence[Colour]) -> np.ndarray:
    """(256, 3) uint8; ids beyond the list are dark red, so that they stand out."""
    table = np.full((256, 3), (120, 0, 30), np.uint8)
    table[: len(colours)] = np.asarray(colours, np.uint8)
    return table


def _visible(layer: VoxelLayer) -> np.ndarray:
    """Labels (X, Y, Z) uint8 with everything outside the mask made free."""
    volume = np.asarray(layer.labels)
    if volume.ndim != 3 or volume.size == 0:
        raise ShapeError(f"semantics must be (X, Y, Z), got {volume.shape}.")
    layer.grid.require_shape(volume.shape, "the volume to draw")
    observed = np.ones(volume.shape, bool) if layer.mask is None else np.asarray(layer.mask).astype(bool)
    if observed.shape != volume.shape:
        raise ShapeError(f"the mask has shape {observed.shape}, the semantics {volume.shape}: they must be equal.")
    return np.where(observed, volume, layer.free).astype(np.uint8)


def ground_height(semantics: np.ndarray, grid: VoxelGrid, flat: Sequence[int]) -> float:
    """Height in metres of the ground under the ego vehicle: of the columns with flat voxels within 4 m; 0 if there are none."""
    lower, cell = np.array(grid.lower[:2]), np.array(grid.cell[:2])
    centre, reach = (-lower / cell).astype(int), np.maximum(4 / cell, 1).astype(int)
    (x0, y0), (x1, y1) = np.maximum(centre - reach, 0), centre + reach
    is_flat = np.isin(semantics[x0:x1, y0:y1], list(flat))
    tops = is_flat.shape[2] - is_flat[:, :, ::-1].argmax(2)[is_flat.any(2)]
    return 0.0 if tops.size == 0 else grid.lower[2] + float(np.median(tops)) * grid.cell[2]


def _camera(centre: np.ndarray, half: float, lower: np.ndarray, upper: np.ndarray, aspect: float) -> tuple[np.ndarray, ...]:
    """Eye, and the directions to the middle, and from there to the right and the lower edge, of the picture: the grid fills it."""
    eye = centre + half * _EYE
    forward = (centre - eye) / np.linalg.norm(centre - eye)
    right = np.cross(forward, np.array([0.0, 0.0, 1.0]))
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    # Shift the lens to the middle of the grid's outline, and zoom until it fits.
    heights = (lower[2], min(upper[2], lower[2] + 0.1 * half))
    corners = np.array([(x, y, z) for x in (lower[0], upper[0]) for y in (lower[1], upper[1]) for z in heights]) - eye
    u, v = corners @ right / (corners @ forward), corners @ down / (corners @ forward)
    tangent = 0.53 * max(np.ptp(v), np.ptp(u) / aspect)
    forward = forward + (u.min() + u.max()) / 2 * right + (v.min() + v.max()) / 2 * down
    return eye, forward, right * tangent * aspect, down * tangent


def render_voxels(layer: VoxelLayer, size: tuple[int, int] = (480, 640), *, ego: bool = True) -> np.ndarray:
    """A shaded perspective picture of labelled voxels, with sun, soft shadows and ambient occlusion. Forward is up.

    Args:
        layer: what is drawn: the voxels inside its mask, or all of them without one.
        size: (height, width) of the picture.
        ego: draw the ego vehicle, on the layer's flat classes.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ConfigError: labels that do not fit the grid. ShapeError: labels that are not (X, Y, Z), or a mask of another shape.
    """
    volume, grid = _visible(layer), layer.grid
    occupied = volume != layer.free
    # One byte per cell; beyond 100 cells a leap gains nothing more.
    gap = np.full(volume.shape, 100, np.uint8)
    if occupied.any():
        gap = np.minimum(ndimage.distance_transform_cdt(~occupied, "chessboard"), 100).astype(np.uint8)
    crowd = ndimage.uniform_filter(occupied.astype(np.float32), 7, mode="constant")
    openness = (1.06 - 0.75 * np.clip(crowd, 0, 0.75)).astype(np.float32)

    lower, upper, cell = (np.array(v, np.float64) for v in (grid.lower, grid.upper, grid.cell))
    half = (upper[:2] - lower[:2]).max() / 2
    centre = np.array([*(lower[:2] + upper[:2]) / 2, 0.0])
    height, width = size
    eye, forward, right, down = _camera(centre, half, lower, upper, width / height)

    planes, pieces, paint = ego_shape(ground_height(volume, grid, layer.flat) if ego else None)
    plate_rgb, backdrop = _linear(np.array([206, 212, 223])), _linear(np.array([[244, 246, 250], [229, 233, 240]]))
    plate = np.array([lower[2] - 0.02, half * 1.02, half * 0.22, *plate_rgb, centre[0], centre[1]])
    suns = np.array([-0.42, -0.66, 1.0]) + 0.03 * np.array([[1, 0.4, 0], [-0.4, 1, 0], [0.4, -1, 0], [-1, -0.4, 0]])
    suns /= np.linalg.norm(suns, axis=1, keepdims=True)
    image = np.zeros((height, width, 3), np.float32)

    def draw(first: int, last: int) -> None:
        render_rows(
            first, last, _SUPERSAMPLE, volume, gap, openness, _linear(palette(layer.legend.colours)), lower, cell,
            eye, right, down, forward, suns, np.array([0.80, 0.75, 0.66]), np.array([0.50, 0.54, 0.60]),
            planes, pieces, _linear(paint), np.array([1.3, 0.0]), plate, backdrop, image,
        )  # fmt: skip

    threads = min(os.cpu_count() or 1, 8)
    bounds = np.linspace(0, height, threads * 6 + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(draw, bounds[:-1], bounds[1:]))
    return _encode(image)


def top_view(layer: VoxelLayer, scale: int = 3, *, ego: bool = True) -> np.ndarray:
    """The highest voxel of each column from above, forward up and left at the left, shaded by height.

    Columns without any voxel inside the mask are hatched. Other arguments and errors as in `render_voxels`.

    Returns:
        (X * scale, Y * scale, 3) uint8 RGB.
    """
    volume, grid = _visible(layer), layer.grid
    size_z = volume.shape[2]
    occupied = volume != layer.free
    has_any = occupied.any(2)
    top = np.where(has_any, size_z - 1 - occupied[:, :, ::-1].argmax(2), -1)
    label = np.take_along_axis(volume, np.maximum(top, 0)[..., None], 2)[..., 0]

    height = (top + 1) * grid.cell[2]
    slope_x, slope_y = np.array(np.gradient(np.pad(height, 1, mode="edge")))[:, 1:-1, 1:-1]
    relief = 1 - 0.10 * np.clip(slope_x - slope_y, -1.6, 1.6)  # lit from front left
    light = relief * (0.90 + 0.30 * np.clip(height / max(size_z * grid.cell[2], 1e-6), 0, 1))
    shade = np.ones_like(light)
    for n in range(1, 9):  # a voxel n cells towards the light and n cells' height above throws its shadow here
        towards = np.zeros_like(height)
        towards[:-n, :-n] = height[n:, n:]
        shade = np.where(towards > height + 0.8 * n * grid.cell[0] + 0.3, 0.62, shade)
    shade = ndimage.gaussian_filter(shade, 0.7, mode="nearest")
    colour: np.ndarray = _linear(palette(layer.legend.colours))[label] * (light * shade)[..., None]
    observed = layer.mask is None or np.asarray(layer.mask).astype(bool).any(2)
    colour = np.where(has_any[..., None], colour, _linear(np.array(PLAIN)) * np.minimum(shade, 1)[..., None])

    # Columns run to the left (+y) and rows forward (+x) from the lower right corner of the picture.
    picture, hidden = (a[::-1, ::-1].repeat(scale, 0).repeat(scale, 1) for a in (colour, ~(has_any | observed)))
    rows, columns = np.indices(hidden.shape)
    stripes = (rows + columns) // max(scale, 2) % 3 == 0
    picture[hidden] = _linear(np.array([226, 230, 237]))
    picture[hidden & stripes] = _linear(np.array([214, 219, 228]))
    if ego:
        _draw_ego(picture, grid, scale)
    return _encode(picture)


def _draw_ego(picture: np.ndarray, grid: VoxelGrid, scale: int) -> None:
    """A white car with a dark outline where the ego vehicle stands, pointing up."""
    rows, columns = np.indices(picture.shape[:2]) + 0.5
    x = grid.upper[0] - rows / scale * grid.cell[0]
    y = grid.upper[1] - columns / scale * grid.cell[1]
    reach_x, reach_y = np.abs(x - 1.35), np.abs(y)
    outline = np.hypot(np.maximum(reach_x - 1.9, 0), np.maximum(reach_y - 0.5, 0))
    picture[outline < 0.95] = (0.015, 0.02, 0.03)
    picture[outline < 0.62] = (0.95, 0.95, 0.97)
    picture[(np.abs(x - 1.9) < 0.42) & (reach_y < 0.72)] = (0.03, 0.04, 0.06)
