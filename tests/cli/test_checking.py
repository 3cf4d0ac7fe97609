"""check and data status on a generated world, whole and damaged."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from frustum.cli.checking import print_findings, what_to_look_for
from frustum.data.check.findings import Finding
from frustum.errors import DataError
from tests.cli.conftest import Run

TABLES = "v1.0-trainval"


@pytest.fixture
def world(street_root: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(street_root, tmp_path / "world"))


def test_a_sound_world(street_root: Path, frustum: Run, tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    code, text, err = frustum("check", street_root, "--samples", 2, "--pictures", 1, "--out", out, "--json", tmp_path / "check.json")
    found = json.loads((tmp_path / "check.json").read_text())
    assert code == 0, err + text
    assert found["errors"] == 0
    assert found["keyframes"] == 2
    assert [Path(file).stem.rpartition("_")[2] for file in found["pictures"]] == ["stitched", "points", "classes", "voxels", "above"]
    assert all(Path(file).is_file() for file in found["pictures"])
    assert "LiDAR points, 2D labels, boxes and voxels must lie on what they belong to" in " ".join(text.split())
    assert "2 keyframes checked" in text


def test_without_lidar_nothing_is_said_to_be_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_findings([], 3)
    assert "3 keyframes checked: nothing is wrong." in capsys.readouterr().out
    print_findings([], 3, is_measured=False)
    out = " ".join(capsys.readouterr().out.split())
    assert "nothing is wrong" not in out
    assert "3 keyframes checked: nothing that numbers show is wrong. There is no LiDAR" in out
    assert "*_stitched.png" in out


def test_cameras_alone(frustum: Run, tmp_path: Path) -> None:
    """Without LiDAR: one warning about the camera that lies on its side, pictures of the ground, and a text that says what is drawn."""
    folder = tmp_path / "rig"
    names, rotations = ("front", "rear"), ([0.5, -0.5, 0.5, -0.5], [0.5, 0.5, -0.5, 0.5])
    for name in names:
        (folder / name).mkdir(parents=True)
        for k in range(2):
            Image.new("RGB", (120, 90), (90, 90, 90)).save(folder / name / f"{k}.png")
    entries = [
        {"name": n, "images": f"{n}/*.png", "fx": 100, "fy": 100, "cx": 59.5, "cy": 44.5,
         "cam2ego": {"translation": [1, 0, 1.5], "rotation": r}}
        for n, r in zip(names, rotations, strict=True)
    ]  # fmt: skip
    (folder / "calibration.json").write_text(json.dumps({"cameras": entries}))
    code, text, err = frustum("check", folder, "--out", tmp_path / "out [1]", "--json", tmp_path / "check.json")
    assert code == 0, err + text
    found = json.loads((tmp_path / "check.json").read_text())
    warnings = [f["what"] for f in found["findings"] if f["severity"] == "warning"]
    assert warnings == ["CAM_REAR: its image is rolled by 90 degrees counter-clockwise"]
    assert "1 error or warning. There is no LiDAR to compare with" in " ".join(text.split())
    assert {Path(file).stem.rsplit("_", 1)[1] for file in found["pictures"]} == {"stitched", "ground", "above"}
    assert f"6 pictures are in {tmp_path / 'out [1]'}: without LiDAR, the grid must lie on the road" in text
    assert "boxes" not in text.rsplit("pictures are in", 1)[1]


def test_one_line_per_kind_of_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """Of 30 images that were taken late, the first is named, and how many there are; another camera is another kind."""
    late = [Finding("warning", f"{k:032x}", f"CAM_FRONT: the image was taken +0.{k:02} s away", "Pair them again.") for k in range(30)]
    lost = [Finding("error", f"{k:032x}", f"the image /data/{k:032x}.jpg does not exist", "Restore it.") for k in range(2)]
    other = Finding("warning", "", "CAM_BACK: the image was taken +0.30 s away", "Pair them again.")
    boxes = [Finding("note", "a", f"{k} of 9 boxes hold no point ({k} car, 1 bus)", "Usual.") for k in range(3)]
    print_findings([*lost, *late, other, *boxes], 30, where=lambda token: f"street_{int(token, 16)}")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2 * 4 + 1
    assert lines[0].endswith(f"street_0: the image /data/{0:032x}.jpg does not exist; and 1 more like this (--json has all)")
    assert "street_0: CAM_FRONT: the image was taken +0.00 s away; and 29 more like this" in lines[2]
    assert lines[4].endswith("CAM_BACK: the image was taken +0.30 s away")
    assert "0 of 9 boxes hold no point (0 car, 1 bus); and 2 more" in lines[6]
    assert lines[-1] == "30 keyframes checked: 33 errors and warnings."


def test_findings_and_pictures_are_named_by_scene_and_time(world: Path, frustum: Run, tmp_path: Path) -> None:
    for image in (world / "samples" / "CAM_FRONT").glob("*.jpg"):
        image.write_bytes(image.read_bytes()[:-200])
    _, text, _ = frustum("check", world, "--samples", 1, "--pictures", 1, "--out", tmp_path / "out", "--json", tmp_path / "check.json")
    found = json.loads((tmp_path / "check.json").read_text())
    scene_and_time = Path(found["pictures"][0]).stem.rpartition("_")[0]
    assert re.fullmatch(r"street-\d{3}-\d{4}_\d{13}", scene_and_time)
    assert f"{scene_and_time}: CAM_FRONT: " in text


def test_pictures_of_other_data_are_not_mixed(street_root: Path, frustum: Run, tmp_path: Path) -> None:
    words = ("--samples", 1, "--pictures", 1, "--out", tmp_path / "check")
    (tmp_path / "check").mkdir()
    (tmp_path / "check" / "monday_1600000000000_above.png").touch()
    code, _, err = frustum("check", street_root, *words)
    assert code == DataError.exit_code
    assert "holds 1 files of other data, monday_1600000000000_above.png first" in err
    assert f"--out {tmp_path / 'check'}_{street_root.name}" in err
    (tmp_path / "check" / "monday_1600000000000_above.png").unlink()
    assert frustum("check", street_root, *words).code == 0
    assert frustum("check", street_root, *words).code == 0, "its own may be drawn again"


@pytest.mark.parametrize(
    ("drawn", "text"),
    [
        ({"LiDAR points"}, "LiDAR points must lie on what they belong to."),
        ({"voxels", "boxes", "LiDAR points"}, "LiDAR points, boxes and voxels must lie on what they belong to."),
        ({"boxes", "ground"}, "boxes must lie on what they belong to; without LiDAR, the grid must lie on the road"),
    ],
)
def test_the_closing_sentence(drawn: set[str], text: str) -> None:
    assert what_to_look_for(drawn).startswith(text)


def test_augmented_pictures(street_root: Path, frustum: Run, tmp_path: Path) -> None:
    code, _, err = frustum("check", street_root, "--samples", 1, "--pictures", 1, "--out", tmp_path, "--augment")
    assert code == 0, err
    assert list(tmp_path.glob("*_augmented*.png"))


def test_a_wrong_calibration_is_an_error(world: Path, frustum: Run, tmp_path: Path) -> None:
    """Every camera looks at the sky: the tables are valid, the pictures are not."""
    path = world / TABLES / "calibrated_sensor.json"
    rows = json.loads(path.read_text())
    for row in rows:
        if row["camera_intrinsic"]:
            row["rotation"] = [0.0, 1.0, 0.0, 0.0]
            row["camera_intrinsic"][0][0] *= 20
            row["camera_intrinsic"][1][1] *= 20
    path.write_text(json.dumps(rows))
    code, text, _ = frustum("check", world, "--samples", 1, "--pictures", 0, "--json", tmp_path / "check.json")
    found = json.loads((tmp_path / "check.json").read_text())
    assert code == DataError.exit_code
    assert found["errors"] > 0
    assert "error" in text
    assert "->" in text


def test_a_missing_image_is_an_error(world: Path, frustum: Run, tmp_path: Path) -> None:
    image = next((world / "samples" / "CAM_FRONT").glob("*.jpg"))
    image.unlink()
    code, text, _ = frustum("check", world, "--samples", 0, "--pictures", 0)
    assert code == DataError.exit_code
    assert image.name in text


def test_truncated_labels(world: Path, frustum: Run) -> None:
    for labels in (world / "gts").rglob("labels.npz"):
        labels.write_bytes(labels.read_bytes()[:-200])
    code, text, _ = frustum("check", world, "--samples", 1, "--pictures", 0)
    assert code == DataError.exit_code
    assert "labels.npz" in text


def test_status(street_root: Path, frustum: Run, tmp_path: Path) -> None:
    code, text, err = frustum("data", "status", street_root, "--json", tmp_path / "status.json")
    assert code == 0, err
    (version,) = json.loads((tmp_path / "status.json").read_text())["versions"]
    assert version["keyframes"] == 9
    assert version["splits"]["train"] == 2
    assert all(item["state"] == "complete" for item in version["items"] if "all work" in item["needed_for"])
    assert "samples/CAM_FRONT" in text


def test_status_of_what_is_missing(world: Path, frustum: Run, tmp_path: Path) -> None:
    shutil.rmtree(world / "gts")
    _, text, _ = frustum("data", "status", world, "--json", tmp_path / "status.json")
    (version,) = json.loads((tmp_path / "status.json").read_text())["versions"]
    assert {item["name"]: item["state"] for item in version["items"]}["gts"] == "missing"
    assert "gts: " in text, "it says where to get it"


@pytest.mark.data
def test_real_keyframes(shared: Path, frustum: Run, tmp_path: Path) -> None:
    """The two real nuScenes keyframes are sound, and LiDAR, boxes and images agree."""
    root = shared / "data" / "nuscenes_keyframes"
    code, text, err = frustum("check", root, "--samples", 0, "--pictures", 1, "--out", tmp_path, "--json", tmp_path / "check.json")
    assert code == 0, err + text
    assert json.loads((tmp_path / "check.json").read_text())["keyframes"] == 2
