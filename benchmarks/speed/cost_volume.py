"""The cost volume of stereo: the published form by groups of channels, one depth at a time in torch, and one pass in numba.

    python benchmarks/speed/cost_volume.py [--quick] [--json FILE]

One of the six cameras of FlashOCC's M2: 256 channels at 64 x 176, 88 depths.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.benchmark import Table, benchmark_main, take_turns
from frustum.ops.cost_volume import cost_volume


def by_groups(current: Tensor, before: Tensor, lookup: Tensor, unseen: float = 5.0) -> Tensor:
    """As BEVDet writes it: four channels of all depths at once."""
    m, c, h, w = current.shape
    bins = lookup.shape[1]
    places, cost, seen = lookup.reshape(m, bins * h, w, 2), 0, current
    for first in range(0, c, 4):
        seen = F.grid_sample(before[:, first : first + 4], places, align_corners=True).view(m, 4, bins, h, w)
        cost = cost + (current[:, first : first + 4, None] - seen).abs().sum(1)
    return cost + unseen * (seen[:, 0] == 0)


def measure(quick: bool) -> Iterator[Table]:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    (c, h, w), bins = ((32, 16, 44), 22) if quick else ((256, 64, 176), 88)
    current, before = (torch.randn(1, c, h, w, device=device).relu() for _ in range(2))
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    shift = torch.linspace(0.5, 0.01, bins).view(1, bins, 1, 1, 1)  # near places move far between frames
    lookup = (torch.stack([x, y], -1) * (1 - 0.2 * shift) + shift * torch.tensor([1.0, 0.0])).to(device)
    jobs = {"by groups of channels, as published": lambda: by_groups(current, before, lookup)}
    jobs["torch, by depths"] = lambda: cost_volume(current, before, lookup, backend="torch")
    if device == "cpu":
        jobs["numba"] = lambda: cost_volume(current, before, lookup, backend="numba")
    reference = by_groups(current, before, lookup)
    apart = {name: (job() - reference).abs().max().item() for name, job in jobs.items()}
    repeats = 2 if quick else 3
    times = take_turns(jobs, repeats)
    slowest = times["by groups of channels, as published"].median
    rows = [(name, 1e3 * t.median, slowest / t.median, apart[name]) for name, t in times.items()]
    note = f"Medians of {repeats} rounds in turn, {torch.get_num_threads()} thread(s); costs are sums of {c} absolute differences."
    yield Table(
        f"Cost volume of one image, {c} channels at {h} x {w}, {bins} depths, {device}",
        ("form", "ms", "x as published", "largest difference"),
        rows,
        note,
    )


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
