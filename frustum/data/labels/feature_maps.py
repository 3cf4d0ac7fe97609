"""What a teacher sees in the photographs of a keyframe, where that is not computed in training: maps in a folder, or of the true classes.

A folder is written once by `frustum data features`. Its teacher looked at whole photographs that were never augmented, whatever is done to
the images of the network that learns from it. `exact` is a teacher that is never wrong, of street worlds: each pixel has the fixed random
vector of its class, and a feature is the mean over its pixels.

Shape letters: B batch, N cameras, D features, h w feature map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from frustum.data.augment import Draw
from frustum.data.labels.view_cache import file_sum
from frustum.data.labels.view_points import truth_images
from frustum.data.pixels import read_image
from frustum.data.sample import CameraFrame, Sample
from frustum.data.source import as_rig_source
from frustum.errors import DataError
from frustum.files import atomic_path, read_json, write_json
from frustum.locks import owning
from frustum.npz import open_npz
from frustum.types.contract import Label, Shapes

EXACT_FEATURES = 32
"""D of `exact`."""
_PIXELS, _STEP = 32, 4  # of an image to a feature of `exact`, and of them to one that is looked at
_ABOUT = "features.json"


@dataclass(frozen=True)
class TeacherMaps(Label[Tensor]):
    """Feature maps (B, N, D, h, w) float16 of all cameras, each over its whole photograph.

    Attributes:
        teacher: its name; `exact` needs no folder.
        folder: what `frustum data features` wrote with that teacher.
        features: D.
    """

    teacher: str = "exact"
    folder: str = ""
    features: int = EXACT_FEATURES

    what: ClassVar[str] = "a teacher's features"
    advice: ClassVar[str] = "Write them: frustum data features ROOT --out FOLDER, or train with model.feature_weight=0."

    def read(self, source: Any, token: str, fixed: Draw | None = None) -> np.ndarray:
        """See `Label.read`: (N, D, h, w). Raises DataError where files are missing, damaged, or of another data set or teacher."""
        sample = as_rig_source(source, self.what).sample(token, with_boxes=False, occupancy=False)
        if self.folder:
            return read_features(Path(self.folder), sample)
        maps = [exact_features(camera) for camera in sample.cameras]
        if len({one.shape for one in maps}) > 1:
            sizes = ", ".join(f"{height}x{width}" for height, width in dict.fromkeys(camera.size for camera in sample.cameras))
            raise DataError(f"the photographs of keyframe {token} have different sizes, {sizes}. Choose data.cameras of one size.")
        return np.stack(maps)

    def apply(self, found: np.ndarray, draw: Draw) -> np.ndarray:
        """As they are: what a draw does to images does nothing to whole photographs."""
        return found

    def collate(self, moved: Sequence[np.ndarray | None]) -> Tensor | None:
        """None if a sample has none."""
        known = [maps for maps in moved if maps is not None]
        return torch.from_numpy(np.stack(known)) if known and len(known) == len(moved) else None

    def example(self, rng: np.random.Generator, shapes: Shapes) -> Tensor:
        """Random features of 4 x 6 places."""
        return torch.from_numpy(rng.standard_normal((shapes.batch, shapes.cameras, self.features, 4, 6)).astype(np.float16))

    def require(self, source: Any, tokens: Sequence[str]) -> None:
        """Raise DataError if the folder is of another teacher or lacks a keyframe, or what the first one needs is not there."""
        if self.folder:
            about = _about(Path(self.folder))
            found, wanted = (about.get("teacher"), about.get("features")), (self.teacher, self.features)
            if found != wanted:
                raise DataError(
                    f"the features in {self.folder} are {found[1]} numbers of the teacher {found[0]}, but {wanted[1]} of {wanted[0]} are "
                    "to be learned. Set model.teacher.kind to that teacher, or write features of this one into another folder."
                )
            missing = [token for token in tokens if not (Path(self.folder) / f"{token}.npz").is_file()]
            if missing:
                size = ",".join(map(str, about.get("image_size", ())))
                raise DataError(
                    f"{self.folder} lacks features of {len(missing)} of the {len(tokens)} training keyframes, {missing[0]} first. Write "
                    f"them: frustum data features {source.root} --out {self.folder} --teacher {self.teacher} --image-size {size}"
                )
        for token in tokens[:1]:
            self.read(source, token)

    def described(self, source: Any, tokens: Sequence[str], statistics: Mapping[str, np.ndarray]) -> str:
        """Whose features."""
        if not self.folder:
            return "fixed vectors of the true classes of pixels"
        return f"image features of {_about(Path(self.folder)).get('origin', self.teacher)}"


# ---- a teacher that is never wrong -------------------------------------------------------------------------------------------


def exact_features(camera: CameraFrame) -> np.ndarray:
    """(D, h, w) float16: the mean vector of the true classes of each part of the photograph, 32 pixels wide and high.

    Raises DataError where the street world was made without its truth images.
    """
    advice = 'The exact teacher needs a street world with classes of pixels: frustum data world OUT \'save=["depth","semantics"]\''
    ids = np.asarray(read_image(truth_images(camera)[1], lambda image: image.copy(), advice))[_STEP // 2 :: _STEP, _STEP // 2 :: _STEP]
    places = [np.arange(max(1, round(pixels / _PIXELS))) for pixels in camera.size]
    first = [steps * count // len(steps) for steps, count in zip(places, ids.shape, strict=True)]
    total = np.add.reduceat(np.add.reduceat(class_vectors()[ids], first[0], 0), first[1], 1)  # (h, w, D)
    rows, columns = (np.diff([*begin, count]) for begin, count in zip(first, ids.shape, strict=True))
    return np.moveaxis(total / (rows[:, None] * columns)[..., None], -1, 0).astype(np.float16)


@lru_cache
def class_vectors() -> np.ndarray:
    """(256, D) float32: a unit vector for each id of a class, the same for everybody."""
    found = np.random.default_rng(2404).standard_normal((256, EXACT_FEATURES))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


# ---- features in a folder ----------------------------------------------------------------------------------------------------


@owning("folder", "frustum data features")
def write_features(
    source: Any, tokens: Iterable[str], folder: Path, about: Mapping[str, Any], teach: Callable[[list[CameraFrame]], np.ndarray]
) -> int:
    """Write `TOKEN.npz` for each keyframe; how many are new. Files that are there and whole are kept.

    Args:
        source: where the keyframes are.
        tokens: which.
        folder: where to.
        about: `teacher`, its name; `features`, D; `origin`, what it is in words; `image_size`, at which it looks; `weights`, a check sum.
        teach: from cameras to features (N, D, h, w).

    Raises DataError if the folder holds features of another teacher or data set.
    """
    if (folder / _ABOUT).is_file():
        if (there := _about(folder)) != dict(about):
            raise DataError(f"{folder} holds features that were made with {there}, but {dict(about)} is wanted. Choose another --out.")
    else:
        write_json(folder / _ABOUT, dict(about), indent=2)
    new = 0
    for token in tokens:
        sample = source.sample(token, with_boxes=False, occupancy=False)
        try:
            read_features(folder, sample)
        except _MissingError:
            maps = teach(list(sample.cameras)).astype(np.float16)
            with atomic_path(_path(folder, sample), ".npz") as temporary:
                channels = np.array([camera.channel for camera in sample.cameras])
                np.savez(temporary, maps=maps, channels=channels, photographs=_photographs(sample))
            new += 1
    return new


def read_features(folder: Path, sample: Sample) -> np.ndarray:
    """(N, D, h, w) float16 of a keyframe's cameras. Raises DataError for a missing or damaged file, or one of another data set."""
    path = _path(folder, sample)
    again = "Write it: frustum data features ROOT --out FOLDER"
    if not path.is_file():
        raise _MissingError(f"there are no features of keyframe {sample.token} in {folder}. {again}")
    try:
        with open_npz(path) as stored:
            maps, channels, photographs = stored["maps"], stored["channels"].tolist(), stored["photographs"]
            if maps.ndim != 4 or maps.dtype != np.float16 or not len(maps) == len(channels) == len(photographs):
                raise ValueError(f"its arrays have shapes {maps.shape}, {photographs.shape} and {len(channels)} names")
    except Exception as error:  # zipfile, zlib, KeyError, ValueError: whatever a damaged file leads to
        raise _MissingError(f"cannot read the features {path}: {error}. {again}") from error
    wanted = [camera.channel for camera in sample.cameras]
    if missing := [channel for channel in wanted if channel not in channels]:
        raise DataError(f"{path} holds no features of {', '.join(missing)}. Write them with these cameras into another folder.")
    rows = [channels.index(channel) for channel in wanted]
    if (photographs[rows] != _photographs(sample)).any():
        raise DataError(f"the features {path} are of other photographs than those of this data set. Write its own into another folder.")
    return maps[rows]


class _MissingError(DataError):
    """A file that can be made again."""


def _about(folder: Path) -> dict[str, Any]:
    if not (folder / _ABOUT).is_file():
        raise DataError(f"{folder} holds no features of a teacher. Write them: frustum data features ROOT --out {folder}")
    found = read_json(folder / _ABOUT, "description of features")
    return found if isinstance(found, dict) else {}


def _path(folder: Path, sample: Sample) -> Path:
    return folder / f"{sample.token}.npz"


def _photographs(sample: Sample) -> np.ndarray:
    """(N, 4) float64: height, width, bytes of the file and check sum of its beginning; -1 where a photograph is not there."""
    return np.nan_to_num([[*camera.size, *file_sum(camera.path)] for camera in sample.cameras], nan=-1)
