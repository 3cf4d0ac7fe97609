"""Pictures that show whether a data set fits together: LiDAR or the ground, boxes and voxels over the images and from above."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from frustum.data.augment import BevTransform, anchor_of, draw
from frustum.data.labels.depth import lidar2camera
from frustum.data.labels.view_points import CLASSES, ImagePoints
from frustum.data.pixels import ImageTransform
from frustum.data.sample import CameraFrame, LidarFrame, Sample
from frustum.data.source import AugmentConfig
from frustum.errors import DataError
from frustum.files import atomic_path
from frustum.geometry import VoxelGrid, box_corners, invert, transform_points
from frustum.ops.raycast import raycast
from frustum.types.classes import IGNORE, colour_of
from frustum.types.layers import VoxelLayer
from frustum.viewer.boxes import depth_colours, draw_box_lines, draw_points, draw_top_box, line_colour, to_top, turbo
from frustum.viewer.cameras import camera_rows
from frustum.viewer.ground import draw_fields_of_view, draw_ground
from frustum.viewer.ground_view import ground_picture
from frustum.viewer.voxels import top_view

_NEAR = 25.0  # metres, within which labelled points are drawn larger


def draw_check(
    sample: Sample,
    out_dir: Path | str,
    *,
    augment: AugmentConfig | None = None,
    image_size: tuple[int, int] = (256, 704),
    width: int = 800,
    seed: int = 0,
    blank: tuple[int, int, int] = (0, 0, 0),
    labels: Sequence[ImagePoints] | None = None,
) -> list[Path]:
    """Draw one keyframe as PNGs in `out_dir`.

    - `*_stitched.png`: the ground as all cameras see it together, from above;
    - `*_points.png`: every camera with LiDAR points coloured by depth (red near, blue far) and boxes, their front crossed;
    - `*_classes.png`: with `labels`, every camera with its 2D labels in class colours, a smaller square for a farther point;
    - `*_ground.png`: instead of it where there is no LiDAR: rings and axes on the ground z = 0, and the horizon;
    - `*_voxels.png`: every camera with the first occupied voxel of each pixel, in class colours, if there are labels;
    - `*_above.png`: labels and LiDAR (or, without it, the fields of view) from above, with boxes and their headings;
    - `*_augmented.png`: with `augment`, images of `image_size` and the view from above after augmentation.

    Args:
        sample: a keyframe, read with its boxes and labels.
        out_dir: created if needed.
        width: of one camera's picture, in pixels.
        seed: of the augmentation that is drawn.
        blank: RGB of what GridMask hides: the colour that is 0 after normalisation.
        labels: 2D labels of each image (`data.labels.views`).

    Returns:
        The files. A camera whose image cannot be read is left black and named so.

    Raises:
        DataError: the LiDAR file is damaged, or `out_dir` cannot be written.
    """
    grid = VoxelGrid.occ3d()
    points = sample.lidar.load() if sample.lidar is not None else None
    stem = sample.name
    views = [(c, ImageTransform.scaled(c.size, (round(c.size[0] * width / c.size[1]), width), width / c.size[1])) for c in sample.cameras]
    sheets = {"stitched": ground_picture(sample)}
    sheets["ground" if points is None else "points"] = _sheet(sample, [camera_picture(sample, c, t, points) for c, t in views])
    if labels is not None:
        sheets["classes"] = _sheet(sample, [class_picture(c, t, found) for (c, t), found in zip(views, labels, strict=True)])
    if (voxels := _voxels(sample, grid)) is not None:
        sheets["voxels"] = _sheet(sample, [voxel_picture(voxels, sample, c, t) for c, t in views])
    sheets["above"] = above_picture(sample, points, grid)
    if augment is not None:
        rng = np.random.default_rng([seed, zlib.crc32(sample.token.encode())])
        drawn = draw(augment, rng, [c.size for c in sample.cameras], image_size, [anchor_of(augment, c) for c in sample.cameras])
        views = list(zip(sample.cameras, drawn.images, strict=True))
        cameras = _sheet(sample, [camera_picture(sample, c, t, points, drawn.kept, blank) for c, t in views])
        sheets["augmented"] = _stack([cameras, above_picture(sample, points, grid, drawn.bev)])
    files = []
    for name, sheet in sheets.items():
        files.append(Path(out_dir) / f"{stem}_{name}.png")
        with atomic_path(files[-1]) as temporary:
            sheet.save(temporary, format="PNG")
    return files


def camera_picture(
    sample: Sample,
    camera: CameraFrame,
    transform: ImageTransform,
    points: np.ndarray | None,
    kept: np.ndarray | None = None,
    blank: tuple[int, int, int] = (0, 0, 0),
) -> Image.Image:
    """One image after `transform`, with LiDAR points (P, >=3), or the ground where there are none, and the sample's boxes.

    Where `kept` (H, W) is False, image and points are hidden by the colour `blank`.
    """
    picture = _open(camera, transform)
    matrix = transform.matrix() @ camera.intrinsics
    if points is not None and sample.lidar is not None:
        pixels, depth = project_points(points, sample.lidar, camera, matrix, transform.size)
        draw_points(picture, pixels, depth_colours(depth), radius=1 if len(pixels) < 8000 else 0)
    else:
        draw_ground(picture, sample, camera, transform)
    if kept is not None:
        picture = Image.composite(picture, Image.new("RGB", picture.size, blank), Image.fromarray(kept))
    if sample.boxes is not None:
        key2camera = invert(camera.ego2global @ camera.cam2ego) @ sample.ego2global
        corners = box_corners(key2camera @ sample.boxes.box2ego, sample.boxes.boxes[:, 3:6])  # (M, 8, 3)
        draw_box_lines(ImageDraw.Draw(picture), corners, matrix, [line_colour(colour_of(name)) for name in sample.boxes.names])
    return picture


def class_picture(camera: CameraFrame, transform: ImageTransform, labels: ImagePoints) -> Image.Image:
    """One image after `transform`, darkened, with its 2D labels in class colours; those without a class are white."""
    picture = _open(camera, transform).point(lambda value: value // 2)
    order = np.argsort(-labels.depth, kind="stable")
    pixels = np.column_stack([labels.pixels[order], np.ones(len(order))]) @ transform.matrix().T
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(CLASSES)] = [line_colour(colour_of(name)) for name in CLASSES]
    colours, near = palette[labels.classes[order]], labels.depth[order] < _NEAR
    draw_points(picture, pixels[~near, :2], colours[~near], radius=0)
    draw_points(picture, pixels[near, :2], colours[near], radius=1)
    return picture


def project_points(
    points: np.ndarray, lidar: LidarFrame, camera: CameraFrame, matrix: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (V, 2) and depths (V,) of the LiDAR points that fall into an image of `size` = (height, width), far ones first."""
    local = transform_points(lidar2camera(lidar, camera), points[:, :3].astype(np.float64))
    local = local[local[:, 2] > 0.5]
    pixels = local @ matrix.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    inside = ((pixels >= 0) & (pixels < (size[1], size[0]))).all(1)
    order = np.argsort(-local[inside, 2])
    return pixels[inside][order], local[inside, 2][order]


