"""Evaluation: one path for networks, baselines and predictions of others. It scores whatever parts a prediction has."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from accelerate.utils import gather_object
from torch import nn

from frustum.checkpoint.weights_file import digest
from frustum.data.source import Source
from frustum.engine.feed import note_lacking
from frustum.engine.predictors import NetworkPredictor, network_predictions
from frustum.engine.progress import loop_progress, progress_bar
from frustum.engine.recipe import EvalConfig, Recipe, RuntimeConfig
from frustum.engine.reports import AS_THEY_ARE, EvalReport
from frustum.engine.runtime import make_accelerator
from frustum.errors import DataError, FrustumWarning
from frustum.files import require_place, write_json
from frustum.ops.processes import deaths_explained
from frustum.tasks import TASKS
from frustum.tasks.task import Predictor, Task
from frustum.types.predictions import Prediction

BLACK_NOTE = "the trained network with black images instead of those of the cameras"


@deaths_explained
def evaluate(
    recipe: Recipe | None,
    model: nn.Module | NetworkPredictor | Predictor,
    source: Source | None = None,
    split: str | None = None,
    *,
    every: int | None = None,
    black: bool = False,
    name: str | None = None,
    out: Path | str | None = None,
    progress: bool = True,
    tasks: Sequence[type[Task]] = TASKS,
) -> EvalReport:
    """Score a model on a split.

    Args:
        recipe: names data, device, precision and `eval` settings, the corruption of the images among them; may be None for a `Predictor`,
            with `source` and `split` given.
        model: a network that keeps the contract, or what predicts without images: a baseline, or predictions in files.
        source: the opened data set; by default that of the recipe.
        split: by default `data.val_split`.
        every: score every n-th sample of the split; by default `eval.every`.
        black: feed the network black images instead of those on disk.
        name: what the model is called in the report; by default its own name, or the recipe's.
        out: file (eval.json) that the numbers are written to, atomically.
        tasks: the questions that may be scored; those are whose part the predictions have.

    Every process scores its own samples; all return the report of all of them.

    Raises:
        DataError: no labels, damaged files, a wrong root, a prediction that lacks a part that others have, or nothing that could be
            scored. ShapeError: predictions of another shape than the labels.
    """
    began = time.monotonic()
    runtime, settings = (recipe.runtime, recipe.eval) if recipe is not None else (RuntimeConfig(device="cpu"), EvalConfig())
    if recipe is not None:
        source, split = source or recipe.data.open(), split or recipe.data.val_split
    if source is None or split is None:
        raise TypeError("evaluate() without a recipe needs source and split")
    accelerator = make_accelerator(runtime)
    if out is not None and accelerator.is_main_process:
        require_place(out)  # before the work, not after it
    every = every or settings.every
    order = source.tokens(split)[::every]
    if not order:
        raise DataError(f"the split {split!r} of {source.root} has no samples.")
    data = None if recipe is None else recipe.data
    predictor = NetworkPredictor(model, runtime, black=black, data=data) if isinstance(model, nn.Module) else model
    if isinstance(predictor, Predictor):
        order = predictor.ordered(order, split)
    first, last = (len(order) * (accelerator.process_index + i) // accelerator.num_processes for i in (0, 1))
    mine = order[first:last]  # neighbours stay together: networks over time run them as a stream
    reads_images = not isinstance(predictor, Predictor) and not predictor.black
    if reads_images and recipe is not None:
        note_lacking(recipe, source, order)
    corruption = settings.corruption if reads_images else None
    title = name or getattr(predictor, "name", "") or (recipe.name if recipe else "")
    predictions: Iterable[Prediction]
    if isinstance(predictor, Predictor):  # images are not even opened
        predictions = map(predictor.answer, mine)
    else:
        predictions = network_predictions(predictor, recipe, source, mine, corruption)
    scored: dict[str, Task] = {}
    asked: list[type[Task]] = []
    shown = f"evaluate {title}" + (f", {corruption}" if corruption else "")
    with progress_bar(shown, len(mine), show=progress and accelerator.is_main_process, unit="frames") as bar:
        for prediction in predictions:
            asked = _answered(prediction, tasks, asked)
            scored = scored or _with_truth([task(order, settings.slow_figures) for task in asked], source, prediction.token)
            for task in scored.values():
                task.add(prediction.token, getattr(prediction, task.part), task.truth(source, prediction.token))
            bar.advance()
    done: dict[str, Task] = {}
    for task in (task for counted in gather_object([scored]) for task in counted.values()):
        done[task.name] = done[task.name].merge(task) if task.name in done else task
    report = EvalReport(
        name=title,
        split=split,
        frames=len(order),
        every=every,
        images="none" if isinstance(predictor, Predictor) else "black" if predictor.black else corruption or AS_THEY_ARE,
        results={task.name: task.compute() for task in done.values()},
        seconds=time.monotonic() - began,
        weights=digest(model) if isinstance(model, nn.Module) else None,
        note=BLACK_NOTE if black else getattr(predictor, "note", ""),
        about=getattr(predictor, "about", {}),
        taught_with=getattr(model, "taught_with", {}),
        tasks=tuple(done.values()),
    )
    if out is not None and accelerator.is_main_process:
        write_json(out, report.numbers(tasks), indent=2)
    return report


def evaluate_with_baselines(
    recipe: Recipe, network: nn.Module, source: Source | None = None, split: str | None = None, *, progress: bool = True
) -> list[EvalReport]:
    """The report of a network, then of baselines that read no images, and of the network on black images."""
    source = source or recipe.data.open()
    report = evaluate(recipe, network, source, split, progress=progress)
    baselines = (b for task in report.tasks for b in task.baselines(source, recipe.data.train_split, loop_progress))
    reports = [report, *(evaluate(recipe, predictor, source, split, progress=progress) for predictor in baselines)]
    return [*reports, evaluate(recipe, network, source, split, name="black images", black=True, progress=progress)]


def _with_truth(tasks: Sequence[Task], source: Source, token: str) -> dict[str, Task]:
    """Those that the data set has the truth for, by name, judged by one sample; the others are named. Raises DataError if none has."""
    missing: dict[str, DataError] = {}
    for task in tasks:
        try:
            task.truth(source, token)
        except DataError as error:
            missing[task.name] = error
    for reason in missing.values():
        if len(missing) == len(tasks):
            raise reason
        warnings.warn(f"not scored: {reason}", FrustumWarning, stacklevel=3)
    return {task.name: task for task in tasks if task.name not in missing}


def _answered(prediction: Prediction, tasks: Sequence[type[Task]], others: Sequence[type[Task]]) -> list[type[Task]]:
    """The tasks whose part a prediction has. Raises DataError if there is none, or if they are not the `others` of earlier samples."""
    asked = [task for task in tasks if getattr(prediction, task.part) is not None]
    held = ", ".join(name for name, value in vars(prediction).items() if name != "token" and value is not None) or "nothing"
    if held == "nothing":
        raise DataError(
            f"the prediction of {prediction.token} holds nothing that could be scored. A network that was pretrained without one is a "
            "start for others: frustum train RECIPE --init RUN."
        )
    if not asked:
        raise DataError(
            f"the prediction of {prediction.token} holds {held}, which none of the tasks scores. "
            f"Scored are: {', '.join(task.part for task in tasks)}."
        )
    if others and asked != list(others):
        parts = ", ".join(task.part for task in others)
        raise DataError(f"the prediction of {prediction.token} holds {held}, but others hold {parts}: predict all samples in one way.")
    return asked
