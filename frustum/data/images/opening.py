"""Open a folder of images with label maps, whichever of the known layouts it has."""

from __future__ import annotations

from pathlib import Path

from frustum.data.images.ade20k import Ade20k
from frustum.data.images.camvid import CamVid
from frustum.data.images.cityscapes import Cityscapes
from frustum.data.images.folder import ImageFolder, Photographs
from frustum.data.images.labelled import LabelledImages
from frustum.data.images.voc import PascalVoc

_READERS = (ImageFolder, CamVid, Cityscapes, PascalVoc, Ade20k)


def holds_images(root: Path) -> bool:
    """Whether a folder has one of the layouts."""
    return any(reader.recognises(root) for reader in _READERS)


def open_images(root: Path | str) -> LabelledImages:
    """The data set in a folder, or its bare photographs. Raises DataError if it is none, or a file of it is missing or malformed."""
    readers = (*_READERS, Photographs)
    reader = next((reader for reader in readers if reader.recognises(Path(root))), ImageFolder)  # ImageFolder says what is missing
    return reader(root)
