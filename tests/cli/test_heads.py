"""data heads."""

from __future__ import annotations

import json
from pathlib import Path

from frustum.data.portraits.opening import open_portraits
from tests.cli.conftest import Run


def test_heads_from_a_command(frustum: Run, tmp_path: Path) -> None:
    words = ("data", "heads", tmp_path / "heads", "--identities", 1, "--clips", 1, "--frames", 2, "--size", 64, "--workers", 1)
    run = frustum(*words, "--json", tmp_path / "made.json")
    assert run.code == 0
    assert "2 frames of 1 people" in run.out
    assert "2 pictures are new" in run.out
    assert json.loads((tmp_path / "made.json").read_text())["generated"] == 2
    assert len(open_portraits(tmp_path / "heads").tokens()) == 2
    assert (tmp_path / "heads" / "heads.jpg").is_file()
    assert "0 pictures are new" in frustum(*words).out

    status = frustum("data", "status", tmp_path / "heads")
    assert status.code == 0, status.err
    assert "read as Portraits, 19 classes" in status.out
    looks = ("--samples", 0, "--pictures", 1, "--augment", "--recipe", "heser-aligner-mini", "--out", tmp_path / "looks")
    checked = frustum("check", tmp_path / "heads", *looks)
    assert checked.code == 0, checked.err
    assert "2 images checked: nothing is wrong" in checked.out
    assert sorted(path.name for path in (tmp_path / "looks").rglob("*.png")) == ["00000.png", "00000_augmented.png"]

    other = frustum(*words, "--seed", 1)
    assert other.code == 2
    assert "seed was 0, now 1" in other.err
    assert "--overwrite" in other.err


def test_settings_that_are_not_allowed(frustum: Run, tmp_path: Path) -> None:
    run = frustum("data", "heads", tmp_path, "--size", 32)
    assert run.code == 2
    assert "size=32" in run.err
    assert frustum("data", "heads", tmp_path, "--people", "odd").code == 2
    assert not list(tmp_path.iterdir())
