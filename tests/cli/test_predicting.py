"""predict on a rig folder and on a database, with a network of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from frustum.checkpoint.weights_file import WEIGHTS, save_weights
from frustum.cli.resolve import resolve_recipe
from frustum.data.opening import choose_version
from frustum.engine.run import save_run
from frustum.errors import DataError
from tests.cli.conftest import Run

SMALL = ["model.pretrained=false", "model.bev_channels=8", "model.voxel_channels=8", "data.image_size=64,176", "runtime.precision=fp32"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = resolve_recipe("flashocc-tiny", SMALL)
    save_run(folder, recipe, source="flashocc-tiny", overrides=SMALL)
    torch.manual_seed(0)
    save_weights(folder / WEIGHTS, recipe.model.build())
    return folder


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    """Two cameras, two frames."""
    folder = tmp_path / "my rig"
    cameras = []
    for name, forward in (("front", [0.5, -0.5, 0.5, -0.5]), ("back", [0.5, -0.5, -0.5, 0.5])):
        (folder / name).mkdir(parents=True)
        for k in range(2):
            pixels = np.random.default_rng(k).integers(0, 255, (90, 160, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k}.png")
        pose = {"translation": [1.5, 0.0, 1.6], "rotation": forward}
        cameras.append({"name": name, "images": f"{name}/*.png", "fx": 120, "fy": 120, "cx": 79.5, "cy": 44.5, "cam2ego": pose})
    (folder / "calibration.json").write_text(json.dumps({"cameras": cameras}))
    return folder


def test_predict_on_a_rig_folder(run: Path, rig: Path, tmp_path: Path, frustum: Run) -> None:
    out = tmp_path / "predictions"
    challenge = tmp_path / "challenge"
    code, text, err = frustum("predict", run, rig, "--out", out, "--submission", challenge, "--json", tmp_path / "files.json")
    assert code == 0, err
    assert "2 predictions" in text
    assert f"as challenge files in {challenge}" in text
    files = [Path(file) for file in json.loads((tmp_path / "files.json").read_text())["files"]]
    assert len(files) == 2
    for file in files:
        with np.load(file, allow_pickle=False) as stored:
            assert stored["semantics"].shape == (200, 200, 16)
            assert stored["semantics"].dtype == np.uint8
            assert len(stored["class_names"]) == 18
            np.testing.assert_array_equal(np.load(challenge / file.name)["arr_0"], stored["semantics"])
            np.testing.assert_allclose(stored["lower"], [-40, -40, -1])
    pictures = sorted(out.glob("*.png"))
    assert [path.name.rpartition("_")[0] for path in pictures] == ["my-rig"] * 2, "by scene and time"
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.width > 500
    assert sorted(path.name for path in challenge.iterdir()) == sorted(file.name for file in files)
    assert not list(out.glob(".*")), "no half-written files"


def test_an_imported_rig_is_a_database(run: Path, rig: Path, tmp_path: Path, frustum: Run) -> None:
    code, _, err = frustum("data", "import", "rig", rig, tmp_path / "db", "--json", tmp_path / "made.json")
    assert code == 0, err
    assert json.loads((tmp_path / "made.json").read_text())["frames"] == 2
    code, _, err = frustum("predict", run, tmp_path / "db", "--limit", 1, "--no-pictures", "--out", tmp_path / "p")
    assert code == 0, err
    assert [file.suffix for file in (tmp_path / "p").iterdir()] == [".npz"]


def test_predict_a_single_keyframe(run: Path, rig: Path, tmp_path: Path, frustum: Run) -> None:
    from frustum.data.nuscenes.reader import NuScenes

    frustum("data", "import", "rig", rig, tmp_path / "db")
    token = NuScenes(tmp_path / "db").tokens("all")[1]
    code, _, err = frustum("predict", run, tmp_path / "db", "--token", token, "--no-pictures", "--out", tmp_path / "p")
    assert code == 0, err
    assert [file.stem for file in (tmp_path / "p").iterdir()] == [token]
    code, _, err = frustum("predict", run, tmp_path / "db", "--token", "nonsense", "--out", tmp_path / "q")
    assert code == DataError.exit_code
    assert "nonsense" in err


def test_a_two_frame_network_reads_the_keyframe_before_where_there_are_no_sweeps(rig: Path, tmp_path: Path, frustum: Run) -> None:
    from tests.models.test_ppe3d import SMALL as SMALL_PPE3D

    words = [*SMALL_PPE3D["ppe3d-2f-v299"], "data.image_size=64,96", "runtime.precision=fp32"]
    recipe = resolve_recipe("ppe3d-2f-v299", words)
    save_run(tmp_path / "two", recipe, source="ppe3d-2f-v299", overrides=words)
    save_weights(tmp_path / "two" / WEIGHTS, recipe.model.build())
    content = json.loads((rig / "calibration.json").read_text())
    (rig / "calibration.json").write_text(json.dumps(content | {"stands_still": True}))
    code, _, err = frustum("predict", tmp_path / "two", rig, "--no-pictures", "--out", tmp_path / "p")
    assert code == DataError.exit_code
    assert "reads an image between keyframes" in err
    assert "model.past_frame=keyframe" in err
    code, text, err = frustum("predict", tmp_path / "two", rig, "model.past_frame=keyframe", "--no-pictures", "--out", tmp_path / "p")
    assert code == 0, err
    assert "2 predictions" in text
    assert 'model.past_frame="keyframe" (they were trained with "sweep")' in text + err


@pytest.mark.parametrize(
    ("name", "words", "template"),
    [
        ("nothing", ("there is no ",), "nothing --template 1"),
        ("empty", ("holds no images and no data set",), "empty --template 1"),
        ("my rig/front/0.png", ("0.png is an image",), "front --template 1"),
        ("my rig/front", ("holds 2 images, but no calibration.json",), "front --template 1"),
        ("my rig", ("holds 4 images, but no calibration.json",), "my rig --template 2"),
        ("notes.txt", ("notes.txt is a file",), "--template 1"),
    ],
)
def test_a_source_that_is_no_rig_says_what_one_is(
    name: str, words: tuple[str, ...], template: str, run: Path, rig: Path, tmp_path: Path, frustum: Run
) -> None:
    (rig / "calibration.json").unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no images")
    for command in (("predict", run, tmp_path / name), ("check", tmp_path / name)):
        code, _, err = frustum(*command, "--out", tmp_path / "p")
        assert code == DataError.exit_code
        assert err.startswith("error: ")
        for text in (*words, "a rig folder: images, and a calibration.json", f"{template} (the number of cameras"):
            assert text in " ".join(err.split())


def test_a_rig_other_than_the_trained_one_is_a_caution_said_once(run: Path, rig: Path, tmp_path: Path, frustum: Run) -> None:
    from frustum.checkpoint.weights_file import read_weights
    from frustum.engine.sections import header_of

    row = {"view": 67.0, "elevation": 0.0, "height": 1.6}
    rows = [{"channel": "CAM_FRONT", "heading": 0.0, **row}, {"channel": "CAM_BACK", "heading": 180.0, **row}]
    recipe = resolve_recipe("flashocc-tiny", SMALL)

    def notes(trained: list[dict[str, Any]] | None) -> str:
        network = recipe.model.build()
        network.load_state_dict(read_weights(run)[0])
        save_weights(tmp_path / "w.safetensors", network, header_of(recipe) | ({} if trained is None else {"rig": trained}))
        out = frustum("predict", tmp_path / "w.safetensors", rig, "--no-pictures", "--out", tmp_path / "p")
        assert out.code == 0, out.err
        return " ".join(out.err.split())

    assert "trained on" not in notes(rows)
    said = notes([{**rows[0], "view": 90.0}])
    assert said.count("this rig is not the one that the weights were trained on: 2 cameras instead of 1") == 1
    assert "CAM_FRONT sees 67 degrees instead of 90" in said
    assert "frustum data world OUT --rig calibration.json" in said
    assert "the weights do not say which rig they were trained on" in notes(None)


def test_predictions_of_other_data_are_not_mixed(run: Path, rig: Path, tmp_path: Path, frustum: Run) -> None:
    words = ("--no-pictures", "--limit", 1, "--out", tmp_path / "p")
    assert frustum("predict", run, rig, *words).code == 0
    assert frustum("predict", run, rig, *words).code == 0, "the same data again"
    rig.rename(tmp_path / "other")
    code, _, err = frustum("predict", run, tmp_path / "other", *words)
    assert code == DataError.exit_code
    assert "p holds 1 files of other data" in err
    assert f"--out {tmp_path / 'p'}_other" in err.replace("\n", "")


def test_unreadable_image(run: Path, rig: Path, tmp_path: Path, frustum: Run) -> None:
    (rig / "front" / "1.png").write_bytes(b"this is no picture")
    code, _, err = frustum("predict", run, rig, "--out", tmp_path / "p")
    assert code == DataError.exit_code
    assert "1.png" in err


@pytest.mark.parametrize("rotation", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_calibration_that_is_no_rotation(rotation: list[float], run: Path, rig: Path, tmp_path: Path, frustum: Run) -> None:
    content = json.loads((rig / "calibration.json").read_text())
    content["cameras"][0]["cam2ego"]["rotation"] = rotation
    (rig / "calibration.json").write_text(json.dumps(content))
    code, _, err = frustum("predict", run, rig, "--out", tmp_path / "p")
    assert code == DataError.exit_code
    assert "quaternion" in err


def test_choice_of_version(tmp_path: Path) -> None:
    for name in ("v1.0-mini", "v1.0-test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sample.json").write_text("[]")
    assert choose_version(tmp_path, "v1.0-mini") == "v1.0-mini"
    with pytest.raises(DataError, match="--version"):
        choose_version(tmp_path, "v1.0-trainval")
