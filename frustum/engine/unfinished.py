"""Which parts of a long piece of work are done, so that the same command goes on after an interruption."""

from __future__ import annotations

import contextlib
from pathlib import Path

from frustum.files import write_bytes, write_error


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
        found = self._lines()
        kept = [line for line in found if line.startswith(f"{work} ")]
        self._done = set(kept)
        if found:  # leaves out other work, and a last line that was cut off
            write_bytes(self.path, "".join(f"{line}\n" for line in kept).encode())

    def __contains__(self, part: str) -> bool:
        return f"{self._work} {part}" in self._done

    def __bool__(self) -> bool:
        return bool(self._done)

    def add(self, part: str) -> None:
        """Call this when everything about `part` is on disk."""
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(f"{self._work} {part}\n")
        except OSError as error:
            raise write_error(self.path, error) from error

    def finish(self) -> None:
        """All of it is done: from now on the same work starts at its beginning."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return []  # none, or damaged: the work starts at its beginning
