"""Images with label maps, whatever the layout of their folder: what the readers of the layouts have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from frustum.data.pixels import photograph, read_image, upright_size
from frustum.errors import DataError, nearest_names
from frustum.files import check_name, inside
from frustum.types.classes import IGNORE

SUFFIXES = (".png", ".jpg", ".jpeg")


class Entry(NamedTuple):
    """An image of a split: its token, its file, and where its label map lies if it has one."""

    token: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class ImageSample:
    """One image.

    Attributes:
        token: its name in the data set.
        path: the image's file.
        size: (height, width) in pixels, upright.
        scene: empty: images do not belong to recordings.
    """

    token: str
    path: Path
    size: tuple[int, int]
    scene: str = ""

    def open(self) -> Image.Image:
        """The image, RGB, upright. Raises DataError when the file is damaged, has more than 8 bits per colour, or another size."""
        image = read_image(self.path, photograph)
        if (image.height, image.width) != self.size:  # a note behind the pixels of a PNG, which are not decoded for the size
            raise DataError(f"the image {self.path} has a note behind its pixels to turn it. Write it upright: mogrify -auto-orient FILE.")
        return image


class LabelledImages:
    """Images with label maps.

    Args:
        root: the folder.
        class_names: what the classes 0, 1, ... are.
        splits: the images of each split; an image may be in several.
        ids: the class of each id in the label maps, IGNORE for what does not count. Other ids, but for IGNORE itself, are refused.
            None where the ids are the classes.
        about_ids: which ids there are, in words, for the message of a refusal.
        about_tokens: how tokens are made, in words.

    Raises:
        DataError: two images share a token.
    """

    def __init__(
        self,
        root: Path,
        class_names: tuple[str, ...],
        splits: Mapping[str, Iterable[Entry]],
        ids: Mapping[int, int] | None = None,
        about_ids: str = "",
        about_tokens: str = "Tokens are the names of the images, without the ending of the file.",
    ):
        self.root, self.class_names, self._about_ids, self._about_tokens = root, class_names, about_ids, about_tokens
        self._splits: dict[str, list[str]] = {}
        self._entries: dict[str, Entry] = {}
        for split, entries in splits.items():
            self._splits[split] = []
            for entry in entries:
                for word in entry.token.split("/"):
                    check_name(word, f"an image's name in {self.root}")
                if (known := self._entries.setdefault(entry.token, entry)).image != entry.image:
                    raise DataError(f"two images have the token {entry.token!r}: {known.image} and {entry.image}. Rename one of them.")
                self._splits[split].append(entry.token)
        known_ids = {i: i for i in range(len(class_names))} if ids is None else ids
        self._is_known, self._table = np.zeros(256, bool), np.full(256, IGNORE, np.uint8)
        self._is_known[[*known_ids, IGNORE]] = True
        self._table[list(known_ids)] = list(known_ids.values())

    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self._splits)

    def tokens(self, split: str = "all") -> list[str]:
        """Images of a split, or of all, in order. Raises DataError for an unknown split."""
        splits = {**self._splits, "all": list(self._entries)}
        if split not in splits:
            settings = "data.train_split and data.val_split say which are taken."
            raise DataError(f"{self.root} has no split {split!r}; {nearest_names(split, splits)} {settings}")
        return list(splits[split])

    def sample(self, token: str) -> ImageSample:
        """One image; its size is read from the file. Raises DataError for an unknown token or a damaged file."""
        path = inside(self.root, self._entry(token).image)
        return ImageSample(token, path, read_image(path, _upright_size))

    def neighbours(self, token: str) -> tuple[str]:
        """The image alone: images do not have an order in time. Raises DataError for an unknown token."""
        return (self._entry(token).token,)

    def label_file(self, token: str) -> Path | None:
        """The file of an image's label map, None without one. Raises DataError for an unknown token."""
        path = self._entry(token).labels
        return inside(self.root, path) if path.is_file() else None

    def labels(self, token: str) -> np.ndarray | None:
        """The label map (H, W) uint8 of an image: classes, IGNORE where nothing counts; None without one.

        Raises:
            DataError: the file is damaged, has another size than the image, or holds something else than ids of classes.
        """
        path = self.label_file(token)
        if path is None:
            return None
        ids = read_ids(path)
        if ids.shape != (size := self.sample(token).size):
            have, need = (f"{height} x {width}" for height, width in (ids.shape, size))
            raise DataError(f"the label map {path} has {have} pixels, but its image {need}. Make them alike.")
        if not self._is_known[ids].all():
            raise DataError(f"the label map {path} holds {ids[~self._is_known[ids]][0]}, but {self._about_ids}.")
        return self._table[ids]

    def _entry(self, token: str) -> Entry:
        if token not in self._entries:
            raise DataError(f"{self.root} has no image {token!r}. {self._about_tokens}")
        return self._entries[token]


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) once it is turned as its Exif note says, if that stands before the pixels: others would be decoded for it."""
    return upright_size(image) if image.format == "JPEG" or "exif" in image.info else (image.height, image.width)


def read_ids(path: Path) -> np.ndarray:
    """The ids (H, W) uint8 in a label map. Raises DataError for a damaged file, and for pixels that are not ids of 8 bits."""
    mode, ids = read_image(path, lambda image: (image.mode, np.asarray(image)))
    if mode in ("L", "P"):  # a palette's colours do not matter
        return ids
    what = "colours" if ids.ndim == 3 else "numbers"
    raise DataError(
        f"the label map {path} has pixels of the kind {mode}, but class ids need one channel of 8 bits. Replace its {what} by class ids, "
        f"and write them with PIL.Image.fromarray(ids.astype('uint8')).save({path.name!r})."
    )


def read_list(path: Path, what: str) -> list[list[str]]:
    """The words of each line of a split's list, without empty lines. Raises DataError for a missing or empty file; `what` says its form."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list of a split {path}: {error}. It needs {what} per line.") from error
    if not any(lines):
        raise DataError(f"the list of a split {path} is empty. It needs {what} per line.")
    return [words for words in lines if words]


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, by name; none if it does not exist."""
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in files if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
