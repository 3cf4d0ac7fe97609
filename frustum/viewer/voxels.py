"""Pictures of occupancy: a shaded 3D view and the view from above. Pure numpy and numba; no graphics card, window or network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from frustum.errors import ConfigError, ShapeError, nearest_names
from frustum.geometry import VoxelGrid
from frustum.types.layers import Colour, VoxelLayer
from frustum.viewer.ego_shape import ego_shape
from frustum.viewer.voxel_kernels import render_rows

PLAIN = (238, 241, 246)
"""RGB of what is free, seen from above."""


class View(NamedTuple):
    """A camera: eye and target in shares of half the grid's larger side, from the grid's centre at z = 0.

    Without a field of view it is fitted, so that the whole grid fills the picture whatever its aspect.
    """

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    fov_deg: float | None = None  # vertical


VIEWS: dict[str, View] = {
    "behind": View((-2.3, -1.0, 1.75), (0.0, 0.0, 0.0)),
    "front": View((2.3, 1.0, 1.75), (0.0, 0.0, 0.0)),
    "corner": View((-1.8, -1.8, 1.9), (0.0, 0.0, 0.0)),
    "street": View((-0.42, -0.02, 0.28), (0.35, 0.0, -0.04), 45),
}


def _linear(srgb: np.ndarray) -> np.ndarray:
    share = np.asarray(srgb, np.float64) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _encode(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, None)
    light = np.where(light > 0.8, 0.8 + 0.2 * np.tanh((light - 0.8) / 0.2), light)  # roll off highlights
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (srgb * 255 + 0.5).astype(np.uint8)


def palette(colours: Sequence[Colour]) -> np.ndarray:
    """(256, 3) uint8; ids beyond the list are dark red, so that they are seen."""
    table = np.full((256, 3), (120, 0, 30), np.uint8)
    table[: len(colours)] = np.asarray(colours, np.uint8)
    return table


def _visible(layer: VoxelLayer) -> np.ndarray:
    """Labels (X, Y, Z) uint8 with everything outside the mask made free."""
    volume = np.asarray(layer.labels)
    if volume.ndim != 3 or volume.size == 0:
        raise ShapeError(f"semantics must be (X, Y, Z), got {volume.shape}.")
    layer.grid.require_shape(volume.shape, "the volume to draw")
    if layer.mask is None:
        return np.ascontiguousarray(volume, np.uint8)
    observed = np.asarray(layer.mask)
    if observed.shape != volume.shape:
        raise ShapeError(f"the mask has shape {observed.shape}, the semantics {volume.shape}: they must be equal.")
    return np.where(observed.astype(bool), volume, layer.free).astype(np.uint8)


def ground_height(semantics: np.ndarray, grid: VoxelGrid, flat: Sequence[int]) -> float:
    """Height in metres of the ground under the ego vehicle: of the columns with flat voxels within 4 m; 0 if there are none."""
    centre = [int((0 - low) / size) for low, size in zip(grid.lower[:2], grid.cell[:2], strict=True)]
    reach = [max(int(4 / size), 1) for size in grid.cell[:2]]
    near = semantics[tuple(slice(max(c - r, 0), c + r) for c, r in zip(centre, reach, strict=True))]
    is_flat = np.isin(near, list(flat))
    tops = is_flat.shape[2] - is_flat[:, :, ::-1].argmax(2)[is_flat.any(2)]
    return 0.0 if tops.size == 0 else grid.lower[2] + float(np.median(tops)) * grid.cell[2]


def _camera(
    view: View, centre: np.ndarray, half: float, lower: np.ndarray, upper: np.ndarray, aspect: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Eye, and the directions to the middle, and from there to the right and the lower edge, of the picture."""
    eye, target = centre + half * np.array(view.eye), centre + half * np.array(view.target)
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, np.array([0.0, 0.0, 1.0]))
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    if view.fov_deg is not None:
        tangent = np.tan(np.deg2rad(view.fov_deg) / 2)
        return eye, forward, right * tangent * aspect, down * tangent
    # Shift the lens to the middle of the grid's outline, and zoom until it fits.
    heights = (lower[2], min(upper[2], lower[2] + 0.1 * half))
    corners = np.array([(x, y, z) for x in (lower[0], upper[0]) for y in (lower[1], upper[1]) for z in heights]) - eye
    u, v = corners @ right / (corners @ forward), corners @ down / (corners @ forward)
    tangent = 0.53 * max(np.ptp(v), np.ptp(u) / aspect)
    forward = forward + (u.min() + u.max()) / 2 * right + (v.min() + v.max()) / 2 * down
    return eye, forward, right * tangent * aspect, down * tangent


