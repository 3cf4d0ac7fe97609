"""SIGTERM and Ctrl-C end training at the next optimiser step, after its state is saved; a second one ends it at once.

Each process of a torchrun hears the same signal twice, if a terminal or a batch system sends it to all: once itself, and once passed on by
torchrun. There one that follows within seconds is no second one.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_ECHO = 5.0  # seconds


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Within the context the first signal does not end the program: the yielded list gets its name (`SIGTERM`, `SIGINT`).

    Does nothing outside the main thread.
    """
    received: list[str] = []
    echo = _ECHO if os.environ.get("WORLD_SIZE", "1") != "1" else 0.0
    with ExitStack() as previous_handlers:
        first = 0.0

        def handle(number: int, _: Any) -> None:
            nonlocal first
            if not received:
                first = time.monotonic()
                received.append(signal.Signals(number).name)
                if not echo:
                    previous_handlers.close()
            elif time.monotonic() - first > echo:
                previous_handlers.close()
                signal.raise_signal(number)

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                previous = signal.signal(number, handle)
                previous_handlers.callback(signal.signal, number, previous if previous is not None else signal.SIG_DFL)
        yield received
