"""Evaluate a network, with its baselines if asked, or predictions of any origin that lie in files; print the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frustum.checkpoint.weights_file import WEIGHTS
from frustum.cli.common import say, table
from frustum.cli.resolve import is_run, open_data, open_network
from frustum.data.opening import open_root, split_of
from frustum.engine.evaluate import evaluate, evaluate_with_baselines
from frustum.engine.recipe import PublishedNumber
from frustum.engine.reports import EVALUATION, EvalReport, class_tables, compare, figures_table, notes, write_reports
from frustum.engine.taught import in_sentences
from frustum.errors import DataError, OutputError
from frustum.files import require_place
from frustum.tasks import TASKS
from frustum.tasks.task import Together
from frustum.types.table import Table


def evaluate_run(
    name: str,
    overrides: Sequence[str] = (),
    checkpoint: Path | None = None,
    source: str = "frustum",
    split: str | None = None,
    baselines: bool = False,
    code: Sequence[str] = (),
) -> dict[str, Any]:
    """What `frustum eval` does; returns the numbers.

    Those of a run's own weights on its own settings are kept in its eval.json; on images with a corruption in a file beside it.
    """
    others = [word for word in overrides if not word.startswith("eval.corruption=")]
    is_kept = is_run(name) and not others and checkpoint is None and split is None and source == "frustum"
    if is_kept:
        try:
            require_place(Path(name) / EVALUATION)  # before the work, not after it
        except OutputError as error:
            raise OutputError(f"{error} To keep the figures elsewhere: frustum eval {name}/{WEIGHTS} data.root=... --json FILE") from error
    recipe, network = open_network(name, overrides, checkpoint, source, code)
    data = open_data(recipe, name)
    reports = evaluate_with_baselines(recipe, network, data, split) if baselines else [evaluate(recipe, network, data, split)]
    published = () if reports[0].corruption else recipe.published  # those are figures on clean images
    print_figures(reports[0], published)
    if baselines:
        print_table(compare(reports))
    if is_kept:
        write_reports(Path(name), reports)
    elif is_run(name):
        say(f"These figures are not kept in {name}, whose own settings and split they are not of: --json FILE keeps them.")
    theirs = {"published": [number.model_dump(mode="json") for number in published]} if published else {}
    return numbers_of(reports) | theirs


def evaluate_results(results: Path, root: Path, version: str | None = None, split: str | None = None) -> dict[str, Any]:
    """What `frustum eval --results` does; prints the tables and returns the numbers.

    Args:
        results: a file or folder of predictions.
        root, version: the data set with the truth.
        split: by default the split that the keyframes of the file make up.

    Raises:
        DataError: no task knows the file, it is malformed, or it does not fit the split.
    """
    kinds = "--results takes what frustum predict wrote, " + ", or ".join(task.accepts for task in TASKS if task.accepts) + "."
    if not results.exists():
        raise DataError(f"there is no file or folder {results}. {kinds}")
    say(f"reading {results}")
    source = open_root(root, version)
    found = [predictor for task in TASKS if (predictor := task.recognise(results)) is not None]
    if not found:
        raise DataError(f"{results} is not a file of predictions that frustum knows. {kinds}")
    predictor = Together(found) if len(found) > 1 else found[0]
    report = evaluate(None, predictor, source, split or split_of(source, predictor.tokens))
    print_figures(report)
    return report.numbers()


def print_figures(report: EvalReport, published: Sequence[PublishedNumber] = ()) -> None:
    """The tables of classes, every figure with what it counts and its convention, the notes, and what the weights learned from."""
    for found in class_tables(report, published):
        print_table(found)
    print_table(figures_table(report, published), numbers=False)
    for line in (*notes(report), *in_sentences(report.taught_with)):
        say(line)
    for number in published:
        say(f"published {number.metric}: {number.value} ({number.protocol}; {number.source})")


def print_table(shown: Table, numbers: bool = True) -> None:
    """Print a table; columns after the first are right-aligned if they are numbers."""
    table(shown.title, shown.columns, shown.texts(), numbers)


def numbers_of(reports: Sequence[EvalReport]) -> dict[str, Any]:
    """The model's numbers, with those of the baselines below `baselines`."""
    return reports[0].numbers() | ({"baselines": [report.numbers() for report in reports[1:]]} if len(reports) > 1 else {})
