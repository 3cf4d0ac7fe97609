"""Commands that are killed at any moment, or run out of disk, and are then given again: nothing half-written, and the same in the end."""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import io
import json
import os
import shutil
import signal
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from frustum.checkpoint.weights_file import read_weights
from frustum.data.labels.view_cache import write_views
from frustum.data.labels.view_points import Views
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.rig.importer import import_rig
from frustum.engine.metrics_log import read_lines
from frustum.engine.predict import predict
from frustum.engine.train import train
from frustum.errors import OutputError
from frustum.weights.conversion import convert
from frustum.worlds.street.generate import WorldConfig, generate
from tests.data.toy import VERSION, toy_database
from tests.drill.corpus import write_rig
from tests.drill.outcome import digest
from tests.engine import toy

SECONDS = 240  # after which a command that nobody disturbs hangs


@dataclass(frozen=True)
class Command:
    """What is disturbed.

    Attributes:
        name: in the table.
        prepare: writes what it reads into a folder.
        work: the command, from that folder into another one.
        result: what of the second folder must be equal, however often the command was disturbed.
    """

    name: str
    prepare: Callable[[Path], Any]
    work: Callable[[Path, Path], Any]
    result: Callable[[Path], Any]


def _train(source: Path, out: Path) -> None:
    train(toy.recipe(source, steps=8, checkpoint_every=2), out, progress=False)


def _trained(out: Path) -> Any:
    losses = {line["step"]: (line["loss"], line["losses"]) for line in read_lines(out / "metrics.jsonl")}
    return losses, read_weights(out)[0]


def _predict(source: Path, out: Path) -> None:
    recipe = toy.recipe(source)
    torch.manual_seed(0)
    data = recipe.data.open()
    predict(recipe.model.build().eval(), recipe, data, data.tokens(), out, progress=False)


def _state(source: Path) -> None:
    torch.manual_seed(0)
    source.mkdir()
    torch.save({"state_dict": toy.ToyConfig().build().state_dict()}, source / "w.pth")


def _label(source: Path, out: Path) -> None:
    database = NuScenes(source, VERSION)
    write_views(database, database.tokens(), out, Views(source="lidarseg"))


def _film(_: Path, out: Path) -> None:
    generate(WorldConfig(train_scenes=2, val_scenes=0, frames=1, image_size=(32, 64)), out, workers=1)


def _import(source: Path, out: Path) -> None:
    import_rig(source, out, scene="own")


def contents(out: Path) -> Any:
    """Everything in the files of a folder but when they were written; archives by what is in them."""
    return {str(path.relative_to(out)): _content(path) for path in sorted(out.rglob("*")) if path.is_file()}


COMMANDS = (
    Command("train, resumed", lambda source: toy.write_database(source, 1, 1, 3), _train, _trained),
    Command("predict", lambda source: toy.write_database(source, 1, 1, 3), _predict, contents),
    Command(
        "weights convert", _state,
        lambda source, out: convert(source / "w.pth", out / "w.safetensors", "frustum", "tests.engine.toy:recipe"),
        lambda out: read_weights(out / "w.safetensors")[0],
    ),
    Command("data labels-2d", partial(toy_database, num_scenes=1, num_keyframes=3), _label, contents),
    Command("data import rig", write_rig, _import, contents),
    Command("data world", lambda source: source.mkdir(), _film, contents),
)  # fmt: skip


# ---- what is half-written --------------------------------------------------------------------------------------------------------


def _content(path: Path) -> Any:
    """What is in a file; raises for one that is not whole."""
    data = path.read_bytes()
    if path.suffix == ".npz":
        with np.load(io.BytesIO(data)) as archive:
            return {name: archive[name] for name in archive.files}
    if path.suffix == ".gz":
        return zlib.crc32(gzip.decompress(data))
    if path.suffix == ".json":
        return json.loads(data)
    if path.suffix in (".png", ".jpg"):
        return np.asarray(Image.open(io.BytesIO(data)))
    if path.suffix == ".safetensors":
        return read_weights(path)[0]
    if path.suffix == ".pt":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
    return zlib.crc32(data)


