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
from frustum.types.boxes import ATTRIBUTE_OF, LABEL_OF, DetectionBoxes

MAX_BOXES = 500
"""Boxes that one sample of a submission may have."""

MODALITIES: tuple[str, ...] = ("use_camera", "use_lidar", "use_radar", "use_map", "use_external")
"""The flags of `meta`: what a detector was given."""

_WIDTHS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}
_SHAPE = '{"meta": {"use_camera": true, ...}, "results": {sample_token: [box, ...]}}'
_SPACE = re.compile(r"[ \t\n\r]*")
Entry = dict[str, Any]


@dataclass(frozen=True)
class DetectionResults:
    """A submission: the boxes by sample token, in the order of the file, and what the detector was given."""

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
    seen: set[str] = set()
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{{"meta": {json.dumps(flags)}, "results": {{')
        for token, boxes in samples.items() if isinstance(samples, Mapping) else samples:
            if token in seen:
                raise DataError(f"sample {token} is given twice; a submission holds every sample once.")
            file.write(f"{', ' if seen else ''}\n{json.dumps(token)}: {json.dumps(_entries(token, boxes))}")
            seen.add(token)
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
        if name != "velocity" and not np.isfinite(values).all():
            raise DataError(f"sample {token} has a box whose {name} is not finite; it cannot be submitted. Leave such boxes out.")
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
        raise DataError(
            f"{path} is no nuScenes detection submission, or a damaged one: {error}. It must be JSON like {_SHAPE}. Write it again."
        ) from error
    for key in ("results", "meta"):
        if not isinstance(found.get(key), dict):
            raise DataError(f'{path} has no object "{key}", so it is no nuScenes detection submission. It must look like {_SHAPE}.')
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
        raise DataError(
            f"the results file {path} is not JSON: it is not even text. Give the JSON file of a detection submission."
        ) from error


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
                raise ValueError(f"a key that is no text at character {self._at}")
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
        """The next character that is no space, "" at the end; stays before it."""
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _take(self, allowed: str) -> str:
        found = self._next()
        if not found or found not in allowed:
            wanted = " or ".join(repr(c) for c in allowed)
            raise ValueError(f"{wanted} is needed at character {self._at}, where there is {found or 'the end of the file'!r}")
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
        numbers = {name: _numbers([e[name] for e in entries], (len(entries), width), name) for name, width in _WIDTHS.items()}
        scores = _numbers([e["detection_score"] for e in entries], (len(entries),), "detection_score")
        labels = [LABEL_OF[e["detection_name"]] for e in entries]
        attributes = [ATTRIBUTE_OF[e["attribute_name"]] for e in entries]
        if any(e["sample_token"] != token for e in entries):
            raise ValueError
        if numbers["size"].min() <= 0 or not numbers["rotation"].any(1).all():
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise _fault(path, token, entries) from error
    return DetectionBoxes(
        labels=np.array(labels),
        centres=numbers["translation"],
        sizes=numbers["size"][:, [1, 0, 2]],
        rotations=numbers["rotation"],
        velocities=numbers["velocity"],
        attributes=np.array(attributes),
        scores=scores,
        num_points=np.full(len(entries), -1),
    )


def _numbers(values: list[Any], shape: tuple[int, ...], name: str) -> np.ndarray:
    """Values of one field as float64 of this shape. Raises TypeError or ValueError, for text and other values that are not finite too."""
    array = np.array(values)
    if array.dtype.kind == "O" and name == "velocity":
        array = np.array([[np.nan if v is None else v for v in pair] for pair in values])
    if array.dtype.kind not in "fiu" or array.shape != shape or bool in set(map(type, values)):  # numpy takes True among floats for 1
        raise TypeError
    array = array.astype(np.float64)
    if not np.isfinite(array).all() and (name != "velocity" or np.isinf(array).any()):
        raise ValueError
    return array


def _fault(path: Path, token: str, entries: list[Entry]) -> DataError:
    """What is wrong with the first bad box, in words."""
    for i, entry in enumerate(entries):
        where = f"{path}: box {i} of sample {token}"
        for name in ("sample_token", *_WIDTHS, "detection_name", "detection_score", "attribute_name"):
            if name not in entry:
                return DataError(f"{where} has no {name!r}.")
        for names, field, what in ((LABEL_OF, "detection_name", "class"), (ATTRIBUTE_OF, "attribute_name", "attribute")):
            if not isinstance(entry[field], str) or entry[field] not in names:
                hint = nearest_names(str(entry[field]), [n for n in names if n])
                return DataError(f"{where} has the unknown {what} {entry[field]!r}; {hint}")
        if entry["sample_token"] != token:
            return DataError(f"{where} says that it belongs to sample {entry['sample_token']!r}.")
        for name, width in (*_WIDTHS.items(), ("detection_score", 0)):
            try:
                values = _numbers([entry[name]], (1, width) if width else (1,), name)
            except (TypeError, ValueError):
                need = f"a list of {width} numbers" if width else "a number"
                finite = "finite numbers, or NaN where unknown" if name == "velocity" else "finite"
                return DataError(f"{where}: {name!r} must be {need}, {finite}; got {entry[name]!r}.")
            if (name == "size" and values.min() <= 0) or (name == "rotation" and not values.any()):
                return DataError(f"{where}: {name!r} must be {'above 0' if name == 'size' else 'a quaternion'}, got {entry[name]!r}.")
    return DataError(f"{path}: the boxes of sample {token} have numbers of mixed kinds.")
