"""The report's section of samples: camera images, occupancy in 3D and from above, one sample and one tab shown at a time.

Radio buttons and CSS do the switching, so the page needs no script.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from frustum.viewer.pictures import AGREEMENT, OccupancyPictures, camera_rows, data_uri, occupancy_pictures, pretty_channel
from frustum.viewer.report_data import ReportData, SamplePanel

TABS = ("All voxels", "Inside the camera mask")


def draw_panel(report: ReportData, panel: SamplePanel) -> list[OccupancyPictures]:
    """The pictures of one sample: of all voxels, then inside the camera mask if there are a truth and a mask."""
    masks = [False, True] if panel.mask_camera is not None and panel.truth is not None else [False]
    look: dict[str, Any] = {"size": report.picture_size, "colours": report.colours, "free": report.free, "grid": report.grid}
    return [occupancy_pictures(panel, masked=masked, **look) for masked in masks]


def samples_section(report: ReportData, drawn: Sequence[Sequence[OccupancyPictures]] | None = None) -> str:
    """The section as HTML; empty text without panels."""
    if not report.panels:
        return ""
    drawn = [draw_panel(report, panel) for panel in report.panels] if drawn is None else drawn
    picks, thumbs, samples = [], [], []
    for number, (panel, pictures) in enumerate(zip(report.panels, drawn, strict=True)):
        picks.append(f'<input class="pick" type="radio" name="sample" id="s{number}"{" checked" if number == 0 else ""}>')
        small = _thumbnail(panel, pictures[0])
        image = f'<img src="{data_uri(small, width=296, quality=80)}" alt="">' if small is not None else ""
        thumbs.append(f'<label for="s{number}">{image}<span>{escape(panel.title)}</span></label>')
        samples.append(_sample(panel, pictures, number))
    beside = ", beside what is really there" if any(p.truth is not None for p in report.panels) else ""
    bar = f'<div class="thumbs">{"".join(thumbs)}</div>' if len(report.panels) > 1 else ""
    return f"""<section id="samples"><h2>What it sees</h2>
