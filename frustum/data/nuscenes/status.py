"""`frustum data status`: what of a nuScenes data set (with Occ3D labels) is there, what is missing, and where it comes from."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from frustum.data.nuscenes.index import Index
from frustum.data.nuscenes.index_build import Arrays
from frustum.data.nuscenes.splits import WHOLE, custom_splits, official_splits
from frustum.data.nuscenes.tables import TABLES, versions
from frustum.data.occ3d.label_files import labels_path
from frustum.errors import DataError
from frustum.files import write_json

State = Literal["complete", "partial", "missing"]
_NUSCENES = "nuscenes.org, page Download (free, login needed, non-commercial terms)"
_OCC3D = "the Occ3D-nuScenes project page (CVPR 2023 3D Occupancy Prediction Challenge); extract as gts/ below the data root"

_ARCHIVES = {
    "v1.0-mini": "v1.0-mini.tgz, about 4 GB: everything of 10 scenes",
    "v1.0-trainval": "v1.0-trainval_meta.tgz (about 0.5 GB) and the ten sensor archives (about 30 GB each; keyframes alone suffice, "
    "but for networks that read camera sweeps)",
    "v1.0-test": "v1.0-test_meta.tgz and its sensor archives (about 55 GB together)",
}


@dataclass(frozen=True)
class Item:
    """One part of a data set."""

    name: str
    state: State
    found: int
    expected: int
    needed_for: str
    get: str  # where it comes from and about how much it is; "" when complete


@dataclass(frozen=True)
class VersionStatus:
    """What is there of one version."""

    version: str
    scenes: int
    keyframes: int
    splits: dict[str, int]  # scenes that are here, by split
    items: list[Item]
    problem: str = ""  # why the tables cannot be read
    whole: dict[str, list[str]] = field(default_factory=dict)  # scenes whose images are all there, by split and in `all`


@dataclass(frozen=True)
class DataStatus:
    """What is there below a data root."""

    root: str
    bytes_on_disk: dict[str, int]  # by top folder
    versions: list[VersionStatus]
    advice: str


def data_status(root: Path | str, version: str | None = None) -> DataStatus:
    """Report what is below `root`; reads tables and folder listings, not images.

    Args:
        root: data root.
        version: only this one; None takes all that are there.

    Raises:
        DataError: `root` does not exist, or has no such version.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"the data root {root} does not exist. Create one with `frustum data world {root}`, or give another folder.")
    present = versions(root)
    if version is not None and version not in present and not (root / version).is_dir():
        raise DataError(f"{root} has no version {version!r}; it has {', '.join(present) or 'none'}.")
    chosen = [version] if version is not None else present or sorted(v for v in _ARCHIVES if (root / v).is_dir())
    found = [_version_status(root, name) for name in chosen]
    if not found:
        advice = (
            f"There are no tables here. Generate a world (`frustum data world {root}`), import a recording (`frustum data import --help`), "
            f"or get nuScenes from {_NUSCENES}: {_ARCHIVES['v1.0-mini']}; {_ARCHIVES['v1.0-trainval']}. Labels: {_OCC3D}, about 2.4 GB."
        )
    elif any(v.problem or any(i.state != "complete" and i.needed_for == "all work" for i in v.items) for v in found):
        advice = "Something that all work needs is missing: see the lines above."
    else:
        advice = f"Ready. Look at it: frustum check {root}"
    return DataStatus(str(root), _sizes(root), found, advice)


