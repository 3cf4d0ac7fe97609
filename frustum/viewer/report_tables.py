"""The report's figures: tiles of the headline figures, the table of results, and the figures of each class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape

from frustum.tasks.task import ClassFigures, Figure, titles
from frustum.types.table import percent
from frustum.viewer.report_data import ReportData, Result


def times_better(report: ReportData) -> str:
    """By which factor the first headline figure is higher than that of the second predictor, in a sentence; "" where that says nothing."""
    names = list(report.results)
    for title, values in _rows(report) if len(names) > 1 else ():
        if values[names[0]].is_headline and values[names[0]].value is not None:
            gain = _times(*list(values.values())[:2])
            return f"On unseen frames its {title} is {gain.replace('×', '')} times that of the {names[1]}." if gain else ""
    return ""


def tiles(report: ReportData) -> str:
    """The headline figures of the first predictor, with bars of the others below them."""
    shown = []
    for title, values in _rows(report):
        first, *others = values.values()
        if not first.is_headline or not math.isfinite(_number(first.value)):
            continue
        top = max(_known(values)) or 1.0
        gain = _times(first, others[0]) if others else ""
        small = f"<small>{gain} the {escape(list(values)[1])}</small>" if gain else ""
        bars = "".join(
            f'<div class="rival{" first" if i == 0 else ""}"><span title="{escape(name)}">{escape(name)}</span>'
            f"{_bar(_number(figure.value) / top)}<span>{escape(_text(figure, 1))}</span></div>"
            for i, (name, figure) in enumerate(values.items())
        )
        shown.append(
            f'<div class="tile card"><h3>{escape(title)}</h3><div class="big num">{escape(_text(first, 1))}{small}</div>'
            f"<p>{escape(first.meaning)}</p>{bars if others else ''}</div>"
        )
    return f'<div class="tiles">{"".join(shown)}</div>' if shown else ""


def results_section(report: ReportData) -> str:
    """All figures that belong to a group, a column per predictor."""
    names = list(report.results)
    rows, group, plain = [], "", True
    for title, values in _rows(report):
        figure = next(iter(values.values()))
        plain &= figure.unit == "%" and figure.higher_is_better
        if figure.group != group:
            group = figure.group
            rows.append(f'<tr class="group"><th colspan="{len(names) + 1}">{escape(group)}</th></tr>')
        known = _known(values)
        best = (max if figure.higher_is_better else min)(known) if len(known) > 1 else math.nan
        cells = "".join(_cell(_text(f), best=f.value == best) for f in values.values())
        small = figure.meaning if figure.higher_is_better else f"{figure.meaning.rstrip('.')}; lower is better"
        rows.append(f"<tr><th>{escape(title)}<small>{escape(small)}</small></th>{cells}</tr>")
    if not rows:
        return ""
    head = "".join(f'<th class="n" title="{escape(report.about.get(name, ""))}">{escape(name)}</th>' for name in names)
    notes = " ".join(f"<b>{escape(name)}</b>: {escape(text.rstrip('.'))}." for name, text in report.about.items() if text)
    below = "".join(f'<p class="note">{text}</p>' for text in (notes, *map(escape, report.notes)) if text)
    units = "Percent, higher is better" if plain else "Percent where there is no unit, higher is better unless noted"
    return f"""<section id="results"><h2>Results</h2>
