"""The writer: tables that follow the schema, the same bytes from any number of workers, resumption, and refusals."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.nuscenes.records import AnnotationRecord, SceneRecord, SensorRecord, sample_data_token, sample_token
from frustum.data.nuscenes.tables import OPTIONAL_TABLES, TABLES
from frustum.data.nuscenes.writer import DatabaseWriter, map_file
from frustum.errors import DataError
from frustum.files import read_json
from tests.data.toy import VERSION, add_scene, scene_record, toy_database


def tables(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (root / VERSION).glob("*.json")}


@pytest.fixture(scope="module")
def rows(toy_root: Path) -> dict[str, list[dict]]:
    return {name: read_json(toy_root / VERSION / f"{name}.json") for name in (*TABLES, *OPTIONAL_TABLES)}


def test_every_reference_points_to_a_record(rows: dict[str, list[dict]]) -> None:
    known = {name: {r["token"] for r in table} for name, table in rows.items()}
    references = {
        "sample_token": "sample", "scene_token": "scene", "log_token": "log", "ego_pose_token": "ego_pose", "sensor_token": "sensor",
        "calibrated_sensor_token": "calibrated_sensor", "instance_token": "instance", "category_token": "category",
        "visibility_token": "visibility", "first_sample_token": "sample", "last_sample_token": "sample",
        "first_annotation_token": "sample_annotation", "last_annotation_token": "sample_annotation", "sample_data_token": "sample_data",
    }  # fmt: skip
    count = 0
    for name, table in rows.items():
        assert len(known[name]) == len(table), f"tokens of {name} are not unique"
        for row in table:
            for field, value in row.items():
                if field in references:
                    assert value in known[references[field]], (name, field)
                    count += 1
            for link in ("prev", "next"):
                assert row.get(link, "") in known[name] | {""}
    assert count > 150


def test_chains_lead_from_end_to_end(rows: dict[str, list[dict]]) -> None:
    for name in ("sample", "sample_data", "sample_annotation"):
        by_token = {r["token"]: r for r in rows[name]}
        seen = 0
        for row in rows[name]:
            if not row["prev"]:
                before = None
                while row is not None:
                    assert row["prev"] == (before["token"] if before else "")
                    seen += 1
                    before, row = row, by_token.get(row["next"])
        assert seen == len(rows[name])
    for instance in rows["instance"]:
        chain = [a for a in rows["sample_annotation"] if a["instance_token"] == instance["token"]]
        assert len(chain) == instance["nbr_annotations"]
        assert (chain[0]["token"], chain[-1]["token"]) == (instance["first_annotation_token"], instance["last_annotation_token"])


def test_sweeps_belong_to_the_following_keyframe(rows: dict[str, list[dict]]) -> None:
    times = {s["token"]: s["timestamp"] for s in rows["sample"]}
    sweeps = [f for f in rows["sample_data"] if not f["is_key_frame"]]
    assert len(sweeps) == 2 * 2 * 3
    for sweep in sweeps:
        assert 0 < times[sweep["sample_token"]] - sweep["timestamp"] <= 250_000
        assert sweep["filename"].startswith("sweeps/")


def test_fixed_tables(rows: dict[str, list[dict]], toy_root: Path) -> None:
    assert [c["index"] for c in rows["category"]] == list(range(32))
    assert rows["category"][17]["name"] == "vehicle.car"
    assert [v["token"] for v in rows["visibility"]] == ["1", "2", "3", "4"]
    assert len(rows["attribute"]) == 8
    assert {log for m in rows["map"] for log in m["log_tokens"]} == {log["token"] for log in rows["log"]}
    mask = Image.open(toy_root / rows["map"][0]["filename"])
    assert mask.mode == "L"
    assert rows["map"][0]["filename"] == "maps/36092f0b03a857c6a3403e25b4b7aab3.png"
    assert len(rows["lidarseg"]) == len(list((toy_root / "lidarseg" / VERSION).glob("*.bin"))) == len(rows["panoptic"]) == 6
    assert all(len(r["token"]) == 32 for name in TABLES if name != "visibility" for r in rows[name])
    assert {f["fileformat"] for f in rows["sample_data"]} == {"png", "pcd"}
    assert rows["sample"][0]["token"] == sample_token("scene-0001", rows["sample"][0]["timestamp"])
    assert rows["lidarseg"][0]["token"] == sample_data_token("scene-0001", "LIDAR_TOP", rows["sample"][0]["timestamp"])


def test_same_bytes_from_any_order_and_number_of_workers(tmp_path: Path) -> None:
    one, two = toy_database(tmp_path / "one", 3, 2), tmp_path / "two"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(add_scene, [two] * 3, [2, 0, 1], [2] * 3))
    DatabaseWriter(two, VERSION).finish({"train": ["scene-0001", "scene-0002"], "val": ["scene-0003"]})
    assert tables(one) == tables(two)
    assert len(tables(one)) == 16


def test_resume_knows_what_is_done(tmp_path: Path) -> None:
    writer = DatabaseWriter(tmp_path, VERSION)
    assert not writer.has_scene("scene-0001")
    writer.add_scene(scene_record(tmp_path, 0, 1, fingerprint="seed 1"))
    again = DatabaseWriter(tmp_path, VERSION)
    assert again.has_scene("scene-0001")
    assert again.has_scene("scene-0001", "seed 1")
    assert not again.has_scene("scene-0001", "seed 2")
    part = next((tmp_path / VERSION / "parts").iterdir())
    part.write_bytes(part.read_bytes()[:-20])
    assert not again.has_scene("scene-0001")
    with pytest.raises(DataError, match=r"damaged.*generate that scene again"):
        again.finish({})
    again.add_scene(scene_record(tmp_path, 0, 1))
    again.add_scene(scene_record(tmp_path, 1, 1))
    again.finish({"all": again.scenes()})
    again.add_scene(scene_record(tmp_path, 2, 1))
    again.finish({"all": again.scenes()})
    assert len(read_json(tmp_path / VERSION / "scene.json")) == 3
    assert not list(tmp_path.rglob("*.tmp*"))


def test_map_masks_are_written_where_the_devkit_looks(tmp_path: Path) -> None:
    writer = DatabaseWriter(tmp_path, VERSION)
    writer.add_scene(scene_record(tmp_path, 0, 1))
    writer.add_scene(replace(scene_record(tmp_path, 1, 1), location="karlsruhe"))
    mask = np.zeros((30, 40), np.uint8)
    mask[10:20] = 255
    writer.finish({}, {"boston-seaport": mask})
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / map_file("boston-seaport"))), mask)
    assert (tmp_path / map_file("karlsruhe")).is_file()
    assert len(read_json(tmp_path / VERSION / "map.json")) == 2


def test_finish_refuses_unknown_scenes_and_nothing(tmp_path: Path) -> None:
    writer = DatabaseWriter(tmp_path, VERSION)
    with pytest.raises(DataError, match="no scene"):
        writer.finish({})
    writer.add_scene(scene_record(tmp_path, 0, 1))
    with pytest.raises(DataError, match="did you mean 'scene-0001'"):
        writer.finish({"train": ["scene-001"]})


def test_disk_full_while_finishing_keeps_the_old_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = DatabaseWriter(tmp_path, VERSION)
    writer.add_scene(scene_record(tmp_path, 0, 1))
    writer.finish({})
    before = tables(tmp_path)
    writer.add_scene(scene_record(tmp_path, 1, 1))
    write_text = Path.write_text

    def full(self: Path, *args: object, **options: object) -> int:
        if "sample_data" in self.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_text(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DataError, match="disk is full"):
        writer.finish({})
    assert tables(tmp_path) == before
    assert not list(tmp_path.rglob("*.tmp*"))


def test_read_only_root_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        DatabaseWriter(tmp_path / "file")


def _broken(record: SceneRecord, what: str) -> SceneRecord:
    key = record.keyframes[0]
    box = key.annotations[0]
    skewed = np.diag([1.0, 2, 1, 1])
    changed: dict[str, dict] = {
        "does not have keyframes": {"keyframes": ()},
        "ascend": {"keyframes": (key, key)},
        "is not a sensor": {"sensors": record.sensors[1:]},
        "intrinsics": {"sensors": (replace(record.sensors[0], intrinsics=None), *record.sensors[1:])},
        "sensor2ego of CAM_FRONT": {"sensors": (replace(record.sensors[0], sensor2ego=skewed), *record.sensors[1:])},
        "before add_scene": {"keyframes": (replace(key, data=(replace(key.data[0], filename="samples/none.jpg"), *key.data[1:])),)},
        "relative": {"keyframes": (replace(key, data=(replace(key.data[0], filename="../x.jpg"), *key.data[1:])),)},
        "same timestamp": {"keyframes": (replace(key, data=(*key.data, key.data[0])),)},
        "twice": {"keyframes": (replace(key, annotations=(box, box)),)},
        "cannot be a file name": {"name": "a/b"},
    }
    fields: dict[str, AnnotationRecord] = {
        "'vehicle.car'": replace(box, category="vehicle.cra"),
        "unknown attribute": replace(box, attribute="vehicle.moved"),
        "visibility 0": replace(box, visibility=0),
        "width is 0 m": replace(box, size=(4.0, 0.0, 1.0)),
        "x is nan m": replace(box, box2global=np.full((4, 4), np.nan)),
    }
    if what in fields:
        return replace(record, keyframes=(replace(key, annotations=(fields[what],)),))
    return replace(record, **changed[what])


CASES = [
    "does not have keyframes", "ascend", "is not a sensor", "intrinsics", "sensor2ego of CAM_FRONT", "before add_scene", "relative",
    "same timestamp", "twice", "cannot be a file name", "'vehicle.car'", "unknown attribute", "visibility 0", "width is 0 m", "x is nan m",
]  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_inconsistent_scenes_are_refused(tmp_path: Path, what: str) -> None:
    record = scene_record(tmp_path, 0, 1)
    writer = DatabaseWriter(tmp_path, VERSION)
    with pytest.raises(DataError, match=what):
        writer.add_scene(_broken(record, what))
    assert not writer.scenes()


def test_scenes_must_not_start_together(tmp_path: Path) -> None:
    writer = DatabaseWriter(tmp_path, VERSION)
    record = scene_record(tmp_path, 0, 1)
    writer.add_scene(record)
    writer.add_scene(replace(record, name="scene-0009"))
    with pytest.raises(DataError, match="scene-0001 and scene-0009 start together"):
        writer.finish({})


def test_a_clash_of_starts_is_found_before_the_work(tmp_path: Path) -> None:
    writer = DatabaseWriter(tmp_path, VERSION)
    record = scene_record(tmp_path, 0, 2)
    writer.add_scene(record)
    first, last = writer.span("scene-0001")
    assert (first, last) == (record.keyframes[0].timestamp, record.keyframes[1].timestamp)
    with pytest.raises(DataError, match="scene-0001 and other start together"):
        writer.prepare({"other": first})
    with pytest.raises(DataError, match="a and b start together at 5"):
        writer.prepare({"a": 5, "b": 5})
    writer.prepare({"scene-0001": first, "other": last})  # the scene itself is to be replaced
    writer.finish({"train": ["scene-0001"]})  # nothing was left behind
    (tmp_path / VERSION / "splits.json").write_text("[]")
    with pytest.raises(DataError, match="must look like"):
        writer.prepare({"other": last})


def test_scenes_can_be_set_aside_and_taken_back(tmp_path: Path) -> None:
    writer = DatabaseWriter(toy_database(tmp_path, 2, 2), VERSION)
    before = tables(tmp_path)
    writer.set_aside("scene-0002")
    assert writer.scenes() == ["scene-0001"]
    assert not writer.has_scene("scene-0002")
    writer.finish({}, keep_splits=True)
    assert read_json(tmp_path / VERSION / "splits.json") == {"train": ["scene-0001"]}
    assert [s["name"] for s in read_json(tmp_path / VERSION / "scene.json")] == ["scene-0001"]
    writer.take_back("scene-0002")
    writer.take_back("scene-0002")
    writer.take_back("scene-0003")
    writer.finish({"val": ["scene-0002"]}, keep_splits=True)
    after = tables(tmp_path)
    assert read_json(tmp_path / VERSION / "splits.json") == {"val": ["scene-0002"], "train": ["scene-0001"]}
    assert all(after[name] == before[name] for name in before if name != "splits.json")
    with pytest.raises(DataError, match="cannot write"):
        writer.set_aside("scene-0007")


def test_scenes_must_agree_about_shared_sensors(tmp_path: Path) -> None:
    writer = DatabaseWriter(tmp_path, VERSION)
    writer.add_scene(scene_record(tmp_path, 0, 1))
    other = scene_record(tmp_path, 1, 1)
    radar = SensorRecord("LIDAR_TOP", "radar", np.eye(4))
    writer.add_scene(replace(other, sensors=(*other.sensors[:-1], radar)))
    with pytest.raises(DataError, match="disagree"):
        writer.finish({})
