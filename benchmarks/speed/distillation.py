"""Distillation losses: CWD in its plain form and in ours, with gradients; what every loss costs, and what it adds to a training step.

    python benchmarks/speed/distillation.py [--quick] [--json FILE]

The plain form is that of the reference implementations: logits flattened to one row per channel, softmax and log-softmax, a sum. Logits are
random, those of voxels in the order in which an occupancy head leaves them, classes last. The step is that of docs/methods/cwd.md:
pspnet-small beside pspnet-lite, eight windows of 144 x 192 pixels, without the optimiser. Runs on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frustum.benchmark import Table, benchmark_main, peak_rise, take_turns
from frustum.data.labels.pixels import PixelLabels
from frustum.engine.overrides import apply
from frustum.losses import dense_distillation as losses
from frustum.nn.adapters import Adapter, to_same_size
from frustum.recipes.finding import get_recipe
from frustum.types.batch import Batch

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
    for backend in ("torch", "recompute"):
        ways[f"cwd_loss, {backend}"] = lambda backend=backend: losses.cwd_loss(student, teacher, TAU, backend=backend)  # type: ignore[misc]
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


def measure_steps(batch: int, size: tuple[int, int], repeats: int) -> Table:
    """A step of a student, forward and backward, without a teacher and with each loss; features through an adapter where it needs one."""
    torch.manual_seed(0)
    names = ("pspnet-small", "pspnet-lite")
    student, teacher = (apply(get_recipe(name), ["model.pretrained=false"]).model.build() for name in names)
    student, teacher = student.train(), teacher.eval()
    images = torch.rand(batch, 3, *size)
    labels = torch.randint(0, len(student.config.class_names), (batch, *size))
    samples = Batch.of_images(images).with_labels({PixelLabels: labels.to(torch.uint8)})
    with torch.no_grad():
        wide, narrow = (network(samples)["features"].shape[1] for network in (teacher, student))
    adapter, nothing = Adapter(narrow, wide), Adapter(narrow, narrow)

    def step(loss: Callable[[Tensor, Tensor], Tensor] | None, name: str, between: nn.Module = nothing) -> None:
        outputs = student(samples)
        total = torch.stack(list(student.loss(outputs, samples).values())).sum()
        if name:
            with torch.no_grad():
                seen = teacher(samples)
        if loss is not None:
            found = between(outputs[name]) if name == "features" else outputs[name]
            total = total + loss(*to_same_size(found, seen[name]))
        total.backward()
        student.zero_grad()

    ids = samples.need(PixelLabels)
    classes = len(student.config.class_names)
    jobs: dict[str, Callable[[], None]] = {
        "student alone": lambda: step(None, ""),
        "teacher beside it, no loss": lambda: step(None, "logits"),
    }
    on_features: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], nn.Module]] = {
        "CWD": (losses.cwd_loss, adapter),
        "pixel-wise": (losses.pixel_loss, adapter),
        "pair-wise, pooled": (losses.pair_loss, nothing),
        "pair-wise, all positions": (lambda s, t: losses.pair_loss(s, t, None), nothing),
        "AT": (losses.at_loss, nothing),
        "IFVD": (lambda s, t: losses.ifvd_loss(s, t, ids, classes), nothing),
        "PKD": (losses.pkd_loss, adapter),
    }
    for name, loss in (("CWD, plain", plain_cwd), ("CWD", losses.cwd_loss), ("KD", losses.kd_loss), ("DIST", losses.dist_loss)):
        jobs[f"{name}, logits"] = lambda loss=loss: step(loss, "logits")  # type: ignore[misc]
    for name, (loss, between) in on_features.items():
        jobs[f"{name}, features"] = lambda loss=loss, between=between: step(loss, "features", between)  # type: ignore[misc]
    times = {name: 1e3 * timing.median for name, timing in take_turns(jobs, repeats).items()}
    alone, beside = list(times.values())[:2]
    return Table(
        f"A step of pspnet-small beside pspnet-lite, {batch} images of {size[0]} x {size[1]}, CPU",
        ("step", "ms", "x alone", "the loss itself, % of the student's step"),
        [
            (name, ms, ms / alone, 100 * (ms - beside) / alone if i > 1 and ms > beside else None)
            for i, (name, ms) in enumerate(times.items())
        ],
        f"Medians of {repeats} rounds in turn, {torch.get_num_threads()} thread(s), random images and weights, no optimiser. Without a "
        "share: no more than the rounds differ.",
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
    yield measure_steps(*((1, (32, 32), 1) if quick else (8, (144, 192), 9)))


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
