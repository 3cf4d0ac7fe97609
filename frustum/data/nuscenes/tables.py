"""The JSON tables of a nuScenes database: where they are, how one is loaded, and what to say when that fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frustum.errors import DataError, FrustumError, nearest_names
from frustum.files import inside, read_json

TABLES: tuple[str, ...] = (
    "attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample", "sample_annotation",
    "sample_data", "scene", "sensor", "visibility",
)  # fmt: skip
"""The 13 mandatory tables."""

OPTIONAL_TABLES: tuple[str, ...] = ("lidarseg", "panoptic")

TIME_LIMIT = 2**53
"""Timestamps are microseconds from 0 to here, the year 2255: what a float of seconds holds to the microsecond."""


VISIBILITY: tuple[tuple[str, str], ...] = (("1", "v0-40"), ("2", "v40-60"), ("3", "v60-80"), ("4", "v80-100"))
"""Tokens and levels. The tokens are these literal digits: bird's-eye-view code calls int() on them."""

MAP_FILES: dict[str, str] = {
    "boston-seaport": "maps/36092f0b03a857c6a3403e25b4b7aab3.png",
    "singapore-onenorth": "maps/53992ee3023e5494b90c316c183be829.png",
    "singapore-hollandvillage": "maps/37819e65e09e5547b8a3ceaefba56bb2.png",
    "singapore-queenstown": "maps/93406b464a165eaba6d9de76ca09f5da.png",
}
"""Official file names of the map masks, which the devkit's map classes expect."""


def versions(root: Path) -> list[str]:
    """Names of the folders of `root` that hold tables."""
    if not root.is_dir():
        return []
    return sorted(p.name for p in root.iterdir() if (p / "sample.json").is_file() or (p / "scene.json").is_file())


def table_folder(root: Path, version: str) -> Path:
    """The folder with the tables of `version`.

    Raises:
        DataError: the root is not a nuScenes data set, or has no such version.
    """
    found = versions(root)
    if version in found:
        return inside(root, version)
    advice = f"Check with `frustum data status {root}`, or generate a data set in a new folder with `frustum data world FOLDER`."
    if not root.is_dir():
        raise DataError(
            f"the data root {root} does not exist; it must be a folder with {version}/*.json and samples/. "
            f"If the data are elsewhere, set data.root=FOLDER. {advice}"
        )
    if found:
        hint = nearest_names(version, found)
        raise DataError(
            f"the data set {root} has no version {version!r}; {hint} Set data.version (or --version). What it holds says "
            f"`frustum data status {root}`."
        )
    if (root / "sample.json").is_file():
        above = f"data.root={root.parent} data.version={root.name}"
        raise DataError(f"{root} is itself a folder of tables; the data root is the folder above it: try {above}.")
    if (root / "calibration.json").is_file():
        raise DataError(
            f"{root} is a rig folder, images without labels, and no data set yet: make it one with `frustum data import rig {root} DST`. "
            f"`frustum predict RUN {root}` and `frustum check {root}` take it as it is."
        )
    held = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
    raise DataError(f"{root} is not a nuScenes data set: it must hold {version}/*.json and samples/, but holds {held}. {advice}")


def missing_table(path: Path) -> DataError:
    """The error for one of TABLES that does not exist."""
    return DataError(
        f"the table {path} is missing; a nuScenes database needs all of {', '.join(TABLES)}. "
        f"Restore it (extract the metadata archive again, or generate the data again)."
    )


def load_table(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of one table.

    Raises:
        DataError: the table is missing, is not JSON, or is not a list of records with tokens.
    """
    path = inside(folder.parent, folder / f"{name}.json")
    if not path.is_file():
        raise missing_table(path)
    rows = read_json(path, f"table {name}")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("token"), str) for row in rows):
        raise DataError(f"the table {path} must be a JSON list of records with tokens. Restore it from its source.")
    return rows


@contextlib.contextmanager
def following_schema(folder: Path) -> Iterator[None]:
    """Within it, a missing or ill-typed field of a record is a DataError that names the folder of the tables."""
    try:
        yield
    except FrustumError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
        reason = f"a record lacks the field {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"the tables in {folder} do not follow the nuScenes schema: {reason:.300}. Restore them.") from error
