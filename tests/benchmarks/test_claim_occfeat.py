"""OccFeat's claim: both sides have the same budget, labels and start; gains are counted seed by seed; two steps from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.claims import occfeat
from tests.benchmarks.test_claim_gsrender import varied

OPTIONS = occfeat.parse(["--world", "w", "--kitti", "k", "--steps", "7", "--tuning", "3", "4", "5"])


@pytest.mark.parametrize("network", occfeat.NETWORKS)
@pytest.mark.parametrize("data", ["street", "kitti"])
def test_trainings_with_labels_differ_in_where_they_start_alone(network: str, data: str) -> None:
    arms = occfeat.arms_of(network, OPTIONS)
    assert ("depth" in arms) == (network == "flashocc")
    recipes = [occfeat.recipe_of(occfeat.tuning(network, arm, 10, 2, OPTIONS, data), OPTIONS) for arm in arms]
    longer = recipes.pop(arms.index("longer"))
    assert varied([recipes[0], longer]) == {"train.steps"}
    assert longer.train.steps == 4 + 7
    assert varied(recipes) == {"train.init"}
    first = recipes[0]
    assert first.train.init is None
    assert (first.train.steps, first.train.seed) == (4, 2)
    assert (first.data.labelled_share, first.data.labelled_seed, first.data.labelled_only) == (0.1, 2, True)
    assert (first.data.root, first.data.labelled_by) == (("k", "keyframe") if data == "kitti" else ("w", "scene"))
    assert len({recipe.train.init for recipe in recipes}) == len(recipes)


def test_pretrainings_differ_in_what_is_learned_alone() -> None:
    for network in occfeat.NETWORKS:
        arms = [arm for arm in occfeat.arms_of(network, OPTIONS) if occfeat.ARMS[arm] is not None]
        recipes = {arm: occfeat.recipe_of(occfeat.pretraining(network, arm, 2, OPTIONS), OPTIONS) for arm in arms}
        allowed = {"model.feature_weight", "model.occupancy_weight", "model.teacher.kind", "model.teacher.scale"}
        assert varied([recipes["occupancy"], recipes["features"]]) == {"model.feature_weight"}
        assert varied(list(recipes.values())) <= allowed
        assert {recipe.train.steps for recipe in recipes.values()} == {7}
        assert {recipe.data.labelled_share for recipe in recipes.values()} == {1.0}


def test_names_change_with_what_made_them() -> None:
    one = occfeat.tuning("simplebev", "occupancy", 1, 0, OPTIONS)
    others = [
        occfeat.tuning("simplebev", "occupancy", 1, 0, occfeat.parse(["--world", "w", "--steps", "8"])),
        occfeat.tuning("simplebev", "none", 1, 0, OPTIONS),
        occfeat.tuning("bevformer", "occupancy", 1, 0, OPTIONS),
        occfeat.tuning("simplebev", "occupancy", 1, 0, OPTIONS, "kitti"),
    ]
    assert len({one, *others}) == 5
    assert occfeat.pretraining("simplebev", "occupancy", 0, OPTIONS) != occfeat.pretraining("simplebev", "features", 0, OPTIONS)
    assert len(occfeat.tunings(occfeat.parse(["--networks", "simplebev"]))) == (3 + 3 + 1) * 6, "three seeds of the small shares"
    several = occfeat.parse(["--pretrainings", "2", "--world", "w"])
    names = [occfeat.pretraining("simplebev", "occupancy", seed, several) for seed in range(3)]
    assert names[0] == names[2] != names[1]
    assert [occfeat.recipe_of(name, several).train.seed for name in names] == [0, 1, 0]
    assert len({occfeat.pretraining("simplebev", "occupancy", seed, OPTIONS) for seed in range(3)}) == 1


def test_gains_are_counted_seed_by_seed() -> None:
    rows: dict[str, dict[int, dict[str, Any]]] = {
        "none": {0: {"vehicle": 0.1}, 1: {"vehicle": 0.3}},
        "occupancy": {0: {"vehicle": 0.2}, 1: {"vehicle": 0.35}},
        "features": {0: {"vehicle": 0.25}, 1: {"vehicle": 0.34}},
    }
    found = {arm: occfeat.summary(one, rows["none"]) for arm, one in rows.items()}
    assert found["occupancy"]["vehicle"]["gain"]["values"] == pytest.approx([0.1, 0.05])
    assert "gain" not in found["none"]["vehicle"]
    shifted = {"none": {1: {"vehicle": 0.3}, 2: {"vehicle": 0.1}}, "occupancy": {0: {"vehicle": 0.9}, 1: {"vehicle": 0.2}}}
    rough = {"x, street, 1 %": {arm: occfeat.summary(one, shifted["none"]) for arm, one in shifted.items()}}
    assert occfeat.statements(rough, {})[0]["values"] == pytest.approx([-0.1]), "of the seed that both have"
    whole = {"none": {0: {"vehicle": 0.5}}, "features": {0: {"vehicle": 0.52}}}
    accuracy = {"simplebev, street, 1 %": found} | {
        "simplebev, street, 100 %": {arm: occfeat.summary(one, whole["none"]) for arm, one in whole.items()}
    }
    said = {row["statement"]: row for row in occfeat.statements(accuracy, {})}
    assert said["simplebev, street, 1 %: occupancy is above none, vehicle"]["held"]
    worse = said["simplebev, street, 1 %: features is above occupancy, vehicle"]
    assert (worse["held"], worse["values"]) == (False, pytest.approx([0.05, -0.01]))
    few = said["simplebev, street: pretraining gains more with 1 % of the labels than with all, vehicle"]
    assert few["mean"] == pytest.approx((0.15 + 0.04) / 2 - 0.02)
    robust = {
        "simplebev": {
            arm: {what: [{"vehicle": value}] * 3 for what in ("clean", *occfeat.CORRUPTIONS)}
            for arm, value in (("none", 0.1), ("features", 0.2))
        }
    }
    (last,) = [row for row in occfeat.statements({}, robust) if "corrupted" in row["statement"]]
    assert (last["held"], len(last["values"])) == (True, len(occfeat.CORRUPTIONS))


@pytest.mark.slow
def test_two_steps_from_end_to_end(
    street_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--networks", "flashocc", "--arms", "none", "occupancy", "--shares", "100", "--tuning", "2", "2", "2", "--steps", "2"]
    words += [
        "--jobs",
        "1",
        "--out",
        str(tmp_path / "out"),
        "--json",
        str(tmp_path / "c.json"),
        "--robust",
        "flashocc",
        "--world",
        str(street_root),
    ]
    words += ["eval.slow_figures=false"]
    monkeypatch.setattr("sys.argv", ["occfeat.py", *words])
    occfeat.main()
    numbers = json.loads((tmp_path / "c.json").read_text())
    rows = numbers["accuracy"]["flashocc, street, 100 %"]
    assert set(rows) == {"none", "occupancy"}
    assert 0 <= rows["occupancy"]["mIoU"]["mean"] < 0.3
    assert rows["occupancy"]["above ground"]["gain"]["values"]
    assert set(numbers["robust"]["flashocc"]["none"]) == {"clean", *occfeat.CORRUPTIONS}
    assert "on corrupted images, mean over three levels" in capsys.readouterr().out
