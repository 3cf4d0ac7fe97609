"""The short form of the drill: fixed seeds, a few tries of each kind, in this process."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frustum.errors import DataError
from tests.drill import disturb
from tests.drill.__main__ import main, table
from tests.drill.corpus import CORPUS, Entry
from tests.drill.fuzz import Row, fuzz
from tests.drill.mutate import hostile_json
from tests.drill.outcome import BAD, Outcome, Tried, digest, impossible, try_to

TRIES = 25
FORKS = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="processes that are forked")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUSTUM_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("entry", [entry for entry in CORPUS if not entry.is_slow], ids=lambda entry: entry.name)
def test_damaged_files_are_refused_or_read_as_they_were(entry: Entry, tmp_path: Path) -> None:
    row = fuzz(entry, tmp_path / "files", TRIES)
    assert not row.bad, "\n".join(row.bad)
    assert row.counts.total() == TRIES
    assert row.counts[Outcome.REFUSED] + row.counts[Outcome.SAME] > 0


def test_the_same_seed_damages_in_the_same_way(tmp_path: Path) -> None:
    entry = next(entry for entry in CORPUS if entry.name == "detections")
    first, again, other = (fuzz(entry, tmp_path / str(i), 30, seed) for i, seed in enumerate((1, 1, 2)))
    assert first.counts == again.counts
    assert first.counts.total() == other.counts.total() == 30


def _fails(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("read", "sealed", "expected"),
    [
        (lambda: 1.0, True, Outcome.SAME),
        (lambda: 2.0, False, Outcome.OTHER),
        (lambda: 2.0, True, Outcome.SILENT),
        (lambda: float("nan"), False, Outcome.SILENT),
        (lambda: np.array([1e300]), False, Outcome.SILENT),
        (lambda: _fails(DataError("no")), True, Outcome.REFUSED),
        (lambda: _fails(RecursionError()), False, Outcome.TRACEBACK),
        (lambda: _fails(MemoryError()), False, Outcome.MEMORY),
    ],
)
def test_outcomes(read: Any, sealed: bool, expected: Outcome) -> None:
    assert try_to(read, digest(1.0), sealed).outcome is expected


@FORKS
def test_a_hang_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.drill.outcome.WAITING", 0.2)
    assert try_to(lambda: time.sleep(60), "", False).outcome is Outcome.HANG


def test_velocities_alone_may_be_unknown() -> None:
    boxes = np.ones((2, 9))
    boxes[0, 8] = np.nan
    assert not list(impossible({"boxes": boxes}))
    boxes[0, 3] = np.nan
    assert list(impossible({"boxes": boxes}))
    assert not list(impossible({"velocities": np.array([np.nan, 1.0])}))


def test_hostile_json_is_still_json_or_too_deep() -> None:
    rng, source = np.random.default_rng(0), json.dumps([{"token": "a", "size": [1, 2, 3]}] * 3).encode()
    made = {hostile_json(rng, source) for _ in range(200)}
    assert len(made) > 60
    for text in made:
        assert text.startswith(b"[" * 50_000) or b"[[[[[[" in text or json.loads(text) is not None or text == b"null"


def test_what_is_found_is_in_the_table() -> None:
    row = Row("scans")
    row.add("try 1", Tried(Outcome.REFUSED, "no"))
    row.add("try 2", Tried(Outcome.HANG, "for good"))
    kills = disturb.Disturbed("train")
    kills.counts.update({"killed": 3, "equal in the end": 2})
    kills.blame("kill 1", ["another result"])
    text = table([kills], [], [row])
    assert "| train | 3 | 2 | 1 |" in text
    assert "| not measured |" in text
    assert "| scans | 2 | 1 | 0 | 0 | 0 | 0 | 0 | 1 |" in text
    assert row.bad == ["scans, try 2: hang: for good"]
    assert Outcome.HANG in BAD


@FORKS
def test_half_written_files_are_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(100))
    (tmp_path / "b.json").write_text("{}")
    assert not disturb.half_written(tmp_path)
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:200])
    (tmp_path / "c.json").write_text('{"a": ')
    (tmp_path / ".c.json.1@00.tmp").write_text("{")
    assert {text.partition(" ")[0] for text in disturb.half_written(tmp_path)} == {"a.npz", "c.json"}
    assert disturb.left_over(tmp_path) == [".c.json.1@00.tmp was left"]


@FORKS
def test_killed_and_without_room_labels_are_equal_in_the_end(tmp_path: Path) -> None:
    command = next(command for command in disturb.COMMANDS if command.name == "data labels-2d")
    killed = disturb.kill(command, tmp_path / "kill", 2)
    assert not killed.bad, killed.bad
    assert killed.counts["equal in the end"] == 2
    filled = disturb.fill(command, tmp_path / "fill", 2)
    assert not filled.bad, filled.bad
    assert filled.counts["equal in the end"] == 2


@FORKS
def test_the_whole_drill_prints_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["--only", "voxel labels", "--tries", "5"]) == 0
    finally:
        torch.set_num_threads(threads)
    assert "| voxel labels | 5 |" in capsys.readouterr().out
