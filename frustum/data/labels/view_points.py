"""Labelled points of images, made from what a data set has: the points of a keyframe for `data.labels.views`.

From LiDAR points with their classes (lidarseg), from LiDAR points alone, or from the truth images of a street world (`dense`).
`data.labels.view_cache` keeps them in a folder, for those who would rather read than project.

Shape letters: P points of an image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator
from scipy import ndimage

from frustum.config import Config
from frustum.data.labels.depth import lidar2camera
from frustum.data.pixels import read_image
from frustum.data.sample import CameraFrame, Sample
from frustum.errors import DataError, ShapeError
from frustum.files import inside
from frustum.geometry import invert, transform_points
from frustum.types.classes import IGNORE, OCC3D_CLASSES, OCC3D_OF_CATEGORY

CLASSES: tuple[str, ...] = OCC3D_CLASSES[:-1]
"""What a labelled point can be: Occ3D's classes without free space."""
MOVING: tuple[str, ...] = ("bicycle", "bus", "car", "construction_vehicle", "motorcycle", "pedestrian", "trailer", "truck")
"""Classes that may have moved between two keyframes."""

Source = Literal["lidarseg", "lidar", "dense"]


def _no_keyframe(offsets: tuple[int, ...]) -> tuple[int, ...]:
    if 0 in offsets or len(set(offsets)) < len(offsets):
        raise ValueError(f"adjacent keyframes are offsets other than 0, each once, such as -1,1; got {offsets}")
    return offsets


class Views(Config):
    """Which 2D labels a network learns from.

    Attributes:
        source: `lidarseg` is class and depth of LiDAR points, `lidar` depth alone, `dense` class and depth of the pixels of a street world
            (`frustum data world OUT 'save=["depth","semantics"]'`).
        adjacent: keyframes beside this one whose labels are learned from too, as offsets in time.
        drawn: how many of them are drawn anew for each sample and epoch; 0 takes all.
        points: how many points of a sample are drawn at random, over all views; 0 takes all.
        balance: a point is drawn with the weight (points of its class in the sample) ** -balance.
        class_weights: in place of that, the weight of each class; empty for none.
        adjacent_weight: factor on the weight of points of adjacent keyframes.
        moving_weight: factor on that of their points of `moving`; with 0 they are never drawn. No point of `lidar` is known to be of them.
        moving: classes that may have moved between keyframes.
        uncovered: also learn from points of adjacent keyframes that lie behind where something of these classes is now: the camera saw them
            because it was elsewhere then, and where it is now seems to be empty. False leaves them out, as far as LiDAR points of the
            keyframe tell where such things are.
        max_depth: metres, more than one, beyond which points are left out; those of a cache end at 80 m.
        hidden: leave out points that the camera cannot see, because the LiDAR stands elsewhere: those that lie behind a nearer point within
            a few pixels by more than this share of its depth, and a metre; 0 keeps all, as RenderOcc does. Nothing of `dense` is hidden.
        cache: folder that `frustum data labels-2d` wrote; empty to make them while loading.
    """

    source: Source = "lidarseg"
    adjacent: Annotated[tuple[int, ...], AfterValidator(_no_keyframe)] = ()
    drawn: NonNegativeInt = 0
    points: NonNegativeInt = 0
    balance: NonNegativeFloat = 0.0
    class_weights: tuple[PositiveFloat, ...] = ()
    adjacent_weight: NonNegativeFloat = 1.0
    moving_weight: NonNegativeFloat = 1.0
    moving: tuple[str, ...] = MOVING
    uncovered: bool = True
    max_depth: float = Field(80.0, gt=1)
    hidden: float = Field(0.0, ge=0, lt=1)
    cache: str = ""

    @property
    def has_classes(self) -> bool:
        """Whether any point has a class: what is learned from depth alone knows none."""
        return self.source != "lidar"

    @model_validator(mode="after")
    def _draws(self) -> Views:
        if self.adjacent_weight != 1 and not self.adjacent:
            raise ValueError("adjacent_weight is of points of adjacent keyframes: set adjacent=-1,1, or leave adjacent_weight=1")
        if self.drawn > len(self.adjacent):
            raise ValueError(f"drawn={self.drawn} of {len(self.adjacent)} adjacent keyframes: set adjacent to at least as many, or drawn=0")
        weighs = self.balance or self.class_weights or self.adjacent_weight != 1 or self.moving_weight != 1
        if weighs and not self.points:
            raise ValueError("balance, class_weights, adjacent_weight and moving_weight say how points are drawn: set points, such as 4000")
        if not self.uncovered and not (self.adjacent and self.has_classes):
            raise ValueError(
                "uncovered=false leaves out points of adjacent keyframes by the classes of points: set adjacent, and a source with classes"
            )
        if unknown := set(self.moving) - set(CLASSES):
            raise ValueError(f"moving names classes of Occ3D ({', '.join(CLASSES)}); {', '.join(sorted(unknown))} is none")
        if self.cache and self.max_depth > 80:
            raise ValueError(
                f"labels of a cache end at 80 m, max_depth={self.max_depth:g} is further: set max_depth=80, or leave cache empty"
            )
        if self.class_weights and len(self.class_weights) != len(CLASSES):
            raise ValueError(f"class_weights are of the {len(CLASSES)} classes of Occ3D without free space, got {len(self.class_weights)}")
        return self