def voxel_picture(voxels: VoxelLayer, sample: Sample, camera: CameraFrame, transform: ImageTransform, opacity: float = 0.55) -> Image.Image:
    """One image with the first occupied voxel along each pixel's ray: its class colour, dark outlines between voxels."""
    picture = np.asarray(_open(camera, transform), np.float32)
    labels, coords = first_voxels(voxels, sample, camera, transform.matrix() @ camera.intrinsics, transform.size)
    palette = np.array([*voxels.legend.colours, (0, 0, 0)], np.float32)
    colour = palette[np.minimum(labels, len(palette) - 1)]
    outline = np.zeros(labels.shape, bool)
    outline[:, 1:] |= (coords[:, 1:] != coords[:, :-1]).any(-1)
    outline[1:] |= (coords[1:] != coords[:-1]).any(-1)
    colour = np.where(outline[..., None], colour * 0.6, colour)
    mixed = np.where((labels == voxels.free)[..., None], picture, (1 - opacity) * picture + opacity * colour)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def first_voxels(
    voxels: VoxelLayer, sample: Sample, camera: CameraFrame, matrix: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The first occupied voxel of each pixel: labels (H, W) uint8, free where there is none, and voxel indices (H, W, 3)."""
    camera2key = invert(sample.ego2global) @ camera.ego2global @ camera.cam2ego
    grid, free = voxels.grid, voxels.free
    lower, cell = np.array(grid.lower), np.array(grid.cell)
    volume = voxels.labels.astype(np.uint8)
    at = np.floor((camera2key[:3, 3] - lower) / cell).astype(int)
    if ((at >= 0) & (at < np.array(grid.shape))).all():
        volume[tuple(at)] = free  # the camera's own housing must not fill its view
    rows, columns = np.indices(size)
    rays = np.stack([columns + 0.5, rows + 0.5, np.ones(size)], -1).reshape(-1, 3) @ np.linalg.inv(matrix).T
    ends = camera2key[:3, 3] + rays @ camera2key[:3, :3].T
    hits = raycast(volume[None], ((camera2key[:3, 3] - lower) / cell)[None], (ends - lower) / cell, free=free, threads=2)
    labels = np.where(hits.distances[0, 0] < 0, free, hits.labels[0, 0])  # negative: the ray never meets the grid
    return labels.reshape(size).astype(np.uint8), np.asarray(hits.coords[0, 0]).reshape(*size, 3)


def above_picture(
    sample: Sample, points: np.ndarray | None, grid: VoxelGrid, bev: BevTransform | None = None, scale: int = 4
) -> Image.Image:
    """Labels (left, where there are some) and LiDAR coloured by height (right; fields of view without it), with boxes; forward is up."""
    bev = bev or BevTransform()
    boxes = [] if sample.boxes is None else list(zip(bev.boxes(sample.boxes.boxes), sample.boxes.names, strict=True))
    panels = []
    if (voxels := _voxels(sample, grid, bev)) is not None:
        panels.append(Image.fromarray(top_view(voxels, scale=scale, ego=False)))
    panel = Image.new("RGB", (grid.shape[1] * scale, grid.shape[0] * scale), (18, 20, 26))
    if points is not None and sample.lidar is not None:
        lidar2key = invert(sample.ego2global) @ sample.lidar.ego2global @ sample.lidar.lidar2ego
        ego = transform_points(bev.matrix() @ lidar2key, points[:, :3].astype(np.float64))
        draw_points(panel, to_top(ego[:, :2], grid, scale), turbo(np.clip((ego[:, 2] + 1.0) / 5.0, 0, 1)), radius=0)
    else:
        turned = bev.matrix()
        draw_fields_of_view(panel, sample, lambda p: to_top(p @ turned[:2, :2].T + turned[:2, 3], grid, scale))
    panels.append(panel)
    for panel in panels:
        draw = ImageDraw.Draw(panel)
        for row, name in boxes:
            draw_top_box(draw, row, grid, scale, line_colour(colour_of(name)))
        origin = to_top(transform_points(bev.matrix(), np.array([[3.0, 0, 0], [-1, 1, 0], [-1, -1, 0]]))[:, :2], grid, scale)
        draw.polygon([tuple(p) for p in origin], fill=(255, 255, 255), outline=(0, 0, 0))
    return _stack(panels, across=True)


# ---- parts ------------------------------------------------------------------------------------------------------------------


def _voxels(sample: Sample, grid: VoxelGrid, bev: BevTransform | None = None) -> VoxelLayer | None:
    """The sample's labels without a mask, after `bev`, unknown ones made free; None without labels on this grid."""
    labels = sample.occupancy
    if labels is None or labels.semantics.shape != grid.shape:
        return None
    layer = (labels if bev is None else bev.labels(labels, grid)).layer(grid)
    return replace(layer, labels=np.where(layer.labels == IGNORE, layer.free, layer.labels), mask=None)


def _open(camera: CameraFrame, transform: ImageTransform) -> Image.Image:
    try:
        return transform.apply(camera.open()).copy()
    except DataError:
        picture = Image.new("RGB", (transform.size[1], transform.size[0]))
        ImageDraw.Draw(picture).text((10, 30), f"cannot read {camera.path.name}", fill=(255, 90, 90))
        return picture


def _sheet(sample: Sample, pictures: list[Image.Image]) -> Image.Image:
    """All cameras in the layout of the rig, with their names."""
    for camera, picture in zip(sample.cameras, pictures, strict=True):
        draw = ImageDraw.Draw(picture)
        draw.rectangle((0, 0, 10 + 7 * len(camera.channel), 18), fill=(0, 0, 0))
        draw.text((5, 3), camera.channel, fill=(255, 255, 255))
    rows = camera_rows([c.channel for c in sample.cameras])
    return _stack([_stack([pictures[i] for i in row], across=True) for row in rows])


def _stack(pictures: list[Image.Image], across: bool = False) -> Image.Image:
    """Pictures in a column, or with `across` in a row."""
    sizes, axis = np.array([picture.size for picture in pictures]), 0 if across else 1
    corners = np.zeros_like(sizes)
    corners[1:, axis] = np.cumsum(sizes[:-1, axis] + 4)
    sheet = Image.new("RGB", tuple((corners + sizes).max(0).tolist()), (255, 255, 255))
    for picture, corner in zip(pictures, corners.tolist(), strict=True):
        sheet.paste(picture, tuple(corner))
    return sheet
