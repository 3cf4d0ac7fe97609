"""Evaluation: integer counts per frame, shared over processes, merged, written to eval.json."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import nn

from frustum.checkpoint.weights_file import digest
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.sample import Occupancy
from frustum.engine.eval_report import EvalReport
from frustum.engine.feed import evaluation_batches, grid_of, open_database
from frustum.engine.predictors import NetworkPredictor, Predictor
from frustum.engine.progress import progress_bar
from frustum.engine.recipe import Recipe
from frustum.engine.runtime import make_accelerator
from frustum.engine.scores import Scores
from frustum.engine.statistics import labels_of
from frustum.errors import DataError
from frustum.files import write_json
from frustum.types.batch import Batch
from frustum.types.classes import IGNORE
from frustum.types.predictions import Prediction


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
    first, last = (len(tokens) * (accelerator.process_index + i) // accelerator.num_processes for i in (0, 1))
    mine = tokens[first:last]  # neighbours stay together: networks over time run them as a stream
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
