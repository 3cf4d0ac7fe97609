"""The numbers of an evaluation: as JSON with their protocol, and as tables for people. What a figure is, its task says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from frustum.engine.recipe import PublishedNumber
from frustum.engine.taught import TAUGHT
from frustum.errors import ConfigError, DataError
from frustum.files import read_json, without_places, write_json
from frustum.tasks import TASKS
from frustum.tasks.task import ClassFigures, Figure, Task, titles
from frustum.types.table import Cell, Table, percent
from frustum.version import __version__

EVALUATION, BASELINES, ROBUSTNESS = "eval.json", "baselines.json", "robustness.json"
"""Files of a run folder."""
_LONGEST = 1e9  # seconds that an evaluation takes
AS_THEY_ARE = "as they are"
"""`EvalReport.images` of a network that was given the images on disk."""
Tasks = Sequence[type[Task]]


@dataclass(frozen=True)
class EvalReport:
    """One model on one split.

    Attributes:
        name: of the model.
        split, frames, every: every n-th sample of the split was evaluated, `frames` samples in all.
        images: what it was given: "as they are", "black", "none", or images with a corruption: "fog:3".
        results: by the name of the task, what its `compute` gave.
        seconds: how long it took.
        weights: digest of the network's weights (`checkpoint.digest`), None for a predictor without weights.
        note: what the model is, in a sentence, where it is not a network.
        about: what its files say of themselves.
        taught_with: which labels and which start its weights come from (engine/taught.py); empty where they do not say.
        tasks: those that scored, with their counts; empty in a report that was read from a file.
    """

    name: str
    split: str
    frames: int
    every: int
    images: str
    results: dict[str, dict[str, Any]]
    seconds: float
    weights: str | None = None
    note: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    taught_with: Mapping[str, list[str]] = field(default_factory=dict)
    tasks: tuple[Task, ...] = field(default=(), repr=False, compare=False)

    @property
    def corruption(self) -> str | None:
        """What was done to the images, as `fog:3`; None where nothing was."""
        return None if self.images in (AS_THEY_ARE, "black", "none") else self.images

    @property
    def on(self) -> str:
        """The samples and their images in words."""
        images = f", images corrupted by {self.corruption}" if self.corruption else ""
        return f"{self.split}, {self.frames} frames{images}"

    def numbers(self, tasks: Tasks = TASKS) -> dict[str, Any]:
        """JSON values, with the protocol of every figure."""
        about = {"name": without_places(self.name), "split": self.split, "frames": self.frames, "every": self.every, "images": self.images}
        made = {"seconds": round(self.seconds, 3), "weights": self.weights, "frustum": __version__}
        said = {"note": self.note, "about": dict(self.about), TAUGHT: dict(self.taught_with)}
        optional = without_places({key: value for key, value in said.items() if value})
        protocol = {task.name: dict(task.protocol) for task, _ in scored(self, tasks)}
        return about | made | optional | {"results": self.results, "protocol": protocol}

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any]) -> EvalReport:
        """The inverse of `numbers`; files of the first version hold the figures of the first task alone, as `metrics`.

        Raises:
            DataError: it is not what `numbers` gives.
        """
        try:
            return cls._from(numbers)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"these are not the figures of an evaluation: {error}. Delete the file, and evaluate again.") from error

    @classmethod
    def _from(cls, numbers: Mapping[str, Any]) -> EvalReport:
        results = numbers["results"] if "results" in numbers else {TASKS[0].name: numbers["metrics"]}
        known = {f.name: numbers[f.name] for f in fields(cls) if f.name in numbers and f.name != "results"}
        found = cls(**known, results=results)
        kinds = {"name": str, "split": str, "images": str, "note": str, "frames": int, "every": int, "weights": str | None, "about": dict}
        for name, kind in (kinds | {"results": dict, TAUGHT: dict}).items():
            if not isinstance(getattr(found, name), kind) or isinstance(getattr(found, name), bool):
                raise TypeError(f"{name} is a {type(getattr(found, name)).__name__}")
        if not all(isinstance(metrics, dict) for metrics in found.results.values()) or not 0 <= found.seconds < _LONGEST:
            raise ValueError("its results are no objects, or it took no time that can be")
        return found


def scored(report: EvalReport, tasks: Tasks = TASKS) -> list[tuple[type[Task], dict[str, Any]]]:
    """The tasks that a report holds results of, and these."""
    return [(task, report.results[task.name]) for task in tasks if task.name in report.results]


def figures(report: EvalReport, tasks: Tasks = TASKS) -> list[Figure]:
    """All figures of a report, task after task."""
    return [figure for task, metrics in scored(report, tasks) for figure in task.figures(metrics)]


def headline(report: EvalReport, tasks: Tasks = TASKS) -> list[Figure]:
    """The few figures that sum a report up, those that were counted."""
    return [figure for figure in figures(report, tasks) if figure.is_headline and figure.value is not None]


def notes(report: EvalReport, tasks: Tasks = TASKS) -> list[str]:
    """What a reader must know to read the figures, in sentences."""
    return [note for task, metrics in scored(report, tasks) for note in task.notes(metrics)]


def figures_table(report: EvalReport, published: Sequence[PublishedNumber] = (), tasks: Tasks = TASKS) -> Table:
    """All figures with what they count and their convention, next to the published ones."""
    known = {number.metric: number for number in published}
    columns = ["figure", "counted on", "convention", "here", *(["published"] if known else [])]
    rows: list[Sequence[Cell]] = []
    for figure in figures(report, tasks):
        theirs = known.get(figure.published_as)
        row = [figure.name, figure.counted, figure.convention, figure.text(), f"{theirs.value:.2f}" if theirs else ""]
        rows.append(row[: len(columns)])
    return Table(f"{report.name} on {report.on}: all figures (percent, where no unit is given)", columns, rows)


def class_figures(
    report: EvalReport, published: Sequence[PublishedNumber] = (), tasks: Tasks = TASKS
) -> Iterator[tuple[type[Task], ClassFigures, PublishedNumber | None]]:
    """The figures of every class, task after task, with the published ones and the number that these belong to.

    Raises:
        ConfigError: the published ones are of more or fewer classes.
    """
    for task, metrics in scored(report, tasks):
        found = task.classes(metrics)
        if found is None:
            continue
        names = {figure.published_as for figure in task.figures(metrics)}
        theirs = next((number for number in published if number.per_class and number.metric in names), None)
        yield task, found if theirs is None else found._replace(published=_by_class(theirs, found.legend.names)), theirs


def _by_class(number: PublishedNumber, names: Sequence[str]) -> dict[str, float]:
    if len(number.per_class) != len(names):
        raise ConfigError(
            f"the published {number.metric} of {number.source} has figures of {len(number.per_class)} classes, but {len(names)} are "
            f"evaluated. published.per_class must have one entry per class, in this order: {', '.join(names)}."
        )
    return {name: value / 100 for name, value in zip(names, number.per_class, strict=True)}


def class_tables(report: EvalReport, published: Sequence[PublishedNumber] = (), tasks: Tasks = TASKS) -> Iterator[Table]:
    """`class_figures` as tables."""
    for task, found, theirs in class_figures(report, published, tasks):
        columns, means = dict(found.columns), dict(found.means)
        if theirs is not None and found.published:
            title = f"published {theirs.metric}"
            columns[title], means[title] = found.published, theirs.value / 100
        units = [found.units.get(column, "%") for column in columns]
        lines = [(name, [values[name] for values in columns.values()]) for name in found.legend.names]
        lines += [("mean", [means.get(column) for column in columns])] if found.means else []
        rows: list[Sequence[Cell]] = [[name, *map(_cell, values, units)] for name, values in lines]
        yield Table(
            f"{report.name} on {report.on}: {task.name}, {found.title} (percent, or the unit of the figure)", ["class", *columns], rows
        )


def _cell(value: float | None, unit: str) -> str:
    if value is None or unit == "%":
        return percent(value)
    return str(value) if unit == "count" else f"{value:.4f}"


def compare(reports: Sequence[EvalReport], tasks: Tasks = TASKS) -> Table:
    """Several models side by side, by the figures that have a group."""
    first = reports[0]
    shown = [figure for figure in figures(first, tasks) if figure.group]
    keys, columns = [(figure.key, figure.name) for figure in shown], titles(shown)
    rows: list[Sequence[Cell]] = []
    for report in reports:
        known = {(figure.key, figure.name): figure for figure in figures(report, tasks)}
        rows.append([report.name, *(known[key].text() if key in known else "-" for key in keys)])
    return Table(f"{first.on} (percent, where no unit is given)", ["", *columns], rows)


def write_reports(run: Path, reports: Sequence[EvalReport]) -> None:
    """Keep the network's report in the run folder `run`, and those of its baselines if they follow. Raises DataError.

    A report of corrupted images has a file of its own, eval_fog-3.json; its baselines, which read no images, are those of the clean one.
    """
    if corruption := reports[0].corruption:
        write_json(run / f"eval_{corruption.replace(':', '-')}.json", reports[0].numbers(), indent=2)
        return
    if len(reports) > 1:
        write_json(run / BASELINES, [report.numbers() for report in reports[1:]], indent=2)
    write_json(run / EVALUATION, reports[0].numbers(), indent=2)


def read_reports(run: Path, weights: str) -> list[EvalReport]:
    """The kept reports that were made with these weights (`checkpoint.digest`), the network's first; empty if its own is missing."""
    if not (run / EVALUATION).is_file():
        return []
    stored = [read_json(run / EVALUATION, "evaluation")]
    if (run / BASELINES).is_file():
        baselines = read_json(run / BASELINES, "evaluation of the baselines")
        stored += baselines if isinstance(baselines, list) else [baselines]
    try:
        own, *others = [EvalReport.from_numbers(numbers) for numbers in stored]
    except DataError as error:
        raise DataError(f"in {run / EVALUATION} or {BASELINES} beside it: {error}") from error
    if own.weights != weights or own.corruption:
        return []
    return [own, *(report for report in others if report.images == "none" or report.weights == weights)]
