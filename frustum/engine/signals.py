"""SIGTERM and Ctrl-C end training at the next optimiser step, after its state is saved; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Within the context the first signal does not end the program: the yielded list gets its name (`SIGTERM`, `SIGINT`).

    Does nothing outside the main thread.
    """
    received: list[str] = []
    with ExitStack() as previous_handlers:

        def handle(number: int, _: Any) -> None:
            received.append(signal.Signals(number).name)
            previous_handlers.close()

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                previous = signal.signal(number, handle)
                previous_handlers.callback(signal.signal, number, previous if previous is not None else signal.SIG_DFL)
        yield received
