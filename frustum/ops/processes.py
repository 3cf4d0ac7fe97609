"""Processes that work for this one: they end when it does, and when one of them is killed, that is said."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, ParamSpec, TypeVar

from frustum.errors import DiedError

P = ParamSpec("P")
R = TypeVar("R")

FILM_ON = "What is filmed is kept: the same command goes on from there; fewer --workers need less memory."

_CAUSES = {
    "SIGKILL": "mostly the system does that when memory runs out; a batch system or another user can",
    "SIGTERM": "somebody, or a batch system, asked it to end",
    "SIGBUS": "mostly shared memory is used up (/dev/shm; docker run --shm-size) or a disk fails",
    "SIGSEGV": "compiled code failed",
    "SIGABRT": "compiled code failed",
    "SIGXCPU": "its limit of computing time was reached (ulimit -t)",
    "SIGXFSZ": "its limit of the size of files was reached (ulimit -f)",
}
_LOADER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?([\d, ]+)\) (?:is killed by signal: ([^.]*)|exited unexpectedly)")
_PEER = re.compile(r"[Cc]onnection (?:was )?(?:closed|reset)|Broken pipe|Timed out waiting|[Ss]ocket [Tt]imeout|remote process")


def end_with_parent() -> None:
    """In a process that `multiprocessing` started: end when the process that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


@contextlib.contextmanager
def worker_pool(workers: int, goes_on: str, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()) -> Iterator[Any]:
    """A pool of fresh processes, which end with this one; what waits in it is dropped in the end.

    Args:
        goes_on: what to do after one was killed, as a sentence.
        start: called first in each process, with `arguments`.

    Raises:
        DiedError: one of them was killed; names the signal and its usual cause.
    """
    context = _Context()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(start, arguments))
    try:
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    except BrokenProcessPool as error:
        signals = [-process.exitcode for process in context.started if process.exitcode and process.exitcode < 0]
        first = next((number for number in signals if number != signal.SIGTERM), next(iter(signals), 0))  # the others are ended by SIGTERM
        raise DiedError(f"a working process was ended from outside{_why(first)}. {goes_on}") from error


class _Context(SpawnContext):
    """Keeps the processes that it starts, for their exit codes."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *arguments: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802  # the name it has there
        self.started.append(SpawnProcess(*arguments, **options))
        return self.started[-1]


def _start(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    if start is not None:
        start(*arguments)


def deaths_explained(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: of a loading process, or of another process of the same training, that ended, torch's error becomes a `DiedError`."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (RuntimeError, ConnectionError) as error:
            if (said := _said(str(error))) is not None:
                raise DiedError(f"{said}. The same command goes on from what was saved.") from error
            raise

    return wrapped


def _said(text: str) -> str | None:
    """What torch's message means, if it is about a process that ended."""
    if found := _LOADER.search(text):
        name = (found[2] or "").strip()
        numbers = {signal.strsignal(number): number for number in signal.valid_signals()}
        why = _why(numbers.get(name, 0)) or ": mostly memory ran out"
        return f"a loading process ({found[1].strip()}) was ended from outside{why}. With train.num_workers=0 there are none"
    if os.environ.get("WORLD_SIZE", "1") != "1" and _PEER.search(text):
        cause = f"if it printed none, it was ended from outside ({_CAUSES['SIGKILL']})"
        return f"another process of this command ended, so this one cannot go on: see the message of that one; {cause}"
    return None


def _why(number: int) -> str:
    """` by SIGKILL: usual cause`; empty for 0."""
    if not number:
        return ""
    name = signal.Signals(number).name if number in signal.valid_signals() else str(number)
    return f" by {name}" + (f": {_CAUSES[name]}" if name in _CAUSES else "")
