from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from frustum.checkpoint.weights_file import digest
from frustum.data.occ3d.label_files import labels_path
from frustum.engine.baselines import VARIANTS, BlindPrior, count_classes, most_likely
from frustum.engine.eval_figures import figures_table
from frustum.engine.eval_report import EvalReport, compare, percent, read_reports, write_reports
from frustum.engine.evaluate import Scores, evaluate
from frustum.engine.feed import open_database
from frustum.engine.overrides import apply
from frustum.engine.predictors import NetworkPredictor, black_images
from frustum.engine.statistics import class_statistics, labels_of, spread
from frustum.engine.train import train
from frustum.errors import DataError, ShapeError
from frustum.types.classes import OCC3D_CLASSES
from frustum.types.predictions import Prediction
from tests.engine import toy


class Oracle:
    """Knows the labels; `spoil` makes it answer something else."""

    needs_images = False

    def __init__(self, database, spoil=lambda semantics: semantics):
        self.database, self.spoil = database, spoil

    def __call__(self, batch):
        volumes = [self.spoil(labels.semantics.copy()) for labels in labels_of(self.database, batch.tokens)]
        return [Prediction(t, torch.from_numpy(v), toy.GRID, OCC3D_CLASSES) for t, v in zip(batch.tokens, volumes, strict=True)]


@pytest.fixture
def recipe(toy_root):
    return toy.recipe(toy_root)


@pytest.fixture
def database(recipe):
    return open_database(recipe.data, toy.GRID)


def test_the_truth_scores_one_everywhere(recipe, database, tmp_path):
    report = evaluate(recipe, Oracle(database), name="truth", out=tmp_path / "deep" / "eval.json")
    for key in ("miou", "geometric_iou", "geometric_iou_above_ground"):
        assert report.metrics[key] == {"camera": 1.0, "lidar": 1.0, "none": 1.0}
    assert set(report.metrics["ray_iou"].values()) == {1.0}
    assert report.metrics["class_iou"]["camera"]["manmade"] == 1.0
    assert report.metrics["class_iou"]["camera"]["bus"] is None
    assert (report.frames, report.split, report.images) == (4, "val", "none")
    stored = json.loads((tmp_path / "deep" / "eval.json").read_text())
    assert EvalReport.from_numbers(stored).metrics == report.metrics
    assert stored["protocol"]["geometric_iou_above_ground"].startswith("the same with driveable_surface")


def test_figures_equal_an_independent_count(recipe, database):
    def spoil(semantics):
        semantics[2:5, :, 0] = OCC3D_CLASSES.index("terrain")  # wrong ground
        semantics[:, 3, 2] = OCC3D_CLASSES.index("manmade")  # a wall too many
        return semantics

    report = evaluate(recipe, Oracle(database, spoil), split="train", every=3)
    labels = list(labels_of(database, database.tokens("train")[::3]))
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
        assert report.metrics["miou"][name] == pytest.approx(np.mean(per_class))
        a, b = t != 17, p != 17
        assert report.metrics["geometric_iou"][name] == pytest.approx((a & b).sum() / (a | b).sum())
        a, b = a & ~np.isin(t, flat), b & ~np.isin(p, flat)
        assert report.metrics["geometric_iou_above_ground"][name] == pytest.approx((a & b).sum() / (a | b).sum())
        assert report.metrics["mask_share"][name] == pytest.approx(mask.mean())
        assert report.metrics["occupied_share"][name] == pytest.approx((t != 17).mean())
    assert report.miou == report.metrics["miou"]["camera"]
    assert 0 < report.ray_iou < 1


def test_shares_of_processes_add_up_to_the_whole(database):
    tokens = database.tokens("all")
    oracle = Oracle(database, lambda s: np.roll(s, 1, axis=0))
    whole, parts = Scores(database, True), [Scores(database, True) for _ in range(2)]
    for i, (token, labels) in enumerate(zip(tokens, labels_of(database, tokens), strict=True)):
        answer = oracle(type("B", (), {"tokens": [token]})())[0]
        whole.add(answer, labels)
        parts[i % 2].add(answer, labels)
    merged = Scores(database, True)
    for index, metric in enumerate(merged._all()):
        metric.load_state({k: parts[0]._all()[index].state[k] + parts[1]._all()[index].state[k] for k in metric.state})
    merged.shares = parts[0].shares + parts[1].shares
    assert merged.compute()["miou"] == whole.compute()["miou"]
    assert merged.compute()["occupied_share"] == whole.compute()["occupied_share"]


