"""Recipes of the house as teacher and student, on a small street world."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from frustum.checkpoint.weights_file import read_weights
from frustum.engine.distill import student_of, teacher_of
from frustum.engine.distill_start import with_teacher
from frustum.engine.overrides import apply
from frustum.engine.train import train
from frustum.errors import ConfigError
from frustum.recipes.finding import get_recipe
from frustum.weights.loading import load

_NARROW = ["model.lift_channels=8", "model.bev_channels=8", "model.voxel_channels=8", "model.neck_channels=16"]


@pytest.fixture(scope="module")
def teacher(run) -> Path:
    return run("flashocc-tiny")


@pytest.fixture(scope="module")
def run(street_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """From a name of a recipe and words to a run of it of two steps."""
    folder = tmp_path_factory.mktemp("runs")

    def made(name: str, *words: str) -> Path:
        size = [f"data.root={street_root}", "data.image_size=64,176", "train.steps=2", "train.batch_size=1", "runtime.precision=fp32"]
        out = folder / f"{name}-{len(list(folder.iterdir()))}"
        train(apply(get_recipe(name), [*size, "model.pretrained=false", *words]), out, progress=False)
        return out

    return made


def test_a_wide_occupancy_network_teaches_a_narrow_one(run, teacher: Path) -> None:
    """The documented command: maps of another width are adapted, all columns of voxels are computed, and the weights are the student's."""
    words = [f"distill.teacher={teacher}", "distill.at=bev,occ_logits", "distill.loss=cwd,kd"]
    student = run("flashocc-tiny", *_NARROW, *words)
    terms = json.loads((student / "metrics.jsonl").read_text().splitlines()[-1])["losses"]
    assert terms["cwd_bev"] > 0
    assert terms["kd_occ_logits"] > 0
    keys = read_weights(student)[0]
    assert not [key for key in keys if "adapter" in key or "teacher" in key]
    alone = load(student)
    assert student_of(alone) is alone
    assert sum(p.numel() for p in alone.parameters()) < sum(p.numel() for p in load(teacher).parameters())


def test_what_two_networks_of_the_house_cannot_compare(teacher: Path, street_root: Path) -> None:
    def tried(name: str, *words: str) -> None:
        size = [f"data.root={street_root}", "data.image_size=64,176", f"distill.teacher={teacher}", *words]
        recipe = apply(get_recipe(name), size)
        with_teacher(recipe, recipe.model.build(), teacher_of(recipe), recipe.data.open(), torch.device("cpu"))

    with pytest.raises(ConfigError, match=r"Outputs to compare: student: .*bev"):
        tried("flashocc-tiny", "distill.at=voxels")
    with pytest.raises(ConfigError, match="the student's map covers x"):
        tried("simplebev-mini", "distill.at=bev")
