"""nuScenes' detection submission files: {"meta": {...}, "results": {sample_token: [box, ...]}}, boxes in the global frame.

Sizes in the file are width, length, height. Files of a whole validation set have hundreds of megabytes, so they are read and written one
sample at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frustum.errors import DataError, nearest_names
from frustum.files import atomic_path
from frustum.geometry.plausible import DETECTED
from frustum.types.boxes import ATTRIBUTE_OF, LABEL_OF, DetectionBoxes

MAX_BOXES = 500
"""Boxes that one sample of a submission may have."""

MODALITIES: tuple[str, ...] = ("use_camera", "use_lidar", "use_radar", "use_map", "use_external")
"""The flags of `meta`: what a detector reads."""

_WIDTHS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2, "detection_score": 0}  # 0: a number, not a list
_SHAPE = '{"meta": {"use_camera": true, ...}, "results": {sample_token: [box, ...]}}'
_SPACE = re.compile(r"[ \t\n\r]*")
Entry = dict[str, Any]


@dataclass(frozen=True)
class DetectionResults:
    """A submission: the boxes by sample token, in the order of the file, and what the detector reads."""

    boxes: dict[str, DetectionBoxes]
    meta: dict[str, Any]


def write_detections(
    path: Path | str, samples: Mapping[str, DetectionBoxes] | Iterable[tuple[str, DetectionBoxes]], meta: Mapping[str, bool] | None = None
) -> None:
    """Write a submission that the official evaluation takes.

    Args:
        path: the JSON file.
        samples: boxes by sample token, or pairs; every keyframe of the split must be there, without boxes too.
        meta: flags of MODALITIES that differ from the default, which is cameras and nothing else.

    Raises:
        DataError: an unknown flag, a sample given twice or with more than 500 boxes, a number that is not finite (velocities may be NaN),
            or the file cannot be written.
    """
    flags = dict.fromkeys(MODALITIES, False) | {"use_camera": True}
    for name, value in (meta or {}).items():
        if name not in flags:
            raise DataError(f"meta of a detection submission has no flag {name!r}; {nearest_names(name, flags)}")
        flags[name] = bool(value)
    written: set[str] = set()
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{{"meta": {json.dumps(flags)}, "results": {{')
        for token, boxes in samples.items() if isinstance(samples, Mapping) else samples:
            if token in written:
                raise DataError(f"sample {token} is given twice; a submission holds every sample once.")
            file.write(f"{', ' if written else ''}\n{json.dumps(token)}: {json.dumps(_entries(token, boxes))}")
            written.add(token)
        file.write("}}\n")


def _entries(token: str, boxes: DetectionBoxes) -> list[Entry]:
    """The boxes of one sample as JSON values."""
    _require_few(token, len(boxes))
    columns = {
        "translation": boxes.centres,
        "size": boxes.sizes[:, [1, 0, 2]],
        "rotation": boxes.rotations,
        "velocity": boxes.velocities,
        "detection_score": boxes.scores,
    }
    for name, values in columns.items():
        if not ((np.abs(values) <= DETECTED) | (np.isnan(values) & (name == "velocity"))).all():
            what = "is not finite, or beyond 40,000,000"
            raise DataError(f"sample {token} has a box whose {name} {what}; it cannot be submitted. Leave such boxes out.")
    lists = [values.astype(np.float64).tolist() for values in columns.values()]
    rows = zip(*lists, boxes.names, boxes.attribute_names, strict=True)
    return [{"sample_token": token} | dict(zip([*columns, "detection_name", "attribute_name"], row, strict=True)) for row in rows]


def _require_few(token: str, count: int) -> None:
    if count > MAX_BOXES:
        raise DataError(f"sample {token} has {count} boxes; nuScenes allows {MAX_BOXES} a sample. Keep those with the highest scores.")


def read_detections(path: Path | str) -> DetectionResults:
    """Read and check a submission. Whole numbers are taken for floats, and null in a velocity for an unknown one.

    Raises:
        DataError: no such file, not JSON, not a submission, a sample given twice or with more than 500 boxes, a box with a missing or
            ill-typed field, an unknown class or attribute, or a number that is not finite (velocities may be NaN).
    """
    path = Path(path)
    text = _Text(_read(path))
    boxes: dict[str, DetectionBoxes] = {}
    found: dict[str, Any] = {}
    try:
        for key in text.members():
            if key != "results":
                found[key] = text.value()
                continue
            found[key] = boxes
            for token in text.members():
                if token in boxes:
                    raise DataError(f"{path} holds sample {token} twice; a submission holds every sample once.")
                boxes[token] = _boxes(path, token, text.value())
        text.end()
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a detection submission, or damaged: {error}. Write it again, as JSON like {_SHAPE}.") from error
    for key in ("results", "meta"):
        if not isinstance(found.get(key), dict):
            raise DataError(f'{path} has no object "{key}"; a nuScenes detection submission must look like {_SHAPE}.')
    return DetectionResults(boxes, found["meta"])


def is_detection_file(path: Path) -> bool:
    """Whether a file starts as a JSON object does; False for a folder, or a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    except OSError:
        return False


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"the results file {path} does not exist.") from error
    except OSError as error:
        raise DataError(f"cannot read the results file {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"the results file {path} is not text. Give the JSON file of a detection submission.") from error


class _Text:
    """JSON that is decoded piece by piece, so that a huge object never exists as Python values all at once."""

    def __init__(self, text: str):
        self._text, self._at = text, 0
        self._decode = json.JSONDecoder().raw_decode

    def members(self) -> Iterator[str]:
        """The keys of the object that starts here; read the value after each of them. Raises ValueError where JSON is violated."""
        self._take("{")
        if self._next() == "}":
            self._at += 1
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise ValueError(f"a key is not text at character {self._at}")
            self._take(":")
            yield key
            if self._take(",}") == "}":
                return

    def value(self) -> Any:
        """The value that starts here. Raises ValueError."""
        self._next()
        value, self._at = self._decode(self._text, self._at)
        return value

    def end(self) -> None:
        """Raise ValueError unless nothing follows."""
        if self._next():
            raise ValueError(f"something follows the end of the JSON at character {self._at}")

    def _next(self) -> str:
        """The next character that is not a space, without taking it; "" at the end."""
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _take(self, allowed: str) -> str:
        found = self._next()
        if not found or found not in allowed:
            needed = " or ".join(repr(c) for c in allowed)
            raise ValueError(f"{needed} is needed at character {self._at}, where there is {found or 'the end of the file'!r}")
        self._at += 1
        return found


def _boxes(path: Path, token: str, entries: Any) -> DetectionBoxes:
    """The boxes of one sample, all of them checked."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: the value of sample {token} must be a list of boxes.")
    _require_few(token, len(entries))
    if not entries:
        return DetectionBoxes.empty()
    try:
        return _checked_boxes(token, entries)
    except (KeyError, ValueError):
        for i, entry in enumerate(entries):  # one by one, to name the first bad box
            try:
                _checked_boxes(token, [entry])
            except (KeyError, ValueError) as error:
                words = f" has no {error}." if isinstance(error, KeyError) else str(error)
                raise DataError(f"{path}: box {i} of sample {token}{words}") from error
        raise DataError(f"{path}: the boxes of sample {token} have numbers of mixed kinds.") from None


def _checked_boxes(token: str, entries: list[Entry]) -> DetectionBoxes:
    """The boxes. Raises KeyError for a missing field, and ValueError with words that describe the fault where there is but one box."""
    columns = {name: _numbers(entries, name, width) for name, width in _WIDTHS.items()}
    if any(entry["sample_token"] != token for entry in entries):
        raise ValueError(f" says that it belongs to sample {entries[0]['sample_token']!r}.")
    if columns["size"].min() <= 0:
        raise ValueError(f": 'size' must be above 0, got {entries[0]['size']!r}.")
    if not columns["rotation"].any(1).all():
        raise ValueError(f": 'rotation' must be a quaternion, got {entries[0]['rotation']!r}.")
    return DetectionBoxes(
        labels=_ids(entries, "detection_name", LABEL_OF, "class"),
        centres=columns["translation"],
        sizes=columns["size"][:, [1, 0, 2]],
        rotations=columns["rotation"],
        velocities=columns["velocity"],
        attributes=_ids(entries, "attribute_name", ATTRIBUTE_OF, "attribute"),
        scores=columns["detection_score"],
        num_points=np.full(len(entries), -1),
    )


def _ids(entries: list[Entry], field: str, ids: Mapping[str, int], what: str) -> np.ndarray:
    """Ids (M,) of the names in one field."""
    try:
        return np.array([ids[entry[field]] for entry in entries])
    except (KeyError, TypeError):
        name = entries[0][field]
        raise ValueError(f" has the unknown {what} {name!r}; {nearest_names(str(name), [n for n in ids if n])}") from None


def _numbers(entries: list[Entry], name: str, width: int) -> np.ndarray:
    """One field as float64 (M, width), or (M,) where `width` is 0. Numpy would also take text and bools: they are refused here."""
    values = [entry[name] for entry in entries]
    try:
        array = np.array(values)
        if array.dtype.kind == "O" and name == "velocity":
            array = np.array([[np.nan if v is None else v for v in pair] for pair in values])
    except (TypeError, ValueError):  # lists of different lengths
        array = np.array(None)
    shape = (len(values), width) if width else (len(values),)
    is_number = array.dtype.kind in "fiu" and array.shape == shape and bool not in set(map(type, values))
    if not is_number or not ((np.abs(array) <= DETECTED) | (np.isnan(array) & (name == "velocity"))).all():
        need = f"a list of {width} numbers" if width else "a number"
        finite = f"finite, of at most {DETECTED:,.0f}" + (", or NaN where unknown" if name == "velocity" else "")
        raise ValueError(f": {name!r} must be {need}, {finite}; got {values[0]!r:.200}.")
    return array.astype(np.float64)
