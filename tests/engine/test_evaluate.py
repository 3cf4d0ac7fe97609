"""One path through evaluation: networks, what predicts without images, several questions at once, and what cannot be scored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from frustum.checkpoint.weights_file import digest
from frustum.data.labels.occupancy import occupancy_of
from frustum.data.occ3d.label_files import labels_path
from frustum.engine.evaluate import evaluate, evaluate_with_baselines
from frustum.engine.feed import evaluation_batches
from frustum.engine.overrides import apply
from frustum.engine.predictors import NetworkPredictor, black_images
from frustum.engine.reports import EvalReport, class_tables, compare, figures_table, headline, read_reports, write_reports
from frustum.engine.train import train
from frustum.errors import DataError, FrustumWarning, ShapeError
from frustum.tasks import TASKS
from frustum.tasks.blind_prior import BlindPrior
from frustum.tasks.task import Predictor
from frustum.types.classes import DETECTION_CLASSES, OCC3D_CLASSES
from frustum.types.predictions import PredictedBoxes, PredictedOccupancy, PredictedSegmentation, Prediction
from tests.engine import toy


class Oracle(Predictor):
    """Knows the labels; `spoil` makes it answer something else."""

    name = "oracle"

    def __init__(self, database, spoil=lambda semantics: semantics):
        self.database, self.spoil = database, spoil

    def answer(self, token):
        volume = self.spoil(next(occupancy_of(self.database, [token])).semantics.copy())
        return Prediction(token, occupancy=PredictedOccupancy(torch.from_numpy(volume), toy.GRID, OCC3D_CLASSES))


@pytest.fixture
def recipe(toy_root):
    return toy.recipe(toy_root)


@pytest.fixture
def database(recipe):
    return recipe.data.open()


class Both(Oracle):
    """Also answers a question that the data set has no truth for."""

    def answer(self, token):
        pixels = torch.zeros(4, 4, dtype=torch.uint8)
        return replace(super().answer(token), segmentation=PredictedSegmentation(pixels, ("road", "sky")))


def test_what_the_data_set_has_no_truth_for_is_named_and_left_out(recipe, database):
    with pytest.warns(FrustumWarning, match=r"not scored: sample \w+ of .* has no label image"):
        report = evaluate(recipe, Both(database))
    assert set(report.results) == {"occupancy"}
    assert report.results["occupancy"]["miou"]["camera"] == 1.0
    assert report.frames == 4


def test_the_truth_scores_one_everywhere(recipe, database, tmp_path):
    report = evaluate(recipe, Oracle(database), name="truth", out=tmp_path / "deep" / "eval.json")
    for key in ("miou", "geometric_iou", "geometric_iou_above_ground"):
        assert report.results["occupancy"][key] == {"camera": 1.0, "lidar": 1.0, "none": 1.0}
    assert set(report.results["occupancy"]["ray_iou"].values()) == {1.0}
    assert report.results["occupancy"]["class_iou"]["camera"]["manmade"] == 1.0
    assert report.results["occupancy"]["class_iou"]["camera"]["bus"] is None
    assert (report.frames, report.split, report.images) == (4, "val", "none")
    stored = json.loads((tmp_path / "deep" / "eval.json").read_text())
    assert EvalReport.from_numbers(stored).results == report.results
    assert stored["protocol"]["occupancy"]["geometric_iou_above_ground"].startswith("the same with driveable_surface")


def test_figures_equal_an_independent_count(recipe, database):
    def spoil(semantics):
        semantics[2:5, :, 0] = OCC3D_CLASSES.index("terrain")  # wrong ground
        semantics[:, 3, 2] = OCC3D_CLASSES.index("manmade")  # a wall too many
        return semantics

    report = evaluate(recipe, Oracle(database, spoil), split="train", every=3)
    labels = list(occupancy_of(database, database.tokens("train")[::3]))
    truth = np.stack([l.semantics for l in labels])
    guess = np.stack([spoil(l.semantics.copy()) for l in labels])
    masks = {
        "camera": np.stack([l.mask_camera for l in labels]) > 0,
        "lidar": np.stack([l.mask_lidar for l in labels]) > 0,
        "none": truth >= 0,
    }
    flat = [OCC3D_CLASSES.index(name) for name in ("driveable_surface", "other_flat", "sidewalk", "terrain")]
    assert report.frames == 3
    for name, mask in masks.items():
        t, p = truth[mask], guess[mask]
        per_class = [((t == c) & (p == c)).sum() / ((t == c) | (p == c)).sum() for c in range(17) if ((t == c) | (p == c)).any()]
        assert report.results["occupancy"]["miou"][name] == pytest.approx(np.mean(per_class))
        a, b = t != 17, p != 17
        assert report.results["occupancy"]["geometric_iou"][name] == pytest.approx((a & b).sum() / (a | b).sum())
        a, b = a & ~np.isin(t, flat), b & ~np.isin(p, flat)
        assert report.results["occupancy"]["geometric_iou_above_ground"][name] == pytest.approx((a & b).sum() / (a | b).sum())
        assert report.results["occupancy"]["mask_share"][name] == pytest.approx(mask.mean())
        assert report.results["occupancy"]["occupied_share"][name] == pytest.approx((t != 17).mean())
    assert 0 < report.results["occupancy"]["ray_iou"]["mean"] < 1


def miou(report):
    return report.results["occupancy"]["miou"]["camera"]


def test_a_network_beats_the_prior_and_itself_in_the_dark(recipe, database, tmp_path):
    recipe = apply(recipe, ["train.steps=60", "train.batch_size=2", "train.checkpoint_every=100"])
    network = train(recipe, tmp_path).model
    trained, prior, dark = reports = evaluate_with_baselines(recipe, network, database, progress=False)
    assert miou(trained) > 0.9
    assert miou(trained) > miou(prior)
    assert miou(trained) > miou(dark)
    assert [report.images for report in reports] == ["as they are", "none", "black"]
    fitted = BlindPrior.fit(database, "train", toy.GRID, OCC3D_CLASSES)
    assert [report.name for report in reports] == ["toy", fitted.name, "black images"]
    assert evaluate(recipe, fitted, database).results == prior.results, "learned from the training split"
    assert prior.note
    assert dark.note
    assert not trained.note
    table = compare(reports)
    assert [row[0] for row in table.rows] == [report.name for report in reports]
    assert len(next(class_tables(trained)).rows) == 18
    assert "mIoU" in [row[0] for row in figures_table(trained).rows]
    two = evaluate(apply(recipe, ["eval.batch_size=3", "eval.slow_figures=false"]), network)
    assert two.results["occupancy"]["miou"] == trained.results["occupancy"]["miou"]
    assert two.results["occupancy"]["ray_iou"] is None


class TwoQuestions(nn.Module):
    """The toy's occupancy, and the same box for every sample; `hold` makes it leave something out."""

    def __init__(self, hold=lambda prediction: prediction):
        super().__init__()
        self.toy, self.hold = toy.ToyConfig().build(), hold

    def forward(self, batch):
        return self.toy(batch)

    def predict(self, outputs, batch):
        box = PredictedBoxes(torch.tensor([[5.0, 0, 1, 4, 2, 2, 0, 0, 0]]), torch.tensor([0]), torch.tensor([0.5]), DETECTION_CLASSES)
        return [self.hold(replace(prediction, boxes=box)) for prediction in self.toy.predict(outputs, batch)]


