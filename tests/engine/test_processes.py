"""Training in processes of its own: killed, stopped, and several at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from frustum.checkpoint.weights_file import load_state, read_weights
from frustum.engine.evaluate import evaluate
from frustum.engine.metrics_log import read_lines
from frustum.engine.overrides import apply
from frustum.engine.reports import EvalReport
from frustum.engine.train import train
from tests.engine import toy
from tests.engine.test_train import losses

REPOSITORY = Path(__file__).resolve().parents[2]


def start(root: Path, out: Path, *settings: str, **environment: str) -> subprocess.Popen:
    return start_python(["-m", "tests.engine.run_toy", str(root), str(out), *settings], **environment)


def start_python(arguments: list[str], **environment: str) -> subprocess.Popen:
    command = [sys.executable, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_step(process: subprocess.Popen, out: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while not any(line["step"] >= step for line in read_lines(out / "metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the training process makes no progress"
        time.sleep(0.01)


SETTINGS = ["model.dropout=0.3", "model.slow=0.06", "train.checkpoint_every=3", "train.num_workers=1"]


def test_killed_in_mid_epoch_the_following_losses_are_equal(toy_root, tmp_path):
    train(apply(toy.recipe(toy_root), SETTINGS), tmp_path / "whole")
    killed = start(toy_root, tmp_path / "killed", *SETTINGS)
    wait_for_step(killed, tmp_path / "killed", 5)  # an epoch has 8 steps, the last snapshot is that of step 3
    killed.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    killed.communicate()
    assert killed.returncode not in (0, 75)
    before = read_lines(tmp_path / "killed/metrics.jsonl")[-1]["step"]
    assert before < 8, "killed too late for this test"
    with open(tmp_path / "killed/metrics.jsonl", "a") as file:
        file.write('{"step": 9, "lo')  # as a crash while writing leaves it
    resumed = start(toy_root, tmp_path / "killed", *SETTINGS)
    output, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    assert "going on after step 3" in output or "going on after step 6" in output
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert_same_weights(tmp_path / "killed", tmp_path / "whole", 0.0)


def test_sigterm_saves_exits_with_75_and_resumes_exactly(toy_root, tmp_path):
    stopped = start(toy_root, tmp_path / "run", "model.slow=0.1")
    wait_for_step(stopped, tmp_path / "run", 2)
    stopped.terminate()
    _, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == 75, errors
    assert "stopped by SIGTERM after step" in errors
    step = int(next((tmp_path / "run/checkpoints").iterdir()).name[5:])
    result = train(apply(toy.recipe(toy_root), ["model.slow=0.1"]), tmp_path / "run", resume="must")
    assert result.resumed_from == step
    assert list(losses(tmp_path / "run")) == list(range(1, 13))


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_ctrl_c_saves_although_the_workers_hear_it_too(toy_root, tmp_path):
    running = start(toy_root, tmp_path, "model.slow=0.1", "train.num_workers=1")
    wait_for_step(running, tmp_path, 2)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 75, errors
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


@pytest.mark.parametrize("is_taught", [False, True], ids=["alone", "beside a teacher"])
def test_two_gloo_processes_equal_one_with_two_micro_steps(toy_root, tmp_path, is_taught):
    port, words = free_port(), []
    if is_taught:
        train(apply(toy.recipe(toy_root), ["model.width=24", "train.steps=1"]), tmp_path / "teacher")
        words = [f"distill.teacher={tmp_path / 'teacher'}", "distill.at=features,occ_logits"]
    there = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [start(toy_root, tmp_path / "two", *words, RANK=str(r), LOCAL_RANK=str(r), **there) for r in range(2)]
    outputs = [process.communicate(timeout=180) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs
    train(apply(toy.recipe(toy_root, accumulate=2), words), tmp_path / "one")
    two, one = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert list(two) == list(one) == list(range(1, 13))
    for step in one:
        assert two[step]["loss"] == pytest.approx(one[step]["loss"], rel=1e-5)
        assert two[step]["grad_norm"] == pytest.approx(one[step]["grad_norm"], rel=1e-4)
        assert two[step]["epoch"] == one[step]["epoch"]
    assert_same_weights(tmp_path / "two", tmp_path / "one", 1e-5)
    network = toy.ToyConfig().build()
    load_state(network, read_weights(tmp_path / "two")[0], "two")
    together = EvalReport.from_numbers(json.loads((tmp_path / "two/eval.json").read_text()))
    alone = evaluate(toy.recipe(toy_root), network)
    assert (together.frames, together.results) == (alone.frames, alone.results), "integer counts add up exactly"
    assert sorted(path.name for path in (tmp_path / "two/checkpoints/step_00000012").iterdir() if path.suffix == ".pt") == [
        "rank_0.pt",
        "rank_1.pt",
        "trainer.pt",
    ]


PENDING = """
import torch
from frustum.engine.recipe import RuntimeConfig
from frustum.engine.runtime import make_accelerator

def work():
    accelerator = make_accelerator(RuntimeConfig(device="cpu"))
    network = accelerator.prepare(torch.nn.Linear(8, 8))
    network(torch.ones(4, 8)).sum().backward()
    for _ in range(300):
        torch.distributed.all_reduce(torch.ones(20_000), async_op=True)

work()
"""


def test_processes_part_before_python_ends():
    """Gloo's threads drop tensors after their exchange. Without care, a process aborts if its Python is already going down then."""
    port = free_port()
    ranks = [
        start_python(["-c", PENDING], RANK=str(r), LOCAL_RANK=str(r), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        for r in range(2)
    ]
    outputs = [process.communicate(timeout=180) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs


def assert_same_weights(first: Path, second: Path, tolerance: float) -> None:
    a, b = read_weights(first)[0], read_weights(second)[0]
    assert set(a) == set(b)
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=tolerance)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
