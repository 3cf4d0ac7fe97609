"""Voxel PQ, RayPQ and the formula they share: golden counts, a direct formulation, hand cases."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.metrics.panoptic_quality import OCC3D_THINGS, panoptic_quality
from frustum.metrics.ray_pq import RayPQ
from frustum.metrics.rayiou import RayIoU
from frustum.metrics.rays import RayCaster
from frustum.metrics.sums import from_words
from frustum.metrics.voxel_pq import VoxelPQ
from frustum.types.classes import DETECTION_CLASSES, OCC3D_CLASSES
from tests.metrics.street_frames import add, expected, frames, metrics

COUNTS = ("tp", "fp", "fn")


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "golden" / "metrics"


@pytest.fixture(scope="module")
def counted(folder):
    """The metrics of all four frames, and those of each frame alone."""
    whole, single = metrics(), [metrics() for _ in range(4)]
    for frame, alone in zip(frames(folder), single, strict=True):
        add(whole, frame)
        add(alone, frame)
    return whole, single


def test_things_are_the_objects_but_barriers_and_cones():
    assert {OCC3D_CLASSES[i] for i in OCC3D_THINGS} == set(DETECTION_CLASSES) - {"barrier", "traffic_cone"}


def test_the_formula():
    pq, sq, rq = panoptic_quality([2, 0, 0, 1], [1, 3, 0, 0], [1, 0, 0, 0], [1.5, 0, 0, 0.75])
    np.testing.assert_allclose(sq, [0.75, 0, np.nan, 0.75])
    np.testing.assert_allclose(rq, [2 / 3, 0, np.nan, 1])
    np.testing.assert_allclose(pq, [0.5, 0, np.nan, 0.75])


def test_ray_pq_of_street_frames_equals_the_published_evaluator(folder, counted):
    metric, golden = counted[0]["raypq"], expected(folder)
    for name in COUNTS:
        np.testing.assert_array_equal(metric.state[name], golden["raypq_counts"][name])
    np.testing.assert_allclose(from_words(metric.state["iou"]), golden["raypq_counts"]["iou_sum"], rtol=1e-12)
    found = metric.compute()
    for theirs, value in golden["raypq"].items():
        assert found[theirs.lower()] == pytest.approx(value, abs=1e-12)
    assert np.isnan(np.array(found["per_class"])[:, 17]).all()
    assert counted[0]["rayiou"].compute()["rayiou"] == pytest.approx(golden["rayiou"]["RayIoU"], abs=1e-12), "of the same cast"


@pytest.mark.parametrize("mask", ["camera", "lidar", "none"])
def test_voxel_pq_of_street_frames_equals_the_published_evaluator(folder, mask):
    metric, golden = VoxelPQ(mask=mask), expected(folder)["voxel"][mask]["voxel_pq"]
    for frame in frames(folder):
        metric.add(frame.pred, frame.target, frame.pred_instances, torch.from_numpy(frame.target_instances), frame.masks[mask])
    for name in COUNTS:
        np.testing.assert_array_equal(metric.state[name][0], golden[name])
    np.testing.assert_allclose(from_words(metric.state["iou"])[0], golden["iou_sum"], rtol=1e-12)
    found = metric.compute()
    assert [round(100 * found[name], 2) for name in ("pq", "sq", "rq")] == [golden[name] for name in ("pq", "sq", "rq")]
    assert found["mask"] == mask


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_any_split_and_order_gives_the_same_bits(counted, order):
    whole, single = counted
    for name, make in metrics().items():
        halves = [type(make)().merge(single[order[i]][name]).merge(single[order[i + 1]][name]) for i in (0, 2)]
        summed = halves[0].merge(halves[1])
        for key, counts in whole[name].state.items():
            assert counts.dtype == np.int64
            np.testing.assert_array_equal(summed.state[key], counts)
        assert next(iter(summed.compute().values())) == next(iter(whole[name].compute().values()))


def test_two_gloo_processes_count_as_one(folder, counted, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "tests.metrics.street_frames", str(folder), str(tmp_path / "sums.npz")]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    root = Path(__file__).resolve().parents[2]
    ranks = [subprocess.Popen(command, cwd=root, env={**common, "RANK": str(r)}, stderr=subprocess.PIPE, text=True) for r in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], errors
    with np.load(tmp_path / "sums.npz") as sums:
        for name, metric in counted[0].items():
            for key, counts in metric.state.items():
                np.testing.assert_array_equal(sums[f"{name}.{key}"], counts)


def direct(pred, target, pred_ids, true_ids, least):
    """Segments as sets of points, compared pair by pair: (K, 4) tp, fp, fn and the sum of IoUs."""
    own = np.zeros_like(true_ids)
    for i in np.unique(true_ids[true_ids > 0]):
        if len(np.unique(target[true_ids == i])) == 1:
            own[true_ids == i] = i
    own[~np.isin(target, OCC3D_THINGS)] = 0
    found = np.zeros((18, 4))
    for c in range(17):
        predicted = {i: set(np.flatnonzero((pred == c) & (pred_ids == i))) for i in np.unique(pred_ids[pred == c])}
        truth = {i: set(np.flatnonzero((target == c) & (own == i))) for i in np.unique(own[target == c])}
        pairs = {(t, p): len(a & b) / len(a | b) for t, a in truth.items() for p, b in predicted.items()}
        matched = {pair: iou for pair, iou in pairs.items() if iou > 0.5}
        found[c, 0], found[c, 3] = len(matched), sum(matched.values())
        found[c, 1] = sum(len(b) >= least for p, b in predicted.items() if p not in {pair[1] for pair in matched})
        found[c, 2] = sum(len(a) >= least for t, a in truth.items() if t not in {pair[0] for pair in matched})
    return found


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), least=st.sampled_from([1, 8, 20]), scale=st.sampled_from([1, 9000]))
def test_voxel_pq_equals_sets(seed, least, scale):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 6, (5, 5, 2))
    true_ids = np.kron(blocks, np.ones((2, 2, 2), int)) * scale
    target = np.array([4, 4, 7, 11, 17, 1])[np.kron(rng.integers(0, 6, (5, 5, 2)), np.ones((2, 2, 2), int))]
    pred = np.where(rng.random(target.shape) < 0.8, target, rng.choice([4, 11, 17], target.shape))
    pred_ids = np.where(rng.random(target.shape) < 0.8, true_ids, rng.integers(0, 3, target.shape))
    mask = rng.random(target.shape) < 0.9
    metric = VoxelPQ(min_points=least)
    metric.add(pred, target, pred_ids, true_ids, mask)
    wanted = direct(pred[mask], target[mask], pred_ids[mask], true_ids[mask], least)
    for i, name in enumerate(COUNTS):
        np.testing.assert_array_equal(metric.state[name][0], wanted[:, i])
    np.testing.assert_allclose(from_words(metric.state["iou"])[0], wanted[:, 3], atol=1e-12)


def test_the_truth_scores_one_and_merged_objects_do_not():
    target = np.full((20, 20, 4), 17, np.uint8)
    target[:, :, 0] = 11
    target[2:8, 2:5, 1:3] = target[2:8, 8:11, 1:3] = 4
    ids = np.zeros(target.shape, np.int64)
    ids[2:8, 2:5, 1:3], ids[2:8, 8:11, 1:3] = 1, 2
    perfect, merged = VoxelPQ(mask="none"), VoxelPQ(mask="none")
    perfect.add(target, target, ids + 7, ids)
    assert perfect.compute()["pq"] == 1.0
    assert perfect.state["tp"][0, [4, 11]].tolist() == [2, 1]
    merged.add(target, target, np.zeros_like(ids), ids)  # both cars as one: IoU one half with each, which is no match
    assert [int(merged.state[name][0, 4]) for name in COUNTS] == [0, 1, 2]
    assert merged.compute()["pq"] == 0.5  # cars 0, road 1
    assert np.isnan(VoxelPQ().compute()["pq"])


def test_255_never_counts_and_small_leftovers_are_forgiven():
    target = np.full((10, 10, 2), 17, np.uint8)
    target[:3, :6, 0] = 4  # 18 voxels: missed, but below 20
    target[5:, :, 0] = 255
    pred = np.full_like(target, 17)
    pred[5:, :, 0] = 9
    metric = VoxelPQ(mask="none")
    metric.add(pred, target, np.zeros(target.shape, int), (target == 4).astype(int))
    assert all(metric.state[name].sum() == 0 for name in COUNTS)
    strict = VoxelPQ(mask="none", min_points=18)
    strict.add(pred, target, np.zeros(target.shape, int), (target == 4).astype(int))
    assert strict.state["fn"][0, 4] == 1


def test_ray_pq_gates_intersections_but_not_areas():
    """A wall of cars, predicted 1.5 m too near: one segment that matches at 2 and 4 metres and is missed at 1 metre."""
    grid = VoxelGrid(lower=(-10.0, -10.0, 0.0), upper=(10.0, 10.0, 4.0), cell=(0.5, 0.5, 0.5))
    pred, target = np.full((2, *grid.shape), 17, np.uint8)
    target[32, 14:26] = 4
    pred[29, 14:26] = 4
    origins = np.array([[0.1, 0.1, 1.9]])
    metric, rays = RayPQ(caster=RayCaster(grid=grid)), RayIoU(caster=RayCaster(grid=grid))
    instances = (target == 4).astype(np.uint8), (pred == 4).astype(np.int16) * 300
    metric.add(pred, target, instances[1], instances[0], origins)
    assert metric.state["tp"][:, 4].tolist() == [0, 1, 1]
    assert metric.state["fp"][:, 4].tolist() == metric.state["fn"][:, 4].tolist() == [1, 0, 0]
    shared_cast = RayPQ(caster=RayCaster(grid=grid, threads=2))
    shared_cast.add_hits(*rays.caster.cast(pred, target, origins), instances[1], torch.from_numpy(instances[0]))
    for name, counts in metric.state.items():
        np.testing.assert_array_equal(shared_cast.state[name], counts)
    assert metric.merge(shared_cast).compute()["raypq@1"] == 0.0


def test_bad_input_is_named():
    target, ids = np.full((200, 200, 16), 17, np.uint8), np.zeros((200, 200, 16), np.int64)
    target[0, 0, 0] = 4
    metric = VoxelPQ(mask="none")
    with pytest.raises(DataError, match="0 to 65535"):
        metric.add(target, target, ids - 1, ids)
    with pytest.raises(DataError, match="0 to 65535"):
        metric.add(target, target, ids, ids + 65536)
    with pytest.raises(DataError, match="argmax"):
        metric.add(target, target, ids.astype(float), ids)
    with pytest.raises(ShapeError, match="one shape"):
        metric.add(target, target, ids[1:], ids)
    for wrong in (300, -1, 18):
        with pytest.raises(DataError, match=f"class id {wrong}"):
            metric.add(target, np.where(target == 4, wrong, 17), ids, ids)
        with pytest.raises(DataError, match=f"class id {wrong}"):
            metric.add(np.where(target == 4, wrong, 17), target, ids, ids)
    with pytest.raises(ShapeError, match="true instances"):
        RayPQ().add(target, target, ids, ids[1:], np.zeros((1, 3)))
    with pytest.raises(ConfigError, match="merge"):
        RayPQ().merge(RayPQ(thresholds=(1, 2)))
    with pytest.raises(ConfigError, match="things"):
        VoxelPQ(things=(4, 17))
    with pytest.raises(ConfigError, match="free"):
        VoxelPQ(num_classes=4)
    assert all(counts.sum() == 0 for counts in metric.state.values())
