"""The official lists have their published sizes and do not overlap."""

from __future__ import annotations

from pathlib import Path

import pytest

from frustum.data.nuscenes.splits import custom_splits, merged_splits, official_splits
from frustum.errors import DataError


def test_official_sizes_and_overlaps() -> None:
    splits = official_splits()
    sizes = {name: len(set(names)) for name, names in splits.items()}
    assert sizes == {"train": 700, "val": 150, "test": 150, "mini_train": 8, "mini_val": 2, "train_detect": 350, "train_track": 350}
    assert len({*splits["train"], *splits["val"], *splits["test"]}) == 1000
    assert not set(splits["train_detect"]) & set(splits["train_track"])
    trainval = set(splits["train"]) | set(splits["val"])
    assert set(splits["mini_train"]) | set(splits["mini_val"]) < trainval  # the mini splits do not follow train and val


def test_known_members() -> None:
    splits = official_splits()
    assert splits["mini_val"] == ["scene-0103", "scene-0916"]
    assert splits["val"][:3] == ["scene-0003", "scene-0012", "scene-0013"]
    assert splits["test"][:2] == ["scene-0077", "scene-0078"]
    assert splits["train"][:3] == ["scene-0001", "scene-0002", "scene-0004"]
    assert "scene-1110" in splits["train_track"]


def test_custom_splits(tmp_path: Path) -> None:
    assert custom_splits(tmp_path) == {}
    (tmp_path / "splits.json").write_text('{"mine": ["scene-0001"]}')
    assert custom_splits(tmp_path) == {"mine": ["scene-0001"]}
    for wrong in ('["scene-0001"]', '{"mine": "scene-0001"}', '{"mine": [1]}'):
        (tmp_path / "splits.json").write_text(wrong)
        with pytest.raises(DataError, match="must look like"):
            custom_splits(tmp_path)


def test_merging_keeps_what_is_there_and_names_nothing_twice() -> None:
    old = {"train": ["a", "gone"], "mine": ["b"], "empty": ["gone"]}
    assert merged_splits(old, {"train": ["c", "a"], "val": ["d"]}, ["a", "b", "c", "d"]) == {
        "train": ["a", "c"],
        "val": ["d"],
        "mine": ["b"],
    }
    assert merged_splits({}, {"train": []}, []) == {}
    once = merged_splits(old, {"train": ["c"]}, ["a", "b", "c"])
    assert merged_splits(once, {"train": ["c"]}, ["a", "b", "c"]) == once
