"""A file that is no checkpoint is called what it is, and its owner is told what to do."""

from __future__ import annotations

import gzip
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from frustum.checkpoint.unreadable import holds_module, is_safetensors
from frustum.checkpoint.upstream_file import open_state
from frustum.errors import CheckpointError

STATE = {"conv.weight": torch.arange(600.0).reshape(2, 300)}

STRANGERS = {
    "page": (b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>", "a web page.*in a browser"),
    "page without a doctype": (b"\n<html>\n<body>sign in</body></html>", "a web page"),
    "text": (b"hello not found html", r"text, which begins with 'hello not found html' \(20 bytes\).*Get it again"),
    "long text": (b"Quota exceeded. " * 1000, r"begins with 'Quota exceeded\. .*\.\.\.' \(16,000 bytes\)"),
    "umlauts": ("Zugriff verweigert: ü".encode() * 400, "text, which begins"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 160111955\n", "Type git lfs pull"),
    "gzip": (gzip.compress(b"x" * 100), "a gzip archive.*Unpack it"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
    "zeros": (bytes(5000), "something else"),
    "empty": (b"", r"is empty \(0 bytes\)"),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_what_is_no_checkpoint_is_called_what_it_is(kind, tmp_path):
    content, words = STRANGERS[kind]
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"(?s){words}") as caught:
        open_state(path)
    assert str(caught.value).startswith(str(path))
    assert all(word not in str(caught.value) for word in ("Error", "truncated", "damaged", "101"))


def test_an_array_and_a_folder(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(CheckpointError, match="a numpy array"):
        open_state(tmp_path / "x.npy")
    with pytest.raises(CheckpointError, match=r"is a folder.*There is none in it"):
        open_state(tmp_path)
    torch.save(STATE, tmp_path / "m0.pth")
    with pytest.raises(CheckpointError, match=r"is a folder.*Give a file in it: .*m0\.pth"):
        open_state(tmp_path)
    assert not is_safetensors(tmp_path / "m0.pth")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_truncated_archives_are_explained_in_our_words(keep, tmp_path):
    path = tmp_path / "x.pth"
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(CheckpointError, match=rf"is truncated: its end is missing after {path.stat().st_size:,} bytes") as caught:
        open_state(path)
    assert "miniz" not in str(caught.value)
    assert "central directory" not in str(caught.value)


def test_damaged_inside_and_other_archives(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"a zip archive that torch\.save did not write: it holds readme\.txt\. Unpack it"):
        open_state(path)
    torch.save(STATE, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"conv.weight", b"\xff" * 11))
    with pytest.raises(CheckpointError, match=r"damaged"):
        open_state(path)
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(CheckpointError, match=r"truncated or damaged"):
        open_state(path)


class Network(torch.nn.Sequential):
    """A class that no reader of its pickle has."""


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("network", [torch.nn.Linear(3, 3), Network(torch.nn.Linear(3, 3))], ids=["torch's", "own"])
def test_a_pickled_network_wants_its_state_dict(network, new_format, tmp_path):
    """The command in the message is typed as it stands, and what it writes is read."""
    path = tmp_path / "whole.pth"
    torch.save(network, path, _use_new_zipfile_serialization=new_format)
    assert holds_module(path)
    with pytest.raises(CheckpointError, match=r"a whole network \(.*\.(Linear|Network)\).*\.state_dict\(\)") as caught:
        open_state(path)
    _run_advice(str(caught.value), tmp_path)
    assert set(open_state(tmp_path / "tensors.pth").state) == set(network.state_dict())


@pytest.mark.parametrize("content", [{"state_dict": STATE, "note": Path("a")}, STATE | {"note": Path("a")}], ids=["within", "bare"])
def test_other_objects_beside_tensors(content, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    assert not holds_module(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"refused without running it: it refers to pathlib") as caught:
        open_state(tmp_path / "x.pth")
    _run_advice(str(caught.value), tmp_path)
    found = torch.load(tmp_path / "tensors.pth", weights_only=False)
    assert torch.equal(found["conv.weight"], STATE["conv.weight"])


class _Bomb:
    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_nobody_is_told_to_run_an_attack(tmp_path):
    torch.save({"state_dict": STATE, "x": _Bomb(f"touch {tmp_path / 'ran'}")}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"refused without running it: it would call \w+\.system, which no weights need") as caught:
        open_state(tmp_path / "x.pth")
    assert "weights_only=False" not in str(caught.value)
    (tmp_path / "y.pkl").write_bytes(pickle.dumps(_Bomb(f"touch {tmp_path / 'ran'}")))
    with pytest.raises(CheckpointError, match=r"a pickle that torch\.save did not write"):
        open_state(tmp_path / "y.pkl")
    assert not (tmp_path / "ran").exists()


def _run_advice(message: str, folder: Path) -> None:
    code = message.split('python -c "')[1].removesuffix('"')
    here = Path.cwd()
    os.chdir(folder)
    try:
        exec(code, {})
    finally:
        os.chdir(here)
