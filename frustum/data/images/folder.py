"""A folder of images with label maps: images/SPLIT/NAME.png or .jpg, labels/SPLIT/NAME.png, classes.json. And bare photographs.

Without folders for splits, images/NAME.png and labels/NAME.png, all images are the split `train`.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from frustum.data.images.labelled import Entry, LabelledImages, images_in
from frustum.errors import DataError, FrustumWarning
from frustum.files import read_json
from frustum.types.classes import IGNORE

_LAYOUT = (
    "The folder needs images/SPLIT/NAME.png or .jpg, labels/SPLIT/NAME.png and classes.json, or the layout of CamVid, Cityscapes, Pascal "
    "VOC or ADE20K; see docs/data.md."
)
_UNREAD = (".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2", ".ppm")
ONE_SPLIT = "train"
"""What images are that lie in no split."""


class ImageFolder(LabelledImages):
    """Images with label maps. A token is split and name, joined by a hyphen.

    Raises:
        DataError: the folder, its images/ or a valid classes.json is missing, there is no image, or an image or a label map that would be
            passed over: of another kind, or in a folder of a split; or two images share a token.
    """

    def __init__(self, root: Path | str):
        root = Path(root)
        images, labels, classes = root / "images", root / "labels", root / "classes.json"
        if not images.is_dir():
            raise DataError(f"{root} is not a data set of images: the folder {images} is missing. {_LAYOUT}")
        names = _class_names(classes)
        folders = sorted(path for path in images.iterdir() if path.is_dir())
        if images_in(images):
            if folders:
                raise DataError(f"images lie in {images} and in its folder {folders[0].name}, too. {_LAYOUT}")
            pairs = {ONE_SPLIT: (images, labels)}
        else:
            pairs = {folder.name: (folder, labels / folder.name) for folder in folders}
        splits = {name: _entries(name, *pair) for name, pair in pairs.items()}
        if not any(splits.values()):
            raise DataError(f"there is no image in {images}. {_LAYOUT}")
        about = f"{classes} lists the classes 0 to {len(names) - 1}. Add the class, or write {IGNORE} where nothing counts"
        tokens = "Tokens are SPLIT-NAME, without the ending of the file."
        super().__init__(root, names, splits, about_ids=about, about_tokens=tokens)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether a folder has this layout."""
        return (root / "images").is_dir() and ((root / "classes.json").is_file() or (root / "labels").is_dir())


class Photographs(LabelledImages):
    """Images that lie in one folder, without label maps and classes: they can be predicted, and no more. A token is the name of an image.

    Raises:
        DataError: two images share a token.
    """

    def __init__(self, root: Path | str):
        nowhere = Path()  # where their label maps lie
        super().__init__(Path(root), (), {"all": [Entry(path.stem, path, nowhere) for path in images_in(Path(root))]})

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether images lie in a folder itself."""
        return bool(images_in(root))


def _entries(split: str, images: Path, labels: Path) -> list[Entry]:
    for path in sorted(images.iterdir()):
        if path.suffix.lower() in _UNREAD:
            raise DataError(f"{path} would be passed over: images are .png or .jpg. Write it as one of these, or move it away.")
        if path.is_dir() and images_in(path):
            raise DataError(f"images in {path} would be passed over: those of a split lie in one folder. Move them to {images}.")
    found = images_in(labels)
    if wrong := [path for path in found if path.suffix.lower() != ".png"]:
        raise DataError(f"{wrong[0]} would be passed over: label maps are .png, whose ids nothing blurs. Write them as PNG.")
    maps = {path.stem: path for path in found}
    if lost := sorted(maps.keys() - {path.stem for path in images_in(images)}):
        some = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        warnings.warn(FrustumWarning(f"{len(lost)} label maps in {labels} belong to no image in {images}: {some}."), stacklevel=2)
    return [Entry(f"{split}-{path.stem}", path, maps.get(path.stem, labels / f"{path.stem}.png")) for path in images_in(images)]


def _class_names(file: Path) -> tuple[str, ...]:
    names = read_json(file, 'list of class names, such as ["road", "sky"],')
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or not 0 < len(set(names)) == len(names) <= IGNORE:
        raise DataError(f'{file} must be a list of 1 to {IGNORE} different names, for example ["road", "sky"].')
    return tuple(names)
