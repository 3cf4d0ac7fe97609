"""2D labels: points in the images of a keyframe and of adjacent keyframes, each with its depth and, where it is known, its class.

They are made while loading (`data.labels.view_points`). The images of the adjacent keyframes are not read: their labels are all that is
needed to learn from their views.

Shape letters: B batch, V views (the keyframe first), N cameras, P points of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from frustum.data.augment import Draw
from frustum.data.labels.view_cache import check_cache, read_cache
from frustum.data.labels.view_points import CLASSES, ImagePoints, Views, in_space, view_points, without_uncovered
from frustum.data.sample import Sample
from frustum.data.source import as_rig_source, spread
from frustum.errors import ConfigError, DataError
from frustum.geometry import invert
from frustum.types.classes import IGNORE
from frustum.types.contract import Label, Shapes


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
        local = (self.pixels - self.intrinsics[..., None, :2, 2]) / lens
        local = torch.where(self.is_point[..., None], local, 0)
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

    def __post_init__(self) -> None:
        if self.class_names != CLASSES:
            raise ConfigError(
                f"2D labels have the classes of Occ3D, but the network has {', '.join(self.class_names)} (model.class_names)."
            )

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
            sample = rigs.sample(near[here + offset], with_boxes=False, occupancy=False) if is_there else None
            adjacent.append(None if sample is None or self._lacks(source, sample) else sample)
        return _Found(source, key, tuple(adjacent))

    def apply(self, found: _Found, draw: Draw) -> dict[str, np.ndarray]:
        """One sample of a `ViewTruth`: the views that the draw's own random numbers choose, and points of them."""
        rng, key, bev = np.random.default_rng(draw.seed or 0), found.key, draw.bev.matrix()
        samples = [key, *self._chosen(found.adjacent, rng)]
        same = [sample is not None and len(sample.cameras) == len(key.cameras) for sample in samples]  # a camera may have failed
        used = [sample if sample is not None and fits else key for sample, fits in zip(samples, same, strict=True)]
        points = [self.points_of(found.source, sample) if fits else None for sample, fits in zip(used, same, strict=True)]
        if not self.views.uncovered:
            points = self._without_uncovered(points, used)
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
        """Raise DataError if the first keyframe has no labels of this kind, or a cache was made otherwise or of another data set."""
        if self.views.cache:
            check_cache(Path(self.views.cache), self.views)
        if tokens:
            found = self.read(source, tokens[0])
            if self.views.adjacent and not any(self._has_adjacent(source, token) for token in tokens):
                offsets = ", ".join(f"{n:+d}" for n in self.views.adjacent)
                raise DataError(
                    f"none of {len(tokens)} keyframes has an adjacent one ({offsets}) in its scene. "
                    "Set model.views.adjacent to offsets that the scenes are long enough for, such as -1,1."
                )
            if self.views.cache:
                self.points_of(source, found.key)

    def statistics(self, source: Any, tokens: Sequence[str]) -> dict[str, np.ndarray]:
        """`counts` (K,) int64 points of each class in up to 200 of the keyframes, `points`, those without a class too, and `frames`."""
        counts, points, some = np.zeros(len(self.class_names), np.int64), 0, spread(tokens, 200)
        for token in some:
            sample = as_rig_source(source, self.what).sample(token, with_boxes=False, occupancy=False)
            self._check(source, token, sample)
            for image in self.points_of(source, sample):
                counts += np.bincount(image.classes[image.classes < len(counts)], minlength=len(counts))
                points += len(image.depth)
        if some and not points:
            raise DataError(
                f"none of {len(some)} keyframes has a labelled pixel: there is nothing to learn from. Look at them with frustum check, "
                "and at model.views.max_depth and model.views.hidden."
            )
        return {"counts": counts, "points": np.array(points), "frames": np.array(len(some))}

    def described(self, source: Any, tokens: Sequence[str], statistics: Mapping[str, np.ndarray]) -> str:
        """What is known of which pixels of which keyframes; how many these are, where the statistics say so."""
        views, every = self.views, len(self.views.adjacent)
        drawn = views.drawn or every
        near = f"{drawn} of {every}" if drawn < every else f"{every}"
        near = f" and {near} adjacent keyframe{'s' * (every > 1)}" if every else ""
        words = {
            "lidarseg": "class and depth of LiDAR points",
            "lidar": "depth of LiDAR points, no class",
            "dense": "class and depth of all pixels",
        }
        count = f", {views.points:,} of all views drawn at a time" if views.points else ""
        if "points" in statistics and statistics["frames"] > 0:
            count = f", about {_rounded(statistics['points'] / statistics['frames']):,} labelled pixels a keyframe{count}"
        return f"2D labels of the keyframe{near} ({words[views.source]}{count})"

    def points_of(self, source: Any, sample: Sample) -> list[ImagePoints]:
        """The labelled points of each image of a keyframe. Raises DataError."""
        if self.views.cache:
            return read_cache(Path(self.views.cache), source, sample, self.views)
        return view_points(source, sample, self.views)

    def _has_adjacent(self, source: Any, token: str) -> bool:
        near = source.neighbours(token)
        here = near.index(token)
        return any(0 <= here + offset < len(near) for offset in self.views.adjacent)

    def _check(self, source: Any, token: str, sample: Sample) -> None:
        lacks = self._lacks(source, sample)
        if lacks == "scan":
            raise DataError(
                f"keyframe {token} has no LiDAR scan, from which 2D labels are made. Use data with LiDAR, or for a street world its truth "
                "images: model.views.source=dense."
            )
        if lacks == "classes":
            advice = f", or learn from depth alone: {self.without or 'model.views.source=lidar'}"
            raise DataError(f"keyframe {token} has no classes of its LiDAR points (lidarseg). Add nuScenes-lidarseg{advice}.")

    def _lacks(self, source: Any, sample: Sample) -> str:
        """What labels of a keyframe would need: a `scan`, or `classes` of its points; empty where all is there."""
        if self.views.source == "dense" or self.views.cache:
            return ""
        if sample.lidar is None:
            return "scan"
        has_classes = self.views.source == "lidar" or source.has_point_labels(sample.token)
        return "" if has_classes else "classes"

    def _chosen(self, adjacent: Sequence[Sample | None], rng: np.random.Generator) -> list[Sample | None]:
        """The adjacent keyframes of this draw, in the order of time offsets: those that are there first."""
        count = self.views.drawn
        if not count or count >= len(adjacent):
            return list(adjacent)
        order = sorted(rng.permutation(len(adjacent)).tolist(), key=lambda i: adjacent[i] is None)
        return [adjacent[i] for i in sorted(order[:count])]

    def _without_uncovered(self, points: list[list[ImagePoints] | None], samples: Sequence[Sample]) -> list[list[ImagePoints] | None]:
        """Points (V, N), in adjacent keyframes without those behind where something moving is now (`Views.uncovered`)."""
        moving = [self.class_names.index(name) for name in self.views.moving if name in self.class_names]
        things = [
            in_space(ImagePoints(*(array[np.isin(image.classes, moving)] for array in image)), camera)
            for image, camera in zip(points[0] or (), samples[0].cameras, strict=False)
        ]
        found: list[list[ImagePoints] | None] = points[:1]
        for row, sample in zip(points[1:], samples[1:], strict=True):
            pairs = None if row is None else zip(row, sample.cameras, strict=True)
            found.append(None if pairs is None else [without_uncovered(image, camera, np.concatenate(things)) for image, camera in pairs])
        return found

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


def _rounded(count: float) -> int:
    """To three digits."""
    return int(float(f"{count:.3g}"))


def _padded(array: np.ndarray, name: str, most: int) -> np.ndarray:
    """Points (*, P, ...) with rows added up to `most`."""
    if name not in ImagePoints._fields:
        return array
    axis = array.ndim - 2 if name == "pixels" else array.ndim - 1
    fill = {"pixels": np.nan, "depth": 0, "classes": IGNORE}[name]
    widths = [(0, most - array.shape[axis] if i == axis else 0) for i in range(array.ndim)]
    return np.pad(array, widths, constant_values=fill)
