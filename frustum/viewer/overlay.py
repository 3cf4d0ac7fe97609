"""Pictures that show whether a data set fits together: LiDAR or the ground, boxes and voxels over the images and from above."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from frustum.data.augment import Augmentation, BevTransform
from frustum.data.labels.depth import lidar2camera
from frustum.data.pixels import ImageTransform
from frustum.data.sample import Boxes, CameraFrame, LidarFrame, Sample
from frustum.errors import DataError
from frustum.files import atomic_path
from frustum.geometry import VoxelGrid, box_corners, invert, transform_points
from frustum.ops.raycast import raycast
from frustum.types.classes import IGNORE, OCC3D_CLASSES, OCC3D_COLOURS, OCC3D_FREE
from frustum.viewer.ground import clip_near, draw_fields_of_view, draw_ground
from frustum.viewer.pictures import camera_rows
from frustum.viewer.voxels import top_view

_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
_FAR = 50.0  # metres: the end of the depth colours


def draw_check(
    sample: Sample,
    out_dir: Path | str,
    *,
    grid: VoxelGrid | None = None,
    augment: Augmentation | None = None,
    image_size: tuple[int, int] = (256, 704),
    width: int = 800,
    seed: int = 0,
) -> list[Path]:
    """Draw one keyframe as PNGs in `out_dir`.

    - `*_points.png`: every camera with LiDAR points coloured by depth (red near, blue far) and boxes, their front crossed;
    - `*_ground.png`: instead of it where there is no LiDAR: rings and axes on the ground z = 0, and the horizon;
    - `*_voxels.png`: every camera with the occupied voxels that it looks at, in class colours, if there are labels;
    - `*_above.png`: labels and LiDAR (or, without it, the fields of view) from above, with boxes and their headings;
    - `*_augmented.png`: with `augment`, images of `image_size` and the view from above as training would see them.

    Args:
        sample: a keyframe, read with its boxes and labels.
        out_dir: created if needed.
        grid: where the voxels lie; Occ3D's by default.
        width: of one camera's picture, in pixels.
        seed: of the augmentation that is drawn.

    Returns:
        The files. A camera whose image cannot be read is left black and named so.

    Raises:
        DataError: the LiDAR file is damaged, or `out_dir` cannot be written.
    """
    out_dir, grid = Path(out_dir), grid or VoxelGrid.occ3d()
    points = sample.lidar.load() if sample.lidar is not None else None
    stem = f"{sample.scene}_{round(sample.timestamp * 1e3)}"
    sheets: dict[str, Image.Image] = {}
    plain = [ImageTransform.scaled(c.size, (round(c.size[0] * width / c.size[1]), width), width / c.size[1]) for c in sample.cameras]
    sheets["ground" if points is None else "points"] = _sheet(
        sample, [camera_picture(sample, c, t, points) for c, t in zip(sample.cameras, plain, strict=True)]
    )
    if sample.occupancy is not None and sample.occupancy.semantics.shape == grid.shape:
        pictures = [voxel_picture(sample, c, t, grid) for c, t in zip(sample.cameras, plain, strict=True)]
        sheets["voxels"] = _sheet(sample, pictures)
    sheets["above"] = above_picture(sample, points, grid)
    if augment is not None:
        rng = np.random.default_rng([seed, zlib.crc32(sample.token.encode())])
        transforms = [augment.draw_image(rng, c.size, image_size) for c in sample.cameras]
        cameras = _sheet(sample, [camera_picture(sample, c, t, points) for c, t in zip(sample.cameras, transforms, strict=True)])
        sheets["augmented"] = _stack([cameras, above_picture(sample, points, grid, augment.draw_bev(rng))])
    files = []
    for name, sheet in sheets.items():
        files.append(out_dir / f"{stem}_{name}.png")
        with atomic_path(files[-1]) as temporary:
            sheet.save(temporary, format="PNG")
    return files


def camera_picture(sample: Sample, camera: CameraFrame, transform: ImageTransform, points: np.ndarray | None) -> Image.Image:
    """One image after `transform`, with LiDAR points (P, >=3), or the ground where there are none, and the sample's boxes."""
    picture = _open(camera, transform)
    matrix = transform.matrix() @ camera.intrinsics
    if points is not None and sample.lidar is not None:
        pixels, depth = project_points(points, sample.lidar, camera, matrix, transform.size)
        _draw_points(picture, pixels, depth_colours(depth), radius=1 if len(pixels) < 8000 else 0)
    else:
        draw_ground(picture, sample, camera, transform)
    if sample.boxes is not None:
        key2camera = invert(camera.ego2global @ camera.cam2ego) @ sample.ego2global
        _draw_boxes(ImageDraw.Draw(picture), sample.boxes, key2camera, matrix)
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


