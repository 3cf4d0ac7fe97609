"""What augmentation draws for a sample, and how a change of the ego frame moves boxes and labels (FlashOCC, input pipeline)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frustum.data.grid_mask import draw_grid_mask
from frustum.data.pixels import ImageTransform
from frustum.data.sample import CameraFrame, Occupancy
from frustum.data.source import AugmentConfig
from frustum.geometry import VoxelGrid, horizon_row, pose, rotation_z, transform_points
from frustum.types.classes import IGNORE


@dataclass(frozen=True)
class BevTransform:
    """A change of the ego frame: turn by `rotate` radians about z and scale, then negate x and / or y."""

    rotate: float = 0.0
    scale: float = 1.0
    flip_x: bool = False
    flip_y: bool = False

    def matrix(self) -> np.ndarray:
        """(4, 4) float64, ego to augmented ego."""
        mirror = np.diag([-1.0 if self.flip_x else 1.0, -1.0 if self.flip_y else 1.0, 1.0])
        return pose(mirror @ (self.scale * rotation_z(self.rotate)), np.zeros(3))

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (M, 9) in the augmented frame."""
        matrix = self.matrix()
        result = boxes.copy()
        result[:, :3] = transform_points(matrix, boxes[:, :3])
        result[:, 3:6] *= self.scale
        yaw = boxes[:, 6] + self.rotate
        yaw = math.pi - yaw if self.flip_x else yaw
        yaw = -yaw if self.flip_y else yaw
        result[:, 6] = (yaw + math.pi) % (2 * math.pi) - math.pi
        result[:, 7:9] = boxes[:, 7:9] @ matrix[:2, :2].T
        return result

    def labels(self, labels: Occupancy, grid: VoxelGrid) -> Occupancy:
        """Labels in the augmented frame.

        Flips reverse axes and are exact. Turning or scaling takes the nearest voxel; what was outside the grid is ignored and unobserved.
        """
        arrays = {name: array for name, array in vars(labels).items() if array is not None}
        if not self.rotate and self.scale == 1:
            across, along = (-1 if self.flip_x else 1), (-1 if self.flip_y else 1)
            return Occupancy(**{name: np.ascontiguousarray(array[::across, ::along]) for name, array in arrays.items()})
        # The height does not depend on x and y, so that the source of a voxel is the source of its column and that of its layer.
        inverse, shape = np.linalg.inv(self.matrix()), grid.shape
        centres = [low + cell * (np.arange(n) + 0.5) for low, cell, n in zip(grid.lower, grid.cell, shape, strict=True)]
        x, y = (inverse[i, 0] * centres[0][:, None] + inverse[i, 1] * centres[1] for i in range(2))  # (X, Y)
        sources = enumerate((x, y, inverse[2, 2] * centres[2]))
        cells = [np.floor((p - grid.lower[i]) / grid.cell[i] + 1e-9).astype(int) for i, p in sources]
        within = [(c >= 0) & (c < n) for c, n in zip(cells, shape, strict=True)]
        inside = (within[0] & within[1])[..., None] & within[2]
        i, j, k = (np.clip(c, 0, n - 1) for c, n in zip(cells, shape, strict=True))
        outside = {"semantics": np.uint8(IGNORE)}
        moved = {n: np.where(inside, a[i[..., None], j[..., None], k], outside.get(n, np.uint8(0))) for n, a in arrays.items()}
        return Occupancy(**moved)


@dataclass(frozen=True)
class Draw:
    """What was drawn for one sample.

    Attributes:
        images: the transform of each camera, the same at all times.
        bev: the change of the ego frame.
        size: (height, width) of the network's image.
        kept: (H, W) bool, the pixels of all images that are not masked by GridMask; None for all. What is False shows nothing, so that
            nothing of it can be learned.
        seed: of what a kind of label draws for itself; None where nothing is drawn.
    """

    images: tuple[ImageTransform, ...]
    bev: BevTransform
    size: tuple[int, int]
    kept: np.ndarray | None = None
    seed: int | None = None


_NUSCENES = (900, 1600), 482.0  # size of nuScenes' images, and the row of their horizon: the mean of six cameras, which differ by 23 rows


def anchor_of(augment: AugmentConfig, camera: CameraFrame) -> float | None:
    """The row of a camera's horizon, if the window of its image is placed by it; None if the bottom of the image is kept."""
    if augment.window == "bottom" or (augment.window == "auto" and not camera.is_own_rig):
        return None
    return horizon_row(camera.intrinsics, camera.cam2ego, camera.size)


