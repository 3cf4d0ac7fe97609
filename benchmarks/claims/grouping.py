"""Ways to cut predicted semantics into objects, all scored on the same predictions of one network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from frustum.data.labels.occupancy import OccupancyLabels, occupancy_of
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.sample import Occupancy
from frustum.engine.feed import evaluation_batches
from frustum.engine.recipe import Recipe
from frustum.engine.runtime import pick_precision
from frustum.geometry import VoxelGrid
from frustum.losses.centres import centre_targets
from frustum.metrics.occupancy import OccupancyIoU
from frustum.metrics.ray_pq import RayPQ
from frustum.metrics.rayiou import RayIoU
from frustum.metrics.voxel_pq import VoxelPQ
from frustum.nn.centre_head import decode_centres
from frustum.nn.instances import InstanceConfig, panoptic_predictions, served_classes
from frustum.nn.occupancy_head import occupancy_predictions
from frustum.ops.nearest_centre import nearest_centre
from frustum.tasks.occupancy import origins_of, true_instances
from frustum.types.batch import Batch
from frustum.types.classes import DETECTION_CLASSES, OBJECT_CLASSES, OCC3D_CLASSES, OCC3D_FREE
from frustum.types.predictions import PredictedOccupancy, Prediction

THINGS = [OCC3D_CLASSES.index(name) for name in OBJECT_CLASSES]
GROUPINGS = {
    "centres": "nearest centre of the voxel's class (Panoptic-FlashOcc)",
    "reference_map": "the same with the label map of the published code",
    "any_centre": "nearest centre, whatever its class",
    "components": "connected components of each class, without centres",
    "one_per_class": "no grouping: each class is one segment",
    "true_centres": "nearest true centre of the voxel's class: the most that grouping can give",
}


def components(semantics: Tensor) -> Tensor:
    """Objects (X, Y, Z) as the connected components (26 neighbours) of each thing class; other voxels keep their class as number."""
    numbers, count = semantics.numpy().astype(np.int32), len(OCC3D_CLASSES)
    for thing in THINGS:
        parts, found = ndimage.label(semantics.numpy() == thing, np.ones((3, 3, 3)))
        numbers = np.where(parts > 0, count + parts - 1, numbers)
        count += found
    return torch.from_numpy(np.minimum(numbers, 65535))


def nearest_of_any_class(found: Prediction, outputs: dict[str, Tensor], config: InstanceConfig, map_grid: VoxelGrid) -> Tensor:
    """Objects (X, Y, Z): every thing voxel belongs to the nearest centre of any thing class."""
    centres = decode_centres(outputs, map_grid, config.max_centres)
    serves = torch.tensor(served_classes("fixed", found.occupancy.class_names))[centres.classes]
    is_used = (centres.scores > config.score_threshold) & (serves >= 0)
    return _grouped(
        found.occupancy.semantics, found.occupancy.grid.indices(centres.points[0])[0], torch.where(is_used[0], 1, -1), any_class=True
    )


def nearest_true_centre(found: Prediction, boxes: Tensor, classes: Tensor) -> Tensor:
    """Objects (X, Y, Z): as predicted centres are used, but with those of the true boxes."""
    serves = torch.tensor(served_classes("fixed", found.occupancy.class_names))[classes]
    return _grouped(found.occupancy.semantics, found.occupancy.grid.indices(boxes[:, :3])[0], serves, any_class=False)


def _grouped(semantics: Tensor, cells: Tensor, serves: Tensor, any_class: bool) -> Tensor:
    volume = torch.isin(semantics, torch.tensor(THINGS, dtype=semantics.dtype)).to(torch.uint8) if any_class else semantics
    nearest = nearest_centre(volume[None], cells[None], serves[None])[0].int()
    return torch.where(nearest >= 0, nearest + len(OCC3D_CLASSES), semantics)


def nearest_of_its_class(
    found: Prediction, outputs: dict[str, Tensor], config: InstanceConfig, map_grid: VoxelGrid, label_map: str
) -> Tensor:
    """Objects (X, Y, Z) as Panoptic-FlashOcc groups them."""
    mapped = config.model_copy(update={"label_map": label_map})
    return panoptic_predictions([found], outputs, mapped, map_grid)[0].occupancy.instances


def groupings_of(
    found: Prediction,
    outputs: dict[str, Tensor],
    config: InstanceConfig,
    map_grid: VoxelGrid,
    database: NuScenes,
    names: Iterable[str] = GROUPINGS,
) -> dict[str, Tensor]:
    """Instances (X, Y, Z) of one frame, by the names of GROUPINGS."""
    make = {
        "centres": lambda: nearest_of_its_class(found, outputs, config, map_grid, "fixed"),
        "reference_map": lambda: nearest_of_its_class(found, outputs, config, map_grid, "reference"),
        "any_centre": lambda: nearest_of_any_class(found, outputs, config, map_grid),
        "components": lambda: components(found.occupancy.semantics),
        "one_per_class": lambda: found.occupancy.semantics.int(),
        "true_centres": lambda: nearest_true_centre(found, *true_boxes(database, found.token)),
    }
    return {name: make[name]() for name in names}


def true_boxes(database: NuScenes, token: str) -> tuple[Tensor, Tensor]:
    """Boxes (M, 9) of a keyframe and their channels in the heat maps (M,)."""
    boxes = database.sample(token, occupancy=False).boxes
    known = [] if boxes is None else [i for i, name in enumerate(boxes.names) if name in DETECTION_CLASSES]
    rows = np.zeros((0, 9)) if boxes is None else boxes.boxes[known].reshape(-1, 9)
    classes = [] if boxes is None else [DETECTION_CLASSES.index(boxes.names[i]) for i in known]
    return torch.from_numpy(rows).float(), torch.tensor(classes, dtype=torch.long)


def perfect_outputs(boxes: Tensor, classes: Tensor, grid: VoxelGrid) -> dict[str, Tensor]:
    """What a centre head over a map of `grid` would say if it knew the boxes."""
    targets = centre_targets([boxes], [classes], grid, len(DETECTION_CLASSES))
    regressed = torch.zeros(1, 3, targets.heatmap[0, 0].numel())
    here = targets.cells[0, targets.is_box[0]]
    regressed[0, :, here] = torch.cat([targets.offset, targets.height[..., None]], -1)[0, targets.is_box[0]].T
    regressed = regressed.unflatten(2, targets.heatmap.shape[2:])
    return {"heatmap": torch.logit(targets.heatmap, 1e-4), "reg": regressed[:, :2], "height": regressed[:, 2:]}


def frames(recipe: Recipe, network: torch.nn.Module, database: NuScenes) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    """Keyframes of the validation split, one at a time, and what the network says."""
    tokens = database.tokens(recipe.data.val_split)[:: recipe.eval.every]
    bf16 = pick_precision(recipe.runtime, torch.device("cpu")) == "bf16"
    single = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"batch_size": 1})})
    for batch in evaluation_batches(single, database, tokens, labels=True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            yield batch, network.eval()(batch)


class Tally:
    """Figures of every grouping, from frames whose rays are cast once."""

    def __init__(self, database: NuScenes, groupings: Iterable[str] = GROUPINGS):
        self.database = database
        self.miou, self.rays = OccupancyIoU(len(OCC3D_CLASSES), OCC3D_FREE, "camera"), RayIoU()
        names = list(groupings)
        self.ray_pq, self.voxel_pq = ({name: metric() for name in names} for metric in (RayPQ, VoxelPQ))

    def add(self, token: str, guess: np.ndarray, truth: np.ndarray, mask: np.ndarray, volumes: Mapping[str, Tensor]) -> None:
        self.miou.add(guess, truth, mask)
        hits, distances = self.rays.caster.cast(guess, truth, origins_of(self.database, token))
        self.rays.add_hits(hits, distances)
        own = true_instances(self.database, token, Occupancy(truth, mask, mask)) if volumes else None
        for name, volume in volumes.items():
            self.ray_pq[name].add_hits(hits, distances, volume, own)
            self.voxel_pq[name].add(guess, truth, volume, own, mask)

    def compute(self) -> dict[str, Any]:
        """mIoU and RayIoU of the semantics, and `groupings` by name."""
        groups = {name: _figures(self.ray_pq[name], self.voxel_pq[name]) for name in self.ray_pq}
        return {"miou": self.miou.compute()["miou"], "ray_iou": self.rays.compute()["rayiou"], "groupings": groups}


def answers(
    recipe: Recipe, network: torch.nn.Module, database: NuScenes, names: Iterable[str] = GROUPINGS
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray, dict[str, Tensor]]]:
    """What `Tally.add` takes, for every validation keyframe; without the instance part there are no volumes."""
    for batch, outputs in frames(recipe, network, database):
        found = occupancy_predictions(outputs["occ_logits"], batch.tokens, network.config.grid, network.config.class_names)[0]
        has_centres, truth = "heatmap" in outputs, batch.need(OccupancyLabels)
        volumes = groupings_of(found, outputs, network.config.instances, network.map_grid, database, names) if has_centres else {}
        yield found.token, found.occupancy.semantics.numpy(), truth.semantics[0].numpy(), truth.mask_camera[0].numpy(), volumes


def score(recipe: Recipe, network: torch.nn.Module) -> dict[str, Any]:
    """A network's figures; without the instance part there are no `groupings`."""
    database = recipe.data.open()
    tally = Tally(database)
    for frame in answers(recipe, network, database):
        tally.add(*frame)
    figures = tally.compute()
    return figures if recipe.model.instances else {key: figures[key] for key in ("miou", "ray_iou")}


