"""SIGTERM and Ctrl-C end training at the next optimiser step, after its state is saved; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Within the context the first signal does not end the program: the yielded list gets its name (`SIGTERM`, `SIGINT`).

    Does nothing outside the main thread.
    """
    received: list[str] = []
    previous: dict[int, Any] = {}

    def restore() -> None:
        while previous:
            number, handler = previous.popitem()
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def handle(number: int, _: Any) -> None:
        received.append(signal.Signals(number).name)
        restore()

    try:
        if threading.current_thread() is threading.main_thread():
            previous.update({number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)})
        yield received
    finally:
        restore()
