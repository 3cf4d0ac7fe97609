"""`frustum data status` of a folder of images with label maps, or of portraits: its layout, splits and classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from frustum.data.opening import open_root


@dataclass(frozen=True)
class ImageSplit:
    """How many images a split has, and how many of them have a label map."""

    name: str
    images: int
    labelled: int


@dataclass(frozen=True)
class ImageStatus:
    """What is in a folder of images; `layout` is the reader of it."""

    root: str
    layout: str
    class_names: tuple[str, ...]
    splits: list[ImageSplit]
    advice: str


def image_status(root: Path | str) -> ImageStatus:
    """Report what is in a folder of images; reads lists and folders, not images. Raises DataError if it is none."""
    source = open_root(Path(root))
    splits = []
    for name in source.splits():
        tokens = source.tokens(name)
        splits.append(ImageSplit(name, len(tokens), sum(source.label_file(token) is not None for token in tokens)))
    if not any(split.images for split in splits):
        advice = "There are no images here; docs/data.md shows where they lie."
    elif any(0 < split.labelled < split.images for split in splits):
        advice = f"Some images of a split have no label map. Which: frustum check {root}"
    else:
        advice = f"Ready. Look at it: frustum check {root}"
    return ImageStatus(str(root), type(source).__name__, source.class_names, splits, advice)
