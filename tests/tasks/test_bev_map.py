"""Maps from above, scored by the rule that a prediction names."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from frustum.data.labels.bev_map import as_map, vehicle_label
from frustum.data.nuscenes.reader import NuScenes
from frustum.errors import ConfigError, DataError
from frustum.geometry import VoxelGrid
from frustum.metrics.bev_iou import BevIoU
from frustum.tasks.bev_map import BevMapTask
from frustum.types.predictions import PredictedMap
from tests.data.toy import VERSION, toy_database

GRID = VoxelGrid(lower=(-50.0, -50.0, -5.0), upper=(50.0, 50.0, 3.0), cell=(0.5, 0.5, 8.0))
RULES = ("lss", "pointbev", "cvt", "simplebev")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return NuScenes(toy_database(tmp_path_factory.mktemp("toy")), VERSION)


def perfect(task: BevMapTask, source: NuScenes, token: str, names: tuple[str, ...] = ("vehicle",), rule: str = "lss") -> PredictedMap:
    classes = task.truth(source, token).drawn(names, rule).classes
    return PredictedMap(torch.where(torch.from_numpy(classes), 1.0, -1.0), GRID, names, rule)


@pytest.mark.parametrize("rule", RULES)
def test_figures_are_those_of_the_metric(toy, rule):
    """A map that lies a metre too far ahead, in two parts and in one."""
    tokens = toy.tokens("all")
    whole, parts, metric, every = BevMapTask(tokens), [BevMapTask(tokens) for _ in range(2)], BevIoU(rule), BevIoU(rule, None)
    for i, token in enumerate(tokens):
        label = vehicle_label(toy.sample(token), rule)
        mask, visibility = as_map(label.mask, rule), as_map(label.visibility, rule)
        logits = torch.from_numpy(np.where(np.roll(mask, 2, 1), 3.0, -3.0))
        for task in (whole, parts[i % 2]):
            task.add(token, PredictedMap(logits[None], GRID, ("vehicle",), rule), task.truth(toy, token))
        metric.add(logits, mask, visibility)
        every.add(logits, mask)
    found, expected = whole.compute(), metric.compute()
    assert 0 < found["miou"] < 1
    assert found["class_iou"] == {"vehicle": expected["iou"]}
    assert found["class_iou_all"] == {"vehicle": every.compute()["iou"]}
    assert found["image_mean"] == {"vehicle": expected["image_mean"]}
    assert found["at"] == {"vehicle": expected["at"]}
    assert ("vehicle IoU at 0.40" in [f.name for f in BevMapTask.figures(found)]) == (rule == "cvt")
    assert found["counts"]["vehicle"] == {key: expected[key][-1] for key in ("tp", "fp", "fn")}
    assert (found["rule"], found["min_visibility"]) == (rule, expected["min_visibility"])
    assert found == parts[0].merge(parts[1]).compute() == BevMapTask(tokens).merge(whole).compute()
    figures = BevMapTask.figures(found)
    assert figures[0].value == expected["iou"]
    assert f"rule {rule}" in figures[0].convention
    assert [f.counted for f in figures if f.name == "vehicle IoU"] == (
        ["all cells"] if rule == "lss" else ["background, and objects of visibility 2 and more", "all cells"]
    )
    assert set(BevMapTask.protocol) <= set(found)
    assert bool(BevMapTask.notes(found)) == (rule == "simplebev")
    assert BevMapTask.classes(found) is None
    json.dumps(found)


def test_rows_of_a_map_run_along_y(toy):
    """The car of the first keyframe is 15 m ahead and 3 m to the left; the front camera stands 1.7 m ahead."""
    token = toy.tokens("train")[0]
    for rule in RULES:
        rows, columns = np.nonzero(BevMapTask().truth(toy, token).drawn(("vehicle",), rule).classes[0])
        assert 0.5 * (columns.mean() + 0.5) - 50 == pytest.approx(15 - 1.7 * (rule == "simplebev"), abs=0.9)
        assert 0.5 * (rows.mean() + 0.5) - 50 == pytest.approx(3, abs=0.9)


def test_roads_are_scored_where_they_are_known(street_root):
    source, names = NuScenes(street_root), ("vehicle", "drivable_area", "walkway")
    token, task = source.tokens("val")[0], BevMapTask()
    true, part = task.truth(source, token), perfect(task, source, token, names)
    known = torch.from_numpy(true.drawn(names, "lss").counts[1])
    logits = part.logits.clone()
    logits[1:] = logits[1:].where(known, 9.0)  # what is said of unknown places is not held against it
    task.add(token, replace(part, logits=logits), true)
    found = task.compute()
    assert found["class_iou"] == {"vehicle": 1, "drivable_area": 1, "walkway": 1}
    assert [f.name for f in BevMapTask.figures(found) if f.is_headline] == ["vehicle IoU", "drivable_area IoU", "walkway IoU"]
    assert BevMapTask.figures(found)[-1].name == "map mIoU"
    (shown,), (beyond,) = BevMapTask.layers(part), BevMapTask.truth_layers(true, part)
    assert (beyond.labels[~known.numpy() & (shown.labels == 3)] == 255).all(), "what is not known is not drawn as free"
    np.testing.assert_array_equal(beyond.labels[known.numpy()], shown.labels[known.numpy()])
    table = BevMapTask.classes(found)
    assert table is not None
    assert table.means == {"IoU": 1}


def test_what_cannot_be_scored_is_named(toy):
    token = toy.tokens("train")[0]
    task = BevMapTask()
    truth, part = task.truth(toy, token), perfect(task, toy, token)
    with pytest.raises(DataError, match=r"labels are drawn on 100 m x 100 m in cells of 0.5 m \(200 x 200\)"):
        task.add(token, replace(part, grid=VoxelGrid.occ3d()), truth)
    with pytest.raises(DataError, match="unknown map layer 'kerb'"):
        BevMapTask().add(token, replace(part, class_names=("kerb",)), truth)
    with pytest.raises(ConfigError, match="unknown rule 'point' of a map; did you mean 'pointbev'"):
        truth.drawn(("vehicle",), "point")
    task.add(token, part, truth)
    with pytest.raises(DataError, match="follows the rule 'cvt', but others 'lss': predict all of them in one way"):
        task.add(token, replace(part, rule="cvt"), truth)
    with pytest.raises(DataError, match="has the classes pedestrian, but vehicle are evaluated"):
        task.add(token, replace(part, class_names=("pedestrian",)), truth)
    other = BevMapTask()
    other.add(token, replace(part, rule="pointbev"), truth)
    with pytest.raises(ConfigError, match="cannot merge evaluations of other rule: lss and pointbev"):
        task.merge(other)


def test_files_and_layers(toy, tmp_path):
    token, task = toy.tokens("train")[0], BevMapTask()
    truth, part = task.truth(toy, token), perfect(task, toy, token, rule="pointbev")
    again = BevMapTask.load(BevMapTask.save(part, tmp_path, "token"))
    assert torch.equal(again.logits, part.logits)
    assert (again.grid, again.class_names, again.rule) == (GRID, ("vehicle",), "pointbev")
    arrays = {key: value for key, value in BevMapTask.arrays(part).items() if key != "rule"}
    assert BevMapTask.restored(arrays).rule == "lss", "as files of before rules were named"
    (layer,), (true,), (alone,) = BevMapTask.layers(part), BevMapTask.truth_layers(truth, part), BevMapTask.truth_layers(truth)
    np.testing.assert_array_equal(layer.labels, true.labels)
    assert (layer.free, layer.legend) == (1, true.legend)
    assert set(np.unique(layer.labels)) == {0, 1}
    assert alone.labels.shape == (200, 200)


def test_the_first_class_of_a_cell_is_drawn():
    logits = torch.full((2, 200, 200), -1.0)
    logits[1, :, :20] = 1
    logits[0, :, 10:20] = 0.5  # a vehicle on the road
    (layer,) = BevMapTask.layers(PredictedMap(logits, GRID, ("vehicle", "drivable_area")))
    assert [int(layer.labels[0, x]) for x in (0, 15, 30)] == [1, 0, 2]
