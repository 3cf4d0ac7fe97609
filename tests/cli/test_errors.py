"""Bad input: a non-zero exit code and one readable paragraph that says what to do; a traceback only with --debug."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from frustum.errors import CheckpointError, ConfigError, DataError
from tests.cli.conftest import Outcome, Run


def paragraph(outcome: Outcome, code: int, *words: str) -> None:
    """The one thing on standard error is a paragraph with all the words."""
    assert outcome.code == code, outcome.err
    text = outcome.err.strip()
    assert text.startswith("error: ")
    assert "\n" not in text
    assert "Traceback" not in text
    for word in words:
        assert word in text, text


# ---- recipes and settings ------------------------------------------------------------------------------------------------------


def test_unknown_recipe(frustum: Run) -> None:
    paragraph(frustum("train", "flashoc-r50"), ConfigError.exit_code, "flashoc-r50", "flashocc-r50", "frustum list")


def test_misspelt_override(frustum: Run, tmp_path: Path) -> None:
    outcome = frustum("train", "flashocc-r50-m0", "optim.lrr=1", "--out", tmp_path)
    paragraph(outcome, ConfigError.exit_code, "optim.lrr", "'lr'")


def test_override_in_the_wrong_section(frustum: Run) -> None:
    paragraph(frustum("train", "flashocc-r50-m0", "lr=1"), ConfigError.exit_code, "optim.lr")


def test_wrong_value(frustum: Run) -> None:
    outcome = frustum("train", "flashocc-r50-m0", "runtime.precision=fp8")
    paragraph(outcome, ConfigError.exit_code, "runtime.precision", "bf16")


def test_word_that_is_no_setting(frustum: Run) -> None:
    paragraph(frustum("train", "flashocc-r50-m0", "fast"), ConfigError.exit_code, "fast", "key=value")


def test_import_path_that_does_not_exist(frustum: Run) -> None:
    paragraph(frustum("train", "no_such_package.file:recipe"), ConfigError.exit_code, "no_such_package")


def test_world_setting(frustum: Run, tmp_path: Path) -> None:
    paragraph(frustum("data", "world", tmp_path, "framse=3"), ConfigError.exit_code, "frames")
    paragraph(frustum("data", "world", tmp_path, "--size", "big"), ConfigError.exit_code, "HEIGHTxWIDTH")
    paragraph(frustum("data", "world", "frames=3"), ConfigError.exit_code, "frustum data world OUT")


NONSENSE = [
    ("data", "world", "OUT", "--seed", "-1"),
    ("data", "world", "OUT", "seed=-1"),
    ("data", "world", "OUT", "frames=0"),
    ("data", "world", "OUT", "--size", "0x256"),
    ("demo", "--seed", "-1", "--out", "OUT"),
    *(
        ("train", "flashocc-tiny", "--out", "OUT", word)
        for word in (
            "train.steps=-5",
            "train.steps=0",
            "train.epochs=0",
            "train.batch_size=0",
            "optim.lr=0",
            "data.image_size=0,256",
            "data.image_size=96",
            "data.std=0,1,1",
            "model.lift_channels=0",
            "model.bev_channels=-1",
            "model.voxel_channels=0",
            "model.neck_channels=0",
            "model.frozen_blocks=12",
            "model.depth_loss=-1",
        )
    ),
    *(("train", "flashocc-r50-m0", "--out", "OUT", f"model.{word}") for word in ("lift_channels=0", "bev_channels=0", "neck_channels=-3")),
]


@pytest.mark.parametrize("words", NONSENSE, ids=" ".join)
def test_nonsense_is_refused(words: tuple[str, ...], frustum: Run, tmp_path: Path) -> None:
    """Before anything is written, with the setting and the value in the message."""
    out = tmp_path / "out"
    outcome = frustum(*(str(out) if word == "OUT" else word for word in words))
    assert outcome.code == ConfigError.exit_code, outcome.err
    assert "Traceback" not in outcome.err
    assert not out.exists()
    if "--seed" in words:  # refused by the parser of options, which draws a frame around its sentence
        assert "Invalid value for '--seed'" in outcome.err
    elif "--size" in words:
        paragraph(outcome, ConfigError.exit_code, "--size 0x256", "HEIGHTxWIDTH")
    else:
        paragraph(outcome, ConfigError.exit_code, *words[-1].split("="), "not allowed")


def test_a_value_that_only_pydantic_refuses(frustum: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it comes from, it is the fault of a setting and not called a bug."""
    import frustum.cli.doctor as module
    from frustum.engine.recipe import TrainConfig

    monkeypatch.setattr(module, "diagnose", lambda folder: TrainConfig(log_every=0))
    paragraph(frustum("doctor"), ConfigError.exit_code, "log_every=0 is not allowed", "--debug")


def test_a_world_is_not_called_a_recipe(frustum: Run, tmp_path: Path) -> None:
    outcome = frustum("data", "world", tmp_path / "out", "colour=3")
    paragraph(outcome, ConfigError.exit_code, "there is no setting 'colour'")
    assert "recipe" not in outcome.err


def test_the_list_of_known_names_ends_its_sentence(frustum: Run) -> None:
    assert ". `frustum list` shows all" in frustum("train", "zzzzzzzz").err


# ---- data ----------------------------------------------------------------------------------------------------------------------


