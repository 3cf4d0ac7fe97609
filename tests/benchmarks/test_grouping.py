"""The ways of grouping that the claim compares, on volumes where the answer is known, and the results that are not made twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.claims import grouping, history, panoptic_flashocc
from benchmarks.claims.tasks import Tasks
from frustum.engine import overrides
from frustum.geometry import VoxelGrid
from frustum.nn.centre_head import decode_centres
from frustum.nn.instances import InstanceConfig, panoptic_predictions
from frustum.recipes.finding import get_recipe
from frustum.types.classes import OCC3D_CLASSES
from frustum.types.predictions import PredictedOccupancy, Prediction
from tests.models.golden_panoptic import same_partition

GRID = VoxelGrid(lower=(-8, -8, -1), upper=(8, 8, 1), cell=(0.5, 0.5, 0.5))  # 32 x 32 x 4
CAR, BUS, PERSON = (OCC3D_CLASSES.index(name) for name in ("car", "bus", "pedestrian"))


def street() -> tuple[Prediction, torch.Tensor, torch.Tensor]:
    """Two cars that touch, a bus and a pedestrian beside it; their boxes."""
    semantics = torch.full(GRID.shape, 17, dtype=torch.uint8)
    semantics[..., 0] = 11
    semantics[2:10, 4:8, 1:3], semantics[10:18, 4:8, 1:3] = CAR, CAR
    semantics[4:28, 16:22, 1:4] = BUS
    semantics[15:17, 22:24, 1:4] = PERSON
    rows = [(-5.1, -4.9, 0.1, 4, 2, 1), (-0.9, -4.9, 0.1, 4, 2, 1), (0.1, 1.6, 0.2, 12, 3, 1.5), (0.1, 3.6, 0.2, 1, 1, 1.5)]
    boxes = torch.tensor([[*row, 0, 0, 0] for row in rows], dtype=torch.float32)
    return Prediction("street", PredictedOccupancy(semantics, GRID, OCC3D_CLASSES)), boxes, torch.tensor([0, 0, 3, 8])


def test_components_merge_what_touches():
    found, _, _ = street()
    numbers = grouping.components(found.occupancy.semantics)
    objects = numbers[numbers >= 18].unique()
    assert len(objects) == 3, "the two cars are one"
    assert len(numbers[found.occupancy.semantics == CAR].unique()) == 1
    assert (numbers[found.occupancy.semantics == 11] == 11).all()


def test_centres_without_classes_cross_over():
    """The pedestrian beside the bus takes the ends of nothing, but the bus loses voxels to the pedestrian's centre."""
    found, boxes, classes = street()
    outputs = grouping.perfect_outputs(boxes, classes, GRID)
    numbers = grouping.nearest_of_any_class(found, outputs, InstanceConfig(), GRID)
    assert len(numbers[found.occupancy.semantics == BUS].unique()) > 1
    own = panoptic_predictions([found], outputs, InstanceConfig(), GRID)[0].occupancy.instances
    assert len(own[found.occupancy.semantics == BUS].unique()) == 1
    assert len(own[found.occupancy.semantics == CAR].unique()) == 2


def test_perfect_outputs_give_the_boxes_back():
    _, boxes, classes = street()
    centres = decode_centres(grouping.perfect_outputs(boxes, classes, GRID), GRID)
    found = centres.scores[0] > 0.9
    assert sorted(centres.classes[0, found].tolist()) == sorted(classes.tolist())
    for row, kind in zip(boxes, classes, strict=True):
        distance = (centres.points[0, found] - row[:3]).norm(dim=1)[centres.classes[0, found] == kind]
        assert distance.min() < 1e-4


def test_true_centres_and_perfect_centres_agree():
    found, boxes, classes = street()
    perfect = panoptic_predictions([found], grouping.perfect_outputs(boxes, classes, GRID), InstanceConfig(), GRID)[0]
    assert same_partition(perfect.occupancy.instances.numpy(), grouping.nearest_true_centre(found, boxes, classes).numpy())


def test_every_grouping_of_labelled_frames_is_scored(street_root):
    settings = [f"data.root={street_root}", "eval.every=3"]
    figures = grouping.score_truth(overrides.apply(get_recipe("panoptic-flashocc-mini"), settings))
    assert figures["miou"] == 1.0
    assert set(figures["groupings"]) == set(grouping.GROUPINGS)
    rays = {name: found["raypq_things"] for name, found in figures["groupings"].items()}
    assert rays["centres"] > 0.9
    assert rays["centres"] > rays["one_per_class"]
    assert rays["true_centres"] >= rays["centres"] - 0.05


