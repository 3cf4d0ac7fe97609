"""What is occupied, by which class and which object: voxel, ray and panoptic figures of one evaluation (docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from frustum.data.occ3d.instances import instances_from_boxes
from frustum.data.occ3d.result_files import read_result, result_files, write_result
from frustum.data.sample import Occupancy
from frustum.data.source import as_rig_source
from frustum.errors import DataError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.metrics.counts import CountMetric
from frustum.metrics.fscore import FScore
from frustum.metrics.occupancy import GeometricIoU, MaskName, OccupancyIoU
from frustum.metrics.ray_pq import RayPQ
from frustum.metrics.rayiou import RayIoU
from frustum.metrics.rays import RayCaster, lidar_origins
from frustum.metrics.voxel_pq import VoxelPQ
from frustum.tasks.blind_prior import BlindPrior
from frustum.tasks.task import (
    ClassFigures,
    Figure,
    Predictor,
    Progress,
    Submission,
    Task,
    grid_from,
    names_from,
    require_names,
    silent,
    tensor_from,
    without_nan,
)
from frustum.types.classes import FLAT_CLASSES, OBJECT_CLASSES, OCC3D_CLASSES
from frustum.types.layers import Layer, Legend, VoxelLayer
from frustum.types.predictions import Objects, PredictedOccupancy, Prediction
from frustum.types.table import percent

if TYPE_CHECKING:
    from typing_extensions import Self

MASKS: dict[MaskName, str] = {"camera": "camera mask", "lidar": "LiDAR mask", "none": "all voxels"}
_WHERE = {"camera": "on voxels that a camera observes", "lidar": "on voxels that the LiDAR observes", "none": "on all voxels"}
_OBJECTS = {"instance_ids": "ids", "instance_classes": "classes", "instance_centres": "centres", "instance_scores": "scores"}


# the texts of figures: `{n}` stands for the number of classes, `{where}` for the voxels, `{t}` for the tolerance in metres
_BY_MASK = (
    Figure(
        "miou", "mIoU", None, convention="{n} classes; absent from the truth but predicted counts 0 (FlashOCC)", published_as="mIoU",
        meaning="mean over {n} classes, {where}", group="Classes", is_headline=True,
    ),
    Figure("miou_absent_nan", "mIoU", None, convention="{n} classes; absent from the truth is left out (SparseOcc)"),
    Figure(
        "geometric_iou", "geometric IoU", None, convention="occupied against free",
        meaning="occupied or free, whatever the class, {where}", group="Shape",
    ),
    Figure(
        "geometric_iou_above_ground", "geometric IoU above ground", None, convention="occupied against free, flat classes taken as free",
        meaning="occupied or free, with road, pavement and terrain counted as free, {where}", group="Shape", is_headline=True,
    ),
    Figure("fscore", "F-score", None, convention="centres nearer than 0.6 m, mean over frames"),
    Figure(
        "voxel_pq", "voxel PQ", None, convention="segments of 20 voxels and more, matched above IoU 0.5",
        meaning="panoptic quality of voxels, {where}", group="Objects",
    ),
    Figure("voxel_sq", "voxel SQ", None, convention="mean IoU of matched segments"),
    Figure("voxel_rq", "voxel RQ", None, convention="F1 of finding segments"),
)  # fmt: skip
_BY_TOLERANCE = (
    Figure(
        "ray_iou", "RayIoU", None, convention="first hits of one class less than {t} apart",
        meaning="class and depth of what a LiDAR-like ray meets first", group="Rays", is_headline=True,
    ),
    Figure(
        "ray_pq", "RayPQ", None, convention="segments of 10 rays and more, hits less than {t} apart",
        meaning="panoptic quality of what rays meet first", group="Objects",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class TrueOccupancy:
    """The labels of one keyframe.

    Attributes:
        source, token: where more is read when it is needed.
        labels: classes and masks.
        origins: (K, 3) metres where rays start, or None where no rays are cast.
        class_names: what the ids mean; empty where the data set does not say.
    """

    source: Any
    token: str
    labels: Occupancy
    origins: np.ndarray | None = None
    class_names: tuple[str, ...] = ()


class OccupancyFiles(Predictor):
    """A folder of npz files, whoever made them (data/occ3d/result_files.py).

    Args:
        folder: holds `<token>.npz`, or as FlashOCC writes them `<scene>/<token>/pred.npz`.
        grid: the voxels of every file; Occ3D's by default.

    Attributes:
        files: by sample.
        tokens: samples that have a file.

    Raises:
        DataError: there is no such folder, or it holds no npz file.
    """

    def __init__(self, folder: Path | str, grid: VoxelGrid | None = None):
        self.folder, self.grid = Path(folder), grid or VoxelGrid.occ3d()
        self.name, self.files = self.folder.name, result_files(self.folder)
        self.tokens = list(self.files)
        if not self.tokens:
            what = f"{self.folder} holds no npz file" if self.folder.is_dir() else f"{self.folder} is not a folder"
            layouts = "TOKEN.npz, or SCENE/TOKEN/pred.npz as FlashOCC writes them"
            raise DataError(f"{what}. Occupancy results are a folder with one npz per keyframe, named by its sample token: {layouts}.")

    def answer(self, token: str) -> Prediction:
        """The prediction of one keyframe. Raises DataError for a file that is damaged, or of another shape or other class ids."""
        labels, instances = read_result(self.files.get(token, self.folder / f"{token}.npz"), self.grid)
        ids = None if instances is None else torch.from_numpy(instances)
        return Prediction(token, occupancy=PredictedOccupancy(torch.from_numpy(labels), self.grid, OCC3D_CLASSES, ids))


class OccupancySubmission(Submission):
    """Files of the Occ3D challenge: `<token>.npz` with one unnamed array."""

    def add(self, token: str, part: PredictedOccupancy, sample: Any) -> None:
        """Write one file. Raises DataError for other voxels than Occ3D's."""
        write_result(self.folder, token, part.semantics)


