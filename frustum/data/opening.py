"""Open a data set that a command names by its folder, and find out which of its splits predictions belong to."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from frustum.data.images.opening import holds_images, open_images
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.nuscenes.tables import versions
from frustum.data.rig.importer import import_rig
from frustum.data.source import DataConfig
from frustum.errors import DataError, FrustumWarning


def open_root(root: Path, version: str | None = None) -> Any:
    """A data set in the nuScenes format, or a folder of images with label maps.

    Args:
        root: its folder.
        version: folder with the tables; by default v1.0-trainval, or the only one that there is.

    Raises:
        DataError: not a data set, several versions to choose from, or a version of images, which have none.
    """
    if holds_images(root):
        if version is not None:
            raise DataError(f"{root} is a folder of images, which has no versions: leave out --version {version}.")
        return open_images(root)
    return NuScenes(root, version or choose_version(root, "v1.0-trainval"))


@contextmanager
def opened(root: Path, version: str | None = None, data: DataConfig | None = None) -> Iterator[Any]:
    """The data set in a folder; a rig folder is imported into a temporary data set first.

    Args:
        root: its folder.
        version: as for `open_root`.
        data: open it as this section would, for prediction, with its cameras. LiDAR points are read only for a network that needs them.

    Raises:
        DataError: neither a data set nor a rig folder, or several versions to choose from.
    """
    if data is not None and not isinstance(data, NuScenesData):
        yield data.model_copy(update={"root": str(root)}).open()
        return
    with tempfile.TemporaryDirectory(prefix="frustum-rig-") as folder:
        if (root / "calibration.json").is_file():
            import_rig(root, Path(folder), link=True)
            root = Path(folder)
        if data is None:
            yield open_root(root, version)
        else:
            yield NuScenes(root, version or choose_version(root, data.version), data.cameras)


def note_lacking_cameras(source: Any, tokens: Iterable[str]) -> None:
    """Warn of keyframes that have no image of a camera that their scene has: they are predicted with the others."""
    given = list(tokens)
    if invalid := getattr(source, "invalid_files", ()):
        about = f"{len(invalid)} files are marked with is_valid: false in sample_data.json and are left out, {invalid[0]} first."
        warnings.warn(about, FrustumWarning, stacklevel=2)
    for channel, lacking in getattr(source, "lacking_cameras", lambda _: {})(given).items():
        warnings.warn(
            f"{len(lacking)} of {len(given)} keyframes have no image of {channel}, {lacking[0]} first: they are predicted with the other "
            "cameras, which is not what the network learned.",
            FrustumWarning,
            stacklevel=2,
        )


def choose_version(root: Path, preferred: str) -> str:
    """The folder of tables to use: `preferred` where it exists, else the only one. Raises DataError when there is none, or a choice."""
    found = versions(root)
    if preferred in found or not found:
        return preferred  # opening it names what is missing
    if len(found) > 1:
        raise DataError(f"{root} holds several versions: {', '.join(found)}. Choose one with --version.")
    return found[0]


def split_of(source: Any, tokens: Iterable[str]) -> str:
    """The split that these keyframes make up; else the largest that they hold; else the smallest that holds those of them that are known.

    Raises:
        DataError: there are none, or no keyframe of this data set is among them.
    """
    given, known = set(tokens), set(source.tokens())
    if not given:
        raise DataError('the results hold no sample: "results" is empty. Every keyframe of a split must be a key, without boxes too.')
    if not given & known:
        raise DataError(
            f"none of the {len(given)} samples of the results is a sample of {source.root}, for example {min(given)!r}. "
            "Give the data set that they were predicted on with --data (and --version)."
        )
    splits = {split: set(source.tokens(split)) for split in (*source.splits(), "all")}

    def rank(split: str) -> tuple[bool, bool, int, bool, str]:
        members = splits[split]
        is_held, is_holding = members <= given, given & known <= members
        size = -len(members) if is_held else len(members)
        return not is_held, not is_holding, size, split != "val", split  # of splits with the same keyframes, val before others

    return min(splits, key=rank)
