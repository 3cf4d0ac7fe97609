from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from frustum.checkpoint.weights_file import load_state, read_weights, save_weights
from frustum.errors import CheckpointError, DataError
from tests.engine import toy


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_weights(tmp_path / "a.safetensors", toy.ToyConfig().build(), {"step": 7, "recipe": {"name": "toy"}})
    return tmp_path / "a.safetensors"


def test_weights_come_back_exactly_with_their_metadata(weights):
    torch.manual_seed(0)
    first, second = toy.ToyConfig(batch_norm=True).build(), toy.ToyConfig(batch_norm=True).build()
    save_weights(weights, first, {"step": 3})
    state, metadata = read_weights(weights)
    load_state(second, state, "w")
    assert metadata["step"] == 3
    assert "frustum" in metadata
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key])
        assert second.state_dict()[key].dtype == tensor.dtype


def test_tied_and_strided_entries_are_stored(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    save_weights(tmp_path / "t.safetensors", {"a": shared, "b": shared, "c": shared.t()})
    state, _ = read_weights(tmp_path / "t.safetensors")
    assert torch.equal(state["a"], state["b"])
    assert torch.equal(state["c"], shared.t())


def test_a_run_folder_stands_for_its_weights(tmp_path):
    network = toy.ToyConfig().build()
    save_weights(tmp_path / "weights.safetensors", network)
    assert set(read_weights(tmp_path)[0]) == set(network.state_dict())


def test_nothing_but_the_file_remains(weights):
    assert [path.name for path in weights.parent.iterdir()] == ["a.safetensors"]


def test_a_mismatch_is_listed_readably(weights):
    wider = toy.ToyConfig(width=6, batch_norm=True).build()
    before = {key: value.clone() for key, value in wider.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_state(wider, read_weights(weights)[0], str(weights))
    text = str(error.value)
    assert "norm.running_mean" in text
    assert "encoder.weight  needed (6, 3, 3, 3), given (16, 3, 3, 3)" in text
    assert "Toy" in text
    assert all(torch.equal(before[key], value) for key, value in wider.state_dict().items()), "nothing may be loaded halfway"


def test_weights_of_another_model_are_called_that():
    with pytest.raises(CheckpointError, match="another network's"):
        load_state(toy.ToyConfig().build(), {"backbone.weight": torch.zeros(3)}, "x")


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_named(weights, keep):
    content = weights.read_bytes()
    weights.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match=r"a\.safetensors.*(damaged|is empty)"):
        read_weights(weights)


def test_random_bytes_are_refused(tmp_path):
    path = tmp_path / "noise.safetensors"
    path.write_bytes(bytes(range(256)) * 10)
    with pytest.raises(CheckpointError, match=r"noise\.safetensors is not a checkpoint"):
        read_weights(path)


@pytest.mark.parametrize("name", ["epoch_24_ema.pth", "model.pkl", "weights.safetensors"])
@pytest.mark.parametrize("old_format", [False, True])
def test_a_pickle_is_refused_before_it_runs(tmp_path, name, old_format):
    path = tmp_path / name
    if name.endswith("pkl"):
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    else:
        torch.save({"state_dict": {}, "bomb": Bomb(tmp_path / "exploded")}, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(CheckpointError, match="pickle where a checkpoint is expected") as error:
        read_weights(path)
    assert 'source="official"' in str(error.value)
    assert not (tmp_path / "exploded").exists()


class Bomb:
    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*gone\.safetensors"):
        read_weights(tmp_path / "gone.safetensors")


def test_an_unfinished_run_names_its_last_saved_step(tmp_path):
    for step, names in (("step_00000002", ("model", "ema")), ("step_00000010", ("model",))):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
        for name in names:
            (tmp_path / "checkpoints" / step / f"{name}.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is not finished: .* Go on: frustum train .*step_00000010.model\.safetensors, which can"):
        read_weights(tmp_path / "weights.safetensors")
    (tmp_path / "checkpoints" / "step_00000010" / "ema.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step_00000010.ema\.safetensors"):
        read_weights(tmp_path / "weights.safetensors")


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        save_weights(tmp_path / "file" / "a.safetensors", toy.ToyConfig().build())


def test_a_full_disk_leaves_the_old_file(weights, monkeypatch):
    before = weights.read_bytes()

    def full(*args, **kwargs):
        from safetensors import SafetensorError

        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("frustum.checkpoint.weights_file.save_file", full)
    with pytest.raises(DataError, match="disk is full"):
        save_weights(weights, toy.ToyConfig().build())
    assert weights.read_bytes() == before
    assert len(list(weights.parent.iterdir())) == 1
