"""data import: what the command hands to the importers, and what it says about their result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from frustum.engine.progress import loop_progress
from frustum.errors import ConfigError, DataError
from tests.cli.conftest import Run

MADE = {
    "drives": ["2011_09_26_drive_0005_sync"],
    "frames": 154,
    "boxes": 717,
    "new_frames": 154,
    "occupied_share": 0.08,
    "mask_lidar_share": 0.27,
    "mask_camera_share": 0.02,
    "splits": {"train": ["a"], "val": ["b"]},
    "voxels": {"car": 5},
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replaces the importer of KITTI drives; collects its arguments."""
    found: list[dict[str, Any]] = []

    def fake(src: Path, dst: Path, **options: Any) -> dict[str, Any]:
        assert list(options["progress"]("loop", [1, 2, 3])) == [1, 2, 3]
        found.append({"src": src, "dst": dst, **options})
        return dict(MADE)

    monkeypatch.setattr("frustum.data.kitti.importer.import_kitti_raw", fake)
    return found


def test_splits_are_passed_on(calls: list[dict[str, Any]], frustum: Run, tmp_path: Path) -> None:
    words = ("--train", "0-119", "--val", "120-153", "--drive", "0005", "--json", tmp_path / "made.json")
    code, out, err = frustum("data", "import", "kitti-raw", tmp_path, tmp_path / "db", *words)
    assert code == 0, err
    (call,) = calls
    assert call["splits"] == {"train": "0-119", "val": "120-153"}
    assert call["drive"] == "0005"
    assert (call["src"], call["dst"]) == (tmp_path, tmp_path / "db")
    assert "154 keyframes with 717 boxes" in out
    assert "27.00" in out
    assert json.loads((tmp_path / "made.json").read_text()) == MADE


def test_without_splits_the_importer_chooses(calls: list[dict[str, Any]], frustum: Run, tmp_path: Path) -> None:
    frustum("data", "import", "kitti-raw", tmp_path, tmp_path / "db")
    assert calls[0]["splits"] is None


def test_one_split_alone(calls: list[dict[str, Any]], frustum: Run, tmp_path: Path) -> None:
    frustum("data", "import", "kitti-raw", tmp_path, tmp_path / "db", "--val", "3-9")
    assert calls[0]["splits"] == {"val": "3-9"}


@pytest.mark.parametrize(("error", "code"), [(ConfigError("the splits share frames"), 2), (DataError("no scans"), 3)])
def test_errors_keep_their_code(error: Exception, code: int, frustum: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr("frustum.data.kitti.importer.import_kitti_raw", fail)
    outcome = frustum("data", "import", "kitti-raw", tmp_path, tmp_path / "db")
    assert outcome.code == code
    assert outcome.err == f"error: {error}\n"


def test_progress_yields_everything(capsys: pytest.CaptureFixture[str]) -> None:
    items: Sequence[int] = list(range(7))
    assert list(loop_progress("counting", items)) == items
    assert "counting: 7/7" in capsys.readouterr().out


def test_a_folder_with_brackets_is_printed_whole(calls: list[dict[str, Any]], frustum: Run, tmp_path: Path) -> None:
    root = tmp_path / "kitti [2011] [/red]"
    code, out, err = frustum("data", "import", "kitti-raw", tmp_path, root)
    assert code == 0, err
    assert f"are in {root}, 154 of them are new. Check them: frustum check {root}\n" in out
