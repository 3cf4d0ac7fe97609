"""Damage every kind of file many times, read it, and count what came of it."""

from __future__ import annotations

import contextlib
import io
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.drill.corpus import Entry
from tests.drill.mutate import BYTES
from tests.drill.outcome import BAD, Outcome, Tried, digest, try_to


@dataclass
class Row:
    """What came of the tries with one kind of file."""

    name: str
    counts: Counter[Outcome] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def add(self, about: str, tried: Tried) -> None:
        """Count one."""
        self.counts[tried.outcome] += 1
        if tried.outcome in BAD:
            self.bad.append(f"{self.name}, {about}: {tried.outcome.value}: {tried.words}")


def fuzz(entry: Entry, folder: Path, tries: int, seed: int = 0, enough: Callable[[], bool] = lambda: False) -> Row:
    """Damage one file after another of one kind, below `folder`, which is created, until there were `tries`, or `enough` says so."""
    row = Row(entry.name)
    folder.mkdir(parents=True)
    entry.make(folder)
    sound = digest(entry.read(folder))
    if entry.sealed == "all":
        assert digest(entry.read(folder)) == sound, f"{entry.name}: reading it twice gives two results"
    files = sorted(path for path in folder.glob(entry.files) if path.is_file())
    assert files, f"{entry.name}: no file is {entry.files}"
    kept = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for number in range(tries):
        if enough():
            break
        rng = np.random.default_rng([seed, zlib.crc32(entry.name.encode()), number])
        path = files[rng.integers(len(files))]
        about, mutation, content = f"seed {seed} try {number}, {path.relative_to(folder)}", None, b""
        original = kept[path.relative_to(folder)]
        for _ in range(20):  # some do not apply to all files, or change nothing
            mutation = entry.mutations[rng.integers(len(entry.mutations))]
            with contextlib.suppress(Exception), _quiet():
                if (content := mutation(rng, original)) != original:
                    break
        assert mutation is not None
        path.write_bytes(content)
        sealed = entry.sealed == "all" or (entry.sealed == "bytes" and mutation in BYTES)
        with _quiet():
            tried = try_to(lambda: entry.read(folder), sound, sealed)
        row.add(f"{about}, {mutation.__name__}", tried)
        _restore(folder, kept)
    return row


def _restore(folder: Path, kept: dict[Path, bytes]) -> None:
    """Put the sound files back, and remove what was made."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder) not in kept:
            path.unlink()
    for name, content in kept.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != len(content) or path.read_bytes() != content:
            if path.is_dir():
                shutil.rmtree(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
