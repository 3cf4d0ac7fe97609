"""Evaluate a file of predictions that someone else produced: a detection submission, or a folder of occupancy predictions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from frustum.cli.common import say, table
from frustum.cli.evaluation import print_figures
from frustum.cli.predicting import choose_version
from frustum.data.nuscenes.detection_results import is_detection_file, read_detections
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.occ3d.result_files import OccupancyResults
from frustum.engine.score_detections import PROTOCOL, score_detections
from frustum.engine.score_results import score_occupancy_results
from frustum.errors import DataError


def evaluate_results(results: Path, root: Path, version: str | None = None, split: str | None = None) -> dict[str, Any]:
    """What `frustum eval --results` does; prints the tables and returns the numbers.

    Args:
        results: a nuScenes detection submission (JSON), or a folder with one npz of occupancy per keyframe.
        root, version: the data set with the truth.
        split: by default the split that the keyframes of the file make up.

    Raises:
        DataError: neither of the two, a malformed file, or one that does not fit the split.
    """
    if not results.exists():
        raise DataError(f"there is no file or folder {results}. --results takes {KINDS}.")
    if results.is_dir():
        files = sorted(results.glob("*.json"))
        if files and not any(results.glob("*.npz")):
            raise DataError(
                f"{results} holds no npz file, but JSON: if that is a detection submission, give the file, --results {files[0]}."
            )
        return _occupancy(results, NuScenes(root, version or choose_version(root, "v1.0-trainval")), split)
    if not is_detection_file(results):
        hint = f" This one is an npz: give its folder, --results {results.parent}." if results.suffix == ".npz" else ""
        raise DataError(f"{results} is no file of predictions that frustum knows. --results takes {KINDS}.{hint}")
    database = NuScenes(root, version or choose_version(root, "v1.0-trainval"), camera_only=True)
    say(f"reading {results}")
    given = read_detections(results)
    report = score_detections(given, database, split or split_of(database, given.boxes), name=results.stem)
    table(*report.class_table())
    table(*report.table())
    for name, meaning in (("mAP", "mean_ap"), ("errors", "tp_errors"), ("NDS", "nd_score"), ("counted", "filters")):
        say(f"{name}: {PROTOCOL[meaning]}")
    return report.numbers()


KINDS = "a nuScenes detection submission (JSON), or a folder of occupancy predictions (one npz per keyframe, named by its sample token)"


def _occupancy(folder: Path, database: NuScenes, split: str | None) -> dict[str, Any]:
    chosen = split or split_of(database, OccupancyResults(folder).tokens)
    report = score_occupancy_results(folder, database, chosen)
    print_figures(report)
    return {"kind": "occupancy"} | report.numbers()


def split_of(database: NuScenes, tokens: Iterable[str]) -> str:
    """The split that these keyframes make up; else the largest that they hold; else the smallest that holds those of them that are known.

    Raises:
        DataError: there are none, or no keyframe of this data set is among them.
    """
    given, known = set(tokens), set(database.tokens())
    if not given:
        raise DataError(
            'the results hold no sample at all: "results" is empty. Every keyframe of a split must be a key, without boxes too.'
        )
    if not given & known:
        raise DataError(
            f"none of the {len(given)} samples of the results is a keyframe of {database.folder}, for example {min(given)!r}. "
            "Give the data set that they were predicted on with --data (and --version)."
        )
    splits = {split: set(database.tokens(split)) for split in (*database.splits(), "all")}

    def preferred(split: str) -> tuple[bool, str]:
        return split != "val", split  # of splits with the same keyframes

    equal = [split for split in splits if splits[split] == given]
    held = [split for split in splits if splits[split] <= given]
    holding = [split for split in splits if given & known <= splits[split]]
    if equal:
        return min(equal, key=preferred)
    if held:
        return min(held, key=lambda split: (-len(splits[split]), *preferred(split)))
    return min(holding, key=lambda split: (len(splits[split]), *preferred(split)))
