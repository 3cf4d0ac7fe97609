"""Two do not work in one output folder; who died does not keep it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from frustum import locks
from frustum.checkpoint.weights_file import WEIGHTS, save_weights
from frustum.cli.checking import check_data
from frustum.cli.reporting import report_run
from frustum.cli.robustness import measure_robustness
from frustum.engine.overrides import apply
from frustum.engine.run import save_run
from frustum.engine.sections import header_of
from frustum.errors import DataError, OutputError
from frustum.locks import LOCK, owning, sole_owner
from tests.engine import toy

OWNER = """
import sys, time
from frustum.locks import sole_owner
with sole_owner(sys.argv[1], "frustum train", file=sys.argv[2]):
    print("here", flush=True)
    time.sleep(60)
"""


def start(folder: Path, file: str = LOCK) -> subprocess.Popen[str]:
    """Another process that works in the folder."""
    other = subprocess.Popen([sys.executable, "-c", OWNER, str(folder), file], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "here\n"
    return other


def test_the_second_process_is_told_who_works_there_and_a_killed_owner_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    other = start(folder)
    try:
        with pytest.raises(OutputError, match="frustum train works there since 20") as caught, sole_owner(folder, "frustum predict"):
            pass
        assert caught.value.exit_code == 3
        for words in (str(folder), f"process {other.pid}", f"kill {other.pid}", "choose another folder with --out FOLDER"):
            assert words in str(caught.value)
    finally:
        other.kill()
        other.wait()
    assert (folder / LOCK).is_file(), "the killed one could not clean up"
    with sole_owner(folder, "frustum train"):
        assert json.loads((folder / LOCK).read_text())["pid"] == os.getpid()
    assert not folder.exists() or not list(folder.iterdir())


def test_nothing_is_left_and_the_same_thread_may_enter_again(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for folder in (tmp_path / "old", tmp_path / "new"):
        with sole_owner(folder, "a"):
            with sole_owner(folder, "b"):
                assert (folder / LOCK).is_file()
            assert (folder / LOCK).is_file()
    assert list((tmp_path / "old").iterdir()) == []
    assert not (tmp_path / "new").exists(), "an empty folder that was made for nothing"


def test_another_thread_is_another_owner(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def enter() -> None:
        try:
            with sole_owner(tmp_path, "frustum predict"):
                pass
        except DataError as error:
            caught.append(error)

    with sole_owner(tmp_path, "frustum train"):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert "frustum train, in another thread of this program, works there" in str(caught[0])


def test_on_a_file_system_without_locks_the_file_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_lock", lambda _: None)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = locks.platform.node()
    for pid, host, is_free in ((gone.pid, here, True), (os.getppid(), here, False), (gone.pid, "elsewhere", False)):
        (tmp_path / LOCK).write_text(json.dumps({"work": "frustum train", "pid": pid, "host": host, "since": "2026-11-30 04:00:00"}))
        if is_free:
            with sole_owner(tmp_path, "x"):
                pass
        else:
            with pytest.raises(OutputError, match="if that process is gone, delete"), sole_owner(tmp_path, "x"):
                pass
    (tmp_path / LOCK).write_text('{"pid": "1e999", "work": 3}')
    with sole_owner(tmp_path, "x"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_the_lock_file_is_no_way_out_of_the_folder(tmp_path: Path) -> None:
    outside, folder = tmp_path / "bashrc", tmp_path / "run"
    folder.mkdir()
    outside.write_text("mine")
    (folder / LOCK).symlink_to(outside)
    with pytest.raises(OutputError, match="Remove it"), sole_owner(folder, "x"):
        pass
    assert outside.read_text() == "mine"
    (folder / LOCK).unlink()
    os.mkfifo(folder / LOCK)
    with pytest.raises(OutputError, match="Remove it"), sole_owner(folder, "x"):
        pass


def test_a_read_only_place_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match="read-only"), sole_owner(tmp_path, "x"):
        pass


def test_of_several_processes_of_a_training_the_first_is_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with sole_owner(tmp_path, "frustum train"):
        assert list(tmp_path.iterdir()) == []


def test_another_file_owns_something_of_its_own(tmp_path: Path) -> None:
    other = start(tmp_path, ".figures-lock")
    try:
        with sole_owner(tmp_path, "frustum train"):
            pass
        with pytest.raises(OutputError, match="is in use"), sole_owner(tmp_path, "frustum robustness", file=".figures-lock"):
            pass
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("verb", ["check", "report", "robustness"])
def test_verbs_that_write_pictures_and_figures_own_their_folder(tmp_path: Path, verb: str) -> None:
    """Two at once into the same folder: the second is refused, and nothing of it is written."""
    run, out = tmp_path / "run", tmp_path / "out"
    root = toy.write_database(tmp_path / "toy")
    recipe = apply(toy.recipe(root), ["eval.slow_figures=false"])
    save_run(run, recipe)
    save_weights(run / WEIGHTS, recipe.model.build(), header_of(recipe))
    code = ("tests.engine.toy",)
    verbs = {
        "check": lambda: check_data(root, None, "all", 1, 1, out, None),
        "report": lambda: report_run(run, out, samples=1, code=code),
        "robustness": lambda: measure_robustness([str(run)], corruptions="fog", levels="1", code=code),
    }
    other = start(run, ".robustness.json-lock") if verb == "robustness" else start(out)
    try:
        with pytest.raises(OutputError, match="is in use: frustum train works there since 20"):
            verbs[verb]()
        assert [path.name for path in out.glob("*")] == ([LOCK] if verb != "robustness" else [])
        assert not (run / "robustness.json").exists()
    finally:
        other.kill()
        other.wait()


def test_a_check_without_pictures_needs_no_folder(tmp_path: Path) -> None:
    root = toy.write_database(tmp_path / "toy")
    other = start(tmp_path / "out")
    try:
        assert check_data(root, None, "all", 1, 0, tmp_path / "out", None)["pictures"] == []
    finally:
        other.kill()
        other.wait()


def test_a_function_owns_the_folder_that_an_argument_names(tmp_path: Path) -> None:
    @owning("out", "frustum train")
    def work(number: int, out: Path | None = None) -> int:
        return number + (out is not None and (out / LOCK).is_file())

    assert [work(1), work(1, None), work(1, tmp_path), work(1, out=tmp_path)] == [1, 1, 2, 2]
    assert list(tmp_path.iterdir()) == []
