"""Progress with rate and time left: a bar on a terminal, now and then a plain line elsewhere, nothing when switched off."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


class Reporter:
    """Counts up to `total`; `advance()` and `note()` are cheap enough for every step."""

    def __init__(self, title: str, total: int, done: int, bar: Progress | None, lines: bool, unit: str, every: float):
        self.title, self.total, self.done, self.unit = title, total, done, unit
        self._first, self._bar, self._lines, self._every = done, bar, lines, every
        self._start = self._last = time.monotonic()
        self._task = bar.add_task(title, total=total, completed=done, rate="", note="") if bar else None

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self.done - self._first) / max(1e-9, time.monotonic() - self._start)

    def already(self, count: int) -> None:
        """`count` units were done by an earlier process: the rate is measured from here on."""
        self.done = self._first = count
        self._start = self._last = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.reset(self._task, completed=count)

    def advance(self, note: str = "", count: int = 1) -> None:
        """`count` more are done; `note` is shown after them."""
        self.done += count
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, rate=pace(self.rate, self.unit), note=note)
        elif self._lines and (now - self._last >= self._every or self.done >= self.total):
            self._last = now
            text = f"{self.title}: {self.done}/{self.total}, {pace(self.rate, self.unit)}"
            if self.done - self._first > 1 or self.done >= self.total:  # the first one alone has all that is done once in its time
                text += f", {_clock((self.total - self.done) / max(1e-9, self.rate))} left"
            print(f"{text}, {note}" if note else text, flush=True)

    def note(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        elif self._lines:
            print(text, flush=True)


@contextmanager
def progress_bar(
    title: str, total: int, *, done: int = 0, show: bool = True, unit: str = "steps", every: float = 10.0
) -> Iterator[Reporter]:
    """A `Reporter` for one loop; `every` is the number of seconds between plain lines where there is no terminal."""
    if not show or not sys.stdout.isatty():
        yield Reporter(title, total, done, None, show, unit, every)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(), refresh_per_second=4) as bar:
        yield Reporter(title, total, done, bar, True, unit, every)


def loop_progress(title: str, items: Sequence[T]) -> Iterator[T]:
    """Yield the items behind a progress bar."""
    with progress_bar(title, len(items), unit="frames") as bar:
        for item in items:
            yield item
            bar.advance()


def pace(rate: float, unit: str = "steps", digits: int = 2) -> str:
    """A number of `unit` (a plural) per second in words; slower than one in ten seconds as seconds for one of them: `25 s per step`."""
    if rate >= 0.1:
        return f"{rate:.{digits}f} {unit}/s"
    one = unit.removesuffix("s")
    return f"{1 / rate:.0f} s per {one}" if rate > 0 else f"no {one} yet"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
