"""Which images of several cameras belong to one moment: numbers in file names sort as numbers, and cameras must number alike."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from frustum.errors import DataError, FrustumWarning

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")


def natural_key(name: str) -> list[Any]:
    """Sorts names with their numbers as numbers: 2 before 10, and 9.5 before 10.25. Names without their suffix."""
    parts = _NUMBER.split(name)  # text and numbers take turns
    return [Decimal(part) if i % 2 else part for i, part in enumerate(parts)]


def in_number_order(files: Iterable[Path], folder: Path, what: str) -> tuple[Path, ...]:
    """Files below `folder` by their numbers. Warns where the order of text is another."""

    def name(file: Path) -> str:
        return file.relative_to(folder).with_suffix("").as_posix()

    by_text = sorted(files)
    by_number = sorted(by_text, key=lambda file: natural_key(name(file)))
    if differing := next(((a, b) for a, b in zip(by_number, by_text, strict=True) if a != b), None):
        warnings.warn(
            f"the images of {what} are in the order of their numbers, {differing[0].name} before {differing[1].name}; sorted as text they "
            'are in another one. Is that right? Else list them in "images".',
            FrustumWarning,
            stacklevel=2,
        )
    return tuple(by_number)


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
        warnings.warn(
            f"the cameras of {path} number their images differently; they are paired by order, {pair}. If these are not of one moment, "
            f"{advice}.",
            FrustumWarning,
            stacklevel=2,
        )
        return


def _moving_numbers(files: Sequence[Path]) -> list[tuple[Decimal, ...]]:
    """Of each file name the numbers that change from file to file: not those of the camera or the recording."""
    found = [tuple(Decimal(number) for number in _NUMBER.findall(file.stem)) for file in files]
    if len({len(numbers) for numbers in found}) > 1:
        return found
    moving = [i for i, column in enumerate(zip(*found, strict=True)) if len(set(column)) > 1]
    return [tuple(numbers[i] for i in moving) for numbers in found]
