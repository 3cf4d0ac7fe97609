"""Deformable convolution: our backends beside the plain gather, forms with grid_sample, and what a plain convolution costs.

    python benchmarks/speed/deform_conv.py [--quick] [--json FILE]

Six cameras at the sizes of ResNet-50 with DCNv2 at 256 x 704, and of the depth heads of 3DPPE (DCNv1, four groups) at 320 x 800. The
plain gather is the torch backend: each tap gathers its four neighbours from all channels, and one matrix product follows. Every form
needs that product (three with gradients), so that its time alone bounds what is possible. Runs on the GPU where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.benchmark import Table, benchmark_main, take_turns
from frustum.ops.deform_conv import deform_conv2d

CASES = {  # name: (channels, height, width, groups, with a mask)
    "ResNet-50, stage 3": (256, 16, 44, 1, True),
    "ResNet-50, stage 4": (512, 8, 22, 1, True),
    "depth head of 3DPPE": (256, 20, 50, 4, False),
}
QUICK = {"small": (32, 8, 12, 2, True)}
PLAIN = "plain gather"


def by_grid_sample(x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, groups: int, at_once: bool) -> Tensor:
    """One grid_sample of all nine taps, or of one after the other."""
    b, c, h, w = x.shape
    ky, kx, y, X = torch.meshgrid(*(torch.arange(n, device=x.device) for n in (3, 3, h, w)), indexing="ij")
    moved = offset.view(b, 9, 2, h, w)
    u = ((kx + X).flatten(0, 1) - 1 + moved[:, :, 1]) * (2 / (w - 1)) - 1
    v = ((ky + y).flatten(0, 1) - 1 + moved[:, :, 0]) * (2 / (h - 1)) - 1
    places = torch.stack([u, v], -1)  # (B, 9, h, w, 2)
    if at_once:
        values = F.grid_sample(x, places.flatten(1, 2), align_corners=True).view(b, c, 9, h, w)
    else:
        values = torch.stack([F.grid_sample(x, places[:, tap], align_corners=True) for tap in range(9)], 2)
    if mask is not None:
        values = values * mask[:, None]
    return (weight.view(groups, -1, c // groups * 9) @ values.view(b, groups, -1, h * w)).view(b, -1, h, w)


def products(x: Tensor, weight: Tensor, groups: int, backward: bool) -> Callable[[], object]:
    """The matrix products alone: one, with gradients three."""
    b, c, h, w = x.shape
    filters = weight.detach().view(groups, -1, c // groups * 9)
    columns, above = (x.new_empty(groups, *shape).normal_() for shape in ((b * h * w, filters.shape[2]), (filters.shape[1], b * h * w)))
    grad_columns = torch.empty_like(columns)

    def job() -> None:
        torch.bmm(filters, columns.transpose(1, 2))
        if backward:
            torch.bmm(above.transpose(1, 2), filters, out=grad_columns)
            torch.bmm(above, columns)

    return torch.no_grad()(job)


def measure_case(name: str, case: tuple[int, int, int, int, bool], repeats: int) -> Table:
    channels, h, w, groups, masked = case
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shapes = [(6, channels, h, w), (channels, channels // groups, 3, 3), (6, 18, h, w)]
    x, weight, offset = (torch.randn(shape, device=device, requires_grad=True) for shape in shapes)
    mask = torch.rand(6, 9, h, w, device=device, requires_grad=True) if masked else None
    inputs = [t for t in (x, weight, offset, mask) if t is not None]
    cotangent = torch.randn(6, channels, h, w, device=device)

    ways: dict[str, Callable[[], Tensor]] = {PLAIN: lambda: deform_conv2d(x, weight, offset, mask, groups=groups, backend="torch")}
    ways["grid_sample, tap by tap"] = lambda: by_grid_sample(x, weight, offset, mask, groups, False)
    ways["grid_sample, all taps at once"] = lambda: by_grid_sample(x, weight, offset, mask, groups, True)
    if device.type == "cpu":
        ways["deform_conv2d, backend numba"] = lambda: deform_conv2d(x, weight, offset, mask, groups=groups, backend="numba")
    exact = deform_conv2d(*(None if t is None else t.double() for t in (x, weight, offset, mask)), groups=groups, backend="torch").detach()
    with torch.no_grad():
        error: dict[str, float | None] = {way: float((call() - exact).abs().max()) for way, call in ways.items()}

    jobs: dict[tuple[str, bool], Callable[[], object]] = {}
    for way, call in ways.items():
        jobs[way, False] = torch.no_grad()(call)
        jobs[way, True] = lambda call=call: torch.autograd.grad(call(), inputs, cotangent)  # type: ignore[misc]
    conv = f"for comparison: a convolution without offsets, {groups} group" + "s" * (groups > 1)
    jobs[conv, False] = torch.no_grad()(lambda: F.conv2d(x, weight, None, 1, 1, 1, groups))
    jobs[conv, True] = lambda: torch.autograd.grad(F.conv2d(x, weight, None, 1, 1, 1, groups), (x, weight), cotangent)
    alone = "for comparison: the matrix products alone"
    jobs |= {(alone, backward): products(x, weight, groups, backward) for backward in (False, True)}
    times = take_turns(jobs, repeats, 2)
    once, twice = ({way: 1e3 * times[way, both].median for way, b in jobs if b == both} for both in (False, True))
    rows = [(way, once[way], once[PLAIN] / once[way], twice[way], twice[PLAIN] / twice[way], error.get(way)) for way in once]
    return Table(
        f"Deformable convolution, {name}: 6 images, {channels} channels at {h} x {w}, {groups} group(s), DCNv{1 + masked}, {device.type}",
        ("form", "forward, ms", "x plain", "forward + backward, ms", "x plain", "largest error"),
        rows,
        f"Medians of {repeats} rounds in turn, {torch.get_num_threads()} thread(s). Error: against float64; the results have a spread of "
        f"{float(exact.std()):.0f}.",
    )


def measure(quick: bool) -> Iterator[Table]:
    torch.manual_seed(0)
    for name, case in (QUICK if quick else CASES).items():
        yield measure_case(name, case, 2 if quick else 7)


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
