"""Ways to cut predicted semantics into objects, all scored on the same predictions of one network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from frustum.data.classes import DETECTION_CLASSES, OBJECT_CLASSES, OCC3D_CLASSES, OCC3D_FREE
from frustum.data.nuscenes import NuScenes
from frustum.data.types import Batch, Occupancy, Prediction
from frustum.engine.feed import evaluation_batches, grid_of, open_database
from frustum.engine.recipe import Recipe
from frustum.engine.runtime import pick_precision
from frustum.engine.scores import origins_of, true_instances
from frustum.metrics.occupancy import OccupancyIoU
from frustum.metrics.ray_pq import RayPQ
from frustum.metrics.rayiou import RayIoU
from frustum.metrics.voxel_pq import VoxelPQ
from frustum.models.flashocc_tiny import FlashOccTiny
from frustum.models.panoptic_flashocc import panoptic_predictions, served_classes
from frustum.models.panoptic_flashocc_mini import PanopticFlashOccMini
from frustum.nn.centre_head import decode_centres
from frustum.ops.nearest_centre import nearest_centre

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


def nearest_of_any_class(found: Prediction, outputs: dict[str, Tensor], network: PanopticFlashOccMini) -> Tensor:
    """Objects (X, Y, Z): every thing voxel belongs to the nearest centre of any thing class."""
    centres = decode_centres(outputs, network.map_grid, network.config.most_centres)
    serves = torch.tensor(served_classes("fixed", found.class_names))[centres.classes]
    is_used = (centres.scores > network.config.least_score) & (serves >= 0)
    return _grouped(found.semantics, found.grid.indices(centres.points[0])[0], torch.where(is_used[0], 1, -1), any_class=True)


def nearest_true_centre(found: Prediction, boxes: Tensor, classes: Tensor) -> Tensor:
    """Objects (X, Y, Z): as predicted centres are used, but with those of the true boxes."""
    serves = torch.tensor(served_classes("fixed", found.class_names))[classes]
    return _grouped(found.semantics, found.grid.indices(boxes[:, :3])[0], serves, any_class=False)


def _grouped(semantics: Tensor, cells: Tensor, serves: Tensor, any_class: bool) -> Tensor:
    volume = torch.isin(semantics, torch.tensor(THINGS, dtype=semantics.dtype)).to(torch.uint8) if any_class else semantics
    nearest = nearest_centre(volume[None], cells[None], serves[None])[0].int()
    return torch.where(nearest >= 0, nearest + len(OCC3D_CLASSES), semantics)


def all_groupings(network: PanopticFlashOccMini, outputs: dict[str, Tensor], batch: Batch, database: NuScenes) -> dict[str, Tensor]:
    """Instances (X, Y, Z) of a batch of one, by the names of GROUPINGS."""
    found = FlashOccTiny.predict(network, outputs, batch)
    volumes = {}
    for name, label_map in (("centres", "fixed"), ("reference_map", "reference")):
        config = network.config.model_copy(update={"label_map": label_map})
        volumes[name] = panoptic_predictions(found, outputs, config, network.map_grid)[0].instances
    volumes["any_centre"] = nearest_of_any_class(found[0], outputs, network)
    volumes["components"] = components(found[0].semantics)
    volumes["one_per_class"] = found[0].semantics.int()
    volumes["true_centres"] = nearest_true_centre(found[0], *true_boxes(database, batch.tokens[0]))
    return volumes


def true_boxes(database: NuScenes, token: str) -> tuple[Tensor, Tensor]:
    """Boxes (M, 9) of a keyframe and their channels in the heat maps (M,)."""
    boxes = database.sample(token, occupancy=False).boxes
    known = [] if boxes is None else [i for i, name in enumerate(boxes.names) if name in DETECTION_CLASSES]
    rows = np.zeros((0, 9)) if boxes is None else boxes.boxes[known].reshape(-1, 9)
    classes = [] if boxes is None else [DETECTION_CLASSES.index(boxes.names[i]) for i in known]
    return torch.from_numpy(rows).float(), torch.tensor(classes, dtype=torch.long)


def frames(recipe: Recipe, network: torch.nn.Module, database: NuScenes) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    """Keyframes of the validation split, one at a time, and what the network says."""
    tokens = database.tokens(recipe.data.val_split)[:: recipe.eval.every]
    bf16 = pick_precision(recipe.runtime, torch.device("cpu")) == "bf16"
    single = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"batch_size": 1})})
    for batch in evaluation_batches(single, database, tokens):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            yield batch, network.eval()(batch)


def score(recipe: Recipe, network: torch.nn.Module) -> dict[str, Any]:
    """mIoU and RayIoU of the semantics and, for a network with the instance part, RayPQ and voxel PQ of every grouping."""
    database = open_database(recipe.data, grid_of(recipe))
    miou, rays = OccupancyIoU(len(OCC3D_CLASSES), OCC3D_FREE, "camera"), RayIoU()
    ray_pq, voxel_pq = ({name: metric() for name in GROUPINGS} for metric in (RayPQ, VoxelPQ))
    for batch, outputs in frames(recipe, network, database):
        guess = FlashOccTiny.predict(network, outputs, batch)[0].semantics.numpy()
        truth, mask, token = batch.semantics[0].numpy(), batch.mask_camera[0].numpy(), batch.tokens[0]
        miou.add(guess, truth, mask)
        hits, distances = rays.cast(guess, truth, origins_of(database, token))
        rays.add_hits(hits, distances)
        if "heatmap" not in outputs:
            continue
        own = true_instances(database, token, Occupancy(truth, mask, mask))
        for name, volume in all_groupings(network, outputs, batch, database).items():
            ray_pq[name].add_hits(hits, distances, volume, own)
            voxel_pq[name].add(guess, truth, volume, own, mask)
    found: dict[str, Any] = {"miou": miou.compute()["miou"], "ray_iou": rays.compute()["rayiou"]}
    if recipe.model.instances:
        found["groupings"] = {name: _figures(ray_pq[name], voxel_pq[name]) for name in GROUPINGS}
    return found


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
