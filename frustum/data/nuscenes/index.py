"""The nuScenes tables as compact arrays: built once, kept in the user's cache, keyed by the content of the tables.

Three parts, each built and loaded when first needed: `frames` (scenes, keyframes, files of keyframes), `boxes` (annotations) and
`sweeps` (all files between keyframes). On the full data set this turns gigabytes of JSON into a few hundred megabytes that load in
a second. The cache is plain npz (no pickle); a damaged file is built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np

from frustum.data.nuscenes.index_build import Arrays, build_boxes, build_frames, build_sweeps
from frustum.data.nuscenes.tables import TABLES, missing_table
from frustum.errors import DataError
from frustum.files import atomic_path, check_is_file
from frustum.npz import DAMAGED, read_sealed, sealed

_VERSION = 7
_MORE = 16  # times the bytes of the tables that a part of the index may have: texts are as wide as the widest
_SAMPLED = 1 << 16  # bytes read from each end of a large table for its digest
_WHOLE = 1 << 22  # tables up to this size are digested whole


def cache_folder() -> Path:
    """Where indices are kept: $FRUSTUM_CACHE, else `.cache/frustum` in the home folder."""
    try:
        return Path(os.environ.get("FRUSTUM_CACHE") or Path.home() / ".cache" / "frustum")
    except RuntimeError:  # an account without a home
        return Path(tempfile.gettempdir()) / "frustum-cache"


def tables_key(folder: Path) -> str:
    """Digest of the tables' sizes, times and content; of large tables only both ends are read.

    Raises:
        DataError: a table is missing or cannot be read.
    """
    digest = hashlib.blake2b(f"frustum index {_VERSION}".encode(), digest_size=16)
    for name in TABLES:
        path = folder / f"{name}.json"
        check_is_file(path, "table")
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                digest.update(f"{name} {status.st_size} {status.st_mtime_ns} ".encode())
                if status.st_size > _WHOLE:
                    digest.update(file.read(_SAMPLED))
                    file.seek(-_SAMPLED, os.SEEK_END)
                digest.update(file.read())
        except FileNotFoundError as error:
            raise missing_table(path) from error
        except OSError as error:
            raise DataError(f"cannot read the table {path}: {error.strerror or error}.") from error
    return digest.hexdigest()


class Index:
    """Lazy access to the three parts of one database's index; each is a dictionary of arrays (see index_build)."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, tables_key(folder)

    @cached_property
    def frames(self) -> Arrays:
        """Scenes, keyframes and the files of keyframes."""
        return self._part("frames", lambda: build_frames(self._folder))

    @cached_property
    def boxes(self) -> Arrays:
        """Annotations, sorted by keyframe."""
        return self._part("boxes", lambda: build_boxes(self._folder, self.frames))

    @cached_property
    def sweeps(self) -> Arrays:
        """All sensor files, sorted by scene, channel and time."""
        return self._part("sweeps", lambda: build_sweeps(self._folder, self.frames))

    def _part(self, name: str, build: Callable[[], Arrays]) -> Arrays:
        """The arrays of a cached part; built when it is missing, damaged, or of other tables."""
        path, about = cache_folder() / f"nuscenes-{self._key}-{name}.npz", f"{name} of {self._key}"
        with contextlib.suppress(*DAMAGED, DataError):
            check_is_file(path, "index")
            size = sum((self._folder / f"{table}.json").stat().st_size for table in TABLES)
            return read_sealed(path, about, _MORE * size + _SAMPLED)
        arrays = build()
        with contextlib.suppress(DataError), atomic_path(path, ".npz") as temporary:  # to work without a cache is allowed
            np.savez(temporary, **sealed(arrays, about))  # type: ignore[arg-type]
        return arrays
