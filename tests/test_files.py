"""Files appear whole or not at all, and every failure to write is explained."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from frustum.errors import DataError
from frustum.files import atomic_path, copy_file, link_or_copy, make_folder, read_json, without_places, write_bytes, write_json


def test_writes_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.bin"
    write_bytes(target, b"one")
    write_bytes(target, b"two")
    assert target.read_bytes() == b"two"
    assert [p.name for p in target.parent.iterdir()] == ["b.bin"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_files_are_as_readable_as_ordinary_ones(tmp_path: Path) -> None:
    write_bytes(tmp_path / "ours", b"")
    (tmp_path / "theirs").write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "theirs").stat().st_mode)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize("mode", [0o400, 0o640, 0o755])
def test_a_linked_file_keeps_its_mode_and_bytes(tmp_path: Path, mode: int) -> None:
    source, target = tmp_path / "theirs.png", tmp_path / "ours" / "x.png"
    source.write_bytes(b"pixels")
    source.chmod(mode)
    link_or_copy(source, target)
    link_or_copy(source, target)  # again, over the first
    assert stat.S_IMODE(source.stat().st_mode) == mode
    assert source.read_bytes() == target.read_bytes() == b"pixels"
    write_bytes(target, b"new")  # our name is replaced, their file is not written to
    assert source.read_bytes() == b"pixels"
    assert [p.name for p in target.parent.iterdir()] == ["x.png"]


def test_a_copy_is_a_file_of_its_own(tmp_path: Path) -> None:
    source, target = tmp_path / "theirs.png", tmp_path / "ours" / "x.png"
    source.write_bytes(b"pixels")
    source.chmod(0o400)
    copy_file(source, target)
    target.chmod(0o600)
    target.write_bytes(b"edited")
    assert (source.read_bytes(), stat.S_IMODE(source.stat().st_mode)) == (b"pixels", 0o400 if sys.platform != "win32" else 0o444)
    assert [p.name for p in target.parent.iterdir()] == ["x.png"]


def test_a_file_is_copied_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"pixels")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"pixels"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)
    assert not os.path.samefile(tmp_path / "a", tmp_path / "b")


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    write_json(target, {"old": 1})

    def interrupted() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_json(target) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission")])
def test_full_and_read_only_disks_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    write_bytes(tmp_path / "x", b"old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(DataError, match=words) as caught:
        write_bytes(tmp_path / "x", b"new")
    assert str(tmp_path / "x") in str(caught.value)
    assert (tmp_path / "x").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(DataError, match=words):
        write_bytes(tmp_path / "y", b"")


def test_a_folder_below_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="another output folder"):
        write_bytes(tmp_path / "file" / "sub" / "x", b"")
    with pytest.raises(DataError, match="cannot write"):
        make_folder(tmp_path / "file" / "sub")


@pytest.mark.parametrize(("content", "words"), [(None, "does not exist"), ("[1, 2", "not valid JSON"), ("\udcff", "not valid JSON")])
def test_unreadable_json_is_explained(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "t.json"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=words) as caught:
        read_json(path, "table x")
    assert "table x" in str(caught.value)


def test_json_is_exact(tmp_path: Path) -> None:
    value = {"a": [0.1, 1e-300, -0.0, 2**53 + 1], "b": None}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == value


@pytest.mark.parametrize(
    ("text", "kept"),
    [("/home/me/data set/nuscenes", "nuscenes"), ("data/street", "data/street"), ("~/data/x", "x"), (r"C:\Users\me\x.pth", "x.pth"),
     ("data.root=/home/me/data train.steps=3", "data.root=data train.steps=3"), ("12 km/h, 3 / 4 of 1/2", "12 km/h, 3 / 4 of 1/2"),
     ("/home/me/w.safetensors (which learned from 3D labels), as far", "w.safetensors (which learned from 3D labels), as far"),
     ("https://a.org/b/c.pth", "https://a.org/b/c.pth"), ("", "")],
)  # fmt: skip
def test_what_others_read_does_not_say_where_files_are_kept(text: str, kept: str) -> None:
    assert without_places({"a": [text, 3, None], "b": (True, text)}) == {"a": [kept, 3, None], "b": [True, kept]}
