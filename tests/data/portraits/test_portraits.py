"""Portraits in both layouts, and what is said when a folder is not one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.portraits.folder import Portraits
from frustum.data.portraits.opening import open_portraits
from frustum.data.portraits.swaps import Swap
from frustum.data.portraits.voxceleb import VoxCeleb
from frustum.data.portraits.writer import PortraitWriter
from frustum.errors import DataError
from frustum.files import write_json

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8)
MASK = RNG.integers(0, 19, (8, 6), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    writer = PortraitWriter(tmp_path)
    for person in ("id00012", "id00017"):
        for clip in ("video-0", "video-1"):
            for frame in ("00000", "00001"):
                writer.add_frame(person, clip, frame, IMAGE, MASK)
    return tmp_path


def test_round_trip(root: Path) -> None:
    portraits = open_portraits(root)
    assert type(portraits) is Portraits
    assert portraits.people() == ["id00012", "id00017"]
    assert list(portraits.clips("id00017")) == ["video-0", "video-1"]
    assert portraits.clips("id00017")["video-1"] == ["id00017/video-1/00000", "id00017/video-1/00001"]
    assert len(portraits.tokens("train")) == len(portraits.tokens()) == 8
    token = portraits.tokens()[3]
    assert np.array_equal(portraits.image(token), IMAGE)
    assert np.array_equal(portraits.parsing(token), MASK)
    assert portraits.sample(token).size == (8, 6)
    assert portraits.truth(token) is None
    assert portraits.about("id00012") == {}


def test_splits_are_of_people(root: Path) -> None:
    PortraitWriter(root).finish({"train": ["id00012"], "val": ["id00017"]}, {"id00017": {"corner": "a"}})
    portraits = Portraits(root)
    assert portraits.people("val") == ["id00017"]
    assert portraits.about("id00017") == {"corner": "a"}
    with pytest.raises(DataError, match="has no split 'test'"):
        portraits.people("test")
    write_json(root / "splits.json", {"val": ["id00099"]})
    with pytest.raises(DataError, match="id00099"):
        Portraits(root)


def test_truth_of_a_clip(root: Path) -> None:
    writer = PortraitWriter(root)
    assert not writer.has_clip("id00012", "video-0")
    writer.add_truth("id00012", "video-0", {"00000": {"landmarks": [[1, 2]] * 68, "is_visible": [1] * 68, "motion": {"yaw": 0.5}}})
    assert writer.has_clip("id00012", "video-0")
    portraits = Portraits(root)
    found = portraits.truth("id00012/video-0/00000")
    assert found is not None
    assert found["landmarks"].shape == (68, 2)
    assert found["motion"] == {"yaw": 0.5}
    with pytest.raises(DataError, match="does not know the frame 00001"):
        portraits.truth("id00012/video-0/00001")


def test_true_swaps(root: Path) -> None:
    """The names of swaps are a split of their own; image and mask are those of the target, the head is that of the source."""
    writer, name = PortraitWriter(root), "id00012-on-id00017"
    swap = Swap("id00012/video-1", "id00017/video-0/00001")
    assert not writer.has_swap(name, swap)
    writer.add_swap(name, swap, {"head": IMAGE // 2, "skin": IMAGE // 3}, MASK)
    assert writer.has_swap(name, swap)
    assert not writer.has_swap(name, swap._replace(source="id00012/video-0")), "the same people in other clips"
    writer.finish_swaps({name: Swap("id00012/video-1", "id00017/video-0/00001")})
    portraits = open_portraits(root)
    assert portraits.splits() == ["train", "swaps"]
    assert portraits.tokens("swaps") == [name]
    assert portraits.people("swaps") == ["id00017"]
    assert len(portraits.tokens()) == 8
    assert np.array_equal(portraits.image(name), portraits.image("id00017/video-0/00001"))
    assert portraits.source_frames(name) == ["id00012/video-1/00000", "id00012/video-1/00001"]
    assert portraits.source_frames("id00012/video-1/00000") == ["id00012/video-1/00001"]
    head, mask = portraits.placed_head(name)
    assert np.array_equal(head, IMAGE // 2)
    assert np.array_equal(mask, MASK)
    assert np.array_equal(portraits.true_swap(name, "skin")[0], IMAGE // 3)
    assert portraits.placed_head("id00012/video-1/00000") is None
    assert np.array_equal(portraits.true_swap("id00012/video-1/00000", "skin")[0], IMAGE)
    with pytest.raises(DataError, match=r"region\.png"):
        portraits.true_swap(name, "region")
    with pytest.raises(DataError, match="has no image 'id1-on-id2'"):
        portraits.true_swap("id1-on-id2", "skin")
    writer.finish({"train": ["id00012", "id00017"], "val": ["id00012"]}, {})
    assert open_portraits(root).tokens("train_swaps") == [name], "onto a person to learn from"
    with pytest.raises(DataError, match=r"no true swaps of the split val.*data\.val_split=val"):
        open_portraits(root).tokens("swaps")
    with pytest.raises(DataError, match=r"no true swaps of the split train.*data\.train_split=train"):
        portraits.tokens("train_swaps")
    write_json(root / "swaps.json", {name: "id00012/video-1"})
    with pytest.raises(DataError, match=r"needs \{NAME"):
        open_portraits(root)
    writer.finish_swaps({name: Swap("id00012/video-9", "id00017/video-0/00001")})
    with pytest.raises(DataError, match="of which one is not there"):
        open_portraits(root)


def test_missing_and_damaged_files(root: Path) -> None:
    portraits = Portraits(root)
    first, second, third, fourth = portraits.tokens()[:4]
    (root / "mask" / f"{first}.png").unlink()
    with pytest.raises(DataError, match="does not exist"):
        portraits.parsing(first)
    Image.fromarray(MASK[:4]).save(root / "mask" / f"{second}.png")
    with pytest.raises(DataError, match="4 x 6 pixels, but its image 8 x 6"):
        portraits.parsing(second)
    Image.fromarray(np.full_like(MASK, 19)).save(root / "mask" / f"{third}.png")
    with pytest.raises(DataError, match="holds 19, but a mask holds the 19 ids"):
        portraits.parsing(third)
    Image.fromarray(IMAGE).save(root / "mask" / f"{third}.png")
    with pytest.raises(DataError, match="one channel of 8 bits"):
        portraits.parsing(third)
    (root / "img" / f"{fourth}.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="cannot read the image"):
        portraits.image(fourth)
    with pytest.raises(DataError, match="has no image 'id00012/9'"):
        portraits.image("id00012/9")
    with pytest.raises(DataError, match="did you mean 'id00012'"):
        portraits.clips("id0012")


def test_folders_that_hold_no_portraits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        open_portraits(tmp_path)
    (tmp_path / "img" / "id00012").mkdir(parents=True)
    (tmp_path / "mask").mkdir()
    with pytest.raises(DataError, match="does not hold a portrait"):
        open_portraits(tmp_path)


def test_a_mask_must_fit_its_frame(tmp_path: Path) -> None:
    writer = PortraitWriter(tmp_path)
    for mask in (MASK[:4], np.full_like(MASK, 19)):
        with pytest.raises(DataError, match="does not fit a portrait"):
            writer.add_frame("id00012", "video-0", "00000", IMAGE, mask)
    assert not (tmp_path / "img").exists()


@pytest.mark.parametrize("place", ["", "dev/mp4"])
def test_voxceleb(tmp_path: Path, place: str) -> None:
    clip = tmp_path / place / "id00012" / "21Uxsk56VDQ" / "00001"
    clip.mkdir(parents=True)
    for frame in ("00001", "00002"):
        Image.fromarray(IMAGE).save(clip / f"{frame}.jpg")
    mask = tmp_path / "mask" / clip.relative_to(tmp_path) / "00002.png"
    mask.parent.mkdir(parents=True)
    Image.fromarray(MASK).save(mask)
    portraits = open_portraits(tmp_path)
    assert type(portraits) is VoxCeleb
    assert portraits.clips("id00012") == {"21Uxsk56VDQ-00001": [f"id00012/21Uxsk56VDQ-00001/{frame}" for frame in ("00001", "00002")]}
    assert portraits.image(portraits.tokens()[0]).shape == (8, 6, 3)
    assert np.array_equal(portraits.parsing(portraits.tokens()[1]), MASK)
    with pytest.raises(DataError, match="does not exist"):
        portraits.parsing(portraits.tokens()[0])


def test_voxceleb_of_videos(tmp_path: Path) -> None:
    video = tmp_path / "id00012" / "21Uxsk56VDQ" / "00001.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"")
    with pytest.raises(DataError, match="Extract the frames first: ffmpeg"):
        open_portraits(tmp_path)
    with pytest.raises(DataError, match="id00012"):
        VoxCeleb(video.parent)