<p>The images that went in, and the occupancy that came out{beside}. The white car is the ego vehicle; it drives away from you in 3D, and
upwards in the views from above.</p>
{"".join(picks)}{bar}{"".join(samples)}
{_legend(report)}</section>"""


def switches(report: ReportData) -> str:
    """CSS rules that show the picked sample and its picked tab."""
    rules = []
    for n in range(len(report.panels)):
        rules += [
            f"#s{n}:checked ~ #s{n}v {{ display: block; }}",
            f'#s{n}:checked ~ .thumbs label[for="s{n}"] {{ border-color: var(--accent); }}',
            f'#s{n}:focus-visible ~ .thumbs label[for="s{n}"] {{ outline: 2px solid var(--accent); outline-offset: 2px; }}',
        ]
        for t in range(len(TABS)):
            label = f'~ .tabs label[for="s{n}t{t}"]'
            rules += [
                f"#s{n}t{t}:checked ~ #s{n}t{t}v {{ display: block; }}",
                f"#s{n}t{t}:checked {label} {{ background: var(--card); color: var(--ink); box-shadow: 0 1px 3px rgba(0, 0, 0, .14); }}",
                f"#s{n}t{t}:focus-visible {label} {{ outline: 2px solid var(--accent); }}",
            ]
    return "\n".join(rules)


def _thumbnail(panel: SamplePanel, pictures: OccupancyPictures) -> np.ndarray | None:
    choices = [pictures.prediction, pictures.truth, *(image for _, image in panel.images)]
    return next((image for image in choices if image is not None), None)


def _legend(report: ReportData) -> str:
    entries = "".join(
        f'<li><i class="chip" style="background:rgb({r},{g},{b})"></i>{escape(name.replace("_", " "))}</li>'
        for i, (name, (r, g, b)) in enumerate(zip(report.class_names, report.colours, strict=False))
        if i != report.free
    )
    return f'<ul class="legend">{entries}</ul>'


def _figure(image: np.ndarray | None, caption: str, *, width: int | None = None, key: str = "") -> str:
    if image is None:
        return ""
    text = escape(caption)
    return f'<figure><img src="{data_uri(image, width=width)}" alt="{text}"><figcaption>{text}{key}</figcaption></figure>'


def _cameras(panel: SamplePanel) -> str:
    rows = camera_rows([name for name, _ in panel.images])
    if not rows:
        return ""
    columns = max(len(row) for row in rows)
    figures = "".join(_figure(panel.images[i][1], pretty_channel(panel.images[i][0]), width=640) for row in rows for i in row)
    limit = ";max-width:760px" if columns == 1 else ""
    return f'<div class="cameras" style="grid-template-columns:repeat({columns},1fr){limit}">{figures}</div>'


def _occupancy(pictures: OccupancyPictures) -> str:
    if pictures.prediction is not None and pictures.truth is not None:
        key = "".join(f'<span><i class="chip" style="background:rgb{colour}"></i>{name}</span>' for name, colour in AGREEMENT)
        return (
            f'<div class="two">{_figure(pictures.prediction, "Prediction")}{_figure(pictures.truth, "Truth")}</div>'
            f'<div class="three">{_figure(pictures.prediction_top, "Prediction from above")}'
            f"{_figure(pictures.truth_top, 'Truth from above')}{_figure(pictures.agreement_top, 'Agreement, where seen', key=key)}</div>"
            f"{_objects(pictures)}"
        )
    for name, view, top in (
        ("Prediction", pictures.prediction, pictures.prediction_top),
        ("Truth", pictures.truth, pictures.truth_top),
    ):
        if view is not None:
            return f'<div class="wide">{_figure(view, name)}{_figure(top, f"{name} from above")}</div>{_objects(pictures)}'
    return ""


def _objects(pictures: OccupancyPictures) -> str:
    """Objects in colours of their own, one that is in both pictures in the same."""
    predicted, true = pictures.prediction_objects, pictures.truth_objects
    if predicted is not None and true is not None:
        same = "True objects, in the same colour where they match; predicted ones that match none are grey"
        return (
            f'<div class="two">{_figure(predicted, "Predicted objects")}{_figure(true, same)}</div>'
            f'<div class="two">{_figure(pictures.prediction_objects_top, "Predicted objects from above")}'
            f"{_figure(pictures.truth_objects_top, 'True objects from above')}</div>"
        )
    for name, view, top in (
        ("Predicted objects", predicted, pictures.prediction_objects_top),
        ("True objects", true, pictures.truth_objects_top),
    ):
        if view is not None:
            return f'<div class="wide">{_figure(view, name)}{_figure(top, f"{name} from above")}</div>'
    return ""


def _sample(panel: SamplePanel, pictures: Sequence[OccupancyPictures], number: int) -> str:
    bodies = [_occupancy(p) for p in pictures]
    if len(bodies) == 1:
        shown = f'<div class="only">{bodies[0]}</div>' if bodies[0] else ""
    else:
        ids = [f"s{number}t{t}" for t in range(len(bodies))]
        radios = "".join(
            f'<input class="pick" type="radio" name="tab{number}" id="{i}"{" checked" if t == 0 else ""}>' for t, i in enumerate(ids)
        )
        labels = "".join(f'<label for="{i}">{TABS[t]}</label>' for t, i in enumerate(ids))
        tabs = "".join(f'<div class="tab" id="{i}v">{body}</div>' for i, body in zip(ids, bodies, strict=True))
        shown = f'{radios}<div class="tabs">{labels}</div>{tabs}'
    caption = f"<p>{escape(panel.caption)}</p>" if panel.caption else ""
    return f'<article class="sample card" id="s{number}v"><h3>{escape(panel.title)}</h3>{caption}{_cameras(panel)}{shown}</article>'
