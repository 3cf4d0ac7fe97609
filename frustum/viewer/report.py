"""A run as one self-contained HTML page, with a PNG per sample beside it. No network, no scripts, nothing but this file to send on."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from frustum.errors import DataError
from frustum.version import __version__
from frustum.viewer.charts import line_chart
from frustum.viewer.pictures import OccupancyPictures, sample_picture
from frustum.viewer.report_data import HEADLINE, METRICS, ReportData, SamplePanel, Scores
from frustum.viewer.report_samples import draw_panel, samples_section, switches

__all__ = ["ReportData", "SamplePanel", "Scores", "report_html", "write_report"]


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header class="top">
<div class="mark">frustum report</div>
<h1>{title}</h1>
<p class="story">{story}</p>
{tiles}
</header>
<main>
{sections}
</main>
<footer>{footer}</footer>
</body>
</html>
"""


def write_report(report: ReportData, out: Path | str) -> Path:
    """Write `out`/report.html and `out`/sample-N.png (or to `out` itself if it ends in .html) and return the page's path.

    Raises:
        DataError: the folder cannot be written to.
    """
    out = Path(out)
    page = out if out.suffix == ".html" else out / "report.html"
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        drawn = [draw_panel(report, panel) for panel in report.panels]
        for number, (panel, pictures) in enumerate(zip(report.panels, drawn, strict=True), 1):
            sheet = sample_picture(panel, pictures=pictures[0])
            picture = page.parent / f"sample-{number}.png"
            part = picture.with_name(picture.name + ".part")
            sheet.save(part, "PNG")
            os.replace(part, picture)
        part = page.with_name(page.name + ".part")
        part.write_text(report_html(report, drawn), encoding="utf-8")
        os.replace(part, page)
    except OSError as error:
        raise DataError(
            f"cannot write the report to {page.parent}: {error}. Free some space or choose another folder with --out."
        ) from error
    return page


def report_html(report: ReportData, drawn: Sequence[Sequence[OccupancyPictures]] | None = None) -> str:
    """The page as text. Sections whose data is missing are left out. `drawn` holds the pictures of each panel if they exist already."""
    sections = [samples_section(report, drawn), _results(report), _classes(report), _curves(report), _run(report)]
    return PAGE.format(
        title=escape(report.title),
        style=files("frustum.viewer").joinpath("report.css").read_text(encoding="utf-8") + switches(report),
        story=escape(report.story or _story(report)),
        tiles=_tiles(report),
        sections="\n".join(s for s in sections if s),
        footer=f"Made by frustum {escape(__version__)}. This page is one file: it needs no network and can be sent as it is.",
    )


def _value(scores: Scores, key: str) -> float:
    value = scores.values.get(key)
    return float(value) if value is not None else math.nan


def _percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f}" if math.isfinite(value) else "n/a"


def _times(value: float, other: float) -> str:
    """How many times as large, as text; empty where that says nothing."""
    if not (math.isfinite(value) and math.isfinite(other)) or other <= 0 or value / other < 1.05:
        return ""
    ratio = value / other
    return f"×{ratio:.0f}" if ratio >= 20 else f"×{ratio:.1f}"


def _story(report: ReportData) -> str:
    """A sentence for reports that bring none."""
    cameras = len(report.panels[0].images) if report.panels else 0
    words = ("Camera images", "One camera", "Two cameras", "Three cameras", "Four cameras", "Five cameras", "Six cameras")
    seen = words[cameras] if cameras < len(words) else f"{cameras} cameras"
    text = f"{seen} in, a labelled 3D map of what is occupied around the vehicle out."
    names = list(report.results)
    if len(names) > 1:
        gain = _times(_value(report.results[names[0]], "miou_camera"), _value(report.results[names[1]], "miou_camera"))
        if gain:
            text += f" On unseen frames its mIoU is {gain.replace('×', '')} times that of the {names[1]}."
    return text


