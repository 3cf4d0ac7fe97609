"""The whole FlashOCC M0 forward at 256x704, six cameras: eager, channels-last, bfloat16, torch.compile; and what its parts take.

    python benchmarks/speed/forward.py [--quick] [--json FILE]

One sample, evaluation mode, random weights. The pooling plan is made in the warm-up, as for any rig that was seen before.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from frustum.benchmark import Table, benchmark_main, take_turns
from frustum.engine.recipe import RuntimeConfig
from frustum.engine.runtime import place
from frustum.recipes.finding import get_recipe
from frustum.types.batch import Batch
from frustum.worlds.street.rigs import StreetRig

WAYS = {  # name: channels_last, bfloat16, compiled
    "eager, float32": (False, False, False),
    "channels-last, float32": (True, False, False),
    "channels-last, bfloat16": (True, True, False),
    "channels-last, float32, torch.compile": (True, False, True),
    "channels-last, bfloat16, torch.compile": (True, True, True),
}
PLAIN = "eager, float32"


def one_sample(size: tuple[int, int], device: torch.device) -> Batch:
    """nuScenes' six cameras, which see noise."""
    cameras = StreetRig.nuscenes().cameras
    intrinsics, cam2ego = (np.stack(m) for m in ([c.fitted(*size)[0] for c in cameras], [c.cam2ego.sensor2ego for c in cameras]))
    return Batch.from_arrays(torch.randn(1, len(cameras), 3, *size, device=device), intrinsics, cam2ego)


def measure(quick: bool) -> Iterator[Table]:
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = get_recipe("flashocc-r50-m0")
    size, config = recipe.data.image_size, recipe.model
    if quick:
        size, config = (64, 192), config.model_copy(update={"resnet": 18, "bev_channels": 16, "lift_channels": 8})
    batch, repeats = one_sample(size, device), 2 if quick else 7
    state = config.build().state_dict()

    def make(channels_last: bool, half: bool, compiled: bool) -> tuple[nn.Module, Callable[[], Tensor]]:
        network = config.build()
        network.load_state_dict(state)
        network = place(network, RuntimeConfig(channels_last=channels_last, compile=compiled), device).eval()

        def run() -> Tensor:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
                return network(batch)["occ_logits"]

        return network, run

    networks, jobs, outputs, first, failed = {}, {}, {}, {}, {}
    ways = {name: way for name, way in WAYS.items() if not quick or name != "channels-last, float32, torch.compile"}  # compiles for long
    for name, way in ways.items():
        networks[name], run = make(*way)
        start = time.perf_counter()
        try:
            outputs[name] = run()
        except Exception as error:  # torch.compile needs a C++ compiler, which not every machine has
            if not way[2]:
                raise
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
            continue
        first[name], jobs[name] = time.perf_counter() - start, run
    times = take_turns(jobs, repeats)
    rows: list[tuple] = []
    for name in ways:
        if name in failed:
            rows.append((f"{name}: not measured, {failed[name]}", None, None, None, None, None))
            continue
        same = (outputs[name].argmax(-1) == outputs[PLAIN].argmax(-1)).float().mean()
        time_ = times[name]
        rows.append((name, 1e3 * time_.median, times[PLAIN].median / time_.median, 100 * time_.spread, first[name], 100 * float(same)))
    what = f"{'M0 with ResNet-18, narrow' if quick else 'FlashOCC M0'}, {size[0]}x{size[1]}, one sample of six cameras, {device.type}"
    yield Table(
        f"Forward of {what}",
        ("way", "ms", "x eager", "spread, %", "first call, s", "voxels as eager, %"),
        rows,
        f"Medians of {repeats} rounds in turn; spread: middle half of the rounds. The first call makes the plan, and compiles. "
        "Random weights leave many voxels undecided, so that trained ones agree more often.",
    )
    shares = {name: part_times(networks[name], jobs[name], repeats) for name in list(WAYS)[:3]}
    yield Table(
        f"Parts of that forward, {what}",
        ("part", *(f"{name}, {unit}" for name in shares for unit in ("ms", "%"))),
        [(part, *(x for s in shares.values() for x in (1e3 * s[part], 100 * s[part] / s["all"]))) for part in next(iter(shares.values()))],
        f"Medians of {repeats} rounds in turn.",
    )


def part_times(network: nn.Module, run: Callable[[], Tensor], repeats: int) -> dict[str, float]:
    """Median seconds in each child of the network, in the rest, and in all."""
    waiting = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    spent: dict[str, list[float]] = {name: [] for name, child in network.named_children() if any(True for _ in child.parameters())}
    began: dict[str, float] = {}

    def before(name: str) -> Callable:
        def hook(*_: object) -> None:
            waiting()
            began[name] = time.perf_counter()

        return hook

    def after(name: str) -> Callable:
        def hook(*_: object) -> None:
            waiting()
            spent[name].append(time.perf_counter() - began[name])

        return hook

    hooks = []
    for name in spent:
        child = network.get_submodule(name)
        hooks += [child.register_forward_pre_hook(before(name)), child.register_forward_hook(after(name))]
    whole = take_turns({"all": run}, repeats)["all"]
    for hook in hooks:
        hook.remove()
    spent = {name: values[1:] for name, values in spent.items()}  # the first round warms up
    rest = [all_ - sum(parts) for all_, *parts in zip(whole.seconds, *spent.values(), strict=True)]
    return {name: statistics.median(values) for name, values in (spent | {"rest": rest, "all": list(whole.seconds)}).items()}


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
