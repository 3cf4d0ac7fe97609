"""Evaluation: integer counts per frame, shared over processes, merged, written to eval.json."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from frustum.data.classes import OCC3D_CLASSES, OCC3D_FREE
from frustum.data.files import write_json
from frustum.data.nuscenes import NuScenes
from frustum.data.occupancy import IGNORE
from frustum.data.types import Batch, Occupancy, Prediction
from frustum.engine.checkpoint import digest
from frustum.engine.eval_report import EvalReport
from frustum.engine.feed import evaluation_batches, grid_of, open_database
from frustum.engine.predictors import NetworkPredictor, Predictor
from frustum.engine.progress import progress_bar
from frustum.engine.recipe import Recipe
from frustum.engine.runtime import make_accelerator
from frustum.engine.statistics import labels_of
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.metrics.counts import CountMetric
from frustum.metrics.occupancy import GeometricIoU, OccupancyIoU
from frustum.metrics.rayiou import RayIoU
from frustum.metrics.rays import lidar_origins

MASKS = ("camera", "lidar", "none")


def evaluate(
    recipe: Recipe,
    model: nn.Module | Predictor,
    split: str | None = None,
    *,
    name: str | None = None,
    black: bool = False,
    every: int | None = None,
    database: NuScenes | None = None,
    out: Path | str | None = None,
    progress: bool = True,
) -> EvalReport:
    """Score a model on a split with the metrics of eval_report.py.

    Args:
        recipe: names data, device, precision and `eval` settings.
        model: a network that keeps the contract, or a predictor such as `baselines.BlindPrior`.
        split: by default `data.val_split`.
        name: what the model is called in the report; by default the recipe's name.
        black: feed the network black images instead of those on disk.
        every: score every n-th keyframe of the split; by default `eval.every`.
        database: the opened data set, where it is at hand.
        out: file (eval.json) that the numbers are written to, atomically.

    Every process scores its own keyframes; all return the report of all of them.

    Raises:
        DataError: no labels, damaged files, a wrong root. ShapeError: predictions on another grid than the labels.
    """
    began = time.monotonic()
    accelerator = make_accelerator(recipe.runtime)
    database = database or open_database(recipe.data, grid_of(recipe))
    split, every = split or recipe.data.val_split, every or recipe.eval.every
    tokens = database.tokens(split)[::every]
    if not tokens:
        raise DataError(f"the split {split!r} of {recipe.data.root} has no keyframes.")
    predictor = NetworkPredictor(model, recipe.runtime, black=black, data=recipe.data) if isinstance(model, nn.Module) else model
    scores = Scores(database, recipe.eval.ray_iou)
    mine = tokens[accelerator.process_index :: accelerator.num_processes]
    title = name or recipe.name
    with progress_bar(f"evaluate {title}", len(mine), show=progress and accelerator.is_main_process, unit="frames") as bar:
        for prediction, labels in _answers(recipe, database, predictor, mine):
            scores.add(prediction, labels)
            bar.advance()
    scores.merge_processes(accelerator)
    report = EvalReport(
        name=title,
        split=split,
        frames=len(tokens),
        every=every,
        images="none" if not predictor.needs_images else "black" if black else "as they are",
        metrics=scores.compute(),
        seconds=time.monotonic() - began,
        weights=digest(model) if isinstance(model, nn.Module) else None,
    )
    if out is not None and accelerator.is_main_process:
        write_json(out, report.numbers(), indent=2)
    return report


def _answers(recipe: Recipe, database: NuScenes, predictor: Predictor, tokens: list[str]) -> Iterator[tuple[Prediction, Occupancy]]:
    """Predictions beside their labels. Images are not even opened for a predictor that needs none."""
    if not predictor.needs_images:
        for token, labels in zip(tokens, labels_of(database, tokens), strict=True):
            yield predictor(_only_token(token))[0], labels
        return
    for batch in evaluation_batches(recipe, database, tokens):
        for i, prediction in enumerate(predictor(batch)):
            labelled = batch.semantics is not None and bool((batch.semantics[i] != IGNORE).any())  # `collate` fills gaps with IGNORE
            if not labelled or batch.semantics is None or batch.mask_camera is None or batch.mask_lidar is None:
                raise DataError(f"sample {prediction.token} has no occupancy labels to compare with; use `frustum predict` for such data.")
            arrays = (t[i].cpu().numpy() for t in (batch.semantics, batch.mask_lidar, batch.mask_camera))
            yield prediction, Occupancy(*arrays)


def _only_token(token: str) -> Batch:
    eye = np.eye(4)
    return Batch.from_arrays(np.zeros((1, 3, 1, 1), np.float32), np.eye(3)[None], eye[None], tokens=[token])


class Scores:
    """All metrics of one evaluation."""

    def __init__(self, database: NuScenes, ray_iou: bool):
        self.database = database
        self.miou = {mask: OccupancyIoU(len(OCC3D_CLASSES), OCC3D_FREE, mask) for mask in MASKS}  # type: ignore[arg-type]
        self.geometric = {mask: GeometricIoU(mask=mask) for mask in MASKS}  # type: ignore[arg-type]
        self.above_ground = {mask: GeometricIoU(above_ground=True, mask=mask) for mask in MASKS}  # type: ignore[arg-type]
        self.rays: RayIoU | None = None
        self.with_rays = ray_iou and "lidar" in database.channels.values()
        self.shares = np.zeros((len(MASKS), 3), np.int64)  # voxels inside the mask, occupied ones of them, voxels in all

    def add(self, prediction: Prediction, labels: Occupancy) -> None:
        """Score one keyframe."""
        if prediction.semantics is None:
            raise DataError(f"the model predicts no semantics for {prediction.token}, so its occupancy cannot be scored.")
        guess, truth = prediction.semantics.numpy(), labels.semantics
        masks = {"camera": labels.mask_camera, "lidar": labels.mask_lidar, "none": None}
        for i, (mask, seen) in enumerate(masks.items()):
            for metric in (self.miou[mask], self.geometric[mask], self.above_ground[mask]):
                metric.add(guess, truth, seen)
            inside = np.ones(truth.shape, bool) if seen is None else seen.astype(bool)
            self.shares[i] += [np.count_nonzero(inside), np.count_nonzero(inside & (truth != OCC3D_FREE)), truth.size]
        if self.with_rays:
            self.rays = self.rays or self._ray_metric(prediction)
            self.rays.add(guess, truth, self._origins(prediction.token))

    def _ray_metric(self, prediction: Prediction | None = None) -> RayIoU:
        grid = prediction.grid if prediction is not None and prediction.grid is not None else VoxelGrid.occ3d()
        return RayIoU(len(OCC3D_CLASSES), OCC3D_FREE, grid=grid)

    def _origins(self, token: str) -> np.ndarray:
        scene = self.database.scene(token)
        lidar2ego, ego2global = self.database.lidar_poses(scene.name)
        return lidar_origins(lidar2ego, ego2global, scene.tokens.index(token))

    def _all(self) -> list[CountMetric]:
        self.rays = self.rays or self._ray_metric()
        return [*self.miou.values(), *self.geometric.values(), *self.above_ground.values(), self.rays]

    def merge_processes(self, accelerator: Accelerator) -> None:
        """Sum the integer counts of all processes, on all of them."""
        states = gather_object([([metric.state for metric in self._all()], self.shares)])
        for index, metric in enumerate(self._all()):
            metric.load_state({key: sum(state[index][key] for state, _ in states) for key in metric.state})
        self.shares = np.sum([shares for _, shares in states], axis=0)

    def compute(self) -> dict[str, Any]:
        """All figures as plain values: ratios 0..1, None where nothing was there to be counted."""
        per_mask = {mask: metric.compute() for mask, metric in self.miou.items()}
        figures: dict[str, Any] = {
            "miou": {mask: found["miou"] for mask, found in per_mask.items()},
            "geometric_iou": {mask: metric.compute()["iou"] for mask, metric in self.geometric.items()},
            "geometric_iou_above_ground": {mask: metric.compute()["iou"] for mask, metric in self.above_ground.items()},
            "ray_iou": None,
            "class_iou": {mask: dict(zip(OCC3D_CLASSES, found["per_class"], strict=True)) for mask, found in per_mask.items()},
            "class_ray_iou": None,
            "mask_share": {mask: _ratio(s[0], s[2]) for mask, s in zip(MASKS, self.shares, strict=True)},
            "occupied_share": {mask: _ratio(s[1], s[0]) for mask, s in zip(MASKS, self.shares, strict=True)},
        }
        if self.with_rays and self.rays is not None:
            rays = self.rays.compute()
            names = [f"{t:g}" for t in self.rays.thresholds]
            figures["ray_iou"] = {"mean": rays["rayiou"], **{n: rays[f"rayiou@{n}"] for n in names}}
            figures["class_ray_iou"] = {
                n: dict(zip(OCC3D_CLASSES, row, strict=True)) for n, row in zip(names, rays["per_class"], strict=True)
            }
        return _without_nan(figures)


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _without_nan(value: Any) -> Any:
    """NaN is no JSON: None instead."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and value != value else value
