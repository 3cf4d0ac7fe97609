"""Pictures of procedural heads: processor time of one core for each size, with everything that is known of them.

    python benchmarks/speed/heads.py [--quick] [--json FILE]

People, motions and scenes are drawn anew for every picture. Compilation is not counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from frustum.benchmark import Table, benchmark_main
from frustum.worlds.heads.draws import draw_identity, draw_motion, draw_scene
from frustum.worlds.heads.render import render, warm_up


def milliseconds(seed: int, size: int) -> float:
    """Processor time of one picture, drawing its person included."""
    start = time.process_time()
    identity = draw_identity(seed)
    render(identity, draw_motion(seed), draw_scene(seed, identity), size)
    return 1e3 * (time.process_time() - start)


def measure(quick: bool) -> Iterator[Table]:
    """One table: sizes, median and slowest picture."""
    warm_up()
    count = 3 if quick else 40
    sizes = (64, 128, 256, 512)
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for seed in range(count):
        for size in sizes:
            found[size].append(milliseconds(seed, size))
    rows = [(f"{size} x {size}", statistics.median(times), max(times)) for size, times in found.items()]
    note = f"Medians of {count} people, 2 x 2 sub-pixels; 68 landmarks, parsing, matte and depth included."
    yield Table("A picture of a head, one core", ("pixels", "ms", "slowest ms"), rows, note)


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