def score_truth(recipe: Recipe) -> dict[str, Any]:
    """The same if semantics and centres were perfect: what a way of grouping is worth by itself."""
    database, grid = recipe.data.open(), recipe.model.grid
    tally = Tally(database)
    tokens = database.tokens(recipe.data.val_split)[:: recipe.eval.every]
    for token, labels in zip(tokens, occupancy_of(database, tokens), strict=True):
        found = Prediction(token, PredictedOccupancy(torch.from_numpy(labels.semantics), grid, OCC3D_CLASSES))
        outputs = perfect_outputs(*true_boxes(database, token), grid)
        volumes = groupings_of(found, outputs, InstanceConfig(), grid, database)
        tally.add(token, labels.semantics, labels.semantics, labels.mask_camera, volumes)
    return tally.compute()


def _figures(ray_pq: RayPQ, voxel_pq: VoxelPQ) -> dict[str, Any]:
    """RayPQ and voxel PQ over all classes, over the things alone, and of each thing class."""
    rays, voxels = ray_pq.compute(), voxel_pq.compute()
    per_class = np.array(rays["per_class"])[:, THINGS]  # (3, 8)
    things = np.array(voxels["per_class"])[THINGS]
    return {
        **{key: value for key, value in rays.items() if key != "per_class"},
        "raypq_things": float(np.nanmean(per_class)),
        "voxel_pq": voxels["pq"],
        "voxel_pq_things": float(np.nanmean(things)),
        "raypq_by_class": dict(zip(OBJECT_CLASSES, _plain(np.nanmean(per_class, 0)), strict=True)),
    }


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]
