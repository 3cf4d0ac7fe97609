"""A network over time on a stream: time per frame and memory against the number of past frames; `step` against the full recomputation.

    python benchmarks/speed/streaming.py [--quick] [--json FILE]

Six cameras on a moving vehicle, random weights, evaluation mode: a small network, then one of the published size. Every frame has new
poses, so that pooling plans are made anew, as on the road: one per frame with `warp`, one for each frame of the history with `lift`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from frustum.benchmark import Table, benchmark_main, take_turns
from frustum.geometry import VoxelGrid, pose, rotation_z
from frustum.models.panoptic_flashocc import PanopticFlashOcc, PanopticFlashOccConfig
from frustum.nn.temporal import HistoryConfig
from frustum.nn.temporal_state import Align, TemporalState
from frustum.recipes.finding import get_recipe
from frustum.types.batch import Batch
from frustum.worlds.street.rigs import StreetRig

ALIGNMENTS: tuple[Align, ...] = ("warp", "lift")
PUBLISHED = "panoptic-flashocc-longterm8f"


def road(size: tuple[int, int], device: torch.device) -> Callable[[int, int], Batch]:
    """Gives frame `now` of a drive and `history` frames before it: nuScenes' six cameras, whose images are noise."""
    cameras = StreetRig.nuscenes().cameras
    intrinsics, cam2ego = (np.stack(m) for m in ([c.fitted(*size)[0] for c in cameras], [c.cam2ego.sensor2ego for c in cameras]))
    images = torch.randn(1, 1, len(cameras), 3, *size, device=device)

    def frames(now: int, history: int = 0) -> Batch:
        times = np.arange(now, now - history - 1, -1.0)
        places = pose(rotation_z(0.02 * times), np.stack([3.0 * times, 0.2 * times, 0 * times], -1))  # (T, 4, 4)
        poses = np.repeat(places[None, :, None], len(cameras), 2)
        return Batch.from_arrays(images.expand(1, history + 1, *images.shape[2:]), intrinsics, cam2ego, poses, timestamps=times / 2)

    return frames


def streaming(
    model: PanopticFlashOcc, frames: Callable[[int, int], Batch], states: dict[str, TemporalState], name: str
) -> Callable[[], object]:
    """One call is the next frame of a stream whose history is full."""
    clock = itertools.count()
    for _ in range(model.config.history.frames + 1):
        _, states[name] = model.step(frames(next(clock), 0), states.get(name))

    def run() -> None:
        _, states[name] = model.step(frames(next(clock), 0), states[name])

    return run


def recomputing(model: PanopticFlashOcc, frames: Callable[[int, int], Batch]) -> Callable[[], object]:
    """One call is the next frame from all its images."""
    clock = itertools.count(1000)

    def run() -> None:
        with torch.no_grad():
            model(frames(next(clock), model.config.history.frames))

    return run


@dataclass(frozen=True)
class Setting:
    """A network and what is timed of it.

    Attributes:
        name: of the network, for people.
        config: its settings; histories and alignments are put in.
        size: height and width of its images.
        histories: numbers of past frames.
        recomputed: those for which the full recomputation is timed, too.
        repeats: rounds.
    """

    name: str
    config: PanopticFlashOccConfig
    size: tuple[int, int]
    histories: tuple[int, ...]
    recomputed: tuple[int, ...]
    repeats: int = 3


def settings(quick: bool) -> list[Setting]:
    grid = VoxelGrid.occ3d().scaled(2.5, 2.5, 2)
    widths = {"neck_channels": 64, "lift_channels": 16 if quick else 80, "bev_channels": 32}
    small = PanopticFlashOccConfig(resnet=18, grid=grid, instances=None, **widths)
    if quick:
        return [Setting("ResNet-18", small, (64, 192), (0, 2), (2,), repeats=2)]
    published = get_recipe(PUBLISHED)
    return [
        Setting("ResNet-18", small, (64, 192), (0, 1, 4, 8, 16), (1, 8)),
        Setting(PUBLISHED, published.model, published.data.image_size, (0, 1, 8), (1,)),
    ]


def measure_setting(setting: Setting, device: torch.device) -> Table:
    frames = road(setting.size, device)
    states: dict[str, TemporalState] = {}
    jobs: dict[str, Callable[[], object]] = {}
    for history in setting.histories:
        for align in ALIGNMENTS if history else ALIGNMENTS[:1]:
            past = HistoryConfig(frames=history, align=align)
            model = setting.config.model_copy(update={"history": past}).build().eval().to(device)
            jobs[f"{align} {history}"] = streaming(model, frames, states, f"{align} {history}")
            if align == "warp" and history in setting.recomputed:
                jobs[f"full {history}"] = recomputing(model, frames)
    times = take_turns(jobs, setting.repeats)
    alone = times["warp 0"].median
    rows = []
    for history in setting.histories:
        cells: list[float | None] = []
        for way in (*ALIGNMENTS, "full"):
            time = times.get(f"{way} {history}")
            cells += [None, None] if time is None else [1e3 * time.median, time.median / alone]
        kept = (states[name].num_bytes / 2**20 if (name := f"{a} {history}") in states else None for a in ALIGNMENTS)
        rows.append((str(history), *cells, *kept))
    shape = " x ".join(str(n) for n in (*setting.config.grid.shape[:2], setting.config.lift_channels))
    return Table(
        f"A frame of a stream: {setting.name}, images of {setting.size[0]}x{setting.size[1]}, map of {shape} channels, {device.type}",
        (
            "past frames", "step, warp, ms", "x none", "step, lift, ms", "x none", "recomputed (warp), ms", "x none",
            "memory of the past, warp, MiB", "lift, MiB",
        ),
        rows,
        f"Medians of {setting.repeats} rounds in turn. With warp, the first layer over the joined maps reads 1 + F maps.",
    )  # fmt: skip


def measure(quick: bool) -> Iterator[Table]:
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for setting in settings(quick):
        yield measure_setting(setting, device)


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
