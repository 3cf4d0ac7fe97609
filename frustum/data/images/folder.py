"""A folder of images with label maps: images/SPLIT/NAME.png or .jpg, labels/SPLIT/NAME.png, classes.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from frustum.data.pixels import read_image
from frustum.errors import DataError, nearest_names
from frustum.files import read_json
from frustum.types.classes import IGNORE

_SUFFIXES = (".png", ".jpg", ".jpeg")
_LAYOUT = "The folder needs images/SPLIT/NAME.png or .jpg, labels/SPLIT/NAME.png and classes.json; see docs/data.md."


@dataclass(frozen=True)
class ImageSample:
    """One image.

    Attributes:
        token: split and name, joined by a hyphen.
        path: the image's file.
        size: (height, width) in pixels.
        scene: empty: images do not belong to recordings.
    """

    token: str
    path: Path
    size: tuple[int, int]
    scene: str = ""

    def open(self) -> Image.Image:
        """The image, RGB. Raises DataError when the file is damaged."""
        return read_image(self.path, lambda image: image.convert("RGB"))


class ImageFolder:
    """Images with label maps.

    Attributes:
        root: the folder.
        class_names: what the ids in label maps mean.

    Raises:
        DataError: the folder, its images/ or a valid classes.json is missing, or two images share a token.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)
        images = self.root / "images"
        if not images.is_dir():
            raise DataError(f"{self.root} is not a data set of images: the folder {images} is missing. {_LAYOUT}")
        self.class_names = _class_names(self.root / "classes.json")
        self._splits: dict[str, list[str]] = {}
        self._files: dict[str, Path] = {}
        for folder in sorted(path for path in images.iterdir() if path.is_dir()):
            files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."))
            self._splits[folder.name] = [f"{folder.name}-{path.stem}" for path in files]
            for token, path in zip(self._splits[folder.name], files, strict=True):
                if token in self._files:
                    raise DataError(f"two images have the token {token!r}: {self._files[token]} and {path}. Rename one of them.")
                self._files[token] = path

    def splits(self) -> list[str]:
        """Names of the splits: the folders below images/."""
        return list(self._splits)

    def tokens(self, split: str = "all") -> list[str]:
        """Images of a split, or of all, by name. Raises DataError for an unknown split."""
        splits = {**self._splits, "all": list(self._files)}
        if split not in splits:
            raise DataError(f"{self.root / 'images'} has no folder {split!r}; {nearest_names(split, splits)}")
        return list(splits[split])

    def sample(self, token: str) -> ImageSample:
        """One image; its size is read from the file. Raises DataError for an unknown token or a damaged file."""
        path = self._files.get(token)
        if path is None:
            raise DataError(f"{self.root} has no image {token!r}. Tokens are SPLIT-NAME, without the ending of the file.")
        return ImageSample(token, path, read_image(path, lambda image: (image.height, image.width)))

    def neighbours(self, token: str) -> tuple[str]:
        """The image alone: images do not have an order in time."""
        return (token,)

    def labels(self, token: str) -> np.ndarray | None:
        """The label map (H, W) uint8 of an image, IGNORE where nothing counts; None without one.

        Raises:
            DataError: the file is damaged, has another size than the image, or holds something else than ids of classes.
        """
        sample = self.sample(token)
        path = self.root / "labels" / sample.path.parent.name / f"{sample.path.stem}.png"
        if not path.is_file():
            return None
        mode, ids = read_image(path, lambda image: (image.mode, np.asarray(image)))
        if mode not in ("L", "P"):  # a palette's colours do not matter
            raise DataError(f"the label map {path} has pixels of the kind {mode}, but class ids need one channel of 8 bits. Convert it.")
        if ids.shape != sample.size:
            have, need = (f"{height} x {width}" for height, width in (ids.shape, sample.size))
            raise DataError(f"the label map {path} has {have} pixels, but its image {need}. Make them alike.")
        wrong = ids[(ids >= len(self.class_names)) & (ids != IGNORE)]
        if wrong.size:
            raise DataError(
                f"the label map {path} holds {wrong[0]}, but {self.root / 'classes.json'} lists the classes 0 to "
                f"{len(self.class_names) - 1}. Add the class, or write {IGNORE} where nothing counts."
            )
        return ids


def _class_names(file: Path) -> tuple[str, ...]:
    names = read_json(file, 'list of class names, such as ["road", "sky"],')
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or not 0 < len(set(names)) == len(names) <= IGNORE:
        raise DataError(f'{file} must be a list of 1 to {IGNORE} different names, for example ["road", "sky"].')
    return tuple(names)
