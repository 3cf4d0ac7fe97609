"""The cached index: used when the tables are the same, built again when they or the cache changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from frustum.data.nuscenes import index as index_module
from frustum.data.nuscenes.index import Index, cache_folder, tables_key
from frustum.data.nuscenes.lacking import lacking
from frustum.data.nuscenes.reader import NuScenes
from frustum.errors import DataError
from frustum.files import read_json, write_json
from tests.data.toy import VERSION


@pytest.fixture
def root(toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private copy of the tables, and an empty cache."""
    monkeypatch.setenv("FRUSTUM_CACHE", str(tmp_path / "cache"))
    shutil.copytree(toy_root / VERSION, tmp_path / "db" / VERSION)
    return tmp_path / "db"


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k], equal_nan=a[k].dtype.kind == "f") for k in a)


def test_second_opening_reads_only_the_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Index(root / VERSION)
    parts = [first.frames, first.boxes, first.sweeps]
    assert len(list(cache_folder().glob("nuscenes-*.npz"))) == 3

    def refuse(*_: object) -> None:
        raise AssertionError("the tables were read again")

    for name in ("build_frames", "build_boxes", "build_sweeps"):
        monkeypatch.setattr(index_module, name, refuse)
    again = Index(root / VERSION)
    for a, b in zip(parts, [again.frames, again.boxes, again.sweeps], strict=True):
        assert equal(a, b)


def test_nothing_is_built_before_it_is_needed(root: Path) -> None:
    reader = NuScenes(root, VERSION, camera_only=True)
    assert not cache_folder().exists()
    reader.sample(reader.tokens()[0], with_boxes=False)
    assert [p.stem.rsplit("-", 1)[1] for p in cache_folder().iterdir()] == ["frames"]


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "text", "pickle"])
def test_a_damaged_cache_is_built_again(root: Path, damage: str) -> None:
    good = Index(root / VERSION).frames
    path = next(cache_folder().glob("*-frames.npz"))
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        position = content.index(b"scene-0001")
        content[position] ^= 1
        path.write_bytes(content)
    elif damage == "pickle":
        np.savez(path, scene_name=np.array([{}], dtype=object))
    else:
        path.write_bytes({"empty": b"", "truncated": bytes(content[:-100]), "text": b"hello"}[damage])
    assert equal(Index(root / VERSION).frames, good)
    with np.load(path, allow_pickle=False) as archive:
        assert archive["scene_name"][0] == b"scene-0001"


def test_the_key_follows_the_content(root: Path) -> None:
    before = tables_key(root / VERSION)
    assert tables_key(root / VERSION) == before
    rows = read_json(root / VERSION / "scene.json")
    rows[0]["description"] = "changed"
    write_json(root / VERSION / "scene.json", rows)
    assert tables_key(root / VERSION) != before
    assert NuScenes(root, VERSION).scenes[0].description == "changed"


def test_large_tables_are_sampled_at_both_ends(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_WHOLE", 1000)
    monkeypatch.setattr(index_module, "_SAMPLED", 100)
    before = tables_key(root / VERSION)
    path = root / VERSION / "ego_pose.json"
    path.write_bytes(path.read_bytes() + b" ")
    assert tables_key(root / VERSION) != before


def test_a_cache_that_cannot_be_written_is_no_error(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FRUSTUM_CACHE", str(tmp_path / "file" / "cache"))
    assert len(NuScenes(root, VERSION).tokens()) == 6


def test_the_default_cache_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRUSTUM_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "frustum"


@pytest.mark.parametrize(
    ("table", "field", "words"),
    [("sample_data", "ego_pose_token", "do not belong together"), ("sample_annotation", "instance_token", "do not belong together"),
     ("sample", None, "lacks the field 'timestamp'"), ("sample_annotation", None, "lacks the field 'size'")],
)  # fmt: skip
def test_tables_that_do_not_fit_are_explained(root: Path, table: str, field: str | None, words: str) -> None:
    rows = read_json(root / VERSION / f"{table}.json")
    if field:
        rows[0][field] = "f" * 32
    else:
        del rows[1]["timestamp" if table == "sample" else "size"]
    write_json(root / VERSION / f"{table}.json", rows)
    reader = NuScenes(root, VERSION)
    with pytest.raises(DataError, match=words):
        reader.sample(reader.tokens()[0])


def test_broken_tables_are_explained(root: Path) -> None:
    path = root / VERSION / "sample_data.json"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"sample_data.json is not valid JSON"):
        NuScenes(root, VERSION).tokens()
    path.write_text("{}")
    with pytest.raises(DataError, match="must be a JSON list"):
        NuScenes(root, VERSION).tokens()
    path.unlink()
    with pytest.raises(DataError, match=r"sample_data.json is missing; a nuScenes database needs all of attribute, "):
        NuScenes(root, VERSION)


def _edited(root: Path, target: Path, table: str, change: Callable[[list[dict[str, Any]]], None]) -> NuScenes:
    copied = Path(shutil.copytree(root, target))
    (path,) = copied.glob(f"*/{table}.json")
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))
    return NuScenes(copied, path.parent.name)


