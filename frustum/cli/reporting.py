"""From a run folder to a report: its numbers, its curves, and what it predicts for some samples of the validation split."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from frustum.checkpoint.weights_file import digest
from frustum.cli.common import say
from frustum.cli.resolve import is_run, open_data, open_network
from frustum.data.source import DataConfig, Source, spread
from frustum.engine.metrics_log import read_lines
from frustum.engine.predictors import NetworkPredictor, network_predictions
from frustum.engine.progress import pace, progress_bar
from frustum.engine.recipe import PublishedNumber
from frustum.engine.reports import EvalReport, class_figures, notes, read_reports, scored
from frustum.engine.run import Run, load_run
from frustum.engine.taught import in_sentences
from frustum.engine.trained import open_trained
from frustum.errors import CheckpointError, ConfigError, DataError
from frustum.files import without_places
from frustum.locks import sole_owner
from frustum.tasks import TASKS
from frustum.tasks.task import Task
from frustum.types.layers import Layer
from frustum.types.predictions import Prediction
from frustum.version import __version__
from frustum.viewer.report import write_report
from frustum.viewer.report_data import Question, ReportData, Result, SamplePanel


def report_run(
    name: Path | str,
    out: Path | None = None,
    samples: int = 4,
    overrides: Sequence[str] = (),
    checkpoint: Path | None = None,
    source: str = "frustum",
    code: Sequence[str] = (),
    beside: Sequence[Path] = (),
) -> Path:
    """Write the report of a run, a weights file or a recipe with a checkpoint, and return the page.

    Args:
        name, overrides, checkpoint, source, code: as `open_network` takes them.
        out: folder of the report; by default RUN/report, or FILE's name with `-report` in the file's folder.
        beside: other runs, whose numbers are shown beside its own: a teacher, the same network without it.

    Raises:
        ConfigError: a setting that does not fit, a recipe without weights, or runs that were not evaluated alike.
        CheckpointError: weights that are missing or do not fit.
        DataError: its data set cannot be read, or `out` not be written to. OutputError: another process works in `out`.
    """
    if Path(name).is_dir() and not is_run(name):
        raise CheckpointError(f"{name} is not a run: it does not contain recipe.json. Give the folder that `frustum train` wrote.")
    recipe, network = open_network(str(name), overrides, checkpoint, source, code)
    folder = checkpoint or Path(name)
    is_own = is_run(folder)
    run = replace(load_run(folder), recipe=recipe) if is_own else Run(folder, recipe, recipe.name, tuple(overrides), __version__, None)
    numbers = read_reports(folder, digest(network))
    if beside:
        numbers = [*_side_by_side(folder, numbers, beside, code), *numbers[1:]]
    out = out or (folder / "report" if is_own else folder.with_name(f"{folder.stem}-report"))
    with sole_owner(out, "frustum report"):
        data_set = open_data(recipe, str(name))
        tokens = pick(data_set, recipe.data.val_split, samples)
        panels = []
        with progress_bar("report", len(tokens), unit="frames") as bar:
            predictor = NetworkPredictor(network, recipe.runtime)
            for prediction in network_predictions(predictor, recipe, data_set, tokens):
                panels.append(panel_of(recipe.data, data_set, prediction))
                bar.advance()
        data = ReportData(
            title=f"{recipe.name} on {recipe.data.val_split}",
            results={report.name: results_of(report, recipe.published if report is numbers[0] else ()) for report in numbers},
            about={report.name: report.note for report in numbers},
            notes=notes(numbers[0]) if numbers else (),
            panels=panels,
            losses=read_lines(folder / "metrics.jsonl"),
            recipe=json.dumps(without_places(recipe.model_dump(mode="json")), indent=2),
            facts=facts_of(run, numbers, sum(p.numel() for p in network.parameters()), getattr(network, "taught_with", {})),
        )
        page = write_report(data, out)
    if is_own and not numbers:
        say(f"no numbers of these weights yet: run `frustum eval {folder} --baselines` and write the report again.")
    return page


def _side_by_side(folder: Path, numbers: Sequence[EvalReport], others: Sequence[Path], code: Sequence[str]) -> list[EvalReport]:
    """The evaluation of the run in `folder`, then those of other runs, each named by its folder, and with what it is as its note."""
    found: list[EvalReport] = []
    for run in (folder, *others):
        own = [] if found else list(numbers)
        about = ""
        if found:
            recipe, network = open_trained(run, code)
            own = read_reports(run, digest(network))
            parameters = f"{recipe.name}, {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters"
            about = "; ".join([parameters, *in_sentences(own[0].taught_with)]) if own else ""
        if not own:
            raise ConfigError(f"{run} has no numbers of its weights yet, to be shown beside others: run `frustum eval {run}` first.")
        if found and own[0].on != found[0].on:
            raise ConfigError(f"{run} was evaluated on {own[0].on}, but {folder} on {found[0].on}: evaluate both alike.")
        name = run.resolve().name
        if found and run.resolve() == folder.resolve():
            raise ConfigError(f"{run} is the run that the report is of: give other runs with --beside.")
        if name in {report.name for report in found}:
            raise ConfigError(f"two runs to be shown side by side are in folders called {name}: rename one.")
        found.append(replace(own[0], name=name, note=about))
    return found


def pick(source: Source, split: str, samples: int) -> list[str]:
    """Samples to show: the middle ones of recordings that are spread over the split."""
    tokens = source.tokens(split)
    recordings: dict[str, list[str]] = {}
    for token in tokens:
        recordings.setdefault(source.neighbours(token)[0], []).append(token)
    middles = [some[len(some) // 2] for some in recordings.values()]
    return spread(middles if len(middles) >= samples else tokens, samples)


def panel_of(data: DataConfig, source: Source, prediction: Prediction, truth_of: Sequence[type[Task]] = TASKS) -> SamplePanel:
    """One sample with its images, each part of its prediction, and the truth of some questions where the data set has it."""
    token, questions = prediction.token, []
    for task in TASKS:
        part = getattr(prediction, task.part)
        if part is None:
            continue
        truth: list[Layer] = []
        with suppress(DataError):  # not labelled: the prediction is shown alone
            truth = task.truth_layers(task(slow=False).truth(source, token), part) if task in truth_of else []
        questions.append(Question(task.name.replace("_", " ").capitalize(), task.layers(part), truth))
    return SamplePanel(source.sample(token).scene or token, data.show(source, token), questions, cameras=data.calibrations(source, token))


def results_of(report: EvalReport, published: Sequence[PublishedNumber] = ()) -> dict[str, Result]:
    """An evaluation in the report's form: figures by question, with the published ones."""
    classes = {task.name: found for task, found, _ in class_figures(report, published)}
    return {task.name: Result(task.figures(metrics), classes.get(task.name)) for task, metrics in scored(report)}


