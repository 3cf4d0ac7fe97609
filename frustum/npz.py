"""Opens npz archives from anybody: sizes are read before anything is allocated, and no pickle is.

What is kept for a later command, and can be made again, is sealed: the archive holds a digest of its arrays and of what they are of.
"""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LARGEST = 1 << 28
"""Bytes that the arrays of an archive may take, where its reader sets no limit of its own."""
DAMAGED = (OSError, ValueError, EOFError, AttributeError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive raises, or using arrays of another kind."""
_SEAL = "digest"


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


def sealed(arrays: dict[str, np.ndarray], about: str) -> dict[str, np.ndarray]:
    """The arrays to save, with a digest of them and of what they are of, in words."""
    return arrays | {_SEAL: np.array(_digest(arrays, about))}


def read_sealed(path: Path | str, about: str, largest: int = LARGEST) -> dict[str, np.ndarray]:
    """The arrays of an archive that was made by `sealed` with the same words.

    Raises:
        One of DAMAGED: it is missing or damaged, was made of something else, or by another version.
    """
    with open_npz(path, largest) as archive:
        arrays = {name: archive[name] for name in archive.files}
    if str(arrays.pop(_SEAL)) != _digest(arrays, about):
        raise ValueError("its digest is another")
    return arrays


def _digest(arrays: dict[str, np.ndarray], about: str) -> str:
    total = hashlib.blake2b(about.encode(), digest_size=32)
    for name, array in sorted(arrays.items()):
        total.update(f"\0{name} {array.dtype} {array.shape} ".encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


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
