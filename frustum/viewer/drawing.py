"""How each kind of layer is drawn: the pictures of a question, prediction next to truth, in rows and tabs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from frustum.geometry import VoxelGrid
from frustum.types.layers import BoxLayer, Colour, ImageLayer, Layer, Legend, MapLayer, PixelLayer, PointLayer, ViewLayer, VoxelLayer
from frustum.viewer.boxes import boxes_above, boxes_in_image, depth_colours, points_above, reach_of
from frustum.viewer.cameras import camera_rows, pretty_channel, resized
from frustum.viewer.objects import paint_objects
from frustum.viewer.report_data import Question, SamplePanel
from frustum.viewer.voxels import palette, render_voxels, top_view

AGREEMENT: tuple[tuple[str, Colour], ...] = (
    ("right class", (64, 160, 106)),
    ("wrong class", (244, 196, 84)),
    ("missed", (214, 64, 76)),
    ("invented", (92, 128, 226)),
)
"""Colours of the picture that compares prediction and truth."""
_AGREEMENT = Legend(*zip(*AGREEMENT, strict=True))  # type: ignore[arg-type]
_L = TypeVar("_L")
_OPACITY = 0.62  # of class colours over a photograph
_SHARE_OF_BEST = 0.2  # of the scores of predicted boxes: lower ones are not drawn
_MATCHED = "True objects, in the same colour where they match; predicted ones that match none are grey"


class Picture(NamedTuple):
    """An RGB picture, its name, the longer text for a page, and what its colours mean where they are not those of classes."""

    name: str
    image: np.ndarray
    caption: str = ""
    key: tuple[tuple[str, Colour], ...] = ()


Rows = list[list[Picture]]


class DrawnQuestion(NamedTuple):
    """The pictures of a question: rows under the name of each tab, the first tab complete; and the colours of its classes by name."""

    heading: str
    tabs: list[tuple[str, Rows]]
    legend: dict[str, Colour]


def draw_panel(panel: SamplePanel, size: tuple[int, int] = (520, 760), scale: int = 3) -> list[DrawnQuestion]:
    """The pictures of all questions of a sample.

    Args:
        panel: the sample.
        size: (height, width) of 3D views.
        scale: pixels per voxel of views from above.
    """
    return [_draw_question(question, panel, size, scale) for question in panel.questions]


def compare(prediction: np.ndarray, truth: np.ndarray, free: int) -> np.ndarray:
    """uint8 of the shape of both: position in AGREEMENT, or len(AGREEMENT) where both are free or the truth is unknown (255)."""
    full_p, full_t = prediction != free, truth != free
    cases = [truth == 255, full_t & (prediction == truth), full_t & full_p, full_t, full_p]
    return np.select(cases, (len(AGREEMENT), 0, 1, 2, 3), len(AGREEMENT)).astype(np.uint8)


def _draw_question(question: Question, panel: SamplePanel, size: tuple[int, int], scale: int) -> DrawnQuestion:
    rows: Rows = []
    masked: Rows = []
    legend: dict[str, Colour] = {}
    draw: dict[type, Callable[..., Rows]] = {
        VoxelLayer: lambda predicted, true, _: _voxels(predicted, true, size, scale),
        MapLayer: lambda predicted, true, _: _maps(predicted, true),
        BoxLayer: lambda predicted, true, _: _boxes(predicted, true, panel),
        PixelLayer: lambda predicted, true, index: _pixels(predicted, true, next((image for _, image in panel.images[index:]), None)),
        PointLayer: lambda predicted, true, _: _points(predicted, true),
        ImageLayer: lambda predicted, true, _: _images(predicted, true),
        ViewLayer: lambda predicted, true, index: _views(predicted, true, panel, index),
    }
    for index, predicted, true in _pairs(question):
        legend |= _entries(predicted) | _entries(true)
        rows += draw[type(predicted or true)](predicted, true, index)
        if isinstance(true, VoxelLayer) and true.mask is not None and (predicted is None or predicted.labels.shape == true.labels.shape):
            masked += _voxels(predicted, true, size, scale, true.mask)
    tabs = [("All voxels", rows)] + ([("Inside the mask", masked)] if masked else [])
    return DrawnQuestion(question.heading, tabs, legend)


def _pairs(question: Question) -> Iterator[tuple[int, Any, Any]]:
    """Layers of one kind of prediction and truth with their position, in order; None where one has more of a kind than the other."""
    for kind in dict.fromkeys(type(layer) for layer in (*question.prediction, *question.truth)):
        alike = ([layer for layer in some if type(layer) is kind] for some in (question.prediction, question.truth))
        yield from ((index, predicted, true) for index, (predicted, true) in enumerate(zip_longest(*alike)))


def _entries(layer: Layer | None) -> dict[str, Colour]:
    """Names and colours of the classes that are drawn; colours without a name explain themselves."""
    if layer is None or isinstance(layer, ImageLayer | PointLayer):
        return {}
    named = enumerate(zip(layer.legend.names, layer.legend.colours, strict=True))
    return {name: colour for i, (name, colour) in named if name and i != getattr(layer, "free", None)}


def _named(name: str, predicted: _L | None, true: _L | None) -> list[tuple[str, _L]]:
    """The layers that are there, as "predicted NAME" and "true NAME", or "prediction" and "truth"."""
    names = (f"predicted {name}", f"true {name}") if name else ("prediction", "truth")
    return [(text, layer) for text, layer in zip(names, (predicted, true), strict=True) if layer is not None]


def _is_comparable(predicted: VoxelLayer | None, true: VoxelLayer) -> bool:
    """Whether the prediction is there, with the cells and classes of the truth."""
    return predicted is not None and predicted.labels.shape == true.labels.shape and predicted.legend.names == true.legend.names


# ---- voxels and maps --------------------------------------------------------------------------------------------------------


def _voxels(
    predicted: VoxelLayer | None, true: VoxelLayer | None, size: tuple[int, int], scale: int, mask: np.ndarray | None = None
) -> Rows:
    """3D views and views from above, what agrees, and the objects; all of it or what lies inside a mask."""

    def pictures(shown: list[tuple[str, VoxelLayer]], caption: str = "", more: Sequence[Picture] = ()) -> Rows:
        drawn = [(name, replace(layer, mask=mask)) for name, layer in shown]
        views = [Picture(name, render_voxels(layer, size), caption if i else "") for i, (name, layer) in enumerate(drawn)]
        tops = [Picture(f"{name} from above", top_view(layer, scale)) for name, layer in drawn]
        return [[*views, *tops]] if len(drawn) == 1 else [views, [*tops, *more]] if drawn else []

    rows = pictures(_named("", predicted, true), more=_agreement(predicted, true, scale))
    painted, reference = None, (true, paint_objects(true)) if true is not None and true.objects is not None else None
    if predicted is not None and predicted.objects is not None:
        painted = paint_objects(predicted, reference if reference and _is_comparable(predicted, reference[0]) else None)
    return rows + pictures(_named("objects", painted, reference[1] if reference else None), _MATCHED)


def _agreement(predicted: VoxelLayer | None, true: VoxelLayer | None, scale: int) -> list[Picture]:
    """Where prediction and truth agree, from above; always inside the mask: what could not be observed does not count."""
    if predicted is None or true is None or not _is_comparable(predicted, true):
        return []
    compared = compare(predicted.labels, true.labels, true.free)
    layer = VoxelLayer(compared, _AGREEMENT, len(AGREEMENT), true.grid, mask=true.mask)
    return [Picture("agreement", top_view(layer, scale), "Agreement" if true.mask is None else "Agreement, where observed", AGREEMENT)]


def _maps(predicted: MapLayer | None, true: MapLayer | None, side: int = 600) -> Rows:
    """Maps from above, and what agrees."""
    flat_predicted, flat_true = (None if layer is None else _as_voxels(layer) for layer in (predicted, true))
    shown = _named("", flat_predicted, flat_true)
    scale = max(max(1, side // max(layer.labels.shape)) for _, layer in shown)
    return [[*(Picture(name, top_view(layer, scale)) for name, layer in shown), *_agreement(flat_predicted, flat_true, scale)]]


def _as_voxels(layer: MapLayer) -> VoxelLayer:
    """A map as one layer of voxels without height; what is unknown is free, and outside the mask."""
    grid = layer.grid
    flat = VoxelGrid(lower=(*grid.lower[:2], 0.0), upper=(*grid.upper[:2], 0.01), cell=(*grid.cell[:2], 0.01))
    labels = np.where(layer.labels == 255, layer.free, layer.labels).T[..., None]  # (X, Y, 1)
    known = (layer.labels != 255).T[..., None]
    return VoxelLayer(labels, layer.legend, layer.free, flat, mask=None if known.all() else known.astype(np.uint8))


# ---- boxes and points -------------------------------------------------------------------------------------------------------


def confident(layer: BoxLayer | None) -> BoxLayer | None:
    """Boxes whose score is at least a share of the best one: some networks answer with hundreds, however unsure."""
    if layer is None or layer.scores is None or not len(layer.scores):
        return layer
    keep = ~(layer.scores < _SHARE_OF_BEST * np.nan_to_num(layer.scores).max())  # also scores that are NaN: a fault is to be seen
    return replace(layer, boxes=layer.boxes[keep], classes=layer.classes[keep], scores=layer.scores[keep])


def _boxes(predicted: BoxLayer | None, true: BoxLayer | None, panel: SamplePanel) -> Rows:
    """Boxes in the images, where these are calibrated, and from above; of predictions those that `confident` keeps."""
    predicted = confident(predicted)
    images = [
        Picture(pretty_channel(name), boxes_in_image(image, camera, predicted, true))
        for (name, image), camera in zip(panel.images, panel.cameras, strict=False)  # no cameras: no calibration
    ]
    rows = [[images[i] for i in row] for row in camera_rows([name for name, _ in panel.images]) if images]
    shown = _named("boxes", predicted, true)
    reach = reach_of(*(layer.boxes for _, layer in shown))
    caption = "Predicted boxes from above, fainter at low scores" + (", over the outlines of the true ones" if true else "")
    caption += f". Boxes with less than {_SHARE_OF_BEST:.0%} of the best score are left out. Arrows: the way in one second; numbers: scores"
    above = []
    for name, layer in shown:
        outlines, text = (true, caption) if layer is predicted else (None, "")
        above.append(Picture(f"{name} from above", boxes_above(layer, reach, outlines), text))
    return [*rows, above]


def _points(predicted: PointLayer | None, true: PointLayer | None) -> Rows:
    shown = _named("points", predicted, true)
    reach = reach_of(*(layer.points for _, layer in shown))
    return [[Picture(f"{name} from above", points_above(layer, reach)) for name, layer in shown]]


# ---- images -----------------------------------------------------------------------------------------------------------------


def _pixels(predicted: PixelLayer | None, true: PixelLayer | None, photo: np.ndarray | None, width: int = 1024) -> Rows:
    """Classes over the photograph, and what agrees."""
    pictures = [
        Picture(name, _over(photo, palette(layer.legend.colours)[layer.labels], layer.labels != layer.ignore, width))
        for name, layer in _named("", predicted, true)
    ]
    if predicted is not None and true is not None and predicted.legend.names == true.legend.names:
        labels = predicted.labels
        if labels.shape != true.labels.shape:
            labels = np.asarray(Image.fromarray(labels).resize(true.labels.shape[::-1], Image.Resampling.NEAREST))
        colours = palette(_AGREEMENT.colours)[(labels != true.labels).astype(int)]
        pictures.append(Picture("agreement", _over(photo, colours, true.labels != true.ignore, width), "Agreement", AGREEMENT[:2]))
    return [pictures]


def _views(predicted: ViewLayer | None, true: ViewLayer | None, panel: SamplePanel, index: int, width: int = 640) -> Rows:
    """A camera in one row: classes and depth over what the views show of its photograph."""
    name = f"{pretty_channel(panel.images[index][0])}, " if index < len(panel.images) else ""
    classes, depths = [], []
    for kind, layer in (("predicted", predicted), ("true", true)):
        if layer is None:
            continue
        scale = max(1, width // layer.labels.shape[1])
        labels, depth = (np.repeat(np.repeat(array, scale, 0), scale, 1) for array in (layer.labels, layer.depth))
        photo = _part_of_photo(panel, index, layer.intrinsics, scale, labels.shape)
        painted = palette(layer.legend.colours)[labels]
        classes.append(Picture(f"{name}{kind} class", _over(photo, painted, labels != layer.ignore, width)))
        colours = depth_colours(depth)
        depths.append(Picture(f"{name}{kind} depth, red near", _over(photo, colours, depth > 0, width)))
    return [[*classes, *depths]]


def _part_of_photo(panel: SamplePanel, index: int, intrinsics: np.ndarray, scale: int, size: tuple[int, ...]) -> np.ndarray | None:
    """What a camera's photograph shows of a view whose pixels are `scale` wide (H, W, 3); None without a calibrated photograph."""
    if index >= min(len(panel.images), len(panel.cameras)):
        return None
    to_photo = panel.cameras[index].intrinsics @ np.linalg.inv(np.diag([scale, scale, 1.0]) @ intrinsics)
    image = Image.fromarray(panel.images[index][1])
    part = image.transform((size[1], size[0]), Image.Transform.AFFINE, to_photo[:2].ravel().tolist(), Image.Resampling.BILINEAR)
    return np.asarray(part)


def _over(photo: np.ndarray | None, colours: np.ndarray, drawn: np.ndarray, width: int) -> np.ndarray:
    """Colours (H, W, 3) where `drawn` (H, W), over a photograph of any size, at most `width` wide."""
    height, across = drawn.shape
    size = (min(across, width), max(round(height * min(1.0, width / across)), 1))
    grey = np.full((1, 1, 3), 90, np.uint8)
    below = np.asarray(Image.fromarray(grey if photo is None else photo).resize(size, Image.Resampling.LANCZOS), np.float32)
    over, opacity = (
        np.asarray(Image.fromarray(a).resize(size, Image.Resampling.NEAREST), np.float32)
        for a in (colours, (drawn * round(255 * _OPACITY)).astype(np.uint8))
    )
    share = opacity[..., None] / 255
    return np.rint((1 - share) * below + share * over).astype(np.uint8)


def _images(predicted: ImageLayer | None, true: ImageLayer | None, width: int = 1024) -> Rows:
    shown = [(layer.caption or name, layer.image) for name, layer in _named("", predicted, true)]
    return [[Picture(name, image if image.shape[1] <= width else resized(image, width)) for name, image in shown]]
