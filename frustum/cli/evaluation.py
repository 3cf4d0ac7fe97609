"""Evaluate a network, beside its baselines if asked, and print the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from frustum.cli.common import say, table
from frustum.cli.resolve import is_run, open_network
from frustum.data.nuscenes.reader import NuScenes
from frustum.engine.baselines import BlindPrior
from frustum.engine.eval_figures import class_table, coverage, figures_table
from frustum.engine.eval_report import EvalReport, compare, write_reports
from frustum.engine.evaluate import evaluate
from frustum.engine.feed import open_database
from frustum.engine.recipe import PublishedNumber, Recipe


def evaluate_run(
    name: str,
    overrides: Sequence[str] = (),
    checkpoint: Path | None = None,
    source: str = "frustum",
    split: str | None = None,
    baselines: bool = False,
    code: Sequence[str] = (),
) -> dict[str, Any]:
    """What `frustum eval` does; returns the numbers. Those of a run's own weights on its own settings are kept in its eval.json."""
    recipe, network = open_network(name, overrides, checkpoint, source, code)
    database = open_database(recipe.data)
    own = is_run(name) and not overrides and checkpoint is None and split is None and source == "frustum"
    reports = score(recipe, network, database, split, baselines)
    print_figures(reports[0], recipe.published)
    if baselines:
        table(*compare(reports))
    if own:
        write_reports(Path(name), reports)
    published = {"published": [number.model_dump(mode="json") for number in recipe.published]} if recipe.published else {}
    return numbers_of(reports) | published


def print_figures(report: EvalReport, published: Sequence[PublishedNumber] = ()) -> None:
    """The table of classes, every figure with its mask and convention, and what the masks cover."""
    table(*class_table(report, published))
    table(*figures_table(report, published), numbers=False)
    say(coverage(report))
    for number in published:
        say(f"published {number.metric}: {number.value} ({number.protocol}; {number.source})")


def numbers_of(reports: Sequence[EvalReport]) -> dict[str, Any]:
    """The model's numbers, with those of the baselines below `baselines`."""
    return reports[0].numbers() | ({"baselines": [report.numbers() for report in reports[1:]]} if len(reports) > 1 else {})


def score(recipe: Recipe, network: nn.Module, database: NuScenes, split: str | None, baselines: bool) -> list[EvalReport]:
    """The report of the network, then of the blind prior and of the network on black images."""
    reports = [evaluate(recipe, network, split, database=database)]
    if baselines:
        prior = BlindPrior.fit(database, recipe.data.train_split, grid=getattr(recipe.model, "grid", None), progress=True)
        reports.append(evaluate(recipe, prior, split, name=f"blind prior ({prior.variant})", database=database))
        reports.append(evaluate(recipe, network, split, name="black images", black=True, database=database))
    return reports
