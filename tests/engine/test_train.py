from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch

import frustum
from frustum.checkpoint.weights_file import load_state, read_weights
from frustum.engine.feed import TrainingFeed
from frustum.engine.metrics_log import read_lines
from frustum.engine.overrides import apply
from frustum.engine.run import load_run
from frustum.engine.train import train
from frustum.errors import CheckpointError, ConfigError, DataError, StoppedError, TrainingError
from tests.engine import toy


def losses(folder: Path) -> dict[int, dict]:
    return {
        line["step"]: {k: v for k, v in line.items() if k not in ("time", "steps_per_second")}
        for line in read_lines(folder / "metrics.jsonl")
    }


def test_a_run_learns_and_leaves_what_is_documented(toy_root, tmp_path):
    recipe = toy.recipe(toy_root, steps=48, checkpoint_every=20, log_every=12)
    result = train(recipe, tmp_path / "run", source="tests.engine.toy:recipe", overrides=["train.steps=48"])
    lines = read_lines(result.folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == [12, 24, 36, 48]
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    assert lines[-1]["loss"] == pytest.approx(sum(lines[-1]["losses"].values())) == result.loss
    assert lines[0]["epoch"] == 12 / 8
    assert [path.name for path in sorted((tmp_path / "run/checkpoints").iterdir())] == ["step_00000040", "step_00000048"]
    assert list((tmp_path / "run/tensorboard").glob("events*"))
    described = json.loads((tmp_path / "run/recipe.json").read_text())
    assert described["source"] == "tests.engine.toy:recipe"
    assert described["overrides"] == ["train.steps=48"]
    assert (described["frustum"], described["seed"]) == (frustum.__version__, 0)
    kept = load_run(tmp_path / "run").recipe
    assert kept.augment.horizon is not None, "measured"
    assert kept.model_copy(update={"augment": recipe.augment}) == recipe
    state, metadata = read_weights(result.weights)
    assert metadata["step"] == 48
    assert all(torch.equal(state[key], value) for key, value in result.model.state_dict().items())
    assert not result.model.training
    json.dumps(result.as_dict())


def test_prepare_receives_the_statistics_of_the_training_split(toy_root, tmp_path):
    result = train(toy.recipe(toy_root, steps=1), tmp_path, progress=False)
    counts = result.model.prepared
    assert counts.shape == (toy.Z, toy.K)
    database = toy.recipe(toy_root).data.open()
    seen = sum(int(database.sample(t).occupancy.mask_camera.sum()) for t in database.tokens("train"))
    assert counts.sum() == seen
    assert counts[0].nonzero()[0].tolist() == [11]


def test_the_schedule_of_a_run_counts_epochs(toy_root, tmp_path):
    result = train(toy.recipe(toy_root, steps=None, epochs=2, batch_size=3, accumulate=1), tmp_path)
    assert result.steps == 2 * (8 // 3)


def test_resuming_gives_the_same_losses_as_no_interruption(toy_root, tmp_path):
    recipe = apply(toy.recipe(toy_root, checkpoint_every=5, log_every=2), ["model.dropout=0.3", "model.batch_norm=true"])
    whole = train(recipe, tmp_path / "whole")
    train(apply(recipe, ["train.steps=5", "optim.schedule=constant"]), tmp_path / "x")  # another run in this process must not matter
    parts = tmp_path / "parts"
    stop_after(recipe, parts, 7)
    again = train(recipe, parts, resume="must")
    assert again.resumed_from == 7
    assert losses(parts) == losses(tmp_path / "whole")
    assert len(losses(parts)) == 6
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key])


def stop_after(recipe, folder: Path, step: int) -> None:
    """Train until `step`, then send this process a SIGTERM as a batch system would."""
    from frustum.engine import train as module

    class Stopping(module.Window):
        def add(self, result):
            super().add(result)
            Stopping.seen += 1
            if Stopping.seen == step - 1:
                os.kill(os.getpid(), signal.SIGTERM)

    Stopping.seen = 0
    original, module.Window = module.Window, Stopping
    try:
        with pytest.raises(StoppedError, match=f"SIGTERM after step {step} of 12"):
            train(recipe, folder)
    finally:
        module.Window = original


