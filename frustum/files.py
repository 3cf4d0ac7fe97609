"""Writing files so that a reader never finds half of one: a temporary name in the same folder, then `os.replace`.

And which files of a data set are read: files only, that lie in it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
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


_PLACE = re.compile(r"(?<![\w/\\.:])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\,;:'\"()<>]+)+[/\\]?")


def without_places(value: Any) -> Any:
    """JSON values that others will read: of each absolute path in a text only the last name stays, not where the user keeps things."""
    if isinstance(value, str):
        is_path = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
        return PureWindowsPath(value).name if is_path else _PLACE.sub(lambda found: PureWindowsPath(found[0]).name, value)
    if isinstance(value, dict):
        return {key: without_places(entry) for key, entry in value.items()}
    return [without_places(entry) for entry in value] if isinstance(value, list | tuple) else value


ALSO_READ = "FRUSTUM_ALSO_READ"
"""Environment variable: folders outside a data set to which its links may lead, joined as in PATH."""


def inside(root: Path, path: Path | str) -> Path:
    """A file of the data set `root`, if it lies there, wherever links and `..` lead, or in a folder that the user allows (`ALSO_READ`).

    Text is relative to `root`, a `Path` is that of the file itself.

    Raises:
        DataError: it lies elsewhere. A data set may come from anybody, and what is read of it is shown, copied and trained on.
    """
    found = path if isinstance(path, Path) else root / path
    if "\0" in str(found):
        raise DataError(f"{str(path)!r} cannot be the name of a file. Restore the tables of {root} from their source.")
    is_plain = found.name not in ("", "..") and not found.is_symlink()
    real = _real(found.parent) / found.name if is_plain else Path(os.path.realpath(found))
    allowed = [root, *(Path(folder) for folder in os.environ.get(ALSO_READ, "").split(os.pathsep) if folder)]
    if not any(real.is_relative_to(_real(folder)) for folder in allowed):
        raise DataError(
            f"{found} leads to {real}, outside the data set {root}: it was not read. If you trust the data and keep a part of them there, "
            f"allow it by {ALSO_READ}={real.parent} in front of the command."
        )
    return found


@functools.lru_cache(maxsize=4096)
def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def check_name(name: Any, what: str) -> str:
    """A name from a data set that becomes a part of file names: one component of a path. `what` says whose it is.

    Raises:
        DataError: it is empty, `.` or `..`, holds a slash, a backslash or a control character, or is longer than 180 bytes.
    """
    is_good = isinstance(name, str) and name not in ("", ".", "..") and len(name.encode(errors="replace")) <= 180
    if not is_good or "/" in name or "\\" in name or not all(c.isprintable() for c in name):
        raise DataError(
            f"{what} is {name!r:.200}, which cannot be the name of a file, as it becomes one. It needs 1 to 180 printable "
            "characters without slashes, and other than . and .. alone."
        )
    return name


def check_is_file(path: Path | str, what: str) -> None:
    """Raise DataError for what is there but no file: a folder, a pipe, a device. Reading those fails or never ends."""
    with contextlib.suppress(OSError, ValueError):  # missing, or unreadable: opening it says so
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"the {what} {path} is a folder, a pipe or a device, where a file is needed. Restore it from its source.")


def read_json(path: Path | str, what: str = "file") -> Any:
    """Read JSON. Raises DataError when the file is missing, unreadable or not JSON; `what` names it in the message."""
    check_is_file(path, what)
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
