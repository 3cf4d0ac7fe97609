"""A network over time in evaluation: keyframes from the loader run as a stream, with the answers of the full form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from frustum.engine import overrides
from frustum.engine.feed import evaluation_batches
from frustum.engine.predictors import NetworkPredictor
from frustum.errors import DataError
from frustum.recipes.finding import get_recipe
from tests.engine import toy


def test_images_of_a_scene_are_encoded_once_each(street_root):
    settings = [f"data.root={street_root}", "model.history.frames=2", "runtime.precision=fp32"]
    recipe = overrides.apply(get_recipe("panoptic-flashocc-mini"), settings)
    torch.manual_seed(0)
    network, source = recipe.model.build(), recipe.data.open()
    encoded, encode = [], network.encode
    network.encode = lambda *args: encoded.append(1) or encode(*args)
    predictor = NetworkPredictor(network, recipe.runtime)
    tokens = source.tokens("val") + source.tokens("train")
    for batch in evaluation_batches(recipe, source, tokens):
        found = predictor(batch)[0]
        with torch.no_grad():
            full = network(batch)["occ_logits"]
        assert (full.argmax(-1)[0] == found.occupancy.semantics).float().mean() > 0.9999  # a tie may fall the other way
    frames, windows = len(tokens), 3 * (1 + 2 + 3)  # three scenes of three keyframes
    assert len(encoded) == frames + windows


def test_a_network_that_can_stream_does_so_unless_it_is_compiled(toy_root):
    recipe = toy.recipe(toy_root)
    network = toy.ToyConfig().build()
    source = recipe.data.open()
    batch = next(evaluation_batches(recipe, source, source.tokens("val")))
    expected = NetworkPredictor(network, recipe.runtime)(batch)[0].occupancy.semantics
    streamed = []
    network.streamed = lambda: lambda batch: streamed.append(batch.tokens) or network(batch)
    assert torch.equal(NetworkPredictor(network, recipe.runtime)(batch)[0].occupancy.semantics, expected)
    assert streamed == [batch.tokens]
    assert NetworkPredictor(network, recipe.runtime.model_copy(update={"compile": True})).forward is network


def test_a_network_that_leaves_out_samples_or_swaps_them_is_refused(toy_root):
    recipe = toy.recipe(toy_root)
    network = toy.ToyConfig().build()
    source = recipe.data.open()
    batch = next(evaluation_batches(recipe, source, source.tokens("val")))
    predict = network.predict
    network.predict = lambda outputs, batch: [replace(predict(outputs, batch)[0], token="another")]
    with pytest.raises(DataError, match="answered for the samples another, but was given"):
        NetworkPredictor(network, recipe.runtime)(batch)
    network.predict = lambda outputs, batch: []
    with pytest.raises(DataError, match="one Prediction for each sample"):
        NetworkPredictor(network, recipe.runtime)(batch)
