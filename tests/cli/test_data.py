"""data world, data status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.cli.worlds import world_config
from frustum.data.opening import open_root
from frustum.errors import ConfigError, DataError
from frustum.types.classes import OCC3D_OF_CATEGORY
from frustum.worlds.street.rigs import StreetRig
from frustum.worlds.street.world_config import WorldConfig
from tests.cli.conftest import Run


def test_options_and_settings_meet(tmp_path: Path) -> None:
    rig = StreetRig.nuscenes()
    single = StreetRig(cameras=rig.cameras[:1], lidar=rig.lidar)
    (tmp_path / "rig.json").write_text(single.model_dump_json())
    given = {"train_scenes": 3, "frames": None, "seed": None, "image_size": (64, 176)}
    config = world_config(given, tmp_path / "rig.json", ["scene.density=0.5", "sweeps=1"])
    assert (config.train_scenes, config.frames, config.image_size) == (3, WorldConfig().frames, (64, 176))
    assert (config.scene.density, config.sweeps) == (0.5, 1)
    assert [camera.name for camera in config.rig.cameras] == [rig.cameras[0].name]


def test_values_that_are_not_allowed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="frames=-1"):
        world_config({"frames": -1}, None, [])
    with pytest.raises(ConfigError, match="print-rig"):
        world_config({}, tmp_path / "missing.json", [])


def test_printed_rig_can_be_read_back(frustum: Run, tmp_path: Path) -> None:
    code, out, _ = frustum("data", "world", "--print-rig")
    assert code == 0
    (tmp_path / "rig.json").write_text(out)
    assert StreetRig.from_json(tmp_path / "rig.json") == StreetRig.nuscenes()


def test_a_calibration_to_fill_in_becomes_the_rig_of_a_world(frustum: Run, tmp_path: Path) -> None:
    code, out, err = frustum("data", "import", "rig", tmp_path / "rig", "--template", 2)
    assert code == 0, err
    assert f"frustum data import rig {tmp_path / 'rig'} DST" in out
    path = tmp_path / "rig" / "calibration.json"
    code, _, err = frustum("data", "world", "--rig", path, "--print-rig")
    assert code == DataError.exit_code
    assert "fx of camera front" in err
    content = json.loads(path.read_text())
    for camera in content["cameras"]:
        camera |= {"fx": 800, "fy": 800, "cx": 639.5, "cy": 359.5, "width": 1280, "height": 720}
        camera["cam2ego"]["translation"] = [1, 0, 1.5]
    path.write_text(json.dumps(content))
    code, out, err = frustum("data", "world", "--rig", tmp_path / "rig", "--print-rig")
    assert code == 0, err
    assert [(camera["name"], camera["cx"]) for camera in json.loads(out)["cameras"]] == [("CAM_FRONT", 640), ("CAM_BACK", 640)]
    code, _, err = frustum("data", "import", "rig")
    assert code == ConfigError.exit_code
    assert "frustum data import rig SRC DST" in err


def test_printed_settings_are_settings(frustum: Run) -> None:
    code, out, _ = frustum("data", "world", "frames=4", "--print-settings")
    assert code == 0
    assert WorldConfig.model_validate_json(out) == WorldConfig(frames=4)


def test_a_world_is_made_once(frustum: Run, street_root: Path, tmp_path: Path) -> None:
    """The fixture's world, asked for again: nothing is left to do."""
    words = ("data", "world", street_root, "--scenes", 2, "--val-scenes", 1, "--frames", 3, "--size", "96x256", "--workers", 1)
    code, out, err = frustum(*words, "--json", tmp_path / "world.json")
    assert code == 0, err
    made = json.loads((tmp_path / "world.json").read_text())
    assert (made["scenes"], made["keyframes"], made["generated"]) == (3, 9, 0)
    assert "frustum check" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--size", "0x0"), "--size 0x0"),
        (("--size", "8x64"), "image_size.0=8"),
        (("image_size=64,0",), "image_size=64,0"),
        (("version=../x",), "version=../x"),
    ],
)
def test_impossible_worlds_are_refused_in_words(frustum: Run, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    code, _, err = frustum("data", "world", tmp_path / "w", *words)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "w").exists()


def test_2d_labels_are_written_once(frustum: Run, street_root: Path, tmp_path: Path) -> None:
    words = ("data", "labels-2d", street_root, "--out", tmp_path / "labels", "--split", "val")
    code, out, err = frustum(*words, "--json", tmp_path / "made.json")
    assert code == 0, err
    assert "2D labels of 3 keyframes will take about" in out
    assert f"model.views.cache={tmp_path / 'labels'}" in out.replace("\n", "")
    assert json.loads((tmp_path / "made.json").read_text())["new"] == 3
    assert len(list((tmp_path / "labels").glob("*.npz"))) == 3
    code, out, _ = frustum(*words)
    assert (code, "0 of them are new" in out) == (0, True)
    code, _, err = frustum(*words, "--hidden", 0.5)
    assert code == 3
    assert "were made with" in err
    assert "model.views.source=lidarseg model.views.hidden=0.0" in err.replace("\n", " ")
    code, _, err = frustum(*words, "--source", "stereo")
    assert code == 2
    assert "source" in err


