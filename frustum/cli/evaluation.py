"""Evaluate a network, beside its baselines if asked, and print the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from frustum.cli.common import say, table
from frustum.cli.resolve import is_run, open_network
from frustum.data.nuscenes import NuScenes
from frustum.engine.baselines import BlindPrior
from frustum.engine.eval_report import EvalReport, compare, write_reports
from frustum.engine.evaluate import evaluate
from frustum.engine.feed import open_database
from frustum.engine.recipe import Recipe


def evaluate_run(
    name: str,
    overrides: Sequence[str] = (),
    checkpoint: Path | None = None,
    source: str = "frustum",
    split: str | None = None,
    baselines: bool = False,
) -> dict[str, Any]:
    """What `frustum eval` does; returns the numbers. Those of a run's own weights on its own settings are kept in its eval.json."""
    recipe, network = open_network(name, overrides, checkpoint, source)
    database = open_database(recipe.data)
    own = is_run(name) and not overrides and checkpoint is None and split is None and source == "frustum"
    reports = score(recipe, network, database, split, baselines)
    model = reports[0]
    table(*model.class_table())
    table(*model.table())
    if baselines:
        table(*compare(reports))
    else:
        rays = model.metrics["ray_iou"]
        if rays:
            say(
                "RayIoU " + ", ".join(f"@{t} m {100 * rays[t]:.2f}" for t in ("1", "2", "4")) + f", mean {100 * rays['mean']:.2f} (percent)"
            )
    for published in recipe.published:
        say(f"published {published.metric}: {published.value} ({published.protocol})")
    if own:
        write_reports(Path(name), reports)
    return numbers_of(reports)


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
