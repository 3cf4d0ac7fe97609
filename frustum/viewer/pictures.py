"""Pictures of one sample: cameras in their layout, occupancy in 3D and from above, and all of it on one sheet."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from frustum.geometry import VoxelGrid
from frustum.types.classes import CAMERAS, OCC3D_COLOURS, OCC3D_FREE
from frustum.viewer.objects import ObjectVolume, paint_objects
from frustum.viewer.report_data import SamplePanel
from frustum.viewer.voxels import Colours, render_voxels, top_view

AGREEMENT: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("right class", (64, 160, 106)),
    ("wrong class", (244, 196, 84)),
    ("missed", (214, 64, 76)),
    ("invented", (92, 128, 226)),
)
"""Colours of the picture that compares prediction and truth."""
AGREE = "agreement"


class OccupancyPictures(NamedTuple):
    """RGB pictures of one sample under one mask, None where the input is missing."""

    prediction: np.ndarray | None
    truth: np.ndarray | None
    prediction_top: np.ndarray | None
    truth_top: np.ndarray | None
    agreement_top: np.ndarray | None
    prediction_objects: np.ndarray | None = None
    truth_objects: np.ndarray | None = None
    prediction_objects_top: np.ndarray | None = None
    truth_objects_top: np.ndarray | None = None


def occupancy_pictures(
    panel: SamplePanel,
    *,
    masked: bool = False,
    size: tuple[int, int] = (520, 760),
    scale: int = 3,
    colours: Colours = OCC3D_COLOURS,
    free: int = OCC3D_FREE,
    grid: VoxelGrid | None = None,
) -> OccupancyPictures:
    """3D views of `size` and top views of `scale` pixels per voxel; `masked` draws only what the cameras can see."""
    mask = panel.mask_camera if masked else None

    def both(volume: np.ndarray | None) -> tuple[np.ndarray | None, np.ndarray | None]:
        if volume is None:
            return None, None
        return render_voxels(volume, colours, free, mask, size, grid=grid), top_view(volume, colours, free, mask, scale, grid=grid)

    (prediction, prediction_top), (truth, truth_top) = both(panel.prediction), both(panel.truth)
    agreement = None
    if panel.prediction is not None and panel.truth is not None:
        compared = compare(panel.prediction, panel.truth, free)
        # Always inside the mask: what no camera could see is no mistake.
        agreement = top_view(compared, [c for _, c in AGREEMENT], len(AGREEMENT), panel.mask_camera, scale, grid=grid)
    predicted, true = _painted(panel, colours)
    drawn = [
        (None, None)
        if painted is None
        else (
            render_voxels(painted.labels, painted.colours, free, mask, size, grid=grid),
            top_view(painted.labels, painted.colours, free, mask, scale, grid=grid),
        )
        for painted in (predicted, true)
    ]
    return OccupancyPictures(prediction, truth, prediction_top, truth_top, agreement, drawn[0][0], drawn[1][0], drawn[0][1], drawn[1][1])


def _painted(panel: SamplePanel, colours: Colours) -> tuple[ObjectVolume | None, ObjectVolume | None]:
    """Objects of prediction and truth, one that is in both in the same colour; None where they are not told apart."""
    true = predicted = None
    if panel.truth is not None and panel.truth_objects is not None:
        true = paint_objects(panel.truth, panel.truth_objects, colours)
    if panel.prediction is not None and panel.prediction_objects is not None:
        beside = None if true is None or panel.truth_objects is None else (panel.truth_objects, true)
        predicted = paint_objects(panel.prediction, panel.prediction_objects, colours, beside)
    return predicted, true


def compare(prediction: np.ndarray, truth: np.ndarray, free: int = OCC3D_FREE) -> np.ndarray:
    """(X, Y, Z) uint8: position in AGREEMENT, or len(AGREEMENT) where both are free or the truth is unknown (255)."""
    full_p, full_t = prediction != free, truth != free
    compared = np.full(truth.shape, len(AGREEMENT), np.uint8)
    compared[full_p & full_t] = 1
    compared[full_p & full_t & (prediction == truth)] = 0
    compared[~full_p & full_t] = 2
    compared[full_p & ~full_t] = 3
    compared[truth == 255] = len(AGREEMENT)
    return compared


def camera_rows(names: Sequence[str]) -> list[list[int]]:
    """Indices of cameras as they look around the vehicle: for nuScenes' six, front left to right over back left to right.

    Other rigs fill rows of up to four, in their own order.
    """
    known = [n for n in CAMERAS if n in names]
    if len(known) == len(names) == len(set(names)) == 6:
        order = {n: i for i, n in enumerate(names)}
        return [[order[n] for n in CAMERAS[:3]], [order[n] for n in CAMERAS[3:]]]
    count = len(names)
    columns = count if count <= 3 else (2 if count == 4 else min((count + 1) // 2, 4))
    return [list(range(i, min(i + columns, count))) for i in range(0, count, max(columns, 1))]


def pretty_channel(name: str) -> str:
    """`CAM_FRONT_LEFT` as `front left`."""
    return name.removeprefix("CAM_").replace("_", " ").lower()


def resized(image: np.ndarray, width: int) -> np.ndarray:
    """An RGB image with the given width, its aspect kept."""
    height = max(round(image.shape[0] * width / image.shape[1]), 1)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def data_uri(image: np.ndarray, *, width: int | None = None, quality: int = 86, photo: bool = True) -> str:
    """An RGB image as a JPEG `data:` address for HTML, scaled down to `width` if it is wider; `photo=False` keeps edges of colour sharp."""
    if width is not None and image.shape[1] > width:
        image = resized(image, width)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, optimize=True, subsampling="4:2:0" if photo else "4:4:4")
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def sample_picture(
    panel: SamplePanel,
    *,
    colours: Colours = OCC3D_COLOURS,
    free: int = OCC3D_FREE,
    grid: VoxelGrid | None = None,
    width: int = 1600,
    masked: bool = False,
    pictures: OccupancyPictures | None = None,
) -> Image.Image:
    """One sheet of a sample: its cameras, then prediction (and truth beside it) in 3D and from above.

    Args:
        panel: any of its parts may be missing.
        colours, free, grid: as in `render_voxels`.
        width: of the sheet in pixels.
        masked: draw only what the cameras can see.
        pictures: those of `occupancy_pictures` if they exist already.
    """
    margin, gap, small = 32, 14, max(round(width / 100), 7)
    head = small + 14
    inner = width - 2 * margin
    blocks: list[list[tuple[str, np.ndarray]]] = []
    rows = camera_rows([name for name, _ in panel.images])
    for row in rows:
        cell = (inner - gap * (len(rows[0]) - 1)) // len(rows[0])
        blocks.append([(pretty_channel(panel.images[i][0]), resized(panel.images[i][1], cell)) for i in row])
    pictures = pictures or occupancy_pictures(panel, masked=masked, colours=colours, free=free, grid=grid)
    suffix = ", inside the camera mask" if masked and panel.mask_camera is not None else ""
    shown = [("prediction", pictures.prediction, pictures.prediction_top), ("truth", pictures.truth, pictures.truth_top)]
    agreement = [] if pictures.agreement_top is None else [(AGREE, pictures.agreement_top)]
    blocks += _rows([(name + suffix, view, top) for name, view, top in shown], inner, gap, agreement)
    objects = [
        ("predicted objects", pictures.prediction_objects, pictures.prediction_objects_top),
        ("true objects", pictures.truth_objects, pictures.truth_objects_top),
    ]
    blocks += _rows([(name + suffix, view, top) for name, view, top in objects], inner, gap)

    title_height = 60
    height = margin + title_height + sum(head + max(image.shape[0] for _, image in block) + gap for block in blocks) + margin
    sheet = Image.new("RGB", (width, height), (250, 251, 253))
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, margin - 6), panel.title, (22, 28, 40), ImageFont.load_default(28))
    if panel.caption:
        draw.text((margin, margin + 28), panel.caption, (96, 106, 124), ImageFont.load_default(small))
    y = margin + title_height
    for block in blocks:
        x = margin
        for name, image in block:
            if name is AGREE:
                _draw_key(draw, x, y + 6, small)
            else:
                draw.text((x, y + 6), name, (96, 106, 124), ImageFont.load_default(small))
            sheet.paste(Image.fromarray(image), (x, y + head))
            x += image.shape[1] + gap
        y += head + max(image.shape[0] for _, image in block) + gap
    return sheet


def _rows(
    shown: Sequence[tuple[str, np.ndarray | None, np.ndarray | None]],
    width: int,
    gap: int,
    more: Sequence[tuple[str, np.ndarray]] = (),
) -> list[list[tuple[str, np.ndarray]]]:
    """Rows of named pictures from (name, 3D view, top view): views beside each other, tops and `more` below; one alone in a single row."""
    present = [(name, view, top) for name, view, top in shown if view is not None and top is not None]
    if not present:
        return []
    if len(present) == 1:  # 3D view and top view side by side, equally high
        name, view, top = present[0]
        tall = round((width - gap) / (view.shape[1] / view.shape[0] + top.shape[1] / top.shape[0]))
        view, top = (resized(image, round(image.shape[1] * tall / image.shape[0])) for image in (view, top))
        return [[(name, view), (name + " from above", top)]]
    tops = [*((name + " from above", top) for name, _, top in present), *more]
    half, part = (width - gap) // 2, (width - gap * (len(tops) - 1)) // len(tops)
    return [[(name, resized(view, half)) for name, view, _ in present], [(name, resized(top, part)) for name, top in tops]]


def _draw_key(draw: ImageDraw.ImageDraw, x: int, y: int, size: int) -> None:
    """The meaning of the colours of AGREEMENT, in one line."""
    font = ImageFont.load_default(size)
    for name, colour in AGREEMENT:
        draw.rounded_rectangle((x, y + size // 4, x + size * 2 // 3, y + size // 4 + size * 2 // 3), size // 5, colour)
        draw.text((x + size, y), name, (96, 106, 124), font)
        x += 2 * size + round(draw.textlength(name, font))
