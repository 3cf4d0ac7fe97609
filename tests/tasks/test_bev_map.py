"""Maps of vehicles from above, scored as Lift-Splat-Shoot scores them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from frustum.data.labels.bev_map import vehicle_label
from frustum.data.nuscenes.reader import NuScenes
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.metrics.bev_iou import BevIoU
from frustum.tasks.bev_map import BevMapTask
from frustum.types.predictions import PredictedMap
from tests.data.toy import VERSION, toy_database

GRID = VoxelGrid(lower=(-50.0, -50.0, -5.0), upper=(50.0, 50.0, 3.0), cell=(0.5, 0.5, 8.0))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return NuScenes(toy_database(tmp_path_factory.mktemp("toy")), VERSION)


def test_figures_are_those_of_the_metric(toy):
    tokens = toy.tokens("all")
    whole, parts, metric = BevMapTask(tokens), [BevMapTask(tokens) for _ in range(2)], BevIoU("lss")
    for i, token in enumerate(tokens):
        label = vehicle_label(toy.sample(token), "lss").mask
        logits = torch.from_numpy(np.where(np.roll(label, 2, 0), 3.0, -3.0))  # a metre too far ahead
        truth = whole.truth(toy, token)
        for task in (whole, parts[i % 2]):
            task.add(token, PredictedMap(logits.T[None], GRID, ("vehicle",)), truth)
        metric.add(logits, label)
    assert 0 < whole.compute()["iou"] < 1
    assert whole.compute() == metric.compute() == parts[0].merge(parts[1]).compute()
    assert BevMapTask.figures(whole.compute())[0].value == whole.compute()["iou"]
    assert set(BevMapTask.protocol) <= set(whole.compute())


def test_rows_of_a_map_run_along_y(toy):
    """The car of the first keyframe is 15 m ahead and 3 m to the left."""
    truth = BevMapTask().truth(toy, toy.tokens("train")[0])
    rows, columns = np.nonzero(truth)
    assert 0.5 * columns.mean() - 50 == pytest.approx(15, abs=0.6)
    assert 0.5 * rows.mean() - 50 == pytest.approx(3, abs=0.6)


def test_other_classes_and_grids(toy):
    token = toy.tokens("train")[0]
    task = BevMapTask()
    truth = task.truth(toy, token)
    part = PredictedMap(torch.where(torch.from_numpy(truth), 1.0, -1.0)[None].repeat(2, 1, 1), GRID, ("lane", "vehicle"))
    task.add(token, part, truth)
    assert task.compute()["iou"] == 1.0
    with pytest.raises(DataError, match="has the classes lane, kerb; what is scored is 'vehicle', or the only class"):
        task.add(token, replace(part, class_names=("lane", "kerb")), truth)
    with pytest.raises(DataError, match=r"labels are drawn on 100 m x 100 m around the vehicle in cells of 0.5 m \(200 x 200\)"):
        task.add(token, replace(part, grid=VoxelGrid.occ3d()), truth)


def test_files_and_layers(toy, tmp_path):
    truth = BevMapTask().truth(toy, toy.tokens("train")[0])
    logits = torch.stack([torch.full((200, 200), 0.5), torch.where(torch.from_numpy(truth), 1.0, -1.0)])
    logits[:, 0] = -1
    part = PredictedMap(logits, GRID, ("lane", "vehicle"))
    again = BevMapTask.load(BevMapTask.save(part, tmp_path, "token"))
    assert torch.equal(again.logits, logits)
    assert (again.grid, again.class_names) == (GRID, part.class_names)
    (layer,), (true,) = BevMapTask.layers(part), BevMapTask.truth_layers(truth, part)
    assert set(np.unique(layer.labels)) == {0, 1, 2}
    assert (layer.labels[0] == layer.free).all()
    np.testing.assert_array_equal(layer.labels == 1, truth)
    np.testing.assert_array_equal(true.labels == 1, truth)
    assert (layer.free, true.free, layer.legend) == (2, 2, true.legend)
