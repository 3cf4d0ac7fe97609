"""Files appear whole or not at all, and every failure to write is explained."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from frustum import files
from frustum.errors import DataError, OutputError
from frustum.files import (
    append_line,
    atomic_path,
    copy_file,
    link_or_copy,
    make_folder,
    read_json,
    require_place,
    without_places,
    write_bytes,
    write_json,
)


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


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_with_our_names_lead_nowhere(tmp_path: Path) -> None:
    outside, log = tmp_path / "bashrc", tmp_path / "out" / "metrics.jsonl"
    outside.write_text("mine")
    log.parent.mkdir()
    log.symlink_to(outside)
    with pytest.raises(OutputError, match=r"is a link.*Remove it"):
        append_line(log, "ours")
    write_bytes(log, b"ours\n")  # the link is replaced
    append_line(log, "more")
    assert (outside.read_text(), log.read_text()) == ("mine", "ours\nmore\n")
    os.mkfifo(log.with_name("fifo"))
    with pytest.raises(OutputError, match="Remove it"):
        append_line(log.with_name("fifo"), "ours")
    log.with_name("fifo").unlink()
    append_line(log.with_name("new"), "x")
    assert sorted(p.name for p in log.parent.iterdir()) == ["metrics.jsonl", "new"]


@pytest.mark.skipif(sys.platform == "win32", reason="nobody is known to be dead there")
def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    half = """
import os, sys
from frustum.files import atomic_path, scratch_folder
with atomic_path(sys.argv[1]) as temporary, scratch_folder() as folder:
    temporary.write_text("half")
    (folder / "x").write_text("half")
    os.kill(os.getpid(), 9)
"""
    environment = dict(os.environ, TMPDIR=str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    subprocess.run([sys.executable, "-c", half, str(tmp_path / "out" / "w")], env=environment, check=False)
    (left,), (folder,) = (tmp_path / "out").iterdir(), (tmp_path / "scratch").iterdir()
    living = left.with_name(left.name.replace(f".{left.name.split('@')[0].split('.')[-1]}@", f".{os.getppid()}@"))
    living.write_text("half")
    for name in (".w.12.tmp", "..tmp", ".other.tmp"):
        (left.parent / name).touch()
    write_bytes(left.parent / "new", b"")
    assert not left.exists()
    assert {p.name for p in left.parent.iterdir()} == {living.name, "new", ".w.12.tmp", "..tmp", ".other.tmp"}
    os.utime(living, (0, 0))  # of long ago, whoever it was
    files._sweep.cache_clear()
    write_bytes(left.parent / "new", b"")
    assert not living.exists()
    files._sweep(tmp_path / "scratch")
    assert not folder.exists()


def test_a_place_is_tried_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_place(tmp_path / "new" / "x.json")
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(OutputError, match="it is a folder"):
        require_place(tmp_path / "new")
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OutputError, match="disk is full"):
        require_place(tmp_path / "x.json")


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
    [("/srv/me/data set/nuscenes", "nuscenes"), ("data/street", "data/street"), ("~/data/x", "x"), (r"C:\Users\me\x.pth", "x.pth"),
     ("data.root=/srv/me/data train.steps=3", "data.root=data train.steps=3"), ("12 km/h, 3 / 4 of 1/2", "12 km/h, 3 / 4 of 1/2"),
     ("/srv/me/w.safetensors (which learned from 3D labels), as far", "w.safetensors (which learned from 3D labels), as far"),
     ("https://a.org/b/c.pth", "https://a.org/b/c.pth"), ("", "")],
)  # fmt: skip
def test_what_others_read_does_not_say_where_files_are_kept(text: str, kept: str) -> None:
    assert without_places({"a": [text, 3, None], "b": (True, text)}) == {"a": [kept, 3, None], "b": [True, kept]}