def half_written(out: Path) -> list[str]:
    """Files that have their names and are not whole. Temporary ones are left out, and the log, which is written line by line."""
    found = []
    for path in out.rglob("*"):
        parts = path.relative_to(out).parts
        if not path.is_file() or any(part.startswith(".") for part in parts) or path.suffix == ".jsonl":
            continue
        try:
            _content(path)
        except Exception as error:
            found.append(f"{path.relative_to(out)} is half-written: {error!s:.100}")
    return found


def left_over(out: Path) -> list[str]:
    """Temporary files that are still there after the command was given again."""
    return [f"{path.relative_to(out)} was left" for path in out.rglob(".*") if path.name != ".frustum-lock"]


# ---- processes -------------------------------------------------------------------------------------------------------------------


def forked(work: Callable[[], Any], kill_after: float | None = None) -> tuple[int | None, str]:
    """Run in a process of its own, which is killed after some seconds if it still runs then.

    Returns:
        Its exit code, None if it was killed, and what it said: the error, or "".
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code, said = 0, ""
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                said = work() or ""
        except BaseException as error:
            code = getattr(error, "exit_code", 1) if isinstance(getattr(error, "exit_code", 1), int) else 1
            said = f"{type(error).__name__}: {error}" if hasattr(error, "exit_code") else traceback.format_exc()[-600:]
        os.write(writer, str(said).encode()[:4000])
        os._exit(code)
    os.close(writer)
    began, status = time.monotonic(), None
    while status is None and time.monotonic() - began < (SECONDS if kill_after is None else kill_after):
        pid, found = os.waitpid(child, os.WNOHANG)
        status = found if pid else None
        time.sleep(0.002)
    if status is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode()
    return None if status is None else os.waitstatus_to_exitcode(status), said


@dataclass
class Disturbed:
    """What came of one command that was disturbed several times."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def blame(self, about: str, problems: list[str]) -> None:
        """Note down what is wrong."""
        self.bad += [f"{self.name}, {about}: {problem}" for problem in problems]


def kill(command: Command, folder: Path, times: int, seed: int = 0, enough: Callable[[], bool] = lambda: False) -> Disturbed:
    """Kill a command at random moments, give it again each time, and compare with one that nobody disturbed."""
    found, rng = Disturbed(command.name), np.random.default_rng([seed, zlib.crc32(command.name.encode())])
    folder.mkdir(parents=True)
    source, whole = folder / "source", folder / "whole"
    command.prepare(source)
    began = time.monotonic()
    code, said = forked(partial(command.work, source, whole))
    assert code == 0, f"{command.name} fails although nobody disturbs it: {said}"
    seconds, sound = time.monotonic() - began, digest(command.result(whole))
    for number in range(times):
        if enough():
            break
        out, about = folder / f"killed-{number}", f"seed {seed} kill {number}"
        wanted, killed = int(rng.integers(1, 4)), 0
        for _ in range(5 * wanted):
            began = time.monotonic()
            code, said = forked(partial(command.work, source, out), kill_after=float(rng.random() * seconds))
            found.blame(about, half_written(out))
            found.blame(about, [said] if code else [])
            killed += code is None
            if killed == wanted:
                break
            if code is not None:  # it was faster: once more, from the start
                seconds = min(seconds, time.monotonic() - began)
                shutil.rmtree(out)
        found.counts["killed"] += killed
        code, said = forked(partial(command.work, source, out))
        if code != 0:
            found.blame(about, [f"the same command does not go on: {said or 'it hangs'}"])
            continue
        found.blame(about, left_over(out))
        is_equal = digest(command.result(out)) == sound
        found.counts["equal in the end"] += is_equal
        found.blame(about, [] if is_equal else ["another result in the end"])
        shutil.rmtree(out)
    return found


