"""Submission files: written, read back, refused when something is wrong."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frustum.data.nuscenes.detection_results import MODALITIES, is_detection_file, read_detections, write_detections
from frustum.errors import DataError
from frustum.types.boxes import DetectionBoxes


def boxes(num: int = 3, seed: int = 0) -> DetectionBoxes:
    rng = np.random.default_rng(seed)
    rotations = rng.normal(size=(num, 4))
    return DetectionBoxes(
        labels=rng.integers(0, 10, num),
        centres=rng.normal(0, 500, (num, 3)),
        sizes=rng.uniform(0.3, 9, (num, 3)),
        rotations=rotations / np.linalg.norm(rotations, axis=1, keepdims=True),
        velocities=np.where(np.arange(num)[:, None] == 1, np.nan, rng.normal(size=(num, 2))),
        attributes=rng.integers(-1, 8, num),
        scores=rng.random(num),
        num_points=np.full(num, -1),
    )


def entry(**change: Any) -> dict[str, Any]:
    """A good box, or one with a few fields changed; the value None leaves a field out."""
    good = {
        "sample_token": "t", "translation": [1.0, 2.0, 3.0], "size": [2.0, 4.0, 1.5], "rotation": [1.0, 0.0, 0.0, 0.0],
        "velocity": [0.5, 0.0], "detection_name": "car", "detection_score": 0.5, "attribute_name": "vehicle.moving",
    }  # fmt: skip
    return {key: value for key, value in (good | change).items() if value is not None}


def submission(path: Path, *entries: dict[str, Any], **members: Any) -> Path:
    path.write_text(json.dumps({"meta": dict.fromkeys(MODALITIES, False), "results": {"t": list(entries)}} | members))
    return path


def test_written_and_read_back_to_the_last_bit(tmp_path: Path) -> None:
    given = {"b": boxes(3), "a": DetectionBoxes.empty(), "c": boxes(500, 1)}
    write_detections(tmp_path / "deep" / "out.json", given, {"use_lidar": True})
    found = read_detections(tmp_path / "deep" / "out.json")
    assert list(found.boxes) == ["b", "a", "c"], "the order of the file is kept"
    assert found.meta == {"use_camera": True, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}
    for token, expected in given.items():
        for field in fields(DetectionBoxes):
            np.testing.assert_array_equal(getattr(found.boxes[token], field.name), getattr(expected, field.name))


def test_the_file_is_what_nuscenes_wants(tmp_path: Path) -> None:
    one = replace(boxes(1), labels=np.array([8]), sizes=np.array([[4.0, 2.0, 1.0]]), attributes=np.array([-1]), scores=np.array([1]))
    write_detections(tmp_path / "out.json", [("t", one)])
    content = json.loads((tmp_path / "out.json").read_text())
    assert set(content) == {"meta", "results"}
    assert set(content["meta"]) == set(MODALITIES)
    (box,) = content["results"]["t"]
    assert set(box) == set(entry())
    assert (box["size"], box["detection_name"], box["attribute_name"]) == ([2.0, 4.0, 1.0], "pedestrian", "")
    assert type(box["detection_score"]) is float
    assert [len(box[name]) for name in ("translation", "rotation", "velocity")] == [3, 4, 2]


def test_whole_numbers_and_unknown_velocities_are_read(tmp_path: Path) -> None:
    path = submission(
        tmp_path / "in.json",
        entry(translation=[1, 2, 3], detection_score=1, velocity=[None, None]),
        entry(velocity=[float("nan"), float("nan")]),
    )
    found = read_detections(path).boxes["t"]
    assert found.scores.tolist() == [1.0, 0.5]
    assert found.centres.dtype == np.float64
    assert found.sizes.tolist() == [[4, 2, 1.5]] * 2, "length first"
    assert np.isnan(found.velocities).all()


def test_any_order_and_spacing(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text('\ufeff\n{ "note": [1, {"results": {}}],"results" :\n{ } , "meta":{}}  \n', encoding="utf-8")
    assert read_detections(path).boxes == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"translation": None}, "box 1 of sample t has no 'translation'"),
        ({"attribute_name": None}, "has no 'attribute_name'"),
        ({"sample_token": "u"}, "says that it belongs to sample 'u'"),
        ({"detection_name": "cars"}, "unknown class 'cars'; did you mean 'car'"),
        ({"detection_name": 4}, "unknown class 4"),
        ({"attribute_name": "parked"}, "unknown attribute 'parked'; did you mean 'vehicle.parked'"),
        ({"translation": [1.0, 2.0]}, "'translation' must be a list of 3 numbers, finite, of at most 40,000,000; got [1.0, 2.0]"),
        ({"size": [1.0, float("nan"), 2.0]}, "'size' must be a list of 3 numbers"),
        ({"size": [1.0, 0.0, 2.0]}, "'size' must be above 0"),
        ({"rotation": [0, 0, 0, 0]}, "'rotation' must be a quaternion"),
        ({"rotation": [1, 0, 0, float("inf")]}, "'rotation' must be a list of 4 numbers"),
        ({"velocity": [float("inf"), 0]}, "'velocity' must be a list of 2 numbers, finite, of at most 40,000,000, or NaN where unknown"),
        ({"velocity": ["a", 0]}, "'velocity' must be"),
        ({"velocity": 3.0}, "'velocity' must be"),
        ({"detection_score": float("nan")}, "'detection_score' must be a number, finite, of at most 40,000,000; got nan"),
        ({"detection_score": "0.5"}, "got '0.5'"),
        ({"detection_score": [0.5]}, "'detection_score' must be a number"),
        ({"detection_score": True}, "'detection_score' must be a number"),
    ],
)
def test_a_bad_box_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = submission(tmp_path / "in.json", entry(), entry(**change))
    with pytest.raises(DataError) as caught:
        read_detections(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'{' is needed at character 0, where there is 'the end of the file'"),
        ("[]", "'{' is needed at character 0, where there is '['"),
        ('{"meta": {}, "results": []}', "'{' is needed at character 24"),
        ('{"meta": {}}', 'no object "results"'),
        ('{"results": {}}', 'no object "meta"'),
        ('{"results": {}, "meta": 3}', 'no object "meta"'),
        ('{"meta": {}, "results": {"a": [}}', "Expecting value"),
        ('{"meta": {}, "results": {"a": []', "',' or '}' is needed"),
        ('{"meta": {}, "results": {"a" []}}', "':' is needed"),
        ('{"meta": {}, "results": {3: []}}', "a key is not text"),
        ('{"meta": {}, "results": {}} {', "something follows the end"),
        ('{"meta": {}, "results": {"a": 3}}', "sample a must be a list of boxes"),
        ('{"meta": {}, "results": {"a": [3]}}', "sample a must be a list of boxes"),
        ('{"meta": {}, "results": {"a": [], "a": []}}', "holds sample a twice"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "in.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_detections(path)
    assert words in str(caught.value)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_detections(tmp_path / "nowhere.json")
    (tmp_path / "binary.json").write_bytes(b"\x80\x04\x95\xff")
    with pytest.raises(DataError, match="is not text"):
        read_detections(tmp_path / "binary.json")


def test_too_many_boxes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sample t has 501 boxes; nuScenes allows 500"):
        read_detections(submission(tmp_path / "in.json", *[entry()] * 501))
    with pytest.raises(DataError, match="sample s has 501 boxes"):
        write_detections(tmp_path / "out.json", {"s": boxes(501)})
    assert not (tmp_path / "out.json").exists()


def test_nothing_wrong_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with pytest.raises(DataError, match="given twice"):
        write_detections(out, [("a", boxes()), ("a", boxes())])
    with pytest.raises(DataError, match="translation is not finite"):
        write_detections(out, {"a": replace(boxes(1), centres=np.full((1, 3), np.nan))})
    with pytest.raises(DataError, match="no flag 'use_cameras'; did you mean 'use_camera'"):
        write_detections(out, {}, {"use_cameras": True})
    assert list(tmp_path.iterdir()) == [], "not even a temporary file"


def test_the_kind_of_file_is_told_from_its_start(tmp_path: Path) -> None:
    write_detections(tmp_path / "out.json", {})
    (tmp_path / "list.json").write_text("[1]")
    assert is_detection_file(tmp_path / "out.json")
    assert not is_detection_file(tmp_path / "list.json")
    assert not is_detection_file(tmp_path)
    assert not is_detection_file(tmp_path / "nowhere")
