"""A panoptic network through the verbs: evaluation adds panoptic quality, predictions and reports hold objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from frustum.checkpoint.weights_file import WEIGHTS, save_weights
from frustum.cli.evaluation import evaluate_run
from frustum.cli.predicting import predict_source
from frustum.cli.reporting import panel_of, report_run
from frustum.cli.resolve import resolve_recipe
from frustum.engine.run import load_run, save_run
from frustum.tasks.occupancy import OccupancyTask
from frustum.types.predictions import Prediction


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, street_root: Path) -> Path:
    """A run whose network has random weights, and finds objects everywhere."""
    words = [f"data.root={street_root}", "model.pretrained=false", "model.bev_channels=8", "runtime.precision=fp32", "eval.every=3"]
    folder = tmp_path_factory.mktemp("panoptic")
    recipe = resolve_recipe("panoptic-flashocc-mini", words)
    save_run(folder, recipe, source="panoptic-flashocc-mini", overrides=words)
    torch.manual_seed(0)
    network = recipe.model.build()
    with torch.no_grad():
        network.centre_head.task_heads[0]["heatmap"][1].bias.fill_(2.0)
        network.head.bias[4::18] += 0.3  # cars
    save_weights(folder / WEIGHTS, network)
    return folder


def test_evaluation_scores_objects(run):
    metrics = evaluate_run(str(run))["results"]["occupancy"]
    assert 0 <= metrics["ray_pq"]["mean"] <= 1
    assert set(metrics["voxel_pq"]) == {"camera", "lidar", "none"}
    page = report_run(run, samples=1).read_text(encoding="utf-8")
    assert "Predicted objects" in page
    assert "True objects" in page
    assert "RayPQ" in page


def test_predictions_hold_objects(run, street_root, tmp_path):
    done = predict_source(str(run), street_root, tmp_path, split="val", limit=1)
    token, occupancy = OccupancyTask.read(done["files"][0])
    found = Prediction(token, occupancy=occupancy)
    assert occupancy.objects is not None
    assert len(occupancy.objects.ids) > 1
    assert set(occupancy.objects.ids.tolist()) <= set(occupancy.instances.unique().tolist())
    assert (occupancy.objects.scores > 0.3).all()
    assert [path.name.rpartition("_")[0] for path in tmp_path.glob("*.png")] == [load_run(run).recipe.data.open().scene(token).name]

    data = load_run(run).recipe.data
    database = data.open()
    (question,) = panel_of(data, database, found).questions
    assert set(np.unique(question.prediction[0].objects)) - {0} == set(occupancy.objects.ids.tolist())
    true = question.truth[0]
    assert (true.labels[true.objects > 0] < 11).all()
    assert len(np.unique(true.objects)) > 3
    assert not panel_of(data, database, found, ()).questions[0].truth