def voxel_picture(sample: Sample, camera: CameraFrame, transform: ImageTransform, grid: VoxelGrid, opacity: float = 0.55) -> Image.Image:
    """One image with the first occupied voxel along each pixel's ray: its class colour, dark outlines between voxels."""
    picture = np.asarray(_open(camera, transform), np.float32)
    assert sample.occupancy is not None
    labels, coords = first_voxels(sample.occupancy.semantics, sample, camera, transform.matrix() @ camera.intrinsics, transform.size, grid)
    palette = np.array([*OCC3D_COLOURS, (0, 0, 0)], np.float32)
    colour = palette[np.minimum(labels, len(OCC3D_COLOURS))]
    outline = np.zeros(labels.shape, bool)
    outline[:, 1:] |= (coords[:, 1:] != coords[:, :-1]).any(-1)
    outline[1:] |= (coords[1:] != coords[:-1]).any(-1)
    colour = np.where(outline[..., None], colour * 0.6, colour)
    mixed = np.where((labels == OCC3D_FREE)[..., None], picture, (1 - opacity) * picture + opacity * colour)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def first_voxels(
    semantics: np.ndarray, sample: Sample, camera: CameraFrame, matrix: np.ndarray, size: tuple[int, int], grid: VoxelGrid
) -> tuple[np.ndarray, np.ndarray]:
    """What each pixel of an image of `size` looks at: labels (H, W) uint8, free where nothing, and voxel indices (H, W, 3)."""
    camera2key = invert(sample.ego2global) @ camera.ego2global @ camera.cam2ego
    lower, cell = np.array(grid.lower), np.array(grid.cell)
    volume = np.where(semantics == IGNORE, OCC3D_FREE, semantics).astype(np.uint8)
    at = np.floor((camera2key[:3, 3] - lower) / cell).astype(int)
    if ((at >= 0) & (at < np.array(grid.shape))).all():
        volume[tuple(at)] = OCC3D_FREE  # the camera's own housing must not fill its view
    rows, columns = np.indices(size)
    rays = np.stack([columns + 0.5, rows + 0.5, np.ones(size)], -1).reshape(-1, 3) @ np.linalg.inv(matrix).T
    ends = camera2key[:3, 3] + rays @ camera2key[:3, :3].T
    hits = raycast(volume[None], ((camera2key[:3, 3] - lower) / cell)[None], (ends - lower) / cell, free=OCC3D_FREE, threads=2)
    labels = np.where(hits.distances[0, 0] < 0, OCC3D_FREE, hits.labels[0, 0])  # negative: the ray never meets the grid
    return labels.reshape(size).astype(np.uint8), np.asarray(hits.coords[0, 0]).reshape(*size, 3)


def above_picture(
    sample: Sample, points: np.ndarray | None, grid: VoxelGrid, bev: BevTransform | None = None, scale: int = 4
) -> Image.Image:
    """Labels (left, where there are some) and LiDAR coloured by height (right; fields of view without it), with boxes; forward is up."""
    bev = bev or BevTransform()
    boxes = None if sample.boxes is None else bev.boxes(sample.boxes.boxes)
    panels = []
    if sample.occupancy is not None and sample.occupancy.semantics.shape == grid.shape:
        labels = bev.labels(sample.occupancy, grid).semantics
        panels.append(Image.fromarray(top_view(np.where(labels == IGNORE, OCC3D_FREE, labels), scale=scale, grid=grid, ego=False)))
    panel = Image.new("RGB", (grid.shape[1] * scale, grid.shape[0] * scale), (18, 20, 26))
    if points is not None and sample.lidar is not None:
        lidar2key = invert(sample.ego2global) @ sample.lidar.ego2global @ sample.lidar.lidar2ego
        ego = transform_points(bev.matrix() @ lidar2key, points[:, :3].astype(np.float64))
        height = np.clip((ego[:, 2] + 1.0) / 5.0, 0, 1)
        _draw_points(panel, _to_top(ego[:, :2], grid, scale), _turbo(height), radius=0)
    else:
        turned = bev.matrix()
        draw_fields_of_view(panel, sample, lambda p: _to_top(p @ turned[:2, :2].T + turned[:2, 3], grid, scale))
    panels.append(panel)
    for panel in panels:
        draw = ImageDraw.Draw(panel)
        if boxes is not None and sample.boxes is not None:
            for row, name in zip(boxes, sample.boxes.names, strict=True):
                _draw_top_box(draw, row, grid, scale, _class_colour(name))
        origin = _to_top(transform_points(bev.matrix(), np.array([[3.0, 0, 0], [-1, 1, 0], [-1, -1, 0]]))[:, :2], grid, scale)
        draw.polygon([tuple(p) for p in origin], fill=(255, 255, 255), outline=(0, 0, 0))
    return _stack(panels, across=True)


# ---- parts ------------------------------------------------------------------------------------------------------------------


