"""Flipped bits and numbers that are not finite are noticed, wherever weights are read or written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from frustum.checkpoint.integrity import not_finite, require_finite
from frustum.checkpoint.upstream_file import open_state
from frustum.checkpoint.weights_file import load_state, read_weights, save_weights
from frustum.errors import CheckpointError
from tests.engine import toy


def test_every_flipped_bit_of_a_weights_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, {"a.weight": torch.randn(3, 2), "b": torch.arange(3), "c": torch.tensor(1.0)}, {"step": 7, "recipe": {"lr": 0.25}})
    whole = path.read_bytes()
    state, header = read_weights(path)
    assert header.keys() == {"frustum", "step", "recipe"}
    for place in range(len(whole)):
        for bit in (0, 6):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            try:
                found, about = read_weights(path)
            except CheckpointError:
                continue
            assert about == header, (place, bit)  # white space, or an order that does not matter
            assert found.keys() == state.keys()
            assert all(torch.equal(found[key], state[key]) and found[key].dtype == state[key].dtype for key in state), (place, bit)


def test_files_without_a_digest_are_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "old.safetensors", {"frustum": "0.1.0", "step": "3"})
    assert read_weights(tmp_path / "old.safetensors")[1] == {"frustum": "0.1.0", "step": 3}
    for header in ({"digest": "sha256"}, {"sha256": "0" * 64}):
        save_file({"a": torch.ones(2)}, tmp_path / "cut.safetensors", header)
        with pytest.raises(CheckpointError, match="another digest than its header says"):
            open_state(tmp_path / "cut.safetensors")


def test_what_was_read_is_written_with_a_digest_of_its_own(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", {"a": torch.ones(2)}, {"step": 3})
    state, header = read_weights(tmp_path / "a.safetensors")
    save_weights(tmp_path / "b.safetensors", {"a": 2 * state["a"]}, header | {"sha256": "theirs"})
    assert read_weights(tmp_path / "b.safetensors")[0]["a"].tolist() == [2, 2]


def test_the_checksums_of_an_archive_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    place = content.index(torch.arange(1000.0).numpy().tobytes()) + 2000
    content[place] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)  # which does not notice
    with pytest.raises(CheckpointError, match="damaged"):
        open_state(path)
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert open_state(path).state["a"].tolist() == [1, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path: Path, bad: float) -> None:
    network = toy.ToyConfig(batch_norm=True).build()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    name = next(key for key in state if key.endswith("running_var"))
    state[name][0] = bad
    assert not_finite(state) == {name: 1}
    require_finite(network.state_dict(), "w")
    with pytest.raises(CheckpointError, match=rf"not finite \(NaN or infinite\): {name} \(1\)"):
        save_weights(tmp_path / "a.safetensors", state)
    assert not list(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match="not finite"):
        load_state(network, state, "w")
    require_finite(network.state_dict(), "w")
