"""All of one sample on one sheet: its cameras in their layout, and below them the predictions next to the truth."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from frustum.types.layers import Colour
from frustum.viewer.cameras import camera_rows, pretty_channel, resized
from frustum.viewer.drawing import DrawnQuestion, Picture, draw_panel
from frustum.viewer.report_data import SamplePanel

Key = tuple[tuple[str, Colour], ...]
_INK, _SOFT, _PAPER = (22, 28, 40), (96, 106, 124), (250, 251, 253)


def sample_picture(panel: SamplePanel, *, width: int = 1600, drawn: Sequence[DrawnQuestion] | None = None) -> Image.Image:
    """One sheet of a sample: its cameras, then each question with prediction and truth next to each other, and its classes below.

    A single image stands in a row with what is predicted of it, so that they can be compared.

    Args:
        panel: any of its parts may be missing.
        width: of the sheet in pixels.
        drawn: what `draw_panel` made of the panel, if it exists already.
    """
    drawn = draw_panel(panel) if drawn is None else drawn
    margin, gap, small = 32, 14, max(round(width / 100), 7)
    head, title_height, inner = small + 14, 60, width - 2 * margin
    blocks: list[tuple[str, list[Picture], list[Key]]] = []  # a heading or "", the pictures of a row, and the lines of a legend below it
    alone = [Picture(pretty_channel(name), image) for name, image in panel.images] if len(panel.images) == 1 else []
    if not (alone and drawn and _fits(alone[0], drawn[0].tabs[0][1][0])):
        alone = []
    layout = [] if alone else camera_rows([name for name, _ in panel.images])
    for indices in layout:
        cell = (inner - gap * (len(layout[0]) - 1)) // len(layout[0])
        blocks.append(("", [Picture(pretty_channel(name), resized(image, cell)) for name, image in (panel.images[i] for i in indices)], []))
    for question in drawn:
        rows, legend = question.tabs[0][1], key_lines(tuple(question.legend.items()), inner, small)
        for number, row in enumerate(rows):
            row, alone = [*alone, *row], []
            heading = question.heading if number == 0 and len(drawn) > 1 else ""
            blocks.append((heading, fit_row(row, inner, gap), legend if number == len(rows) - 1 else []))

    line = round(1.5 * small)
    above = [2 * small + gap if heading else 0 for heading, *_ in blocks]
    tall = [head + max(picture.image.shape[0] for picture in block) + gap for _, block, _ in blocks]
    below = [line * len(legend) + (gap if legend else 0) for *_, legend in blocks]
    sheet = Image.new("RGB", (width, margin + title_height + sum(above) + sum(tall) + sum(below) + margin), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, margin - 6), panel.title, _INK, ImageFont.load_default(28))
    y = margin + title_height
    for (heading, block, legend), space, height in zip(blocks, above, tall, strict=True):
        if heading:
            draw.text((margin, y + gap // 2), heading, _INK, ImageFont.load_default(round(1.4 * small)))
        x, y = margin, y + space
        for picture in block:
            if picture.key:
                _draw_key(draw, x, y + 6, small, picture.key)
            else:
                draw.text((x, y + 6), picture.name, _SOFT, ImageFont.load_default(small))
            sheet.paste(Image.fromarray(picture.image), (x, y + head))
            x += picture.image.shape[1] + gap
        y += height
        for key in legend:
            _draw_key(draw, margin, y, small, key)
            y += line
        y += gap if legend else 0
    return sheet


def _fits(image: Picture, row: Sequence[Picture]) -> bool:
    """Whether the pictures of a row have the proportions of an image, to a pixel of theirs."""
    high, wide = image.image.shape[:2]
    return all(abs(p.image.shape[0] * wide - p.image.shape[1] * high) <= max(high, wide) for p in row)


def fit_row(row: Sequence[Picture], width: int, gap: int) -> list[Picture]:
    """A row of pictures of one height that fills `width`; one that would be higher than half of it, or than wide enough, stays smaller."""
    shapes = [picture.image.shape[:2] for picture in row]
    room = width - gap * (len(row) - 1)
    if len(row) > 1 and len(set(shapes)) == 1:
        widths = [room // len(row)] * len(row)
    else:
        tall = min(round(room / sum(across / high for high, across in shapes)), width // 2)
        widths = [min(round(across * tall / high), room) for high, across in shapes]
    return [p._replace(image=resized(p.image, w)) for p, w in zip(row, widths, strict=True)]


def key_lines(key: Key, width: int, size: int) -> list[Key]:
    """A legend in text of `size`, broken into lines that `_draw_key` draws within `width` pixels; a name alone may be longer."""
    lines: list[list[tuple[str, Colour]]] = []
    used = 0
    for name, colour in key:
        across = _across(name, size)
        if not lines or used + across > width:
            lines.append([])
            used = 0
        lines[-1].append((name, colour))
        used += across
    return [tuple(line) for line in lines]


def _across(name: str, size: int) -> int:
    """Pixels of an entry of a legend, the space after it included."""
    return 2 * size + round(ImageFont.load_default(size).getlength(name))


def _draw_key(draw: ImageDraw.ImageDraw, x: int, y: int, size: int, key: Key) -> None:
    """What colours mean, in one line."""
    font = ImageFont.load_default(size)
    for name, colour in key:
        draw.rounded_rectangle((x, y + size // 4, x + size * 2 // 3, y + size // 4 + size * 2 // 3), size // 5, colour)
        draw.text((x + size, y), name, _SOFT, font)
        x += _across(name, size)
