"""Which images of several cameras belong to one moment: numbers in file names sort as numbers, and cameras must number alike."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from frustum.errors import DataError, FrustumWarning

_NUMBER = re.compile(r"((?:(?<![^/])-)?\d+(?:\.\d+)?)")  # a minus only where a name begins
_FRACTION = re.compile(r"\d+\.(\d+)")


def natural_key(name: str) -> list[Any]:
    """Sorts names with their numbers as numbers: 2 before 10, and 9.5 before 10.25. Names without their suffix."""
    parts = _NUMBER.split(name)  # text and numbers take turns
    return [Decimal(part) if i % 2 else part for i, part in enumerate(parts)]


def in_number_order(files: Iterable[Path], folder: Path, what: str) -> tuple[Path, ...]:
    """Files below `folder` by their numbers. Warns where the order of text is another, and of numbers that can be read in two ways."""

    def name(file: Path) -> str:
        return file.relative_to(folder).with_suffix("").as_posix()

    by_text = sorted(files)
    by_number = sorted(by_text, key=lambda file: natural_key(name(file)))
    names = [name(file) for file in by_number]
    if differing := next(((a, b) for a, b in zip(by_number, by_text, strict=True) if a != b), None):
        _warn(
            f"the images of {what} are in the order of their numbers, {differing[0].name} before {differing[1].name}; sorted as text they "
            'are in another one. Is that right? Else list them in "images".'
        )
    elif descent := next(((a, b) for a, b in pairwise(names) if _in_one_place(a, b) and _numbers(a) > _numbers(b)), None):
        _warn(
            f"the images of {what} are in the order of their names, {descent[0]} before {descent[1]}. If it is wrong, list them in "
            '"images".'
        )
    if uneven := next(((a, b) for a, b in pairwise(names) if _has_uneven_fractions(a, b)), None):
        _warn(
            f"the images of {what} have decimal numbers in their names, and {uneven[0]} is sorted before {uneven[1]}. If what follows the "
            'point is a count of its own (nanoseconds without leading zeros), that is wrong: list them in "images".'
        )
    return tuple(by_number)


def note_listed_order(files: Sequence[Path], what: str) -> None:
    """Warn of files that are listed in the order of text, where that is not the order of their numbers: as `sorted` lists them."""
    listed = [file.with_suffix("").as_posix() for file in files]
    by_number = sorted(listed, key=natural_key)
    if listed == sorted(listed) != by_number:
        at = next(i for i, (a, b) in enumerate(zip(listed, by_number, strict=True)) if a != b)
        _warn(
            f"the images of {what} are listed, and taken, in the order of text, {Path(listed[at]).name} before {Path(by_number[at]).name}. "
            "By their numbers it is another: is the list right?"
        )


def require_one_numbering(files: Mapping[str, Sequence[Path]], path: Path) -> None:
    """Check that the k-th images of all cameras bear the same numbers.

    Args:
        files: of each camera, in their order.
        path: calibration.json, for messages.

    Raises:
        DataError: two cameras share numbers, but not in the same places, so that images of different moments would be paired. Where they
            share none, as with time stamps of their own, a warning says that they are paired by their order.
    """
    numbers = {camera: _moving_numbers(named) for camera, named in files.items()}
    first, *others = numbers
    for camera in others:
        ours, theirs = numbers[first], numbers[camera]
        k = next((k for k, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), None)
        if k is None:
            continue
        pair = f"{files[first][k].name} of {first} with {files[camera][k].name} of {camera}"
        advice = 'list the images moment by moment under "frames", or name those of one moment alike'
        if set(ours) & set(theirs):
            raise DataError(
                f"the cameras of {path} number their images differently: pairing by order joins {pair}. Is an image missing? "
                f"{advice[0].upper()}{advice[1:]}."
            )
        if (drift := _drift(ours, theirs)) is not None:
            k, far, near = drift
            raise DataError(
                f"the cameras of {path} number their images differently: pairing by order joins {files[first][k].name} of {first} with "
                f"{files[camera][k].name} of {camera}, which are {far} apart, and others {near}. Is an image missing? "
                f"{advice[0].upper()}{advice[1:]}."
            )
        _warn(
            f"the cameras of {path} number their images differently; they are paired by order, {pair}. If these are not of one moment, "
            f"{advice}."
        )
        return


def _moving_numbers(files: Sequence[Path]) -> list[tuple[Decimal, ...]]:
    """Of each file name the numbers that change from file to file: not those of the camera or the recording."""
    found = [tuple(Decimal(number) for number in _NUMBER.findall(file.stem)) for file in files]
    if len({len(numbers) for numbers in found}) > 1:
        return found
    moving = [i for i, column in enumerate(zip(*found, strict=True)) if len(set(column)) > 1]
    return [tuple(numbers[i] for i in moving) for numbers in found]


def _drift(ours: Sequence[tuple[Decimal, ...]], theirs: Sequence[tuple[Decimal, ...]]) -> tuple[int, Decimal, Decimal] | None:
    """Where the numbers of two cameras that count alike, such as time stamps, move apart by more than half of a step.

    The position of the pair, how far its numbers are apart, and how far those of the first pair are; None where nothing moves, or the
    cameras do not count alike.
    """
    if len(ours) < 2 or any(len(numbers) != 1 for numbers in (*ours, *theirs)):
        return None
    steps = [sorted(b[0] - a[0] for a, b in pairwise(numbers))[len(numbers) // 2 - 1] for numbers in (ours, theirs)]
    if min(steps) <= 0 or max(steps) > min(steps) * Decimal("1.2"):
        return None
    apart = [b[0] - a[0] for a, b in zip(ours, theirs, strict=True)]
    k = next((k for k, distance in enumerate(apart) if abs(distance - apart[0]) > steps[0] / 2), None)
    return None if k is None else (k, apart[k], apart[0])


def _numbers(name: str) -> list[Decimal]:
    return [Decimal(number) for number in _NUMBER.findall(name)]


def _in_one_place(one: str, other: str) -> bool:
    """Whether two names lie in one folder and have one number each, so that these alone could order them."""
    return Path(one).parent == Path(other).parent and len(_NUMBER.findall(Path(one).name)) == len(_NUMBER.findall(Path(other).name)) == 1


def _has_uneven_fractions(one: str, other: str) -> bool:
    """Whether the fractions of two names' numbers, read as whole numbers, are in the other order, with the same whole part before them."""
    pairs = zip(_FRACTION.finditer(one), _FRACTION.finditer(other), strict=False)
    return any(one[: a.start(1)] == other[: b.start(1)] and int(a[1]) > int(b[1]) for a, b in pairs)


def _warn(text: str) -> None:
    warnings.warn(text, FrustumWarning, stacklevel=3)
