"""From a recipe to batches: what the model reads and learns from, brought by the pipeline of its data section."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

from torch.utils.data import DataLoader

from frustum.data.corruption_names import Corruption
from frustum.data.corruptions import corrupted
from frustum.data.labels.map_classes import require_front
from frustum.data.loader import EpochBatches, SampleDataset, build_loader
from frustum.data.source import Pipeline, Source, labelled
from frustum.engine.recipe import Recipe
from frustum.errors import ConfigError, FrustumWarning, TrainingError
from frustum.types.batch import Batch
from frustum.types.contract import Reads


def note_lacking(recipe: Recipe, source: Source, tokens: Sequence[str]) -> None:
    """Warn of what the data set leaves out of these samples, or lacks (`DataConfig.lacking`)."""
    for sentence in recipe.data.lacking(source, list(dict.fromkeys(tokens))):
        warnings.warn(sentence, FrustumWarning, stacklevel=3)


def build_pipeline(recipe: Recipe, training: bool, labels: bool = True, reads: Reads | None = None) -> Pipeline:
    """The pipeline of a recipe: augmented for training; with what the model learns from if `labels`, and always with what it reads.

    `reads` is what somebody beside the model reads, too, and the model's own if None.
    """
    reads = reads or recipe.model.reads()
    for kinds, said in ((recipe.model.learns_from(), "learns_from()"), (reads.labels, "reads().labels")):
        if len(set(map(type, kinds))) < len(kinds):
            name = type(recipe.model).__name__
            raise ConfigError(f"{name}.{said} must name each kind of label once: a batch holds one value of a kind.")
    needed = {type(label): label for label in (*(recipe.model.learns_from() if labels else ()), *reads.labels)}
    return recipe.data.pipeline(reads, tuple(needed.values()), recipe.augment, training)


class TrainingFeed:
    """Micro-batches of the training split for one process, epoch after epoch without end.

    The micro-batches of an epoch are dealt to the processes in turn, so the step of R processes with one micro-step each reads the samples
    that one process reads in R micro-steps. What is left at the end of an epoch and fills no step is skipped; the next epoch has another
    order.

    Attributes:
        steps_per_epoch: optimiser steps.

    Raises:
        DataError: no samples, or nothing to learn from in them. ConfigError: see `build_pipeline` and `build_loader`.
    """

    def __init__(self, recipe: Recipe, source: Source, rank: int = 0, world_size: int = 1, reads: Reads | None = None):
        train, data = recipe.train, recipe.data
        tokens = data.training_tokens(source, train.seed)
        pipeline = build_pipeline(recipe, training=True, reads=reads)
        _check_past(recipe, source, tokens, reads)
        note_lacking(recipe, source, tokens)
        learned = recipe.model.learns_from()
        for label in learned:
            label.require(source, tokens)
        if learned and not any(label.can_be_hidden for label in learned) and len(labelled(source, tokens)) < len(tokens):
            raise ConfigError(
                "data.labelled_share hides voxel and map labels, but this recipe learns from "
                f"{' and '.join(label.what for label in learned)} alone, and would from those of all keyframes. Leave "
                "data.labelled_share=1, or set data.labelled_only=true to train on a share of the keyframes."
            )
        dataset = SampleDataset(source, tokens, pipeline, train.seed, data.cache)
        workers = 0 if data.cache == "memory" else train.num_workers  # a cache in each worker would hold everything several times
        self._loader: DataLoader[Batch] = build_loader(dataset, train.batch_size, True, train.seed, workers, rank, world_size)
        self._order = cast(EpochBatches, self._loader.batch_sampler)
        self._accumulate = train.accumulate
        self._fingerprint = hashlib.sha256("\n".join(tokens).encode()).hexdigest()[:16]
        self.steps_per_epoch = max(1, len(self._loader) // train.accumulate)
        self._epoch, self._given = 0, 0
        self._batches: Iterator[Batch] | None = None

    def next_batches(self) -> list[Batch]:
        """The micro-batches of the next optimiser step."""
        if len(self._loader) - self._given < self._accumulate <= len(self._loader):  # what is left fills no step
            self._go_to(self._epoch + 1)
        return [self._next() for _ in range(self._accumulate)]

    def state_dict(self) -> dict[str, Any]:
        """The position: epoch, micro-batches given out in it, and which samples it is a position in."""
        return {"epoch": self._epoch, "batch": self._given, "keyframes": self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the micro-batches that `state` counts. Raises TrainingError if the split has other samples than then."""
        if state["keyframes"] != self._fingerprint:
            why = "the training split has other keyframes than when the run was saved, so it cannot be resumed exactly"
            raise TrainingError(f"{why}. Restore the data, or start again with --fresh or another --out FOLDER.")
        self._go_to(int(state["epoch"]), int(state["batch"]))

    def close(self) -> None:
        """Stop the worker processes."""
        self._batches = None

    def _go_to(self, epoch: int, batch: int = 0) -> None:
        self._epoch, self._given, self._batches = epoch, batch, None

    def _next(self) -> Batch:
        if self._given >= len(self._loader):
            self._go_to(self._epoch + 1)
        if self._batches is None:
            self._order.go_to(self._epoch, self._given)
            self._batches = iter(self._loader)
        batch = next(self._batches)
        self._given += 1
        return batch


def evaluation_batches(
    recipe: Recipe, source: Source, tokens: Sequence[str], labels: bool = False, corruption: str | None = None
) -> Iterator[Batch]:
    """The given samples in order, without augmentation; with what the model learns from if `labels`; see `build_pipeline`.

    With a `corruption`, such as fog:3, of corrupted images (data/corruptions.py); `recipe.eval` does not count here.
    """
    _check_past(recipe, source, tokens)
    _check_front(recipe, source, tokens)
    pipeline = build_pipeline(recipe, training=False, labels=labels)
    pipeline = pipeline if corruption is None else corrupted(pipeline, Corruption.parse(corruption))
    dataset = SampleDataset(source, tokens, pipeline)
    return iter(build_loader(dataset, recipe.eval.batch_size, num_workers=recipe.train.num_workers))


def _check_front(recipe: Recipe, source: Source, tokens: Sequence[str]) -> None:
    """Raise DataError where a prediction is to be in the frame of CAM_FRONT, which is another camera of the rig. Rigs may have none."""
    reads = recipe.model.reads()
    for token in tokens[:1] if reads.front >= 0 else ():
        sample = recipe.data.open_sample(source, token, reads)
        if any(camera.channel == "CAM_FRONT" for camera in sample.cameras):
            require_front(sample, reads.front, reads.front_setting)


def _check_past(recipe: Recipe, source: Source, tokens: Sequence[str], reads: Reads | None = None) -> None:
    """Warn when no recording is long enough for the past that is read. Raise DataError for camera sweeps that are not there."""
    reads = reads or recipe.model.reads()
    if reads.sweeps is not None:
        for token in tokens[-1:]:  # of the last scene the last keyframe, which has the longest past
            recipe.data.open_sample(source, token, reads)
        return
    past = reads.past
    longest = max((len(source.neighbours(token)) for token in tokens), default=0) if past else past + 1
    if 0 < longest <= past:
        warnings.warn(
            f"no keyframe has a full past: the network reads {past} past keyframes, but the longest scene here has {longest} in all. "
            "What is missing is replaced by the keyframe itself.",
            FrustumWarning,
            stacklevel=3,
        )
