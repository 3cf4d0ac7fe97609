"""Class counts of a split's labels, per height, for models that start from them; cached in the run folder."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.sample import Occupancy
from frustum.errors import DataError
from frustum.files import atomic_path
from frustum.types.classes import OCC3D_CLASSES

STATISTICS = "statistics.npz"


@dataclass(frozen=True)
class ClassStatistics:
    """What a model's `prepare` receives.

    Attributes:
        counts: (Z, K) int64 voxels of each class at each height, inside the camera mask.
        class_names: the K classes, `free` included.
        frames: number of keyframes counted.
    """

    counts: np.ndarray
    class_names: tuple[str, ...] = OCC3D_CLASSES
    frames: int = 0


def class_statistics(database: NuScenes, split: str, *, most: int = 1000, cache: Path | None = None) -> ClassStatistics:
    """Count the classes of a split over at most `most` evenly spread keyframes. With `cache` (a folder) the result is kept there.

    Raises:
        DataError: no keyframes, or a label file is missing or damaged.
    """
    tokens = spread(database.tokens(split), most)
    if not tokens:
        raise DataError(f"the split {split!r} has no keyframes.")
    file = cache / STATISTICS if cache is not None else None
    if file is not None and (stored := _read(file, tokens)) is not None:
        return stored
    counts: np.ndarray | None = None
    for labels in labels_of(database, tokens):
        height = labels.semantics.shape[2]
        counts = np.zeros((height, len(OCC3D_CLASSES)), np.int64) if counts is None else counts
        seen = (labels.mask_camera > 0) & (labels.semantics < len(OCC3D_CLASSES))
        levels = np.broadcast_to(np.arange(height), seen.shape)[seen]
        counts += np.bincount(levels * counts.shape[1] + labels.semantics[seen], minlength=counts.size).reshape(counts.shape)
    assert counts is not None
    if file is not None:
        with atomic_path(file, ".npz") as temporary:
            np.savez(temporary, counts=counts, frames=len(tokens), first=tokens[0], last=tokens[-1])
    return ClassStatistics(counts, frames=len(tokens))


def labels_of(database: NuScenes, tokens: Sequence[str]) -> Iterator[Occupancy]:
    """The occupancy labels of samples. Raises DataError where there is none."""
    for token in tokens:
        labels = database.sample(token, with_boxes=False, occupancy=True).occupancy
        if labels is None:
            raise DataError(f"sample {token} has no occupancy labels; the data set needs a gts folder with a labels.npz for each keyframe.")
        yield labels


def spread(tokens: Sequence[str], most: int) -> list[str]:
    """At most `most` of the tokens, at even steps, in order."""
    if len(tokens) <= most:
        return list(tokens)
    return [tokens[i] for i in np.linspace(0, len(tokens) - 1, most).round().astype(int)]


def _read(file: Path, tokens: list[str]) -> ClassStatistics | None:
    """The cached counts if they are of the same frames, else None."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            if [int(stored["frames"]), str(stored["first"]), str(stored["last"])] != [len(tokens), tokens[0], tokens[-1]]:
                return None
            return ClassStatistics(stored["counts"], frames=len(tokens))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
