"""Where a training step spends its time: stages of flashocc-tiny, occfeat-mini and FlashOCC M0, and the operations behind them.

    python benchmarks/speed/step.py [--quick] [--json FILE]

Real optimiser steps of the recipes on a street world generated into a temporary folder, in the precision that the recipe chooses here; one
sample a step. M0 takes tens of seconds a step on a CPU, so its figures are of few steps.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from torch.profiler import ProfilerActivity, profile

from frustum.benchmark import Table, benchmark_main
from frustum.engine.feed import TrainingFeed
from frustum.engine.overrides import apply
from frustum.engine.recipe import Recipe
from frustum.engine.runtime import make_accelerator
from frustum.engine.step import Stepper
from frustum.engine.train import build_model
from frustum.recipes.finding import get_recipe
from frustum.worlds.street.generate import generate
from frustum.worlds.street.world_config import WorldConfig

ONE_SAMPLE = ["train.batch_size=1", "train.accumulate=1", "train.num_workers=0", "data.cache=memory"]
CASES = {  # recipe: image size, keyframes, steps before, steps timed
    "flashocc-tiny": ((96, 256), 8, 16, 24),
    "occfeat-mini": ((96, 256), 8, 8, 16),
    "flashocc-r50-m0": ((256, 704), 2, 2, 3),
}
QUICK = {"flashocc-tiny": ((64, 192), 2, 2, 2)}
OPERATIONS = 14  # rows of the second table


class Stopwatch:
    """Wall-clock seconds of functions that are replaced by timed ones, per step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def replace(self, owner: Any, name: str, stage: str) -> None:
        function: Callable = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.add(stage, time.perf_counter() - start)

        setattr(owner, name, timed)

    def add(self, stage: str, seconds: float) -> None:
        self.steps[-1][stage] = self.steps[-1].get(stage, 0.0) + seconds


def measure_recipe(recipe: Recipe, before: int, timed: int) -> Iterator[Table]:
    accelerator = make_accelerator(recipe.runtime, recipe.train.accumulate)
    set_seed(recipe.train.seed)
    source = recipe.data.open()
    feed = TrainingFeed(recipe, source)
    stepper = Stepper(recipe, build_model(recipe, source), accelerator, before + timed, feed.steps_per_epoch)
    watch = Stopwatch()
    watch.replace(stepper.network, "forward", "forward")
    if len(stepper.turns) == 1:  # several turns have losses of their own, which count as rest
        watch.replace(stepper.network, "loss", "loss")
    watch.replace(accelerator, "backward", "backward")
    watch.replace(accelerator, "clip_grad_norm_", "gradient norm and clipping")
    for optimizer in stepper.optimizers:
        watch.replace(optimizer, "step", "optimiser")
    if stepper.ema is not None:
        watch.replace(stepper.ema, "update_parameters", "running average (EMA)")
    for _ in range(before + timed):
        watch.steps.append({})
        start = time.perf_counter()
        batches = feed.next_batches()
        middle = time.perf_counter()
        stepper.step(batches)
        watch.add("data", middle - start)
        watch.add("rest", time.perf_counter() - middle - sum(s for name, s in watch.steps[-1].items() if name != "data"))
    steps = watch.steps[before:]
    stages = ["data", *(name for name in steps[0] if name not in ("data", "rest")), "rest"]
    medians = {stage: statistics.median(step[stage] for step in steps) for stage in stages}
    whole = statistics.median(sum(step.values()) for step in steps)
    what = (
        f"{recipe.name}, {recipe.data.image_size[0]}x{recipe.data.image_size[1]}, one sample, {accelerator.device.type}, "
        f"{'bfloat16' if accelerator.mixed_precision == 'bf16' else 'float32'}"
    )
    yield Table(
        f"Training step of {what}",
        ("stage", "ms", "share, %"),
        [*((stage, 1e3 * seconds, 100 * seconds / whole) for stage, seconds in medians.items()), ("step", 1e3 * whole, 100.0)],
        f"Medians of {timed} steps after {before}; data comes from memory. Medians of stages need not add up to that of the step.",
    )
    count = min(timed, 8)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(count):
            stepper.step(feed.next_batches())
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    rows = [
        (event.key.split("#")[0], event.self_cpu_time_total / count / 1e3, 100 * event.self_cpu_time_total / total, event.count / count)
        for event in events[:OPERATIONS]
    ]
    others = sum(event.self_cpu_time_total for event in events[OPERATIONS:])
    rows.append((f"{max(0, len(events) - OPERATIONS)} others", others / count / 1e3, 100 * others / total, None))
    yield Table(
        f"Operations of that step, {what}",
        ("operation", "ms a step", "share, %", "calls a step"),
        rows,
        f"Self time by torch.profiler over {count} steps, which it slows down a little; it does not see inside numba kernels.",
    )


def measure(quick: bool) -> Iterator[Table]:
    for name, (size, frames, before, timed) in (QUICK if quick else CASES).items():
        with tempfile.TemporaryDirectory() as folder:
            generate(WorldConfig(train_scenes=1, val_scenes=0, frames=frames, image_size=size), Path(folder), workers=1)
            words = [f"data.root={folder}", f"data.image_size={size[0]},{size[1]}", *ONE_SAMPLE]
            yield from measure_recipe(apply(get_recipe(name), words), before, timed)


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
