"""The report's figures: tiles of the most important ones, the table of results, and the figures of each class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape

from frustum.tasks.task import ClassFigures, Figure, titles
from frustum.viewer.report_data import ReportData


def times_better(report: ReportData) -> str:
    """By which factor the first headline figure is higher than that of the second predictor, in a sentence; "" where that says nothing."""
    names = list(report.results)
    for title, values in _rows(report) if len(names) > 1 else ():
        first = values[names[0]]
        if first is not None and first.is_headline:
            gain = _times(first, values[names[1]])
            return f"On unseen frames its {title} is {gain.replace('×', '')} times that of the {names[1]}." if gain else ""
    return ""


def tiles(report: ReportData) -> str:
    """The headline figures of the first predictor, with bars of the others below them."""
    names = list(report.results)
    shown = []
    for title, values in _rows(report):
        first = values[names[0]]
        if first is None or not first.is_headline or not math.isfinite(_value(first)):
            continue
        top = max(v for v in map(_value, values.values()) if math.isfinite(v)) or 1.0
        gain = _times(first, values[names[1]]) if len(names) > 1 else ""
        small = f"<small>{gain} the {escape(names[1])}</small>" if gain else ""
        bars = "".join(
            f'<div class="rival{" first" if i == 0 else ""}"><span title="{escape(name)}">{escape(name)}</span>'
            f"{_bar(_value(figure) / top)}<span>{escape(_text(figure, 1))}</span></div>"
            for i, (name, figure) in enumerate(values.items())
        )
        shown.append(
            f'<div class="tile card"><h3>{escape(title)}</h3><div class="big num">{escape(_text(first, 1))}{small}</div>'
            f"<p>{escape(first.meaning)}</p>{bars if len(names) > 1 else ''}</div>"
        )
    return f'<div class="tiles">{"".join(shown)}</div>' if shown else ""


def results_section(report: ReportData) -> str:
    """All figures that belong to a group, a column per predictor."""
    names = list(report.results)
    rows, group, plain = [], "", True
    for title, values in _rows(report):
        figure = next(f for f in values.values() if f is not None)
        plain &= figure.unit == "%" and figure.higher_is_better
        if figure.group != group:
            group = figure.group
            rows.append(f'<tr class="group"><th colspan="{len(names) + 1}">{escape(group)}</th></tr>')
        known = [v for v in map(_value, values.values()) if math.isfinite(v)]
        best = (max if figure.higher_is_better else min)(known) if len(known) > 1 else math.nan
        cells = "".join(_cell(_text(f), best=_value(f) == best) for f in values.values())
        small = figure.meaning if figure.higher_is_better else f"{figure.meaning.rstrip('.')}; lower is better"
        rows.append(f"<tr><th>{escape(title)}<small>{escape(small)}</small></th>{cells}</tr>")
    if not rows:
        return ""
    about = {name: report.about.get(name, "") for name in names}
    head = "".join(f'<th class="n" title="{escape(text)}">{escape(name)}</th>' for name, text in about.items())
    notes = " ".join(f"<b>{escape(name)}</b>: {escape(text.rstrip('.'))}." for name, text in about.items() if text)
    below = "".join(f'<p class="note">{text}</p>' for text in (notes, *map(escape, report.notes)) if text)
    units = "Percent, higher is better" if plain else "Percent where there is no unit, higher is better where nothing else is said"
    return f"""<section id="results"><h2>Results</h2>