def _tiles(report: ReportData) -> str:
    names = list(report.results)
    if not names:
        return ""
    tiles = []
    for metric in METRICS:
        values = {name: _value(report.results[name], metric.key) for name in names}
        if metric.key not in HEADLINE or not math.isfinite(values[names[0]]):
            continue
        top = max(v for v in values.values() if math.isfinite(v)) or 1.0
        gain = _times(values[names[0]], values[names[1]]) if len(names) > 1 else ""
        small = f"<small>{gain} the {escape(names[1])}</small>" if gain else ""
        bars = "".join(
            f'<div class="rival{" first" if i == 0 else ""}"><span title="{escape(name)}">{escape(name)}</span>'
            f"{_bar(value / top)}<span>{_percent(value, 1)}</span></div>"
            for i, (name, value) in enumerate(values.items())
        )
        tiles.append(
            f'<div class="tile card"><h3>{escape(metric.name)}</h3><div class="big num">{_percent(values[names[0]], 1)}{small}</div>'
            f"<p>{escape(metric.meaning)}</p>{bars if len(names) > 1 else ''}</div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _cell(value: float, *, best: bool = False, digits: int = 2) -> str:
    kind = " best" if best else ("" if math.isfinite(value) else " na")
    return f'<td class="n{kind}"><span>{_percent(value, digits)}</span></td>'


def _bar(share: float, colour: str = "") -> str:
    width = 100 * min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    paint = f";background:{colour}" if colour else ""
    return f'<span class="bar"><i style="width:{width:.1f}%{paint}"></i></span>'


def _results(report: ReportData) -> str:
    names = list(report.results)
    rows, group = [], ""
    for metric in METRICS:
        values = [_value(report.results[name], metric.key) for name in names]
        known = [v for v in values if math.isfinite(v)]
        if not known and all(metric.key not in report.results[name].values for name in names):
            continue
        if metric.group != group:
            group = metric.group
            rows.append(f'<tr class="group"><th colspan="{len(names) + 1}">{escape(group)}</th></tr>')
        best = max(known) if len(known) > 1 else math.nan
        cells = "".join(_cell(v, best=v == best) for v in values)
        rows.append(f"<tr><th>{escape(metric.name)}<small>{escape(metric.meaning)}</small></th>{cells}</tr>")
    if not rows:
        return ""
    head = "".join(f'<th class="n" title="{escape(report.results[name].note)}">{escape(name)}</th>' for name in names)
    notes = " ".join(f"<b>{escape(name)}</b>: {escape(s.note.rstrip(chr(46)))}." for name, s in report.results.items() if s.note)
    return f"""<section id="results"><h2>Results</h2>
<p>Percent, higher is better, the best of each row is highlighted. All counts are pooled over the evaluated frames.</p>
<div class="card scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>
{f'<p class="note">{notes}</p>' if notes else ""}</section>"""


def _classes(report: ReportData) -> str:
    tables = {name: list(s.per_class) for name, s in report.results.items() if len(s.per_class) > 0}
    if not tables:
        return ""
    names = list(tables)
    mark = names[1] if len(names) > 1 else None
    ids = [i for i in range(len(report.class_names)) if i != report.free]

    def of(name: str, i: int) -> float:
        value = tables[name][i] if i < len(tables[name]) else None
        return math.nan if value is None else float(value)

    known = [of(name, i) for name in names for i in ids if math.isfinite(of(name, i))]
    top = max([*known, 0.01])
    has_share = len(report.frequency) >= len(report.class_names)
    rows = []
    for i in ids:
        value = of(names[0], i)
        line = ""
        if mark is not None and math.isfinite(of(mark, i)):
            line = f'<u style="left:{100 * of(mark, i) / top:.1f}%" title="{escape(mark)}: {_percent(of(mark, i))}"></u>'
        colour = "rgb({},{},{})".format(*report.colours[i]) if i < len(report.colours) else ""
        cells = "".join(_cell(of(n, i), digits=1) for n in names)
        share = f'<td class="n">{_share(report.frequency[i])}</td>' if has_share else ""
        rows.append(
            f'<tr><th><i class="chip" style="background:{colour}"></i>{escape(report.class_names[i].replace("_", " "))}</th>'
            f'<td class="barcell"><div class="mark-line">{_bar(value / top, colour)}{line}</div></td>{cells}{share}</tr>'
        )
    head = "".join(f'<th class="n">{escape(n)}</th>' for n in names) + ('<th class="n">share of voxels</th>' if has_share else "")
    explain = f" The dark line marks the {escape(mark)}." if mark else ""
    return f"""<section id="classes"><h2>Class by class</h2>
<p>IoU in percent inside the camera mask.{explain} Rare classes are the hard ones; n/a: neither truth nor prediction has the class.</p>
<div class="card scroll"><table class="classes"><thead><tr><th>class</th><th></th>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div></section>"""


def _share(value: float) -> str:
    if not math.isfinite(value):
        return "n/a"
    percent = 100 * value
    return "0" if percent == 0 else (f"{percent:.1f} %" if percent >= 0.1 else f"{percent:.1g} %" if percent >= 0.001 else "&lt; 0.001 %")


def _curves(report: ReportData) -> str:
    lines = [line for line in report.losses if isinstance(line.get("step"), (int, float))]

    def series(values: Iterable[tuple[float, object]]) -> tuple[Sequence[float], Sequence[float]]:
        kept = [(float(x), float(y)) for x, y in values if isinstance(y, (int, float))]
        return [x for x, _ in kept], [y for _, y in kept]

    parts = list(dict.fromkeys(name for line in lines for name in line.get("losses") or {}))
    charts = [
        line_chart("Loss", {"loss": series((line["step"], line.get("loss")) for line in lines)}),
        line_chart("Its parts", {n: series((line["step"], (line.get("losses") or {}).get(n)) for line in lines) for n in parts})
        if len(parts) > 1
        else "",
        line_chart("Learning rate", {"lr": series((line["step"], line.get("lr")) for line in lines)}, smoothed=False),
        line_chart("Gradient norm", {"norm": series((line["step"], line.get("grad_norm")) for line in lines)}),
    ]
    charts = [chart for chart in charts if chart]
    if not charts:
        return ""
    return f"""<section id="curves"><h2>How it learned</h2>
<p>Thin lines are logged values, thick lines their moving average.</p><div class="plots">{"".join(charts)}</div></section>"""


def _run(report: ReportData) -> str:
    facts = "".join(f"<div><dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd></div>" for k, v in report.facts.items())
    recipe = ""
    if report.recipe:
        recipe = f'<details class="card"><summary>The resolved recipe</summary><pre>{escape(report.recipe)}</pre></details>'
    if not facts and not recipe:
        return ""
    table = f'<dl class="card">{facts}</dl>' if facts else ""
    return f'<section id="run"><h2>The run</h2><p>Everything needed to repeat it.</p>{table}{recipe}</section>'
