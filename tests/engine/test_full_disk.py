"""A disk that runs full, and limits of the size of files: what is said, and that the last snapshot stays good."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from frustum.checkpoint.weights_file import save_weights
from frustum.engine import snapshots
from frustum.engine.train import train
from frustum.errors import OutputError
from tests.engine import toy

resource = pytest.importorskip("resource")


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """What `ulimit -f` does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_limit_of_file_sizes_is_called_that(tmp_path: Path) -> None:
    content = {"x": torch.rand(1 << 19)}  # 2 MiB
    with largest_file(1 << 20):
        with pytest.raises(OutputError, match=r"ulimit -f.*Nothing half-written"):
            save_weights(tmp_path / "w.safetensors", content)
        with pytest.raises(OSError) as caught:
            snapshots._save(tmp_path / "s.pt", content)
    assert caught.value.errno == errno.EFBIG
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt"]


def test_a_full_disk_is_explained_and_the_last_snapshot_is_whole(toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, save = toy.recipe(toy_root, steps=6, checkpoint_every=2), torch.save

    def full(content: object, path: Path) -> None:
        if "step_00000004" in str(path) and path.name == "trainer.pt":
            path.write_bytes(b"half")
            raise RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0")
        save(content, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        patch.setattr(snapshots, "why_unwritable", lambda _: OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(OutputError, match=r"the disk is full.*step_00000002, is whole: the same command goes on"):
            train(recipe, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000002"]
    draft = tmp_path / "checkpoints" / ".step_00000004.tmp"
    draft.mkdir()  # as a kill leaves it
    assert train(recipe, tmp_path).resumed_from == 2
    assert not draft.exists()
    assert not list(tmp_path.rglob(".*"))


def test_too_little_room_is_noticed_before_the_first_step(toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(OutputError, match=r"takes about \d+ MB, but there are 0 MB free"):
        train(toy.recipe(toy_root, steps=2), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
