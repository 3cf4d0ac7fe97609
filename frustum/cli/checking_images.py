"""Check a folder of images with label maps: print the findings and how often each class occurs, and draw pictures."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frustum.cli.common import say, table
from frustum.cli.resolve import resolve_recipe
from frustum.data.check.findings import Finding
from frustum.data.check.images import inspect_images
from frustum.data.images.labelled import LabelledImages
from frustum.data.labels.pixels import PixelLabels
from frustum.data.source import spread
from frustum.engine.progress import loop_progress
from frustum.errors import ConfigError, DataError, OutputError
from frustum.files import atomic_path, make_folder
from frustum.tasks.segmentation import SegmentationTask, TrueSegmentation
from frustum.types.contract import Reads
from frustum.viewer.pictures import sample_picture
from frustum.viewer.report_data import Question, SamplePanel


def check_images(
    source: LabelledImages, tokens: Sequence[str], pictures: int, out: Path, augment: str | None
) -> tuple[list[Finding], list[Path]]:
    """Inspect images, print the share of each class, and draw some of the images with their label maps.

    Args:
        source: the data set.
        tokens: images to inspect; `pictures` of them are drawn into `out`.
        augment: name of the recipe whose training augmentation is drawn beside them.

    Raises:
        ConfigError: a recipe that does not learn from images with label maps. DataError: `out` cannot be written to.
    """
    found = inspect_images(source, tokens, loop_progress)
    if found.labelled:
        rows = [(name, f"{100 * share:.2f}", str(found.images[name])) for name, share in found.shares.items()]
        table(f"Classes of {found.labelled} label maps", ["class", "% of the pixels", "images"], rows)
    files = _draw(source, spread(list(tokens), pictures), out, augment) if pictures else []
    return found.findings, files


def _draw(source: LabelledImages, tokens: Sequence[str], out: Path, augment: str | None) -> list[Path]:
    """Draw images into `out`; those with damaged files are left out."""
    read = None if augment is None else _training_view(source, augment)
    files: list[Path] = []
    make_folder(out)
    for token in loop_progress("drawing", tokens):
        try:
            views = {"": (np.asarray(source.sample(token).open()), source.labels(token))}
            if read is not None:
                views["_augmented"] = read(token)
        except OutputError:
            raise
        except DataError as error:
            say(f"image {token} is not drawn: {error}")
            continue
        for ending, (image, labels) in views.items():
            layers = [] if labels is None else SegmentationTask.truth_layers(TrueSegmentation(labels, source.class_names))
            panel = SamplePanel(token, [("image", image)], [Question("Label map", (), layers)])
            files.append(out / f"{token}{ending}.png")
            with atomic_path(files[-1]) as temporary:
                sample_picture(panel).save(temporary, "PNG")
    return files


def _training_view(source: LabelledImages, name: str) -> Any:
    """A function from a token to the RGB image (H, W, 3) uint8 and the label map that a training of the recipe reads."""
    recipe = resolve_recipe(name)
    data = recipe.data
    if data.has_rigs:
        raise ConfigError(f"the recipe {name} does not learn from images with label maps. Choose one that does: --recipe pspnet-lite.")
    labels = (PixelLabels(source.class_names),)
    pipeline: Any = data.pipeline(Reads(), labels, recipe.augment, training=True)

    def read(token: str) -> tuple[np.ndarray, np.ndarray | None]:
        item = pipeline(source, token, np.random.default_rng(zlib.crc32(token.encode())))
        pixels = pipeline.collate([item]).photographs()[0, 0].permute(1, 2, 0).round().clamp(0, 255)
        return pixels.numpy().astype(np.uint8), item["labels"][0]

    return read