def horizon_share(augment: AugmentConfig, size: tuple[int, int]) -> float:
    """Which share of the network's image, of (height, width) `size`, lies above the horizon in training."""
    if augment.horizon is not None:
        return augment.horizon
    (height, width), row = _NUSCENES
    fit = fit_image(augment, (height, width), size)
    return (row * fit.resized[0] / height - fit.top) / size[0]


def fit_image(augment: AugmentConfig, source: tuple[int, int], size: tuple[int, int], horizon: float | None = None) -> ImageTransform:
    """The transform of an image that is not augmented; (height, width) of source and output.

    With the row of its `horizon` in the source, the rows are kept that put it where it was in training, as far as the image has such.
    """
    return ImageTransform.fit(source, size, _crop_share(augment, source, size, horizon), augment.eval_resize)


def _crop_share(augment: AugmentConfig, source: tuple[int, int], size: tuple[int, int], horizon: float | None) -> float:
    """The share of an image's height that is cut off at its bottom when it is not augmented; negative where black rows are added."""
    usual = sum(augment.crop_h) / 2
    if horizon is None:
        return usual
    height = ImageTransform.fit(source, size, usual, augment.eval_resize).resized[0]
    top = round(horizon * height / source[0] - horizon_share(augment, size) * size[0])
    top = min(max(top, min(0, height - size[0])), max(0, height - size[0]))  # no black rows that need not be
    return 1 - (top + size[0] + 0.5) / height  # in the middle of what is rounded to `top`


def draw(
    augment: AugmentConfig,
    rng: np.random.Generator | None,
    sources: Sequence[tuple[int, int]],
    size: tuple[int, int],
    horizons: Sequence[float | None] | None = None,
) -> Draw:
    """A random draw for a sample whose cameras have images of (height, width) `sources`; without `rng`, that of no augmentation.

    `horizons` has what `anchor_of` says of each camera; None keeps the bottom of all images.
    """
    rows = [None] * len(sources) if horizons is None else horizons
    if rng is None or not augment.moves_pixels:
        images = tuple(fit_image(augment, source, size, row) for source, row in zip(sources, rows, strict=True))
    else:
        seed = rng.integers(2**63) if augment.shared else None
        draws = (rng if seed is None else np.random.default_rng(seed) for _ in sources)
        images = tuple(draw_image(augment, numbers, source, size, row) for numbers, source, row in zip(draws, sources, rows, strict=True))
    if rng is None:
        return Draw(images, BevTransform(), size)
    bev = draw_bev(augment, rng)
    return Draw(images, bev, size, draw_grid_mask(rng, size, augment.grid_mask) if augment.grid_mask else None)


def draw_image(
    augment: AugmentConfig, rng: np.random.Generator, source: tuple[int, int], size: tuple[int, int], horizon: float | None = None
) -> ImageTransform:
    """A random transform of one camera; (height, width) of source and output, `horizon` as for `fit_image`.

    With `augment.scale` the image is scaled by it, and a window is cut at random along the sides that exceed the output; along the others
    the image lies at the top or at the left, and nothing is shown beyond it.
    """
    if augment.scale is not None:
        scale, rotate = rng.uniform(*augment.scale), rng.uniform(*augment.rotate_deg)
        resized = (max(1, round(source[0] * scale)), max(1, round(source[1] * scale)))
        top, left = (int(rng.integers(0, max(0, have - need) + 1)) for have, need in zip(resized, size, strict=True))
        return ImageTransform(source, resized, size, left, top, bool(augment.flip and rng.random() < 0.5), rotate)
    resize, rotate = rng.uniform(*augment.resize), rng.uniform(*augment.rotate_deg)
    crop_h, crop_w, mirror = rng.uniform(*augment.crop_h), rng.random(), rng.random() < 0.5
    if horizon is not None:
        crop_h += _crop_share(augment, source, size, horizon) - sum(augment.crop_h) / 2
    return ImageTransform.scaled(source, size, size[1] / source[1] + resize, crop_h, crop_w, bool(augment.flip and mirror), rotate)


def draw_colours(augment: AugmentConfig, rng: np.random.Generator) -> tuple[float, float, float]:
    """Random factors of brightness, contrast and saturation."""
    brightness, contrast, saturation = rng.uniform(1 - augment.colour_jitter, 1 + augment.colour_jitter, 3)
    return max(0.0, float(brightness)), max(0.0, float(contrast)), max(0.0, float(saturation))


def draw_bev(augment: AugmentConfig, rng: np.random.Generator) -> BevTransform:
    """A random change of the ego frame."""
    rotate, scale = math.radians(rng.uniform(*augment.bev_rotate_deg)), float(rng.uniform(*augment.bev_scale))
    return BevTransform(rotate, scale, bool(rng.random() < augment.bev_flip_x), bool(rng.random() < augment.bev_flip_y))
