"""A run as one self-contained HTML page, with a PNG per sample in the same folder. The page needs no network and no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from frustum.files import atomic_path, write_bytes
from frustum.version import __version__
from frustum.viewer.charts import line_chart
from frustum.viewer.drawing import DrawnQuestion, draw_panel
from frustum.viewer.pictures import sample_picture
from frustum.viewer.report_data import ReportData, SamplePanel
from frustum.viewer.report_samples import samples_section, switches
from frustum.viewer.report_tables import classes_section, results_section, tiles, times_better

_COUNTED = ("Images", "One image", "Two images", "Three images", "Four images", "Five images", "Six images")


def write_report(report: ReportData, folder: Path | str) -> Path:
    """Write `report.html` and `sample-N.png` into a folder, which is created if needed, and return the page's path.

    Raises:
        DataError: the folder cannot be written to.
    """
    drawn, page = _drawn(report), Path(folder) / "report.html"
    for number, (panel, questions) in enumerate(zip(report.panels, drawn, strict=True), 1):
        with atomic_path(page.with_name(f"sample-{number}.png")) as temporary:
            sample_picture(panel, drawn=questions).save(temporary, "PNG")
    write_bytes(page, report_html(report, drawn).encode())
    return page


def report_html(report: ReportData, drawn: Sequence[Sequence[DrawnQuestion]] | None = None) -> str:
    """The page as text. Sections whose data is missing are left out. `drawn` holds the pictures of each panel if they exist already."""
    drawn = _drawn(report) if drawn is None else drawn
    sections = [samples_section(report.panels, drawn), results_section(report), classes_section(report), _curves(report), _run(report)]
    page, style = (files("frustum.viewer").joinpath(name).read_text(encoding="utf-8") for name in ("report.html", "report.css"))
    return page.format(
        title=escape(report.title),
        style=style + switches(drawn),
        story=escape(_story(report)),
        tiles=tiles(report),
        sections="\n".join(filter(None, sections)),
        footer=f"Made by frustum {escape(__version__)}. This page is one file: it needs no network and can be sent as it is.",
    )


def _drawn(report: ReportData) -> list[list[DrawnQuestion]]:
    return [draw_panel(panel, report.picture_size) for panel in report.panels]


def _story(report: ReportData) -> str:
    """The sentence below the title."""
    panel = next(iter(report.panels), SamplePanel(""))
    count, answers = len(panel.images), [question.heading.lower() for question in panel.questions]
    images = _COUNTED[count] if count < len(_COUNTED) else f"{count} images"
    found = " and ".join(filter(None, [", ".join(answers[:-1]), *answers[-1:]])) or "predictions"
    return f"{images} in, {found} out. {times_better(report)}".rstrip()


def _curves(report: ReportData) -> str:
    steps = [line.get("step") for line in report.losses]
    loss, rate, norm = ([line.get(key) for line in report.losses] for key in ("loss", "lr", "grad_norm"))
    parts = [line.get("losses") or {} for line in report.losses]
    names = list(dict.fromkeys(name for part in parts for name in part))
    charts = [
        line_chart("Loss", steps, {"loss": loss}),
        line_chart("Its parts", steps, {name: [part.get(name) for part in parts] for name in names}) if len(names) > 1 else "",
        line_chart("Learning rate", steps, {"lr": rate}, smoothed=False),
        line_chart("Gradient norm", steps, {"norm": norm}),
    ]
    if not any(charts):
        return ""
    return f"""<section id="curves"><h2>How it learned</h2>
<p>Thin lines are logged values, thick lines their moving average.</p><div class="plots">{"".join(charts)}</div></section>"""


def _run(report: ReportData) -> str:
    facts = "".join(f"<div><dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd></div>" for k, v in report.facts.items())
    table = f'<dl class="card">{facts}</dl>' if facts else ""
    if report.recipe:
        table += f'<details class="card"><summary>The resolved recipe</summary><pre>{escape(report.recipe)}</pre></details>'
    return f'<section id="run"><h2>The run</h2><p>Everything needed to repeat it.</p>{table}</section>' if table else ""
