"""Predictions on disk: one file per sample and question, and pictures through a function that the caller brings."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from frustum.checkpoint.weights_file import digest
from frustum.data.source import Source
from frustum.engine.feed import note_lacking
from frustum.engine.predictors import NetworkPredictor, network_predictions
from frustum.engine.progress import progress_bar
from frustum.engine.recipe import Recipe
from frustum.engine.unfinished import Unfinished
from frustum.errors import ConfigError, DataError
from frustum.files import make_folder
from frustum.locks import owning
from frustum.ops.processes import deaths_explained
from frustum.tasks import TASKS
from frustum.tasks.task import Submission, Task
from frustum.types.predictions import Prediction

Draw = Callable[[Any, Prediction, Path], None]
"""Draws one sample: what was filmed, what was predicted, and the folder where pictures go."""


@owning("out", "frustum predict")
@owning("submission", "frustum predict", "with --submission FOLDER")
@deaths_explained
def predict(
    model: nn.Module,
    recipe: Recipe,
    source: Source,
    tokens: Sequence[str],
    out: Path | str,
    *,
    submission: Path | str | None = None,
    draw: Draw | None = None,
    progress: bool = True,
    tasks: Sequence[type[Task]] = TASKS,
) -> list[Path]:
    """Predict samples of a data set; labels need not exist. What was interrupted goes on, if weights, settings and input are the same.

    Every part of a prediction is written by its task (`Task.save`): occupancy to `<out>/<token>.npz`, boxes to `<token>.boxes.npz`, and so
    on. `Task.load` reads it, and so does plain `np.load`.

    Args:
        model: keeps the contract.
        recipe: names image size, normalisation, device and precision.
        source, tokens: what to predict.
        out: folder, created if needed.
        submission: folder for the same predictions in the form of public challenges, where a task has one.
        draw: called for each sample after its files are written.
        tasks: the questions whose answers are written.

    Returns:
        The files, in order.

    Raises:
        DataError: unreadable images, no samples, a folder cannot be written to, or predictions that a challenge does not allow.
        ConfigError: `submission` is given, but nothing that is predicted has a challenge.
    """
    folder, predictor = make_folder(Path(out)), NetworkPredictor(model, recipe.runtime)
    if not tokens:
        raise DataError(f"there are no keyframes to predict in {source.root}.")
    note_lacking(recipe, source, tokens)
    work = f"{digest(model)} {recipe.model_dump_json()} {draw is not None} {submission}"
    unfinished = Unfinished(folder, hashlib.sha256(work.encode()).hexdigest())
    open_sample = partial(recipe.data.open_sample, source, reads=recipe.model.reads())
    written = {token: unfinished.files(_work_on(open_sample(token))) for token in tokens} if unfinished else {}
    left = [token for token in tokens if not written.get(token)]
    writers: dict[str, Submission] = {}
    empty: Counter[str] = Counter()

    def submit(task: type[Task], token: str, part: Any, sample: Any) -> None:
        if submission is not None and task.submission is not None:
            if task.name not in writers:
                writers[task.name] = task.submission(Path(submission))
            writers[task.name].add(token, part, sample)

    done = len(tokens) - len(left)
    with progress_bar("predict", len(tokens), done=done, show=progress, unit="frames") as bar:
        if done:
            bar.note(f"going on: {done} of {len(tokens)} keyframes are there already")
        for token in tokens if submission is not None else ():
            for path, task in itertools.product(written.get(token) or (), tasks):
                if task.path(folder, token) == path:  # written before an interruption
                    submit(task, token, task.load(path), open_sample(token))
        for prediction in network_predictions(predictor, recipe, source, left):
            sample = open_sample(prediction.token)
            parts = [(task, part) for task in tasks if (part := getattr(prediction, task.part)) is not None]
            if not parts:
                raise DataError(f"the model predicts nothing for {prediction.token} that could be written.")
            for task, part in parts:
                submit(task, prediction.token, part, sample)
                empty.update([task.nothing_found] if task.is_empty(part) else [])
            if submission is not None and not writers:
                names = ", ".join(task.part for task, _ in parts)
                why = "for which there is no public challenge, so nothing can be submitted"
                raise ConfigError(f"this model predicts {names}, {why}. Leave out --submission.")
            files = [task.save(part, folder, prediction.token, sample.scene) for task, part in parts]
            if draw is not None:
                draw(sample, prediction, folder)
            written[prediction.token] = files
            unfinished.add(_work_on(sample), files)
            bar.advance()
        for what, count in empty.items():
            bar.note(f"in {count} of {len(left)} predictions {what}")
    for writer in writers.values():
        writer.finish()
    unfinished.finish()
    return [file for token in tokens for file in written[token] or ()]


def _work_on(sample: Any) -> str:
    """A sample and what its prediction is made from: the sizes of its files, and where there are such, calibration and poses."""
    total, lidar = hashlib.sha256(), getattr(sample, "lidar", None)
    frames = [*getattr(sample, "cameras", ()), *(frame for past in getattr(sample, "history", ()) for frame in past)]
    frames += [lidar] if frames and lidar is not None else []  # which some networks read, or work in the frame of
    for frame in frames or [sample]:
        for name, value in sorted(vars(frame).items()):
            if isinstance(value, Path):
                total.update(f"{name} {value.stat().st_size if value.is_file() else -1}".encode())
            elif isinstance(value, np.ndarray):
                total.update(value.tobytes())
            elif isinstance(value, str | int | float | tuple):
                total.update(f"{name} {value}".encode())
    return f"{sample.token} {total.hexdigest()}"