def test_every_part_of_a_prediction_is_scored(recipe, database, monkeypatch):
    import frustum.tasks.detection as module

    with pytest.raises(DataError, match="none of the 4 samples has an annotated box"):
        evaluate(recipe, TwoQuestions(), database, progress=False)
    truth = module.detection_truth
    one_box = module.boxes_to_global(np.array([[5.0, 0.2, 1, 4, 2, 2, 0, 0, 0]]), ["car"], np.zeros(1), np.eye(4))

    def with_a_car(source, token):
        found = truth(source, token)
        centres = one_box.centres + found.ego2global[:3, 3]
        return replace(found, boxes=replace(one_box, centres=centres))

    monkeypatch.setattr(module, "detection_truth", with_a_car)
    network = TwoQuestions()
    report = evaluate(recipe, network, database, progress=False)
    assert set(report.results) == {"occupancy", "detection"}
    assert report.results["occupancy"] == evaluate(recipe, network.toy, database, progress=False).results["occupancy"]
    assert report.results["detection"]["label_aps"]["car"]["0.5"] == pytest.approx(1.0)
    assert {figure.name for figure in headline(report)} >= {"mIoU", "RayIoU", "mAP", "NDS"}
    assert len(list(class_tables(report))) == 2
    assert set(report.numbers()["protocol"]) == {"occupancy", "detection"}
    alone = evaluate(recipe, network, database, progress=False, tasks=[task for task in TASKS if task.name == "occupancy"])
    assert set(alone.results) == {"occupancy"}


