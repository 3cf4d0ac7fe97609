"""How many steps fit into a time: times real training steps, so that a slower machine trains less but ends in time.

The schedule runs over steps, not over time, so that a run is the same wherever it is repeated with the number found here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from accelerate.utils import set_seed

from frustum.data.source import Source
from frustum.engine.feed import TrainingFeed
from frustum.engine.progress import progress_bar
from frustum.engine.recipe import Recipe
from frustum.engine.runtime import make_accelerator
from frustum.engine.step import Stepper
from frustum.engine.train import build_model
from frustum.errors import ConfigError


@dataclass(frozen=True)
class SpeedTest:
    """Outcome of `choose_steps`. Store it in the recipe, so that the run can be repeated: override `train.steps` with `steps`."""

    steps: int
    seconds_per_step: float
    timed_steps: int
    limited_by: str  # "time", "minimum" or "maximum"

    def __str__(self) -> str:
        """One line to print."""
        reason = {"time": "which fit the time", "minimum": "the smallest useful number", "maximum": "the largest planned number"}
        measured = f"speed test: {self.seconds_per_step:.3f} s a step over {self.timed_steps} steps"
        return f"{measured}; training {self.steps} steps, {reason[self.limited_by]}"


def choose_steps(
    recipe: Recipe,
    seconds: float,
    minimum: int,
    maximum: int,
    *,
    timed: int = 20,
    warm_up: int = 3,
    data: Source | None = None,
    progress: bool = True,
) -> SpeedTest:
    """Time `timed` optimiser steps of the recipe, data loading included, and choose the number of steps that `seconds` allow.

    Args:
        recipe: as for `train`; its own length is ignored.
        seconds: time for training.
        minimum, maximum: bounds of the result.
        timed, warm_up: steps that are timed, after some that are not (compilation, first allocation, caches).

    Raises:
        ConfigError: bounds that exclude each other. Errors of `train`.
    """
    if not 1 <= minimum <= maximum:
        raise ConfigError(f"the speed test needs 1 <= minimum <= maximum, got {minimum} and {maximum}.")
    accelerator = make_accelerator(recipe.runtime, recipe.train.accumulate)
    set_seed(recipe.train.seed)
    data = data or recipe.data.open()
    began = 0.0
    feed = TrainingFeed(recipe, data, accelerator.process_index, accelerator.num_processes)
    stepper = Stepper(recipe, build_model(recipe, data), accelerator, maximum, feed.steps_per_epoch)
    with progress_bar("speed test", warm_up + timed, show=progress and accelerator.is_main_process) as bar:
        for number in range(warm_up + timed):
            began = time.perf_counter() if number <= warm_up else began
            stepper.step(feed.next_batches())  # reads the loss, so a GPU has finished the step
            bar.advance()
    per_step = (time.perf_counter() - began) / timed
    feed.close()
    fitting = int(seconds / per_step)
    steps = min(max(fitting, minimum), maximum)
    limited_by = "time" if steps == fitting else "minimum" if steps == minimum else "maximum"
    return SpeedTest(steps, per_step, timed, limited_by)