# ---- disks -----------------------------------------------------------------------------------------------------------------------


_NEW_MOUNTS, _PRIVATE, _REMOUNT = 0x20000, 1 << 18 | 1 << 14, 32  # of unshare(2) and mount(2)


def _disk(folder: Path, kilobytes: int, flags: int = 0) -> None:
    """Mount a disk of that size, or give the one that is there another size. Raises OSError where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", flags, f"size={kilobytes}k".encode()):
        raise OSError(ctypes.get_errno(), "mount")


def _own_mounts() -> None:
    """Mounts of this process are its own from here on, and gone with it. Raises OSError where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS) or libc.mount(b"none", b"/", None, _PRIVATE, None):
        raise OSError(ctypes.get_errno(), "unshare")


def may_mount(folder: Path) -> bool:
    """Whether a process may mount a small disk for itself."""
    folder.mkdir(parents=True, exist_ok=True)

    def attempt() -> None:
        _own_mounts()
        _disk(folder, 64)

    return forked(attempt)[0] == 0


@contextlib.contextmanager
def _small_disk(out: Path, kilobytes: int) -> Iterator[Callable[[], None]]:
    """A disk of that size at `out`; gives a function that makes it large."""
    _own_mounts()
    out.mkdir()
    _disk(out, kilobytes)
    yield lambda: _disk(out, 1 << 20, _REMOUNT)


@contextlib.contextmanager
def _small_files(out: Path, kilobytes: int) -> Iterator[Callable[[], None]]:
    """Files of that size at most, as `ulimit -f` sets it; gives a function that takes the limit away."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10, hard))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def fill(command: Command, folder: Path, times: int, seed: int = 0, enough: Callable[[], bool] = lambda: False) -> Disturbed:
    """Give a command too small a disk, or a limit of file sizes, then room, and compare with one that had it at once."""
    found, rng = Disturbed(command.name), np.random.default_rng([seed, zlib.crc32(command.name.encode()), 1])
    folder.mkdir(parents=True)
    source, whole = folder / "source", folder / "whole"
    command.prepare(source)
    code, said = forked(partial(command.work, source, whole))
    assert code == 0, f"{command.name} fails although nobody disturbs it: {said}"
    sound = digest(command.result(whole))
    sizes = [path.stat().st_size for path in whole.rglob("*") if path.is_file()]
    limited, most = (_small_disk, sum(sizes)) if may_mount(folder / "try") else (_small_files, max(sizes))
    found.counts["a small disk" if limited is _small_disk else "a limit of file sizes"] = times
    for number in range(times):
        if enough():
            break
        out, about = folder / f"full-{number}", f"seed {seed} disk {number}"
        kilobytes = 4 + int(rng.uniform(0, 1.1) * most) // 1024

        def attempt(out: Path = out, kilobytes: int = kilobytes) -> str:
            with limited(out, kilobytes) as make_room:
                problems = []
                try:
                    command.work(source, out)
                    said = "fits"
                except OutputError as error:
                    said = "refused"
                    reasons = ("disk is full", "ulimit -f", "MB free", "cannot write")
                    problems += [] if any(reason in str(error) for reason in reasons) else [f"the reason is not said: {error}"]
                except Exception:
                    said, problems = "traceback", [f"an error that is not ours: {traceback.format_exc()[-500:]}"]
                problems += half_written(out) if out.exists() else []
                make_room()
                command.work(source, out)
                problems += left_over(out)
                is_equal = digest(command.result(out)) == sound
                problems += [] if is_equal else ["another result once there is room"]
                return json.dumps([said, is_equal, problems])

        code, said = forked(attempt)
        if code != 0:
            found.blame(about, [f"with {kilobytes} kB, the same command does not go on once there is room: {said or 'it hangs'}"])
            continue
        kind, is_equal, problems = json.loads(said)
        found.counts[kind] += 1
        found.counts["equal in the end"] += is_equal
        found.blame(about, problems)
    return found