def test_a_network_beats_the_prior_and_itself_in_the_dark(recipe, database, tmp_path):
    recipe = apply(recipe, ["train.steps=60", "train.batch_size=2", "train.checkpoint_every=100"])
    network = train(recipe, tmp_path).model
    trained = evaluate(recipe, network, database=database)
    dark = evaluate(recipe, network, black=True, name="black")
    prior = evaluate(recipe, BlindPrior.fit(database, "train", grid=toy.GRID), name="prior")
    assert trained.miou > 0.9
    assert trained.miou > prior.miou
    assert trained.miou > dark.miou
    assert (trained.images, dark.images, prior.images) == ("as they are", "black", "none")
    table = compare([trained, prior, dark])
    assert [row[0] for row in table.rows] == ["toy", "prior", "black"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    for table in (figures_table(trained), trained.class_table()):
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert len(trained.class_table().rows) == 18
    two = evaluate(apply(recipe, ["eval.batch_size=3", "eval.ray_iou=false"]), network)
    assert two.metrics["miou"] == trained.metrics["miou"]
    assert two.metrics["ray_iou"] is None
    assert percent(None) == "-"


def test_kept_reports_belong_to_their_weights(recipe, database, tmp_path):
    network = toy.ToyConfig().build()
    reports = [
        evaluate(recipe, network, database=database, progress=False),
        evaluate(recipe, Oracle(database), name="no images", database=database, progress=False),
        evaluate(recipe, network, black=True, database=database, progress=False),
    ]
    assert [report.weights for report in reports] == [digest(network), None, digest(network)]
    assert read_reports(tmp_path, digest(network)) == []
    write_reports(tmp_path, reports)
    assert [report.name for report in read_reports(tmp_path, digest(network))] == [report.name for report in reports]
    assert read_reports(tmp_path, digest(toy.ToyConfig().build())) == [], "numbers of other weights"
    with torch.no_grad():
        network.head.bias[0] += 1
    write_reports(tmp_path, [evaluate(recipe, network, database=database, progress=False)])
    assert [report.images for report in read_reports(tmp_path, digest(network))] == ["as they are", "none"], "black images are stale"


def test_black_is_black_before_normalisation(recipe):
    from frustum.engine.feed import evaluation_batches

    database = open_database(recipe.data)
    batch = next(evaluation_batches(recipe, database, database.tokens("val")))
    dark = black_images(batch, recipe.data)
    raw = dark.images.movedim(3, -1) * torch.tensor(recipe.data.std) + torch.tensor(recipe.data.mean)
    assert dark.images.shape == batch.images.shape
    assert raw.abs().max() < 1e-4
    predictor = NetworkPredictor(toy.ToyConfig().build(), recipe.runtime, black=True, data=recipe.data)
    first, second = predictor(batch)[0], predictor(dark)[0]
    assert torch.equal(first.semantics, second.semantics)


def test_missing_labels_and_other_grids_are_named(recipe, database, tmp_path):
    bare = toy.write_database(tmp_path / "bare", labels=False)
    with pytest.raises(DataError, match="no occupancy labels"):
        evaluate(toy.recipe(bare), toy.ToyConfig().build())
    part = toy.write_database(tmp_path / "part")
    lost = open_database(toy.recipe(part).data).tokens("val")[1]
    labels_path(part, "scene-0003", lost).unlink()
    for size in (1, 2, 4):
        with pytest.raises(DataError, match=f"{lost} has no occupancy labels"):
            evaluate(apply(toy.recipe(part), [f"eval.batch_size={size}"]), toy.ToyConfig().build(), progress=False)
    with pytest.raises(DataError, match="no occupancy labels"):
        BlindPrior.fit(open_database(toy.recipe(bare).data), "train", grid=toy.GRID)
    with pytest.raises(ShapeError):
        evaluate(recipe, Oracle(database, lambda s: s[:5]))
    with pytest.raises(DataError, match="shape"):
        BlindPrior.fit(open_database(recipe.data), "train")
    with pytest.raises(DataError, match="vall"):
        evaluate(recipe, Oracle(database), split="vall")


def test_the_prior_is_the_most_common_answer(database):
    prior = BlindPrior.fit(database, "train", grid=toy.GRID)
    stack = np.stack([l.semantics for l in labels_of(database, database.tokens("train"))])
    mask = np.stack([l.mask_camera for l in labels_of(database, database.tokens("train"))]) > 0
    votes = np.stack([((stack == c) & mask).sum(0) for c in range(18)], -1)
    expected = np.where(votes.sum(-1) > 0, votes.argmax(-1), 17)
    counts = count_classes(database, database.tokens("train"), toy.GRID)
    assert np.array_equal(counts.reshape(*toy.GRID.shape, 18), votes)
    assert np.array_equal(most_likely(counts, 0.0).reshape(toy.GRID.shape), expected)
    frequency = votes.sum((0, 1, 2)) / votes.sum()
    weight = np.divide(1, np.sqrt(frequency), out=np.zeros(18), where=frequency > 0)
    balanced = np.where(votes.sum(-1) > 0, (votes * weight).argmax(-1), 17)
    assert np.array_equal(most_likely(counts, 0.5).reshape(toy.GRID.shape), balanced)
    assert set(prior.train_miou) == set(VARIANTS)
    assert prior.train_miou[prior.variant] == max(prior.train_miou.values())
    report = evaluate(toy.recipe(database.root), prior, split="train")
    assert report.miou == pytest.approx(prior.train_miou[prior.variant])


def test_statistics_count_heights_and_are_cached(database, tmp_path, monkeypatch):
    found = class_statistics(database, "train", cache=tmp_path)
    labels = list(labels_of(database, database.tokens("train")))
    for z in range(toy.Z):
        for c in (11, 15, 17):
            assert found.counts[z, c] == sum(int(((l.semantics == c) & (l.mask_camera > 0))[:, :, z].sum()) for l in labels)
    assert found.counts.dtype == np.int64
    assert found.frames == 8
    monkeypatch.setattr("frustum.engine.statistics.labels_of", lambda *a: pytest.fail("read again"))
    assert np.array_equal(class_statistics(database, "train", cache=tmp_path).counts, found.counts)
    monkeypatch.undo()
    assert class_statistics(database, "val", cache=tmp_path).frames == 4, "another split must not take the cached counts"
    (tmp_path / "statistics.npz").write_bytes(b"damaged")
    assert np.array_equal(class_statistics(database, "train", cache=tmp_path).counts, found.counts)


def test_spread_takes_ends_and_even_steps():
    assert spread(list("abcdefg"), 3) == ["a", "d", "g"]
    assert spread(list("ab"), 3) == ["a", "b"]
