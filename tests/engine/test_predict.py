from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from frustum.engine.feed import open_database
from frustum.engine.overrides import apply
from frustum.engine.predict import predict, read_prediction, write_prediction
from frustum.engine.predictors import NetworkPredictor
from frustum.engine.speedtest import SpeedTest, choose_steps
from frustum.errors import ConfigError, DataError
from frustum.types.predictions import PanopticOccupancy, Prediction
from tests.engine import toy


def test_npz_files_hold_what_is_documented(toy_root, tmp_path):
    recipe, network, drawn = toy.recipe(toy_root), toy.ToyConfig().build(), []
    database = open_database(recipe.data)
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
    again = read_prediction(files[1])
    assert torch.equal(again.semantics, drawn[1][1].semantics)
    assert (again.grid, again.token, again.class_names) == (toy.GRID, tokens[1], drawn[1][1].class_names)


def test_prediction_needs_no_labels(tmp_path):
    recipe = toy.recipe(toy.write_database(tmp_path / "bare", labels=False))
    database = open_database(recipe.data)
    assert len(predict(toy.ToyConfig().build(), recipe, database, database.tokens("val"), tmp_path / "out", progress=False)) == 4


def test_an_interrupted_prediction_goes_on(toy_root, tmp_path, capsys):
    recipe, network, drawn = toy.recipe(toy_root), toy.ToyConfig().build(), []
    database, out = open_database(recipe.data), tmp_path / "out"
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
    assert [read_prediction(file).token for file in files] == tokens
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

    database = open_database(recipe.data)
    with pytest.raises(KeyboardInterrupt):
        predict(network, recipe, database, database.tokens("val"), tmp_path / "out", draw=draw)
    recipe = change(root, recipe, network)
    predict(network, recipe, open_database(recipe.data), database.tokens("val"), tmp_path / "out", draw=draw)
    assert drawn[3:] == database.tokens("val")


def test_bf16_gives_cpu_results(toy_root):
    recipe = toy.recipe(toy_root)
    predictor = NetworkPredictor(toy.ToyConfig().build(), recipe.runtime.model_copy(update={"precision": "bf16"}))
    from frustum.engine.feed import evaluation_batches

    database = open_database(recipe.data)
    prediction = predictor(next(evaluation_batches(recipe, database, database.tokens("val"))))[0]
    assert prediction.semantics.dtype == torch.uint8
    assert not predictor.network.training


def test_bad_places_and_files_are_named(toy_root, tmp_path):
    recipe = toy.recipe(toy_root)
    database = open_database(recipe.data)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        predict(toy.ToyConfig().build(), recipe, database, database.tokens("val"), tmp_path / "file" / "out")
    with pytest.raises(DataError, match="no keyframes"):
        predict(toy.ToyConfig().build(), recipe, database, [], tmp_path / "out")
    with pytest.raises(DataError, match="no prediction"):
        read_prediction(tmp_path / "file")
    for image in (toy.write_database(tmp_path / "damaged") / "samples/CAM_FRONT").iterdir():
        image.write_bytes(b"no image")
    recipe = toy.recipe(tmp_path / "damaged")
    database = open_database(recipe.data)
    with pytest.raises(DataError, match="cannot read the image"):
        predict(toy.ToyConfig().build(), recipe, database, database.tokens("val"), tmp_path / "nothing")
    assert not list((tmp_path / "nothing").iterdir())


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
    assert SpeedTest(**long.as_dict()) == long
    with pytest.raises(ConfigError, match="minimum"):
        choose_steps(recipe, 1.0, 9, 7)


def test_objects_are_written_and_read(tmp_path):
    volume = torch.zeros(toy.GRID.shape, dtype=torch.uint8)
    numbers = torch.zeros(toy.GRID.shape, dtype=torch.int32)
    volume[1, 2, 0], numbers[1, 2, 0] = 4, 517
    objects = {"instance_ids": [517], "instance_classes": [4], "instance_centres": [[0.5, 1.5, 0.0]], "instance_scores": [0.75]}
    tensors = {name: torch.tensor(value) for name, value in objects.items()}
    given = PanopticOccupancy("token", volume, toy.GRID, ("a",) * 17 + ("free",), numbers, **tensors)
    again = read_prediction(write_prediction(tmp_path / "token.npz", given, "scene"))
    assert isinstance(again, PanopticOccupancy)
    assert torch.equal(again.instances, numbers)
    for name, tensor in tensors.items():
        assert torch.equal(getattr(again, name), tensor), name
    plain = Prediction("token", volume, toy.GRID, given.class_names, numbers)
    assert type(read_prediction(write_prediction(tmp_path / "plain.npz", plain))) is Prediction
