"""Writing files so that a reader never finds half of one: a temporary name in the same folder, then `os.replace`.

And which files of a data set are read: files only, that lie in it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from frustum.errors import DataError, OutputError

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
    errno.EFBIG: "the file would be larger than the limit of this process (ulimit -f) or of the file system. Raise the limit",
    errno.ELOOP: "it is a link, a pipe or a device where frustum keeps a file of its own. Remove it",
    errno.ENXIO: "it is a pipe or a device where frustum keeps a file of its own. Remove it",
    errno.EEXIST: "there is a file of that name where a folder is needed. Choose another output folder",
    errno.EIO: "the disk reports an error. Check the disk",
}


def write_error(path: Path, error: OSError) -> OutputError:
    """The error for a `path` that cannot be written: the reason in plain words, and what to do about it."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"cannot write {path}: {reason}.")


def make_folder(path: Path) -> Path:
    """Create a folder and its parents. Raises OutputError when the place is full or read-only."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    return path


@contextlib.contextmanager
def atomic_path(path: Path | str, suffix: str = "") -> Iterator[Path]:
    """A temporary path in the folder of `path` to write to; it becomes `path` when the block ends well and is deleted when it does not.

    `suffix` is appended to the temporary name, for libraries that derive the format from it. The file gets the mode of an ordinary new one.

    Raises:
        OutputError: the folder cannot be created, or the disk turned out to be full or read-only inside the block. Other errors pass.
    """
    with _draft(Path(path), suffix) as temporary:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp, and some libraries, make private files; these are ordinary ones
        os.replace(temporary, path)


def require_place(path: Path | str) -> None:
    """Raise OutputError now, and not after the work, where `path` could not be written: its disk is full, its folder read-only."""
    if Path(path).is_dir():
        raise OutputError(f"cannot write {path}: it is a folder. Give the name of a file.")
    with _draft(Path(path)) as temporary:
        temporary.write_bytes(bytes(1 << 16))


@contextlib.contextmanager
def _draft(path: Path, suffix: str = "") -> Iterator[Path]:
    """A new empty file beside `path`, whose name nobody can guess; it is deleted in the end."""
    make_folder(path.parent)
    _sweep(path.parent)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.{_owner()}.", suffix=f".tmp{suffix}", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
    except OSError as error:
        cause = error if error.errno or temporary is None else why_unwritable(temporary) or error
        if cause.errno in _REASONS:
            raise OutputError(f"{write_error(path, cause)} Nothing half-written was left behind.") from error
        raise
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def why_unwritable(path: Path, said: Exception | None = None) -> OSError | None:
    """Why a library could not write a file, which did not raise an OSError: by what it said, else the error that writing on gives."""
    if (found := re.search(r"os error (\d+)", str(said))) and os.name != "nt":  # as Rust says it
        return OSError(int(found[1]), os.strerror(int(found[1])))
    try:
        with open(path, "ab") as file:
            file.write(bytes(1 << 20))
            file.flush()
    except OSError as error:
        return error
    return None


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for temporary files, deleted in the end; those that killed processes left are deleted first."""
    _sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=f".frustum.{_owner()}.", suffix=".tmp") as folder:
        yield Path(folder)


_TEMPORARY = re.compile(r"\..*\.(\d+)@([0-9a-f]{8})\.\w+\.tmp(\.\w+)?")
_OLD = 86_400.0  # seconds after which the owner of a temporary file on another machine counts as dead


def _owner() -> str:
    """Who made a temporary file, for its name: this process and machine."""
    return f"{os.getpid()}@{_machine()}"


@functools.cache
def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


@functools.lru_cache(maxsize=4096)  # once per folder
def _sweep(folder: Path) -> None:
    """Delete temporary files of ours whose owner was killed while it wrote them."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not (found := _TEMPORARY.fullmatch(entry.name)):
                continue
            with contextlib.suppress(OSError):  # gone, or somebody else's
                is_dead = found[2] == _machine() and not is_alive(int(found[1]))
                if not (is_dead or time.time() - entry.stat(follow_symlinks=False).st_mtime > _OLD):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs; where that cannot be asked without harm (Windows), it counts as running."""
    if os.name == "nt" or pid <= 0:
        return pid > 0
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file atomically. Raises OutputError."""
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
    target = Path(target)
    with _draft(target) as empty:
        second = empty.with_name(f"{empty.name[:-4]}2.tmp")  # a link takes no name that is there already
        try:
            os.link(Path(source).resolve(), second)
            os.replace(second, target)
            return
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError):  # two names of one file do not replace each other
                second.unlink()
    copy_file(source, target)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, which is created if needed, but never through a link. Raises OutputError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))
    try:
        handle = os.open(path, flags, 0o666)
        with open(handle, "ab") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.ENXIO, "no file")
            file.write(f"{line}\n".encode())
    except OSError as error:
        raise write_error(path, error) from error


def flush_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power loss, where the operating system lets one do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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


_LONGEST = 1000  # characters of a path
ALSO_READ = "FRUSTUM_ALSO_READ"
"""Environment variable: folders outside a data set to which its links may lead, joined as in PATH."""


def inside(root: Path, path: Path | str) -> Path:
    """A file of the data set `root`, if it lies there, wherever links and `..` lead, or in a folder that the user allows (`ALSO_READ`).

    Text is relative to `root`, a `Path` is that of the file itself.

    Raises:
        DataError: it lies elsewhere. A data set may come from anybody, and what is read of it is shown, copied and trained on.
    """
    if not isinstance(path, str | Path) or "\0" in str(path) or len(str(path)) > _LONGEST:
        raise DataError(f"{str(path)!r:.200} cannot be the name of a file. Restore the tables of {root} from their source.")
    found = path if isinstance(path, Path) else root / path
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
    except (ValueError, RecursionError) as error:
        raise DataError(f"the {what} {path} is not valid JSON ({error}): truncated or damaged? Restore it from its source.") from error


def read_object(path: Path | str, what: str = "file") -> dict[str, Any]:
    """Read a JSON object. Raises DataError as `read_json`, and for JSON of another kind."""
    found = read_json(path, what)
    if not isinstance(found, dict):
        raise DataError(f"the {what} {path} holds a {type(found).__name__}, where a JSON object is needed. Restore it from its source.")
    return found


@functools.cache
def _umask() -> int:
    """The process's umask, read once: reading it means setting it, which other threads would notice."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