def test_2d_labels_of_two_worlds_do_not_share_a_folder(frustum: Run, street_root: Path, other_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    assert frustum("data", "labels-2d", other_root, "--out", out).code == 0
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(files) == 3
    code, _, err = frustum("data", "labels-2d", street_root, "--out", out, "--split", "train")
    assert code == 3
    assert "images of 64x176 pixels where this data set has 96x256" in err.replace("\n", " ")
    assert "--out OTHER" in err.replace("\n", " ")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files


def test_a_world_becomes_a_folder_of_label_maps(frustum: Run, other_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "images"
    words = ("data", "segmentation", other_root, "--out", out)
    code, said, err = frustum(*words, "--json", tmp_path / "made.json")
    assert code == 0, err
    assert "2 images of CAM_FRONT with label maps will take about" in said
    assert json.loads((tmp_path / "made.json").read_text())["new"] == 2
    source = open_root(out)
    assert source.class_names[-1] == "sky"
    for token in source.tokens("train"):
        sample, labels = source.sample(token), source.labels(token)
        truth = next((other_root / "extras" / "semantics" / "CAM_FRONT").glob(f"{sample.path.stem}.png"))
        ids = np.asarray(Image.open(truth))
        assert labels.shape == ids.shape == (64, 176)
        np.testing.assert_array_equal(labels == source.class_names.index("sky"), ids == 255)
        road = [i for i, name in enumerate(OCC3D_OF_CATEGORY) if name == "flat.driveable_surface"]
        np.testing.assert_array_equal(labels == source.class_names.index("driveable_surface"), np.isin(ids, road))
        assert (labels == source.class_names.index("sky")).any()
    next((out / "labels" / "train").iterdir()).unlink()
    code, said, _ = frustum(*words)
    assert (code, "1 of them are new" in said) == (0, True)
    bare = shutil.copytree(other_root, tmp_path / "bare", ignore=shutil.ignore_patterns("extras"))
    for refused, message in (
        ((*words, "--camera", "CAM_FRON"), "has no camera 'CAM_FRON'; did you mean"),
        (("data", "segmentation", bare, "--out", out), "Make the world with its truth images: frustum data world OUT"),
        (("data", "segmentation", out, "--out", out), "is a folder of images already"),
    ):
        code, _, err = frustum(*refused)
        assert code == 3
        assert message in " ".join(err.split())


def test_a_world_and_its_label_maps_in_one_command(frustum: Run, other_root: Path, tmp_path: Path) -> None:
    """The fixture's world, asked for again; the truth images of classes are asked for by --segmentation."""
    words = ("--scenes", 1, "--val-scenes", 0, "--frames", 2, "--size", "64x176", "--workers", 1, "scene.density=0.5", "save=depth")
    code, _, err = frustum("data", "world", other_root, *words, "--segmentation", tmp_path / "out", "--json", tmp_path / "made.json")
    assert code == 0, err
    made = json.loads((tmp_path / "made.json").read_text())
    assert (made["generated"], made["segmentation"]["new"]) == (0, 2)
    assert len(open_root(tmp_path / "out").tokens("train")) == 2


def test_features_of_a_teacher_are_written_once(frustum: Run, street_root: Path, tmp_path: Path) -> None:
    words = ("data", "features", street_root, "--out", tmp_path / "features", "--split", "val", "--teacher", "efficientnet_lite0")
    code, out, err = frustum(*words, "--image-size", "64,176", "--json", tmp_path / "made.json")
    assert code == 0, err
    assert "features of 3 keyframes will take about" in out
    assert f"model.teacher.kind=efficientnet_lite0model.teacher.folder={tmp_path / 'features'}" in out.replace("\n", "").replace(" ", "")
    assert json.loads((tmp_path / "made.json").read_text())["new"] == 3
    code, out, _ = frustum(*words, "--image-size", "64,176")
    assert (code, "0 of them are new" in out) == (0, True)
    code, _, err = frustum(*words, "--image-size", "96,176")
    assert (code, "Choose another --out" in err.replace("\n", " ")) == (3, True)
    code, _, err = frustum(*words, "--image-size", "wide")
    assert (code, "such as 448,798" in err) == (2, True)
    code, _, err = frustum("data", "features", street_root, "--out", tmp_path / "x", "--teacher", "dinov2")
    assert (code, "dinov2_vits14" in err) == (2, True)
    code, _, err = frustum("data", "features", street_root, "--out", tmp_path / "x")
    assert (code, "--weights dinov2_vits14_pretrain.pth" in err.replace("\n", " ")) == (2, True)
    assert not (tmp_path / "x").exists()