def test_settings_of_the_variants():
    options = panoptic_flashocc.parse(["--steps", "7", "--world", "w", "optim.lr=0.01"])
    panoptic, semantic, long = (panoptic_flashocc.recipe_of(v, 2, options) for v in ("panoptic", "semantic", "history2"))
    assert (panoptic.train.steps, panoptic.train.seed, panoptic.data.root, panoptic.optim.lr) == (7, 2, "w", 0.01)
    assert panoptic.model.instances is not None
    assert semantic.model.instances is None
    assert (long.model.history.frames, panoptic.model.history.frames) == (2, 0)
    assert panoptic_flashocc.recipe_of("history0", 0, options) == panoptic_flashocc.recipe_of("panoptic", 0, options)


def test_a_history_longer_than_the_scenes_is_refused(capsys):
    with pytest.raises(SystemExit):
        panoptic_flashocc.parse(["--history", "8", "--frames", "8"])
    assert "scenes of at least 9 keyframes" in capsys.readouterr().err


def test_results_of_another_length_are_not_taken_for_these(tmp_path, monkeypatch):
    (tmp_path / "world/v1.0-trainval").mkdir(parents=True)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/train+panoptic+0.json").write_text('{"steps": 6000}')
    monkeypatch.setattr("sys.argv", ["panoptic_flashocc.py", "--steps", "2000", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="results of 6000 steps, not 2000: give another --out"):
        panoptic_flashocc.main()


def test_late_frames_have_a_full_history(street_root):
    database = get_recipe("panoptic-flashocc-mini").data.model_copy(update={"root": str(street_root)}).open()
    tokens = database.tokens("val")
    scenes: dict[str, list[str]] = {}
    for token in tokens:
        scenes.setdefault(database.sample(token, occupancy=False).scene, []).append(token)
    assert history.late_frames(database, tokens, 2) == {token for scene in scenes.values() for token in scene[2:]} != set()
    assert history.late_frames(database, tokens, 0) == set(tokens)


def test_history_is_scored_on_all_and_on_late_frames(street_root):
    recipe = overrides.apply(get_recipe("panoptic-flashocc-mini"), [f"data.root={street_root}", *history.settings("history1")])
    figures = history.score(recipe, recipe.model.build(), longest=2)
    assert set(history.KEYS) < set(figures)
    assert set(figures["late"]) == set(history.KEYS)
    assert 0 < figures["late_frames"] < len(recipe.data.open().tokens("val"))
    assert all(0 <= figures[key] < 0.3 for key in history.KEYS)  # random weights


def test_gains_of_history_are_taken_seed_by_seed():
    def run(value: float) -> dict:
        figures = dict.fromkeys(history.KEYS, value)
        return {**figures, "late": {key: 2 * v for key, v in figures.items()}}

    table = history.collect({"history0": [run(0.1), run(0.2)], "history8": [run(0.2), run(0.4)]})["history"]
    found = table["history8"]["late"]["miou"]
    assert found["values"] == [0.4, 0.8]
    assert found["gain"]["values"] == pytest.approx([0.2, 0.4])
    assert table["history0"]["all"]["raypq"]["gain"]["mean"] == 0


def test_results_are_made_once(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(
        "import json, sys\nfrom pathlib import Path\ntask = sys.argv[-1]\nassert task != 'bad', 'it broke'\n"
        "path = Path(sys.argv[1]) / 'results' / (task + '.json')\npath.parent.mkdir(exist_ok=True)\n"
        "path.write_text(json.dumps({'n': len(task)}))\n"
    )
    monkeypatch.setattr(sys, "argv", ["script.py", str(tmp_path)])
    tasks = Tasks(script, Path(tmp_path))
    tasks.make(["one", "three"], jobs=2)
    assert tasks.read("three") == {"n": 5}
    tasks.path("one").write_text(json.dumps({"n": 100}))
    tasks.make(["one", "three"])
    assert tasks.read("one") == {"n": 100}
    tasks.forget(["one"])
    tasks.make(["one"])
    assert tasks.read("one") == {"n": 3}
    with pytest.raises(SystemExit, match="it broke"):
        tasks.make(["bad"])
