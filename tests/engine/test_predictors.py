"""A network over time in evaluation: keyframes from the loader run as a stream, with the answers of the full form."""

from __future__ import annotations

import torch

from frustum.engine import overrides
from frustum.engine.feed import evaluation_batches, open_database
from frustum.engine.predictors import NetworkPredictor
from frustum.recipes.finding import get_recipe


def test_keyframes_of_a_scene_are_seen_once_each(street_root):
    settings = [f"data.root={street_root}", "data.history=2", "model.history=2", "runtime.precision=fp32"]
    recipe = overrides.apply(get_recipe("panoptic-flashocc-mini"), settings)
    torch.manual_seed(0)
    network, database = recipe.model.build(), open_database(recipe.data)
    predictor = NetworkPredictor(network, recipe.runtime)
    looks, see = [], network.see
    network.see = lambda *args: looks.append(1) or see(*args)
    tokens = database.tokens("val") + database.tokens("train")
    for batch in evaluation_batches(recipe, database, tokens, labels=False):
        found = predictor(batch)[0]
        with torch.no_grad():
            full = network(batch)["occ_logits"]
        assert (full.argmax(-1)[0] == found.semantics).float().mean() > 0.9999  # a tie may fall the other way
    frames, windows = len(tokens), 3 * (1 + 2 + 3)  # three scenes of three keyframes
    assert len(looks) == frames + windows