class OccupancyTask(Task):
    """Every figure that applies to what is predicted: panoptic ones where predictions hold instances, ray figures where there is a LiDAR.

    `compute` gives, by mask (camera, lidar, none): `miou`, `miou_absent_nan`, `geometric_iou`, `geometric_iou_above_ground`, `fscore`,
    `fscore_accuracy`, `fscore_completeness`, `mask_share`, `occupied_share`, `predicted_share`, `class_iou` (also by class), `voxel_pq`,
    `voxel_sq`, `voxel_rq`; by tolerance (mean, 1, 2, 4): `ray_iou`, `class_ray_iou`, `ray_pq`, `class_ray_pq`; and `class_share`, the
    share of each class inside the camera mask. All are ratios 0..1; a whole entry is None where there are no rays, or no instances.
    """

    name = "occupancy"
    part = "occupancy"
    protocol: ClassVar[Mapping[str, str]] = {
        "miou": "mean over the occupied classes (17 of Occ3D) of IoU inside the mask, counts pooled over all frames; free voxels count as "
        "errors; a class that is absent from the truth but predicted counts 0 (FlashOCC)",
        "miou_absent_nan": "the same, but a class that is absent from the truth is left out of the mean (SparseOcc)",
        "geometric_iou": "IoU of occupied against free voxels, whatever the class",
        "geometric_iou_above_ground": "the same with driveable_surface, other_flat, sidewalk and terrain taken as free on both sides",
        "ray_iou": "RayIoU at 1, 2 and 4 metres and their mean, rays from up to 8 LiDAR positions of the scene, no mask",
        "fscore": "harmonic mean of accuracy (share of occupied predicted voxels with an occupied true one less than 0.6 m away) and "
        "completeness (the converse) inside the mask, whatever the class; mean over frames",
        "ray_pq": "RayPQ at 1, 2 and 4 metres and their mean: segments of rays by class and instance, matched above IoU 0.5 where the hits "
        "are less than that apart; barriers, cones and all that is not an object are one segment per class; 10 rays and more",
        "voxel_pq": "panoptic quality of voxel segments inside the mask, matched above IoU 0.5, 20 voxels and more; voxel_sq and voxel_rq "
        "are its factors",
        "mask_share": "share of all voxels that the mask covers",
        "occupied_share": "share of the voxels inside the mask that are occupied",
        "predicted_share": "share of the voxels inside the mask that are predicted to be occupied",
        "class_share": "share of each class among the labelled voxels inside the camera mask",
    }
    submission = OccupancySubmission
    nothing_found = (
        "not one voxel is predicted to be occupied: a network that reads voxels out by a threshold may need a lower one (model.threshold)"
    )
    accepts = "a folder of occupancy predictions (one npz per keyframe, named by its sample token, or SCENE/TOKEN/pred.npz)"

    def __init__(self, order: Sequence[str] = (), slow: bool = True):
        super().__init__(order, slow)
        self.class_names: tuple[str, ...] = ()  # those of the first prediction; empty until then
        self.grid = VoxelGrid.occ3d()
        self.has_instances = self.has_rays = False
        self.shares = np.zeros((len(MASKS), 3), np.int64)  # voxels inside the mask, occupied ones of them, voxels in all

    def _begin(self, part: PredictedOccupancy) -> None:
        """Set up the metrics for these classes and voxels."""
        self.class_names, self.grid, self.has_instances = part.class_names, part.grid, part.instances is not None
        count, threads, things = len(part.class_names), torch.get_num_threads(), _ids(OBJECT_CLASSES, part.class_names)
        free = count - 1
        self.miou = {mask: OccupancyIoU(count, free, mask) for mask in MASKS}
        self.voxel_pq = {mask: VoxelPQ(count, free, mask, things) for mask in MASKS}
        self.fscore = {mask: FScore(free, mask, grid=part.grid) for mask in MASKS}
        self.caster = RayCaster(free, part.grid, threads=threads)
        self.rays = RayIoU(count, caster=self.caster)
        self.ray_pq = RayPQ(count, caster=self.caster, things=things)

    def truth(self, source: Any, token: str) -> TrueOccupancy:
        """See `Task.truth`."""
        labels = as_rig_source(source, "occupancy labels").sample(token, with_boxes=False, occupancy=True).occupancy
        if labels is None:
            raise DataError(f"sample {token} has no occupancy labels to compare with; use `frustum predict` for such data.")
        has_rays = self.slow and "lidar" in getattr(source, "channels", {}).values()
        origins = origins_of(source, token) if has_rays else None
        return TrueOccupancy(source, token, labels, origins, getattr(source, "occupancy_classes", ()))

    def add(self, token: str, part: PredictedOccupancy, truth: TrueOccupancy) -> None:
        """See `Task.add`."""
        if not self.class_names:
            self._begin(part)
        require_names(token, part.class_names, truth.class_names or self.class_names)
        if self.has_instances != (part.instances is not None):
            raise DataError(f"some predictions hold instances and others do not ({token}): predict all frames in one way.")
        labels = truth.labels
        if tuple(part.semantics.shape) != labels.semantics.shape:
            sizes = f"has {tuple(part.semantics.shape)} voxels, but its labels have {labels.semantics.shape}"
            raise ShapeError(f"the prediction of {token} {sizes}. Predict on the grid of the labels.")
        guess, true, free = part.semantics.numpy(), labels.semantics, len(self.class_names) - 1
        masks: dict[MaskName, np.ndarray | None] = {"camera": labels.mask_camera, "lidar": labels.mask_lidar, "none": None}
        for i, (mask, observed) in enumerate(masks.items()):
            self.miou[mask].add(guess, true, observed)
            self.fscore[mask].add(guess, true, observed)
            inside = np.ones(true.shape, bool) if observed is None else observed.astype(bool)
            self.shares[i] += [np.count_nonzero(inside), np.count_nonzero(inside & (true != free)), true.size]
        ids = None if part.instances is None else true_instances(truth.source, token, labels, self.grid)
        if ids is not None and part.instances is not None:
            for mask, observed in masks.items():
                self.voxel_pq[mask].add(guess, true, part.instances, ids, observed)
        if truth.origins is not None:
            self.has_rays = True
            hits, distances = self.caster.cast(guess, true, truth.origins)
            self.rays.add_hits(hits, distances)
            if ids is not None and part.instances is not None:
                self.ray_pq.add_hits(hits, distances, part.instances, ids)

    def merge(self, other: Self) -> Self:
        """See `Task.merge`. Raises ConfigError for other classes or another grid."""
        self.require_alike(other, "class_names", "grid", "has_instances")
        for mine, others in zip(self._metrics(), other._metrics(), strict=True):
            mine.merge(others)
        self.shares = self.shares + other.shares
        self.has_rays |= other.has_rays
        return self

    def _metrics(self) -> list[CountMetric]:
        return [*self.miou.values(), *self.fscore.values(), *self.voxel_pq.values(), self.rays, self.ray_pq]

    def compute(self) -> dict[str, Any]:
        """See `Task.compute`, and the class."""
        by_mask = {mask: self._under(mask, shares) for mask, shares in zip(MASKS, self.shares.tolist(), strict=True)}
        true = self.miou["camera"].confusion.sum(1)
        figures: dict[str, Any] = {name: {mask: found[name] for mask, found in by_mask.items()} for name in by_mask["camera"]}
        figures["class_share"] = self._by_class((true / max(1, true.sum())).tolist())
        if not self.has_instances:
            figures |= dict.fromkeys(("voxel_pq", "voxel_sq", "voxel_rq"))
        figures |= dict.fromkeys(("ray_iou", "class_ray_iou", "ray_pq", "class_ray_pq"))
        if self.has_rays:
            figures["ray_iou"], figures["class_ray_iou"] = self._at_tolerances(self.rays, "rayiou")
        if self.has_rays and self.has_instances:
            figures["ray_pq"], figures["class_ray_pq"] = self._at_tolerances(self.ray_pq, "raypq")
        return without_nan(figures)

    def _under(self, mask: MaskName, shares: Sequence[int]) -> dict[str, Any]:
        """The figures under one mask; `shares` is its row of `self.shares`."""
        metric, (inside, occupied, voxels) = self.miou[mask], shares
        found, surface, panoptic = metric.compute(), self.fscore[mask].compute(), self.voxel_pq[mask].compute()
        absent_nan = OccupancyIoU(metric.num_classes, metric.free, metric.mask, absent="nan").load_state(metric.state)
        return {
            "miou": found["miou"],
            "miou_absent_nan": absent_nan.compute()["miou"],
            "geometric_iou": self._geometric(metric, above_ground=False),
            "geometric_iou_above_ground": self._geometric(metric, above_ground=True),
            **{"fscore": surface["fscore"], "fscore_accuracy": surface["accuracy"], "fscore_completeness": surface["completeness"]},
            "class_iou": self._by_class(found["per_class"]),
            "mask_share": inside / voxels if voxels else None,
            "occupied_share": occupied / inside if inside else None,
            "predicted_share": float(np.delete(metric.confusion, metric.free, 1).sum() / metric.confusion.sum()) if inside else None,
            **{f"voxel_{kind}": panoptic[kind] for kind in ("pq", "sq", "rq")},
        }

    def _geometric(self, metric: OccupancyIoU, above_ground: bool) -> float:
        """Geometric IoU of the same counts."""
        flat = _ids(FLAT_CLASSES, self.class_names)
        geometric = GeometricIoU(above_ground, metric.num_classes, metric.free, metric.mask, flat)
        geometric.add_confusion(metric.confusion)
        return geometric.compute()["iou"]

    def _at_tolerances(self, metric: RayIoU | RayPQ, name: str) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        found, tolerances = metric.compute(), [f"{t:g}" for t in metric.thresholds]
        classes = {t: self._by_class(row) for t, row in zip(tolerances, found["per_class"], strict=True)}
        return {"mean": found[name], **{t: found[f"{name}@{t}"] for t in tolerances}}, classes

    def _by_class(self, values: list[float]) -> dict[str, float]:
        return dict(zip(self.class_names, values, strict=True))

    # ---- what the figures are ---------------------------------------------------------------------------------------------------

    @classmethod
    def figures(cls, metrics: Mapping[str, Any]) -> list[Figure]:
        """See `Task.figures`."""
        found, count = [], len((metrics.get("class_iou") or {}).get("camera") or OCC3D_CLASSES) - 1
        for row in _BY_MASK:
            for mask, value in (metrics.get(row.key) or {}).items():
                rule, meaning = (text.format(n=count, where=_WHERE[mask]) for text in (row.convention, row.meaning))
                figure = row._replace(key=f"{row.key}.{mask}", value=value, counted=MASKS[mask], convention=rule, meaning=meaning)
                if mask != "camera":  # comparisons and reports show mIoU under every mask, the others where cameras observe
                    figure = figure._replace(published_as="", group=row.group if row.key == "miou" else "", is_headline=False)
                found.append(figure)
        for row in _BY_TOLERANCE:
            for tolerance, value in (metrics.get(row.key) or {}).items():
                mean, metres = tolerance == "mean", f"{tolerance} m"
                name = row.name if mean else f"{row.name}@{tolerance}"
                convention = "mean of the three" if mean else row.convention.format(t=metres)
                meaning = f"{row.meaning}; mean over the three tolerances" if mean else f"depth right to within {metres}"
                group = row.group if mean or row.is_headline else ""
                headline = row.is_headline and mean
                found.append(Figure(f"{row.key}.{tolerance}", name, value, "%", "rays", convention, name, meaning, group, headline))
        return found

    @classmethod
    def classes(cls, metrics: Mapping[str, Any]) -> ClassFigures:
        """See `Task.classes`."""
        rays = metrics.get("class_ray_iou") or {}
        columns = {"IoU (camera mask)": metrics["class_iou"]["camera"], **{f"RayIoU@{t}": table for t, table in rays.items()}}
        means = {"IoU (camera mask)": metrics["miou"]["camera"], **{f"RayIoU@{t}": metrics["ray_iou"][t] for t in rays}}
        names = list(metrics["class_iou"]["camera"])[:-1]
        kept = {column: {name: values[name] for name in names} for column, values in columns.items()}
        share = metrics.get("class_share")
        return ClassFigures("IoU by class", Legend.of(names), kept, means, share=share and {name: share[name] for name in names})

    @classmethod
    def notes(cls, metrics: Mapping[str, Any]) -> list[str]:
        """What the masks cover."""
        shares, occupied = metrics.get("mask_share"), metrics.get("occupied_share")
        if not shares or not occupied:
            return []
        parts = [f"{MASKS[mask]} {percent(shares[mask])} % of the voxels, {percent(occupied[mask])} % of them occupied" for mask in shares]
        is_empty = (metrics.get("predicted_share") or {}).get("none") == 0
        return ["covered: " + "; ".join(parts), *([f"{cls.nothing_found}."] if is_empty else [])]

    # ---- predictions ------------------------------------------------------------------------------------------------------------

    def baselines(self, source: Any, split: str, progress: Progress = silent) -> list[Predictor]:
        """The blind prior."""
        return [BlindPrior.fit(source, split, self.grid, self.class_names or OCC3D_CLASSES, progress)]

    @classmethod
    def recognise(cls, path: Path) -> OccupancyFiles | None:
        """A folder of npz files. Raises DataError for one without, and for a single npz file."""
        if path.suffix == ".npz" and path.is_file():
            raise DataError(f"{path} is the prediction of a single keyframe: give its folder, --results {path.parent}.")
        if not path.is_dir():
            return None
        if result_files(path):
            return OccupancyFiles(path)
        if any(path.glob("*.npz")) or any(path.glob("*.png")):  # those of other questions, and label maps
            return None
        files = sorted(path.glob("*.json"))
        if files:
            raise DataError(f"{path} holds no npz file, but JSON: if that is a detection submission, give the file, --results {files[0]}.")
        return OccupancyFiles(path)

    @classmethod
    def is_empty(cls, part: PredictedOccupancy) -> bool:
        """Whether all voxels are free."""
        return bool((part.semantics == len(part.class_names) - 1).all())

    @classmethod
    def layers(cls, part: PredictedOccupancy) -> list[Layer]:
        """The voxels, with the objects where the prediction separates them."""
        objects = None
        if part.objects is not None and part.instances is not None:
            numbers = part.instances.numpy()
            objects = np.where(np.isin(numbers, part.objects.ids.numpy()), numbers, 0)
        return [_voxels(part.semantics.numpy(), part, None, objects)]

    @classmethod
    def truth_layers(cls, truth: TrueOccupancy, part: PredictedOccupancy | None = None) -> list[Layer]:
        """The voxels; with the true objects if the prediction separates objects."""
        labels, objects = truth.labels, None
        if part is not None and part.objects is not None:
            is_thing = np.isin(labels.semantics, _ids(OBJECT_CLASSES, part.class_names))
            objects = np.where(is_thing, true_instances(truth.source, truth.token, labels, part.grid), 0)
        return [_voxels(labels.semantics, part, labels.mask_camera, objects)]

    @classmethod
    def path(cls, folder: Path, token: str) -> Path:
        """See `Task.path`: the token alone, as in version 0.1."""
        return folder / f"{token}.npz"

    @classmethod
    def arrays(cls, part: PredictedOccupancy) -> dict[str, np.ndarray]:
        """`semantics` uint8 (X, Y, Z), `class_names` (K,) text, the grid as `lower`, `upper` and `cell` (3,) in metres.

        Beside these, where they are predicted, `instances` uint16 (X, Y, Z), and of each object `instance_ids` (I,), `instance_classes`
        (I,), `instance_centres` (I, 3) in metres and `instance_scores` (I,).
        """
        optional = {} if part.instances is None else {"instances": part.instances.numpy().astype(np.uint16)}
        if part.objects is not None:
            optional |= {name: getattr(part.objects, field).numpy() for name, field in _OBJECTS.items()}
        semantics, grid = part.semantics.numpy().astype(np.uint8), {name: np.array(value) for name, value in part.grid}
        return {**optional, "semantics": semantics, "class_names": np.array(part.class_names), **grid}

    @classmethod
    def restored(cls, stored: Mapping[str, np.ndarray]) -> PredictedOccupancy:
        """The inverse of `arrays`."""
        grid, objects = grid_from(stored), None
        ids = tensor_from(stored, "instances", "iu", *grid.shape).to(torch.int32) if "instances" in stored else None
        if all(name in stored for name in _OBJECTS):
            count = len(stored["instance_ids"])
            shapes: dict[str, tuple[int, ...]] = {name: (count, 3) if field == "centres" else (count,) for name, field in _OBJECTS.items()}
            objects = Objects(**{field: tensor_from(stored, name, "iuf", *shapes[name]) for name, field in _OBJECTS.items()})
        return PredictedOccupancy(tensor_from(stored, "semantics", "u", *grid.shape), grid, names_from(stored), ids, objects)


