"""CWD's claim: arms differ in the loss alone, CamVid's validation images choose the weight, and two steps run from end to end."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.claims import cwd
from frustum.cli import labelling
from frustum.errors import ConfigError
from tests.benchmarks.test_claim_gsrender import varied


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images a split with eleven classes."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(8):
            labels = np.sort(rng.integers(0, 11, (45, 60)), axis=0).astype(np.uint8)
            pixels = rng.integers(0, 20, (45, 60, 3)) + 20 * labels[..., None]
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"images/{split}/{i}.png")
            Image.fromarray(labels).save(root / f"labels/{split}/{i}.png")
    names = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
    (root / "classes.json").write_text(json.dumps(names))
    return root


def options_of(root: Path, *words: str) -> Any:
    return cwd.parse(["--camvid", str(root), "--world", "w", "--steps", "7", "--teacher-steps", "9", *words])


def test_students_differ_in_what_they_imitate_alone(photographs: Path) -> None:
    options = options_of(photographs)
    arms = cwd.arms_of("camvid", options)
    assert set(arms) | set(cwd.arms_of("occupancy", options)) == set(cwd.ARMS)
    recipes = [cwd.recipe_of(cwd.training("camvid", arm, 1.0, 2, options), options) for arm in arms]
    assert all(name.startswith("distill") for name in varied(recipes))
    assert recipes[0].distill is None
    assert {(recipe.train.steps, recipe.train.seed) for recipe in recipes} == {(7, 2)}
    assert len({recipe.distill.teacher for recipe in recipes[1:]}) == 1  # type: ignore[union-attr]
    teacher = cwd.recipe_of(cwd.teaching("camvid", options), options)
    assert (teacher.name, teacher.train.steps, teacher.model.class_names) == ("pspnet-lite", 9, recipes[0].model.class_names)  # type: ignore[attr-defined]
    tenth = cwd.recipe_of(cwd.training("camvid", "cwd-features", 0.1, 0, options), options)
    assert tenth.distill is not None
    assert tenth.distill.weight == (5.0,)


def test_names_change_with_what_made_them(photographs: Path) -> None:
    options = options_of(photographs)
    names = [
        cwd.training("camvid", "kd-logits", 1.0, 0, options),
        cwd.training("camvid", "kd-logits", 0.1, 0, options),
        cwd.training("camvid", "kd-logits", 1.0, 1, options),
        cwd.training("street", "kd-logits", 1.0, 0, options),
        cwd.training("camvid", "kd-logits", 1.0, 0, options_of(photographs, "--teacher-steps", "10")),
    ]
    assert len(set(names)) == len(names)
    assert cwd.training("camvid", "alone", 0.1, 0, options) == cwd.training("camvid", "alone", 1.0, 0, options)
    with pytest.raises(SystemExit):
        cwd.parse([])


def test_statements_are_judged_seed_by_seed() -> None:
    def row(values: list[float]) -> dict[int, Any]:
        return {seed: {"figures": {"test": {"mIoU": v, "accuracy": v}}, "classes": {"sky": v}} for seed, v in enumerate(values)}

    rows = {"alone": row([0.5, 0.5]), "cwd-logits x0.1": row([0.6, 0.49]), "kd-logits": row([0.55, 0.48])}
    rows |= {"kd-logits x0.1": row([0.9]), "at-logits": row([0.59])}
    accuracy = {
        "camvid": {arm: {"chosen": arm != "kd-logits x0.1"} | cwd.summary("camvid", done, rows["alone"]) for arm, done in rows.items()}
    }
    teachers = {"camvid": {"figures": {"test": {"mIoU": 0.7, "accuracy": 0.7}}}}
    said = {found["statement"]: found for found in cwd.statements(accuracy, teachers)}
    assert [found["held"] for found in said.values()] == [True, False, True, True]
    assert said["camvid: cwd-logits is above kd-logits: mIoU"]["values"] == pytest.approx([0.05, 0.01]), "of the share that was chosen"
    assert said["camvid: cwd-logits is above at-logits: mIoU"]["seeds"] == 1, "of the seeds that both have"
    gain = accuracy["camvid"]["cwd-logits x0.1"]["mIoU"]["gain"]
    assert gain["values"] == pytest.approx([0.1, -0.01])


def test_the_share_of_the_weight_is_chosen_on_validation_images(photographs: Path, tmp_path: Path) -> None:
    options = options_of(photographs, "--out", str(tmp_path))
    tasks = cwd.tasks_of(options)
    tasks.path("x").parent.mkdir(parents=True, exist_ok=True)

    def finished(factor: float, seed: int, val: float, test: float) -> None:
        figures = {"val": {"mIoU": val, "accuracy": val}, "test": {"mIoU": test, "accuracy": test}}
        tasks.write(cwd.training("camvid", "cwd-logits", factor, seed, options), {"figures": figures, "classes": {"sky": test}})

    with pytest.raises(ConfigError, match="first --on camvid"):
        cwd.factors_of("street", "cwd-logits", options)
    assert cwd.factors_of("street", "cwd-logits", options_of(photographs, "--factors", "1")) == [1.0]
    finished(0.1, 0, 0.6, 0.1)
    finished(1.0, 0, 0.5, 0.9)
    assert cwd.chosen("camvid", "cwd-logits", options) == 0.1
    assert cwd.factors_of("street", "cwd-logits", options) == [0.1]
    assert cwd.factors_of("camvid", "cwd-logits", options) == [0.1, 1.0]
    assert cwd.chosen("camvid", "kd-logits", options) == 1.0
    finished(0.1, 1, 0.1, 0.1)
    assert cwd.chosen("camvid", "cwd-logits", options) == 0.1, "the one with more seeds"
    finished(1.0, 1, 0.5, 0.9)
    assert cwd.chosen("camvid", "cwd-logits", options) == 1.0, "then the mean"
    rows = cwd.collect(options)["accuracy"]["camvid"]
    assert {name: row["chosen"] for name, row in rows.items()} == {"cwd-logits x0.1": False, "cwd-logits": True}


def test_the_street_world_is_written_and_learned_by_the_chosen_weights(photographs: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """What is made, in order, without making it: images of the world by the writer that the command has."""
    options = options_of(
        photographs, "--out", str(tmp_path), "--on", "street", "--arms", "alone", "kd-logits", "--factors", "1", "--seeds", "2"
    )
    made: list[str] = []
    monkeypatch.setattr(cwd, "generate_missing", lambda *_: made.append("world"))
    monkeypatch.setattr(cwd, "world_of", lambda _: tmp_path / "world")
    monkeypatch.setattr(labelling, "write_image_folder", lambda *words: made.append(words[3]) or 1)
    monkeypatch.setattr(type(cwd.tasks_of(options)), "make", lambda _, names, *__: made.extend(name.split("+")[1] for name in names))
    monkeypatch.setattr(labelling, "opened", lambda *_: nullcontext(_Streets()))
    monkeypatch.setattr(labelling, "NuScenes", _Streets)
    monkeypatch.setattr(labelling, "source_files", lambda *_: [])
    cwd.make_missing(options, cwd.tasks_of(options))
    assert made == ["world", "CAM_FRONT", "CAM_FRONT", *["street"] * 5]


class _Streets:
    def splits(self) -> list[str]:
        return ["train", "val"]

    def tokens(self, split: str) -> list[str]:
        return [f"{split}-0"]


@pytest.mark.slow
def test_two_steps_from_end_to_end(photographs: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--camvid", str(photographs), "--arms", "alone", "cwd-logits", "--steps", "2", "--teacher-steps", "2", "--seeds", "2"]
    words += ["--jobs", "1", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "c.json"), "data.image_size=48,64"]
    monkeypatch.setattr("sys.argv", ["cwd.py", *words])
    cwd.main()
    numbers = json.loads((tmp_path / "c.json").read_text())
    rows = numbers["accuracy"]["camvid"]
    assert set(rows) == {"alone", "cwd-logits", "cwd-logits x0.1"}
    assert sorted(row["seeds"] for row in rows.values() if row["chosen"]) == [[0, 1]] * 2
    assert [row["seeds"] for row in rows.values() if not row["chosen"]] == [[0]], "the other share was tried by the first seed alone"
    assert "held" in capsys.readouterr().out
