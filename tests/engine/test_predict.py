from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from frustum.engine.feed import evaluation_batches
from frustum.engine.overrides import apply
from frustum.engine.predict import predict
from frustum.engine.predictors import NetworkPredictor
from frustum.engine.speedtest import choose_steps
from frustum.errors import ConfigError, DataError
from frustum.geometry import VoxelGrid
from frustum.tasks import TASKS
from frustum.tasks.detection import DetectionTask
from frustum.tasks.occupancy import OccupancyTask
from frustum.types.classes import DETECTION_CLASSES, OCC3D_CLASSES
from frustum.types.predictions import PredictedBoxes, PredictedOccupancy, PredictedSegmentation, Prediction
from tests.engine import toy


def test_npz_files_hold_what_is_documented(toy_root, tmp_path):
    recipe, network, drawn = toy.recipe(toy_root), toy.ToyConfig().build(), []
    database = recipe.data.open()
    tokens = database.tokens("val")[:3]
    files = predict(network, recipe, database, tokens, tmp_path / "out", draw=lambda *given: drawn.append(given))
    assert [file.name for file in files] == [f"{token}.npz" for token in tokens]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(file.name for file in files)
    with np.load(files[0], allow_pickle=False) as stored:
        assert stored["semantics"].dtype == np.uint8
        assert stored["semantics"].shape == toy.GRID.shape
        assert stored["class_names"][17] == "free"
        assert stored["lower"].tolist() == list(toy.GRID.lower)
        assert stored["cell"].tolist() == list(toy.GRID.cell)
        assert stored["scene"] == "scene-0003"
    assert [(sample.token, prediction.token, folder) for sample, prediction, folder in drawn] == [(t, t, tmp_path / "out") for t in tokens]
    token, again = OccupancyTask.read(files[1])
    assert torch.equal(again.semantics, drawn[1][1].occupancy.semantics)
    assert (again.grid, token, again.class_names) == (toy.GRID, tokens[1], drawn[1][1].occupancy.class_names)


def test_prediction_needs_no_labels(tmp_path):
    recipe = toy.recipe(toy.write_database(tmp_path / "bare", labels=False))
    database = recipe.data.open()
    assert len(predict(toy.ToyConfig().build(), recipe, database, database.tokens("val"), tmp_path / "out", progress=False)) == 4


def test_predictions_without_a_thing_in_them_are_told_of(toy_root, tmp_path, capsys):
    recipe, network = toy.recipe(toy_root), toy.ToyConfig().build()
    database = recipe.data.open()
    predict(network, recipe, database, database.tokens("val"), tmp_path / "full")
    assert "to be occupied" not in capsys.readouterr().out
    with torch.no_grad():
        network.head.bias.view(-1, len(OCC3D_CLASSES))[:, OCC3D_CLASSES.index("free")] += 1e6
    predict(network, recipe, database, database.tokens("val"), tmp_path / "empty")
    said = " ".join(capsys.readouterr().out.split())
    assert "in 4 of 4 predictions not one voxel is predicted to be occupied" in said


def test_an_interrupted_prediction_goes_on(toy_root, tmp_path, capsys):
    recipe, network, drawn = toy.recipe(toy_root), toy.ToyConfig().build(), []
    database, out = recipe.data.open(), tmp_path / "out"
    tokens = database.tokens("val")

    def draw(sample, prediction, folder):
        drawn.append(prediction.token)
        if len(drawn) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(network, recipe, database, tokens, out, draw=draw)
    assert drawn == tokens[:3]
    files = predict(network, recipe, database, tokens, out, draw=draw)
    assert drawn[3:] == tokens[2:], "the one that was interrupted is made again"
    assert "going on: 2 of 4 keyframes are there already" in capsys.readouterr().out
    assert sorted(out.iterdir()) == sorted(files)
    assert [OccupancyTask.read(file)[0] for file in files] == tokens
    predict(network, recipe, database, tokens, out, draw=draw)
    assert drawn[5:] == tokens, "finished work is made anew"


