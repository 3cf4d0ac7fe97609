"""Times that are not seconds and positions that are not metres are refused before anything is written, with the factor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frustum.data.check.inspection import inspect
from frustum.data.check.rig import inspect_mounting
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.rig.importer import import_rig
from frustum.errors import DataError, FrustumWarning
from frustum.files import read_json, write_json
from tests.data.rig.test_importer import calibration, write_rig


def rig(stamps: list[float], **others: Any) -> dict[str, Any]:
    content = calibration(("front",)) | others
    del content["cameras"][0]["images"]
    content["frames"] = [{"timestamp": stamp, "images": {"front": f"front/{k:03d}.png"}} for k, stamp in enumerate(stamps)]
    return content


def imported(folder: Path, out: Path, content: dict[str, Any]) -> NuScenes:
    frames = len(content["frames"])
    import_rig(write_rig(folder, content, ("front",), frames), out)
    return NuScenes(out)


@pytest.mark.parametrize(
    ("stamps", "unit"),
    [
        ([1.6e18, 1.6e18 + 5e8], "ns"),
        ([1.6e15, 1.6e15 + 5e5], "us"),
        ([1.6e12, 1.6e12 + 500], "ms"),
        ([0.0, 500.0, 1000.0], "ms"),
        ([0.0, 33.0, 66.0, 100.0], "ms"),
        ([0.0, 1e5, 2e5], "us"),
        ([12e12, 12e12 + 1e8], "ns"),
        ([1.6e18], "ns"),
        ([1.6e12], "ms"),
    ],
)
def test_times_of_another_unit_are_refused_or_converted(tmp_path: Path, stamps: list[float], unit: str) -> None:
    with pytest.raises(DataError, match=f'write "time_unit": "{unit}"'):
        imported(tmp_path / "rig", tmp_path / "out", rig(stamps))
    assert not (tmp_path / "out").exists()
    dataset = imported(tmp_path / "rig", tmp_path / "out", rig(stamps, time_unit=unit))
    factor = {"ms": 1e-3, "us": 1e-6, "ns": 1e-9}[unit]
    times = [dataset.sample(token).timestamp for token in dataset.tokens()]
    np.testing.assert_allclose(np.diff(times), np.diff(stamps) * factor, atol=2e-6)
    if stamps[0] * factor > 1e8:
        assert times[0] == pytest.approx(stamps[0] * factor, abs=1e-5)


@pytest.mark.parametrize(
    ("stamps", "options", "words"),
    [
        ([0.0, 0.5, 0.5], {}, "two frames .* have the timestamp 0.5"),
        ([0.0, 60.0], {"time_unit": "minutes"}, 'must be "s", "ms", "us" or "ns"'),
        ([1.6e15, 1.6e15 + 5e5], {"time_unit": "s"}, '"time_unit": "us"'),
        ([0.0, 0.5, 1.0], {"time_unit": "ms"}, '"time_unit": "s"'),
        ([0.0, 0.5, 1.0, 1.6e9], {}, "jump by 18,518.5 days"),
        ([0.0, 0.5 / 3600, 1 / 3600], {}, "Minutes, hours or days are multiplied by 60, 3600 or 86400"),
    ],
)
def test_times_that_cannot_be(tmp_path: Path, stamps: list[float], options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        imported(tmp_path / "rig", tmp_path / "out", rig(stamps, **options))
    assert not (tmp_path / "out").exists()


def test_slow_recordings_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='If they are right, write "time_unit": "s"'):
        imported(tmp_path / "rig", tmp_path / "out", rig([0.0, 60.0]))
    assert len(imported(tmp_path / "rig", tmp_path / "out", rig([0.0, 60.0], time_unit="s")).tokens()) == 2


@pytest.mark.parametrize("factor", [1000, 100])
def test_positions_in_other_units(tmp_path: Path, factor: float) -> None:
    content = rig([0.0, 0.5])
    content["cameras"][0]["cam2ego"]["translation"] = [1.5 * factor, 0.0, 1.6 * factor]
    with pytest.raises(DataError, match=r"2,?19\d?\.\d m away.*multiply them by 0\.001"):
        imported(tmp_path / "rig", tmp_path / "out", content)
    content = rig([0.0, 0.5])
    for k, frame in enumerate(content["frames"]):
        frame["ego2global"] = np.eye(4).tolist()
        frame["ego2global"][0][3] = 5.0 * k * factor
    with pytest.raises(DataError, match=r"vehicle moves at 10?,?000 m/s.*multiply them by 0\.001"):
        imported(tmp_path / "rig", tmp_path / "out", content)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ([0.0, 0.003, 0.006], "hardly moves, 0.006 m/s.*kilometres, or degrees of a GPS"),
        ([0.0, 3.0, 6.0, 9.0, 2009.0, 2012.0], "jumps by 2,000.0 m between the frames 3 and 4"),
    ],
)
def test_poses_that_may_be_wrong_are_noted(tmp_path: Path, positions: list[float], words: str) -> None:
    content = rig([0.5 * k for k in range(len(positions))])
    for frame, x in zip(content["frames"], positions, strict=True):
        frame["ego2global"] = np.eye(4).tolist()
        frame["ego2global"][0][3] = x
    with pytest.warns(FrustumWarning, match=words):
        imported(tmp_path / "rig", tmp_path / "out", content)


def test_check_warns_of_a_camera_far_away(tmp_path: Path) -> None:
    content = rig([0.0, 0.5])
    content["cameras"][0]["cam2ego"]["translation"] = [12.0, 0.0, 1.6]
    dataset = imported(tmp_path / "rig", tmp_path / "out", content)
    (finding,) = inspect_mounting(dataset.sample(dataset.tokens()[0]).cameras[0])
    assert (finding.severity, finding.what) == ("warning", "CAM_FRONT: it sits 12.1 m away from the origin of the ego frame")


def test_a_scene_with_impossible_times_does_not_take_others_with_it(tmp_path: Path) -> None:
    imported(tmp_path / "good", tmp_path / "out", rig([1.5e9, 1.5e9 + 0.5]))
    dataset = imported(tmp_path / "bad", tmp_path / "out", rig([1.6e9, 1.6e9 + 0.5]))
    good = dataset.tokens("good")
    for table in ("sample", "sample_data"):
        path = dataset.folder / f"{table}.json"
        rows = read_json(path)
        write_json(path, [row | {"timestamp": row["timestamp"] * 10**9} if row["timestamp"] > 1.55e15 else row for row in rows])
    dataset = NuScenes(tmp_path / "out")
    assert dataset.tokens() == dataset.tokens("test") == good
    assert dataset.left_out == ("bad",)
    sample = dataset.sample(good[1], history=1, camera_sweeps=1)
    assert (sample.timestamp, len(sample.history), len(sample.boxes)) == (1.5e9 + 0.5, 1, 0)
    with pytest.raises(DataError, match=r"'bad'.*left out: it has timestamps"):
        dataset.tokens("bad")
    (finding,) = [f for f in inspect(dataset) if f.severity == "error"]
    assert "the scene bad is left out" in finding.what


def test_check_warns_of_keyframes_in_another_unit(tmp_path: Path) -> None:
    dataset = imported(tmp_path / "rig", tmp_path / "out", rig([1.5e9, 1.5e9 + 0.5]))
    path = dataset.folder / "sample.json"
    write_json(path, [row | {"timestamp": round(row["timestamp"] / 1e6 * 1e3)} for row in read_json(path)])
    assert any("are not as far apart as in a recording: 0.0005 s in rig" in f.what for f in inspect(NuScenes(tmp_path / "out")))
