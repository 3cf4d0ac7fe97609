"""From a recipe's data and augment sections to batches: the only place where the engine's settings meet data/."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from frustum.data.augment import Augmentation
from frustum.data.loader import KeyframeDataset, build_loader
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.pipeline import Pipeline
from frustum.engine.recipe import DataConfig, Recipe
from frustum.errors import ConfigError, DataError, FrustumWarning, TrainingError
from frustum.geometry import VoxelGrid
from frustum.types.batch import Batch


def open_database(config: DataConfig, grid: VoxelGrid | None = None) -> NuScenes:
    """The data set of a recipe. With `grid`, labels of another shape are refused. Raises DataError for a wrong root, version or camera."""
    return NuScenes(config.root, config.version, config.cameras, grid_shape=None if grid is None else grid.shape)


def grid_of(recipe: Recipe) -> VoxelGrid:
    """The voxels that the recipe's model predicts: its `grid` setting, or Occ3D's."""
    grid = getattr(recipe.model, "grid", None)
    return grid if isinstance(grid, VoxelGrid) else VoxelGrid.occ3d()


def build_pipeline(recipe: Recipe, training: bool, labels: bool = True) -> Pipeline:
    """The pipeline of a recipe: augmented for training; without augmentation, depth and boxes for evaluation; occupancy if `labels`.

    Raises:
        ConfigError: fewer past keyframes than the model reads.
    """
    config, needed = recipe.data, recipe.model.frames_before
    if config.history < needed:
        raise ConfigError(f"{recipe.name} reads {needed} past keyframes, but data.history={config.history}. Set data.history={needed}.")
    return Pipeline(
        image_size=config.image_size,
        channel_order=config.channel_order,
        mean=config.mean,
        std=config.std,
        history=config.history,
        load_occupancy=labels,
        load_depth=config.load_depth and training,
        load_boxes=config.load_boxes and training,
        map_frame=config.map_frame,
        grid=grid_of(recipe),
        crop_h=sum(recipe.augment.crop_h) / 2,
        augment=Augmentation(**recipe.augment.model_dump()) if training else None,
    )


class TrainingFeed:
    """Micro-batches of the training split for one process, epoch after epoch without end.

    The micro-batches of an epoch are dealt to the processes in turn, so the step of R processes with one micro-step each sees the samples
    that one process sees in R micro-steps. What is left at the end of an epoch and fills no step is skipped; the next epoch has another
    order.

    Attributes:
        steps_per_epoch: optimiser steps.

    Raises:
        DataError: no keyframes, or no boxes where the recipe learns from them. ConfigError: see `build_pipeline` and `build_loader`.
    """

    def __init__(self, recipe: Recipe, database: NuScenes, rank: int = 0, world_size: int = 1):
        train, data = recipe.train, recipe.data
        tokens = database.tokens(data.train_split)
        pipeline = build_pipeline(recipe, training=True)
        _note_history(recipe, database, tokens)
        _require_boxes(recipe, database, tokens, pipeline)
        dataset = KeyframeDataset(database, tokens, pipeline, train.seed, data.cache)
        workers = 0 if data.cache == "memory" else train.num_workers  # a cache in each worker would hold everything several times
        self._loader = build_loader(dataset, train.batch_size, True, train.seed, workers, rank, world_size)
        self._accumulate = train.accumulate
        self._fingerprint = hashlib.sha256("\n".join(tokens).encode()).hexdigest()[:16]
        self.steps_per_epoch = max(1, len(self._loader) // train.accumulate)
        self._epoch, self._given = 0, 0
        self._batches: Iterator[Batch] | None = None

    def next_batches(self) -> list[Batch]:
        """The micro-batches of the next optimiser step."""
        left = len(self._loader) - self._given
        if left < self._accumulate <= len(self._loader):
            self._next_epoch()
        return [self._next() for _ in range(self._accumulate)]

    def state_dict(self) -> dict[str, Any]:
        """The position: epoch, micro-batches given out in it, and which keyframes it is a position in."""
        return {"epoch": self._epoch, "batch": self._given, "keyframes": self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the micro-batches that `state` counts. Raises TrainingError if the split has other keyframes than then."""
        if state["keyframes"] != self._fingerprint:
            raise TrainingError(
                "the training split has other keyframes than when the run was saved, so it cannot be resumed exactly. "
                "Restore the data, or start again with --fresh or another --out FOLDER."
            )
        self._epoch, self._given, self._batches = int(state["epoch"]), int(state["batch"]), None
        self._loader.load_state_dict({"epoch": self._epoch, "batch": self._given})

    def close(self) -> None:
        """Let go of worker processes."""
        self._batches = None

    def _next_epoch(self) -> None:
        self._epoch, self._given, self._batches = self._epoch + 1, 0, None
        self._loader.load_state_dict({"epoch": self._epoch, "batch": 0})

    def _next(self) -> Batch:
        if self._given >= len(self._loader):
            self._next_epoch()
        if self._batches is None:
            self._batches = iter(self._loader)
        batch = next(self._batches)
        self._given += 1
        return batch


def _note_history(recipe: Recipe, database: NuScenes, tokens: Sequence[str]) -> None:
    """Warn of past keyframes that nobody uses, and of scenes that are all too short for what the network reads."""
    loaded, needed = recipe.data.history, recipe.model.frames_before
    if loaded > needed:
        told = f"data.history={loaded} past keyframes are loaded, but the network reads {needed}: the others cost time and change nothing."
        warnings.warn(f"{told} Set data.history={needed}.", FrustumWarning, stacklevel=3)
    longest = max((len(database.scene(token).tokens) for token in tokens), default=0)
    if 0 < longest <= needed:
        warnings.warn(
            f"no keyframe has a full past: the network reads {needed} past keyframes, but the longest scene here has {longest} in all. "
            "What is missing is replaced by the keyframe itself.",
            FrustumWarning,
            stacklevel=3,
        )


def _require_boxes(recipe: Recipe, database: NuScenes, tokens: Sequence[str], pipeline: Pipeline) -> None:
    """Raise DataError if the recipe learns from boxes and the keyframes have none: all that it could learn is that nothing is there."""
    if not pipeline.load_boxes or not tokens or database.count_boxes(tokens, pipeline.min_points):
        return
    without = "data.load_boxes=false"
    if getattr(recipe.model, "instances", False):
        without = f"model.instances=false {without}"
    raise DataError(
        f"{recipe.name} learns from boxes, but none of the {len(tokens)} keyframes of the split {recipe.data.train_split!r} in "
        f"{database.root} has a box of a detection class with a LiDAR or radar point in it (sample_annotation.json). "
        f"Add annotations, or train without: {without}"
    )


def evaluation_batches(recipe: Recipe, database: NuScenes, tokens: Sequence[str], labels: bool = True) -> Iterator[Batch]:
    """The given keyframes in order, without augmentation; with their occupancy labels, where they have some, if `labels`."""
    _note_history(recipe, database, tokens)
    dataset = KeyframeDataset(database, tokens, build_pipeline(recipe, training=False, labels=labels))
    return iter(build_loader(dataset, recipe.eval.batch_size, num_workers=recipe.train.num_workers, drop_last=False))