def render_voxels(
    layer: VoxelLayer, size: tuple[int, int] = (480, 640), view: str = "behind", *, ego: bool = True, supersample: int = 2
) -> np.ndarray:
    """A shaded perspective picture of labelled voxels, with sun, soft shadows and ambient occlusion.

    Args:
        layer: what is drawn: the voxels inside its mask, or all of them without one.
        size: (height, width) of the picture.
        view: a name in VIEWS: behind, front, corner, street.
        ego: draw the ego vehicle, on the layer's flat classes.
        supersample: samples per pixel along each side.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ConfigError: no such view, or labels that do not fit the grid. ShapeError: a mask of another shape.
    """
    if view not in VIEWS:
        raise ConfigError(f"there is no view {view!r}; {nearest_names(view, VIEWS)}")
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
    eye, forward, right, down = _camera(VIEWS[view], centre, half, lower, upper, width / height)

    ground = ground_height(volume, grid, layer.flat)
    planes, pieces, paint = ego_shape(ground if ego else None)
    plate_rgb, backdrop = _linear(np.array([206, 212, 223])), _linear(np.array([[244, 246, 250], [229, 233, 240]]))
    plate = np.array([lower[2] - 0.02, half * 1.02, half * 0.22, *plate_rgb, centre[0], centre[1]])
    towards_sun = np.array([-0.42, -0.66, 1.0])
    spread = 0.03 * np.array([[1, 0.4, 0], [-0.4, 1, 0], [0.4, -1, 0], [-1, -0.4, 0]])
    suns = towards_sun + spread
    suns /= np.linalg.norm(suns, axis=1, keepdims=True)
    image = np.zeros((height, width, 3), np.float32)

    def draw(first: int, last: int) -> None:
        render_rows(
            first, last, supersample, volume, gap, openness, _linear(palette(layer.legend.colours)), lower, cell, eye, right, down, forward,
            suns, np.array([0.80, 0.75, 0.66]), np.array([0.50, 0.54, 0.60]),
            planes, pieces, _linear(paint), np.array([1.3, 0.0]), plate, backdrop, image,
        )  # fmt: skip

    threads = min(os.cpu_count() or 1, 8)
    bounds = np.linspace(0, height, threads * 6 + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(draw, bounds[:-1], bounds[1:]))
    return _encode(image)


def top_view(layer: VoxelLayer, scale: int = 3, *, ego: bool = True) -> np.ndarray:
    """The highest voxel of each column seen from above, forward up and left at the left, shaded by height.

    Columns without any voxel inside the mask are hatched. Other arguments and errors as in `render_voxels`.

    Returns:
        (X * scale, Y * scale, 3) uint8 RGB.
    """
    volume, grid = _visible(layer), layer.grid
    size_x, size_y, size_z = volume.shape
    occupied = volume != layer.free
    has_any = occupied.any(2)
    top = np.where(has_any, size_z - 1 - occupied[:, :, ::-1].argmax(2), -1)
    label = np.take_along_axis(volume, np.maximum(top, 0)[..., None], 2)[..., 0]

    height = (top + 1) * grid.cell[2]
    slope_x, slope_y = (np.asarray(g) for g in np.gradient(np.pad(height, 1, mode="edge")))
    relief = 1 - 0.10 * np.clip(slope_x[1:-1, 1:-1] - slope_y[1:-1, 1:-1], -1.6, 1.6)  # lit from front left
    light = relief * (0.90 + 0.30 * np.clip(height / max(size_z * grid.cell[2], 1e-6), 0, 1))
    shade = np.ones_like(light)
    for n in range(1, 9):  # a voxel n cells towards the light and n cells' height above throws its shadow here
        towards = np.zeros_like(height)
        towards[:-n, :-n] = height[n:, n:]
        shade = np.where(towards > height + 0.8 * n * grid.cell[0] + 0.3, 0.62, shade)
    shade = ndimage.gaussian_filter(shade, 0.7, mode="nearest")
    colour: np.ndarray = _linear(palette(layer.legend.colours))[label] * (light * shade)[..., None]
    observed = np.ones((size_x, size_y), bool) if layer.mask is None else np.asarray(layer.mask).astype(bool).any(2)
    colour = np.where(has_any[..., None], colour, _linear(np.array(PLAIN)) * np.minimum(shade, 1)[..., None])

    # Columns run to the left (+y) and rows forward (+x) from the lower right corner of the picture.
    picture = np.kron(colour[::-1, ::-1], np.ones((scale, scale, 1)))
    hidden = np.kron((~has_any & ~observed)[::-1, ::-1], np.ones((scale, scale), bool))
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
    glass = (np.abs(x - 1.9) < 0.42) & (reach_y < 0.72)
    picture[glass] = (0.03, 0.04, 0.06)