def _open(camera: CameraFrame, transform: ImageTransform) -> Image.Image:
    try:
        return transform.apply(camera.open()).copy()
    except DataError:
        picture = Image.new("RGB", (transform.size[1], transform.size[0]))
        ImageDraw.Draw(picture).text((10, 30), f"cannot read {camera.path.name}", fill=(255, 90, 90))
        return picture


def depth_colours(depth: np.ndarray) -> np.ndarray:
    """RGB uint8 (P, 3): red near, blue far, logarithmic, because nearness matters most."""
    return _turbo(1 - np.clip(np.log(np.maximum(depth, 2.0) / 2) / np.log(_FAR / 2), 0, 1))


def _turbo(value: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps

    return (colormaps["turbo"](value)[:, :3] * 255).astype(np.uint8)


def _draw_points(picture: Image.Image, pixels: np.ndarray, colours: np.ndarray, radius: int) -> None:
    canvas = np.array(picture)
    column, row = np.floor(pixels).astype(np.int64).T
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            r, c = row + dy, column + dx
            inside = (r >= 0) & (c >= 0) & (r < canvas.shape[0]) & (c < canvas.shape[1])
            canvas[r[inside], c[inside]] = colours[inside]
    picture.paste(Image.fromarray(canvas))


def _draw_boxes(draw: ImageDraw.ImageDraw, boxes: Boxes, key2camera: np.ndarray, matrix: np.ndarray) -> None:
    corners = box_corners(key2camera @ boxes.box2ego, boxes.boxes[:, 3:6])  # (M, 8, 3)
    for m in np.argsort(-corners[:, :, 2].mean(1)):
        colour = _class_colour(boxes.names[m])
        front = corners[m, [0, 3, 7, 4]]  # the face at +length, crossed to show the heading
        segments = [(corners[m, a], corners[m, b]) for a, b in _EDGES] + [(front[0], front[2]), (front[1], front[3])]
        for start, end in segments:
            ends = clip_near(start, end)
            if ends is None:
                continue
            pixels = [p[:2] / p[2] for p in (matrix @ ends[0], matrix @ ends[1])]
            if max(abs(np.concatenate(pixels))) < 1e5:
                draw.line([tuple(p) for p in pixels], fill=colour, width=2)


def _draw_top_box(draw: ImageDraw.ImageDraw, row: np.ndarray, grid: VoxelGrid, scale: int, colour: tuple[int, int, int]) -> None:
    along = np.array([np.cos(row[6]), np.sin(row[6])]) * row[3] / 2
    across = np.array([-np.sin(row[6]), np.cos(row[6])]) * row[4] / 2
    centre = row[:2]
    outline = _to_top(
        np.stack([centre + along + across, centre + along - across, centre - along - across, centre - along + across]), grid, scale
    )
    draw.polygon([tuple(p) for p in outline], outline=colour, width=2)
    heading = _to_top(np.stack([centre, centre + 1.4 * along]), grid, scale)
    draw.line([tuple(p) for p in heading], fill=colour, width=2)


def _to_top(points: np.ndarray, grid: VoxelGrid, scale: int) -> np.ndarray:
    """Pixels (P, 2) = column, row in the view from above of ego points (P, 2): forward up, left at the left."""
    column = (grid.upper[1] - points[:, 1]) / grid.cell[1] * scale
    row = (grid.upper[0] - points[:, 0]) / grid.cell[0] * scale
    return np.stack([column, row], -1)


def _class_colour(name: str) -> tuple[int, int, int]:
    red, green, blue = OCC3D_COLOURS[OCC3D_CLASSES.index(name)] if name in OCC3D_CLASSES else OCC3D_COLOURS[0]
    lighten = lambda v: int(90 + 0.65 * v)  # noqa: E731  lines are thin and images dark
    return lighten(red), lighten(green), lighten(blue)


def _sheet(sample: Sample, pictures: list[Image.Image]) -> Image.Image:
    """All cameras as they look around the vehicle, with their names."""
    for camera, picture in zip(sample.cameras, pictures, strict=True):
        draw = ImageDraw.Draw(picture)
        draw.rectangle((0, 0, 10 + 7 * len(camera.channel), 18), fill=(0, 0, 0))
        draw.text((5, 3), camera.channel, fill=(255, 255, 255))
    rows = camera_rows([c.channel for c in sample.cameras])
    return _stack([_stack([pictures[i] for i in row], across=True) for row in rows])


def _stack(pictures: list[Image.Image], across: bool = False) -> Image.Image:
    """Pictures below, or beside, each other."""
    gap = 4
    widths, heights = [p.width for p in pictures], [p.height for p in pictures]
    size = (sum(widths) + gap * (len(pictures) - 1), max(heights)) if across else (max(widths), sum(heights) + gap * (len(pictures) - 1))
    sheet = Image.new("RGB", size, (255, 255, 255))
    at = 0
    for picture in pictures:
        sheet.paste(picture, (at, 0) if across else (0, at))
        at += (picture.width if across else picture.height) + gap
    return sheet
