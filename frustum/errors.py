"""The errors that frustum raises on purpose.

Each one carries a sentence a user can act on: what was given, what is needed, and what to type next. The command line prints it
as one paragraph and exits with the class's code; everything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FrustumError(Exception):
    """Base of all expected errors. `exit_code` is what the command line returns."""

    exit_code = 1


class ConfigError(FrustumError):
    """A recipe, an override or an argument does not make sense."""

    exit_code = 2


class DataError(FrustumError):
    """A data set, a file of it, or an output folder cannot be used."""

    exit_code = 3


class OutputError(DataError):
    """A file or folder cannot be written: the disk is full or read-only, or another process works there."""


class CheckpointError(FrustumError):
    """A checkpoint is missing, unsafe, damaged, or belongs to another model."""

    exit_code = 4


class ShapeError(FrustumError, ValueError):
    """A tensor has another shape than the function needs."""

    exit_code = 5


class TrainingError(FrustumError):
    """Training cannot go on: a non-finite loss, or a world that changed under a resumed run."""

    exit_code = 7


class DiedError(FrustumError):
    """A process that worked for this one, or together with it, was ended from outside: the same command goes on."""

    exit_code = 8


class StoppedError(FrustumError):
    """Training was stopped by SIGTERM or SIGINT after saving its state: the same command goes on from there (EX_TEMPFAIL)."""

    exit_code = 75


class FrustumWarning(UserWarning):
    """What was done as asked, or taken for granted, and may surprise: the command line prints it as a note."""


def nearest_names(name: str, known: Iterable[str], most: int = 3) -> str:
    """A hint for a misspelt `name`: `did you mean 'a' or 'b'?`, else the list of what is known. One sentence."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=most, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"known: {shown}."
