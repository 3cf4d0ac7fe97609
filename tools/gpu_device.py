"""The device of tools/gpu_check.py: a GPU, or the CPU in its place; and what a part is given."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SHRUNK = ["model.resnet=18", "model.neck_channels=8", "model.lift_channels=8", "model.bev_channels=16", "data.image_size=64,192"]


class Gpu:
    """What the parts need of a GPU."""

    name = "cuda"
    timed_calls = 20  # of a short job between two waits
    sizes: tuple[str, ...] = ()  # overrides that shrink a published recipe
    small = False
    precision = "bf16"

    def wait(self) -> None:
        """Until all work is done."""
        import torch

        torch.cuda.synchronize()

    def reset_memory(self) -> None:
        """Begin a new measurement of the largest use, beyond what is held now."""
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self._held = torch.cuda.memory_allocated()

    def memory(self) -> float | None:
        """Largest use since `reset_memory` beyond what was held then, GiB."""
        import torch

        return (torch.cuda.max_memory_allocated() - self._held) / 2**30

    def graph(self, run: Callable[[], Any]) -> Callable[[], Any]:
        """The job as a CUDA graph: called again without the host's share; returns what `run` returned, refilled."""
        import torch

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = run()

        def replay() -> Any:
            graph.replay()
            return result

        return replay

    def count_waits(self, run: Callable[[], Any]) -> int:
        """How often the host waits for the GPU in a job, by torch's sync debug mode."""
        import torch

        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as noted:
                warnings.simplefilter("always")
                run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(warning.message) for warning in noted)


class StandIn(Gpu):
    """The CPU in place of a GPU, with small sizes."""

    name, timed_calls, sizes, small = "cpu", 1, tuple(SHRUNK), True
    precision = "fp32"  # without the instructions for it, bfloat16 takes a CPU twenty times as long

    def wait(self) -> None:
        """Nothing to wait for."""

    def reset_memory(self) -> None:
        """Not measured."""

    def memory(self) -> None:
        """Not measured."""

    def graph(self, run: Callable[[], Any]) -> Callable[[], Any]:
        """The job itself."""
        run()
        return run

    def count_waits(self, run: Callable[[], Any]) -> int:
        """None: a CPU does its work at once."""
        run()
        return 0


class Run(NamedTuple):
    """What a part is given: the device, when it must end (`time.monotonic`), and a folder for its files."""

    gpu: Gpu
    deadline: float
    out: Path

    @property
    def seconds_left(self) -> float:
        """Until the deadline."""
        return self.deadline - time.monotonic()


@contextlib.contextmanager
def noted(failed: list[str], what: str) -> Iterator[None]:
    """Add an exception to the list, so that the rest goes on."""
    try:
        yield
    except Exception as error:
        failed.append(f"{what}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}")
        print(f"FAILED {failed[-1]}", flush=True)
