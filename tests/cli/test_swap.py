"""swap: consent, what is written, marks and notes; and what is said of input that does not fit. Networks are tiny and untrained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from frustum.checkpoint.weights_file import save_weights
from frustum.cli import swapping
from frustum.data.portraits.marks import find_mark
from frustum.engine import overrides
from frustum.engine.sections import header_of
from frustum.recipes.finding import get_recipe
from tests.cli.conftest import Run
from tests.data.portraits.test_crop import with_heads
from tests.models import test_heser_aligner, test_heser_blender, test_segmentation

SMALL = {**test_heser_aligner.SMALL, **test_heser_blender.SMALL, **test_segmentation.SMALL}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, made = tmp_path_factory.mktemp("networks"), {}
    for name in ("heser-aligner-mini", "heser-blender-mini", "face-parser"):
        torch.manual_seed(0)
        recipe = overrides.apply(get_recipe(name), [*SMALL[name], *(["data.image_size=32,32"] if name == "face-parser" else [])])
        made[name.split("-")[1]] = folder / f"{name}.safetensors"
        save_weights(made[name.split("-")[1]], recipe.model.build(), header_of(recipe))
    return made


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Photographs with their parsing maps in masks/."""
    rng = np.random.default_rng(0)
    heads = {"a1": [(50, 60, 30)], "a2": [(48, 50, 34)], "b": [(60, 70, 28)], "two": [(50, 10, 30), (50, 90, 30)], "none": []}
    (tmp_path / "masks").mkdir()
    for name, places in heads.items():
        image = np.repeat(np.repeat(rng.integers(40, 220, (15, 20, 3), dtype=np.uint8), 8, 0), 8, 1)
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        Image.fromarray(with_heads(*places)).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def words(networks: dict[str, Path], folder: Path, target: str = "b.png") -> list[object]:
    runs = [word for kind in ("aligner", "blender", "parser") for word in (f"--{kind}", networks[kind])]
    return ["swap", "--source", folder / "a1.png", folder / "a2.png", "--target", folder / target, *runs, "--masks", folder / "masks"]


def finds_a_square(name: str) -> tuple[swapping.Parse, nn.Module]:
    """In place of a trained parser."""
    return lambda image: with_heads((14, 10, 12), size=image.shape[:2]), nn.Identity()


def test_a_head_is_swapped(frustum: Run, networks, photographs, monkeypatch) -> None:
    monkeypatch.setattr(swapping, "parser_of", finds_a_square)
    out = photographs / "made" / "swapped.png"
    run = frustum(*words(networks, photographs), "--out", out, "--steps", 2, "--consent", "--json", photographs / "files.json")
    assert run.code == 0, run.err
    assert json.loads((photographs / "files.json").read_text())["files"] == [str(out)]
    with Image.open(out) as opened:
        made = np.asarray(opened)
    image = np.asarray(Image.open(photographs / "b.png"))
    assert made.shape == image.shape
    difference = np.abs(made.astype(int) - image).max(-1)
    assert (difference[40:90, 60:110] > 8).mean() > 0.2, "the head"
    assert difference[:20].max() <= 6, "far from it nothing but the mark"
    note = json.loads(out.with_suffix(".json").read_text())
    assert find_mark(made) == note["mark"]
    assert set(note["sources"]) == {"a1.png", "a2.png"}
    assert note["policy"] == "region"
    assert note["consent"] == "stated by the user (--consent)"
    seen = frustum("swap", "--verify", out)
    assert seen.code == 0
    assert f"carries the mark {note['mark']:08x}" in seen.out
    assert "belongs to it." in seen.out
    changed = photographs / "made" / "changed.png"
    other = made.copy()
    other[5, 5] ^= 1
    Image.fromarray(other).save(changed)
    changed.with_suffix(".json").write_text(out.with_suffix(".json").read_text())
    assert "changed.json belongs to it, but the picture was changed since then." in frustum("swap", "--verify", changed).out
    Image.fromarray(made).save(photographs / "copy.jpg", quality=90)
    assert "no note of it lies beside it" in frustum("swap", "--verify", photographs / "copy.jpg").out
    assert "carries no mark" in frustum("swap", "--verify", photographs / "b.png").out


