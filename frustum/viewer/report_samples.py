"""The report's section of samples: images, and below them the pictures of each question; one sample and one tab shown at a time.

Radio buttons and CSS do the switching, so the page needs no script.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from frustum.types.layers import ImageLayer, PixelLayer
from frustum.viewer.cameras import camera_rows, data_uri, pretty_channel
from frustum.viewer.drawing import DrawnQuestion, Picture
from frustum.viewer.report_data import SamplePanel


def samples_section(panels: Sequence[SamplePanel], drawn: Sequence[Sequence[DrawnQuestion]]) -> str:
    """The section as HTML from panels and what `draw_panel` made of each; empty text without panels."""
    if not panels:
        return ""
    thumbs, samples = "", ""
    for number, (panel, questions) in enumerate(zip(panels, drawn, strict=True)):
        pictures = [picture.image for question in questions for row in question.tabs[0][1] for picture in row]
        pictures += [image for _, image in panel.images]
        image = f'<img src="{data_uri(pictures[0], width=296, quality=80)}" alt="">' if pictures else ""
        thumbs += f'<label for="s{number}">{image}<span>{escape(panel.title)}</span></label>'
        samples += _sample(panel, questions, number)
    asked = [question for panel in panels for question in panel.questions]
    truth = ", next to the truth" if any(question.truth for question in asked) else ""
    in_space = any(not isinstance(layer, ImageLayer | PixelLayer) for q in asked for layer in (*q.prediction, *q.truth))
    car = " The white car is the ego vehicle; it drives away from you in 3D, and\nupwards in the views from above." if in_space else ""
    bar = f'<div class="thumbs">{thumbs}</div>' if len(panels) > 1 else ""
    return f"""<section id="samples"><h2>Predictions</h2>
<p>The images that went in, and what came out{truth}.{car}</p>
{_radios("sample", [f"s{number}" for number in range(len(panels))])}{bar}{samples}</section>"""


def switches(drawn: Sequence[Sequence[DrawnQuestion]]) -> str:
    """CSS rules that show the picked sample and its picked tabs."""
    tab = "background: var(--card); color: var(--ink); box-shadow: 0 1px 3px rgba(0, 0, 0, .14);"
    rules = ""
    for n, questions in enumerate(drawn):
        tabs = [name for q, question in enumerate(questions) for name in _tab_ids(question, n, q)]
        for name, style in ((f"s{n}", "border-color: var(--accent);"), *((name, tab) for name in tabs)):
            rules += f"""#{name}:checked ~ #{name}v {{ display: block; }}
#{name}:checked ~ div label[for="{name}"] {{ {style} }}
#{name}:focus-visible ~ div label[for="{name}"] {{ outline: 2px solid var(--accent); }}
"""
    return rules


def _tab_ids(question: DrawnQuestion, sample: int, number: int) -> list[str]:
    """Names of the tabs of a question on the page; none for a question with one tab, which needs no switch."""
    return [f"s{sample}q{number}t{t}" for t in range(len(question.tabs))] if len(question.tabs) > 1 else []


def _radios(group: str, names: Sequence[str]) -> str:
    """Radio buttons, the first one picked."""
    states = (" checked" if name == names[0] else "" for name in names)
    return "".join(f'<input class="pick" type="radio" name="{group}" id="{name}"{s}>' for name, s in zip(names, states, strict=True))


def _figure(picture: Picture, *, width: int | None = None) -> str:
    text = escape(picture.caption or picture.name.capitalize())
    key = "".join(f'<span><i class="chip" style="background:rgb{colour}"></i>{escape(name)}</span>' for name, colour in picture.key)
    return f'<figure><img src="{data_uri(picture.image, width=width)}" alt="{text}"><figcaption>{text}{key}</figcaption></figure>'


def _cameras(panel: SamplePanel) -> str:
    rows = camera_rows([name for name, _ in panel.images])
    if not rows:
        return ""
    columns = max(map(len, rows))
    shown = [panel.images[i] for row in rows for i in row]
    figures = "".join(_figure(Picture("", image, pretty_channel(name)), width=640) for name, image in shown)
    limit = ";max-width:760px" if columns == 1 else ""
    return f'<div class="cameras" style="grid-template-columns:repeat({columns},1fr){limit}">{figures}</div>'


def _row(row: Sequence[Picture]) -> str:
    """Pictures of one height in a row; one alone does not fill the page."""
    shapes = [picture.image.shape[:2] for picture in row]
    equal = len(set(shapes)) == 1
    columns = f"repeat({len(row)},1fr)" if equal else " ".join(f"{across / high:.2f}fr" for high, across in shapes)
    limit = ";max-width:760px" if len(row) == 1 else ""
    many = " many" if len(row) > 2 else ""
    return f'<div class="row{many}" style="--columns:{columns}{limit}">{"".join(_figure(picture) for picture in row)}</div>'


def _question(question: DrawnQuestion, sample: int, number: int, heading: bool) -> str:
    """A question's tabs, one shown at a time, and the meaning of its colours."""
    bodies = ["".join(_row(row) for row in rows) for _, rows in question.tabs]
    if not any(bodies):
        return ""
    if ids := _tab_ids(question, sample, number):
        labels = "".join(f'<label for="{name}">{escape(title)}</label>' for name, (title, _) in zip(ids, question.tabs, strict=True))
        tabs = "".join(f'<div class="tab" id="{name}v">{body}</div>' for name, body in zip(ids, bodies, strict=True))
        shown = f'{_radios(f"tab{sample}q{number}", ids)}<div class="tabs">{labels}</div>{tabs}'
    else:
        shown = f'<div class="only">{bodies[0]}</div>'
    entries = "".join(
        f'<li><i class="chip" style="background:rgb({r},{g},{b})"></i>{escape(name.replace("_", " "))}</li>'
        for name, (r, g, b) in question.legend.items()
    )
    title = f"<h4>{escape(question.heading)}</h4>" if heading else ""
    legend = f'<ul class="legend">{entries}</ul>' if entries else ""
    return f'<div class="question">{title}{shown}{legend}</div>'


def _sample(panel: SamplePanel, questions: Sequence[DrawnQuestion], number: int) -> str:
    shown = "".join(_question(question, number, q, len(questions) > 1) for q, question in enumerate(questions))
    return f'<article class="sample card" id="s{number}v"><h3>{escape(panel.title)}</h3>{_cameras(panel)}{shown}</article>'
