"""Which parts of a long piece of work are done, so that the same command goes on after an interruption."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from frustum.files import append_line, write_bytes


class Unfinished:
    """A hidden file in the output folder with one line per part that is done. It is gone when all of the work is.

    Args:
        folder: where the results go.
        work: one word that is equal only for equal work: results of other work in the same folder do not count.

    Raises:
        DataError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, work: str):
        self.path, self._work = folder / ".unfinished", work
        lines: list[str] = []
        with contextlib.suppress(OSError, UnicodeDecodeError):  # none, or damaged: the work starts at its beginning
            lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]  # without a line that was cut off
        kept = [line for line in lines if line.startswith(f"{work} ")]
        self._done = {part: names for part, *names in (line.removeprefix(f"{work} ").split("\t") for line in kept)}
        if self.path.is_file():  # leaves out other work, and a last line that was cut off
            write_bytes(self.path, "".join(f"{line}\n" for line in kept).encode())

    def __bool__(self) -> bool:
        return bool(self._done)

    def files(self, part: str) -> list[Path] | None:
        """The files that hold `part`; None unless it is done and all of them are there."""
        files = [self.path.with_name(name) for name in self._done.get(part, ())]
        return files if files and all(file.is_file() for file in files) else None

    def add(self, part: str, files: Sequence[Path]) -> None:
        """Call this when everything about `part` is on disk, in these files of the folder."""
        append_line(self.path, "\t".join([f"{self._work} {part}", *(file.name for file in files)]))

    def finish(self) -> None:
        """All of it is done: from now on the same work starts at its beginning."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
