"""2D labels: points in the images of a keyframe and of adjacent keyframes, each with its depth and, where it is known, its class.

They are made while loading, from what is there: from LiDAR points with their classes (lidarseg), from LiDAR points alone, or from the
truth images of a street world (`dense`). The images of the adjacent keyframes are not read: their labels are all that is needed to learn
from their views. `write_views` keeps them in a folder, for those who would rather read than project.

Shape letters: B batch, V views (the keyframe first), N cameras, P points of an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from scipy import ndimage
from torch import Tensor

from frustum.config import Config
from frustum.data.augment import Draw
from frustum.data.labels.depth import lidar2camera
from frustum.data.pixels import read_image
from frustum.data.sample import CameraFrame, Sample
from frustum.data.source import as_rig_source, spread
from frustum.errors import DataError, ShapeError
from frustum.files import atomic_path, read_json, write_json
from frustum.geometry import invert, transform_points
from frustum.types.classes import IGNORE, OCC3D_CLASSES, OCC3D_OF_CATEGORY
from frustum.types.contract import Label, Shapes

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
        moving_weight: factor on that of their points of `moving`; with 0 they are never drawn.
        moving: classes that may have moved between keyframes.
        max_depth: metres, beyond which points are left out.
        hidden: leave out points that the camera cannot see, because the LiDAR stands elsewhere: those that lie behind a nearer point within
            a few pixels by more than this share of its depth, and a metre; 0 keeps all, as RenderOcc does.
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
    max_depth: PositiveFloat = 80.0
    hidden: float = Field(0.0, ge=0)
    cache: str = ""


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


@dataclass(frozen=True)
class ViewTruth:
    """2D labels of B samples. Rows of missing points are padded: NaN pixels, depth 0, class IGNORE.

    Attributes:
        pixels: (B, V, N, P, 2) float32 u, v in the original image.
        depth: (B, V, N, P) float32 metres along the optical axis.
        classes: (B, V, N, P) uint8 ids, IGNORE where unknown.
        intrinsics: (B, V, N, 3, 3) float32 of the original image.
        cam2ego: (B, V, N, 4, 4) float32 camera to the (augmented) ego frame of the view's own keyframe.
        view2key: (B, V, 4, 4) float32 that (augmented) ego frame to that of the keyframe.
        size: (B, V, N, 2) int64 (height, width) of the original image.
        is_present: (B, V) bool, False where the scene does not have such a keyframe, or ego poses are unknown: no points then.
    """

    pixels: Tensor
    depth: Tensor
    classes: Tensor
    intrinsics: Tensor
    cam2ego: Tensor
    view2key: Tensor
    size: Tensor
    is_present: Tensor

    def rays(self, in_key: bool = True) -> tuple[Tensor, Tensor]:
        """Origins and directions (B, V, N, P, 3) of the rays of all points, in the ego frame of the keyframe, or of each view.

        Directions have depth 1 along the optical axis; where a row is padded they point along it.
        """
        cam2ego = self.view2key[:, :, None] @ self.cam2ego if in_key else self.cam2ego
        lens = torch.stack([self.intrinsics[..., 0, 0], self.intrinsics[..., 1, 1]], -1)[..., None, :]
        local = ((self.pixels - self.intrinsics[..., None, :2, 2]) / lens).nan_to_num(0.0)
        local = torch.cat([local, torch.ones_like(local[..., :1])], -1)
        directions = local @ cam2ego[..., :3, :3].mT
        return cam2ego[..., None, :3, 3].expand_as(directions), directions

    @property
    def is_point(self) -> Tensor:
        """(B, V, N, P) bool: no padding."""
        return self.depth > 0


class _Found(NamedTuple):
    """What is read of a sample: where its views come from; the points follow when it is known which views are wanted."""

    source: Any
    key: Sample
    adjacent: tuple[Sample | None, ...]  # None where the scene has none, or its poses are unknown


@dataclass(frozen=True)
class ViewLabels(Label[ViewTruth]):
    """2D labels as `views` says; `without` says in errors how to train the network without classes."""

    views: Views
    class_names: tuple[str, ...] = CLASSES
    without: str = ""

    what: ClassVar[str] = "2D labels"
    advice: ClassVar[str] = "Use a data set with LiDAR, or batch.with_labels({ViewLabels: ...})."

    def read(self, source: Any, token: str, fixed: Draw | None = None) -> _Found:
        """See `Label.read`. Raises DataError when the keyframe has no LiDAR scan, or its points no classes."""
        rigs, near = as_rig_source(source, self.what), source.neighbours(token)
        key, here = rigs.sample(token, with_boxes=False, occupancy=False), near.index(token)
        self._check(source, token, key)
        adjacent: list[Sample | None] = []
        for offset in self.views.adjacent:
            is_there = key.has_poses and 0 <= here + offset < len(near)
            adjacent.append(rigs.sample(near[here + offset], with_boxes=False, occupancy=False) if is_there else None)
        return _Found(source, key, tuple(adjacent))

    def apply(self, found: _Found, draw: Draw) -> dict[str, np.ndarray]:
        """One sample of a `ViewTruth`: the views that the draw's own random numbers choose, and points of them."""
        rng, key, bev = np.random.default_rng(draw.seed or 0), found.key, draw.bev.matrix()
        samples = [key, *self._chosen(found.adjacent, rng)]
        same = [sample is not None and len(sample.cameras) == len(key.cameras) for sample in samples]  # a camera may have failed
        used = [sample if sample is not None and fits else key for sample, fits in zip(samples, same, strict=True)]
        points = [self.points_of(found.source, sample) if fits else None for sample, fits in zip(used, same, strict=True)]
        cameras, global2key, unaugment = [sample.cameras for sample in used], invert(key.ego2global), np.linalg.inv(bev)
        cam2ego = [
            [bev @ invert(sample.ego2global) @ camera.ego2global @ camera.cam2ego for camera in row]
            for sample, row in zip(used, cameras, strict=True)
        ]
        return {
            **self._drawn(points, len(key.cameras), rng, draw.seed is not None),
            "intrinsics": np.array([[camera.intrinsics for camera in row] for row in cameras], np.float32),
            "cam2ego": np.array(cam2ego, np.float32),
            "view2key": np.array([bev @ global2key @ sample.ego2global @ unaugment for sample in used], np.float32),
            "size": np.array([[camera.size for camera in row] for row in cameras], np.int64),
            "is_present": np.array(same),
        }

    def collate(self, moved: Sequence[dict[str, np.ndarray] | None]) -> ViewTruth | None:
        """None if a sample does not have 2D labels."""
        known = [sample for sample in moved if sample is not None]
        if not known or len(known) < len(moved):
            return None
        most = max(sample["depth"].shape[-1] for sample in known)
        padded = [{name: _padded(array, name, most) for name, array in sample.items()} for sample in known]
        return ViewTruth(**{name: torch.from_numpy(np.stack([sample[name] for sample in padded])) for name in known[0]})

    def example(self, rng: np.random.Generator, shapes: Shapes) -> ViewTruth:
        """Twenty points of each image, up to 20 m away, of cameras that look forward from 1.5 m above the ground."""
        count = 1 + (self.views.drawn or len(self.views.adjacent))
        lead, (height, width) = (shapes.batch, count, shapes.cameras), shapes.image_size
        cam2ego = np.zeros((*lead, 4, 4), np.float32)
        cam2ego[...] = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]], np.float32)
        view2key = np.tile(np.eye(4, dtype=np.float32), (*lead[:2], 1, 1))
        view2key[:, :, 0, 3] = np.arange(count)
        focal = width / 2
        arrays = {
            "pixels": (rng.random((*lead, 20, 2)) * (width, height)).astype(np.float32),
            "depth": (1 + 19 * rng.random((*lead, 20))).astype(np.float32),
            "classes": rng.integers(0, len(self.class_names), (*lead, 20)).astype(np.uint8),
            "intrinsics": np.tile(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], np.float32), (*lead, 1, 1)),
            "cam2ego": cam2ego,
            "view2key": view2key,
            "size": np.tile(np.array(shapes.image_size, np.int64), (*lead, 1)),
            "is_present": np.ones(lead[:2], bool),
        }
        return ViewTruth(**{name: torch.from_numpy(array) for name, array in arrays.items()})

    def require(self, source: Any, tokens: Sequence[str]) -> None:
        """Raise DataError if the first keyframe has no labels of this kind, or a cache was made otherwise."""
        if self.views.cache:
            _check_cache(Path(self.views.cache), self.views)
        if tokens:
            self.read(source, tokens[0])

    def statistics(self, source: Any, tokens: Sequence[str]) -> dict[str, np.ndarray]:
        """`counts` (K,) int64 points of each class in up to 200 of the keyframes, and `frames`, how many these are."""
        counts, some = np.zeros(len(self.class_names), np.int64), spread(tokens, 200)
        for token in some:
            sample = as_rig_source(source, self.what).sample(token, with_boxes=False, occupancy=False)
            self._check(source, token, sample)
            for image in self.points_of(source, sample):
                counts += np.bincount(image.classes[image.classes < len(counts)], minlength=len(counts))
        return {"counts": counts, "frames": np.array(len(some))}

    def points_of(self, source: Any, sample: Sample) -> list[ImagePoints]:
        """The labelled points of each image of a keyframe. Raises DataError."""
        if self.views.cache:
            return _read_cache(Path(self.views.cache), sample)
        return view_points(source, sample, self.views)

    def _check(self, source: Any, token: str, sample: Sample) -> None:
        views = self.views
        if views.source == "dense" or views.cache:
            return
        if sample.lidar is None:
            raise DataError(
                f"keyframe {token} has no LiDAR scan, from which 2D labels are made. Use data with LiDAR, or for a street world its truth "
                "images: model.views.source=dense."
            )
        if views.source == "lidarseg" and getattr(source, "point_labels", lambda _: None)(token) is None:
            advice = f", or learn from depth alone: {self.without or 'model.views.source=lidar'}"
            raise DataError(f"keyframe {token} has no classes of its LiDAR points (lidarseg). Add nuScenes-lidarseg{advice}.")

    def _chosen(self, adjacent: Sequence[Sample | None], rng: np.random.Generator) -> list[Sample | None]:
        """The adjacent keyframes of this draw, in the order of time offsets: those that are there first."""
        count = self.views.drawn
        if not count or count >= len(adjacent):
            return list(adjacent)
        order = sorted(rng.permutation(len(adjacent)).tolist(), key=lambda i: adjacent[i] is None)
        return [adjacent[i] for i in sorted(order[:count])]

    def _drawn(
        self, points: list[list[ImagePoints] | None], cameras: int, rng: np.random.Generator, is_training: bool
    ) -> dict[str, np.ndarray]:
        """Points (V, N, P, *), drawn where there are more than `views.points`; without random numbers the same for each call."""
        views, empty = self.views, ImagePoints(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros(0, np.uint8))
        images = [image for row in points for image in (row if row is not None else [empty] * cameras)]
        if views.points and is_training:
            images = self._some(images, cameras, rng)
        elif views.points and sum(len(i.depth) for i in images) > views.points:
            step = -(-sum(len(i.depth) for i in images) // views.points)
            images = [ImagePoints(*(array[::step] for array in image)) for image in images]
        most = max(1, *(len(image.depth) for image in images))
        rows = {name: np.stack([_padded(getattr(i, name)[None], name, most)[0] for i in images]) for name in ImagePoints._fields}
        return {name: array.reshape(len(points), cameras, *array.shape[1:]) for name, array in rows.items()}

    def _some(self, images: list[ImagePoints], cameras: int, rng: np.random.Generator) -> list[ImagePoints]:
        """Points drawn without replacement, by their weights (Efraimidis and Spirakis, 2006)."""
        views, classes = self.views, np.concatenate([image.classes for image in images])
        sizes = [len(image.depth) for image in images]
        counts = np.bincount(classes, minlength=256)
        table = np.maximum(counts, 1.0) ** -views.balance
        if views.class_weights:
            table = np.ones(256)
            table[: len(views.class_weights)] = views.class_weights
        weight = table[classes]
        is_adjacent = np.repeat(np.arange(len(images)) >= cameras, sizes)
        weight = np.where(is_adjacent, weight * views.adjacent_weight, weight)
        moving = [self.class_names.index(name) for name in views.moving if name in self.class_names]
        weight = np.where(is_adjacent & np.isin(classes, moving), weight * views.moving_weight, weight)
        with np.errstate(divide="ignore"):
            keys = np.where(weight > 0, -rng.exponential(size=len(weight)) / weight, -np.inf)
        count = min(views.points, int((weight > 0).sum()))
        kept = np.zeros(len(keys), bool)
        if count:
            kept[np.argpartition(-keys, count - 1)[:count]] = True
        parts = np.split(kept, np.cumsum(sizes)[:-1])
        return [ImagePoints(*(array[part] for array in image)) for image, part in zip(images, parts, strict=True)]


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
    points = sample.lidar.load()[:, :3].astype(np.float64)
    classes = np.full(len(points), IGNORE, np.uint8)
    if views.source == "lidarseg":
        found = source.point_labels(sample.token)
        if found is None or len(found[0]) != len(points):
            count = "no" if found is None else len(found[0])
            raise DataError(f"keyframe {sample.token} has {len(points)} LiDAR points, but {count} classes of them. Restore lidarseg.")
        classes = _class_table(source)[found[0]]
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
    cell = np.array([size[1] / 200, size[1] / 100])
    column, row = (points.pixels / cell).astype(np.int64).T
    nearest = np.full((int(size[0] / cell[1]) + 2, 202), np.inf, np.float32)
    np.minimum.at(nearest, (row, column), points.depth)
    nearest = ndimage.minimum_filter(nearest, 3, mode="constant", cval=np.inf)[row, column]
    kept = points.depth <= nearest * (1 + share) + 1
    return ImagePoints(*(array[kept] for array in points))


def write_views(source: Any, tokens: Iterable[str], folder: Path, views: Views) -> int:
    """Write the 2D labels of keyframes, `TOKEN.npz` each, beside `views.json`, which says how they were made; how many are new.

    What is there already is not made again. Raises DataError, also for a folder of labels that were made otherwise.
    """
    about = folder / "views.json"
    if about.is_file():
        _check_cache(folder, views)
    else:
        write_json(about, _made_of(views), indent=2)
    new = 0
    for token in tokens:
        path = folder / f"{token}.npz"
        if path.is_file():
            continue
        images = view_points(source, source.sample(token, with_boxes=False, occupancy=False), views)
        arrays = {name: np.concatenate([getattr(image, name) for image in images]) for name in ImagePoints._fields}
        with atomic_path(path, ".npz") as temporary:
            arrays["counts"] = np.array([len(image.depth) for image in images])
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
        new += 1
    return new


def _made_of(views: Views) -> dict[str, Any]:
    """What the points of a keyframe depend on."""
    return {"source": views.source, "max_depth": views.max_depth, "hidden": views.hidden}


def _check_cache(folder: Path, views: Views) -> None:
    about, wanted = folder / "views.json", _made_of(views)
    if not about.is_file():
        raise DataError(f"{folder} holds no 2D labels. Write them: frustum data labels-2d ROOT --out {folder}")
    if (made := read_json(about, "settings of 2D labels")) != wanted:
        raise DataError(f"the 2D labels in {folder} were made with {made}, but {wanted} is wanted. Choose another --out folder.")


def _read_cache(folder: Path, sample: Sample) -> list[ImagePoints]:
    path = folder / f"{sample.token}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            ends = np.cumsum(stored["counts"])[:-1]
            images = zip(*(np.split(stored[name], ends) for name in ImagePoints._fields), strict=True)
            found = [ImagePoints(*image) for image in images]
    except Exception as error:  # zipfile, zlib, KeyError, ValueError: whatever a damaged file leads to
        raise DataError(f"cannot read the 2D labels {path}: {error}. Write them again: frustum data labels-2d") from error
    if len(found) != len(sample.cameras):
        raise DataError(f"{path} holds labels of {len(found)} images, but the keyframe has {len(sample.cameras)} cameras.")
    return found


def _class_table(source: Any) -> np.ndarray:
    """(256,) uint8: the class of a lidarseg id; `others` for categories that are none of Occ3D's, IGNORE for unknown ids."""
    table = np.full(256, IGNORE, np.uint8)
    for index, name in source.categories.items():
        table[index] = CLASSES.index(OCC3D_OF_CATEGORY.get(name, "others"))
    return table


def _dense(camera: CameraFrame, max_depth: float) -> ImagePoints:
    """Labels of all pixels of a street world's image but the sky."""
    folder = camera.path.parent.parent.parent / "extras"
    advice = 'Make the world with them: frustum data world OUT \'save=["depth","semantics"]\''
    paths = (folder / kind / camera.channel / f"{camera.path.stem}.png" for kind in ("depth", "semantics"))
    depth, ids = (np.asarray(read_image(path, lambda image: image.copy(), advice)) for path in paths)
    if depth.shape != ids.shape or depth.shape != tuple(camera.size):
        raise ShapeError(f"the truth images of {camera.path} have shapes {depth.shape} and {ids.shape}, the image {camera.size}.")
    table = np.full(256, IGNORE, np.uint8)
    table[: len(OCC3D_OF_CATEGORY)] = [CLASSES.index(name) for name in OCC3D_OF_CATEGORY.values()]
    metres = depth.astype(np.float32) / 256
    row, column = np.nonzero((metres >= 1) & (metres <= max_depth))
    return ImagePoints(np.stack([column + 0.5, row + 0.5], 1).astype(np.float32), metres[row, column], table[ids[row, column]])


def _padded(array: np.ndarray, name: str, most: int) -> np.ndarray:
    """Points (*, P, ...) with rows added up to `most`."""
    if name not in ImagePoints._fields:
        return array
    axis = array.ndim - 2 if name == "pixels" else array.ndim - 1
    fill = {"pixels": np.nan, "depth": 0, "classes": IGNORE}[name]
    widths = [(0, most - array.shape[axis] if i == axis else 0) for i in range(array.ndim)]
    return np.pad(array, widths, constant_values=fill)
