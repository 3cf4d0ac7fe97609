"""A network of two tasks through the verbs: one run, one prediction and one page hold boxes and occupancy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from frustum.tasks.detection import DetectionTask
from frustum.tasks.occupancy import OccupancyTask
from tests.cli.conftest import Run

WORDS = (
    "model.pretrained=false",
    "model.bev_channels=8",
    "runtime.precision=fp32",
    "train.steps=3",
    "train.checkpoint_every=3",
    "eval.slow_figures=false",
)


def test_one_prediction_holds_both(frustum: Run, street_root: Path, tmp_path: Path) -> None:
    run, found = tmp_path / "run", tmp_path / "predictions"
    low = "model.tasks.detection.decoding.score_threshold=0.01"
    trained = frustum("train", "ultimatedo-mini", f"data.root={street_root}", *WORDS, low, "--out", run)
    assert trained.code == 0, trained.err
    (line,) = (run / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["losses"].keys() >= {"box_heat", "box_velocity", "occupancy", "standing_iou", "depth"}

    scored = frustum("eval", run, "--json", tmp_path / "eval.json")
    assert scored.code == 0, scored.err
    for figure in ("mIoU", "mAP", "NDS", "mATE"):
        assert figure in scored.out
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert set(results) == {"occupancy", "detection"}

    done = frustum("predict", run, street_root, "--split", "val", "--out", found, "--submission", tmp_path / "sent")
    assert done.code == 0, done.err
    assert len(list(found.glob("*.png"))) >= 3
    submission = json.loads((tmp_path / "sent" / "detections.json").read_text())["results"]
    assert len(submission) == 3
    files = sorted(found.glob("*.npz"))
    boxes = [DetectionTask.read(path)[1] for path in files if path.name.endswith(".boxes.npz")]
    volumes = [OccupancyTask.read(path)[1] for path in files if not path.name.endswith(".boxes.npz")]
    assert [volume.semantics.shape for volume in volumes] == [(200, 200, 16)] * 3
    assert len(boxes) == 3
    assert sum(len(part.scores) for part in boxes) > 0
    assert all(torch.isfinite(part.boxes[:, :7]).all() for part in boxes)
    assert all(np.diff(part.scores.numpy()).max(initial=0) <= 0 for part in boxes)

    again = frustum(
        "eval", "--results", tmp_path / "sent" / "detections.json", "--data", street_root, "--split", "val", "--json", tmp_path / "a.json"
    )
    assert again.code == 0, again.err
    assert json.loads((tmp_path / "a.json").read_text())["results"]["detection"]["nd_score"] == results["detection"]["nd_score"]

    page = frustum("report", run, "--out", tmp_path / "report", "--samples", "1")
    assert page.code == 0, page.err
    text = (tmp_path / "report" / "report.html").read_text()
    assert "mIoU" in text
    assert "NDS" in text
