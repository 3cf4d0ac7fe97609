"""One owner of an output folder: results of two processes that write into one folder would be mixed.

The owner holds a lock of the operating system on a hidden file in the folder, which ends with the process, however it ends. What the file
says (who, since when) is for the message that the second one gets. On a file system without locks that is what decides.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import json
import os
import platform
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from frustum.errors import OutputError
from frustum.files import is_alive, make_folder, write_error

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

P = ParamSpec("P")
R = TypeVar("R")

LOCK = ".frustum-lock"
_FLAGS = os.O_RDWR | os.O_CREAT | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_FAR = 1 << 30  # the byte that is locked on Windows, where a locked byte cannot be read: far behind the text
_held: dict[str, tuple[int, str]] = {}  # lock files of this process: the thread that holds each, and its work


def is_first_process() -> bool:
    """False in all processes of a torchrun or `accelerate launch` but one."""
    return os.environ.get("RANK", "0") == "0"


def owning(parameter: str, work: str, advice: str = "with --out FOLDER") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: the function is the `sole_owner` of the folder that its argument `parameter` names (nobody's if None), while it works."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            folder = signature.bind(*args, **kwargs).arguments.get(parameter)
            with sole_owner(folder, work, advice) if folder is not None else contextlib.nullcontext():
                return function(*args, **kwargs)

        return wrapped

    return decorate


@contextlib.contextmanager
def sole_owner(folder: Path | str, work: str, advice: str = "with --out FOLDER", file: str = LOCK) -> Iterator[None]:
    """Within the context no other process of ours, and no other thread, works in a folder. The same thread may enter it again.

    The processes of one training are one owner: the first of them.

    Args:
        folder: created if needed, and deleted again if it is still empty in the end.
        work: what is done there, for the message to others, as `frustum train`.
        advice: how another folder is chosen.
        file: the hidden file that is locked; one of another name owns something of its own in the folder.

    Raises:
        OutputError: another process works there, or the folder cannot be written to.
    """
    if not is_first_process():
        yield
        return
    folder = Path(folder)
    is_new = not folder.exists()
    path = make_folder(folder) / file
    key = os.path.realpath(path)
    thread, other = _held.get(key, (0, ""))
    if thread == threading.get_ident():
        yield
        return
    if thread:
        raise _in_use(folder, {"work": f"{other}, in another thread of this program,"}, advice)
    try:
        handle = _take(path, work, advice)
    except OSError as error:
        raise write_error(path, error) from error
    _held[key] = threading.get_ident(), work
    try:
        yield
    finally:
        del _held[key]
        with contextlib.suppress(OSError):
            if sys.platform == "win32":  # an open file cannot be deleted there, and elsewhere nobody may take it before it is gone
                os.close(handle)
                os.unlink(path)
            else:
                os.unlink(path)
                os.close(handle)
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _take(path: Path, work: str, advice: str) -> int:
    """An open handle of the lock file, locked, with this process's name in it."""
    while True:
        handle = os.open(path, _FLAGS, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.ENXIO, "no file")
            owner, is_free = _owner(handle), _lock(handle)
            if is_free is None:
                is_free = not owner or (owner.get("host") == platform.node() and not is_alive(int(owner.get("pid", 0))))
                advice += f" (or, if that process is gone, delete {path})" if not is_free else ""
            if not is_free:
                raise _in_use(path.parent, owner, advice)
            if _is_same(path, handle):  # else its owner deleted it since it was opened
                about = {"work": work, "pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
                os.ftruncate(handle, 0)
                os.lseek(handle, 0, os.SEEK_SET)
                os.write(handle, json.dumps(about).encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int) -> bool | None:
    """Whether the lock was free, and is now held; None where the file system has no locks."""
    try:
        if sys.platform == "win32":
            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:  # not flock: that lock would live on in forked loading processes
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK) else None
    return True


def _is_same(path: Path, handle: int) -> bool:
    """Whether the open file still has this name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _owner(handle: int) -> dict[str, Any]:
    """What the owner wrote; empty where nothing readable is there."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        os.lseek(handle, 0, os.SEEK_SET)
        found = json.loads(os.read(handle, 4096))
        if isinstance(found, dict) and isinstance(found.get("pid"), int):
            return found
    return {}


def _in_use(folder: Path, owner: dict[str, Any], advice: str) -> OutputError:
    name = str(owner.get("work", "another process of frustum"))[:80]
    since = f" since {str(owner['since'])[:40]}" if "since" in owner else ""
    host = str(owner.get("host", ""))[:80]
    who = f" (process {owner['pid']}{f' on {host}' if host != platform.node() else ''})" if "pid" in owner else ""
    stop = f", stop it (kill {owner['pid']})" if "pid" in owner else ""
    return OutputError(
        f"{folder} is in use: {name} works there{since}{who}, and results of two would be mixed. "
        f"Wait until it is done{stop}, or choose another folder {advice}."
    )
