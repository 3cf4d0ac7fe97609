"""What can be drawn of a prediction or of the truth, as plain layers: the viewer draws them without knowing the question they answer.

Ego frame and metres where nothing else is said.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from frustum.geometry import VoxelGrid
from frustum.types.classes import OCC3D_CLASSES, OCC3D_COLOURS
from frustum.types.pixel_classes import published_colours

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Legend:
    """What class ids mean: a name and an RGB colour each."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> Legend:
        """The published colours of a set with these classes; else those of the Occ3D classes among `names`, and others for the rest."""
        if published := published_colours(tuple(names)):
            return cls(tuple(names), published)
        known = dict(zip(OCC3D_CLASSES, OCC3D_COLOURS, strict=True))
        return cls(tuple(names), tuple(known.get(name) or _colour(i) for i, name in enumerate(names)))


def _colour(number: int) -> Colour:
    return from_hsv(number * 0.618, 0.45 + 0.2 * (number % 3), 0.9 - 0.15 * (number % 4))


def from_hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour by its hue, whose whole part does not count, its saturation and its value, 0..1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass(frozen=True)
class VoxelLayer:
    """Labelled voxels.

    Attributes:
        labels: (X, Y, Z) uint8 class ids.
        legend: of the ids.
        free: the id that is not drawn.
        grid: where the voxels lie.
        flat: ids of ground classes, on which the ego vehicle stands.
        mask: (X, Y, Z), 1 where the place could be observed, or None.
        objects: (X, Y, Z) number of the object that a voxel belongs to, 0 for none, or None where objects are not separated.
    """

    labels: np.ndarray
    legend: Legend
    free: int
    grid: VoxelGrid
    flat: tuple[int, ...] = ()
    mask: np.ndarray | None = None
    objects: np.ndarray | None = None


@dataclass(frozen=True)
class BoxLayer:
    """Boxes (M, 9) of `geometry.BOX_FIELDS`, with a class id each and, of predictions, a score (M,)."""

    boxes: np.ndarray
    classes: np.ndarray
    legend: Legend
    scores: np.ndarray | None = None


@dataclass(frozen=True)
class MapLayer:
    """Class ids seen from above, (Y, X) uint8, over the cells of `grid`; `free` is not drawn."""

    labels: np.ndarray
    legend: Legend
    free: int
    grid: VoxelGrid


@dataclass(frozen=True)
class PixelLayer:
    """Class ids of the pixels of an image, (H, W) uint8; `ignore` is drawn as it is in the photograph."""

    labels: np.ndarray
    legend: Legend
    ignore: int = 255


@dataclass(frozen=True)
class ImageLayer:
    """A picture, (H, W, 3) uint8 RGB."""

    image: np.ndarray
    caption: str = ""


@dataclass(frozen=True)
class PointLayer:
    """Points (P, 3) with an RGB colour each, (P, 3) uint8."""

    points: np.ndarray
    colours: np.ndarray


@dataclass(frozen=True)
class ViewLayer:
    """Class and depth of what a camera sees.

    Attributes:
        labels: (H, W) uint8 class ids; `ignore` is drawn as it is in the photograph.
        depth: (H, W) metres, 0 where nothing is known.
        intrinsics: (3, 3) of these pixels, which may be a part of the photograph.
        legend: of the ids.
    """

    labels: np.ndarray
    depth: np.ndarray
    intrinsics: np.ndarray
    legend: Legend
    ignore: int = 255


Layer = VoxelLayer | BoxLayer | MapLayer | PixelLayer | ImageLayer | PointLayer | ViewLayer


class Calibration(NamedTuple):
    """What places the ego frame in an image: intrinsics (3, 3) for the pixels of the image as it is, ego2camera (4, 4)."""

    intrinsics: np.ndarray
    ego2camera: np.ndarray
