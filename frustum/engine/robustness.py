"""Figures on clean and on corrupted images side by side, as tables: of one network, and of several beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from frustum.data.corruption_names import LEVELS, Corruption
from frustum.engine.reports import EvalReport, headline
from frustum.tasks.task import Figure, titles
from frustum.types.table import Cell, Table

CLEAN = "clean"
Evaluations = Mapping[str, EvalReport]
"""Reports by what was done to the images: `clean`, `fog:3`."""


def summary(evaluations: Evaluations) -> dict[str, dict[str, float | None]]:
    """The headline figures as plain values: by the figure's key, then by what was done to the images."""
    return {figure.key: {name: _value(report, figure) for name, report in evaluations.items()} for figure in headline(evaluations[CLEAN])}


def robustness_tables(evaluations: Evaluations, names: Sequence[str], levels: Sequence[int], title: str = "") -> list[Table]:
    """One table per headline figure: a row per corruption, its levels, their mean, and the mean's share of the clean figure in percent.

    Args:
        evaluations: holds `clean`, and all corruptions at all levels.
        names, levels: rows and columns, in order.
        title: what the network is called; by default as in its report.
    """
    clean, tables = evaluations[CLEAN], []
    shown = headline(clean)
    columns = ["", *(f"{level} {LEVELS[level]}" for level in levels), "mean", "mean / clean, %"]
    for figure, heading in zip(shown, titles(shown), strict=True):
        values = {name: [_value(evaluations[str(Corruption(name, level))], figure) for level in levels] for name in names}
        values[_ALL] = [mean(values[name][i] for name in names) for i in range(len(levels))]
        rows: list[Sequence[Cell]] = [[CLEAN, *[""] * len(levels), figure.text(), ""]]
        for name, row in values.items():
            middle = mean(row)
            share = middle / figure.value if middle is not None and figure.value else None
            rows.append([name, *(_text(figure, value) for value in (*row, middle)), "-" if share is None else f"{100 * share:.1f}"])
        said = "" if figure.unit != "%" else " (percent)"
        tables.append(Table(f"{heading} of {title or clean.name} on {clean.on}, by corruption and level{said}", columns, rows))
    return tables


def difference_tables(runs: Mapping[str, Evaluations], names: Sequence[str], levels: Sequence[int]) -> list[Table]:
    """One table per headline figure that all networks have: means over the levels of each network, and how far each is from the first."""
    (first, base), *others = runs.items()
    shared = [figure for figure in headline(base[CLEAN]) if all(_value(found[CLEAN], figure) is not None for found in runs.values())]
    columns = ["", *runs, *(f"{name} - {first}" for name, _ in others)]
    tables = []
    for figure, heading in zip(shared, titles(shared), strict=True):
        means: dict[str, list[float | None]] = {CLEAN: [_value(found[CLEAN], figure) for found in runs.values()]}
        for name in names:
            means[name] = [mean(_value(found[str(Corruption(name, level))], figure) for level in levels) for found in runs.values()]
        means[_ALL] = [mean(means[name][i] for name in names) for i in range(len(runs))]
        rows: list[Sequence[Cell]] = []
        for name, values in means.items():
            rows.append([name, *(_text(figure, value) for value in values), *(_difference(figure, values[0], v) for v in values[1:])])
        over = "level " + ", ".join(map(str, levels)) if len(levels) < len(LEVELS) else "all levels"
        tables.append(Table(f"{heading} on {base[CLEAN].on}: means over {over}, and their differences", columns, rows))
    return tables


_ALL = "all corruptions"


def mean(values: Iterable[float | None]) -> float | None:
    """The mean; None if one is missing, or there are none."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if found and len(known) == len(found) else None


def _value(report: EvalReport, figure: Figure) -> float | None:
    return next((found.value for found in headline(report) if (found.key, found.name) == (figure.key, figure.name)), None)


def _text(figure: Figure, value: float | None) -> str:
    return figure._replace(value=value).text()


def _difference(figure: Figure, first: float | None, value: float | None) -> str:
    if first is None or value is None:
        return "-"
    text = _text(figure, value - first)
    return text if text.startswith("-") else f"+{text}"
