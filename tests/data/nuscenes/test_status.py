"""`data status`: what is there, what is missing and where it comes from."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.splits import custom_splits
from frustum.data.nuscenes.status import data_status, write_whole_splits
from frustum.data.nuscenes.writer import DatabaseWriter
from frustum.data.rig.importer import import_rig
from frustum.errors import DataError
from tests.data.toy import VERSION, scene_record


@pytest.fixture
def root(toy_root, tmp_path) -> Path:
    return Path(shutil.copytree(toy_root, tmp_path / "toy"))


def items(root: Path, version: str | None = None):
    status = data_status(root, version)
    return status, {item.name: item for item in status.versions[0].items}


def test_a_complete_database(toy_root):
    status, found = items(toy_root)
    version = status.versions[0]
    assert (version.version, version.scenes, version.keyframes) == (VERSION, 2, 6)
    assert version.splits["train"] == version.splits["val"] == 1
    assert found["tables"].state == "complete"
    assert (found["samples/CAM_FRONT"].found, found["samples/CAM_FRONT"].expected) == (6, 6)
    assert (found["gts"].state, found["gts"].found, found["gts"].expected) == ("partial", 3, 6)
    assert found["occ3d_panoptic"].state == "missing"
    assert found["lidarseg"].state == "complete"
    assert status.advice.startswith("Ready")
    assert status.bytes_on_disk["samples"] == sum(p.stat().st_size for p in (toy_root / "samples").rglob("*") if p.is_file())
    json.dumps(asdict(status))


def test_missing_files_are_counted(root):
    for path in list((root / "samples" / "CAM_BACK").glob("*"))[:2]:
        path.unlink()
    status, found = items(root)
    assert (found["samples/CAM_BACK"].state, found["samples/CAM_BACK"].found) == ("partial", 4)
    assert found["samples/CAM_BACK"].get
    assert "missing" in status.advice


def test_a_part_of_the_images_is_enough_to_train_on(root):
    """Tables of all scenes and images of one, as with one archive of nuScenes."""
    lost = NuScenes(root, VERSION).scene(NuScenes(root, VERSION).tokens("val")[0]).name
    for path in (root / "samples").rglob(f"*{lost}__CAM_FRONT__*"):
        path.unlink()
    version = data_status(root).versions[0]
    (kept,) = {scene.name for scene in NuScenes(root, VERSION).scenes} - {lost}
    assert (version.scenes, version.whole["all"], version.whole["train"]) == (2, [kept], [kept])
    assert "val" not in version.whole
    before = custom_splits(root / VERSION)
    assert write_whole_splits(root, version)["train_whole"] == [kept]
    assert custom_splits(root / VERSION).items() >= before.items()
    dataset = NuScenes(root, VERSION)
    tokens = dataset.tokens("train_whole")
    assert len(tokens) == 3
    for token in tokens:
        for camera in dataset.sample(token).cameras:
            camera.open()
    assert data_status(root).versions[0].whole == version.whole
    with pytest.raises(DataError, match="which scenes have all their images"):
        dataset.sample(dataset.tokens("val")[0]).cameras[0].open()
    for path in (root / "samples").rglob("*CAM_FRONT__*"):
        path.unlink()
    with pytest.raises(DataError, match="no scene of"):
        write_whole_splits(root, data_status(root).versions[0])


def test_missing_and_damaged_tables(root):
    (root / VERSION / "sample.json").write_text("[{")
    status = data_status(root)
    assert "not valid JSON" in status.versions[0].problem
    assert "missing" in status.advice
    (root / VERSION / "ego_pose.json").unlink()
    _, found = items(root)
    assert (found["tables"].state, found["tables"].found) == ("partial", 12)
    assert "ego_pose" in found["tables"].get


def test_an_empty_folder_says_where_data_comes_from(tmp_path):
    status = data_status(tmp_path)
    assert status.versions == []
    for word in ("frustum data world", "nuscenes.org", "Occ3D", "GB"):
        assert word in status.advice


def test_wrong_root_and_version(tmp_path, toy_root):
    with pytest.raises(DataError, match="does not exist"):
        data_status(tmp_path / "nowhere")
    with pytest.raises(DataError, match=f"no version 'v1.0-mini'; it has {VERSION}"):
        data_status(toy_root, "v1.0-mini")


def test_cameras_alone_are_not_said_to_lack_generated_labels(tmp_path):
    folder = tmp_path / "rig"
    folder.mkdir()
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    camera = {"name": "front", "image": "a.png", "fx": 30, "fy": 30, "cx": 20, "cy": 15, "cam2ego": np.eye(4).tolist()}
    (folder / "calibration.json").write_text(json.dumps({"cameras": [camera]}))
    import_rig(folder, tmp_path / "out")
    status, found = items(tmp_path / "out")
    assert found["samples/CAM_FRONT"].state == "complete"
    for name in ("gts", "occ3d_panoptic", "lidarseg"):
        assert found[name].state == "missing"
        assert "predicting needs none" in found[name].get
        assert "generated" not in found[name].get
    assert status.advice.startswith("Ready")


def test_lost_labels_of_a_generated_set_can_be_made_again(tmp_path):
    writer = DatabaseWriter(tmp_path, VERSION)
    writer.add_scene(replace(scene_record(tmp_path, 0, 1), name="street-000-0000"))
    writer.finish({"train": ["street-000-0000"]})
    _, found = items(tmp_path)
    assert "run that command again" in found["gts"].get


@pytest.mark.data
def test_real_keyframes_lack_labels_only(shared):
    _, found = items(shared / "data" / "nuscenes_keyframes")
    assert found["tables"].state == found["samples/CAM_FRONT"].state == found["samples/LIDAR_TOP"].state == "complete"
    assert found["gts"].state == "missing"
    assert "Occ3D" in found["gts"].get
    assert "nuscenes.org" in found["lidarseg"].get
