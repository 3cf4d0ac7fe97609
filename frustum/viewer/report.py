"""A run as one self-contained HTML page, with a PNG per sample beside it. No network, no scripts, nothing but this file to send on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from frustum.errors import DataError
from frustum.version import __version__
from frustum.viewer.charts import line_chart
from frustum.viewer.drawing import DrawnQuestion, draw_panel
from frustum.viewer.pictures import sample_picture
from frustum.viewer.report_data import Calibration, Question, ReportData, Result, SamplePanel
from frustum.viewer.report_samples import samples_section, switches
from frustum.viewer.report_tables import classes_section, results_section, tiles, times_better

__all__ = ["Calibration", "Question", "ReportData", "Result", "SamplePanel", "report_html", "write_report"]

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
        drawn = _drawn(report)
        for number, (panel, questions) in enumerate(zip(report.panels, drawn, strict=True), 1):
            sheet = sample_picture(panel, drawn=questions)
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


def report_html(report: ReportData, drawn: Sequence[Sequence[DrawnQuestion]] | None = None) -> str:
    """The page as text. Sections whose data is missing are left out. `drawn` holds the pictures of each panel if they exist already."""
    drawn = _drawn(report) if drawn is None else drawn
    sections = [samples_section(report.panels, drawn), results_section(report), classes_section(report), _curves(report), _run(report)]
    return PAGE.format(
        title=escape(report.title),
        style=files("frustum.viewer").joinpath("report.css").read_text(encoding="utf-8") + switches(drawn),
        story=escape(report.story or _story(report)),
        tiles=tiles(report),
        sections="\n".join(s for s in sections if s),
        footer=f"Made by frustum {escape(__version__)}. This page is one file: it needs no network and can be sent as it is.",
    )


def _drawn(report: ReportData) -> list[list[DrawnQuestion]]:
    return [draw_panel(panel, report.picture_size) for panel in report.panels]


def _story(report: ReportData) -> str:
    """A sentence for reports that bring none."""
    panel = report.panels[0] if report.panels else None
    count = len(panel.images) if panel else 0
    words = ("Images", "One image", "Two images", "Three images", "Four images", "Five images", "Six images")
    images = words[count] if count < len(words) else f"{count} images"
    answers = [question.heading.lower() for question in panel.questions] if panel else []
    found = " and ".join(filter(None, [", ".join(answers[:-1]), *answers[-1:]])) or "predictions"
    return f"{images} in, {found} out. {times_better(report)}".rstrip()


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