def test_a_signal_saves_and_ends_with_the_documented_code(toy_root, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    stop_after(toy.recipe(toy_root, checkpoint_every=100), tmp_path, 4)
    assert StoppedError.exit_code == 75
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000004"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_training_works_outside_the_main_thread(toy_root, tmp_path):
    done: list = []
    thread = threading.Thread(target=lambda: done.append(train(toy.recipe(toy_root, steps=2), tmp_path, progress=False)))
    thread.start()
    thread.join()
    assert done[0].steps == 2


def test_a_finished_run_is_not_trained_again(toy_root, tmp_path):
    first = train(toy.recipe(toy_root), tmp_path)
    lines = losses(tmp_path)
    again = train(toy.recipe(toy_root), tmp_path)
    assert (again.resumed_from, again.steps) == (12, 12)
    assert losses(tmp_path) == lines
    assert again.loss == first.loss


def test_a_run_can_be_made_longer_or_deleted(toy_root, tmp_path):
    train(toy.recipe(toy_root), tmp_path)
    assert train(toy.recipe(toy_root, steps=14), tmp_path).resumed_from == 12
    (tmp_path / "notes.txt").write_text("mine")
    assert train(toy.recipe(toy_root, steps=3), tmp_path, resume=False).resumed_from == 0
    assert list(losses(tmp_path)) == [1, 2, 3]
    assert (tmp_path / "notes.txt").exists()


def test_resuming_with_other_settings_is_refused_by_name(toy_root, tmp_path):
    train(toy.recipe(toy_root, steps=2), tmp_path)
    with pytest.raises(ConfigError, match=r"optim\.lr was 0\.1, now 0\.5.*--fresh"):
        train(apply(toy.recipe(toy_root, steps=2), ["optim.lr=0.5"]), tmp_path)
    with pytest.raises(CheckpointError, match="no snapshot to resume"):
        train(toy.recipe(toy_root), tmp_path / "new", resume="must")
    with pytest.raises(ConfigError, match="resume='perhaps'"):
        train(toy.recipe(toy_root), tmp_path / "new", resume="perhaps")  # type: ignore[arg-type]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_nan_stops_with_step_and_sample_named_and_the_last_state_intact(toy_root, tmp_path, accumulate):
    recipe = toy.recipe(toy_root, checkpoint_every=1, accumulate=accumulate)
    feed = TrainingFeed(recipe, recipe.data.open())
    third = [feed.next_batches() for _ in range(3)][-1]
    token = third[-1].tokens[0]
    with pytest.raises(TrainingError, match=f"step 3: occupancy = nan on {token}.*step_00000002") as error:
        train(apply(recipe, [f"model.poison={token}"]), tmp_path / "run")
    assert error.value.exit_code == 7
    if accumulate == 2:
        assert third[0].tokens[0] not in str(error.value), "only the bad batch is to blame"
    newest = sorted((tmp_path / "run/checkpoints").iterdir())[-1]
    network = toy.ToyConfig().build()
    load_state(network, read_weights(newest / "model.safetensors")[0], "model")
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    assert not (tmp_path / "run/weights.safetensors").exists()


def test_weights_that_are_not_finite_are_not_saved(toy_root, tmp_path):
    with pytest.raises(TrainingError, match=r"after step 1 .* of the network is not finite.*No state was saved yet; lower optim.lr"):
        train(apply(toy.recipe(toy_root, steps=1), ["optim.lr=1e45"]), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    assert not list((tmp_path / "run").rglob("step_*"))


@pytest.mark.parametrize("name", ["trainer.pt", "rank_0.pt", "model.safetensors", "digests.json"])
def test_a_flipped_bit_in_a_snapshot_is_noticed(toy_root, tmp_path, name):
    train(toy.recipe(toy_root, steps=1), tmp_path / "run")
    (snapshot,) = (tmp_path / "run/checkpoints").iterdir()
    content = bytearray((snapshot / name).read_bytes())
    for place in (len(content) // 2, len(content) - 9):
        content[place] ^= 1
        (snapshot / name).write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged"):
            train(toy.recipe(toy_root, steps=2), tmp_path / "run")
        content[place] ^= 1
    (snapshot / name).write_bytes(content)
    assert train(toy.recipe(toy_root, steps=2), tmp_path / "run").resumed_from == 1


def test_a_given_network_is_trained_as_it_is(toy_root, tmp_path):
    network = toy.ToyConfig().build()
    with torch.no_grad():
        network.head.bias.fill_(5.0)
    recipe = apply(toy.recipe(toy_root, steps=1), ["optim.lr=1e-12"])
    result = train(recipe, tmp_path, model=network)
    assert result.model.prepared is None
    torch.testing.assert_close(result.model.head.bias, torch.full_like(network.head.bias, 5.0))


def test_bf16_and_workers_and_memory_cache(toy_root, tmp_path):
    recipe = apply(toy.recipe(toy_root, steps=3), ["runtime.precision=bf16"])
    assert train(recipe, tmp_path / "bf16").loss == pytest.approx(train(toy.recipe(toy_root, steps=3), tmp_path / "fp32").loss, rel=0.05)
    train(toy.recipe(toy_root, steps=3, num_workers=1), tmp_path / "worker")
    train(apply(toy.recipe(toy_root, steps=3), ["data.cache=memory"]), tmp_path / "cache")
    assert losses(tmp_path / "worker") == losses(tmp_path / "cache") == losses(tmp_path / "fp32")


def test_the_last_good_snapshot_survives_a_full_disk(toy_root, tmp_path, monkeypatch):
    train(toy.recipe(toy_root, steps=4, checkpoint_every=4), tmp_path)

    def full(*args, **kwargs):
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DataError, match="cannot write"):
        train(toy.recipe(toy_root, steps=8, checkpoint_every=4), tmp_path)
    monkeypatch.undo()
    assert train(toy.recipe(toy_root, steps=8, checkpoint_every=4), tmp_path).resumed_from == 4


def test_a_folder_that_cannot_be_written_to_is_refused_first(toy_root, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        train(toy.recipe(toy_root), tmp_path / "file" / "run")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_first(toy_root, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="permission"):
        train(toy.recipe(toy_root), tmp_path / "run")


def test_a_damaged_snapshot_says_what_to_do(toy_root, tmp_path):
    train(toy.recipe(toy_root, steps=6, checkpoint_every=3), tmp_path)
    state = tmp_path / "checkpoints/step_00000006/trainer.pt"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"trainer\.pt is missing or damaged.*older snapshot"):
        train(toy.recipe(toy_root, steps=8), tmp_path)


def test_a_wrong_root_and_split_are_data_errors(toy_root, tmp_path):
    with pytest.raises(DataError):
        train(toy.recipe(tmp_path / "nowhere"), tmp_path / "run")
    with pytest.raises(DataError, match="trian"):
        train(apply(toy.recipe(toy_root), ["data.train_split=trian"]), tmp_path / "run2")


def test_what_is_told_when_a_run_is_taken_up_again(toy_root, tmp_path, capsys):
    """A finished run does not seem to train, and another length is told where it changes the learning rates."""

    def told(**length) -> tuple[int, str]:
        result = train(toy.recipe(toy_root, checkpoint_every=2, **length), tmp_path)
        return result.steps, " ".join(capsys.readouterr().out.split())

    assert "step 2" not in told(steps=2)[1]
    steps, text = told(steps=2)
    assert "this run is finished: 2 steps are done, 2 are asked for. To train longer, set a larger train.steps." in text
    assert "going on" not in text
    steps, text = told(steps=4)
    assert steps == 4
    assert "going on after step 2 of 4. train.steps was 2, now 4: the cosine schedule now ends elsewhere" in text
    steps, text = told(steps=3)
    assert "finished: 4 steps are done, 3 are asked for" in text
    assert steps == read_weights(tmp_path / "weights.safetensors")[1]["step"] == 4  # what was done, not what was asked for
    constant = apply(toy.recipe(toy_root, steps=2, checkpoint_every=2), ["optim.schedule=constant"])
    train(constant, tmp_path / "constant")
    capsys.readouterr()
    train(apply(constant, ["train.steps=3"]), tmp_path / "constant")
    assert "schedule" not in capsys.readouterr().out
    poly = apply(toy.recipe(toy_root, steps=2, checkpoint_every=2), ["optim.schedule=poly"])
    train(poly, tmp_path / "poly")
    train(apply(poly, ["train.steps=3"]), tmp_path / "poly")
    assert "the poly schedule now ends elsewhere" in " ".join(capsys.readouterr().out.split())


def test_a_run_goes_on_where_its_data_were_moved_to(toy_root, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(toy_root, here)
    train(toy.recipe(here, steps=2, checkpoint_every=2), tmp_path / "run")
    shutil.copytree(here, there)
    with pytest.raises(ConfigError, match=r"data\.root was"):  # another data set, as far as one can tell
        train(toy.recipe(there, steps=3), tmp_path / "run")
    shutil.rmtree(here)
    assert train(toy.recipe(there, steps=3), tmp_path / "run").resumed_from == 2