class ImagePoints(NamedTuple):
    """Labelled points of one image.

    Attributes:
        pixels: (P, 2) float32 u, v in the original image.
        depth: (P,) float32 metres along the optical axis.
        classes: (P,) uint8 ids, IGNORE where unknown.
    """

    pixels: np.ndarray
    depth: np.ndarray
    classes: np.ndarray


def view_points(source: Any, sample: Sample, views: Views) -> list[ImagePoints]:
    """2D labels of each image of a keyframe, made from its LiDAR scan or from the truth images of a street world.

    Points less than a metre from the camera are left out (parts of the vehicle), and those on the outermost pixel, as RenderOcc does.

    Raises:
        DataError: no LiDAR scan, no classes of its points, other numbers of both, or no truth images.
    """
    if views.source == "dense":
        return [_dense(camera, views.max_depth) for camera in sample.cameras]
    if sample.lidar is None:
        raise DataError(f"keyframe {sample.token} has no LiDAR scan, from which 2D labels are made.")
    scan, can_be = sample.lidar.load_all()
    classes = np.full(len(scan), IGNORE, np.uint8)
    if views.source == "lidarseg":
        found = source.point_labels(sample.token)
        if found is None or len(found[0]) != len(scan):
            count = "no" if found is None else len(found[0])
            raise DataError(
                f"keyframe {sample.token} has {len(scan)} LiDAR points, but {count} classes of them. "
                "Restore lidarseg, or take depth alone: source lidar."
            )
        classes = _class_table(source)[found[0]]
    points, classes = scan[can_be, :3].astype(np.float64), classes[can_be]
    images = []
    for camera in sample.cameras:
        local = transform_points(lidar2camera(sample.lidar, camera), points)
        near = np.flatnonzero((local[:, 2] >= 1.0) & (local[:, 2] <= views.max_depth))
        local = local[near]
        pixels = (local @ camera.intrinsics.T)[:, :2] / local[:, 2:]
        inside = ((pixels > 1) & (pixels < np.array(camera.size[::-1]) - 1)).all(1)
        image = ImagePoints(*(x[inside] for x in (pixels.astype(np.float32), local[:, 2].astype(np.float32), classes[near])))
        images.append(without_hidden(image, camera.size, views.hidden) if views.hidden else image)
    return images


def without_hidden(points: ImagePoints, size: tuple[int, int], share: float) -> ImagePoints:
    """Without points that lie behind a nearer one close by, by more than `share` of its depth and a metre.

    Close by is in the same or a neighbouring cell, 1/200 of the width across and 1/100 down: beams of a LiDAR lie further apart from top to
    bottom. Ground that is seen at a flat angle changes its depth by a third from cell to cell, so that `share` should be 0.5 or more.
    """
    kept = points.depth <= _nearest(points, points.pixels, size) * (1 + share) + 1
    return ImagePoints(*(array[kept] for array in points))


