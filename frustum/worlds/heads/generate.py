"""Write a world of heads: people, clips and frames as portraits with masks and exact truth; in parallel, resumable."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from frustum.config import Config, differences, in_words
from frustum.data.portraits.swaps import HEAD, SWAPS, Swap
from frustum.data.portraits.writer import PortraitWriter
from frustum.errors import ConfigError
from frustum.files import read_object, write_error, write_json
from frustum.locks import owning
from frustum.ops.processes import FILM_ON, worker_pool
from frustum.ops.threads import count_cores
from frustum.version import __version__

Progress = Callable[[int, int], None]
_NUMBERS = {"identities", "clips", "swaps", "train_swaps"}  # settings that change no clip
_PICTURES = 4  # of a swap, and as much work as so many frames
_SETTINGS = "heads.json"


class HeadsConfig(Config):
    """A world of heads on disk."""

    identities: int = Field(20, ge=1, le=90_000, description="people; every fifth is in the split `val`, the others in `train`")
    clips: int = Field(2, ge=1, le=1000, description="clips of each person, each in a scene of its own")
    frames: int = Field(16, ge=1, description="frames of a clip, 25 per second")
    size: int = Field(128, ge=64, le=512, description="height and width in pixels")
    seed: int = Field(0, ge=0)
    swaps: int = Field(4, ge=0, description="true swaps of each person in the split `val` onto others of it, to judge by")
    train_swaps: int = Field(4, ge=0, description="the same in the split `train`, to learn from (data.train_split=train_swaps)")
    people: Literal["drawn", "balanced"] = Field("drawn", description="balanced: as many of every skin tone with every look, see corners")


@dataclass(frozen=True)
class HeadsReport:
    """What `generate_heads` did."""

    root: Path
    identities: int
    clips: int
    frames: int
    generated: int  # pictures that were not there before: frames, and four of each true swap
    seconds: float
    workers: int

    @property
    def rate(self) -> float:
        """Generated pictures per second, 0 if all were there already."""
        return self.generated / self.seconds if self.generated else 0.0


def identity_name(index: int) -> str:
    """Name of a person, as VoxCeleb2 has them."""
    return f"id{10_000 + index:05d}"


def person(config: HeadsConfig, index: int) -> tuple[str, Any]:
    """Corner (empty unless people are balanced) and Identity of a person."""
    from frustum.worlds.heads.corners import corner_identity
    from frustum.worlds.heads.draws import draw_identity

    seed = config.seed * 100_003 + index
    if config.people == "drawn":
        return "", draw_identity(seed)
    corner, identity = corner_identity(index, seed)
    return ", ".join(corner), identity


@owning("root", "frustum data heads", "as OUT")
def generate_heads(
    config: HeadsConfig, root: Path, workers: int | None = None, progress: Progress = lambda done, total: None, overwrite: bool = False
) -> HeadsReport:
    """Write people below `root` as data/portraits reads them, with heads.jpg to look at.

    Clips that are complete are kept, so an interrupted call is resumed by repeating it, and more people or clips join those that are there.
    The files do not depend on the number of workers.

    Args:
        workers: processes; None takes one per core that this process may use, 8 at most.
        progress: called with (frames done, frames in all).
        overwrite: delete what other settings made in this folder, instead of refusing.

    Raises:
        ConfigError: the folder holds heads made with other settings. DataError: the folder cannot be written to.
    """
    from frustum.worlds.heads.render import warm_up
    from frustum.worlds.heads.sheet import contact_sheet

    start = time.perf_counter()
    _settle(config, root, overwrite)
    writer = PortraitWriter(root)
    clips, swaps = [(i, k) for i in range(config.identities) for k in range(config.clips)], _swaps(config)
    missing = [clip for clip in clips if not writer.has_clip(identity_name(clip[0]), clip_name(clip[1]))]
    jobs = [(config.frames, partial(_film, config, root, *clip)) for clip in missing]
    jobs += [
        (_PICTURES, partial(_film_swap, config, root, *swap)) for name, swap in swaps.items() if not writer.has_swap(name, _listed(*swap))
    ]
    total = pictures(config)
    done = total - sum(count for count, _ in jobs)
    progress(done, total)
    workers = max(1, min(workers or min(8, count_cores()), len(jobs) or 1, 61))
    if jobs:
        warm_up()  # compile once, before the workers load the compiled kernels from the cache
    if workers == 1:
        for count, job in jobs:
            job()
            done += count
            progress(done, total)
    else:
        with worker_pool(workers, FILM_ON) as pool:
            waiting = {pool.submit(job): count for count, job in jobs}
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    future.result()
                    done += waiting.pop(future)
                progress(done, total)
    people = {}
    for index in range(config.identities):
        corner, identity = person(config, index)
        people[identity_name(index)] = {"corner": corner} | asdict(identity)
    names = list(people)
    writer.finish({"train": [n for i, n in enumerate(names) if i % 5 != 4], "val": names[4::5]}, people)
    writer.finish_swaps({name: _listed(*swap) for name, swap in swaps.items()})
    if missing or not (root / "heads.jpg").is_file():
        contact_sheet(config, root / "heads.jpg")
    numbers = config.identities, len(clips), len(clips) * config.frames, sum(count for count, _ in jobs)
    return HeadsReport(root, *numbers, time.perf_counter() - start, workers)


def pictures(config: HeadsConfig) -> int:
    """How many pictures a world has: frames of clips, and those of true swaps."""
    return config.identities * config.clips * config.frames + _PICTURES * len(_swaps(config))


def clip_name(index: int) -> str:
    """Name of a clip."""
    return f"clip{index:03d}-0"


def clip_seed(config: HeadsConfig, index: int, clip: int) -> int:
    """Seed of a clip's scene and motion."""
    return (config.seed * 100_003 + index) * 1009 + clip