def test_wrong_root(frustum: Run, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    outcome = frustum("train", "flashocc-r50-m0", f"data.root={missing}", "--out", tmp_path / "run")
    paragraph(outcome, DataError.exit_code, str(missing), "does not exist", "frustum data")
    paragraph(frustum("check", missing), DataError.exit_code, str(missing))


def test_missing_table(frustum: Run, tmp_path: Path) -> None:
    folder = tmp_path / "v1.0-trainval"
    folder.mkdir()
    for name in ("sample", "scene"):
        (folder / f"{name}.json").write_text("[]")
    outcome = frustum("train", "flashocc-r50-m0", f"data.root={tmp_path}", "--out", tmp_path / "run")
    paragraph(outcome, DataError.exit_code, "missing", "sample_data")


def test_output_that_cannot_be_a_folder(frustum: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    outcome = frustum("data", "world", tmp_path / "file" / "world", "--scenes", 1, "--val-scenes", 0, "--frames", 1)
    paragraph(outcome, DataError.exit_code, str(tmp_path / "file"), "another output folder")


def test_json_that_cannot_be_written(frustum: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    paragraph(frustum("list", "--json", tmp_path / "file" / "x.json"), DataError.exit_code, "cannot write")


def test_kitti_root_without_a_drive(frustum: Run, tmp_path: Path) -> None:
    paragraph(frustum("data", "import", "kitti-raw", tmp_path, tmp_path / "out"), DataError.exit_code, str(tmp_path))


def test_rig_folder_without_calibration(frustum: Run, tmp_path: Path) -> None:
    paragraph(frustum("data", "import", "rig", tmp_path, tmp_path / "out"), DataError.exit_code, "calibration.json")


# ---- checkpoints and runs ------------------------------------------------------------------------------------------------------


class Evil:
    """A pickle that would run code."""

    def __reduce__(self):
        return (print, ("code was run",))


def test_pickle_where_a_checkpoint_is_expected(frustum: Run, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(pickle.dumps(Evil()))
    outcome = frustum("eval", "flashocc-r50-m0", "--checkpoint", file)
    paragraph(outcome, CheckpointError.exit_code, str(file), "pickle")
    assert "code was run" not in outcome.out


def test_torch_file_where_ours_is_expected(frustum: Run, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"x": torch.zeros(1)}, file)
    paragraph(frustum("eval", "flashocc-r50-m0", "--checkpoint", file), CheckpointError.exit_code, "safetensors")


def test_mismatched_checkpoint(frustum: Run, tmp_path: Path) -> None:
    from frustum.checkpoint.weights_file import save_weights

    file = tmp_path / "other.safetensors"
    save_weights(file, {"head.weight": torch.zeros(2, 2)})
    code, _, err = frustum("eval", "flashocc-r50-m0", "--checkpoint", file)
    assert code == CheckpointError.exit_code
    lines = err.splitlines()
    assert lines[0].startswith("error: ")
    assert lines[1].endswith("they look like another network's")
    assert lines[2:4] == ["missing (430):", "  img_backbone.conv1.weight  (64, 3, 7, 7)"], "an entry a line, as in Python"
    assert "  head.weight  (2, 2)" in lines


def test_recipe_without_weights(frustum: Run) -> None:
    paragraph(frustum("eval", "flashocc-r50-m0"), ConfigError.exit_code, "--checkpoint")


def test_folder_that_is_no_run(frustum: Run, tmp_path: Path) -> None:
    paragraph(frustum("eval", tmp_path), ConfigError.exit_code, "recipe.json")
    paragraph(frustum("report", tmp_path), CheckpointError.exit_code, "recipe.json")
    paragraph(frustum("train", "runs/no-such-run"), ConfigError.exit_code, "recipe.json")


def test_damaged_run(frustum: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"recipe": ')
    paragraph(frustum("eval", tmp_path), DataError.exit_code, "recipe.json")


# ---- how it is said ------------------------------------------------------------------------------------------------------------


def test_debug_shows_the_traceback(frustum: Run) -> None:
    for words in (("--debug", "train", "nothing"), ("train", "nothing", "--debug")):
        outcome = frustum(*words)
        assert outcome.code == ConfigError.exit_code
        assert "Traceback" in outcome.err
        assert "error: " in outcome.err


def test_bugs_are_called_bugs(frustum: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import frustum.cli.doctor as module

    monkeypatch.setattr(module, "diagnose", lambda folder: 1 / 0)
    paragraph(frustum("doctor"), 1, "ZeroDivisionError", "bug", "--debug")


def test_interrupt(frustum: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import frustum.cli.doctor as module

    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "diagnose", interrupted)
    outcome = frustum("doctor")
    assert outcome.code == 130
    assert "interrupted: nothing was damaged; the same command starts again from the beginning." in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("words", "worker", "what_holds"),
    [
        (("train", "flashocc-tiny"), "frustum.engine.train.train", "the same command goes on from the last saved state"),
        (("data", "world", "w"), "frustum.cli.worlds.generate_world", "the same command goes on from the last saved state"),
        (("predict", "run", "rig"), "frustum.cli.predicting.predict_source", "the predictions so far are kept"),
        (("eval", "run"), "frustum.cli.evaluation.evaluate_run", "the same command starts again from the beginning"),
        (("report", "run"), "frustum.cli.reporting.report_run", "the same command starts again from the beginning"),
        (("bench",), "frustum.cli.benchmarking.run", "name the benchmarks that are left"),
    ],
)
def test_what_holds_after_an_interrupt(
    frustum: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], worker: str, what_holds: str
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker, interrupted)
    outcome = frustum(*words)
    assert outcome.code == 130
    assert what_holds in outcome.err


def test_system_errors_are_readable(frustum: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import frustum.cli.doctor as module

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device", "/some/file")

    monkeypatch.setattr(module, "diagnose", full)
    paragraph(frustum("doctor"), DataError.exit_code, "/some/file", "No space left", "free space")
