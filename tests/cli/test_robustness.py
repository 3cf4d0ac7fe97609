"""`frustum eval eval.corruption=...` and `frustum robustness`: tables, files, going on after an interruption, readable refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from frustum.checkpoint.weights_file import WEIGHTS, save_weights
from frustum.cli import robustness as module
from frustum.data.images.section import ImageFolderData
from frustum.engine.overrides import apply
from frustum.engine.run import save_run
from frustum.engine.sections import header_of
from tests.cli.conftest import Run
from tests.engine import toy

CODE = ("--code", "tests.engine.toy")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_database(tmp_path_factory.mktemp("toy"))


def make_run(root: Path, folder: Path, seed: int = 0) -> Path:
    """A run of random weights."""
    torch.manual_seed(seed)
    recipe = apply(toy.recipe(root), ["eval.slow_figures=false"])
    save_run(folder, recipe)
    save_weights(folder / WEIGHTS, recipe.model.build(), header_of(recipe))
    return folder


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Path:
    return make_run(root, tmp_path / "run")


def test_a_corrupted_evaluation_has_a_file_of_its_own(frustum: Run, run: Path) -> None:
    done = frustum("eval", run, *CODE)
    assert done.code == 0, done.err
    clean = (run / "eval.json").read_bytes()
    done = frustum("eval", run, "eval.corruption=fog:3", *CODE)
    assert done.code == 0, done.err
    assert "images corrupted by fog:3" in done.out
    assert (run / "eval.json").read_bytes() == clean
    assert json.loads((run / "eval_fog-3.json").read_text())["images"] == "fog:3"
    frustum("eval", run, "eval.corruption=snow:1", "eval.every=2", *CODE)
    assert not (run / "eval_snow-1.json").exists(), "other settings are not those of the run"
    wrong = frustum("eval", run, "eval.corruption=frog:3", *CODE)
    assert wrong.code == 2
    assert "did you mean 'fog'" in " ".join(wrong.err.split())


def test_all_levels_and_going_on(frustum: Run, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str | None] = []
    evaluate = module.evaluate

    def counted(recipe, *rest, **options):
        if len(made) == 2 and "stop" in made:
            raise KeyboardInterrupt
        made.append(recipe.eval.corruption)
        return evaluate(recipe, *rest, **options)

    monkeypatch.setattr(module, "evaluate", counted)
    words = ("robustness", run, "--corruptions", "brightness,camera_crash", *CODE)
    made.append("stop")
    stopped = frustum(*words)
    assert stopped.code == 130
    assert "the evaluations so far are kept" in stopped.err
    made.clear()
    done = frustum(*words)
    assert done.code == 0, done.err
    assert made == [f"{name}:{level}" for name in ("brightness", "camera_crash") for level in (1, 2, 3)], "not the clean one again"
    for word in ("clean", "brightness", "camera_crash", "all corruptions", "1 easy", "3 hard", "mean / clean", "mIoU of"):
        assert word in done.out
    stored = json.loads((run / "robustness.json").read_text())
    assert list(stored["evaluations"]) == ["clean", *made]
    assert stored["evaluations"]["brightness:3"]["images"] == "brightness:3"
    assert stored["summary"]["miou.camera"].keys() == stored["evaluations"].keys()

    made.clear()
    few = frustum("robustness", run, "--corruptions", "brightness", "--levels", "3", *CODE)
    assert made == []
    assert "1 easy" not in few.out
    frustum("robustness", run, "--corruptions", "brightness", "--levels", "3", "eval.every=2", *CODE)
    assert made == [None, "brightness:3"], "other settings, other figures"
    assert json.loads((run / "robustness.json").read_text()) == stored, "which replace none"
    assert len(list(run.glob("robustness_*.json"))) == 1
    assert not (run / "eval.json").exists()


def test_two_runs_side_by_side(frustum: Run, run: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)  # weights say only what the folder of their data was called
    other = make_run(root, tmp_path / "other", seed=1)
    (tmp_path / "other.safetensors").write_bytes((other / WEIGHTS).read_bytes())
    asked = ("--corruptions", "dark", "--levels", "2", "--json", tmp_path / "n.json", *CODE)
    done = frustum("robustness", run, tmp_path / "other.safetensors", *asked)
    assert done.code == 0, done.err
    assert "means over level 2, and their differences" in done.out
    assert set(json.loads((tmp_path / "n.json").read_text())) == {str(run), str(tmp_path / "other.safetensors")}
    assert (tmp_path / "other-robustness.json").is_file()


def test_rigs_alone_lose_cameras() -> None:
    rig = toy.recipe("x")
    single = rig.model_copy(update={"data": ImageFolderData()})

    class OneImage:
        def tokens(self, split):
            return ["a"]

    assert not module._possible("frame_lost", single, OneImage())
    assert module._possible("fog", single, OneImage())
    assert module._possible("frame_lost", rig, OneImage())
    assert not module._possible("camera_crash", rig, OneImage())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--corruptions", "fog,snw"), "did you mean 'snow'"),
        (("--levels", "4"), "--levels 4: the levels are 1 (easy)"),
        (("eval.corruption=fog:3",), "Choose with --corruptions"),
    ],
)
def test_what_is_wrong_is_named_before_anything_runs(frustum: Run, run: Path, words: tuple[str, ...], said: str) -> None:
    done = frustum("robustness", run, *words, *CODE)
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert "give at least one RUN" in " ".join(frustum("robustness", "eval.every=2").err.split())
    assert "given twice" in frustum("robustness", run, run, *CODE).err
