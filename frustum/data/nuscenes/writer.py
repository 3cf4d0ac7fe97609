"""Write a nuScenes database: scenes one by one, from any number of processes, then merge them into the 13 tables.

Each scene becomes one part file, `<root>/<version>/parts/<scene>.json.gz`, which appears at once and whole. So an interrupted job goes
on where it was (`has_scene`), and `finish` gives the same bytes in any order and with any number of workers. Images, sweeps and labels
are the caller's: write them (atomically, `files.atomic_path`) before `add_scene`.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frustum.data.nuscenes.records import SceneRecord, token
from frustum.data.nuscenes.scene_rows import Row, scene_rows
from frustum.data.nuscenes.splits import custom_splits, merged_splits
from frustum.data.nuscenes.tables import MAP_FILES, OPTIONAL_TABLES, TABLES, VISIBILITY
from frustum.errors import DataError, nearest_names
from frustum.files import atomic_path, make_folder, write_bytes, write_error
from frustum.types.classes import ATTRIBUTES, OCC3D_OF_CATEGORY

_FORMAT = 1
_ASIDE = ".aside"  # suffix of the parts that were taken out of the database


class DatabaseWriter:
    """Writer of one database `<root>/<version>/`.

    Args:
        root: data root; created if needed.
        version: name of the folder with the tables. The devkit needs it to end in mini, trainval or test for its predefined splits.

    Raises:
        DataError: the folder cannot be written.
    """

    def __init__(self, root: Path | str, version: str = "v1.0-trainval") -> None:
        self.root = Path(root)
        self.folder = make_folder(self.root / version)
        self.parts = make_folder(self.folder / "parts")

    def has_scene(self, name: str, fingerprint: str | None = None) -> bool:
        """Whether the scene was added and its part is sound; with `fingerprint`, also whether it was made with the same one."""
        path = self._part(name)
        with contextlib.suppress(DataError):
            return path.is_file() and fingerprint in (None, self._read_part(path)["fingerprint"])
        return False

    def add_scene(self, scene: SceneRecord) -> None:
        """Add a scene, or replace the one of that name. Safe to call from several processes for different scenes.

        Raises:
            DataError: the record is inconsistent, a file that it names does not exist, or the part cannot be written.
        """
        rows = scene_rows(scene)
        for row in rows["sample_data"] + rows["lidarseg"] + rows["panoptic"]:
            if not (self.root / row["filename"]).is_file():
                raise DataError(f"scene {scene.name} names {row['filename']}, missing below {self.root}. Write files before add_scene.")
        part = {"format": _FORMAT, "name": scene.name, "fingerprint": scene.fingerprint, "location": scene.location, "rows": rows}
        write_bytes(self._part(scene.name), gzip.compress(json.dumps(part).encode(), compresslevel=4, mtime=0))

    def scenes(self) -> list[str]:
        """Names of the scenes added so far."""
        return sorted(p.name.removesuffix(".json.gz") for p in self.parts.glob("*.json.gz"))

    def fingerprints(self) -> set[tuple[str, str]]:
        """Name and fingerprint of every scene, of those that were set aside too; damaged parts are left out."""
        found = set()
        for path in self.parts.glob("*.json.gz*"):
            with contextlib.suppress(DataError):
                part = self._read_part(path)
                found.add((part["name"], part["fingerprint"]))
        return found

    def span(self, name: str) -> tuple[int, int]:
        """Timestamps of the first and the last keyframe of an added scene, microseconds. Raises DataError when its part is damaged."""
        times = [row["timestamp"] for row in self._read_part(self._part(name))["rows"]["sample"]]
        return min(times), max(times)

    def prepare(self, starts: Mapping[str, int]) -> None:
        """Check, before the work, that scenes can join the database: `starts` maps their names to the timestamps of their first keyframes.

        Raises:
            DataError: two of them, or one of them and another scene of the database, start together; or splits.json is malformed.
        """
        custom_splits(self.folder)
        others = {name: self.span(name)[0] for name in self.scenes() if name not in starts}
        _check_starts([*others.items(), *starts.items()])

    def set_aside(self, name: str) -> None:
        """Take a scene out of the database: the next `finish` leaves it out. Its files and its part, renamed, stay for `take_back`."""
        self._rename(name, "", _ASIDE)

    def take_back(self, name: str) -> None:
        """Undo `set_aside`, if the scene was set aside and was not added anew since."""
        if Path(f"{self._part(name)}{_ASIDE}").is_file() and not self._part(name).is_file():
            self._rename(name, _ASIDE, "")

    def _rename(self, name: str, old: str, new: str) -> None:
        """Exchange what follows the name of a part file."""
        try:
            os.replace(f"{self._part(name)}{old}", f"{self._part(name)}{new}")
        except OSError as error:
            raise write_error(self._part(name), error) from error

    def finish(self, splits: Mapping[str, Sequence[str]], maps: Mapping[str, np.ndarray] | None = None, keep_splits: bool = False) -> None:
        """Merge all parts into the tables, and write splits.json and the map masks. May be called again after more scenes.

        Args:
            splits: scene names by split, for splits.json in the version folder.
            maps: per location the map mask, (rows, columns) uint8, 255 = drivable, 0.1 m a pixel, row 0 = north; blank if not given.
            keep_splits: add to the splits that are there already, instead of replacing them.

        Raises:
            DataError: there is no scene, a split names an unknown scene, a part is damaged, or the disk is full or read-only. The old
                tables stay as they were.
        """
        names = self.scenes()
        if not names:
            raise DataError(f"there is no scene in {self.parts}; call add_scene first.")
        for split, members in splits.items():
            if unknown := next((name for name in members if name not in names), None):
                raise DataError(f"the split {split!r} names the scene {unknown!r}, which was not added; {nearest_names(unknown, names)}")
        if keep_splits:
            splits = merged_splits(custom_splits(self.folder), splits, names)
        parts = [self._read_part(self._part(name)) for name in names]
        tables = _merge(parts)
        times = {row["token"]: row["timestamp"] for row in tables["sample"]}
        _check_starts([(scene["name"], times[scene["first_sample_token"]]) for scene in tables["scene"]])
        for location in sorted({part["location"] for part in parts}):
            self._write_map(location, (maps or {}).get(location))
            logs = [log["token"] for log in tables["log"] if log["location"] == location]
            tables["map"].append(
                {"token": token("map", location), "log_tokens": logs, "category": "semantic_prior", "filename": map_file(location)}
            )
        with contextlib.ExitStack() as stack:  # all temporary files first; they take their places together at the end
            for name in (*TABLES, *(t for t in OPTIONAL_TABLES if tables[t])):
                path = stack.enter_context(atomic_path(self.folder / f"{name}.json"))
                path.write_text("[\n" + ",\n".join(map(json.dumps, tables[name])) + "\n]\n", encoding="utf-8")
            path = stack.enter_context(atomic_path(self.folder / "splits.json"))
            path.write_text(json.dumps({k: list(v) for k, v in splits.items()}, indent=1), encoding="utf-8")
        for name in OPTIONAL_TABLES:
            if not tables[name]:
                with contextlib.suppress(OSError):
                    (self.folder / f"{name}.json").unlink(missing_ok=True)

    def _write_map(self, location: str, mask: np.ndarray | None) -> None:
        path = self.root / map_file(location)
        if mask is None and path.is_file():
            return
        image = Image.fromarray(np.zeros((64, 64), np.uint8) if mask is None else np.asarray(mask, np.uint8))
        with atomic_path(path) as temporary:
            image.save(temporary, format="PNG", optimize=False)

    def _part(self, name: str) -> Path:
        if not name or name != Path(name).name or name.startswith("."):
            raise DataError(f"the scene name {name!r} cannot be a file name; use letters, digits and hyphens, as in scene-0001.")
        return self.parts / f"{name}.json.gz"

    def _read_part(self, path: Path) -> dict[str, Any]:
        try:
            part = json.loads(gzip.decompress(path.read_bytes()))
        except (ValueError, EOFError, RecursionError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"the part file {path} is damaged ({error}). Delete it and generate that scene again.") from error
        except OSError as error:
            raise write_error(path, error) from error
        if not isinstance(part, dict) or part.get("format") != _FORMAT:
            raise DataError(f"the part file {path} was written by another version of frustum. Delete it and generate that scene again.")
        return part


def map_file(location: str) -> str:
    """Relative path of the map mask of a location: the official name where there is one."""
    return MAP_FILES.get(location, f"maps/{token('map mask', location)}.png")


def _check_starts(starts: Sequence[tuple[str, int]]) -> None:
    """The devkit sorts scenes by start time and fails on equal ones."""
    name_of: dict[int, str] = {}
    for name, start in starts:
        if start in name_of:
            raise DataError(
                f"scenes {name_of[start]} and {name} start together at {start}; shift one of them in time, or give it another folder."
            )
        name_of[start] = name


def _merge(parts: list[dict[str, Any]]) -> dict[str, list[Row]]:
    """All tables but `map`; shared records (logs, sensors) once."""
    tables: dict[str, list[Row]] = {name: [] for name in (*TABLES, *OPTIONAL_TABLES)}
    shared: dict[str, dict[str, Row]] = {"log": {}, "sensor": {}}
    for part in parts:
        for name, rows in part["rows"].items():
            if name not in shared:
                tables[name] += rows
                continue
            for row in rows:
                if shared[name].setdefault(row["token"], row) != row:
                    raise DataError(f"scene {part['name']} and another one disagree about the {name} {row}; give them different names.")
    tables["log"] = sorted(shared["log"].values(), key=lambda row: row["logfile"])
    tables["sensor"] = sorted(shared["sensor"].values(), key=lambda row: row["channel"])
    tables["category"] = [
        {"token": token("category", name), "name": name, "description": "", "index": i} for i, name in enumerate(OCC3D_OF_CATEGORY)
    ]
    tables["attribute"] = [{"token": token("attribute", name), "name": name, "description": ""} for name in ATTRIBUTES]
    tables["visibility"] = [
        {"token": key, "level": level, "description": f"visibility of whole object is between {level[1:].replace('-', ' and ')}%"}
        for key, level in VISIBILITY
    ]
    return tables
