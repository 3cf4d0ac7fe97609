"""RayIoU against the published evaluator: integer counts equal, ratios to 1e-12."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.metrics.rayiou import RayIoU
from frustum.metrics.rays import RayCaster, ray_directions

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "metrics" / "rayiou_edge.json").read_text())
NAMES = {"RayIoU": "rayiou", "RayIoU@1": "rayiou@1", "RayIoU@2": "rayiou@2", "RayIoU@4": "rayiou@4"}


@pytest.fixture(scope="module")
def street(shared):
    folder = shared / "golden" / "metrics"
    with np.load(folder / "occ_street.npz") as frames:
        return dict(frames), json.loads((folder / "occ_street_expected.json").read_text())


def check(result, expected):
    for theirs, ours in NAMES.items():
        if expected[theirs] is None:
            assert np.isnan(result[ours])
        else:
            assert result[ours] == pytest.approx(expected[theirs], abs=1e-12)


def histogram(labels):
    labels = np.where(labels > 17, 18, labels)
    return np.bincount(labels.ravel(), minlength=19)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=[c["name"] for c in GOLDEN["cases"]])
def test_edge_cases(case):
    pred, target = np.full((2, 200, 200, 16), 17, np.uint8)
    for volume, cells in ((pred, case["pred"]), (target, case["gt"])):
        for x, y, z, label in cells:
            volume[x, y, z] = label
    metric = RayIoU()
    metric.add(pred, target, np.array(case["origins"]))
    check(metric.compute(), case["rayiou"])
    hits, distances = metric.caster.cast(pred, target, np.array(case["origins"]))
    assert (hits.labels[1] != 17).sum() == case["valid_rays"]
    np.testing.assert_array_equal(histogram(hits.labels[0]), case["pred_label_hist"])
    np.testing.assert_array_equal(histogram(hits.labels[1]), case["gt_label_hist"])
    assert distances[0].astype(np.float64).sum() == pytest.approx(case["pred_dist_sum"], rel=1e-12)


def test_street_frames_equal_the_published_evaluator(street):
    frames, expected = street
    metric = RayIoU(caster=RayCaster(threads=2))
    for s in range(4):
        pred, target, origins = frames[f"pred{s}"], frames[f"gt{s}"], frames[f"origins{s}"]
        metric.add(pred, target, origins)
        hits, distances = metric.caster.cast(pred, target, origins)
        np.testing.assert_allclose(distances.astype(np.float64).sum((1, 2)), frames[f"dist_sum{s}"], rtol=1e-12)
        picked = frames[f"ray_idx{s}"]
        for v, side in enumerate(("pred", "gt")):
            np.testing.assert_array_equal(np.bincount(hits.labels[v].ravel(), minlength=18), frames[f"label_hist{s}"][v])
            np.testing.assert_array_equal(hits.labels[v].ravel()[picked], frames[f"{side}_label{s}"])
            np.testing.assert_array_equal(distances[v].ravel()[picked], frames[f"{side}_dist{s}"])
            np.testing.assert_array_equal(hits.coords[v].reshape(-1, 3)[picked], frames[f"{side}_coord{s}"])
        assert (hits.labels[1] != 17).sum() == expected["valid_rays"][s]
    check(metric.compute(), expected["rayiou"])
    table = np.array([[np.nan if v is None else v for v in row] for row in expected["rayiou_per_class"]])
    np.testing.assert_allclose(metric.per_class()[:, :17], table, atol=1e-12)
    assert np.isnan(metric.per_class()[:, 17]).all()


def test_counts_add_up_over_two_and_two_frames(street):
    frames, _ = street
    whole, halves = RayIoU(), (RayIoU(caster=RayCaster(threads=2)), RayIoU())
    for s in range(4):
        for metric in (whole, halves[s // 2]):
            metric.add(torch.from_numpy(frames[f"pred{s}"]), frames[f"gt{s}"], torch.from_numpy(frames[f"origins{s}"]))
    summed = RayIoU().load_state({name: counts + halves[1].state[name] for name, counts in halves[0].state.items()})
    halves[0].merge(halves[1])
    for name, counts in whole.state.items():
        assert counts.dtype == np.int64
        np.testing.assert_array_equal(counts, halves[0].state[name])
        np.testing.assert_array_equal(counts, summed.state[name])
    assert summed.compute()["rayiou"] == whole.compute()["rayiou"]


def test_a_wall_on_another_grid_and_class_list():
    """A wall of class 1 ahead, predicted 1.5 m too near: right at 2 m, wrong at 1 m. Free is id 0 and cells are half a metre."""
    grid = VoxelGrid(lower=(-10.0, -10.0, 0.0), upper=(10.0, 10.0, 4.0), cell=(0.5, 0.5, 0.5))
    pred, target = np.zeros((2, *grid.shape), np.uint8)
    target[32, :, :] = 1
    pred[29, :, :] = 1
    metric = RayIoU(3, (1, 2), RayCaster(0, grid))
    metric.add(pred, target, np.array([[0.1, 0.1, 1.9]]))
    state = metric.state
    assert state["gt"][1] > 1000
    assert state["tp"][0, 1] == 0
    assert state["tp"][1, 1] > 0.5 * state["gt"][1]  # rays at a slant differ by more than 2 m
    assert set(metric.compute()) == {"rayiou", "rayiou@1", "rayiou@2", "per_class"}
    perfect = RayIoU(3, caster=RayCaster(0, grid))
    perfect.add(target, target, np.array([[0.1, 0.1, 1.9]]))
    assert perfect.compute()["rayiou"] == 1.0


def test_flat_cells_give_the_same_metres_as_cubic_ones():
    """The same scene with cells of 0.5 m and with cells that are half as high: distances stay metres."""
    fine = VoxelGrid(lower=(-10.0, -10.0, 0.0), upper=(10.0, 10.0, 4.0), cell=(0.5, 0.5, 0.25))
    pred, target = np.full((2, *fine.shape), 17, np.uint8)
    target[35] = pred[35] = 4
    hits, distances = RayCaster(grid=fine).cast(pred, target, np.array([[0.2, 0.0, 1.9]]))
    ahead = (hits.labels[1][0] == 4) & (np.abs(ray_directions()[:, 1]) < 1e-6) & (np.abs(ray_directions()[:, 2]) < 0.05)
    exit_x = 0.2 + distances[1][0][ahead] * ray_directions()[ahead, 0]
    assert ahead.sum() >= 5
    assert ((exit_x > 7.5) & (exit_x < 8.0 + 1e-3)).all()  # inside, or at the far face of, the wall's cell at x = 7.5 to 8 m


def test_bad_input_is_named():
    metric = RayIoU()
    volume = np.full((200, 200, 16), 17, np.uint8)
    with pytest.raises(ShapeError, match="grid of"):
        metric.add(volume[:100], volume, np.zeros((1, 3)))
    with pytest.raises(DataError, match="argmax"):
        metric.add(volume.astype(np.float32), volume, np.zeros((1, 3)))
    with pytest.raises(DataError, match="argmax"):
        metric.add(torch.from_numpy(volume).bfloat16(), volume, np.zeros((1, 3)))
    with pytest.raises(DataError, match="the prediction holds class id 273"):
        metric.add(volume.astype(int) + 256, volume, np.zeros((1, 3)))  # as bytes they were 17, free
    with pytest.raises(DataError, match="the target holds class id -1"):
        metric.add(volume, torch.from_numpy(volume.astype(int)) - 18, np.zeros((1, 3)))
    for pair, name in (((volume * 0 + 18, volume * 0), "the prediction"), ((volume * 0, volume * 0 + 18), "the target")):
        with pytest.raises(DataError, match=f"{name} holds class id 18"):
            metric.add(*pair, np.zeros((1, 3)))
    with pytest.raises(DataError, match="finite"):
        metric.add(volume, volume, np.full((1, 3), np.inf))
    with pytest.raises(ConfigError, match="merge"):
        metric.merge(RayIoU(thresholds=(1, 2)))
    with pytest.raises(ConfigError, match="free"):
        RayIoU(num_classes=4)
