"""Training that starts from weights: `train.init`, and what is told about it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from frustum.checkpoint.weights_file import save_weights
from frustum.engine.overrides import apply
from frustum.engine.run import load_run
from frustum.engine.sections import header_of
from frustum.engine.train import start, train
from frustum.errors import CheckpointError, ConfigError
from tests.engine import toy


def test_what_fits_is_taken_and_told(toy_root, tmp_path, capsys):
    recipe = toy.recipe(toy_root, steps=1, checkpoint_every=1)
    source = toy.ToyConfig(width=16).build()
    state = {key: value for key, value in source.state_dict().items() if key != "head.bias"}
    state |= {"place": torch.zeros(3), "other.weight": torch.zeros(2)}
    torch.save({"meta": {}, "state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "upstream.pth")
    asked = apply(recipe, [f"train.init={tmp_path / 'upstream.pth'}"])
    network = toy.ToyConfig(width=16).build()
    bias = network.head.bias.clone()
    (line,) = start(network, asked)
    assert line.startswith(f"starting from {tmp_path / 'upstream.pth'}: ")
    assert "wholly: encoder 2; partly: head 1 of 2; not: place 1; other shape: place; left over in the file: other 1" in line
    assert torch.equal(network.encoder.weight, source.encoder.weight)
    assert torch.equal(network.head.bias, bias)

    trained = train(apply(asked, ["optim.lr=1e-12"]), tmp_path / "run").model
    torch.testing.assert_close(trained.encoder.weight, source.encoder.weight)
    assert "partly: head 1 of 2" in " ".join(capsys.readouterr().out.split())


def test_a_run_folder_is_a_start_and_a_resumed_run_does_not_start_again(toy_root, tmp_path, capsys):
    first = train(toy.recipe(toy_root, steps=2, checkpoint_every=2), tmp_path / "first")
    recipe = apply(toy.recipe(toy_root, steps=2, checkpoint_every=2), [f"train.init={tmp_path / 'first'}", "optim.lr=1e-12"])
    second = train(recipe, tmp_path / "second")
    torch.testing.assert_close(second.model.state_dict()["head.weight"], first.model.state_dict()["head.weight"])
    (tmp_path / "first" / "weights.safetensors").unlink()
    capsys.readouterr()
    third = train(apply(recipe, ["train.steps=3"]), tmp_path / "second")
    assert third.resumed_from == 2
    assert "starting from" not in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"train\.init was"):
        train(toy.recipe(toy_root, steps=2, checkpoint_every=2), tmp_path / "second")


def test_other_preprocessing_is_told(toy_root, tmp_path):
    recipe = toy.recipe(toy_root)
    other = apply(recipe, ["data.channel_order=bgr"])
    save_weights(tmp_path / "w.safetensors", toy.ToyConfig().build(), header_of(other))
    lines = start(toy.ToyConfig().build(), apply(recipe, [f"train.init={tmp_path / 'w.safetensors'}"]))
    assert lines[1] == ('this run prepares its input otherwise than those weights: data.channel_order="rgb" (they were trained with "bgr")')
    assert len(start(toy.ToyConfig().build(), apply(other, [f"train.init={tmp_path / 'w.safetensors'}"]))) == 1


def test_where_an_encoder_starts_is_told(toy_root):
    network = nn.Sequential(toy.ToyConfig().build())
    assert start(network, toy.recipe(toy_root)) == []
    network[0].encoder.started_from = "the package x"
    assert start(network, toy.recipe(toy_root)) == ["the image encoder starts from the package x"]


def test_a_start_that_cannot_be_is_an_error_before_training(toy_root, tmp_path):
    recipe = apply(toy.recipe(toy_root, steps=1), [f"train.init={tmp_path / 'none.pth'}"])
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        train(recipe, tmp_path / "run")
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="nothing in"):
        train(recipe, tmp_path / "run")


def test_trained_weights_carry_their_recipe(toy_root, tmp_path):
    from frustum.checkpoint.weights_file import read_weights

    recipe = apply(toy.recipe(toy_root, steps=1, checkpoint_every=1), ["data.channel_order=bgr"])
    train(recipe, tmp_path / "run")
    for name in ("weights", "checkpoints/step_00000001/ema", "checkpoints/step_00000001/model"):
        _, header = read_weights(tmp_path / "run" / f"{name}.safetensors")
        assert {key: header[key] for key in ("recipe", "classes", "resize")} == header_of(load_run(tmp_path / "run").recipe), name
        assert (header["recipe"]["data"]["channel_order"], header["step"]) == ("bgr", 1)