def _film(config: HeadsConfig, root: Path, index: int, clip: int) -> None:
    """Render a clip and add it to the set."""
    from frustum.worlds.heads.draws import draw_clip, draw_scene
    from frustum.worlds.heads.render import render

    identity, seed = person(config, index)[1], clip_seed(config, index, clip)
    scene = draw_scene(seed, identity)
    writer, name = PortraitWriter(root), (identity_name(index), clip_name(clip))
    truth = {}
    for number, motion in enumerate(draw_clip(seed, config.frames)):
        shot = render(identity, motion, scene, config.size)
        writer.add_frame(*name, f"{number:05d}", shot.image, shot.parsing)
        truth[f"{number:05d}"] = {
            "landmarks": np.round(shot.landmarks.astype(float), 2).tolist(),
            "is_visible": shot.is_visible.astype(int).tolist(),
            "motion": {key: round(value, 5) for key, value in asdict(motion).items()},
        }
    writer.add_truth(*name, truth)


def _swaps(config: HeadsConfig) -> dict[str, tuple[int, int, int, int]]:
    """True swaps by name: the person whose head it is, the one who gets it, clip of both and frame. Partners are the next people of the
    same split."""
    found = {}
    for is_val, count in ((True, config.swaps), (False, config.train_swaps)):
        people = [i for i in range(config.identities) if (i % 5 == 4) == is_val]
        for place, first in enumerate(people):
            for k in range(min(count, len(people) - 1)):
                second = people[(place + 1 + k) % len(people)]
                frame = (first + 7 * k) % config.frames
                found[f"{identity_name(first)}-on-{identity_name(second)}"] = first, second, k % config.clips, frame
    return found


def _listed(first: int, second: int, clip: int, frame: int) -> Swap:
    return Swap(f"{identity_name(first)}/{clip_name(clip)}", f"{identity_name(second)}/{clip_name(clip)}/{frame:05d}")


def _film_swap(config: HeadsConfig, root: Path, first: int, second: int, clip: int, frame: int) -> None:
    """Render a true swap and add it to the set."""
    from frustum.worlds.heads.draws import draw_clip, draw_scene
    from frustum.worlds.heads.render import render
    from frustum.worlds.heads.swap import POLICIES, true_swap

    source, target = person(config, first)[1], person(config, second)[1]
    ours, theirs = (clip_seed(config, index, clip) for index in (first, second))
    motion, scene = draw_clip(theirs, config.frames)[frame], draw_scene(theirs, target)
    own = replace(scene, light=draw_scene(ours, source).light)  # whose neck and clothes hide the same parts of the head
    true = {policy: true_swap(source, target, motion, scene, policy, config.size) for policy in POLICIES}
    shown = {HEAD: render(source, motion, own, config.size).image} | {policy: shot.image for policy, shot in true.items()}
    name, swap = f"{identity_name(first)}-on-{identity_name(second)}", _listed(first, second, clip, frame)
    PortraitWriter(root).add_swap(name, swap, shown, true[POLICIES[0]].parsing)


def _settle(config: HeadsConfig, root: Path, overwrite: bool) -> None:
    """Make sure that what `root` holds was made with these settings, and note them down."""
    path, now = root / _SETTINGS, {"frustum": __version__} | config.model_dump(mode="json", exclude=_NUMBERS)
    other = ""
    if path.is_file():
        other = in_words(differences(read_object(path, "settings of the heads"), now))
    elif (root / "img").exists():
        other = "they were not written down"
    if other:
        if not overwrite:
            raise ConfigError(
                f"{root} holds portraits made with other settings: {other}. Give another folder; or delete them and make these with "
                "--overwrite. Only the numbers of people and clips may change."
            )
        try:
            for folder in ("img", "mask", "truth", SWAPS):
                if (root / folder).exists():
                    shutil.rmtree(root / folder)
            for file in ("people.json", "splits.json", f"{SWAPS}.json", "heads.jpg"):
                with contextlib.suppress(FileNotFoundError):
                    (root / file).unlink()
        except OSError as error:
            raise write_error(root, error) from error
    if other or not path.is_file():
        write_json(path, now, indent=2)