def _other_weights(root, recipe, network):
    with torch.no_grad():
        network.head.bias.add_(1.0)
    return recipe


def _other_setting(root, recipe, network):
    return apply(recipe, ["data.image_size=24,48"])


def _other_image(root, recipe, network):
    for file in (root / "samples/CAM_FRONT").iterdir():
        Image.new("RGB", (32, 16), "red").save(file)
    return recipe


def _other_calibration(root, recipe, network):
    path = root / "v1.0-trainval/calibrated_sensor.json"
    rows = json.loads(path.read_text())
    for row in rows:
        row["translation"][2] += 0.5
    path.write_text(json.dumps(rows))
    return recipe


@pytest.mark.parametrize("change", [_other_weights, _other_setting, _other_image, _other_calibration])
def test_predictions_of_something_else_are_not_kept(change, tmp_path):
    root = toy.write_database(tmp_path / "database")
    recipe, network, drawn = toy.recipe(root), toy.ToyConfig().build(), []

    def draw(sample, prediction, folder):
        drawn.append(prediction.token)
        if len(drawn) == 3:
            raise KeyboardInterrupt

    database = recipe.data.open()
    with pytest.raises(KeyboardInterrupt):
        predict(network, recipe, database, database.tokens("val"), tmp_path / "out", draw=draw)
    recipe = change(root, recipe, network)
    predict(network, recipe, recipe.data.open(), database.tokens("val"), tmp_path / "out", draw=draw)
    assert drawn[3:] == database.tokens("val")


def test_bf16_gives_cpu_results(toy_root):
    recipe = toy.recipe(toy_root)
    predictor = NetworkPredictor(toy.ToyConfig().build(), recipe.runtime.model_copy(update={"precision": "bf16"}))
    database = recipe.data.open()
    prediction = predictor(next(evaluation_batches(recipe, database, database.tokens("val"))))[0]
    assert prediction.occupancy.semantics.dtype == torch.uint8
    assert not predictor.network.training


