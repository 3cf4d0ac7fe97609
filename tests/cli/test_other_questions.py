"""Methods that answer another question than occupancy go through every verb without an edit: a detector, and 2D segmentation."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frustum.data.augment import fit_image
from frustum.data.images.section import ImageFolderData
from frustum.data.source import AugmentConfig
from frustum.errors import DataError
from frustum.tasks.segmentation import SegmentationTask
from frustum.types.predictions import PredictedSegmentation, Prediction
from tests.cli.conftest import Run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

SEGMENTER = '''
"""Colours to classes, one pixel at a time: a network for single images, from outside the package."""

from __future__ import annotations

import torch
from torch import nn

from frustum.data.images.section import ImageFolderData
from frustum.data.labels.pixels import PixelLabels
from frustum.engine.recipe import AugmentConfig, OptimConfig, Recipe, TrainConfig
from frustum.types.contract import ModelConfig
from frustum.types.predictions import PredictedSegmentation, Prediction

NAMES = ("red", "green", "blue")


class PixelsConfig(ModelConfig):
    width: int = 8

    def learns_from(self):
        return (PixelLabels(NAMES),)

    def build(self):
        return Pixels(self)


class Pixels(nn.Module):
    """`forward` returns

    logits: (B, K, H, W)
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.net = nn.Sequential(nn.Conv2d(3, config.width, 1), nn.Softplus(), nn.Conv2d(config.width, len(NAMES), 1))

    def forward(self, batch):
        return {"logits": self.net(batch.images[:, 0, 0]).float()}

    def loss(self, outputs, batch):
        labels = batch.need(PixelLabels)
        return {"cross_entropy": nn.functional.cross_entropy(outputs["logits"], labels.long(), ignore_index=255)}

    @torch.no_grad()
    def predict(self, outputs, batch):
        found = outputs["logits"].argmax(1).to(torch.uint8)
        return [Prediction(token, segmentation=PredictedSegmentation(f, NAMES)) for token, f in zip(batch.tokens, found)]


def pixels() -> Recipe:
    """Colours to classes."""
    return Recipe(
        name="pixels",
        model=PixelsConfig(),
        data=ImageFolderData(root="set", image_size=(12, 16)),
        augment=AugmentConfig(resize=(0.0, 0.0), rotate_deg=(0.0, 0.0)),
        optim=OptimConfig(lr=0.05, schedule="constant", warmup_steps=0),
        ema=None,
        train=TrainConfig(epochs=None, steps=60, batch_size=2, num_workers=0, checkpoint_every=100),
    )