def test_a_stated_distortion_is_refused(toy_root: Path, tmp_path: Path) -> None:
    """tier4's format has it beside the intrinsics; zeros and [] are none."""

    def state(numbers: list[float]) -> Callable[[list[dict[str, Any]]], None]:
        return lambda rows: rows[0].update(camera_distortion=numbers)

    for number, given in enumerate(([], [0, 0, 0, 0, 0])):
        assert _edited(toy_root, tmp_path / str(number), "calibrated_sensor", state(given)).tokens()
    with pytest.raises(DataError, match=r"camera_distortion for .*Undistort them.*camera_distortion: \[\]"):
        _edited(toy_root, tmp_path / "bad", "calibrated_sensor", state([-0.3, 0.1, 0, 0, 0])).tokens()


@pytest.mark.parametrize(
    ("said", "is_refused"),
    [
        ({"distortion": [-0.3, 0.1, 0, 0]}, True),
        ({"dist_coeffs": [[-0.3, 0.1, 0, 0, 0]]}, True),
        ({"D": [0.1]}, True),
        ({"camera_distortion": {"k1": -0.3}}, True),
        ({"camera_distortion": "-0.3, 0.1"}, True),
        ({"camera_distortion": [0, 0, 0, 0], "camera_distortion_model": "fisheye"}, True),
        ({"camera_model": "omni"}, True),
        ({"distortion": {"model": "equidistant", "coefficients": [0, 0, 0, 0]}}, True),
        ({"distortion": None, "D": [0.0, 0], "distortion_model": "plumb_bob", "camera_model": "Pinhole", "camera_distortion": {}}, False),
        ({"distance": 3.0, "description": "roof"}, False),
    ],
)
def test_a_distortion_of_another_name_is_refused_too(toy_root: Path, tmp_path: Path, said: dict[str, Any], is_refused: bool) -> None:
    dataset = _edited(toy_root, tmp_path / "data", "calibrated_sensor", lambda rows: rows[0].update(said))
    if is_refused:
        with pytest.raises(DataError, match=r"calibrated_sensor.json states a .* read as those of a pinhole camera"):
            dataset.tokens()
    else:
        assert dataset.tokens()


@pytest.mark.parametrize("table", ["sample_data", "sensor"])
def test_two_files_of_one_sensor_and_keyframe_are_refused(toy_root: Path, tmp_path: Path, table: str) -> None:
    def double(rows: list[dict[str, Any]]) -> None:
        if table == "sensor":
            cameras = [row for row in rows if row["modality"] == "camera"]
            cameras[1]["channel"] = cameras[0]["channel"]
        else:
            rows.append(_camera_rows(rows)[0] | {"token": "another", "filename": _camera_rows(rows)[-1]["filename"]})

    with pytest.raises(DataError, match=r"gives the keyframe \w+ two files of CAM\w+, samples/.* and samples/"):
        _edited(toy_root, tmp_path / "data", table, double).tokens()


def test_two_scenes_of_one_name_are_refused(toy_root: Path, tmp_path: Path) -> None:
    """Labels and splits go by the name."""
    with pytest.raises(DataError, match="1 names of several scenes, "):
        _edited(toy_root, tmp_path / "data", "scene", lambda rows: rows[1].update(name=rows[0]["name"])).tokens()


def test_files_marked_as_invalid_are_left_out(toy_root: Path, tmp_path: Path) -> None:
    marked: list[str] = []

    def mark(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["is_key_frame"] and "CAM" in row["filename"])
        row["is_valid"] = False
        marked.append(row["filename"])

    dataset = _edited(toy_root, tmp_path / "data", "sample_data", mark)
    whole = NuScenes(toy_root, dataset.version)
    first = dataset.tokens()[0]
    assert dataset.invalid_files(dataset.tokens()) == {first: marked}
    assert dataset.invalid_files(dataset.tokens()[1:]) == {}
    count = [sum(len(d.sample(t).cameras) for t in d.tokens()) for d in (dataset, whole)]
    assert count[0] == count[1] - 1
    told = lacking(dataset, dataset.tokens())
    assert told[0].startswith(f"1 files of 1 of {len(dataset.tokens())} keyframes are marked with is_valid: false")
    assert f"no image of {Path(marked[0]).parent.name}" in told[1]
    assert lacking(whole, whole.tokens()) == []


