"""Pixel labels: the class of every pixel of an image."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frustum.data.augment import Draw
from frustum.errors import DataError, FrustumWarning
from frustum.types.classes import IGNORE
from frustum.types.contract import Label, Shapes


@dataclass(frozen=True)
class PixelLabels(Label[Tensor]):
    """Label maps (B, H, W) uint8: ids in `class_names`, IGNORE where nothing counts or an image shows nothing.

    Attributes:
        class_names: of the ids 0, 1, ...
        needed: a network looks at them, so that no image may be without.
    """

    class_names: tuple[str, ...]
    needed: bool = False

    what: ClassVar[str] = "label maps"
    advice: ClassVar[str] = "Use a data set that has labels/SPLIT/, or batch.with_labels({PixelLabels: ...})."

    def read(self, source: Any, token: str, fixed: Draw | None = None) -> np.ndarray | None:
        """See `Label.read`: (H, W) uint8, as large as the image. Raises DataError for a damaged or wrong file, and where one is needed."""
        found = _with_maps(source).labels(token)
        if found is None and self.needed:
            raise DataError(f"{token} has no label map, which this network looks at. Make one with a parser, or leave the image out.")
        return found

    def apply(self, found: np.ndarray, draw: Draw) -> np.ndarray:
        """The label map at the network's size, moved like the image; no id is mixed with another."""
        return np.array(draw.images[0].apply(Image.fromarray(found), ignore=IGNORE))

    def collate(self, moved: Sequence[np.ndarray | None]) -> Tensor | None:
        """An image without a label map among labelled ones is ignored."""
        known = next((labels for labels in moved if labels is not None), None)
        if known is None:
            return None
        return torch.from_numpy(np.stack([np.full_like(known, IGNORE) if labels is None else labels for labels in moved]))

    def example(self, rng: np.random.Generator, shapes: Shapes) -> Tensor:
        """Pixels of random classes, one in ten ignored."""
        ids = rng.integers(0, len(self.class_names), (shapes.batch, *shapes.image_size))
        return torch.from_numpy(np.where(rng.random(ids.shape) < 0.1, IGNORE, ids).astype(np.uint8))

    def described(self, source: Any, tokens: Sequence[str], statistics: Mapping[str, np.ndarray]) -> str:
        """How many classes."""
        return f"class of each pixel, one of {len(self.class_names)}"

    def require(self, source: Any, tokens: Sequence[str]) -> None:
        """Raise DataError if the data set has other classes, or none of the images has a label map; warn if some have none."""
        pixels = _with_maps(source)
        if tuple(pixels.class_names) != self.class_names:
            raise DataError(
                f"the network learns the classes {', '.join(self.class_names)}, but the labels in {pixels.root} have "
                f"{', '.join(pixels.class_names)}. Set model.class_names='{json.dumps(pixels.class_names)}', or choose other data."
            )
        missing = [token for token in tokens if pixels.label_file(token) is None]
        if missing and len(missing) == len(tokens):
            raise DataError(f"none of the {len(tokens)} training images in {pixels.root} has a label map. Add some.")
        if missing:
            warnings.warn(
                f"{len(missing)} of the {len(tokens)} training images in {pixels.root} have no label map, {missing[0]} first: nothing is "
                "learned from them. Add their label maps, or remove the images.",
                FrustumWarning,
                stacklevel=2,
            )


def _with_maps(source: Any) -> Any:
    """The source, if its samples may have label maps: it is like `data.images.labelled.LabelledImages`."""
    if not hasattr(source, "labels") or not hasattr(source, "class_names"):
        raise DataError(f"label maps are read from sets of images, but {source.root} is a {type(source).__name__}. Choose other data.")
    return source
