"""F-score: the published numbers, and a nearest-neighbour search as the independent formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.metrics.fscore import FScore, count_near
from tests.metrics.street_frames import expected, frames

GRID = VoxelGrid(lower=(0.0, 0.0, 0.0), upper=(4.8, 4.0, 2.0), cell=(0.4, 0.4, 0.4))


@pytest.mark.parametrize("mask", ["camera", "lidar", "none"])
def test_street_frames_equal_the_published_evaluator(shared, mask):
    folder = shared / "golden" / "metrics"
    metric, halves = FScore(mask=mask), [FScore(mask=mask), FScore(mask=mask)]
    for i, frame in enumerate(frames(folder)):
        for m in (metric, halves[i % 2]):
            m.add(frame.pred, torch.from_numpy(frame.target), frame.masks[mask])
    found, golden = metric.compute(), expected(folder)["voxel"][mask]["fscore"]
    assert found["fscore"] == pytest.approx(golden["f1"], abs=1e-12)
    assert found["accuracy"] == pytest.approx(golden["acc"], abs=1e-12)
    assert found["completeness"] == pytest.approx(golden["completeness"], abs=1e-12)
    assert halves[1].merge(halves[0]).compute() == found, "the same to the last bit in another order"


def search(pred, target, cell, distance):
    """Accuracy, completeness and F by nearest neighbours."""
    points = [np.argwhere(volume) * np.array(cell) for volume in (pred, target)]
    if not all(len(p) for p in points):
        return 0.0, 0.0, 0.0
    accuracy = (cKDTree(points[1]).query(points[0])[0] < distance).mean()
    completeness = (cKDTree(points[0]).query(points[1])[0] < distance).mean()
    return accuracy, completeness, 2 / (1 / (accuracy + 1e-8) + 1 / (completeness + 1e-8))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    density=st.sampled_from([0.0, 0.005, 0.05, 0.3]),
    distance=st.sampled_from([0.3, 0.6, 0.75, 1.3]),
    cell=st.sampled_from([(0.4, 0.4, 0.4), (0.5, 0.25, 0.2)]),
)
def test_equals_a_search_for_nearest_neighbours(seed, density, distance, cell):
    rng = np.random.default_rng(seed)
    grid = VoxelGrid(lower=(0.0, 0.0, 0.0), upper=tuple(n * c for n, c in zip((9, 7, 5), cell, strict=True)), cell=cell)
    pred, target = (np.where(rng.random(grid.shape) < density, rng.integers(0, 17, grid.shape), 17) for _ in range(2))
    seen = rng.random(grid.shape) < 0.7
    metric = FScore(grid=grid, distance=distance)
    metric.add(pred, target, seen)
    found = metric.compute()
    wanted = search((pred != 17) & seen, (target != 17) & seen, cell, distance)
    np.testing.assert_allclose([found["accuracy"], found["completeness"], found["fscore"]], wanted, atol=1e-12)


def test_a_neighbour_by_edge_is_near_and_one_by_corner_is_not():
    one = np.zeros((5, 5, 5), bool)
    one[2, 2, 2] = True
    others = np.ones((5, 5, 5), bool)
    alone, all_cells, near_alone, near_others = count_near(one, others, (0.4, 0.4, 0.4), 0.6)
    assert (alone, all_cells, near_alone, near_others) == (1, 125, 1, 19)
    line = np.zeros((4, 4, 4), bool)
    line[0] = True
    far = np.zeros((4, 4, 4), bool)
    far[3] = True
    assert count_near(line, far, (0.4, 0.4, 0.4), 0.6) == (16, 16, 0, 0), "the far side is no neighbour: nothing wraps round"


def test_hand_case_averages_frames_and_ignores_255():
    pred, target = np.full((2, *GRID.shape), 17, np.uint8)
    pred[3, 3, 1] = pred[8, 3, 1] = 4
    target[3, 4, 2] = 10  # one step along y and z: near enough, of another class
    target[8, 3, 1] = 255  # no point
    metric = FScore(mask="none", grid=GRID)
    metric.add(pred, target)
    assert metric.compute()["accuracy"] == 0.5
    assert metric.compute()["completeness"] == 1.0
    assert metric.compute()["fscore"] == pytest.approx(2 / 3, abs=1e-7)
    metric.add(np.full_like(pred, 17), target)  # nothing predicted: 0
    metric.add(pred, np.full_like(pred, 17))  # nothing there: 0, where the published code stops
    assert metric.compute()["fscore"] == pytest.approx(2 / 9, abs=1e-7)
    assert metric.state["frames"] == 3
    assert metric.compute()["mask"] == "none"
    assert metric.compute()["distance"] == 0.6
    assert np.isnan(FScore().compute()["fscore"])


def test_bad_input_is_named():
    metric, volume = FScore(mask="none", grid=GRID), np.full(GRID.shape, 17, np.uint8)
    with pytest.raises(ShapeError, match="one shape"):
        metric.add(volume[1:], volume)
    with pytest.raises(ShapeError, match="grid has"):
        metric.add(volume[1:], volume[1:])
    with pytest.raises(DataError, match="argmax"):
        metric.add(volume.astype(np.float32), volume)
    for wrong in (300, -1):
        with pytest.raises(DataError, match=f"the prediction holds class id {wrong}"):
            metric.add(np.full(GRID.shape, wrong), volume)
        with pytest.raises(DataError, match=f"the target holds class id {wrong}"):
            metric.add(volume, np.full(GRID.shape, wrong))
    with pytest.raises(DataError, match=r"the mask holds \[0, 1, 2"):
        FScore(grid=GRID).add(volume, volume, np.arange(volume.size).reshape(GRID.shape) % 4)
    with pytest.raises(ConfigError, match="free must be"):
        FScore(free=-1)
    with pytest.raises(ConfigError, match="merge"):
        metric.merge(FScore(mask="none", grid=GRID, distance=0.5))
    assert metric.state["frames"] == 0
