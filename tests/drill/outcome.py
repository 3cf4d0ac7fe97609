"""What came of one try: a damaged file that was read, or a command that was disturbed."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frustum.errors import FrustumError

SECONDS = 5  # of the processor that a try takes, after which it hangs; a sound file is read within one
WAITING = 60  # seconds after which it hangs although it does nothing
BYTES = 512 << 20  # that a try may add to the memory of the process
LARGEST = 1e9  # of a number that came out of a file: all bounds of the package are lower, and times are seconds since 1970 (1.6e9)
_DATES = 9.1e9  # seconds since 1970 in the year 2258: what `TIME_LIMIT` microseconds are


class Outcome(Enum):
    """The last four are what the drill looks for."""

    REFUSED = "refused"  # with an error of ours
    SAME = "same"  # read, and nothing that matters is different
    OTHER = "other"  # read as something else that can be: nobody can tell it from a sound file
    SILENT = "silently wrong"  # read as something else although the file holds checksums, or as numbers that cannot be
    TRACEBACK = "traceback"  # an error that is not ours
    MEMORY = "memory"
    HANG = "hang"


BAD = (Outcome.SILENT, Outcome.TRACEBACK, Outcome.MEMORY, Outcome.HANG)


@dataclass(frozen=True)
class Tried:
    """One try: what came of it, and the error or what was wrong in words."""

    outcome: Outcome
    words: str = ""


class HangError(Exception):
    """Raised within a try that takes too long."""


def try_to(read: Callable[[], Any], sound: str, sealed: bool) -> Tried:
    """Read, and say what came of it.

    Args:
        read: returns what was read: arrays, numbers, texts, and containers and data classes of them.
        sound: digest of what it returns for the sound file.
        sealed: whether the file holds checksums, so that anything but the same result or an error is wrong.
    """
    before = peak_memory()
    try:
        with _limits(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read()
            if digest(found) == sound:
                tried = Tried(Outcome.SAME)
            elif sealed:
                tried = Tried(Outcome.SILENT, "another result from a file with checksums")
            else:
                wrong = next(impossible(found), "")
                tried = Tried(Outcome.SILENT if wrong else Outcome.OTHER, wrong)
    except FrustumError as error:
        tried = Tried(Outcome.REFUSED, str(error))
    except HangError:
        tried = Tried(Outcome.HANG)
    except MemoryError:
        tried = Tried(Outcome.MEMORY)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        where = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in where if "frustum" in frame.filename]
        tried = Tried(Outcome.TRACEBACK, f"{type(error).__name__}: {error!s:.200} at {' '.join(ours[-3:])}")
    gc.collect(0)
    if peak_memory() - before > BYTES:
        return Tried(Outcome.MEMORY, f"{(peak_memory() - before) >> 20} MiB more; {tried.outcome.value} {tried.words:.200}")
    return tried


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes; 0 where that cannot be asked."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """A limit of time, where there are such signals: `HangError` is raised in the main thread."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise HangError

    clocks = ((signal.ITIMER_PROF, signal.SIGPROF, SECONDS), (signal.ITIMER_REAL, signal.SIGALRM, WAITING))
    before = [signal.signal(number, stop) for _, number, _ in clocks]
    try:
        for clock, _, seconds in clocks:
            signal.setitimer(clock, seconds)
        yield
    finally:
        for (clock, number, _), handler in zip(clocks, before, strict=True):
            signal.setitimer(clock, 0)
            signal.signal(number, handler)


def digest(value: Any) -> str:
    """Equal for equal results, wherever their files lie."""
    total = hashlib.sha256()
    for path, leaf in leaves(value):
        content = leaf.tobytes() if isinstance(leaf, np.ndarray) else repr(leaf).encode()
        about = f"{leaf.dtype} {leaf.shape}" if isinstance(leaf, np.ndarray) else type(leaf).__name__
        total.update(f"{path} {about} ".encode() + content)
    return total.hexdigest()


def impossible(value: Any) -> Iterator[str]:
    """Numbers in a result that nothing measures: beyond `LARGEST`, NaN and infinity; an unknown velocity may be NaN."""
    for path, leaf in leaves(value):
        if not isinstance(leaf, float) and not (isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f"):
            continue
        numbers = np.asarray(leaf)
        if path.endswith(".boxes") and numbers.ndim == 2 and numbers.shape[1] == 9:
            numbers = np.where(np.isnan(numbers) & (np.arange(9) > 6), 0, numbers)
        limit = _DATES if "time" in path else LARGEST
        if not (np.abs(numbers[~np.isnan(numbers)] if "velocit" in path else numbers) <= limit).all():
            yield f"{path} holds numbers that cannot be"


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays, numbers and texts in a result, with the way to each; files by their names."""
    if isinstance(value, torch.Tensor):
        yield path, value.detach().float().numpy() if value.dtype == torch.bfloat16 else value.detach().numpy()
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from leaves(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from leaves(value[key], f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, entry in enumerate(value):
            yield from leaves(entry, f"{path}.{number}" if len(value) < 64 else path)
    elif isinstance(value, os.PathLike):
        yield path, Path(value).name
    else:
        yield path, value