<p>{units}, the best of each row is highlighted. All counts are pooled over the evaluated frames.</p>
<div class="card scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>
{below}</section>"""


def classes_section(report: ReportData) -> str:
    """A table for each question that has figures of classes."""
    by_question = [{name: r.classes for name, r in results.items() if r.classes and r.classes.columns} for results in _by_question(report)]
    tables = "".join(_classes(found) for found in by_question if found)
    return f'<section id="classes"><h2>Class by class</h2>{tables}</section>' if tables else ""


# ---- parts ------------------------------------------------------------------------------------------------------------------


def _by_question(report: ReportData) -> Iterator[dict[str, Result]]:
    """The result of each predictor, by its name, question by question; an empty one where a predictor does not answer."""
    for question in dict.fromkeys(question for results in report.results.values() for question in results):
        yield {name: results.get(question, Result()) for name, results in report.results.items()}


def _rows(report: ReportData) -> Iterator[tuple[str, dict[str, Figure]]]:
    """Title and figure by predictor of all figures that have a group, by group; the value is None where a predictor does not have it."""
    for results in _by_question(report):
        named = {f.key: (title, f) for r in results.values() for title, f in zip(titles(r.figures), r.figures, strict=True) if f.group}
        groups = list(dict.fromkeys(figure.group for _, figure in named.values()))
        for title, figure in sorted(named.values(), key=lambda row: groups.index(row[1].group)):
            missing = figure._replace(value=None)
            yield title, {name: next((f for f in r.figures if f.key == figure.key), missing) for name, r in results.items()}


def _classes(tables: Mapping[str, ClassFigures]) -> str:
    """A bar per class of the first predictor, a line where the second one is, and the values of all."""
    first, mark = next(iter(tables.values())), next(iter(list(tables)[1:]), None)
    heading, main = next(iter(first.columns.items()))
    values = {name: next(iter(classes.columns.values())) for name, classes in tables.items()}
    top = max([0.01, *(v for column in values.values() for v in map(_number, column.values()) if math.isfinite(v))])
    columns = [(name, column, first.units.get(heading, "%")) for name, column in values.items()]
    if mark is None:  # room for the other columns
        columns = [(name, column, first.units.get(name, "%")) for name, column in first.columns.items()]
    columns += [(n, c, u) for n, c, u in (("published", first.published, "%"), ("share", first.share, "share")) if c is not None]
    rows = []
    for name, colour in zip(first.legend.names, first.legend.colours, strict=True):
        if name not in main:
            continue
        line = ""
        if mark is not None and math.isfinite(other := _number(values[mark].get(name))):
            line = f'<u style="left:{100 * other / top:.1f}%" title="{escape(mark)}: {percent(other)}"></u>'
        paint = "rgb({},{},{})".format(*colour)
        cells = "".join(_cell(_class_text(_number(column.get(name)), unit)) for _, column, unit in columns)
        rows.append(
            f'<tr><th><i class="chip" style="background:{paint}"></i>{escape(name.replace("_", " "))}</th>'
            f'<td class="barcell"><div class="mark-line">{_bar(_number(main[name]) / top, paint)}{line}</div></td>{cells}</tr>'
        )
    head = "".join(f'<th class="n">{escape(name)}</th>' for name, _, _ in columns)
    explain = f" The dark line marks the {escape(mark)}." if mark else ""
    explain += " Rare classes are the hard ones; n/a: there was nothing of the class to count."
    return f"""<p>{escape(first.title.rstrip("."))}.{explain}</p>
<div class="card scroll"><table class="classes"><thead><tr><th>class</th><th></th>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>"""


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _known(values: Mapping[str, Figure]) -> list[float]:
    return [v for v in (_number(figure.value) for figure in values.values()) if math.isfinite(v)]


def _text(figure: Figure, digits: int = 2) -> str:
    return figure.text(digits) if math.isfinite(_number(figure.value)) else "n/a"


def _class_text(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "n/a"
    if unit == "share":
        return "< 0.001 %" if 0 < value < 1e-5 else f"{100 * value:.1f} %" if value >= 1e-3 else f"{100 * value:.1g} %"
    return percent(value, 1) if unit == "%" else f"{value:,.0f}" if unit == "count" else f"{value:.3f} {unit}"


def _times(first: Figure, second: Figure) -> str:
    """How many times as large, as text; empty where that says nothing."""
    value, other = _number(first.value), _number(second.value)
    ratio = value / other if other > 0 else math.nan
    if not first.higher_is_better or not 1.05 <= ratio < math.inf:
        return ""
    return f"×{ratio:.0f}" if ratio >= 20 else f"×{ratio:.1f}"


def _cell(text: str, *, best: bool = False) -> str:
    kind = " best" if best else " na" if text == "n/a" else ""
    return f'<td class="n{kind}"><span>{escape(text)}</span></td>'


def _bar(share: float, colour: str = "") -> str:
    width = 100 * min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    paint = f";background:{colour}" if colour else ""
    return f'<span class="bar"><i style="width:{width:.1f}%{paint}"></i></span>'