def test_a_keyframe_without_a_valid_image_is_left_out(toy_root: Path, tmp_path: Path) -> None:
    def mark(rows: list[dict[str, Any]]) -> None:
        keyframe = next(row["sample_token"] for row in rows if row["is_key_frame"])
        for row in rows:
            if row["sample_token"] == keyframe and "CAM" in row["filename"]:
                row["is_valid"] = False

    dataset = _edited(toy_root, tmp_path / "data", "sample_data", mark)
    whole = NuScenes(toy_root, dataset.version)
    (gone,) = dataset.imageless
    assert dataset.tokens() == [token for token in whole.tokens() if token != gone]
    assert gone not in dataset.tokens(whole.scene(gone).name)
    assert lacking(dataset, dataset.tokens())[0].startswith("1 keyframes of the data set are left out")


def test_is_key_frame_must_be_true_or_false(toy_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is_key_frame: 'false' of .*must be true or false"):
        _edited(toy_root, tmp_path / "data", "sample_data", lambda rows: rows[0].update(is_key_frame="false")).tokens()


@pytest.mark.parametrize(("said", "is_kept"), [(None, True), (True, True), (1, True), (0, False)])
def test_is_valid_says_yes_or_no(toy_root: Path, tmp_path: Path, said: Any, is_kept: bool) -> None:
    dataset = _edited(toy_root, tmp_path / "data", "sample_data", lambda rows: rows[0].update(is_valid=said))
    assert bool(dataset.invalid_files([*dataset.tokens(), *dataset.imageless])) != is_kept


def test_another_is_valid_is_refused(toy_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is_valid: 'no' of .*must be true or false"):
        _edited(toy_root, tmp_path / "data", "sample_data", lambda rows: rows[0].update(is_valid="no")).tokens()


def _camera_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Images of one calibration."""
    cameras = [row for row in rows if "CAM" in row["filename"]]
    return [row for row in cameras if row["calibrated_sensor_token"] == cameras[0]["calibrated_sensor_token"]]


def test_two_sizes_of_one_calibration_are_refused(toy_root: Path, tmp_path: Path) -> None:
    def state(rows: list[dict[str, Any]]) -> None:
        row = _camera_rows(rows)[-1]
        row.update(width=2 * row["width"], height=2 * row["height"])

    with pytest.raises(DataError, match=r"share one calibrated_sensor and have different sizes, \d+x\d+ \(samples/CAM.*and \d+x\d+"):
        _edited(toy_root, tmp_path / "stated", "sample_data", state).tokens()


def test_sizes_are_not_read_from_files_outside(toy_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="outside"):
        _edited(
            toy_root, tmp_path / "data", "sample_data", lambda rows: _camera_rows(rows)[0].update(width=0, height=0, filename="../../a.jpg")
        ).tokens()


@pytest.mark.parametrize("unstated", [0, None, "absent"])
def test_sizes_that_are_not_stated_are_those_of_the_images(toy_root: Path, tmp_path: Path, unstated: Any) -> None:
    def forget(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row.update(width=unstated, height=unstated)
            if unstated == "absent":
                del row["width"], row["height"]

    dataset = _edited(toy_root, tmp_path / "data", "sample_data", forget)
    whole = NuScenes(toy_root, dataset.version)
    for token in whole.tokens():
        assert [c.size for c in dataset.sample(token).cameras] == [c.size for c in whole.sample(token).cameras]

    changed = tmp_path / "changed"
    _edited(toy_root, changed, "sample_data", forget)
    row = _camera_rows(json.loads((changed / dataset.version / "sample_data.json").read_text()))[-1]
    with Image.open(changed / row["filename"]) as image:
        image.resize((image.width // 2, image.height // 2)).save(changed / row["filename"])
    with pytest.raises(DataError, match=r"have different sizes, .*Scale the others"):
        NuScenes(changed, dataset.version).tokens()
    (changed / row["filename"]).unlink()  # as with one archive of several
    (changed / dataset.version / "sample_data.json").touch()
    camera = next(c for t in whole.tokens() for c in NuScenes(changed, dataset.version).sample(t).cameras if c.path.name in row["filename"])
    assert min(camera.size) > 0
