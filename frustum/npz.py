"""Opens npz archives from anybody: sizes are read before anything is allocated, and no pickle is."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LARGEST = 1 << 30
"""Bytes that the arrays of an archive may take, where its reader sets no limit of its own."""


@contextlib.contextmanager
def open_npz(path: Path | str, largest: int = LARGEST) -> Iterator[np.lib.npyio.NpzFile]:
    """The arrays of an archive by their names, read when they are asked for; `largest` is how many bytes they may take together.

    Raises:
        ValueError: no archive of arrays, or one that claims to hold more than that. OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            raise ValueError("it does not begin as an archive does")
        with zipfile.ZipFile(file) as archive:
            size = sum(_size(archive, member) for member in archive.infolist())
    if size > largest:
        raise ValueError(f"its arrays would take {size / 1e6:,.0f} MB, where at most {largest / 1e6:,.0f} MB are expected")
    with np.load(path, allow_pickle=False) as arrays:
        yield arrays


def _size(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Bytes of a member, which is an array that is as large as its header says."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if claimed != member.file_size - file.tell():
            raise ValueError(f"its {member.filename} claims {claimed} bytes, and has {member.file_size - file.tell()}")
    return member.file_size