'''


def colour_set(root: Path) -> Path:
    """Images of coloured patches, whose classes are their colours; a border of ignored pixels."""
    rng = np.random.default_rng(0)
    colours = np.array([[220, 30, 30], [30, 220, 30], [30, 30, 220]])
    for split, count in (("train", 6), ("val", 3)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            labels = rng.integers(0, 3, (6, 8)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
            image = (colours[labels] + rng.integers(-20, 20, (*labels.shape, 3))).astype(np.uint8)
            labels[0] = 255
            Image.fromarray(image).save(root / "images" / split / f"{split}{i}.png")
            Image.fromarray(labels).save(root / "labels" / split / f"{split}{i}.png")
    (root / "classes.json").write_text(json.dumps(["red", "green", "blue"]))
    return root


def test_label_maps_are_scored_at_the_size_of_the_image(tmp_path: Path) -> None:
    """Predicted at half the size, without the upper half: every pixel of the window counts, those above it are misses."""
    root = colour_set(tmp_path / "set")
    data, augment = ImageFolderData(root=str(root), image_size=(6, 16)), AugmentConfig()
    source = data.open()
    token = source.tokens("val")[0]
    truth = source.labels(token)
    small = np.array(fit_image(augment, (24, 32), (6, 16)).apply(Image.fromarray(truth), ignore=255))
    found = data.back_to_source(
        source, Prediction(token, segmentation=PredictedSegmentation(torch.from_numpy(small), source.class_names)), augment
    )
    labels = found.segmentation.labels.numpy()
    assert labels.shape == (24, 32)
    assert (labels[:12] == 255).all(), "the network did not see the upper half"
    np.testing.assert_array_equal(labels[12:], truth[12:])
    task = SegmentationTask()
    task.add(token, found.segmentation, task.truth(source, token))
    assert task.compute()["accuracy"] == pytest.approx((truth[12:] != 255).sum() / (truth != 255).sum())


def results_in(file: Path) -> dict[str, dict[str, float]]:
    return json.loads(file.read_text())["results"]


@pytest.fixture
def _forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules from outside are imported anew, as in a process of its own."""
    for name in ("bev_detector", "pixels_outside"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("_forgets")
def test_a_detector_from_outside(frustum: Run, street_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    run = tmp_path / "run"
    trained = frustum("train", "bev_detector:bev_detector", f"data.root={street_root}", "train.steps=4", "model.width=4", "--out", run)
    assert trained.code == 0, trained.err
    assert f"Next: frustum eval {run} --code bev_detector" in " ".join(trained.out.split())
    scored = frustum("eval", run, "--json", tmp_path / "eval.json", "--code", "bev_detector")
    assert scored.code == 0, scored.err
    assert "mAP" in scored.out
    assert "NDS" in scored.out
    found = frustum("predict", run, street_root, "--split", "val", "--out", tmp_path / "predictions", "--code", "bev_detector")
    assert found.code == 0, found.err
    assert len(list((tmp_path / "predictions").glob("*.png"))) == 3
    again = frustum(
        "eval", "--results", tmp_path / "predictions", "--data", street_root, "--split", "val", "--json", tmp_path / "again.json"
    )
    assert again.code == 0, again.err
    assert results_in(tmp_path / "again.json") == results_in(tmp_path / "eval.json")
    page = frustum("report", run, "--out", tmp_path / "report", "--samples", "1", "--code", "bev_detector")
    assert page.code == 0, page.err
    assert "mAP" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.usefixtures("_forgets")
def test_images_without_a_rig(frustum: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    colour_set(tmp_path / "set")
    (tmp_path / "pixels_outside.py").write_text(SEGMENTER)
    trained = frustum("train", "pixels_outside:pixels", "--out", "run")
    assert trained.code == 0, trained.err
    scored = frustum("eval", "run", "--json", "eval.json", "--code", "pixels_outside")
    assert scored.code == 0, scored.err
    figures = json.loads((tmp_path / "eval.json").read_text())["results"]["segmentation"]
    assert figures["miou"] > 0.95
    found = frustum("predict", "run", "set", "--split", "val", "--out", "predictions", "--code", "pixels_outside")
    assert found.code == 0, found.err
    assert len(list((tmp_path / "predictions").glob("*.png"))) >= 3
    again = frustum("eval", "--results", "predictions", "--data", "set", "--json", "again.json")
    assert again.code == 0, again.err
    assert results_in(tmp_path / "again.json") == results_in(tmp_path / "eval.json")
    refused = frustum("eval", "--results", "predictions", "--data", "set", "--version", "v1.0-mini")
    assert refused.code == DataError.exit_code
    assert "leave out --version" in " ".join(refused.err.split())
    (tmp_path / "predictions" / "val-val1.segmentation.png").unlink()
    refused = frustum("eval", "--results", "predictions", "--data", "set", "--split", "val")
    assert refused.code == DataError.exit_code
    assert "lacks 1 of the 3 samples" in " ".join(refused.err.split())
    page = frustum("report", "run", "--out", "report", "--samples", "2", "--code", "pixels_outside")
    assert page.code == 0, page.err
    text = (tmp_path / "report" / "report.html").read_text()
    assert "mIoU" in text
    assert "<h3>val-val" in text, "images have no scene: their own name is the heading"
