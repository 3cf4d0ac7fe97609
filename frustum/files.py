"""Writing files so that a reader never finds half of one: a temporary name in the same folder, then `os.replace`."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frustum.errors import DataError

_FICLONE = 0x40049409  # Linux's request to clone a file; other systems and file systems refuse it
_FULL = "Free some space or choose another output folder"
_FORBIDDEN = "Choose an output folder that you may write to"
_REASONS = {
    errno.ENOSPC: f"the disk is full. {_FULL}",
    getattr(errno, "EDQUOT", -1): f"the disk quota is used up. {_FULL}",
    errno.EROFS: f"the file system is read-only. {_FORBIDDEN}",
    errno.EACCES: f"permission was denied. {_FORBIDDEN}",
    errno.EPERM: f"permission was denied. {_FORBIDDEN}",
    errno.ENOTDIR: "a part of the path is a file, not a folder. Choose another output folder",
    errno.EEXIST: "there is a file of that name where a folder is needed. Choose another output folder",
    errno.EIO: "the disk reports an error. Check the disk",
}


def write_error(path: Path, error: OSError) -> DataError:
    """The error for a `path` that cannot be written: the reason in plain words, and what to do about it."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return DataError(f"cannot write {path}: {reason}. Nothing half-written was left behind.")


def make_folder(path: Path) -> Path:
    """Create a folder and its parents. Raises DataError when the place is full or read-only."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    return path


@contextlib.contextmanager
def atomic_path(path: Path | str, suffix: str = "", set_mode: bool = True) -> Iterator[Path]:
    """A temporary path in the folder of `path` to write to; it becomes `path` when the block ends well and is deleted when it does not.

    `suffix` is appended to the temporary name, for libraries that derive the format from it. The file gets the mode of an ordinary new one,
    unless `set_mode` is off.

    Raises:
        DataError: the folder cannot be created, or the disk turned out to be full or read-only inside the block. Other errors pass.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".tmp{suffix}", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        if set_mode:
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp, and some libraries, make private files; these are ordinary ones
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in _REASONS:
            raise write_error(path, error) from error
        raise
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file atomically. Raises DataError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def copy_file(source: Path | str, target: Path | str) -> None:
    """Copy a file, atomically; where the file system can, both share their blocks until one is written to (reflink). Raises DataError."""
    with atomic_path(target) as temporary:
        if not _cloned(source, temporary):
            shutil.copyfile(source, temporary)


def _cloned(source: Path | str, target: Path) -> bool:
    """Whether the file system made `target` a clone of `source`."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return False
    with open(source, "rb") as old, open(target, "r+b") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            return False
    return True


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """Give a file a second name where the file system allows it, and copy it elsewhere; atomically. Raises DataError.

    The source stays as it is, its mode too: a second name shares it, and whoever writes into one of the two writes into both.
    """
    with atomic_path(target, set_mode=False) as temporary:
        temporary.unlink()
        try:
            os.link(Path(source).resolve(), temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def write_json(path: Path | str, value: Any, indent: int | None = None) -> None:
    """Write JSON atomically; the same value always gives the same bytes. Raises DataError."""
    write_bytes(path, json.dumps(value, indent=indent, allow_nan=True).encode())


def read_json(path: Path | str, what: str = "file") -> Any:
    """Read JSON. Raises DataError when the file is missing, unreadable or not JSON; `what` names it in the message."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"the {what} {path} does not exist.") from error
    except OSError as error:
        raise DataError(f"cannot read the {what} {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"the {what} {path} is not valid JSON ({error}): truncated or damaged? Restore it from its source.") from error


@functools.cache
def _umask() -> int:
    """The process's umask, read once: reading it means setting it, which other threads would notice."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
