"""Open a folder of portraits, whichever of the known layouts it has."""

from __future__ import annotations

from pathlib import Path

from frustum.data.portraits.folder import Portraits
from frustum.data.portraits.voxceleb import VoxCeleb


def holds_portraits(root: Path) -> bool:
    """Whether a folder has one of the layouts."""
    return Portraits.recognises(root) or VoxCeleb.recognises(root)


def open_portraits(root: Path | str) -> Portraits:
    """The portraits in a folder. Raises DataError if there are none, or the folder is malformed."""
    if not Portraits.recognises(Path(root)) and VoxCeleb.recognises(Path(root)):
        return VoxCeleb(root)
    return Portraits(root)