def origins_of(source: Any, token: str) -> np.ndarray:
    """Ray origins (K, 3) of a keyframe, in metres: LiDAR positions of its scene (`metrics.rays.lidar_origins`)."""
    scene = source.scene(token)
    lidar2ego, ego2global = source.lidar_poses(scene.name)
    return lidar_origins(lidar2ego, ego2global, scene.tokens.index(token))


def true_instances(source: Any, token: str, labels: Occupancy, grid: VoxelGrid | None = None) -> np.ndarray:
    """True instances (X, Y, Z): those of the labels, of the panoptic label file, or else derived from the boxes as that file was."""
    if labels.instances is not None:
        return labels.instances
    sample = source.sample(token, occupancy="instances")
    if sample.occupancy is not None and sample.occupancy.instances is not None:
        return sample.occupancy.instances
    boxes = sample.boxes
    poses, sizes = (boxes.box2ego, boxes.boxes[:, 3:6]) if boxes else (np.zeros((0, 4, 4)), np.zeros((0, 3)))
    return instances_from_boxes(labels.semantics, poses, sizes, boxes.names if boxes else [], grid)


def _voxels(labels: np.ndarray, part: PredictedOccupancy | None, mask: np.ndarray | None, objects: np.ndarray | None) -> VoxelLayer:
    names, grid = (OCC3D_CLASSES, VoxelGrid.occ3d()) if part is None else (part.class_names, part.grid)
    return VoxelLayer(labels, Legend.of(names), len(names) - 1, grid, _ids(FLAT_CLASSES, names), mask, objects)


def _ids(classes: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    """The ids of `classes` in `names`, ascending."""
    return tuple(i for i, name in enumerate(names) if name in classes)
