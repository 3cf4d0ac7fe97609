"""Voxel metrics against the published evaluators' numbers and against direct formulas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.metrics.fscore import FScore
from frustum.metrics.occupancy import OCC3D_FLAT, GeometricIoU, OccupancyIoU
from frustum.metrics.voxel_pq import VoxelPQ
from frustum.types.classes import FLAT_CLASSES, OCC3D_CLASSES, OCC3D_FREE

EDGE = json.loads((Path(__file__).parents[1] / "data" / "metrics" / "miou_edge.json").read_text())


def as_floats(values):
    return np.array([np.nan if v is None else v for v in values], np.float64)


def test_default_ids_are_those_of_occ3d():
    assert tuple(OCC3D_CLASSES[i] for i in OCC3D_FLAT) == FLAT_CLASSES
    assert (OccupancyIoU().num_classes, OccupancyIoU().free) == (len(OCC3D_CLASSES), OCC3D_FREE)


@pytest.mark.parametrize(("absent", "repository"), [("zero", "flashocc"), ("nan", "sparseocc")])
@pytest.mark.parametrize("case", EDGE, ids=[c["name"] for c in EDGE])
def test_conventions_for_absent_classes(case, absent, repository):
    metric = OccupancyIoU(absent=absent, mask="none")
    metric.add(np.array(case["pred"], np.uint8), np.array(case["gt"], np.uint8))
    result = metric.compute()
    np.testing.assert_allclose(result["per_class"], as_floats(case[repository]["per_class"]), atol=1e-12)
    np.testing.assert_allclose(result["miou"], as_floats([case[repository]["mIoU"]])[0], atol=1e-12)
    assert result["absent"] == absent


@pytest.mark.parametrize("mask", ["camera", "lidar", "none"])
def test_street_frames_equal_the_published_evaluator(shared, mask):
    folder = shared / "golden" / "metrics"
    expected = json.loads((folder / "occ_street_expected.json").read_text())["voxel"][mask]
    metric, halves = OccupancyIoU(mask=mask), [OccupancyIoU(mask=mask) for _ in range(2)]
    with np.load(folder / "occ_street.npz") as frames:
        for s in range(4):
            seen = None if mask == "none" else np.unpackbits(frames[f"mask_{mask}{s}"])[:640000].reshape(200, 200, 16)
            for m in (metric, halves[s // 2]):
                m.add(frames[f"pred{s}"], torch.from_numpy(frames[f"gt{s}"]), seen)
    np.testing.assert_array_equal(metric.confusion, expected["hist_gt_rows_pred_cols"])
    np.testing.assert_array_equal(halves[0].merge(halves[1]).confusion, metric.confusion)
    for absent, repository in (("zero", "flashocc"), ("nan", "sparseocc")):
        result = OccupancyIoU(mask=mask, absent=absent).load_state(metric.state).compute()
        assert result["miou"] == pytest.approx(expected[f"mIoU_{repository}"], abs=1e-12)
        np.testing.assert_allclose(result["per_class"], as_floats(expected[f"iou_{repository}"]), atol=1e-12)


@pytest.mark.parametrize("kept", [np.array, torch.from_numpy, lambda counts: json.loads(json.dumps(counts.tolist()))])
def test_a_state_survives_arrays_tensors_and_json(kept):
    rng = np.random.default_rng(5)
    metric = OccupancyIoU(mask="none")
    metric.add(*rng.integers(0, 18, (2, 50)))
    restored = OccupancyIoU(mask="none").load_state({name: kept(counts) for name, counts in metric.state.items()})
    restored.add(np.array([4]), np.array([4]))  # the state is a copy
    assert restored.confusion.sum() == metric.confusion.sum() + 1 == 51
    assert restored.confusion.dtype == np.int64


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), split=st.integers(1, 5))
def test_counts_add_up_over_any_split(seed, split):
    rng = np.random.default_rng(seed)
    pred, target = rng.integers(0, 18, (2, 6, 4, 4, 3))
    mask = rng.random(pred.shape) < 0.7
    for make in (OccupancyIoU, GeometricIoU, lambda: GeometricIoU(above_ground=True)):
        whole, first, second = make(), make(), make()
        whole.add(pred, target, mask)
        first.add(pred[:split], target[:split], mask[:split])
        second.add(pred[split:], target[split:], mask[split:])
        summed = make().load_state({name: counts + second.state[name] for name, counts in first.state.items()})
        first.merge(second)
        for name, counts in whole.state.items():
            assert counts.dtype == np.int64
            np.testing.assert_array_equal(counts, first.state[name])
            np.testing.assert_array_equal(counts, summed.state[name])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_iou_equals_sets(seed):
    rng = np.random.default_rng(seed)
    pred, target = rng.integers(10, 18, (2, 5, 5, 3)).astype(np.uint8)
    metric, all_voxels, above = OccupancyIoU(mask="none"), GeometricIoU(mask="none"), GeometricIoU(above_ground=True, mask="none")
    for m in (metric, all_voxels, above):
        m.add(torch.from_numpy(pred), target)
    for c in range(10, 18):
        union = ((pred == c) | (target == c)).sum()
        if union:
            assert metric.per_class()[c] == ((pred == c) & (target == c)).sum() / union
    p, t = pred != 17, target != 17
    assert all_voxels.compute()["iou"] == (p & t).sum() / (p | t).sum()
    p, t = (~np.isin(a, (11, 12, 13, 14, 17)) for a in (pred, target))
    assert above.compute()["iou"] == (p & t).sum() / (p | t).sum()
    assert above.compute()["precision"] == pytest.approx((p & t).sum() / p.sum())
    assert above.compute()["recall"] == pytest.approx((p & t).sum() / t.sum())


def test_geometric_figures_come_from_a_confusion_matrix_too():
    rng = np.random.default_rng(3)
    pred, target = rng.integers(0, 18, (2, 9, 9, 4))
    counted = OccupancyIoU()
    counted.add(pred, target, pred != 5)
    for above_ground in (False, True):
        direct, derived = GeometricIoU(above_ground), GeometricIoU(above_ground)
        direct.add(pred, target, pred != 5)
        derived.add_confusion(counted.confusion)
        assert direct.compute() == derived.compute()
        assert 0 < direct.compute()["iou"] < 1
    with pytest.raises(ShapeError, match="confusion matrix"):
        GeometricIoU(num_classes=3, free=0).add_confusion(counted.confusion)


def test_ignored_and_masked_voxels_never_count():
    target = np.array([4, 255, 4, 17], np.uint8)
    pred = np.array([4, 200, 99, 17], np.uint8)  # ids out of range are harmless where nothing is counted
    metric = OccupancyIoU()
    metric.add(pred, target, np.array([1, 1, 0, 1]))
    assert metric.confusion.sum() == 2
    geometric = GeometricIoU()
    geometric.add(pred, target, np.array([1, 1, 0, 1]))
    assert geometric.compute() == {"iou": 1.0, "precision": 1.0, "recall": 1.0, "above_ground": False, "mask": "camera"}


def test_nothing_counted_is_not_a_number():
    assert np.isnan(OccupancyIoU().compute()["miou"])
    assert np.isnan(GeometricIoU().compute()["iou"])


def test_another_class_list():
    metric = OccupancyIoU(num_classes=3, free=0, mask="lidar")
    metric.add(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]), np.ones(4, bool))
    assert metric.compute()["per_class"] == [1.0, 0.5, 0.5]
    assert metric.compute()["miou"] == 0.5
    above = GeometricIoU(above_ground=True, num_classes=3, free=0, mask="none", flat=(1,))
    above.add(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]))
    assert above.compute()["iou"] == 0.5


@pytest.mark.parametrize("metric", [OccupancyIoU(mask="none"), GeometricIoU(mask="none")])
def test_bad_input_is_named(metric):
    ones = np.ones((2, 2), np.uint8)
    with pytest.raises(DataError, match="class id 18"):
        metric.add(ones * 18, ones)
    with pytest.raises(DataError, match="class id -1"):
        metric.add(ones.astype(int) * -1, ones)
    with pytest.raises(DataError, match="argmax"):
        metric.add(ones * 0.5, ones)
    with pytest.raises(ShapeError, match="one shape"):
        metric.add(ones, ones[0])
    with pytest.raises(ShapeError, match="mask"):
        metric.add(ones, ones, ones[0])


def test_merging_or_loading_something_else_is_refused():
    with pytest.raises(ConfigError, match="merge"):
        OccupancyIoU().merge(OccupancyIoU(mask="lidar"))
    with pytest.raises(ConfigError, match="merge"):
        GeometricIoU().merge(GeometricIoU(above_ground=True))
    with pytest.raises(ConfigError, match="counts"):
        OccupancyIoU().load_state({"confusion": np.zeros((3, 3), int)})
    for wrong in (np.full((18, 18), 0.5), np.full((18, 18), np.nan), torch.zeros(18, 18), [[1], [2, 3]]):
        with pytest.raises(ConfigError, match="'confusion' in this state of OccupancyIoU"):
            OccupancyIoU().load_state({"confusion": wrong})
    with pytest.raises(ConfigError, match="absent"):
        OccupancyIoU(absent="none")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="free"):
        OccupancyIoU(num_classes=3)
    for options in ({}, {"free": 0, "above_ground": True}):
        with pytest.raises(ConfigError, match="free and flat must be ids below num_classes = 3"):
            GeometricIoU(num_classes=3, **options)


@pytest.mark.parametrize("make", [OccupancyIoU, GeometricIoU, FScore, VoxelPQ])
def test_a_mask_is_given_exactly_where_the_figures_are_named_after_one(make):
    ids = np.full(VoxelGrid.occ3d().shape, 4, np.uint8)
    arrays = (ids, ids, ids, ids) if make is VoxelPQ else (ids, ids)
    for named in ("camera", "lidar"):
        with pytest.raises(DataError, match=f"inside the {named} mask, but add\\(\\) was called without a mask.*mask='none'"):
            make(mask=named).add(*arrays)
    with pytest.raises(DataError, match=r"over all voxels .* was given a mask.*mask='camera'"):
        make(mask="none").add(*arrays, mask=ids)
    with pytest.raises(ConfigError, match="mask must be 'camera' or 'lidar' or 'none', got 'cam'"):
        make(mask="cam")
    right = make(mask="camera")
    right.add(*arrays, mask=ids)
    assert right.compute()["mask"] == "camera"
