from __future__ import annotations

import json

import pytest

from frustum.engine.metrics_log import MetricsLog, read_lines
from frustum.engine.overrides import apply
from frustum.engine.progress import progress_bar
from frustum.engine.recipe import Recipe, RuntimeConfig
from frustum.engine.run import clear_run, load_run, require_same, save_run
from frustum.engine.runtime import computes_bf16, make_accelerator, pick_device, pick_precision
from frustum.errors import ConfigError, DataError
from tests.engine import toy


def test_a_recipe_survives_its_run_folder(tmp_path):
    recipe = apply(toy.recipe(), ["model.width=9", "ema=null", "data.cameras=CAM_FRONT", "model.grid.cell=0.4,0.4,0.4"])
    save_run(tmp_path / "a" / "b", recipe, source="x:y", overrides=["model.width=9"])
    run = load_run(tmp_path / "a" / "b")
    assert run.recipe == recipe
    assert type(run.recipe.model) is toy.ToyConfig
    assert (run.source, run.overrides) == ("x:y", ("model.width=9",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": {"model": "tests.engine.toy:Toy"}}, "not a ModelConfig"),
        ({"classes": {"model": "tests.engine.toy:Nothing"}}, "cannot be imported"),
        ({"classes": {"model": "os:system"}}, "not a ModelConfig"),
        ({"classes": ["model"]}, "does not hold a recipe"),
        ({"recipe": {"name": "x"}}, "does not hold a recipe"),
        ({"recipe": None}, "does not hold a recipe"),
        ({"overrides": 7}, "a list of key=value is needed"),
    ],
)
def test_a_recipe_file_that_cannot_be_used_is_named(tmp_path, change, words):
    save_run(tmp_path, toy.recipe())
    content = json.loads((tmp_path / "recipe.json").read_text())
    (tmp_path / "recipe.json").write_text(json.dumps(content | change))
    with pytest.raises(ConfigError, match=words):
        load_run(tmp_path)


def test_no_run_and_half_a_run_are_data_errors(tmp_path):
    with pytest.raises(DataError, match=r"recipe\.json"):
        load_run(tmp_path)
    (tmp_path / "recipe.json").write_text('{"recipe": ')
    with pytest.raises(DataError, match="not valid JSON"):
        load_run(tmp_path)
    (tmp_path / "recipe.json").write_text("[3]")
    with pytest.raises(ConfigError, match="does not describe a run: it holds a list"):
        load_run(tmp_path)


def test_only_settings_that_change_steps_must_agree(tmp_path):
    save_run(tmp_path, toy.recipe())
    require_same(apply(toy.recipe(), ["train.steps=99", "train.num_workers=3", "eval.every=5", "data.val_split=x"]), tmp_path)
    for override in ("optim.lr=0.5", "train.seed=1", "model.width=3", "data.root=elsewhere", "ema=null", "train.batch_size=2"):
        with pytest.raises(ConfigError, match=override.partition("=")[0].replace(".", r"\.")):
            require_same(apply(toy.recipe(), [override]), tmp_path)


def test_clearing_keeps_what_is_not_ours(tmp_path):
    save_run(tmp_path, toy.recipe())
    (tmp_path / "checkpoints" / "step_1").mkdir(parents=True)
    (tmp_path / "report").mkdir()
    for name in (
        "weights.safetensors",
        "eval.json",
        "eval_fog-3.json",
        "robustness.json",
        "robustness_0123abcd.json",
        "baselines.json",
        "notes.txt",
        "report/report.html",
    ):
        (tmp_path / name).write_text("x")
    clear_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"], "numbers and pages belong to the weights that are gone"


def test_lines_after_the_snapshot_are_dropped_on_resume(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write({"step": step, "loss": 1 / step, "losses": {"a": float("nan")}})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    with MetricsLog(tmp_path, keep_until=2) as log:
        log.write({"step": 3, "loss": 9.0})
    assert [line["loss"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1.0, 0.5, 9.0]
    with MetricsLog(tmp_path, enabled=False) as log:
        log.write({"step": 5})
    assert len(read_lines(tmp_path / "metrics.jsonl")) == 3
    assert read_lines(tmp_path / "nothing.jsonl") == []


def test_tensorboard_gets_the_same_numbers(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with MetricsLog(tmp_path) as log:
        log.write({"step": 7, "loss": 0.5, "losses": {"depth": 0.25}})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("losses/depth")] == [(7, 0.25)]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(7, 0.5)]


def test_progress_without_a_terminal_is_plain_lines(capsys):
    with progress_bar("train", 4, done=1, every=0) as bar:
        bar.advance("loss 0.5")
        bar.note("hello [x]")
        bar.advance("loss 0.4")
        bar.advance()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("train: 2/4, ")
    assert lines[0].endswith("/s, loss 0.5")  # one step is no ground for a guess of the time left
    assert lines[1] == "hello [x]"
    assert lines[2].endswith(" left, loss 0.4")
    assert "0:00 left" in lines[3]
    with progress_bar("train", 3, show=False) as bar:
        bar.advance()
    assert capsys.readouterr().out == ""


def test_progress_on_a_terminal_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with progress_bar("train", 3) as bar:
        bar.note("above [the] bar")
        bar.advance("loss 0.5", count=2)
    output = capsys.readouterr().out
    assert "above [the] bar" in output
    assert "2/3" in output


def test_precision_and_device_follow_the_machine(monkeypatch):
    cpu = pick_device(RuntimeConfig(device="cpu"))
    assert pick_precision(RuntimeConfig(precision="auto"), cpu) == ("bf16" if computes_bf16("cpu") else "fp32")
    assert pick_precision(RuntimeConfig(precision="bf16"), cpu) == "bf16"
    monkeypatch.setattr("frustum.engine.runtime.computes_bf16", lambda kind: False)
    assert pick_precision(RuntimeConfig(precision="auto"), cpu) == "fp32"
    with pytest.raises(ConfigError, match=r"runtime\.device=tpu.*usable: auto, cpu"):
        pick_device(RuntimeConfig(device="tpu"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="cuda is not available"):
        pick_device(RuntimeConfig(device="cuda"))


def test_accelerators_of_different_precision_follow_each_other():
    first = make_accelerator(RuntimeConfig(device="cpu", precision="bf16"))
    assert first.mixed_precision == "bf16"
    second = make_accelerator(RuntimeConfig(device="cpu", precision="fp32"), accumulate=3)
    assert (second.mixed_precision, second.gradient_accumulation_steps, second.device.type) == ("no", 3, "cpu")


def test_the_engine_names_no_model():
    """It is handed objects that keep the contract."""
    from pathlib import Path

    import frustum.engine

    for file in Path(frustum.engine.__path__[0]).glob("*.py"):
        assert "frustum.models" not in file.read_text(encoding="utf-8"), file
        assert "from frustum.recipes" not in file.read_text(encoding="utf-8"), file
    assert Recipe.model_fields["model"].annotation.__name__ == "ModelConfig"
