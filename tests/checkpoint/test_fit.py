from __future__ import annotations

import numpy as np
import pytest
import torch

from frustum.checkpoint.fit import Fit, as_tensors, complete, describe_difference, renamed, without_holder
from frustum.errors import CheckpointError

MODEL = {"conv.weight": torch.zeros(4, 3, 1, 1), "conv.bias": torch.zeros(4), "head.weight": torch.zeros(2, 4)}


def test_equal_states_have_no_difference():
    assert describe_difference(MODEL, {key: value + 1 for key, value in MODEL.items()}) == ""


def test_every_kind_of_difference_is_listed_with_shapes():
    given = {"conv.weight": torch.zeros(8, 3, 1, 1), "head.weights": torch.zeros(2, 4), "conv.bias": torch.zeros(4)}
    lines = describe_difference(MODEL, given).splitlines()
    assert lines == [
        "missing (1):",
        "  head.weight  (2, 4)  did you mean 'head.weights'?",
        "not in the model (1):",
        "  head.weights  (2, 4)",
        "other shape (1):",
        "  conv.weight  needed (4, 3, 1, 1), given (8, 3, 1, 1)",
    ]


def test_long_lists_are_cut():
    text = describe_difference({f"layer{i}.weight": torch.zeros(1) for i in range(20)}, {}, max_keys=3)
    assert "missing (20):" in text
    assert "... and 17 more" in text
    assert len(text.splitlines()) == 6


def test_arrays_become_tensors_of_their_own():
    array = np.arange(3.0)[::-1]
    found = as_tensors({"a": array, "n": np.int64(4), "t": MODEL["conv.bias"]}, "x")
    assert found["a"].tolist() == [2, 1, 0]
    assert (found["n"].dtype, int(found["n"])) == (torch.int64, 4)
    assert found["t"] is MODEL["conv.bias"]
    with pytest.raises(CheckpointError, match="x does not hold a state dict: b is a dict"):
        as_tensors({"b": {}}, "x")


def test_missing_counters_are_zero():
    model = torch.nn.BatchNorm1d(2).state_dict()
    model["num_batches_tracked"] += 5
    given = {key: value for key, value in model.items() if key != "num_batches_tracked"}
    found = complete(model, given)
    assert describe_difference(model, found) == ""
    assert int(found["num_batches_tracked"]) == 0
    assert int(complete(model, model)["num_batches_tracked"]) == 5
    assert complete(model, {"x": torch.zeros(1)}).keys() == {"x"}, "another model's weights stay what they are"
    assert complete(model, {"weight": model["weight"]}).keys() == {"weight"}, "no statistics, nothing to count"
    with torch.device("meta"):
        empty = torch.nn.BatchNorm1d(2).state_dict()
    assert not complete(empty, given)["num_batches_tracked"].is_meta


def test_a_fit_is_told_by_parts():
    model = {"a.w": torch.zeros(2), "a.b": torch.zeros(2), "b.w": torch.zeros(3), "c.w": torch.zeros(1)}
    given = {"a.w": torch.zeros(2), "a.b": torch.zeros(2), "b.w": torch.zeros(4), "d.w": torch.zeros(1), "d.b": torch.zeros(1)}
    fit = Fit.of(model, given)
    assert (fit.taken, fit.missing, fit.unexpected, fit.reshaped) == (("a.w", "a.b"), ("c.w",), ("d.w", "d.b"), ("b.w",))
    assert str(fit) == "2 of 4 entries fit; wholly: a 2; not: c 1, b 1; other shape: b.w; left over in the file: d 2"
    assert str(Fit.of(model, model)) == "4 of 4 entries fit; wholly: a 2, b 1, c 1"
    many = {f"x.{i}": torch.zeros(1) for i in range(9)}
    assert str(Fit.of(many, {key: torch.zeros(2) for key in many})).endswith("x.5, ... and 3 more")


def test_weights_of_another_network_are_called_so_without_guesses():
    text = describe_difference(MODEL, {"x": torch.zeros(1)})
    assert text.startswith("not one of the model's 3 keys is in the given weights: they look like another network's\n")
    text = describe_difference(
        MODEL, {"conv.bias": torch.zeros(4), "conv.weights": torch.zeros(4, 3, 1, 1), "fine.weight": torch.zeros(2, 4)}
    )
    assert text.startswith("only 1 of the model's 3 keys are in the given weights")
    assert "did you mean" not in text


@pytest.mark.parametrize(("given", "shape"), [("head.weights", (2, 5)), ("fine.1.weight", (2, 4))])
def test_names_are_guessed_only_when_close_and_of_the_same_shape(given, shape):
    state = {"conv.weight": MODEL["conv.weight"], "conv.bias": MODEL["conv.bias"], given: torch.zeros(shape)}
    text = describe_difference(MODEL, state)
    assert "another network" not in text
    assert "did you mean" not in text


def test_keys_of_an_earlier_version_get_their_new_names():
    prefixes = {"enter.": "trunk.enter.", "old.": "new."}
    state = {"enter.weight": 1, "old.enter.bias": 2, "head.bias": 3}
    new = renamed(state, prefixes)
    assert new == {"trunk.enter.weight": 1, "new.enter.bias": 2, "head.bias": 3}
    assert renamed(new, prefixes) == new, "a file of this version stays as it is"
    assert renamed({"a.x": 1}, {"a.": "a.b."}) == renamed({"a.b.x": 1}, {"a.": "a.b."}) == {"a.b.x": 1}


def test_a_network_that_another_held_is_found() -> None:
    state = {"network.a.weight": 1, "network.b": 2, "head.a.weight": 3, "head.x": 4}
    assert without_holder(state, {"a.weight", "b", "c"}) == ({"a.weight": 1, "b": 2, "head.a.weight": 3, "head.x": 4}, "network")
    for keys in ({"z"}, {"network.b", "b"}, set()):
        assert without_holder(state, keys) == (state, "")
    assert without_holder({}, {"a"}) == ({}, "")
