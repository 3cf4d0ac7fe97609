"""CamVid in the layout of SegNet: train/, trainannot/, train.txt, and the same for val and test; 367, 101 and 233 images, 11 classes."""

from __future__ import annotations

from pathlib import Path

from frustum.data.images.labelled import Entry, LabelledImages, read_list
from frustum.errors import DataError
from frustum.types.classes import IGNORE
from frustum.types.pixel_classes import CAMVID

_SPLITS = ("train", "val", "test")
_LINE = "one image and its label map, such as train/0001TP_006690.png trainannot/0001TP_006690.png,"


class CamVid(LabelledImages):
    """CamVid. In its label maps 11 is what is unlabelled; a token is the name of an image.

    Raises:
        DataError: the list of a split is missing or malformed.
    """

    def __init__(self, root: Path | str):
        root = Path(root)
        ids = {i: i for i in range(len(CAMVID.names))} | {len(CAMVID.names): IGNORE}
        about = f"CamVid has the ids 0 to {len(ids) - 1}, the last for what is unlabelled. Choose the release with 11 classes"
        super().__init__(root, CAMVID.names, {split: _entries(root, split) for split in _SPLITS}, ids, about)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether a folder has this layout."""
        return (root / "trainannot").is_dir()


def _entries(root: Path, split: str) -> list[Entry]:
    """The published lists have absolute paths of another machine, so only folder and name count."""
    path, found = root / f"{split}.txt", []
    for words in read_list(path, _LINE):
        if len(words) != 2:
            raise DataError(f"{path} has the line {' '.join(words)!r}. It needs {_LINE} per line.")
        image, labels = (root / Path(word).parent.name / Path(word).name for word in words)
        found.append(Entry(image.stem, image, labels))
    return found
