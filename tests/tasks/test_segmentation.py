"""Segmentation of images, as the metric has it; and what is drawn and written of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from frustum.errors import DataError, ShapeError
from frustum.metrics.semantic_iou import SemanticIoU
from frustum.tasks.occupancy import OccupancyTask
from frustum.tasks.segmentation import SegmentationTask
from frustum.types.layers import Legend
from frustum.types.predictions import PredictedSegmentation

NAMES = ("road", "car", "sky")


def images(names=NAMES):
    """A source of three label images."""
    rng = np.random.default_rng(0)
    volumes = {f"image-{i}": rng.choice([0, 1, 2, 255], (8, 9)).astype(np.uint8) for i in range(3)}
    return SimpleNamespace(root=Path("images"), labels=volumes.get, class_names=names), list(volumes)


def guess(seed):
    return PredictedSegmentation(torch.from_numpy(np.random.default_rng(seed).integers(0, 3, (8, 9)).astype(np.uint8)), NAMES)


def test_figures_are_those_of_the_metric():
    source, tokens = images()
    whole, parts, metric = SegmentationTask(tokens), [SegmentationTask(tokens) for _ in range(2)], SemanticIoU(3)
    for i, token in enumerate(tokens):
        truth = whole.truth(source, token)
        whole.add(token, guess(i), truth)
        parts[i % 2].add(token, guess(i), truth)
        metric.add(guess(i).labels, truth.labels)
    expected, found = metric.compute(), whole.compute()
    assert (found["miou"], found["accuracy"]) == (expected["miou"], expected["accuracy"])
    assert found["class_iou"] == dict(zip(NAMES, expected["per_class"], strict=True))
    assert sum(found["class_share"].values()) == pytest.approx(1)
    assert parts[0].merge(parts[1]).compute() == found
    assert (found["mean_accuracy"], list(found["class_accuracy"].values())) == (expected["mean_accuracy"], expected["class_accuracy"])
    figures = {f.name: f.value for f in SegmentationTask.figures(found)}
    assert figures == {"mIoU": found["miou"], "pixel accuracy": found["accuracy"], "mean accuracy": found["mean_accuracy"]}
    older = {name: value for name, value in found.items() if name not in ("mean_accuracy", "class_accuracy")}
    assert len(SegmentationTask.figures(older)) == 2
    assert list(SegmentationTask.classes(older).columns) == ["IoU"]
    assert SegmentationTask.classes(found).legend.names == NAMES
    assert set(SegmentationTask.protocol) <= set(found)


def test_what_does_not_fit_is_named():
    source, (token, *_) = images()
    task = SegmentationTask()
    with pytest.raises(DataError, match="sample nowhere of images has no label image"):
        task.truth(source, "nowhere")
    with pytest.raises(DataError, match="has no label image to compare with"):
        task.truth(SimpleNamespace(root=Path("rigs")), token)
    truth = task.truth(source, token)
    with pytest.raises(ShapeError, match=r"has \(4, 9\) pixels, but its labels have \(8, 9\)"):
        task.add(token, PredictedSegmentation(guess(0).labels[:4], NAMES), truth)
    with pytest.raises(DataError, match="predicts the classes road, car, sky, but the labels have sea, land"):
        SegmentationTask().add(token, guess(0), SegmentationTask().truth(images(("sea", "land"))[0], token))


def test_files_and_layers(tmp_path):
    source, (token, *_) = images(())
    part = guess(0)
    path = SegmentationTask.save(part, tmp_path, token)
    assert path.name == "image-0.segmentation.png"
    again = SegmentationTask.load(path)
    assert torch.equal(again.labels, part.labels)
    assert again.class_names == NAMES
    with pytest.raises(DataError, match=r"cannot read the image .*nowhere.* It is not a prediction of `frustum predict`"):
        SegmentationTask.load(tmp_path / "nowhere.png")
    truth = SegmentationTask().truth(source, token)
    (layer,), (true,) = SegmentationTask.layers(part), SegmentationTask.truth_layers(truth, part)
    assert layer.legend == true.legend
    assert len(set(layer.legend.colours)) == 3
    assert SegmentationTask.truth_layers(truth) == [], "without names there are no colours"


def test_predictions_are_label_maps_to_look_at(tmp_path):
    part = PredictedSegmentation(torch.tensor([[0, 1, 255], [2, 2, 0]], dtype=torch.uint8), NAMES)
    path = SegmentationTask.save(part, tmp_path, "image-0", "a scene")
    with Image.open(path) as image:
        assert image.mode == "P"
        assert np.asarray(image).tolist() == part.labels.tolist()
        colours = np.asarray(image.convert("RGB"))
    assert [tuple(pixel) for pixel in colours[0]] == [*Legend.of(NAMES).colours[:2], (0, 0, 0)]
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "other.segmentation.png")
    with pytest.raises(DataError, match="it does not name its sample and classes"):
        SegmentationTask.load(tmp_path / "other.segmentation.png")


def test_label_maps_of_others(tmp_path):
    source, tokens = images()
    for token in tokens:
        Image.fromarray(source.labels(token)).save(tmp_path / f"{token}.png")
    assert OccupancyTask.recognise(tmp_path) is None
    found, task = SegmentationTask.recognise(tmp_path), SegmentationTask()
    assert found.tokens == tokens
    for token in tokens:
        task.add(token, found.answer(token).segmentation, task.truth(source, token))
    assert task.compute()["miou"] == 1
    with pytest.raises(DataError, match="neither the prediction of image-0 nor the data set names the classes"):
        SegmentationTask().add(tokens[0], found.answer(tokens[0]).segmentation, task.truth(images(())[0], tokens[0]))
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert SegmentationTask.recognise(tmp_path) is None, "a picture"
    assert SegmentationTask.recognise(tmp_path / "nowhere") is None
