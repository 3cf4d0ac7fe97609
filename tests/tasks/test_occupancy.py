"""Predictions in files, and panoptic figures: scored as the model that made them would be."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from frustum.data.labels.occupancy import occupancy_of
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.occ3d.label_files import labels_path, write_labels
from frustum.data.occ3d.result_files import write_result
from frustum.data.sample import Occupancy
from frustum.engine.evaluate import evaluate
from frustum.engine.overrides import apply
from frustum.engine.predict import predict
from frustum.engine.recipe import PublishedNumber
from frustum.engine.reports import EvalReport, class_tables, compare, figures, figures_table, headline, notes
from frustum.errors import ConfigError, DataError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.metrics.panoptic_quality import OCC3D_THINGS
from frustum.tasks.occupancy import OccupancyFiles, OccupancyTask, TrueOccupancy, true_instances
from frustum.types.classes import OCC3D_CLASSES, OCC3D_FREE
from frustum.types.predictions import Objects, PredictedOccupancy
from tests.engine import toy

CAR = OCC3D_CLASSES.index("car")


@pytest.fixture
def database(toy_root):
    return toy.recipe(toy_root).data.open()


def score_files(folder, database, split="val", **settings):
    return evaluate(None, OccupancyFiles(folder, toy.GRID), database, split, progress=False, **settings)


def test_files_score_as_the_network_that_wrote_them(toy_root, database, tmp_path):
    recipe, network = toy.recipe(toy_root), toy.ToyConfig().build()
    predict(network, recipe, database, database.tokens("all"), tmp_path / "ours", progress=False)
    alone = evaluate(recipe, network, database, progress=False)
    found = score_files(tmp_path / "ours", database)
    assert found.results == alone.results
    assert (found.name, found.split, found.frames, found.images, found.weights) == ("ours", "val", 4, "none", None)
    tokens = database.tokens("val")
    for token, labels in zip(tokens, occupancy_of(database, tokens), strict=True):
        write_result(tmp_path / "truth", token, labels.semantics, toy.GRID)
    without_rays = apply(recipe, ["eval.slow_figures=false"])
    copy = OccupancyFiles(tmp_path / "truth", toy.GRID)
    every_other = evaluate(without_rays, copy, database, "val", every=2, name="copy", progress=False)
    assert (every_other.frames, every_other.results["occupancy"]["miou"]["camera"], every_other.name) == (2, 1.0, "copy")
    assert every_other.results["occupancy"]["ray_iou"] is None
    with pytest.raises(DataError, match="lacks 8 of the 8"):
        score_files(tmp_path / "truth", database, "train")
    with pytest.raises(DataError, match="integers of shape"):
        evaluate(None, OccupancyFiles(tmp_path / "truth"), database, "val", progress=False)


def parked(database, root):
    """Labels with two cars side by side, stored as plain and panoptic files of the toy data set; returns them by token."""
    found = {}
    for token in database.tokens("val"):
        labels = next(occupancy_of(database, [token]))
        semantics, ids = labels.semantics.copy(), np.zeros(toy.GRID.shape, np.uint8)
        for number, y in ((1, slice(0, 4)), (2, slice(6, 10))):
            semantics[3:7, y, 1:3], ids[3:7, y, 1:3] = CAR, number
        found[token] = Occupancy(semantics, np.ones_like(ids), np.ones_like(ids), ids)
        for panoptic in (False, True):
            write_labels(labels_path(root, database.scene(token).name, token, panoptic), found[token])
    return found


def occupancy(semantics, instances=None, objects=None):
    ids = None if instances is None else torch.from_numpy(np.asarray(instances))
    return PredictedOccupancy(torch.as_tensor(semantics), toy.GRID, OCC3D_CLASSES, ids, objects)


def test_predictions_with_instances_get_panoptic_figures(tmp_path):
    root = toy.write_database(tmp_path / "db")
    database = toy.recipe(root).data.open()
    labels = parked(database, root)
    for token, truth in labels.items():
        for name, ids in (("told apart", truth.instances.astype(int) + 40), ("as one", np.zeros(toy.GRID.shape, int))):
            OccupancyTask.save(occupancy(truth.semantics, ids), tmp_path / name, token)
    apart, one = (score_files(tmp_path / name, database).results["occupancy"] for name in ("told apart", "as one"))
    assert apart["voxel_pq"] == apart["voxel_sq"] == apart["voxel_rq"] == {"camera": 1.0, "lidar": 1.0, "none": 1.0}
    assert set(apart["ray_pq"].values()) == {1.0}
    assert apart["class_ray_pq"]["2"]["car"] == 1.0
    assert one["voxel_pq"]["none"] < 1.0
    assert one["class_ray_pq"]["1"]["car"] == 0.0
    assert one["ray_iou"] == apart["ray_iou"] == {"mean": 1.0, "1": 1.0, "2": 1.0, "4": 1.0}
    report = EvalReport("m", "val", 4, 1, "none", {"occupancy": apart}, 1.0)
    assert EvalReport.from_numbers(json.loads(json.dumps(report.numbers()))) == report
    names = [figure.name for figure in figures(report)]
    assert {"voxel PQ", "voxel SQ", "voxel RQ", "RayPQ", "RayPQ@4"} <= set(names)
    assert all(key in OccupancyTask.protocol for key in ("ray_pq", "voxel_pq", "fscore", "miou_absent_nan"))
    assert {"RayPQ", "voxel PQ"} <= set(compare([report]).columns)


def test_instances_and_no_instances_do_not_mix(database):
    token, *_ = database.tokens("val")
    task = OccupancyTask(slow=False)
    truth = task.truth(database, token)
    semantics = truth.labels.semantics
    task.add(token, occupancy(semantics), truth)
    with pytest.raises(DataError, match="some predictions hold instances"):
        task.add(token, occupancy(semantics, semantics), truth)
    assert task.compute()["voxel_pq"] is None
    fewer = PredictedOccupancy(torch.from_numpy(semantics), toy.GRID, (*OCC3D_CLASSES[:3], "free"))
    with pytest.raises(DataError, match=r"has the classes others, barrier, bicycle, free, but .* are evaluated"):
        task.add(token, fewer, truth)
    with pytest.raises(ShapeError, match=r"voxels, but its labels have \(10, 10, 4\)"):
        task.add(token, occupancy(semantics[:5]), truth)


def test_shares_of_processes_add_up_to_the_whole(tmp_path):
    root = toy.write_database(tmp_path / "db")
    database = toy.recipe(root).data.open()
    labels = parked(database, root)
    whole, parts = OccupancyTask(), [OccupancyTask() for _ in range(2)]
    for i, token in enumerate(labels):
        truth = whole.truth(database, token)
        part = occupancy(np.roll(labels[token].semantics, 1, axis=0), labels[token].instances)
        for task in (whole, parts[i % 2]):
            task.add(token, part, truth)
    sent = [pickle.loads(pickle.dumps(task)) for task in parts]  # as between processes
    assert sent[0].merge(sent[1]).compute() == whole.compute()
    other = OccupancyTask()
    other.add(token, occupancy(labels[token].semantics), whole.truth(database, token))
    with pytest.raises(ConfigError, match="has_instances"):
        whole.merge(other)


def test_classes_are_those_of_the_prediction(database):
    """A network with classes of its own, on labels that hold its ids."""
    names, task = ("wall", "sidewalk", "car", "free"), OccupancyTask(slow=False)
    volume = np.full(toy.GRID.shape, 3, np.uint8)
    volume[:, :, 0], volume[4, :, 1:], volume[0, 0, 2] = 1, 0, 2
    every = np.ones(toy.GRID.shape, np.uint8)
    truth = TrueOccupancy(database, "token", Occupancy(volume, every, every, (volume == 2).astype(np.uint8)))
    task.add("token", PredictedOccupancy(torch.from_numpy(volume), toy.GRID, names, torch.from_numpy(volume)), truth)
    found = task.compute()
    assert found["class_iou"]["camera"] == dict.fromkeys(names, 1.0)
    assert found["geometric_iou_above_ground"]["none"] == found["voxel_pq"]["none"] == 1.0
    assert found["class_share"]["sidewalk"] == pytest.approx((volume == 1).mean())
    classes = OccupancyTask.classes(found)
    assert classes.legend.names == names[:-1]
    assert "3 classes" in OccupancyTask.figures(found)[0].convention


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
    report = evaluate(toy.recipe(toy_root), toy.ToyConfig().build(), database, progress=False)
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
    assert filled == {("mIoU", "camera mask"): "31.95", ("RayIoU@2", "rays"): "12.30"}
    assert beside.rows[0][2] == "17 classes; absent from the truth but predicted counts 0 (FlashOCC)"
    (table,) = class_tables(report, (rays, mine))
    assert table.columns[-1] == "published mIoU"
    assert [row[-1] for row in table.rows] == [f"{i:.2f}" for i in range(17)] + ["31.95"]
    assert list(class_tables(report, (rays,))) == list(class_tables(report))
    assert "camera mask" in notes(report)[0]
    assert len(notes(report)) == 1
    report.results["occupancy"]["predicted_share"]["none"] = 0.0
    assert "not one voxel is predicted to be occupied: " in notes(report)[1]
    short = PublishedNumber(metric="mIoU", value=1.0, protocol="p", source="s", per_class=(1.0,))
    with pytest.raises(ConfigError, match=r"figures of 1 classes, but 17 are evaluated.* one entry per class, in this order: others, "):
        list(class_tables(report, (short,)))
    compared = compare([report])
    assert compared.columns[1:4] == ["mIoU, camera mask", "mIoU, LiDAR mask", "mIoU, all voxels"]
    assert compared.columns[4:] == ["geometric IoU", "geometric IoU above ground", "RayIoU", "RayIoU@1", "RayIoU@2", "RayIoU@4"]
    assert [figure.key for figure in headline(report)] == ["miou.camera", "geometric_iou_above_ground.camera", "ray_iou.mean"]


def test_reports_of_the_first_version_can_be_read(toy_root, database):
    """Their figures of occupancy were not below the name of a task, and some did not exist."""
    report = evaluate(toy.recipe(toy_root), toy.ToyConfig().build(), database, progress=False)
    numbers = report.numbers()
    metrics = {key: value for key, value in report.results["occupancy"].items() if key in ("miou", "geometric_iou", "ray_iou", "class_iou")}
    old = {key: value for key, value in numbers.items() if key not in ("results", "weights")} | {"metrics": metrics}
    again = EvalReport.from_numbers(json.loads(json.dumps(old)))
    assert [figure.name for figure in figures(again)].count("mIoU") == 3
    assert notes(again) == []
    assert len(next(class_tables(again)).rows) == 18


def test_classes_absent_from_the_truth_by_both_conventions(database):
    token, *_ = database.tokens("val")
    task = OccupancyTask(slow=False)
    truth = task.truth(database, token)
    wrong = truth.labels.semantics.copy()
    wrong[0, 0, 3] = CAR  # predicted, but nowhere in the truth
    task.add(token, occupancy(wrong), truth)
    found = task.compute()
    assert found["miou_absent_nan"]["none"] * 2 == pytest.approx(found["miou"]["none"] * 3)
    assert found["fscore"]["none"] < 1
    assert found["fscore_completeness"]["none"] == 1.0


def test_objects_are_written_and_read(tmp_path):
    volume = torch.zeros(toy.GRID.shape, dtype=torch.uint8)
    numbers = torch.zeros(toy.GRID.shape, dtype=torch.int32)
    volume[1, 2, 0], numbers[1, 2, 0] = 4, 517
    objects = Objects(torch.tensor([517]), torch.tensor([4]), torch.tensor([[0.5, 1.5, 0.0]]), torch.tensor([0.75]))
    given = PredictedOccupancy(volume, toy.GRID, ("a",) * 17 + ("free",), numbers, objects)
    path = OccupancyTask.save(given, tmp_path, "token", "scene")
    assert path == tmp_path / "token.npz"
    with np.load(path, allow_pickle=False) as stored:
        names = ["instances", "instance_ids", "instance_classes", "instance_centres", "instance_scores", "semantics", "class_names"]
        assert stored.files == [*names, "lower", "upper", "cell", "token", "scene"], "the names of the first version"
        assert stored["instances"].dtype == np.uint16
    token, again = OccupancyTask.read(path)
    assert token == "token"
    assert torch.equal(again.instances, numbers)
    assert (again.grid, again.class_names) == (given.grid, given.class_names)
    for name in ("ids", "classes", "centres", "scores"):
        assert torch.equal(getattr(again.objects, name), getattr(objects, name)), name
    plain = PredictedOccupancy(volume, toy.GRID, given.class_names, numbers)
    assert OccupancyTask.load(OccupancyTask.save(plain, tmp_path, "plain")).objects is None


def test_layers_hold_what_is_drawn(tmp_path):
    root = toy.write_database(tmp_path / "db")
    database = toy.recipe(root).data.open()
    token, labels = next(iter(parked(database, root).items()))
    ids = labels.instances.astype(np.int32) + 40  # 40 is everything that is not an object
    objects = Objects(torch.tensor([41, 42]), torch.tensor([CAR, CAR]), torch.zeros(2, 3), torch.ones(2))
    part = occupancy(labels.semantics, ids, objects)
    (layer,) = OccupancyTask.layers(part)
    assert (layer.free, layer.flat, layer.grid, layer.legend.names) == (OCC3D_FREE, (11, 12, 13, 14), toy.GRID, OCC3D_CLASSES)
    assert set(np.unique(layer.objects)) == {0, 41, 42}
    truth = OccupancyTask().truth(database, token)
    (true,) = OccupancyTask.truth_layers(truth, part)
    np.testing.assert_array_equal(true.objects, labels.instances)
    np.testing.assert_array_equal(true.mask, labels.mask_camera)
    plain = occupancy(labels.semantics)
    assert OccupancyTask.layers(plain)[0].objects is OccupancyTask.truth_layers(truth, plain)[0].objects is None
    assert OccupancyTask.truth_layers(truth)[0].grid == VoxelGrid.occ3d()