def _nearest(points: ImagePoints, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth of the nearest of the points in the cells of pixels (P, 2), 1/200 of the width across and 1/100 down, and those around them."""
    cell = np.array([size[1] / 200, size[1] / 100])
    nearest = np.full((int(size[0] / cell[1]) + 2, 202), np.inf, np.float32)
    column, row = (points.pixels / cell).astype(np.int64).T
    np.minimum.at(nearest, (row, column), points.depth)
    column, row = (pixels / cell).astype(np.int64).T
    return ndimage.minimum_filter(nearest, 3, mode="constant", cval=np.inf)[row, column]


def in_space(points: ImagePoints, camera: CameraFrame) -> np.ndarray:
    """Where the points of an image are in the global frame, (P, 3) float64."""
    rays = np.column_stack([points.pixels, np.ones(len(points.depth))]) @ np.linalg.inv(camera.intrinsics).T
    return transform_points(camera.ego2global @ camera.cam2ego, rays * points.depth[:, None])


def without_uncovered(points: ImagePoints, camera: CameraFrame, things: np.ndarray) -> ImagePoints:
    """Without the points of an image that lie more than a metre behind one of `things`, (P, 3) of the global frame, or close beside it.

    Close by is as in `without_hidden`.
    """
    local = transform_points(invert(camera.ego2global @ camera.cam2ego), things)
    local = local[local[:, 2] >= 1.0]
    pixels = (local @ camera.intrinsics.T)[:, :2] / local[:, 2:]
    inside = ((pixels >= 0) & (pixels < np.array(camera.size[::-1]))).all(1)
    things_there = ImagePoints(pixels[inside].astype(np.float32), local[inside, 2].astype(np.float32), np.zeros(0, np.uint8))
    kept = points.depth <= _nearest(things_there, points.pixels, camera.size) + 1
    return ImagePoints(*(array[kept] for array in points))


def truth_images(camera: CameraFrame) -> tuple[Path, Path]:
    """Where a street world keeps depth and classes of all pixels of an image."""
    folder = camera.path.parent.parent.parent / "extras"
    depth, classes = (folder / kind / camera.channel / f"{camera.path.stem}.png" for kind in ("depth", "semantics"))
    return inside(folder.parent, depth), inside(folder.parent, classes)


def _class_table(source: Any) -> np.ndarray:
    """(256,) uint8: the class of a lidarseg id; `others` for categories that are none of Occ3D's, IGNORE for unknown ids."""
    table = np.full(256, IGNORE, np.uint8)
    for index, name in source.categories.items():
        table[index] = CLASSES.index(OCC3D_OF_CATEGORY.get(name, "others"))
    return table


def _dense(camera: CameraFrame, max_depth: float) -> ImagePoints:
    """Labels of all pixels of a street world's image but the sky."""
    advice = (
        'Only street worlds have truth images (frustum data world OUT \'save=["depth","semantics"]\'): of other data use LiDAR points, '
        "model.views.source=lidarseg, or lidar where these have no classes."
    )
    depth, ids = (np.asarray(read_image(path, lambda image: image.copy(), advice)) for path in truth_images(camera))
    if depth.shape != ids.shape or depth.shape != tuple(camera.size):
        raise ShapeError(f"the truth images of {camera.path} have shapes {depth.shape} and {ids.shape}, the image {camera.size}.")
    table = np.full(256, IGNORE, np.uint8)
    table[: len(OCC3D_OF_CATEGORY)] = [CLASSES.index(name) for name in OCC3D_OF_CATEGORY.values()]
    metres = depth.astype(np.float32) / 256
    row, column = np.nonzero((metres >= 1) & (metres <= max_depth))
    return ImagePoints(np.stack([column + 0.5, row + 0.5], 1).astype(np.float32), metres[row, column], table[ids[row, column]])
