"""Distillation losses: CWD in its plain form, in our torch and in our numba, with gradients; and what every loss costs.

    python benchmarks/speed/distillation.py [--quick] [--json FILE]

The plain form is that of the reference implementations: logits flattened to one row per channel, softmax and log-softmax, a sum. Logits are
random, those of voxels in the order in which an occupancy head leaves them, classes last. Runs on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.benchmark import Table, benchmark_main, peak_rise, take_turns
from frustum.losses import dense_distillation as losses

TAU, PLAIN = 4.0, "plain"
MAPS = {"8 x 19 classes of 65 x 65": (8, 65, 65, 19, False), "occupancy, 18 classes of 200 x 200 x 16 voxels": (1, 200, 200, 16, 18, True)}
QUICK_MAPS = {"2 x 5 classes of 9 x 9": (2, 9, 9, 5, False), "6 classes of 20 x 20 x 4 voxels": (1, 20, 20, 4, 6, True)}


def plain_cwd(student: Tensor, teacher: Tensor) -> Tensor:
    """As published, but by logarithms of the softmax, which the reference's own form loses where a probability rounds to zero."""
    batch, channels = student.shape[:2]
    s, t = (x.reshape(batch * channels, -1) / TAU for x in (student, teacher))
    p = F.softmax(t, 1)
    return TAU**2 * (p * F.log_softmax(t, 1) - p * F.log_softmax(s, 1)).sum() / (batch * channels)


def logits(case: tuple, count: int) -> list[Tensor]:
    """Maps (B, C, *): channels last in memory, or made to lie apart."""
    *shape, is_last = case
    found = (torch.randn(shape).movedim(-1, 1) for _ in range(count))
    return [x if is_last else x.contiguous() for x in found]


def measure_cwd(name: str, case: tuple, repeats: int) -> Table:
    student, teacher = logits(case, 2)
    student.requires_grad_()
    ways: dict[str, Callable[[], Tensor]] = {PLAIN: lambda: plain_cwd(student, teacher)}
    ways["cwd_loss, torch"] = lambda: losses.cwd_loss(student, teacher, TAU, backend="torch")
    ways["cwd_loss, numba"] = lambda: losses.cwd_loss(student, teacher, TAU)
    rows = compare(ways, student, repeats)
    exact = losses.cwd_loss(student.detach().double(), teacher.double(), TAU)
    errors = [abs(float(call().detach() - exact) / float(exact)) for call in ways.values()]
    size = student.numel() * student.element_size() / 2**20
    return Table(
        f"CWD, {name}, CPU",
        ("form", "forward, ms", "x plain", "forward + backward, ms", "x plain", "MiB", "relative error"),
        [(*row, error) for row, error in zip(rows, errors, strict=True)],
        f"Medians of {repeats} rounds in turn, {torch.get_num_threads()} thread(s). MiB: by how much memory rises, with gradients; the "
        f"logits of one network have {size:.3g}. Error: of the value, against float64.",
    )


def measure_all(case: tuple, repeats: int) -> Table:
    student, teacher = logits(case, 2)
    student.requires_grad_()
    labels = torch.randint(0, student.shape[1], student.shape[:1] + student.shape[2:])
    ways: dict[str, Callable[[], Tensor]] = {
        "CWD, plain": lambda: plain_cwd(student, teacher),
        "CWD": lambda: losses.cwd_loss(student, teacher),
        "KD": lambda: losses.kd_loss(student, teacher),
        "pixel-wise": lambda: losses.pixel_loss(student, teacher),
        "pair-wise, pooled": lambda: losses.pair_loss(student, teacher),
        "pair-wise, all positions": lambda: losses.pair_loss(student, teacher, None),
        "AT": lambda: losses.at_loss(student, teacher),
        "IFVD": lambda: losses.ifvd_loss(student, teacher, labels, student.shape[1]),
        "PKD": lambda: losses.pkd_loss(student, teacher),
        "DIST": lambda: losses.dist_loss(student, teacher),
    }
    shape = " x ".join(map(str, student.shape))
    return Table(
        f"Every loss at {shape}, CPU",
        ("loss", "forward, ms", "x plain CWD", "forward + backward, ms", "x plain CWD", "MiB"),
        compare(ways, student, repeats),
        f"Medians of {repeats} rounds in turn, {torch.get_num_threads()} thread(s). MiB: by how much memory rises, with gradients.",
    )


def compare(ways: dict[str, Callable[[], Tensor]], student: Tensor, repeats: int) -> list[tuple]:
    """Rows of a table; ratios are to the first way."""
    jobs: dict[tuple[str, bool], Callable[[], object]] = {}
    for way, call in ways.items():
        jobs[way, False] = torch.no_grad()(call)
        jobs[way, True] = lambda call=call: torch.autograd.grad(call(), student)  # type: ignore[misc]
        jobs[way, True]()  # compiles
    memory = {way: peak_rise(jobs[way, True])["rise_mib"] for way in ways}
    times = take_turns(jobs, repeats, warm_up=0)
    once, twice = ({way: 1e3 * times[way, both].median for way in ways} for both in (False, True))
    first = next(iter(ways))
    return [(way, once[way], once[first] / once[way], twice[way], twice[first] / twice[way], memory[way]) for way in ways]


def measure(quick: bool) -> Iterator[Table]:
    torch.manual_seed(0)
    cases = QUICK_MAPS if quick else MAPS
    for (name, case), repeats in zip(cases.items(), (1, 1) if quick else (15, 3), strict=True):
        yield measure_cwd(name, case, repeats)
    yield measure_all(next(iter(cases.values())), 1 if quick else 5)


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
