"""Open a data set that a command names by its folder, and find out which of its splits predictions belong to."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from frustum.data.images.opening import holds_images, open_images
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.records import OWN_RIG
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.nuscenes.tables import versions
from frustum.data.portraits.opening import holds_portraits, open_portraits
from frustum.data.rig.importer import import_rig
from frustum.data.rig.likeness import described, differences
from frustum.data.source import DataConfig
from frustum.errors import DataError, FrustumWarning
from frustum.files import scratch_folder

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def open_root(root: Path, version: str | None = None) -> Any:
    """A data set in the nuScenes format, a folder of images with label maps, or one of portraits.

    Args:
        root: its folder.
        version: folder with the tables; by default v1.0-trainval, or the only one that there is.

    Raises:
        DataError: not a data set, several versions to choose from, or a version of images, which have none.
    """
    if (are_images := holds_images(root)) or holds_portraits(root):
        if version is not None:
            raise DataError(f"{root} is a folder of images, which has no versions: leave out --version {version}.")
        return open_images(root) if are_images else open_portraits(root)
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
    with scratch_folder() as folder:
        if (root / "calibration.json").is_file():
            import_rig(root, folder, link=True)
            root = folder
        elif (
            not versions(root)
            and not (root / "sample.json").is_file()
            and not (data is None and (holds_images(root) or holds_portraits(root)))
        ):
            raise _neither(root)
        if data is None:
            yield open_root(root, version)
        else:
            yield NuScenes(root, version or choose_version(root, data.version), data.cameras)


def note_other_rig(trained: Sequence[Mapping[str, Any]], source: Any, tokens: Sequence[str]) -> None:
    """Warn, once, if the cameras of the first of these keyframes are not like those of the training, or an own rig's cannot be compared.

    `trained` is what the weights keep (`DataConfig.rig_of`); empty where they do not say.
    """
    cameras = getattr(source.sample(tokens[0]), "cameras", ()) if tokens else ()
    if not cameras:
        return
    told = differences(trained, described(cameras)) if trained else []
    if told:
        more = f" and {len(told) - 3} more" if len(told) > 3 else ""
        what = f"this rig is not the one that the weights were trained on: {'; '.join(told[:3])}{more}"
    elif not trained and source.scene(tokens[0]).location == OWN_RIG:
        what = "the weights do not say which rig they were trained on; if it was not this one,"
    else:
        return
    be = ". Predictions may be" if told else " predictions may be"
    advice = "Train on a street world with your cameras: frustum data world OUT --rig calibration.json (docs/your_own_cameras.md)."
    warnings.warn(f"{what}{be} wrong in ways that look plausible. {advice}", FrustumWarning, stacklevel=2)


def _neither(root: Path) -> DataError:
    """The error for what is neither a data set nor a rig folder: what is there, what a rig folder is, and how to make one."""
    folder, cameras = root, 1
    if not root.exists():
        what = f"there is no {root}"
    elif not root.is_dir():
        folder = root.parent
        what = f"{root} is {'an image' if root.suffix.lower() in _IMAGES else 'a file'}"
    else:
        folders = Counter(path.parent for depth in ("*", "*/*") for path in root.glob(depth) if path.suffix.lower() in _IMAGES)
        cameras = max(1, len(folders))
        what = f"{root} holds " + (f"{folders.total()} images, but no calibration.json" if folders else "no images and no data set")
    return DataError(
        f"{what}. A network has to know where each camera sits. It reads a rig folder: images, and a calibration.json that says the focal "
        f"length, the position and the direction of each camera. Write one to fill in: frustum data import rig {folder} --template "
        f"{cameras} (the number of cameras; docs/your_own_cameras.md). Or give the root of a data set in the nuScenes format."
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
    given = set(tokens)
    splits = {split: set(source.tokens(split)) for split in (*source.splits(), "all")}
    known = set().union(*splits.values())
    if not given:
        raise DataError('the results hold no sample: "results" is empty. Every keyframe of a split must be a key, without boxes too.')
    if not given & known:
        raise DataError(
            f"none of the {len(given)} samples of the results is a sample of {source.root}, for example {min(given)!r}. "
            "Give the data set that they were predicted on with --data (and --version)."
        )

    def rank(split: str) -> tuple[bool, bool, int, bool, str]:
        members = splits[split]
        is_held, is_holding = members <= given, given & known <= members
        size = -len(members) if is_held else len(members)
        return not is_held, not is_holding, size, split != "val", split  # of splits with the same keyframes, val before others

    return min(splits, key=rank)
