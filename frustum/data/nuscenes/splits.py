"""Which scenes belong to which split: the official nuScenes lists and custom ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from frustum.errors import DataError
from frustum.files import read_json

WHOLE = "_whole"
"""Ends the names of splits of which every image is on the disk (`frustum data status --write-splits`)."""

# Scene numbers and ranges of the official splits, as the nuScenes devkit 1.2.0 lists them (Apache-2.0, utils/splits.py).
_RANGES = {
    "train_detect": (
        "1-2 41-76 161-168 170-176 190-196 199-200 202-204 206-214 254-264 283-306 315-318 321 323-324 347-375 382 420-439 457-459 "
        "461-465 467-469 471-472 474-480 566 568 570-578 580 582-583 665-679 681 683-689 739-741 744 746-747 749-752 757-765 767-769 "
        "868-873 875-878 880 882-903 945 947 949 952-953 955-961 975-984 988-991 1011-1025 1074-1102 1104-1105"
    ),
    "train_track": (
        "4-11 19-34 120-135 138-139 149-152 154-155 157-160 177-185 187-188 218-220 222 224-253 328 376-381 383-386 388-403 405-408 "
        "410-419 440-456 499-502 504-515 517-518 525-539 541-546 584-600 639-664 695-698 700-701 703-719 726-728 730-731 733-738 "
        "786-787 789-792 803-806 808-813 815-817 819-822 847-856 858 860-866 992 994-1010 1044-1058 1106-1110"
    ),
    "val": (
        "3 12-18 35-36 38-39 92-110 221 268-278 329-332 344-346 519-524 552-565 625-627 629-630 632-638 770-771 775 777-778 780-784 "
        "794-800 802 904-917 919-931 962-963 966-969 971-972 1059-1073"
    ),
    "test": (
        "77-91 111-119 140 142-148 265-266 279-282 307-314 333-343 481-498 547-551 601-604 606-624 827-831 833-842 844-846 932-933 "
        "935-943 1026-1043"
    ),
    "mini_train": "61 553 655 757 796 1077 1094 1100",
    "mini_val": "103 916",
}


def _expand(ranges: str) -> list[str]:
    names = []
    for part in ranges.split():
        first, _, last = part.partition("-")
        names += [f"scene-{number:04d}" for number in range(int(first), int(last or first) + 1)]
    return names


def official_splits() -> dict[str, list[str]]:
    """Scene names of train (700), val (150), test (150), mini_train (8), mini_val (2), train_detect and train_track (350 each)."""
    splits = {name: _expand(ranges) for name, ranges in _RANGES.items()}
    splits["train"] = sorted(splits["train_detect"] + splits["train_track"])
    return splits


def custom_splits(folder: Path) -> dict[str, list[str]]:
    """The splits of `splits.json` in the version folder; empty when there is none. Raises DataError when it is malformed."""
    path = folder / "splits.json"
    if not path.is_file():
        return {}
    splits = read_json(path, "split list")
    if not isinstance(splits, dict) or not all(isinstance(v, list) and all(isinstance(s, str) for s in v) for v in splits.values()):
        raise DataError(f'the split list {path} must look like {{"train": ["scene-0001", ...], "val": [...]}}.')
    return splits


def merged_splits(old: Mapping[str, Sequence[str]], new: Mapping[str, Sequence[str]], present: Collection[str]) -> dict[str, list[str]]:
    """`new` added to `old`, each scene once a split; scenes of `old` that are not `present` any more, and empty splits, are left out."""
    merged = {}
    for split in (*new, *(name for name in old if name not in new)):
        kept = [name for name in old.get(split, ()) if name in present]
        members = list(dict.fromkeys([*kept, *new.get(split, ())]))
        if members:
            merged[split] = members
    return merged