def _version_status(root: Path, version: str) -> VersionStatus:
    folder = root / version
    tables = [name for name in TABLES if (folder / f"{name}.json").is_file()]
    source = f"{_NUSCENES}: {_ARCHIVES.get(version, 'the archives of ' + version)}"
    table_item = _item("tables", len(tables), len(TABLES), "all work", f"{', '.join(sorted(set(TABLES) - set(tables)))}; {source}")
    if len(tables) < len(TABLES):
        return VersionStatus(version, 0, 0, {}, [table_item])
    try:
        frames = Index(folder).frames
    except DataError as error:
        return VersionStatus(version, 0, 0, {}, [table_item], str(error))
    names, official = [n.decode() for n in frames["scene_name"]], official_splits()
    here, items = set(names), [table_item]
    splits = {split: len(here & set(members)) for split, members in (official | custom_splits(folder)).items()}
    listing = lru_cache(maxsize=None)(lambda part: {path.name for path in (root / part).glob("*")})
    channels, modality = [c.decode() for c in frames["channel"]], [m.decode() for m in frames["modality"]]
    channel_of = frames["calibration_channel"][frames["file_calibration"]]  # by file
    is_there = np.array([os.path.basename(name) in listing(os.path.dirname(name)) for name in map(bytes.decode, frames["file_name"])], bool)
    expected, there = (np.bincount(files, minlength=len(channels)).tolist() for files in (channel_of, channel_of[is_there]))
    purpose = {"camera": "all work", "lidar": "depth supervision, check", "radar": "nothing here yet"}
    is_official = bool(here & set().union(*official.values()))
    own = "it was generated or imported: run that command again"
    has_lidar = any(kind == "lidar" and count for kind, count in zip(modality, expected, strict=True))
    own_labels = own if has_lidar else "cameras that were imported alone have no labels; predicting needs none"
    own_points = "a generated world has them, an import does not" if has_lidar else own_labels
    source = source if is_official else own
    for channel, kind, found, files in zip(channels, modality, there, expected, strict=True):
        if files:
            items.append(_item(f"samples/{channel}", found, files, purpose.get(kind, "nothing here"), source))
    for panoptic in (False, True):
        keyframes = zip(frames["sample_scene"], frames["sample_token"], strict=True)
        folders = [labels_path(root, names[scene], token.decode(), panoptic) for scene, token in keyframes]
        count = sum(p.is_file() for p in folders)
        name = "occ3d_panoptic" if panoptic else "gts"
        get = "made from gts and boxes" if panoptic else f"{_OCC3D}; about 70 kB a keyframe, {len(folders) * 0.07:.0f} MB here"
        get = get if is_official else own_labels
        items.append(_item(name, count, len(folders), "panoptic occupancy" if panoptic else "training and evaluating occupancy", get))
    get = f"{_NUSCENES}: nuScenes-lidarseg" if is_official else own_points
    items.append(_item("lidarseg", int((folder / "lidarseg.json").is_file()), 1, "point labels (optional)", get))
    whole = _whole_scenes(frames, is_there)
    members = {k: [n for n in whole if n in set(v)] for k, v in (official | custom_splits(folder)).items() if not k.endswith(WHOLE)}
    by_split = {"all": whole} | {k: v for k, v in members.items() if v}
    return VersionStatus(version, len(names), len(frames["sample_token"]), {k: v for k, v in splits.items() if v}, items, "", by_split)


def _whole_scenes(frames: Arrays, is_there: np.ndarray) -> list[str]:
    """Scenes of which every image of every keyframe is on the disk."""
    files = frames["key_file"][:, frames["modality"] == b"camera"]
    whole = (np.append(is_there, True)[files]).all(1)  # -1, no file, is the appended one
    broken = set(frames["sample_scene"][~whole].tolist())
    return [name.decode() for i, name in enumerate(frames["scene_name"]) if i not in broken]


def write_whole_splits(root: Path | str, found: VersionStatus) -> dict[str, list[str]]:
    """Add to splits.json, for each split, the scenes of it whose images are all there, as `train_whole` and so on; returns these.

    Raises:
        DataError: there is no such scene, or the file cannot be written.
    """
    made = {f"{split}{WHOLE}": names for split, names in found.whole.items() if split != "all" and names}
    if not made:
        raise DataError(
            f"no scene of {Path(root) / found.version} that is in a split has all its images. Unpack an archive of images first."
        )
    folder = Path(root) / found.version
    write_json(folder / "splits.json", custom_splits(folder) | made, indent=1)
    return made


def _item(name: str, found: int, expected: int, needed_for: str, get: str) -> Item:
    state: State = "complete" if found >= expected else "partial" if found else "missing"
    return Item(name, state, found, expected, needed_for, "" if state == "complete" else get)


def _sizes(root: Path) -> dict[str, int]:
    """Bytes per top folder; large sensor folders are estimated from 200 files each, which is quick on network disks too."""
    sizes = {}
    for top in sorted(p for p in root.iterdir() if p.is_dir()):
        total = 0
        for path, _, files in os.walk(top):
            known = []
            for name in files[:: max(1, len(files) // 200)]:
                with contextlib.suppress(OSError):
                    known.append(os.path.getsize(os.path.join(path, name)))
            total += round(float(np.mean(known)) * len(files)) if known else 0
        sizes[top.name] = total
    return sizes