def test_a_folder_of_frames(frustum: Run, networks, photographs, monkeypatch) -> None:
    monkeypatch.setattr(swapping, "parser_of", finds_a_square)
    frames = photographs / "frames"
    frames.mkdir()
    for name in ("a1", "b"):
        (photographs / f"{name}.png").rename(frames / f"{name}.png")
    given = words(networks, photographs, "frames")
    given[2] = photographs / "a2.png"
    run = frustum(*given, "--out", photographs / "video", "--no-label", "--consent")
    assert run.code == 0, run.err
    assert sorted(path.name for path in (photographs / "video").iterdir()) == ["a1.json", "a1.png", "b.json", "b.png"]
    (frames / "b.png").write_bytes(b"no picture")
    run = frustum(*given, "--out", photographs / "again", "--consent")
    assert run.code == 0, run.err
    assert "1 of 2 photographs were left out. b.png:" in " ".join(run.err.split())
    assert sorted(path.name for path in (photographs / "again").iterdir()) == ["a1.json", "a1.png"]
    (frames / "a1.png").write_bytes(b"no picture")
    run = frustum(*given, "--out", photographs / "none", "--consent")
    assert (run.code, "none of the 2 photographs" in " ".join(run.err.split())) == (3, True)
    run = frustum(*given, "--out", photographs / "none.png", "--consent")
    assert (run.code, "the target is a folder, so that --out is one, too" in " ".join(run.err.split())) == (2, True)
    (photographs / "made").mkdir(exist_ok=True)
    for masks, said in (
        (photographs / "nowhere", "is not a folder of parsing maps"),
        (photographs / "made", "holds no parsing map of these"),
    ):
        run = frustum(*given[:-1], masks, "--out", photographs / "none", "--consent")
        assert (run.code, said in " ".join(run.err.split())) == (3, True), run.err


def test_nothing_is_done_without_consent(frustum: Run, networks, photographs) -> None:
    run = frustum(*words(networks, photographs), "--out", photographs / "swapped.png")
    assert run.code == 2
    assert "give the same command with --consent" in run.err
    assert not (photographs / "swapped.png").exists()
    assert "--target must be given" in frustum("swap", "--source", "a.png", "--consent").err


def test_no_photograph_is_replaced(frustum: Run, networks, photographs) -> None:
    before = {file: file.read_bytes() for file in photographs.glob("*.png")}
    for out, said in (("a1.png", "would be replaced"), ("b.png", "would be replaced"), ("swapped.jpg", "ends in .png")):
        run = frustum(*words(networks, photographs), "--out", photographs / out, "--consent")
        assert (run.code, said in run.err) == (2, True), run.err
    frames = photographs / "frames"
    frames.mkdir()
    (frames / "b.png").write_bytes(before[photographs / "b.png"])
    run = frustum(*words(networks, photographs, "frames"), "--out", frames, "--consent")
    assert (run.code, "would be replaced" in run.err) == (2, True), run.err
    (frames / "b.jpg").write_bytes((frames / "b.png").read_bytes())
    run = frustum(*words(networks, photographs, "frames"), "--out", photographs / "made", "--consent")
    assert (run.code, "different names" in run.err) == (2, True), run.err
    assert {file: file.read_bytes() for file in photographs.glob("*.png")} == before


def test_input_that_does_not_fit(frustum: Run, networks, photographs, monkeypatch) -> None:
    parse, _ = swapping.parser_of(str(networks["parser"]))
    assert parse(np.zeros((48, 48, 3), np.uint8)).shape == (48, 48)
    swapped = {**networks, "aligner": networks["blender"]}
    assert "is a HeserBlender, where a HeserAligner is needed" in frustum(*words(swapped, photographs), "--consent").err
    assert "does not have the 19 classes" in frustum(*words({**networks, "parser": networks["aligner"]}, photographs), "--consent").err
    monkeypatch.setattr(swapping, "parser_of", finds_a_square)
    for target, said in (("two", "two heads are found"), ("none", "no head is found"), ("small", "needs 96 on each side")):
        Image.new("LA", (40, 50)).save(photographs / "small.png")
        run = frustum(*words(networks, photographs, f"{target}.png"), "--consent")
        assert run.code == 3, run.err
        assert said in run.err
