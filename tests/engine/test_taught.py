"""What weights were taught with: in their header, the same for a resumed run, and with every result of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import frustum
from frustum.checkpoint.weights_file import read_weights, save_weights
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.engine.evaluate import evaluate
from frustum.engine.overrides import apply
from frustum.engine.reports import EvalReport
from frustum.engine.sections import header_of
from frustum.engine.taught import in_sentences, taught_of, taught_with
from frustum.engine.train import train
from tests.engine import toy
from tests.engine.test_train import stop_after

LABELS = ["3D labels (class of each voxel)"]


def said_in(path) -> dict:
    return read_weights(path)[1]["taught_with"]


def test_weights_and_snapshots_say_what_they_were_taught_with(toy_root, tmp_path):
    result = train(toy.recipe(toy_root, steps=1, checkpoint_every=1), tmp_path)
    expected = {"labels": LABELS, "start": ["random weights"]}
    assert result.model.taught_with == expected
    for name in ("weights", "checkpoints/step_00000001/model", "checkpoints/step_00000001/ema"):
        assert said_in(tmp_path / f"{name}.safetensors") == expected
    assert frustum.load(tmp_path).taught_with == expected


def test_a_resumed_run_says_the_same(toy_root, tmp_path, monkeypatch):
    """Although its network is filled from a snapshot, and the file of its start may be gone."""
    build = toy.ToyConfig.build

    def started(config):
        network = build(config)
        network.encoder.started_from = "the package x"
        return network

    monkeypatch.setattr(toy.ToyConfig, "build", started)
    save_weights(tmp_path / "first.safetensors", build(toy.ToyConfig()))
    recipe = apply(toy.recipe(toy_root), [f"train.init={tmp_path / 'first.safetensors'}"])
    train(recipe, tmp_path / "whole")
    stop_after(recipe, tmp_path / "parts", 7)
    (tmp_path / "first.safetensors").unlink()
    train(recipe, tmp_path / "parts", resume="must")
    whole, parts = (said_in(tmp_path / name) for name in ("whole", "parts"))
    assert whole == parts
    assert whole["start"] == ["first.safetensors, as far as it fits"], "the encoder's first weights were replaced"


def test_what_the_first_weights_learned_from_is_kept(toy_root, tmp_path):
    train(toy.recipe(toy_root, steps=1), tmp_path / "first")
    train(apply(toy.recipe(toy_root, steps=1), [f"train.init={tmp_path / 'first'}"]), tmp_path / "second")
    assert said_in(tmp_path / "second")["start"] == [f"first (which learned from {LABELS[0]}), as far as it fits"]


def test_a_network_that_was_given_is_not_called_random(toy_root, tmp_path):
    train(toy.recipe(toy_root, steps=1), tmp_path, model=toy.ToyConfig().build())
    assert said_in(tmp_path)["start"] == ["a network that was given in Python"]
    train(toy.recipe(toy_root, steps=2), tmp_path)
    assert said_in(tmp_path)["start"] == ["a network that was given in Python"], "resumed without it"


def test_statistics_are_used_where_they_are_kept_and_never_counted_for_this(toy_root, tmp_path, monkeypatch):
    seen: list[dict] = []
    monkeypatch.setattr(OccupancyLabels, "described", lambda self, source, tokens, known: (seen.append(dict(known)), "")[1])
    recipe = toy.recipe(toy_root, steps=1)
    taught_with(recipe, toy.ToyConfig().build(), recipe.data.open(), tmp_path)
    train(recipe, tmp_path)
    assert seen[0] == {}
    np.testing.assert_array_equal(seen[1]["counts"].shape, (toy.Z, toy.K))


def test_a_teacher_that_is_asked_in_training_is_named(toy_root):
    """It is no label: the network that asks it says whose features it learns."""
    recipe = toy.recipe(toy_root)
    network = toy.ToyConfig().build()
    network.taught_by = "dinov2_vits14 with random weights"
    assert taught_with(recipe, network, recipe.data.open())["labels"] == [*LABELS, "image features of dinov2_vits14 with random weights"]


def test_a_share_of_the_labels_is_said(toy_root):
    recipe = apply(toy.recipe(toy_root), ["data.labelled_share=0.5"])
    found = taught_with(recipe, toy.ToyConfig().build(), recipe.data.open())
    assert found["labels"] == ["3D labels of 4 of 8 keyframes, hidden in the others by data.labelled_share (class of each voxel)"]
    assert found["labelled"] == list(recipe.data.open().labelled)
    assert in_sentences(found)[-1] == f"with labels of: {found['labelled'][0]}"
    many = {"labelled": [f"s{i}" for i in range(12)]}
    assert in_sentences(many) == ["with labels of: s0; s1; s2; s3; s4; s5; s6; s7; s8; s9; and 2 more"]
    assert taught_of({"taught_with": many}) == many


def test_it_stands_with_the_numbers_of_an_evaluation(toy_root, tmp_path):
    recipe = toy.recipe(toy_root, steps=1)
    result = train(recipe, tmp_path)
    for network in (result.model, frustum.load(tmp_path)):
        report = evaluate(recipe, network, out=tmp_path / "e.json")
        numbers = json.loads((tmp_path / "e.json").read_text())
        assert numbers["taught_with"] == {"labels": LABELS, "start": ["random weights"]}
        assert EvalReport.from_numbers(numbers).taught_with == report.taught_with
    assert in_sentences(report.taught_with) == ["learned from: 3D labels (class of each voxel)", "started from: random weights"]


@pytest.mark.parametrize("header", [{}, {"taught_with": "all"}, {"taught_with": {"labels": "all", "other": ["x"]}}])
def test_weights_that_do_not_say_it(toy_root, tmp_path, header):
    """Of an earlier version, of another origin, or with a header that somebody wrote."""
    recipe = toy.recipe(toy_root)
    assert in_sentences(taught_of(header)) == []
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", toy.ToyConfig().build(), header_of(recipe) | header)
    numbers = evaluate(recipe, frustum.load(tmp_path / "w.safetensors")).numbers()
    assert "taught_with" not in numbers
