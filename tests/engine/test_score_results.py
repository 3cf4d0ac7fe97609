"""Predictions in files, and panoptic figures: scored as the model that made them would be."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.occ3d.label_files import labels_path, write_labels
from frustum.data.occ3d.result_files import write_result
from frustum.data.sample import Occupancy
from frustum.engine.eval_figures import class_table, coverage, figures, figures_table
from frustum.engine.eval_report import PROTOCOL, EvalReport
from frustum.engine.evaluate import evaluate
from frustum.engine.feed import open_database
from frustum.engine.predict import predict, write_prediction
from frustum.engine.recipe import PublishedNumber
from frustum.engine.score_results import score_occupancy_results
from frustum.engine.scores import Scores, true_instances
from frustum.engine.statistics import labels_of
from frustum.errors import DataError
from frustum.metrics.panoptic_quality import OCC3D_THINGS
from frustum.types.classes import OCC3D_CLASSES, OCC3D_FREE
from frustum.types.predictions import Prediction
from tests.engine import toy

CAR = OCC3D_CLASSES.index("car")


@pytest.fixture
def database(toy_root):
    return open_database(toy.recipe(toy_root).data, toy.GRID)


def test_files_score_as_the_network_that_wrote_them(toy_root, database, tmp_path):
    recipe, network = toy.recipe(toy_root), toy.ToyConfig().build()
    predict(network, recipe, database, database.tokens("all"), tmp_path / "ours", progress=False)
    alone = evaluate(recipe, network, database=database, progress=False)
    found = score_occupancy_results(tmp_path / "ours", database, "val", grid=toy.GRID, progress=False)
    assert found.metrics == alone.metrics
    assert (found.name, found.split, found.frames, found.images, found.weights) == ("ours", "val", 4, "none", None)
    tokens = database.tokens("val")
    for token, labels in zip(tokens, labels_of(database, tokens), strict=True):
        write_result(tmp_path / "truth", token, labels.semantics, toy.GRID)
    every_other = score_occupancy_results(tmp_path / "truth", database, "val", grid=toy.GRID, every=2, ray_iou=False, name="copy")
    assert (every_other.frames, every_other.miou, every_other.name) == (2, 1.0, "copy")
    assert every_other.metrics["ray_iou"] is None
    with pytest.raises(DataError, match="lacks 8 of the 8"):
        score_occupancy_results(tmp_path / "truth", database, "train", grid=toy.GRID)
    with pytest.raises(DataError, match="integers of shape"):
        score_occupancy_results(tmp_path / "truth", database, "val")


def parked(database, root):
    """Labels with two cars side by side, stored as plain and panoptic files of the toy data set; returns them by token."""
    found = {}
    for token in database.tokens("val"):
        labels = next(iter(labels_of(database, [token])))
        semantics, ids = labels.semantics.copy(), np.zeros(toy.GRID.shape, np.uint8)
        for number, y in ((1, slice(0, 4)), (2, slice(6, 10))):
            semantics[3:7, y, 1:3], ids[3:7, y, 1:3] = CAR, number
        found[token] = Occupancy(semantics, np.ones_like(ids), np.ones_like(ids), ids)
        for panoptic in (False, True):
            write_labels(labels_path(root, database.scene(token).name, token, panoptic), found[token])
    return found


def test_predictions_with_instances_get_panoptic_figures(tmp_path):
    root = toy.write_database(tmp_path / "db")
    database = open_database(toy.recipe(root).data, toy.GRID)
    labels = parked(database, root)
    for token, truth in labels.items():
        for name, ids in (("told apart", truth.instances.astype(int) + 40), ("as one", np.zeros(toy.GRID.shape, int))):
            answer = Prediction(token, torch.from_numpy(truth.semantics), toy.GRID, OCC3D_CLASSES, torch.from_numpy(ids))
            write_prediction(tmp_path / name / f"{token}.npz", answer)
    apart, one = (
        score_occupancy_results(tmp_path / name, database, "val", grid=toy.GRID, progress=False).metrics
        for name in ("told apart", "as one")
    )
    assert apart["voxel_pq"] == apart["voxel_sq"] == apart["voxel_rq"] == {"camera": 1.0, "lidar": 1.0, "none": 1.0}
    assert set(apart["ray_pq"].values()) == {1.0}
    assert apart["class_ray_pq"]["2"]["car"] == 1.0
    assert one["voxel_pq"]["none"] < 1.0
    assert one["class_ray_pq"]["1"]["car"] == 0.0
    assert one["ray_iou"] == apart["ray_iou"] == {"mean": 1.0, "1": 1.0, "2": 1.0, "4": 1.0}
    report = EvalReport("m", "val", 4, 1, "none", apart, 1.0)
    assert EvalReport.from_numbers(json.loads(json.dumps(report.numbers()))).metrics == apart
    names = [figure.name for figure in figures(apart)]
    assert {"voxel PQ", "voxel SQ", "voxel RQ", "RayPQ", "RayPQ@4"} <= set(names)
    assert all(key in PROTOCOL for key in ("ray_pq", "voxel_pq", "fscore", "miou_absent_nan"))


def test_instances_and_no_instances_do_not_mix(database):
    token, *_ = database.tokens("val")
    truth = next(iter(labels_of(database, [token])))
    semantics = torch.from_numpy(truth.semantics)
    scores = Scores(database, ray_iou=False)
    scores.add(Prediction(token, semantics, toy.GRID), truth)
    with pytest.raises(DataError, match="some predictions hold instances"):
        scores.add(Prediction(token, semantics, toy.GRID, instances=semantics), truth)
    assert scores.compute()["voxel_pq"] is None
    with pytest.raises(DataError, match="no semantics"):
        scores.add(Prediction(token, None, toy.GRID), truth)


def test_instances_are_derived_from_boxes_where_no_file_has_them(street_root, monkeypatch):
    """The street world knows who owns a voxel; the published rule guesses it from boxes and agrees but for a few voxels."""
    database = NuScenes(street_root)
    for token in database.tokens("val"):
        sample = database.sample(token, occupancy="instances")
        plain = Occupancy(sample.occupancy.semantics, sample.occupancy.mask_lidar, sample.occupancy.mask_camera)
        np.testing.assert_array_equal(true_instances(database, token, plain), sample.occupancy.instances)
        with monkeypatch.context() as patch:
            patch.setattr(database, "labels_path", lambda scene, token, instances=False: labels_path(street_root, scene, token))
            derived = true_instances(database, token, plain)
        things = np.isin(plain.semantics, OCC3D_THINGS)
        pairs, counts = np.unique(np.stack([sample.occupancy.instances[things], derived[things]]), axis=1, return_counts=True)
        largest = sum(counts[pairs[0] == i].max() for i in np.unique(pairs[0]))
        assert largest > 0.99 * things.sum()
        assert ((derived == 0) == (plain.semantics == OCC3D_FREE))[things].mean() > 0.99
        assert len(np.unique(derived[things])) > 5


def test_the_list_of_figures_names_masks_conventions_and_published_numbers(toy_root, database):
    report = evaluate(toy.recipe(toy_root), toy.ToyConfig().build(), database=database, progress=False)
    plain = figures_table(report)
    assert plain.columns == ["figure", "counted on", "convention", "here"]
    assert [row[:2] for row in plain.rows if row[0] == "F-score"] == [["F-score", m] for m in ("camera mask", "LiDAR mask", "all voxels")]
    assert sum(row[0].startswith("RayIoU") for row in plain.rows) == 4
    assert not any("PQ" in row[0] for row in plain.rows)
    assert len({tuple(row[:3]) for row in plain.rows}) == len(plain.rows), "every row says what sets it apart"
    mine = PublishedNumber(metric="mIoU", value=31.95, protocol="p", source="s", per_class=tuple(float(i) for i in range(17)))
    rays = PublishedNumber(metric="RayIoU@2", value=12.3, protocol="p", source="s")
    beside = figures_table(report, (mine, rays))
    filled = {(row[0], row[1]): row[4] for row in beside.rows if row[4]}
    assert filled == {("mIoU", "camera mask"): "31.95", ("RayIoU@2", "rays, no mask"): "12.30"}
    assert beside.rows[0][2].endswith("(FlashOCC)")
    table = class_table(report, (rays, mine))
    assert table.columns[-1] == "published mIoU"
    assert [row[-1] for row in table.rows] == [f"{i:.2f}" for i in range(17)] + ["31.95"]
    assert class_table(report, (rays,)) == report.class_table()
    assert "camera mask" in coverage(report)
    with pytest.raises(ValueError, match="17 figures"):
        PublishedNumber(metric="mIoU", value=1.0, protocol="p", source="s", per_class=(1.0,))
    old = {key: value for key, value in report.metrics.items() if key in ("miou", "geometric_iou", "ray_iou")}
    assert [figure.name for figure in figures(old)].count("mIoU") == 3, "reports of earlier versions can be read"


def test_classes_absent_from_the_truth_by_both_conventions(database):
    token, *_ = database.tokens("val")
    truth = next(iter(labels_of(database, [token])))
    wrong = truth.semantics.copy()
    wrong[0, 0, 3] = CAR  # predicted, but nowhere in the truth
    scores = Scores(database, ray_iou=False)
    scores.add(Prediction(token, torch.from_numpy(wrong), toy.GRID), truth)
    found = scores.compute()
    assert found["miou_absent_nan"]["none"] * 2 == pytest.approx(found["miou"]["none"] * 3)
    assert found["fscore"]["none"] < 1
    assert found["fscore_completeness"]["none"] == 1.0