def facts_of(run: Run, numbers: Sequence[EvalReport], parameters: int, taught: Mapping[str, list[str]] | None = None) -> dict[str, str]:
    """The facts of a run by name, as text; without those that are unknown. `taught` is what its weights say (engine/taught.py)."""
    recipe, last = run.recipe, (read_lines(run.folder / "metrics.jsonl") or [{}])[-1]
    facts: dict[str, Any] = {
        "recipe": run.source,
        "settings": " ".join(run.overrides),
        "parameters": f"{parameters / 1e6:.2f} M",
        "data": f"{recipe.data.root}, {recipe.data.train_split} and {recipe.data.val_split}",
        **dict(line.split(": ", 1) for line in in_sentences(taught or {})),
        "images": f"{recipe.data.image_size[0]} x {recipe.data.image_size[1]}",
        "steps": last.get("step", ""),
        "batch": recipe.train.batch_size * recipe.train.accumulate,
        "speed": pace(last["steps_per_second"]) if "steps_per_second" in last else "",
        "evaluated": f"{numbers[0].frames} frames" if numbers else "",
        "seed": recipe.train.seed,
        "machine": f"{platform.system()} {platform.machine()}",
        "frustum": run.version,
        "commit": run.commit or "",
    }
    return {name: without_places(str(value)) for name, value in facts.items() if str(value)}
