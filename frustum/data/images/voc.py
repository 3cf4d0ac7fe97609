"""Pascal VOC: JPEGImages/, SegmentationClass/ (palette PNGs), ImageSets/Segmentation/SPLIT.txt; 1,464 and 1,449 images, 21 classes."""

from __future__ import annotations

from pathlib import Path

from frustum.data.images.labelled import Entry, LabelledImages, read_list
from frustum.errors import DataError
from frustum.types.classes import IGNORE
from frustum.types.pixel_classes import VOC

_LISTS = ("ImageSets", "Segmentation")


class PascalVoc(LabelledImages):
    """Pascal VOC, and VOC 2012 with the further label maps of SBD, if they lie in SegmentationClassAug/ and a list names their images.

    A split is a list in ImageSets/Segmentation/, for example train, val, trainval or trainaug; a token is the name of an image.

    Args:
        root: VOCdevkit/VOC2012.

    Raises:
        DataError: there are no lists of splits, or one is empty.
    """

    def __init__(self, root: Path | str):
        root = Path(root)
        lists = sorted(root.joinpath(*_LISTS).glob("*.txt"))
        if not lists:
            where = root.joinpath(*_LISTS)
            raise DataError(f"{where} has no lists of splits, such as train.txt and val.txt. Restore them from VOC's archive.")
        about = f"VOC has the ids 0 to {len(VOC.names) - 1}, and {IGNORE} for borders"
        splits = {path.stem: [_entry(root, words[0]) for words in read_list(path, "the name of one image")] for path in lists}
        super().__init__(root, VOC.names, splits, about_ids=about)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether a folder has this layout."""
        return (root / "JPEGImages").is_dir()


def _entry(root: Path, word: str) -> Entry:
    """Of an image's name, or of its path in lists of SBD."""
    name = Path(word).stem
    labels, more = (root / folder / f"{name}.png" for folder in ("SegmentationClass", "SegmentationClassAug"))
    return Entry(name, root / "JPEGImages" / f"{name}.jpg", labels if labels.is_file() else more)