<p>{units}, the best of each row is highlighted. All counts are pooled over the evaluated frames.</p>
<div class="card scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>
{below}</section>"""


def classes_section(report: ReportData) -> str:
    """A table for each question that has figures of classes."""
    questions = dict.fromkeys(question for results in report.results.values() for question in results)
    tables = []
    for question in questions:
        found = {name: results[question].classes for name, results in report.results.items() if question in results}
        known = {name: classes for name, classes in found.items() if classes is not None and classes.columns}
        if known:
            tables.append(_classes(known))
    return f'<section id="classes"><h2>Class by class</h2>{"".join(tables)}</section>' if tables else ""


# ---- parts ------------------------------------------------------------------------------------------------------------------


def _rows(report: ReportData) -> Iterator[tuple[str, dict[str, Figure | None]]]:
    """Title and figure by predictor of all figures that have a group, question by question; None where a predictor does not have one."""
    for question in dict.fromkeys(question for results in report.results.values() for question in results):
        found = {name: list(results[question].figures) if question in results else [] for name, results in report.results.items()}
        by_key = {name: {figure.key: figure for figure in figures} for name, figures in found.items()}
        named = {f.key: (f, title) for figures in found.values() for f, title in zip(figures, titles(figures), strict=True)}
        for group in dict.fromkeys(figure.group for figure, _ in named.values() if figure.group):
            for key, (figure, title) in named.items():
                if figure.group == group:
                    yield title, {name: figures.get(key) for name, figures in by_key.items()}


def _classes(tables: Mapping[str, ClassFigures]) -> str:
    """A bar per class of the first predictor, a line where the second one is, and the values of all."""
    names = list(tables)
    mark = names[1] if len(names) > 1 else None
    first = tables[names[0]]
    heading = next(iter(first.columns))
    values = {name: next(iter(classes.columns.values())) for name, classes in tables.items()}
    known = [v for column in values.values() for v in map(_number, column.values()) if math.isfinite(v)]
    top = max([*known, 0.01])
    columns = [(name, values[name], first.units.get(heading, "%")) for name in names]
    if mark is None:  # room for the other columns
        columns = [(name, column, first.units.get(name, "%")) for name, column in first.columns.items()]
    if first.published is not None:
        columns.append(("published", first.published, "%"))
    rows = []
    for name, colour in zip(first.legend.names, first.legend.colours, strict=True):
        if name not in first.columns[heading]:
            continue
        line = ""
        if mark is not None and math.isfinite(beside := _number(values[mark].get(name))):
            line = f'<u style="left:{100 * beside / top:.1f}%" title="{escape(mark)}: {_percent(beside)}"></u>'
        paint = "rgb({},{},{})".format(*colour)
        cells = "".join(_cell(_class_text(_number(column.get(name)), unit)) for _, column, unit in columns)
        share = "" if first.share is None else f'<td class="n">{_share(_number(first.share.get(name)))}</td>'
        rows.append(
            f'<tr><th><i class="chip" style="background:{paint}"></i>{escape(name.replace("_", " "))}</th>'
            f'<td class="barcell"><div class="mark-line">{_bar(_number(values[names[0]].get(name)) / top, paint)}{line}</div></td>'
            f"{cells}{share}</tr>"
        )
    head = "".join(f'<th class="n">{escape(name)}</th>' for name, _, _ in columns)
    head += "" if first.share is None else '<th class="n">share</th>'
    explain = f" The dark line marks the {escape(mark)}." if mark else ""
    explain += " Rare classes are the hard ones; n/a: there was nothing of the class to count."
    return f"""<p>{escape(first.title.rstrip("."))}.{explain}</p>
<div class="card scroll"><table class="classes"><thead><tr><th>class</th><th></th>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>"""


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _value(figure: Figure | None) -> float:
    return math.nan if figure is None else _number(figure.value)


def _text(figure: Figure | None, digits: int = 2) -> str:
    return figure.text(digits) if figure is not None and math.isfinite(_value(figure)) else "n/a"


def _class_text(value: float, unit: str) -> str:
    if unit == "%" or not math.isfinite(value):
        return _percent(value, 1)
    return f"{value:,.0f}" if unit == "count" else f"{value:.3f} {unit}"


def _percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f}" if math.isfinite(value) else "n/a"


def _times(first: Figure, second: Figure | None) -> str:
    """How many times as large, as text; empty where that says nothing."""
    value, other = _value(first), _value(second)
    if not first.higher_is_better or not (math.isfinite(value) and math.isfinite(other)) or other <= 0 or value / other < 1.05:
        return ""
    ratio = value / other
    return f"×{ratio:.0f}" if ratio >= 20 else f"×{ratio:.1f}"


def _cell(text: str, *, best: bool = False) -> str:
    kind = " best" if best else " na" if text == "n/a" else ""
    return f'<td class="n{kind}"><span>{escape(text)}</span></td>'


def _bar(share: float, colour: str = "") -> str:
    width = 100 * min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    paint = f";background:{colour}" if colour else ""
    return f'<span class="bar"><i style="width:{width:.1f}%{paint}"></i></span>'


def _share(value: float) -> str:
    if not math.isfinite(value):
        return "n/a"
    percent = 100 * value
    return "0" if percent == 0 else (f"{percent:.1f} %" if percent >= 0.1 else f"{percent:.1g} %" if percent >= 0.001 else "&lt; 0.001 %")
