"""3DPPE through the verbs: the oracle, which reads LiDAR to predict, a student of it, and a converted official file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frustum.checkpoint.weights_file import read_weights
from frustum.cli.resolve import open_network
from frustum.engine.feed import evaluation_batches
from frustum.models.ppe3d import Ppe3dConfig
from frustum.tasks.detection import DetectionTask
from tests.cli.conftest import Run

SMALL = (
    "model.encoder=efficientnet_lite0", "model.channels=32", "model.queries=30", "model.layers=2", "model.heads=4", "model.hidden=64",
    "model.depth_bins=8", "model.depth_channels=16", "model.context_blocks=0", "data.image_size=96,256", "data.version=v1.0-trainval",
    "train.batch_size=1", "train.accumulate=1", "train.num_workers=0", "runtime.precision=fp32",
)  # fmt: skip


def small(root: Path, *more: str) -> tuple[str, ...]:
    """Words that make ppe3d-r50 a small network on the generated world."""
    return ("ppe3d-r50", f"data.root={root}", *SMALL, *more)


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    """Two cameras without LiDAR, one frame."""
    cameras = []
    for name, forward in (("front", [0.5, -0.5, 0.5, -0.5]), ("back", [0.5, -0.5, -0.5, 0.5])):
        (tmp_path / "rig" / name).mkdir(parents=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)).save(tmp_path / "rig" / name / "0.png")
        pose = {"translation": [1.5, 0.0, 1.6], "rotation": forward}
        cameras.append({"name": name, "images": f"{name}/*.png", "fx": 120, "fy": 120, "cx": 79.5, "cy": 44.5, "cam2ego": pose})
    (tmp_path / "rig" / "calibration.json").write_text(json.dumps({"cameras": cameras}))
    return tmp_path / "rig"


def test_the_oracle_is_trained_scored_and_predicts_where_there_is_lidar(frustum: Run, street_root: Path, rig: Path, tmp_path: Path) -> None:
    run = tmp_path / "oracle"
    done = frustum("train", *small(street_root, "model.encoding=point3d_lidar", "train.steps=2"), "--out", run)
    assert done.code == 0, done.err
    scored = frustum("eval", run, "--json", tmp_path / "eval.json")
    assert scored.code == 0, scored.err
    assert set(json.loads((tmp_path / "eval.json").read_text())["results"]) == {"detection"}
    assert frustum("predict", run, street_root, "--split", "val", "--no-pictures", "--out", tmp_path / "p").code == 0
    assert len(list((tmp_path / "p").glob("*.boxes.npz"))) == 3
    code, _, err = frustum("predict", run, rig, "--out", tmp_path / "q")
    assert code != 0
    words = "has no LiDAR scan, which this network reads to predict, an oracle. Train one that predicts without: model.encoding=point3d."
    assert words in " ".join(err.split())


def test_a_student_learns_from_the_oracle_resumes_exactly_and_needs_it_no_more(frustum: Run, street_root: Path, tmp_path: Path) -> None:
    oracle = tmp_path / "oracle"
    assert frustum("train", *small(street_root, "model.encoding=point3d_lidar", "train.steps=1"), "--out", oracle).code == 0
    words = (f"model.distill.teacher={oracle}", "optim.schedule=constant", "ema={}", "train.checkpoint_every=2", "train.log_every=1")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder, steps in ((whole, 3), (halves, 2), (halves, 3)):
        done = frustum("train", *small(street_root, *words, f"train.steps={steps}"), "--out", folder)
        assert done.code == 0, done.err
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["losses"].keys() >= {"loss_cls", "distill.loss_bbox", "distill.loss_scores", "distill.loss_boxes", "loss_depth"}
    assert [line["losses"] for line in lines] == [
        json.loads(line)["losses"] for line in (halves / "metrics.jsonl").read_text().splitlines()
    ]
    (first, header), (second, _) = (read_weights(folder) for folder in (whole, halves))
    assert header["recipe"]["model"]["distill"]["teacher"] == oracle.name
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert first.keys() == Ppe3dConfig.model_validate(header["recipe"]["model"]).build().state_dict().keys()
    shutil.rmtree(oracle)
    scored = frustum("eval", whole)
    assert scored.code == 0, scored.err


def test_an_official_file_predicts_without_a_word_about_its_frame(frustum: Run, street_root: Path, rig: Path, tmp_path: Path) -> None:
    settings = {"encoder": "resnet50", "channels": 32, "hidden": 64, "layers": 2, "queries": 30, "depth_channels": 16, "depth_bins": 8}
    state = Ppe3dConfig(**settings).build().state_dict()
    torch.save({"meta": {"epoch": 24}, "state_dict": state}, tmp_path / "x.pth")
    words = ("weights", "convert", tmp_path / "x.pth", "-o", tmp_path / "x.safetensors")
    code, _, err = frustum(*words)
    assert code == 4
    assert "'model.box_convention=mmdet3d<1.0' or 'model.box_convention=mmdet3d>=1.0'" in " ".join(err.split())
    code, out, _ = frustum(*words, "model.box_convention=mmdet3d<1.0")
    assert code == 0
    assert "prepared as petr's code does" in out
    listed = frustum("weights", "inspect", tmp_path / "x.safetensors").out
    assert "model.box_convention mmdet3d<1.0, model.frame lidar" in " ".join(listed.split())
    how = ("data.image_size=96,256", "train.num_workers=0", "--no-pictures", "--limit", 1)
    done = frustum("predict", tmp_path / "x.safetensors", street_root, *how, "--out", tmp_path / "p")
    assert done.code == 0, done.err
    (file,) = (tmp_path / "p").glob("*.boxes.npz")
    _, found = DetectionTask.read(file)
    recipe, network = open_network(
        tmp_path / "x.safetensors", ["data.image_size=96,256", f"data.root={street_root}", "train.num_workers=0"]
    )
    source = recipe.data.open()
    (batch,) = evaluation_batches(recipe, source, [file.name.partition(".")[0]])
    lidar = source.sample(batch.tokens[0]).lidar
    network.config = network.config.model_copy(update={"frame": "ego"})
    by_hand = replace(batch, key_ego2global=torch.from_numpy(lidar.ego2global @ lidar.lidar2ego)[None])
    with torch.no_grad():
        there = network.predict(network(by_hand), by_hand)[0].boxes.boxes.double()
    centres = there[:, :3] @ torch.from_numpy(lidar.lidar2ego[:3, :3]).T + torch.from_numpy(lidar.lidar2ego[:3, 3])
    nearest = torch.cdist(found.boxes[:, :3].double(), centres).amin(1)  # scores of random weights are so close that their order varies
    assert len(found.boxes) == len(centres)
    assert nearest.max() < 1e-2
    code, _, err = frustum("predict", tmp_path / "x.safetensors", rig, *how, "--out", tmp_path / "q")
    assert code != 0
    assert "work in the frame of the sensor LIDAR_TOP (model.frame=lidar), but a sample has none" in " ".join(err.split())