def test_parts_that_are_missing_or_unknown_are_named(recipe, database):
    last = database.tokens("val")[-1]
    with pytest.raises(DataError, match=f"the prediction of {last} holds occupancy, but others hold occupancy, boxes: predict all samples"):
        evaluate(recipe, TwoQuestions(lambda p: replace(p, boxes=None) if p.token == last else p), database, progress=False)
    nothing = TwoQuestions(lambda p: Prediction(p.token))
    with pytest.raises(DataError, match=r"holds nothing that could be scored. .* a start for others: frustum train RECIPE --init RUN"):
        evaluate(recipe, nothing, database, progress=False)
    with pytest.raises(DataError, match=r"holds occupancy, boxes, which none of the tasks scores. Scored are: segmentation"):
        evaluate(recipe, TwoQuestions(), database, progress=False, tasks=[task for task in TASKS if task.name == "segmentation"])
    pixels = PredictedSegmentation(torch.zeros(2, 2, dtype=torch.uint8), ("a", "b"))
    with pytest.raises(DataError, match="has no label image"):
        evaluate(recipe, TwoQuestions(lambda p: Prediction(p.token, segmentation=pixels)), database, progress=False)


def test_results_need_no_recipe(database):
    report = evaluate(None, Oracle(database), database, "val", progress=False)
    assert (report.name, miou(report), report.frames) == ("oracle", 1.0, 4)
    with pytest.raises(TypeError, match="needs source and split"):
        evaluate(None, Oracle(database))


def test_kept_reports_belong_to_their_weights(recipe, database, tmp_path):
    network = toy.ToyConfig().build()
    reports = [
        evaluate(recipe, network, database, progress=False),
        evaluate(recipe, Oracle(database), database, name="no images", progress=False),
        evaluate(recipe, network, database, black=True, progress=False),
    ]
    assert [report.weights for report in reports] == [digest(network), None, digest(network)]
    assert read_reports(tmp_path, digest(network)) == []
    write_reports(tmp_path, reports)
    assert [report.name for report in read_reports(tmp_path, digest(network))] == [report.name for report in reports]
    assert read_reports(tmp_path, digest(toy.ToyConfig().build())) == [], "numbers of other weights"
    with torch.no_grad():
        network.head.bias[0] += 1
    write_reports(tmp_path, [evaluate(recipe, network, database, progress=False)])
    assert [report.images for report in read_reports(tmp_path, digest(network))] == ["as they are", "none"], "black images are stale"


def test_black_is_black_before_normalisation(recipe):
    database = recipe.data.open()
    batch = next(evaluation_batches(recipe, database, database.tokens("val")))
    dark = black_images(batch, recipe.data)
    raw = dark.images.movedim(3, -1) * torch.tensor(recipe.data.std) + torch.tensor(recipe.data.mean)
    assert dark.images.shape == batch.images.shape
    assert raw.abs().max() < 1e-4
    predictor = NetworkPredictor(toy.ToyConfig().build(), recipe.runtime, black=True, data=recipe.data)
    first, second = predictor(batch)[0], predictor(dark)[0]
    assert torch.equal(first.occupancy.semantics, second.occupancy.semantics)


def test_missing_labels_and_other_grids_are_named(recipe, database, tmp_path):
    bare = toy.write_database(tmp_path / "bare", labels=False)
    with pytest.raises(DataError, match="no occupancy labels"):
        evaluate(toy.recipe(bare), toy.ToyConfig().build())
    part = toy.write_database(tmp_path / "part")
    lost = toy.recipe(part).data.open().tokens("val")[1]
    labels_path(part, "scene-0003", lost).unlink()
    for size in (1, 2, 4):
        with pytest.raises(DataError, match=f"{lost} has no occupancy labels"):
            evaluate(apply(toy.recipe(part), [f"eval.batch_size={size}"]), toy.ToyConfig().build(), progress=False)
    with pytest.raises(ShapeError):
        evaluate(recipe, Oracle(database, lambda s: s[:5]))
    with pytest.raises(DataError, match="vall"):
        evaluate(recipe, Oracle(database), split="vall")
