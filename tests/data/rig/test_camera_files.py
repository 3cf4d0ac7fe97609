"""Calibrations of ROS and Kalibr, the template to fill in, and the cameras of a calibration.json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.rig.importer import import_rig, read_cameras, read_rig
from frustum.data.rig.template import write_template
from frustum.errors import ConfigError, DataError
from frustum.geometry import pose, rotation_xyz
from frustum.worlds.street.rigs import StreetRig

AHEAD = {"translation": [1.0, 0.1, 1.5], "rotation": [0.5, -0.5, 0.5, -0.5]}
SAVED = """
image_width: 120
image_height: 90
camera_name: narrow
camera_matrix: {rows: 3, cols: 3, data: [100.0, 0, 59.5, 0, 101.0, 44.5, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.2, 0.05, 0.001, 0.0, 0.0]}
projection_matrix: {rows: 3, cols: 4, data: [90, 0, 60, 0, 0, 90, 45, 0, 0, 0, 1, 0]}
"""
PRINTED = """
height: 90
width: 120
distortion_model: plumb_bob
D: [-0.2, 0.05, 0.001, 0.0, 0.0]
K: [100.0, 0.0, 59.5, 0.0, 101.0, 44.5, 0.0, 0.0, 1.0]
---
height: 1
"""
LEFT2RIGHT = pose(rotation_xyz(0.01, 0.02, 0.03), np.array([-0.5, 0.01, 0.02]))  # T_cn_cnm1: of cam1 and cam0


def camchain(**changes: Any) -> str:
    cameras: dict[str, Any] = {
        name: {
            "camera_model": "pinhole", "intrinsics": [100.0 + i, 101.0, 59.5, 44.5], "resolution": [120, 90],
            "distortion_model": "radtan", "distortion_coeffs": [-0.2, 0.05, 0.001, 0.0],
        }
        for i, name in enumerate(("cam0", "cam1"))
    }  # fmt: skip
    cameras["cam1"]["T_cn_cnm1"] = LEFT2RIGHT.tolist()
    cameras["cam1"] |= changes
    return json.dumps(cameras)  # JSON is YAML


def rig(folder: Path, text: str, *entries: dict[str, Any], **top: Any) -> Path:
    for entry in entries:
        (folder / entry["name"]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (120, 90)).save(folder / entry["name"] / "0.png")
    (folder / "lens.yaml").write_text(text)
    cameras = [{"images": f"{e['name']}/*.png", "intrinsics_from": "lens.yaml", **e} for e in entries]
    (folder / "calibration.json").write_text(json.dumps({"cameras": cameras, **top}))
    return folder


@pytest.mark.parametrize("text", [SAVED, PRINTED])
@pytest.mark.parametrize("origin", ["centre", "corner"])
def test_camera_info_of_ros(text: str, origin: str, tmp_path: Path) -> None:
    (camera,), _ = read_rig(rig(tmp_path, text, {"name": "front", "cam2ego": AHEAD}, pixel_origin=origin))
    np.testing.assert_allclose(camera.intrinsics, [[100, 0, 60], [0, 101, 45], [0, 0, 1]], err_msg="from the corner, whatever the origin")
    assert camera.size == (90, 120)
    made = import_rig(tmp_path, tmp_path / "db")
    assert made["undistorted_images"] == 1
    assert NuScenes(tmp_path / "db").sample(NuScenes(tmp_path / "db").tokens()[0]).cameras[0].intrinsics[0, 0] == 100
    (tmp_path / "lens.yaml").write_text(text.replace("100.0", "110.0"))
    with pytest.raises(DataError, match="this is another recording"):
        import_rig(tmp_path, tmp_path / "db")


def test_camchain_of_kalibr_says_where_the_second_camera_is(tmp_path: Path) -> None:
    left = {"name": "left", "kalibr_camera": "cam0"}
    right = {"name": "right", "kalibr_camera": "cam1", "cam2ego": AHEAD}
    (first, second), _ = read_rig(rig(tmp_path, camchain(), left, right))
    assert (first.intrinsics[0, 0], second.intrinsics[0, 0]) == (100, 101)
    point = np.array([0.3, -0.2, 5, 1])  # in the left camera
    np.testing.assert_allclose(first.cam2ego @ point, second.cam2ego @ LEFT2RIGHT @ point, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "entry", "words"),
    [
        (SAVED, {"fx": 100.0}, "gives fx and intrinsics_from"),
        ("a: [", {}, "is not valid YAML"),
        ("width: 3", {}, "does not say the camera matrix"),
        (SAVED.replace("101.0", "wide"), {}, "must hold numbers"),
        (PRINTED.replace("\nD:", "\ndist:"), {}, "does not say the distortion of the lens"),
        (SAVED.replace("[-0.2, 0.05, 0.001, 0.0, 0.0]", "[]").replace("plumb_bob", "equidistant"), {}, "has four"),
        (camchain(distortion_model="equidistant", distortion_coeffs=[]), {"kalibr_camera": "cam1"}, "has four"),
        (camchain(), {}, 'holds the cameras cam0, cam1; say which it is: "kalibr_camera": "cam0"'),
        (camchain(), {"kalibr_camera": "cam2"}, "did you mean"),
        (camchain(camera_model="omni"), {"kalibr_camera": "cam1"}, "calibrate it as pinhole"),
        (camchain(T_cn_cnm1=[[1]]), {"kalibr_camera": "cam1"}, "is no 4x4 transform"),
        (camchain(intrinsics=[1]), {"kalibr_camera": "cam1"}, "lacks the intrinsics"),
        (camchain(), {"intrinsics_from": "nowhere.yaml"}, "cannot be read"),
        (camchain(), {"intrinsics_from": "../lens.yaml"}, "outside the data set"),
    ],
)
def test_files_that_do_not_fit(text: str, entry: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        read_rig(rig(tmp_path, text, {"name": "front", "cam2ego": AHEAD, **entry}))


def test_the_template_is_refused_until_it_is_filled_in(tmp_path: Path) -> None:
    path = write_template(tmp_path / "rig", 3)
    content = json.loads(path.read_text())
    assert [camera["name"] for camera in content["cameras"]] == ["front", "back_left", "back_right"]
    with pytest.raises(DataError, match=r"fx of camera front .* must be a finite number, got None"):
        read_cameras(path)
    for camera in content["cameras"]:
        camera |= {"fx": 100, "fy": 100, "cx": 59.5, "cy": 44.5, "width": 120, "height": 90}
        camera["cam2ego"]["translation"] = [1, 0, 1.5]
    path.write_text(json.dumps(content))
    headings = [np.degrees(np.arctan2(c.cam2ego[1, 2], c.cam2ego[0, 2])) % 360 for c in read_cameras(path)]
    np.testing.assert_allclose(headings, [0, 120, 240], atol=1e-3)
    with pytest.raises(DataError, match="exists already"):
        write_template(tmp_path / "rig", 3)
    with pytest.raises(ConfigError, match="1 or more"):
        write_template(tmp_path, 0)
    assert len({c["name"] for c in json.loads(write_template(tmp_path / "many", 12).read_text())["cameras"]}) == 12


def test_a_street_rig_takes_a_calibration_as_it_is(tmp_path: Path) -> None:
    folder = rig(tmp_path, SAVED, {"name": "front-left", "cam2ego": AHEAD})
    found = [StreetRig.from_json(where) for where in (folder, folder / "calibration.json")]
    content = json.loads((folder / "calibration.json").read_text())
    (folder / "front-left" / "0.png").unlink()
    found.append(StreetRig.from_json((folder / "calibration.json").rename(folder / "mine.json")))
    assert found[0] == found[1] == found[2]
    (camera,) = found[0].cameras
    assert (camera.name, camera.width, camera.height, camera.cx) == ("CAM_FRONT-LEFT", 120, 90, 60)
    np.testing.assert_allclose(camera.cam2ego.sensor2ego[:3, 3], AHEAD["translation"])
    assert found[0].lidar == StreetRig.nuscenes().lidar
    entry = content["cameras"][0]
    del entry["intrinsics_from"]
    (folder / "calibration.json").write_text(json.dumps({"cameras": [entry | {"fx": 1, "fy": 1, "cx": 0, "cy": 0}]}))
    with pytest.raises(DataError, match='must state the size of its images: add "width" and "height"'):
        StreetRig.from_json(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fx": 4.2, "fy": 4.2}, "Focal lengths are in pixels, not millimetres"),
        ({"cx": 500}, "lies outside its images of 120x90 pixels"),
        ({"width": 120.5}, "whole numbers of pixels"),
        ({"width": -120}, "the width is -120 pixels"),
        ({"cam2ego": {**AHEAD, "translation": [1000, 100, 1500]}}, r"If these are millimetres, multiply them by 0.001 \(1.81 m\)"),
    ],
)
def test_a_street_rig_is_checked_as_an_import_is(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    entry = {"name": "front", "fx": 100, "fy": 100, "cx": 59.5, "cy": 44.5, "width": 120, "height": 90, "cam2ego": AHEAD}
    lidar = {"translation": [0.9, 0, 1.8], "rotation": [1, 0, 0, 0]}
    calibration, file = tmp_path / "calibration.json", tmp_path / "rig.json"
    for camera in (entry, entry | changes):
        calibration.write_text(json.dumps({"cameras": [camera]}))
        file.write_text(json.dumps({"cameras": [camera], "lidar": lidar}))
        if camera is entry:
            assert len(StreetRig.from_json(tmp_path).cameras) == len(StreetRig.from_json(file).cameras) == 1
    for where in (tmp_path, calibration):
        with pytest.raises(DataError, match=words):
            StreetRig.from_json(where)
    with pytest.raises((DataError, ConfigError), match=words if "width" not in changes else "wrong at 'cameras.0.width'"):
        StreetRig.from_json(file)


def test_a_street_rig_has_each_camera_once_and_unit_quaternions(tmp_path: Path) -> None:
    entry = {"name": "front", "fx": 100, "fy": 100, "cx": 59.5, "cy": 44.5, "width": 120, "height": 90, "cam2ego": AHEAD}
    (tmp_path / "calibration.json").write_text(json.dumps({"cameras": [entry, entry | {"name": "FRONT"}]}))
    with pytest.raises(DataError, match="names a camera twice"):
        StreetRig.from_json(tmp_path)
    skewed = {name: value for name, value in entry.items() if name not in ("fx", "fy", "cx", "cy")}
    skewed["intrinsics"] = [[100, 3, 59.5], [0, 100, 44.5], [0, 0, 1]]
    (tmp_path / "calibration.json").write_text(json.dumps({"cameras": [skewed]}))
    with pytest.raises(DataError, match="a skew of 3 pixels, but a world's cameras have none"):
        StreetRig.from_json(tmp_path)
    lidar = {"translation": [0.9, 0, 1.8], "rotation": [1, 0, 0, 0]}
    for cameras, mount, words in (
        ([entry, entry | {"name": "FRONT"}], lidar, "two cameras are named 'front'"),
        ([entry], lidar | {"rotation": [2, 0, 0, 0]}, "the length of its quaternion is 2"),
    ):
        (tmp_path / "rig.json").write_text(json.dumps({"cameras": cameras, "lidar": mount}))
        with pytest.raises(ConfigError, match=words):
            StreetRig.from_json(tmp_path / "rig.json")
    (tmp_path / "rig.json").write_text(json.dumps({"cameras": [entry], "lidar": lidar | {"translation": [900, 0, 1800]}}))
    with pytest.raises(DataError, match=r"lidar puts the sensor 2,012.5 m away"):
        StreetRig.from_json(tmp_path / "rig.json")
