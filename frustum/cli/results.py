"""Evaluate predictions of any origin that lie in files: whatever one of the tasks recognises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frustum.cli.common import say
from frustum.cli.evaluation import print_figures
from frustum.data.opening import open_root, split_of
from frustum.engine.evaluate import evaluate
from frustum.errors import DataError
from frustum.tasks import TASKS
from frustum.tasks.task import Together


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
    source = open_root(root, version, camera_only=True)
    found = [predictor for task in TASKS if (predictor := task.recognise(results)) is not None]
    if not found:
        raise DataError(f"{results} is not a file of predictions that frustum knows. {kinds}")
    predictor = Together(found) if len(found) > 1 else found[0]
    report = evaluate(None, predictor, source, split or split_of(source, predictor.tokens))
    print_figures(report)
    return report.numbers()
