"""What the cameras see, rendered from a prediction: class and depth of pixels beside those of LiDAR points (docs/metrics.md).

This is the question that networks with 2D labels are taught (GSRender, RenderOcc): it says how well they learned, occupancy what it is
good for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from frustum.data.labels.view_points import ImagePoints, Views, view_points
from frustum.data.source import as_rig_source
from frustum.errors import DataError
from frustum.geometry import VoxelGrid, invert, transform_points
from frustum.geometry.plausible import DEPTH, NEAR, first_fault, intrinsics_fault, pose_fault
from frustum.metrics.depth_errors import DepthErrors
from frustum.metrics.semantic_iou import SemanticIoU
from frustum.tasks.task import ClassFigures, Figure, Task, grid_from, names_from, require_names, tensor_from, without_nan
from frustum.types.classes import IGNORE
from frustum.types.layers import Layer, Legend, ViewLayer
from frustum.types.predictions import PredictedViews

if TYPE_CHECKING:
    from typing_extensions import Self


_SAME = 0.05  # metres, and entries of a rotation, within which a view is of a camera


class TrueViews(NamedTuple):
    """2D labels of N cameras.

    Attributes:
        points: of each image, in its own pixels.
        intrinsics: (N, 3, 3) of these.
        cam2ego: (N, 4, 4) to the ego frame of the keyframe.
    """

    points: list[ImagePoints]
    intrinsics: np.ndarray
    cam2ego: np.ndarray


class RenderedViewsTask(Task):
    """`compute` gives `miou`, `accuracy`, `class_iou` of pixels whose class is known, `seen`, and of depth `abs_rel`, `rmse` and `delta1`.

    Pixels with a LiDAR point inside the grid count, the nearest where there are several. All are ratios 0..1 but `rmse`, in metres.
    """

    name = "rendered_views"
    part = "views"
    protocol: ClassVar[Mapping[str, str]] = {
        "miou": "mean over the classes of the IoU of pixels with a labelled LiDAR point inside the grid, the nearest one where there are "
        "several, counts pooled; where less than half of the light ends, the pixel is a miss; classes that are neither true nor predicted "
        "there are left out",
        "accuracy": "share of these pixels whose class is right",
        "seen": "share of the pixels with a LiDAR point inside the grid along which at least half of the light ends",
        "abs_rel": "mean of |rendered - true| / true depth over the pixels that are seen, mean over images",
        "rmse": "root of the mean squared error of their depth in metres, mean over images",
        "delta1": "share of them whose depth is within a factor of 1.25, mean over images",
    }

    class_names: tuple[str, ...] = ()
    _classes: SemanticIoU | None = None

    def __init__(self, order: Any = (), slow: bool = True):
        super().__init__(order, slow)
        self._depth = DepthErrors(cap=200)
        self._labelled = self._seen = 0

    def truth(self, source: Any, token: str) -> TrueViews:
        """See `Task.truth`."""
        sample = as_rig_source(source, "2D labels").sample(token, with_boxes=False, occupancy=False)
        if sample.lidar is None:
            raise DataError(f"keyframe {token} has no LiDAR scan to compare rendered views with.")
        has_classes = getattr(source, "has_point_labels", lambda _: False)(token)
        points = view_points(source, sample, Views(source="lidarseg" if has_classes else "lidar"))
        cam2ego = [invert(sample.ego2global) @ camera.ego2global @ camera.cam2ego for camera in sample.cameras]
        return TrueViews(points, np.stack([camera.intrinsics for camera in sample.cameras]), np.stack(cam2ego))

    def add(self, token: str, part: PredictedViews, truth: TrueViews) -> None:
        """See `Task.add`."""
        if self._classes is None:
            self.class_names, self._classes = part.class_names, SemanticIoU(len(part.class_names), IGNORE)
        require_names(token, part.class_names, self.class_names)
        for labels, depth, (true_labels, true_depth) in zip(part.labels.numpy(), part.depth.numpy(), _images(truth, part), strict=True):
            is_labelled, is_seen = true_depth > 0, depth > 0
            self._labelled += int(is_labelled.sum())
            self._seen += int((is_labelled & is_seen).sum())
            self._classes.add(labels, true_labels)
            self._depth.add(depth, np.where(is_seen, true_depth, 0))

    def merge(self, other: Self) -> Self:
        """See `Task.merge`."""
        self.require_alike(other, "class_names")
        if self._classes is not None and other._classes is not None:
            self._classes.merge(other._classes)
        self._depth.merge(other._depth)
        self._labelled, self._seen = self._labelled + other._labelled, self._seen + other._seen
        return self

    def compute(self) -> dict[str, Any]:
        """See `Task.compute`, and the class."""
        found, depth = (self._classes or SemanticIoU(1)).compute(), self._depth.compute()
        by_class = dict(zip(self.class_names, found["per_class"], strict=False))
        seen = self._seen / self._labelled if self._labelled else None
        errors = {name: depth[name] for name in ("abs_rel", "rmse", "delta1")}
        return without_nan({"miou": found["miou"], "accuracy": found["accuracy"], "class_iou": by_class, "seen": seen, **errors})

    @classmethod
    def figures(cls, metrics: Mapping[str, Any]) -> list[Figure]:
        """See `Task.figures`."""
        on, group = "pixels with a LiDAR point", "Rendered views"
        mean, right = "mean over the classes of the IoU of rendered pixels", "share of rendered pixels whose class is right"
        seen, error = "share of pixels where the prediction shows something", "mean relative error of rendered depth"
        return [
            Figure("miou", "rendered mIoU", metrics["miou"], "%", on, "pooled", "", mean, group, True),
            Figure("accuracy", "rendered accuracy", metrics["accuracy"], "%", on, "all classes", "", right, group),
            Figure("seen", "seen", metrics["seen"], "%", on, "half of the light and more ends", "", seen, group),
            Figure(
                "abs_rel",
                "depth AbsRel",
                metrics["abs_rel"],
                "of the true depth",
                on,
                "where seen, by image",
                "",
                error,
                group,
                True,
                False,
            ),
            Figure("rmse", "depth RMSE", metrics["rmse"], "m", on, "where seen, by image", higher_is_better=False),
            Figure("delta1", "depth within 1.25", metrics["delta1"], "%", on, "where seen, by image"),
        ]

    @classmethod
    def classes(cls, metrics: Mapping[str, Any]) -> ClassFigures | None:
        """See `Task.classes`."""
        values = metrics["class_iou"]
        if not any(value is not None for value in values.values()):  # depth alone
            return None
        return ClassFigures("IoU of rendered pixels by class", Legend.of(list(values)), {"IoU": values}, {"IoU": metrics["miou"]})

    @classmethod
    def layers(cls, part: PredictedViews) -> list[Layer]:
        """A view of each camera."""
        legend, lenses = Legend.of(part.class_names), part.intrinsics.numpy()
        return [ViewLayer(*view, legend, IGNORE) for view in zip(part.labels.numpy(), part.depth.numpy(), lenses, strict=True)]

    @classmethod
    def truth_layers(cls, truth: TrueViews, part: PredictedViews | None = None) -> list[Layer]:
        """The labelled points in the pixels of the prediction; nothing without one."""
        if part is None:
            return []
        legend, images = Legend.of(part.class_names), _images(truth, part, inside=False)
        return [ViewLayer(*image, lens, legend, IGNORE) for image, lens in zip(images, part.intrinsics.numpy(), strict=True)]

    @classmethod
    def arrays(cls, part: PredictedViews) -> dict[str, np.ndarray]:
        """`labels` uint8 and `depth` float16 (N, H, W), `intrinsics` (N, 3, 3), `cam2ego` (N, 4, 4), `class_names` (K,) text, and the grid.

        The grid is `lower`, `upper` and `cell` (3,) in metres.
        """
        found = {name: getattr(part, name).numpy() for name in ("labels", "intrinsics", "cam2ego")}
        grid = {name: np.array(value) for name, value in part.grid}
        return {**found, "depth": part.depth.numpy().astype(np.float16), "class_names": np.array(part.class_names), **grid}

    @classmethod
    def restored(cls, stored: Mapping[str, np.ndarray]) -> PredictedViews:
        """The inverse of `arrays`."""
        labels = tensor_from(stored, "labels", "u", None, None, None)
        depth = tensor_from(stored, "depth", "f", *labels.shape).float()
        lenses, poses = (tensor_from(stored, name, "f", len(labels), n, n) for name, n in (("intrinsics", 3), ("cam2ego", 4)))
        for found in filter(None, (intrinsics_fault(lenses), pose_fault(poses, NEAR), first_fault(depth[..., None], DEPTH))):
            raise ValueError(found.words)
        return PredictedViews(labels, depth, lenses, poses, names_from(stored), grid_from(stored))


def _images(truth: TrueViews, part: PredictedViews, inside: bool = True) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels (H, W) uint8, IGNORE where there is no point, and depth (H, W) float32, 0 there, in the pixels of a prediction's views."""
    size, images = part.labels.shape[1:], []
    for own, pose in zip(part.intrinsics.numpy(), part.cam2ego.numpy(), strict=True):
        distance = np.abs(truth.cam2ego - pose).max((1, 2))  # one view may be of some cameras, in another order
        if not len(distance) or distance.min() > _SAME:
            raise DataError(
                f"no camera of the keyframe stands at {pose[:3, 3].round(2).tolist()} (ego frame, metres), where a view is from."
            )
        camera = int(distance.argmin())
        points, lens, cam2ego = truth.points[camera], truth.intrinsics[camera], truth.cam2ego[camera]
        rays = np.column_stack([points.pixels, np.ones(len(points.depth))]) @ np.linalg.inv(lens).T
        place = np.floor((rays @ own.T)[:, :2]).astype(np.int64)
        kept = ((place >= 0) & (place < (size[1], size[0]))).all(1)
        if inside:
            kept &= _is_inside(transform_points(cam2ego, rays * points.depth[:, None]), part.grid)
        order = np.flatnonzero(kept)[np.argsort(-points.depth[kept], kind="stable")]  # the nearest last
        labels, depth = np.full(size, IGNORE, np.uint8), np.zeros(size, np.float32)
        at = place[order, 1], place[order, 0]
        labels[at], depth[at] = points.classes[order], points.depth[order]
        images.append((labels, depth))
    return images


def _is_inside(points: np.ndarray, grid: VoxelGrid) -> np.ndarray:
    return np.all((points >= grid.lower) & (points < grid.upper), 1)
