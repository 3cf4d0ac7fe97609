"""ADE20K's scene parsing: images/ and annotations/ with training/ and validation/ each; 20,210 and 2,000 images, 150 classes."""

from __future__ import annotations

from pathlib import Path

from frustum.data.images.labelled import Entry, LabelledImages, images_in
from frustum.types.classes import IGNORE
from frustum.types.pixel_classes import ADE20K

_SPLITS = {"train": "training", "val": "validation"}


class Ade20k(LabelledImages):
    """ADE20K. In its label maps 0 is what is unlabelled and 1 to 150 are the classes; a token is the name of an image.

    Args:
        root: ADEChallengeData2016. Its splits are called train and val here.
    """

    def __init__(self, root: Path | str):
        root = Path(root)
        splits = {
            name: [Entry(p.stem, p, root / "annotations" / folder / f"{p.stem}.png") for p in images_in(root / "images" / folder)]
            for name, folder in _SPLITS.items()
        }
        ids = {0: IGNORE} | {i + 1: i for i in range(len(ADE20K.names))}
        about = f"the {len(ADE20K.names)} classes of ADE20K have the ids 1 to {len(ADE20K.names)}, and 0 is what is unlabelled"
        super().__init__(root, ADE20K.names, splits, ids, about)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether a folder has this layout."""
        return (root / "annotations").is_dir() and (root / "images" / "training").is_dir()
