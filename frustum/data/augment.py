"""Training-time augmentation: what to draw, and how a bird's-eye-view change moves boxes and labels (FlashOCC, input pipeline)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from frustum.data.pixels import ImageTransform
from frustum.data.sample import Occupancy
from frustum.errors import ConfigError
from frustum.geometry import VoxelGrid, rotation_z, transform_points
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
        matrix = np.eye(4)
        matrix[:3, :3] = np.diag([-1.0 if self.flip_x else 1.0, -1.0 if self.flip_y else 1.0, 1.0]) @ (self.scale * rotation_z(self.rotate))
        return matrix

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
        arrays = {name: getattr(labels, name) for name in ("semantics", "mask_lidar", "mask_camera", "instances")}
        if self.rotate or self.scale != 1:
            # The height does not depend on x and y, so that the source of a voxel is the source of its column and that of its layer.
            inverse, shape = np.linalg.inv(self.matrix()), grid.shape
            centres = [low + cell * (np.arange(n) + 0.5) for low, cell, n in zip(grid.lower, grid.cell, shape, strict=True)]
            x, y = (inverse[i, 0] * centres[0][:, None] + inverse[i, 1] * centres[1] for i in range(2))  # (X, Y)
            cells = [
                np.floor((p - grid.lower[i]) / grid.cell[i] + 1e-9).astype(int) for i, p in enumerate((x, y, inverse[2, 2] * centres[2]))
            ]
            within = [(c >= 0) & (c < n) for c, n in zip(cells, shape, strict=True)]
            inside = (within[0] & within[1])[..., None] & within[2]
            i, j, k = (np.clip(c, 0, n - 1) for c, n in zip(cells, shape, strict=True))
            index = i[..., None], j[..., None], k
            outside = {"semantics": IGNORE, "mask_lidar": 0, "mask_camera": 0, "instances": 0}
            moved = {name: None if a is None else np.where(inside, a[index], np.uint8(outside[name])) for name, a in arrays.items()}
        else:
            step = (-1 if self.flip_x else 1, -1 if self.flip_y else 1)
            moved = {name: None if a is None else np.ascontiguousarray(a[:: step[0], :: step[1]]) for name, a in arrays.items()}
        return Occupancy(**moved)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Augmentation:
    """What training draws at random; the fields are those of the recipe's `augment` section.

    Attributes:
        resize: range added to the base scale (output width / source width).
        rotate_deg: range of the image rotation.
        flip: mirror each image with probability 0.5.
        crop_h: range of the share of the resized height that is cut off at the bottom; evaluation cuts off its middle.
        colour_jitter: brightness, contrast and saturation are scaled by 1 +- this.
        bev_flip_x, bev_flip_y: probability of negating an axis of the ego frame.
        bev_rotate_deg, bev_scale: ranges.
    """

    resize: tuple[float, float] = (-0.06, 0.11)
    rotate_deg: tuple[float, float] = (-5.4, 5.4)
    flip: bool = True
    crop_h: tuple[float, float] = (0.0, 0.0)
    colour_jitter: float = 0.0
    bev_flip_x: float = 0.5
    bev_flip_y: float = 0.5
    bev_rotate_deg: tuple[float, float] = (0.0, 0.0)
    bev_scale: tuple[float, float] = (1.0, 1.0)

    @property
    def moves_pixels(self) -> bool:
        """Whether training moves pixels away from where the plain fit to the network's size has them."""
        return bool(self.flip or any((*self.resize, *self.rotate_deg, *self.crop_h)))

    def check(self, grid: VoxelGrid) -> None:
        """Raise ConfigError when a flip does not map the grid onto itself."""
        for axis, name, share in ((0, "x", self.bev_flip_x), (1, "y", self.bev_flip_y)):
            if share and abs(grid.lower[axis] + grid.upper[axis]) > 1e-6:
                raise ConfigError(
                    f"augment.bev_flip_{name} needs a grid that is symmetric in {name}, but it goes from {grid.lower[axis]} to "
                    f"{grid.upper[axis]} m. Set augment.bev_flip_{name}=0."
                )

    def draw_image(self, rng: np.random.Generator, source: tuple[int, int], size: tuple[int, int]) -> ImageTransform:
        """A random transform of one camera; (height, width) of source and output."""
        resize, rotate = rng.uniform(*self.resize), rng.uniform(*self.rotate_deg)
        crop_h, crop_w, mirror = rng.uniform(*self.crop_h), rng.random(), rng.random() < 0.5
        return ImageTransform.scaled(source, size, size[1] / source[1] + resize, crop_h, crop_w, bool(self.flip and mirror), rotate)

    def draw_colours(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Random factors of brightness, contrast and saturation."""
        brightness, contrast, saturation = rng.uniform(1 - self.colour_jitter, 1 + self.colour_jitter, 3)
        return max(0.0, float(brightness)), max(0.0, float(contrast)), max(0.0, float(saturation))

    def draw_bev(self, rng: np.random.Generator) -> BevTransform:
        """A random change of the ego frame."""
        rotate, scale = math.radians(rng.uniform(*self.bev_rotate_deg)), float(rng.uniform(*self.bev_scale))
        return BevTransform(rotate, scale, bool(rng.random() < self.bev_flip_x), bool(rng.random() < self.bev_flip_y))
