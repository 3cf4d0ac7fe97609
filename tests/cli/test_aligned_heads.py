"""data aligned: heads that the aligner of frustum draws, and a blender that learns from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from frustum.cli.worlds import generate_portraits
from frustum.data.augment import BevTransform, Draw
from frustum.data.labels.portraits import PlacedHeads
from frustum.data.pixels import ImageTransform
from frustum.data.portraits.opening import open_portraits
from frustum.errors import DataError
from tests.cli.conftest import Run


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("heads") / "heads"
    generate_portraits({"identities": 3, "clips": 1, "frames": 2, "size": 64, "train_swaps": 1, "swaps": 0}, root, workers=1)
    return root


def test_heads_are_drawn_once_and_learned_from(frustum: Run, heads: Path, tmp_path: Path) -> None:
    from frustum.weights.shipped import shipped

    source = open_portraits(heads)
    tokens = source.tokens("train_swaps")
    learn = ("train", "heser-blender-mini", f"data.root={heads}", "data.val_split=train_swaps", "model.aligned=1", "train.batch_size=2")
    missing = frustum(*learn, "train.steps=1", "--out", tmp_path / "run")
    assert missing.code != 0
    assert "has no head that an aligner drew: frustum data aligned ALIGNER HEADS" in " ".join(missing.err.split())
    words = ("data", "aligned", shipped("aligner"), heads)
    made = frustum(*words, "--json", tmp_path / "made.json")
    assert made.code == 0, made.err
    assert json.loads((tmp_path / "made.json").read_text()) == {"folder": str(heads), "heads": len(tokens), "new": len(tokens), "failed": 0}
    found = open_portraits(heads).aligned_head(tokens[0])
    assert found is not None
    image, parts = found
    true, true_parts = source.placed_head(tokens[0])
    assert (image.shape, parts.dtype) == (true.shape, np.uint8)
    assert ((parts > 0) & (true_parts > 0)).sum() > 0.5 * (true_parts > 0).sum()
    assert "0 of them are new" in frustum(*words).out
    done = frustum(*learn, "train.steps=1", "--out", tmp_path / "run")
    assert done.code == 0, done.err

    label = PlacedHeads(aligned=0.5)
    read = label.read(source, tokens[0])
    still = Draw((ImageTransform((64, 64), (64, 64), (64, 64)),), BevTransform(), (64, 64))
    assert np.array_equal(label.apply(read, still)[0], true), "evaluation sees the true head"
    drawn = [np.array_equal(label.apply(read, replace(still, seed=seed))[0], image) for seed in range(40)]
    assert 8 < sum(drawn) < 32
    note = heads / "swaps" / tokens[0] / "aligned.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "source": "other/clip"}))
    assert open_portraits(heads).aligned_head(tokens[0]) is None
    assert "1 of them are new" in frustum(*words).out
    picture = note.with_name("aligned.png")
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-40])
    assert "1 of them are new" in frustum(*words).out
    assert picture.read_bytes() == whole
    note.with_name("aligned_mask.png").unlink()
    assert "1 of them are new" in frustum(*words).out


def test_what_cannot_be_drawn(frustum: Run, heads: Path, tmp_path: Path) -> None:
    from frustum.weights.shipped import shipped

    blender = frustum("data", "aligned", shipped("blender"), heads)
    assert (blender.code, "is no aligner, but a HeserBlender" in " ".join(blender.err.split())) == (2, True)
    alone = tmp_path / "alone"
    generate_portraits({"identities": 2, "clips": 1, "frames": 2, "size": 64, "train_swaps": 0, "swaps": 0}, alone, workers=1)
    frames = frustum("data", "aligned", shipped("aligner"), alone)
    assert (frames.code, "has no true swaps of the split train" in " ".join(frames.err.split())) == (3, True)
    with pytest.raises(DataError, match="has no split"):
        open_portraits(heads).tokens("nobody")