def test_bad_places_and_files_are_named(toy_root, tmp_path):
    recipe = toy.recipe(toy_root)
    database = recipe.data.open()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        predict(toy.ToyConfig().build(), recipe, database, database.tokens("val"), tmp_path / "file" / "out")
    with pytest.raises(DataError, match="no keyframes"):
        predict(toy.ToyConfig().build(), recipe, database, [], tmp_path / "out")
    with pytest.raises(DataError, match="not a prediction of `frustum predict`"):
        OccupancyTask.read(tmp_path / "file")
    for image in (toy.write_database(tmp_path / "damaged") / "samples/CAM_FRONT").iterdir():
        image.write_bytes(b"no image")
    recipe = toy.recipe(tmp_path / "damaged")
    database = recipe.data.open()
    with pytest.raises(DataError, match="cannot read the image"):
        predict(toy.ToyConfig().build(), recipe, database, database.tokens("val"), tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists(), "an empty folder"


def test_the_speed_test_counts_what_fits(toy_root):
    recipe = toy.recipe(toy_root).model_copy(update={"model": toy.ToyConfig(slow=0.05)})
    test = choose_steps(recipe, 10.0, 1, 1000, timed=4, warm_up=1, progress=False)
    assert 0.05 < test.seconds_per_step < 2
    assert test.steps == int(10.0 / test.seconds_per_step)
    assert test.limited_by == "time"
    assert f"training {test.steps} steps" in str(test)
    short = choose_steps(recipe, 0.0, 7, 9, timed=1, warm_up=0, progress=False)
    assert (short.steps, short.limited_by) == (7, "minimum")
    long = choose_steps(recipe, 1e6, 7, 9, timed=1, warm_up=0, progress=False)
    assert (long.steps, long.limited_by) == (9, "maximum")
    with pytest.raises(ConfigError, match="minimum"):
        choose_steps(recipe, 1.0, 9, 7)


class WithBoxes(nn.Module):
    """Free space of Occ3D's size, and two boxes."""

    def __init__(self):
        super().__init__()
        self.toy = toy.ToyConfig().build()

    def forward(self, batch):
        return self.toy(batch)

    def predict(self, outputs, batch):
        rows = torch.tensor([[5.0, 0, 1, 4, 2, 2, 0, 1, 0], [9.0, 3, 1, 4, 2, 2, 1, 0, 0]])
        boxes = PredictedBoxes(rows, torch.tensor([0, 8]), torch.tensor([0.5, 0.25]), DETECTION_CLASSES)
        free = PredictedOccupancy(torch.full((200, 200, 16), 17, dtype=torch.uint8), VoxelGrid.occ3d(), OCC3D_CLASSES)
        return [Prediction(token, occupancy=free, boxes=boxes) for token in batch.tokens]


def test_every_part_has_a_file_of_its_own_and_its_challenge(toy_root, tmp_path):
    """After an interruption, what was there already is part of the submission, too."""
    recipe, network, out = toy.recipe(toy_root), WithBoxes(), tmp_path / "out"
    source = recipe.data.open()
    tokens = source.tokens("val")

    def draw(sample, prediction, folder):
        if prediction.token == tokens[2] and not (tmp_path / "again").exists():
            (tmp_path / "again").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(network, recipe, source, tokens, out, draw=draw, submission=tmp_path / "challenge", progress=False)
    (out / f"{tokens[0]}.boxes.npz").unlink()
    files = predict(network, recipe, source, tokens, out, draw=draw, submission=tmp_path / "challenge", progress=False)
    assert [file.name for file in files] == [f"{token}{kind}.npz" for token in tokens for kind in ("", ".boxes")]
    assert sorted(out.iterdir()) == sorted(files)
    boxes = DetectionTask.load(files[1])
    assert (boxes.classes.tolist(), boxes.scores.tolist()) == ([0, 8], [0.5, 0.25])
    assert {path.name for path in (tmp_path / "challenge").iterdir()} == {"detections.json", *(f"{token}.npz" for token in tokens)}
    submitted = json.loads((tmp_path / "challenge" / "detections.json").read_text())["results"]
    assert set(submitted) == set(tokens)
    expected = source.sample(tokens[1]).ego2global @ [5.0, 0, 1, 1]
    assert submitted[tokens[1]][0]["translation"] == pytest.approx(expected[:3].tolist())


def test_what_cannot_be_written_or_submitted_is_named(toy_root, tmp_path):
    recipe = toy.recipe(toy_root)
    source = recipe.data.open()
    tokens = source.tokens("val")
    network = toy.ToyConfig().build()
    labels = PredictedSegmentation(torch.ones(2, 3, dtype=torch.uint8), ("a", "b"))
    network.predict = lambda outputs, batch: [Prediction(token, segmentation=labels) for token in batch.tokens]
    with pytest.raises(ConfigError, match=r"predicts segmentation, for which there is no public challenge.* Leave out --submission"):
        predict(network, recipe, source, tokens, tmp_path / "out", submission=tmp_path / "challenge", progress=False)
    assert not list((tmp_path / "out").glob("*.npz"))
    (file, *_) = predict(network, recipe, source, tokens, tmp_path / "out", progress=False)
    assert file.name == f"{tokens[0]}.segmentation.png"
    network.predict = lambda outputs, batch: [Prediction(token) for token in batch.tokens]
    with pytest.raises(DataError, match=f"predicts nothing for {tokens[0]} that could be written"):
        predict(network, recipe, source, tokens, tmp_path / "none", progress=False)
    few = [task for task in TASKS if task.name == "detection"]
    with pytest.raises(DataError, match="predicts nothing"):
        predict(toy.ToyConfig().build(), recipe, source, tokens, tmp_path / "few", tasks=few, progress=False)
