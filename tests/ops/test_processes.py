"""Working processes end with their parent, and one that is killed is explained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from frustum.errors import DiedError
from frustum.files import is_alive
from frustum.ops.processes import deaths_explained, worker_pool

PARENT = """
import os, time
from frustum.ops.processes import worker_pool
if __name__ == "__main__":
    with worker_pool(1, "") as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_workers_end_when_their_parent_is_killed(tmp_path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert is_alive(worker)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while is_alive(worker):
        assert time.monotonic() < deadline, "an orphan"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_worker_is_explained() -> None:
    with (
        pytest.raises(DiedError, match=r"ended from outside by SIGKILL: mostly .* memory runs out.*\. Run it again\."),
        worker_pool(1, "Run it again.") as pool,
    ):
        pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL).result()


def test_an_error_of_the_work_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="invalid literal"), worker_pool(1, "") as pool:
        pool.submit(int, "x").result()


@pytest.mark.parametrize(
    ("text", "size", "words"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "1", r"loading process \(7\).*SIGKILL.*memory.*num_workers=0"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that", "1", r"SIGBUS.*/dev/shm"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "1", r"loading process \(7, 8\).*memory"),
        ("[pair.cc:534] Connection closed by peer [127.0.0.1]:31337", "2", "another process of this command ended.*memory"),
    ],
)
def test_what_torch_says_of_the_dead_is_explained(text: str, size: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)

    @deaths_explained
    def work() -> None:
        raise RuntimeError(text)

    with pytest.raises(DiedError, match=words) as caught:
        work()
    assert caught.value.exit_code == 8
    assert "same command goes on" in str(caught.value)


@pytest.mark.parametrize("text", ["shape mismatch", "Connection closed by peer"])
def test_other_errors_pass(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    @deaths_explained
    def work() -> None:
        raise RuntimeError(text)

    with pytest.raises(RuntimeError, match=text) as caught:
        work()
    assert not isinstance(caught.value, DiedError)
