"""The truth of a detection evaluation, as the tables state it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from frustum.data.nuscenes.detection_truth import RACK_CATEGORY, detection_truth
from frustum.data.nuscenes.reader import NuScenes
from frustum.errors import DataError
from tests.data.toy import VERSION, box2global, toy_database


def test_a_toy_keyframe(toy_root: Path) -> None:
    database = NuScenes(toy_root, VERSION)
    first, second, _ = database.tokens("val")
    truth = detection_truth(database, first)
    assert sorted(truth.boxes.names) == ["car", "traffic_cone"], "the animal is no class"
    (car,) = np.flatnonzero(truth.boxes.labels == 0)
    np.testing.assert_allclose(truth.boxes.centres[car], box2global(1, 0)[:3, 3])
    np.testing.assert_allclose(truth.boxes.sizes[car], [4.5, 1.9, 1.6])
    np.testing.assert_allclose(truth.boxes.yaws[car], 0.5)
    np.testing.assert_allclose(truth.boxes.velocities[car], [6, 2], atol=1e-6)
    assert truth.boxes.attribute_names[car] == "vehicle.moving"
    assert dict(zip(truth.boxes.names, truth.boxes.num_points.tolist(), strict=True)) == {"car": 12, "traffic_cone": 0}
    assert truth.boxes.scores.tolist() == [-1, -1]
    np.testing.assert_allclose(truth.ego2global, database.sample(first).ego2global)
    assert truth.rack_poses.shape == (0, 4, 4)
    assert detection_truth(database, second).boxes.attribute_names.count("") == 1, "cones have none"


def test_racks(synth: Path) -> None:
    """Every rack of the tables, in its keyframe, width and length swapped."""
    database = NuScenes(synth / "nuscenes_synth", "v1.0-mini")
    tables = {
        name: json.loads((synth / "nuscenes_synth" / "v1.0-mini" / f"{name}.json").read_text())
        for name in ("category", "instance", "sample_annotation")
    }
    rack = next(c["token"] for c in tables["category"] if c["name"] == RACK_CATEGORY)
    instances = {i["token"] for i in tables["instance"] if i["category_token"] == rack}
    rows = [a for a in tables["sample_annotation"] if a["instance_token"] in instances]
    assert rows
    for row in rows:
        truth = detection_truth(database, row["sample_token"])
        width, length, height = row["size"]
        at = np.flatnonzero((np.abs(truth.rack_poses[:, :3, 3] - row["translation"]) < 1e-9).all(1))
        assert [length, width, height] in truth.rack_sizes[at].tolist()
    assert sum(len(detection_truth(database, token).rack_poses) for token in database.tokens()) == len(rows)


def test_bad_tables(tmp_path: Path, toy_root: Path) -> None:
    with pytest.raises(DataError, match="no keyframe 'nowhere'"):
        detection_truth(NuScenes(toy_root, VERSION), "nowhere")
    root = toy_database(tmp_path / "world", num_scenes=1, num_keyframes=1)
    table = root / VERSION / "attribute.json"
    rows = json.loads(table.read_text())
    boxes = json.loads((root / VERSION / "sample_annotation.json").read_text())
    used = next(box["attribute_tokens"][0] for box in boxes if box["attribute_tokens"])
    next(row for row in rows if row["token"] == used)["name"] = "vehicle.flying"
    table.write_text(json.dumps(rows))
    database = NuScenes(root, VERSION)
    with pytest.raises(DataError, match=r"a box of keyframe .* has the attribute 'vehicle\.flying', .* Rename it in .*attribute\.json"):
        detection_truth(database, database.tokens()[0])


def test_an_attribute_that_no_box_uses_stops_nothing(tmp_path: Path) -> None:
    root = toy_database(tmp_path / "world", num_scenes=1, num_keyframes=1)
    before = detection_truth(database := NuScenes(root, VERSION), token := database.tokens()[0]).boxes
    table = root / VERSION / "attribute.json"
    table.write_text(json.dumps([{"token": "own", "name": "vehicle.flying", "description": ""}, *json.loads(table.read_text())]))
    after = detection_truth(NuScenes(root, VERSION), token).boxes
    assert before.attributes.tolist() == after.attributes.tolist()
    assert before.attribute_names == after.attribute_names
