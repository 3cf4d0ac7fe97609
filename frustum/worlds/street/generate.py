"""Generate a street world on disk: scenes in parallel processes, resumable, byte-identical for any number of workers."""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing
import time
import zlib
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from frustum.data.nuscenes.writer import DatabaseWriter
from frustum.locks import owning
from frustum.ops.processes import FILM_ON, worker_pool
from frustum.ops.threads import count_cores
from frustum.worlds.street.kept import settle
from frustum.worlds.street.world_config import WorldConfig

Progress = Callable[[int, int], None]
_MOST_WORKERS = 61  # what Windows can wait for


@dataclass(frozen=True)
class GenerationReport:
    """What `generate` did."""

    root: Path
    scenes: int
    keyframes: int
    generated: int  # keyframes that were not there before
    seconds: float
    workers: int

    @property
    def rate(self) -> float:
        """Generated keyframes per second, 0 if all were there already."""
        return self.generated / self.seconds if self.generated else 0.0


@owning("root", "frustum data world", "as OUT")
def generate(
    config: WorldConfig, root: Path, workers: int | None = None, progress: Progress = lambda done, total: None, overwrite: bool = False
) -> GenerationReport:
    """Write the world that `config` describes below `root`, in the nuScenes table format with Occ3D labels.

    Scenes that are complete already are kept, so an interrupted call is resumed by repeating it. A scene enters the tables only when
    all its files are written. Of the scenes of this seed, the tables hold those that `config` asks for; the others' files stay, for a
    later call that wants them back. Scenes of other seeds and imported ones stay in the tables and in their splits.

    Args:
        root: the folder; created if needed.
        workers: processes, 61 at most; None takes one per core that this process may use, 8 at most.
        progress: called with (keyframes done, keyframes in all).
        overwrite: delete a world of this seed with other settings that the folder holds, instead of refusing.

    Raises:
        ConfigError: the folder holds a world of this seed with other settings, whole or in part (see kept.py).
        DataError: the folder cannot be written, or is full, or holds a scene that starts when one of these does.
    """
    start = time.perf_counter()
    settle(config, root, overwrite)
    writer = DatabaseWriter(root, config.version)
    splits = config.scene_names()
    names = splits["train"] + splits["val"]
    for name in writer.scenes():
        if name.startswith(config.scene_prefix) and name not in names:
            writer.set_aside(name)
    for name in names:
        writer.take_back(name)
    missing = [name for name in names if not writer.has_scene(name, config.fingerprint())]
    if missing:
        writer.prepare({name: first_stamp(config, name) for name in missing})
    total, done = len(names) * config.frames, (len(names) - len(missing)) * config.frames
    progress(done, total)
    workers = max(1, min(workers or usable_cores(), len(missing) or 1, _MOST_WORKERS))
    if missing and workers == 1:
        for name in missing:
            _film(config, root, name, _ticker(progress, done, total))
            done += config.frames
    elif missing:
        _film_in_parallel(config, root, missing, workers, lambda n: progress(done + n, total))
    writer.finish({split: scenes for split, scenes in splits.items() if scenes}, keep_splits=True)
    return GenerationReport(root, len(names), total, len(missing) * config.frames, time.perf_counter() - start, workers)


def usable_cores() -> int:
    """Cores that this process may use, 8 at most."""
    return min(8, count_cores())


def first_stamp(config: WorldConfig, name: str) -> int:
    """Timestamp of the first keyframe of a scene, microseconds: its clock starts with the first camera's exposure."""
    return config.start_stamp(scene_number(name)[0]) + round(config.camera_spread * 1e6)


def scene_number(name: str) -> tuple[int, int]:
    """Index and random seed of a scene, functions of its name alone: any scene can be made without the others."""
    return int(name.rsplit("-", 1)[1]), zlib.crc32(name.encode())


def _film(config: WorldConfig, root: Path, name: str, on_keyframe: Callable[[], None]) -> None:
    """Make one scene and add it to the database."""
    # Imported here, so that asking for the world's settings does not load the compiled kernels.
    from frustum.worlds.street.filming import Filmer
    from frustum.worlds.street.scene import build_scene

    number, seed = scene_number(name)
    filmer = Filmer(build_scene(name, seed, config.scene_config()), config.rig, config, root, number)
    DatabaseWriter(root, config.version).add_scene(filmer.film(on_keyframe))


def _ticker(progress: Progress, done: int, total: int) -> Callable[[], None]:
    """A function that reports one more keyframe each time."""
    counter = itertools.count(done + 1)
    return lambda: progress(next(counter), total)


_QUEUE: Any = None  # in a worker process: where it reports keyframes
_COMPILING = 120.0  # seconds that a worker waits for the compiled kernels before it makes its own


def _start_worker(queue: Any, compiled: Any) -> None:
    global _QUEUE
    _QUEUE = queue
    import torch

    from frustum.worlds.street import filming, scene  # noqa: F401  loading takes as long as the first process needs to compile

    torch.set_num_threads(1)
    gc.freeze()  # what was imported stays: the collector need not walk through all of torch again and again
    compiled.wait(_COMPILING)


def _film_in_worker(config_json: str, root: str, name: str) -> None:
    _film(WorldConfig.model_validate_json(config_json), Path(root), name, lambda: _QUEUE.put(name))


def _film_in_parallel(config: WorldConfig, root: Path, names: list[str], workers: int, tick: Callable[[int], None]) -> None:
    from frustum.worlds.street.render import warm_up

    context = multiprocessing.get_context("spawn")
    queue, compiled = context.Queue(), context.Event()
    keyframes = 0
    with worker_pool(workers, FILM_ON, _start_worker, (queue, compiled)) as pool:
        try:
            waiting = {pool.submit(_film_in_worker, config.model_dump_json(), str(root), name) for name in names}
            warm_up()  # compile once, before the workers load the compiled kernels from the cache
            compiled.set()
            while waiting:
                finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                with contextlib.suppress(Empty):
                    while True:
                        queue.get_nowait()
                        keyframes += 1
                tick(keyframes)
        finally:
            compiled.set()
