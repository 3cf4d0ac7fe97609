"""Reading other people's checkpoints: every layout, and nothing that could run code."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from frustum.checkpoint.upstream_file import open_state
from frustum.errors import CheckpointError

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "bn.num_batches_tracked": torch.tensor(7)}


def _same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[k], STATE[k]) for k in STATE)


LAYOUTS = {
    "plain": STATE,
    "ordered": OrderedDict(STATE),
    "mmcv": {
        "meta": {
            "epoch": 24,
            "CLASSES": ("car", "bus"),
            "config": "model = dict()",
            "hook_msgs": {"best": np.float64(31.95)},
            "seed": np.int64(0),
        },
        "state_dict": OrderedDict(STATE),
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
    },
    "ema": {"epoch": 24, "state_dict": STATE, "updates": 180_000},
    "data parallel": {f"module.{k}": v for k, v in STATE.items()},
    "ema of data parallel": {"state_dict": {f"module.{k}": v for k, v in STATE.items()}, "updates": 1},
    "compiled": {f"_orig_mod.{k}": v for k, v in STATE.items()},
    "lightning": {"state_dict": {f"model.{k}": v for k, v in STATE.items()}, "epoch": 3},
    "compiled, then data parallel": {f"module._orig_mod.{k}": v for k, v in STATE.items()},
    "data parallel, then compiled": {f"_orig_mod.module.{k}": v for k, v in STATE.items()},
    "data parallel in lightning": {"state_dict": {f"model.module.{k}": v for k, v in STATE.items()}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_from_files_and_from_memory(layout, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(LAYOUTS[layout], path)
    assert _same(open_state(path).state)
    assert _same(open_state(str(path)).state)
    assert _same(open_state(LAYOUTS[layout]).state)


def test_arrays_from_memory():
    assert _same(open_state({"state_dict": {key: value.numpy() for key, value in STATE.items()}}).state)


def test_safetensors_and_old_pickle_streams(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors")
    assert _same(open_state(tmp_path / "a.safetensors").state)
    torch.save({"state_dict": STATE}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert _same(open_state(tmp_path / "old.pth").state)


class _Bomb:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_refused_without_running(how, tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "bad.pth"
    content = {"state_dict": STATE, "meta": _Bomb(str(marker))}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="refused without running"):
        open_state(path)
    assert not marker.exists()


def test_a_plain_pickle_is_refused(tmp_path):
    path = tmp_path / "infos.pkl"
    path.write_bytes(pickle.dumps({"infos": [1, 2, 3]}))
    with pytest.raises(CheckpointError, match=r"infos\.pkl"):
        open_state(path)


def test_damaged_and_missing_files(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"damaged|refused"):
        open_state(path)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        open_state(tmp_path / "none.pth")
    save_file(STATE, tmp_path / "a.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((tmp_path / "a.safetensors").read_bytes()[:60])
    with pytest.raises(CheckpointError, match="safetensors"):
        open_state(cut)
    (tmp_path / "empty.pth").touch()
    with pytest.raises(CheckpointError):
        open_state(tmp_path / "empty.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"a": torch.zeros(1), "b": 2}, [torch.zeros(1)], torch.zeros(2)])
def test_files_without_a_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="does not hold a state dict"):
        open_state(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("layout", "words", "details"),
    [
        ("plain", "plain state dict", {}),
        ("mmcv", "mmcv", {"epoch": 24, "CLASSES": ["car", "bus"]}),
        ("ema", "moving average", {"epoch": 24, "updates": 180_000}),
        ("data parallel", "plain state dict, keys under 'module.'", {}),
        ("ema of data parallel", "moving average, keys under 'module.'", {"updates": 1}),
        ("data parallel, then compiled", "plain state dict, keys under '_orig_mod.', keys under 'module.'", {}),
    ],
)
def test_the_layout_is_named_and_plain_facts_are_kept(layout, words, details, tmp_path):
    torch.save(LAYOUTS[layout], tmp_path / "x.pth")
    found = open_state(tmp_path / "x.pth")
    assert (found.layout, found.details) == (words, details)


def test_the_header_of_safetensors_is_kept(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors", metadata={"source": '"flashocc"'})
    found = open_state(tmp_path / "a.safetensors")
    assert (found.layout, found.metadata) == ("safetensors", {"source": '"flashocc"'})


@pytest.mark.parametrize(
    "odd",
    [torch.zeros(1).expand(1 << 40), torch.zeros(3, 3).to_sparse(), torch.full((2, 3), 1j)],
    ids=["a number repeated 10^12 times", "sparse", "complex"],
)
def test_tensors_that_no_network_has(odd, tmp_path):
    torch.save({**STATE, "conv.bias": odd}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"conv\.bias is a Tensor, where a tensor or an array of numbers is needed"):
        open_state(tmp_path / "x.pth")
