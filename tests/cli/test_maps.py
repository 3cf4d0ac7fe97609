"""Maps from above go through every verb: trained on few labels, scored with their rule, written, drawn beside the truth, looked up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.models.test_bev_segmentation import SMALL

SETTINGS = [*SMALL["simplebev-mini"], "data.image_size=64,96", "train.steps=3", "optim.warmup_steps=0", "data.cache=none"]


@pytest.fixture(scope="module")
def trained(street_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps on the labels of one of two scenes: vehicles and roads."""
    from frustum.engine.overrides import apply
    from frustum.engine.train import train
    from frustum.recipes.finding import get_recipe

    names = 'model.maps.class_names=["vehicle","drivable_area"]'
    recipe = apply(get_recipe("simplebev-mini"), [*SETTINGS, f"data.root={street_root}", "data.labelled_share=0.5", names])
    out = tmp_path_factory.mktemp("runs") / "maps"
    train(recipe, out)
    return out


def test_iou_is_printed_with_its_rule(frustum: Run, trained: Path, tmp_path: Path) -> None:
    done = frustum("eval", trained, "--json", tmp_path / "eval.json")
    assert done.code == 0, done.err
    assert "vehicle IoU" in done.out
    assert "drivable_area IoU" in done.out
    assert "rule pointbev" in done.out
    said = " ".join((done.out + done.err).split())
    assert "learned from: maps of vehicle, drivable_area of 3 of 6 keyframes, hidden in the others by data.labelled_share" in said
    found = json.loads((tmp_path / "eval.json").read_text())["results"]["bev_map"]
    assert found["rule"] == "pointbev"
    assert found["class_iou"].keys() == {"vehicle", "drivable_area"}


def test_another_rule_scores_the_same_weights(frustum: Run, trained: Path) -> None:
    done = frustum("eval", trained, "model.maps.rule=lss")
    assert done.code == 0, done.err
    assert "rule lss" in done.out
    assert "run with other settings than their own" in " ".join(done.err.split())


def test_predictions_are_files_and_pictures(frustum: Run, trained: Path, street_root: Path, tmp_path: Path) -> None:
    done = frustum("predict", trained, street_root, "--out", tmp_path / "maps", "--split", "val")
    assert done.code == 0, done.err
    files = sorted((tmp_path / "maps").rglob("*.bev_map.npz"))
    assert len(files) == 3
    with np.load(files[0]) as stored:
        assert stored["logits"].shape == (2, 200, 200)
        assert str(stored["rule"]) == "pointbev"
    scored = frustum("eval", "--results", files[0].parent, "--data", street_root, "--split", "val")
    assert scored.code == 0, scored.err
    assert "vehicle IoU" in scored.out


def test_a_report_shows_maps_beside_the_truth(frustum: Run, trained: Path) -> None:
    done = frustum("report", trained)
    assert done.code == 0, done.err
    pages = list(trained.rglob("*.html"))
    assert pages
    text = pages[0].read_text()
    assert "vehicle IoU" in text
    assert "Agreement" in text
