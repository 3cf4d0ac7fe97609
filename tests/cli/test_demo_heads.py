"""The demo of heads, shortened: all stages, resuming, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frustum.cli.demo_heads import run_head_demo
from frustum.errors import ConfigError
from frustum.weights.loading import open_network
from frustum.weights.shipped import shipped
from tests.cli.conftest import Run

CHANGES = {
    "aligner": ["model.channels=8", "model.max_channels=16", "model.encoder_size=32", "train.batch_size=2", "runtime.precision=fp32"],
    "blender": ["model.width=8", "model.feature_width=4", "train.batch_size=2", "runtime.precision=fp32"],
}
WORLD = {"identities": 10, "clips": 1, "frames": 4}


def test_all_stages(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    numbers = run_head_demo(tmp_path / "demo", minutes=0.1, changes=CHANGES, world=WORLD, training=True)
    assert json.loads((tmp_path / "demo" / "demo.json").read_text()) == json.loads(json.dumps(numbers))
    names = [numbers["name"], *(row["name"] for row in numbers["baselines"])]
    assert names[:3] == ["aligner and blender", "aligner, pasted", "exact head, blended"]
    assert "aligned and pasted, recoloured" in names
    assert numbers["frames"] == 2
    with Image.open(tmp_path / "demo" / "swaps.png") as opened:
        sheet = np.asarray(opened)
    assert sheet.shape == (5 * 96, 90 + 2 * 96, 3)
    said = " ".join(capsys.readouterr().out.split())
    assert "people to learn from, 2 swaps of 2 people whom no network saw" in said
    assert ("they say nothing of the networks" in said) == bool(numbers["failed"])
    again = run_head_demo(tmp_path / "demo", minutes=0.1, changes=CHANGES, world=WORLD, training=True)
    assert again["results"] == numbers["results"]
    assert again["plan"] == numbers["plan"], "it goes on with what was chosen first"
    with pytest.raises(ConfigError, match=r"demo with seed 0.*--fresh"):
        run_head_demo(tmp_path / "demo", seed=1, world=WORLD, training=True)
    with pytest.raises(ConfigError, match="with --train"):
        run_head_demo(tmp_path / "demo", world=WORLD)


def test_the_networks_of_frustum_swap_heads_of_people_they_never_saw(tmp_path: Path) -> None:
    """Small as the world is: what they make is better than pasting in the gap and in eyes and mouth."""
    numbers = run_head_demo(tmp_path / "demo", world=WORLD | {"train_swaps": 0})
    rows = {row["name"]: row["results"]["portrait"] for row in (numbers, *numbers["baselines"])}
    assert not numbers["failed"]
    assert not (tmp_path / "demo" / "aligner").exists(), "nothing is trained"
    ours, pasted = rows["aligner and blender"], rows["aligned and pasted, recoloured"]
    assert ours["psnr_gap"] > pasted["psnr_gap"] + 1
    assert rows["exact head, blended"]["psnr_gap"] > rows["exact head, pasted, recoloured"]["psnr_gap"] + 1


def test_what_is_refused(frustum: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = frustum("demo", "cats")
    assert run.code == 2
    assert "there is no demo 'cats'" in run.err
    monkeypatch.setattr("frustum.weights.shipped.FOLDER", tmp_path / "none")
    run = frustum("demo", "heads", "--out", tmp_path / "demo")
    assert run.code == 3
    assert "Install it again" in run.err


def test_the_parser_that_comes_with_frustum() -> None:
    path = shipped("parser")
    assert path is not None
    recipe, _ = open_network(str(path))
    assert recipe.name == "face-parser"
    assert shipped("cat") is None
