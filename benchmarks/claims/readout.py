"""What occupancy networks are scored by when a threshold reads them out: voxels at several thresholds from one pass, the threshold that
training scenes ask for, and duplicates: how many things a ray meets one behind the other.

Shape letters: V volumes, X Y Z voxels, R rays, S places along a ray.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from frustum.data.labels.occupancy import occupancy_of
from frustum.data.labels.view_points import MOVING
from frustum.data.sample import Occupancy, Sample
from frustum.data.source import Source, as_rig_source, labelled, spread
from frustum.engine.feed import evaluation_batches
from frustum.engine.predictors import NetworkPredictor
from frustum.engine.recipe import Recipe
from frustum.geometry import VoxelGrid, invert, transform_points
from frustum.metrics.occupancy import OccupancyIoU
from frustum.tasks.occupancy import OccupancyTask, TrueOccupancy
from frustum.tasks.task import without_nan
from frustum.types.classes import FLAT_CLASSES, IGNORE, OCC3D_CLASSES, OCC3D_FREE
from frustum.types.predictions import PredictedOccupancy

THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.7)
"""Opacities that are tried."""
SWEPT = 20
"""Training keyframes that they are tried on."""
FAR, STEP, RAYS = 30.0, 0.1, 2000
"""Metres that rays are followed, metres between the places looked at, and rays of a keyframe at most."""
FIGURES = ("miou", "ray_iou", "geometric_iou", "moving", "static", "runs", "true_runs")
"""See `Score.figures`."""

Parts = dict[float | None, PredictedOccupancy]
"""What is predicted of a keyframe by threshold; None where there is none."""


def read_at(
    recipe: Recipe, network: Any, source: Source, tokens: Sequence[str], thresholds: Iterable[float | None]
) -> Iterator[tuple[str, Parts]]:
    """What a network predicts of keyframes at each threshold; it runs once for each keyframe."""
    predictor, config, wanted = NetworkPredictor(network, recipe.runtime), network.config, tuple(thresholds)
    voxels_alone, has_own = {"shown_width": 0} if hasattr(config, "shown_width") else {}, hasattr(config, "threshold")
    try:
        for batch in evaluation_batches(recipe, source, tokens):
            here = batch.to(predictor.device)
            found: dict[str, Parts] = {token: {} for token in batch.tokens}
            with torch.no_grad(), torch.autocast(predictor.device.type, torch.bfloat16, enabled=predictor.bf16):
                outputs = predictor.forward(here)
                for threshold in wanted:
                    shown = outputs
                    if threshold is not None and has_own:
                        network.config = config.model_copy(update={"threshold": threshold} | voxels_alone)
                    else:
                        network.config = config.model_copy(update=voxels_alone)
                        shown = outputs if threshold is None else outputs | {"occ_logits": at_least(outputs["occ_logits"], threshold)}
                    for prediction in network.predict(shown, here):
                        part = prediction.cpu().occupancy
                        assert part is not None
                        found[prediction.token][threshold] = part
            yield from found.items()
    finally:
        network.config = config


def at_least(logits: torch.Tensor, threshold: float) -> torch.Tensor:
    """Voxel logits (*, K) by which a voxel is occupied where the probability of that is at least `threshold`; free space is the last."""
    probability = logits.float().softmax(-1)
    occupied = probability[..., :-1]
    free = torch.where(1 - probability[..., -1] >= threshold, -1.0, 2.0)
    return torch.cat([occupied, free[..., None]], -1)


def sweep(recipe: Recipe, network: nn.Module, source: Source, shapes: bool = False) -> dict[str, float]:
    """mIoU (camera mask) of each of THRESHOLDS on some training keyframes; of `shapes` alone."""
    tokens = spread(labelled(source, source.tokens(recipe.data.train_split)), SWEPT)
    counts: dict[float | None, OccupancyIoU] = {}
    for token, parts in read_at(recipe, network, source, tokens, THRESHOLDS):
        labels = next(occupancy_of(source, [token]))
        for threshold, part in parts.items():
            count = len(part.class_names)
            metric = counts.setdefault(threshold, OccupancyIoU(count, count - 1))
            if shapes:
                part, labels = shape_of(part), true_shape(labels)
            metric.add(part.semantics.numpy(), labels.semantics, labels.mask_camera)
    return {f"{threshold:g}": metric.compute()["miou"] for threshold, metric in counts.items()}


def best_of(miou: dict[str, float]) -> float:
    """The threshold with the highest mIoU, of equal ones the lowest."""
    return float(max(miou, key=lambda name: (np.nan_to_num(miou[name], nan=-1.0), -float(name))))


# ---- shapes: where no class was learned ---------------------------------------------------------------------------------------------

_THING = OCC3D_CLASSES.index("manmade")


def shape_of(part: PredictedOccupancy) -> PredictedOccupancy:
    """All that is occupied as one class."""
    return replace(part, semantics=torch.where(part.semantics == OCC3D_FREE, part.semantics, _THING))


def true_shape(labels: Occupancy) -> Occupancy:
    """All that is occupied as the same class, without the voxels of the ground in the masks."""
    ground = np.isin(labels.semantics, [OCC3D_CLASSES.index(name) for name in FLAT_CLASSES])
    occupied = ~np.isin(labels.semantics, [OCC3D_FREE, IGNORE])
    semantics = np.where(occupied, np.uint8(_THING), labels.semantics)
    return replace(labels, semantics=semantics, mask_camera=labels.mask_camera * ~ground, mask_lidar=labels.mask_lidar * ~ground)


# ---- duplicates -----------------------------------------------------------------------------------------------------------------


def occupied_runs(
    volumes: Sequence[np.ndarray], grid: VoxelGrid, origin: np.ndarray, directions: np.ndarray, far: float = FAR, step: float = STEP
) -> np.ndarray:
    """How many separate runs of occupied voxels each ray crosses, those behind others included: (V, R) int64.

    Args:
        volumes: (X, Y, Z) bool each, True where occupied.
        grid: where the voxels lie; outside it all is free.
        origin: (3,) metres.
        directions: (R, 3) unit vectors.
        far: metres that rays are long.
        step: metres between the places that are looked at.
    """
    along = (np.arange(round(far / step)) + 0.5) * step  # (S,)
    cells = np.floor((origin + along[:, None] * directions[:, None] - grid.lower) / grid.cell).astype(np.int64)  # (R, S, 3)
    inside = ((cells >= 0) & (cells < grid.shape)).all(-1)
    index = np.ravel_multi_index(tuple(np.moveaxis(cells, -1, 0)), grid.shape, mode="clip")
    occupied = np.stack([volume.reshape(-1)[index] & inside for volume in volumes])  # (V, R, S)
    return occupied[..., 0] + (occupied[..., 1:] & ~occupied[..., :-1]).sum(-1)


def lidar_rays(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Origin (3,) and unit directions (R, 3) in the ego frame of rays to LiDAR points within FAR, at even steps of the scan."""
    assert sample.lidar is not None
    lidar2ego = invert(sample.ego2global) @ sample.lidar.ego2global @ sample.lidar.lidar2ego
    ways = transform_points(lidar2ego, sample.lidar.load()[:, :3].astype(np.float64)) - lidar2ego[:3, 3]
    length = np.linalg.norm(ways, axis=1)
    near = np.flatnonzero((length > 1) & (length <= FAR))
    near = near[:: max(1, -(-len(near) // RAYS))]
    return lidar2ego[:3, 3], ways[near] / length[near, None]


# ---- figures --------------------------------------------------------------------------------------------------------------------


class Score:
    """Figures of predictions of keyframes."""

    def __init__(self) -> None:
        self.task = OccupancyTask()
        self.runs = np.zeros(4)  # of predictions, of the truth, those that a ray of a prediction has too many, and rays

    def add(self, token: str, part: PredictedOccupancy, truth: TrueOccupancy, rays: tuple[np.ndarray, np.ndarray]) -> None:
        """Count a keyframe, with `rays` of `lidar_rays`."""
        self.task.add(token, part, truth)
        nothing = [len(part.class_names) - 1, IGNORE]
        volumes = [~np.isin(volume, nothing) for volume in (part.semantics.numpy(), truth.labels.semantics)]
        counts = occupied_runs(volumes, part.grid, *rays)
        self.runs += [*counts.sum(1), np.maximum(counts[0] - counts[1], 0).sum(), counts.shape[1]]

    def figures(self) -> dict[str, Any]:
        """`miou`, `geometric_iou` (above ground) and `class_iou` with the camera mask, `ray_iou`, `moving` and `static`, the means over
        classes that occur, `runs` and `true_runs`, how many things a LiDAR ray meets within FAR on its way, in the mean, and `excess`,
        how many more than in the truth, rays with fewer not set off against them."""
        found = self.task.compute()
        share = found["class_share"]
        classes = {name: value for name, value in list(found["class_iou"]["camera"].items())[:-1] if share[name] > 0}
        moving = [value for name, value in classes.items() if name in MOVING]
        static = [value for name, value in classes.items() if name not in MOVING]
        predicted, true, more, rays = self.runs.tolist()
        figures = {
            "miou": found["miou"]["camera"],
            "ray_iou": found["ray_iou"]["mean"] if found["ray_iou"] else None,
            "geometric_iou": found["geometric_iou_above_ground"]["camera"],
            "moving": statistics.fmean(moving) if moving else None,
            "static": statistics.fmean(static) if static else None,
            "runs": predicted / max(1.0, rays),
            "true_runs": true / max(1.0, rays),
            "excess": more / max(1.0, rays),
            "class_iou": classes,
        }
        return without_nan(figures)


def score(predictions: Iterable[tuple[str, Parts]], source: Source, shapes: bool = False) -> dict[float | None, dict[str, Any]]:
    """Figures of what is predicted at each threshold; of `shapes` alone."""
    scores: dict[float | None, Score] = {}
    for token, parts in predictions:
        truth = OccupancyTask().truth(source, token)
        truth = replace(truth, labels=true_shape(truth.labels)) if shapes else truth
        rays = lidar_rays(as_rig_source(source, "LiDAR rays").sample(token, with_boxes=False, occupancy=False))
        for threshold, part in parts.items():
            scores.setdefault(threshold, Score()).add(token, shape_of(part) if shapes else part, truth, rays)
    return {threshold: one.figures() for threshold, one in scores.items()}


def score_network(recipe: Recipe, network: nn.Module, shapes: bool = False) -> dict[str, Any]:
    """Figures on the validation split: `chosen` with the threshold of `sweep`, `own` with that of the recipe.

    `threshold` is the chosen one, `sweep` what it was chosen by. For a network that has none of its own, `own` is the most likely class.
    """
    source, own = recipe.data.open(), getattr(recipe.model, "threshold", None)
    swept = sweep(recipe, network, source, shapes)
    chosen = best_of(swept)
    tokens = source.tokens(recipe.data.val_split)[:: recipe.eval.every]
    found = score(read_at(recipe, network, source, tokens, dict.fromkeys((chosen, own))), source, shapes)
    by = f"mIoU with 3D labels of at most {SWEPT} training keyframes"
    return {"threshold": chosen, "chosen_by": by, "sweep": without_nan(swept), "chosen": found[chosen], "own": found[own]}


def score_blind(recipe: Recipe, shapes: bool = False) -> dict[str, Any]:
    """Figures of the blind prior on the validation split, and its `name`."""
    source = recipe.data.open()
    tokens = source.tokens(recipe.data.val_split)[:: recipe.eval.every]
    (prior,) = OccupancyTask().baselines(source, recipe.data.train_split)
    answers = ((token, prior.answer(token).occupancy) for token in tokens)
    return {"name": prior.name} | score(((token, {None: part}) for token, part in answers if part is not None), source, shapes)[None]
