"""HeSer's claim: arms differ in one thing, figures are those of the task, statements are judged seed by seed, and one step runs through."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.claims import head_scores, heser
from frustum.nn.head_regions import LABELS
from frustum.types.predictions import PredictedPortrait
from tests.benchmarks.test_claim_gsrender import varied


def test_aligners_differ_in_one_thing_and_names_in_what_made_them() -> None:
    options = heser.parse(["--world", "heads", "--shorter", "0.5"])
    recipes = {arm: heser.recipe_of(heser.training("aligner", arm, 1, options), options) for arm in heser.ARMS["aligner"]}
    changed = {arm: varied([recipes["frames"], recipe]) for arm, recipe in recipes.items() if arm.startswith("frames-")}
    assert changed == {
        "frames-wide-pose": {"model.pose_code", "model.expression_code"},
        "frames-no-disguise": {"model.disguise"},
        "frames-no-mask": {"model.has_mask"},
    }
    assert {(arm == "full", recipe.train.steps, recipe.train.seed) for arm, recipe in recipes.items()} == {
        (True, 3000, 1),
        (False, 750, 1),
    }
    names = [*heser.trainings(options), *heser.scorings(options)]
    assert len(set(names)) == len(names)
    assert len([name for name in names if name.startswith("train+parser")]) == 1, "one parser judges all"
    blender = heser.parse(["--world", "heads", "--parts", "blender"])
    assert heser.drawing(blender)[0] in heser.trainings(blender), "the aligner that draws heads for it"
    other = heser.parse(["--world", "heads", "--shorter", "0.5", "blender:model.width=24"])
    assert heser.recipe_of(heser.training("blender", "full", 0, other), other).model.width == 24  # type: ignore[attr-defined]
    heser.recipe_of(heser.drawing(other)[0], other)
    for wrong in ("model.width=24", "parser:model.width=24", "blender:model.policy=skin"):
        with pytest.raises(SystemExit):
            heser.parse(["--world", "heads", wrong])
    assert options.fingerprint != other.fingerprint


def test_places_of_eyes_and_mouth() -> None:
    """Two eyes that moved by three pixels of sixty, and lips that are not there."""
    eyes, lips = (
        next(i for i in range(1, 19) if label_of(i) == LABELS["eyes"]),
        next(i for i in range(1, 19) if label_of(i) == LABELS["lips"]),
    )
    true, found = np.zeros((60, 60), np.uint8), np.zeros((60, 60), np.uint8)
    true[20:24, 10:16], true[40:44, 20:30] = eyes, lips
    found[20:24, 13:19] = eyes
    part = PredictedPortrait(torch.zeros(3, 60, 60, dtype=torch.uint8))
    assert head_scores.places(part, true, lambda image: found) == {"places": pytest.approx(3 / 60), "missing": 0.5}
    assert head_scores.places(part, true, lambda image: true) == {"places": 0.0, "missing": 0.0}
    assert head_scores.means([("a", {"x": 1.0, "y": None}), ("b", {"x": 3.0, "y": 5.0})]) == {"x": 2.0, "y": 5.0}


def label_of(part: int) -> int:
    return int(head_scores.labels_of(np.full((1, 1), part, np.uint8))[0, 0])


def test_parts_may_be_those_that_a_parser_finds() -> None:
    class Source:
        root = "data/heads"

        def image(self, token: str) -> np.ndarray:
            return np.full((4, 4, 3), len(token), np.uint8)

    parsed = head_scores.Parsed(Source(), lambda image: image[..., 0] + 1)
    assert (parsed.parsing("abc") == 4).all()
    assert parsed.root == "data/heads"


def test_statements_are_judged_seed_by_seed() -> None:
    found: dict[str, Any] = defaultdict(dict)
    ours, theirs = [{"psnr_head": head, "psnr_gap": gap} for head, gap in ((20.0, 24.0), (23.5, 19.0))]
    found["blender"] = {
        "full, exact head": {0: theirs, 1: theirs},
        "exact head, pasted, recoloured": {0: ours, 1: {**ours, "psnr_head": 21}},
    }
    found["aligner"] = {
        f"{arm}, {split}": {0: {"psnr_head": value}}
        for arm, values in {"frames": (20.0, 19.0), "frames-wide-pose": (22.0, 15.0)}.items()
        for split, value in zip(("own", "swaps"), values, strict=True)
    }
    said = {row["statement"]: row for row in heser.statements(found)}
    head, gap = (
        said[f"the blender is 3 dB better than pasting the exact head with the target's colours: {area}"] for area in ("head", "gap")
    )
    assert head["values"] == [3.5, 2.5]
    assert not head["held"]
    assert not gap["held"]
    assert said["aligner: frames-wide-pose is worse on swaps than frames: head"]["values"] == [4.0]
    assert said["aligner: frames-wide-pose loses more from own heads to swaps than frames: head"] | {"std": None} == {
        "statement": "aligner: frames-wide-pose loses more from own heads to swaps than frames: head", "least": 0.0, "held": True,
        **heser.measuring.mean_and_spread([6.0]),
    }  # fmt: skip


def test_what_the_judge_cannot_tell_is_not_stated() -> None:
    ways = {"the true swap": 5.0, "pasted": 10.0, "aligned and pasted, recoloured": 8.0, "aligner and blender": 6.0}
    ways["the portrait, unchanged"] = 5.0
    rows = {way: {"psnr_head": 1.0, "psnr_gap": 1.0, "colour_error": 1.0, "identity_error": 1.0, "expression_error": 1.0} for way in ways}
    found: dict[str, Any] = defaultdict(dict)
    found["chain"] = {way: {0: row | {"pose_error": ways[way]}} for way, row in rows.items()}
    found["chain"] |= {way: {0: rows["pasted"]} for way in ("aligner, pasted", "aligned by landmarks, blended")}
    judged = [row for row in heser.statements(found) if "the error of both networks is below" in row["statement"]]
    assert [(row["statement"].split(":")[0], row["values"], row["held"]) for row in judged] == [("pose, degrees", [2.0], True)]
    found["chain"]["the portrait, unchanged"][0]["identity_error"] = 1.5
    found["chain"]["aligner and blender"][0]["identity_error"] = 0.8
    last = [row for row in heser.statements(found) if row["statement"].startswith("identity")]
    assert [(round(row["values"][0], 2), row["held"]) for row in last] == [(0.2, True)]


@pytest.mark.slow
def test_one_step_from_end_to_end(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--identities", "10", "--shorter", "0.0001", "--seeds", "1", "--jobs", "1", "--out", str(tmp_path / "out")]
    words += ["--json", str(tmp_path / "h.json")]
    parts = [part for part in heser.PARTS if part != "few"]
    monkeypatch.setattr("sys.argv", ["heser.py", *words, "--parts", *parts])
    heser.main()
    options = heser.parse(words)
    few = heser.scoring("few", "2:3", 0, options)
    assert {"psnr_head", "failed"} <= set(heser.work(few, options))
    numbers = json.loads((tmp_path / "h.json").read_text())
    assert set(numbers["accuracy"]) == set(parts)
    assert "exact head, pasted, recoloured" in numbers["accuracy"]["blender"]
    assert "held" in capsys.readouterr().out
