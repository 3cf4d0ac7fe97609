"""Lifting by sampling and deformable attention: the plain forms over all cameras, our torch and our numba; forward and backward.

    python benchmarks/speed/lift.py [--quick] [--json FILE]

SimpleBEV as published samples every voxel in every camera, hides what is not seen, and takes the mean of what is not zero, with a tensor
of cameras x channels x voxels in each step; its volume is then turned into heights side by side, which ours is already. Deformable
attention without a kernel of its own is one grid_sample of all places, then a weighted sum (as Deformable DETR's fallback and mmcv's
write it). Features are random. Runs on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.benchmark import Table, benchmark_main, peak_rise, take_turns
from frustum.geometry import CameraRig, VoxelGrid, pose, rotation_z
from frustum.nn.lift_sample import LiftSample
from frustum.ops.deform_attention import deform_attention
from frustum.ops.sample_mean import sample_mean
from frustum.types.frame import Frame

YAWS = {0: 1266, 55: 1266, -55: 1266, 110: 1266, -110: 1266, 180: 800}  # degrees: focal length at a width of 1600
EYE = torch.eye(4, dtype=torch.float64)[None]


class Lifting(NamedTuple):
    """Six images of a size, feature maps of a size and channels, voxels, and how they are sampled."""

    image: tuple[int, int]
    features: tuple[int, int]
    channels: int
    cell: tuple[float, float, float]
    sampling: str


LIFTING = {
    "SimpleBEV as published": Lifting((224, 400), (28, 50), 128, (0.5, 0.5, 1.25), "reference"),
    "simplebev-mini": Lifting((96, 256), (12, 32), 64, (1, 1, 1.25), "clean"),
}
ATTENTION = {  # name: queries, feature map, channels, heads, places
    "among the queries of bevformer-seg-mini": (2500, (50, 50), 64, 4, 8),
    "of bevformer-seg-mini to one image": (800, (12, 32), 64, 4, 8),
    "among the queries of bevformer-seg-b4": (40000, (200, 200), 128, 4, 8),
}
QUICK_LIFTING = {"small": Lifting((96, 256), (12, 32), 16, (5, 5, 2.5), "reference")}
QUICK_ATTENTION = {"small": (100, (12, 32), 16, 4, 2)}
PLAIN = "plain"


def frame_of(size: tuple[int, int]) -> Frame:
    """Six cameras as nuScenes has them."""
    forward = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]], dtype=torch.float64)
    cam2ego, lenses = [], []
    for yaw, focal in YAWS.items():
        turn = rotation_z(torch.tensor(math.radians(yaw), dtype=torch.float64))
        cam2ego.append(pose(turn @ forward, turn @ turn.new_tensor([1.0, 0, 1.5])))
        f = focal * size[1] / 1600
        lenses.append(turn.new_tensor([[f, 0, size[1] / 2], [0, f, size[0] / 2], [0, 0, 1]]))
    rig = CameraRig.create(torch.stack(lenses)[None], torch.stack(cam2ego)[None], size)
    return Frame(torch.empty(1, 0), rig, EYE, EYE, torch.ones(1, dtype=torch.bool))


def plain_lift(features: Tensor, places: Tensor, seen: Tensor, counts_channels: bool, shape: tuple[int, ...]) -> Tensor:
    """Features (N, C, h, w), places (N, V, 2) and what is seen (N, V) of all voxels (X, Y, Z) -> (1, C * Z, X, Y)."""
    padding = "zeros" if counts_channels else "border"
    volumes = F.grid_sample(features, places[:, None], padding_mode=padding, align_corners=False)[:, :, 0]  # (N, C, V)
    volumes = (volumes * seen[:, None])[None]
    mask = (volumes.abs() > 0).float() if counts_channels else seen[None, :, None]
    mean = (volumes * mask).sum(1) / (1e-6 + mask.sum(1))  # (1, C, V)
    return mean.unflatten(2, shape).flip(3, 4).permute(0, 1, 4, 2, 3).flatten(1, 2)


def measure_lifting(name: str, case: Lifting, repeats: int) -> Table:
    grid = VoxelGrid(lower=(-50, -50, -4), upper=(50, 50, 6), cell=case.cell)
    features, frame, by_channel = torch.randn(6, case.channels, *case.features), frame_of(case.image), case.sampling == "reference"
    lifts = [LiftSample(grid, case.sampling, rows_forward) for rows_forward in (False, True)]  # type: ignore[arg-type]
    dense, plan = (lift.plan(frame, EYE, features) for lift in lifts)
    places, seen = torch.full((6, grid.num_cells, 2), 2.0), torch.zeros(6, grid.num_cells)
    for m, (voxels, at) in enumerate(zip(dense.voxels.split(dense.seen), dense.places.split(dense.seen), strict=True)):
        places[m, voxels], seen[m, voxels] = at, 1.0

    def ours(backend: str) -> Callable[[], Tensor]:
        x, y, z = grid.shape
        return lambda: sample_mean(features, plan, by_channel, backend).view(1, case.channels * z, x, y)  # type: ignore[arg-type]

    ways = {PLAIN: lambda: plain_lift(features, places, seen, by_channel, grid.shape)}
    ways |= {f"sample_mean, {backend}": ours(backend) for backend in ("torch", "numba")}
    title = f"Lifting, {name}: 6 x {case.channels} channels of {case.features[0]} x {case.features[1]} into {grid.num_cells:,} voxels, CPU"
    return compare(title, ways, [features], repeats)


def plain_attention(values: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """As the fallbacks of kernels write it: all places of all channels, stacked, then multiplied and summed."""
    b, heads, c, _, _ = values.shape
    grid = (2 * places - 1).transpose(1, 2).flatten(0, 1)
    found = F.grid_sample(values.flatten(0, 1), grid, padding_mode="zeros", align_corners=False)
    factors = weights.transpose(1, 2).reshape(b * heads, 1, *weights.shape[1::2])
    return (found * factors).sum(-1).view(b, heads * c, -1).transpose(1, 2).contiguous()


def measure_attention(name: str, case: tuple[int, tuple[int, int], int, int, int], repeats: int) -> Table:
    queries, (h, w), channels, heads, spots = case
    values = torch.randn(1, h, w, heads, channels // heads).permute(0, 3, 4, 1, 2)  # as a linear layer leaves them
    places = (torch.rand(1, queries, 1, 1, 2) + 0.05 * torch.randn(1, queries, heads, spots, 2)).requires_grad_()
    weights = torch.rand(1, queries, heads, spots, requires_grad=True)
    tensors = [values.requires_grad_(), places, weights]
    ways: dict[str, Callable[[], Tensor]] = {PLAIN: lambda: plain_attention(*tensors)}
    ways["deform_attention, torch"] = lambda: deform_attention(*tensors, backend="torch")
    ways["deform_attention, numba"] = lambda: deform_attention(*tensors, backend="numba")
    title = f"Deformable attention {name}: {queries:,} queries, {channels} channels of {h} x {w}, {heads} heads, {spots} places, CPU"
    return compare(title, ways, tensors, repeats)


def compare(title: str, ways: dict[str, Callable[[], Tensor]], tensors: list[Tensor], repeats: int) -> Table:
    """Forward, and with gradients, of ways to the same; the first is the plain one."""
    for tensor in tensors:
        tensor.requires_grad_()
    exact = ways[PLAIN]().detach()
    above = torch.randn_like(exact)
    jobs: dict[tuple[str, bool], Callable[[], object]] = {}
    for way, call in ways.items():
        jobs[way, False] = torch.no_grad()(call)
        jobs[way, True] = lambda call=call: torch.autograd.grad(call(), tensors, above)  # type: ignore[misc]
    apart = {way: float((call().detach() - exact).abs().max()) if way != PLAIN else 0.0 for way, call in ways.items()}
    for way in ways:
        if way != PLAIN:  # which takes long, and has nothing to compile
            jobs[way, True]()
    memory = {way: peak_rise(jobs[way, True])["rise_mib"] for way in ways}
    ours = {name: job for name, job in jobs.items() if name[0] != PLAIN}
    times = take_turns(ours, repeats, warm_up=0) | take_turns({(PLAIN, k): jobs[PLAIN, k] for k in (False, True)}, 1, warm_up=0)
    once, twice = ({way: 1e3 * times[way, both].median for way in ways} for both in (False, True))
    rows = [(way, once[way], once[PLAIN] / once[way], twice[way], twice[PLAIN] / twice[way], memory[way], apart[way]) for way in ways]
    return Table(
        title,
        ("form", "forward, ms", "x plain", "forward + backward, ms", "x plain", "MiB", "largest difference"),
        rows,
        f"Medians of {repeats} rounds in turn (1 of the plain form), {torch.get_num_threads()} thread(s). MiB: by how much memory rises, "
        "with gradients.",
    )


def measure(quick: bool) -> Iterator[Table]:
    torch.manual_seed(0)
    for name, lifting in (QUICK_LIFTING if quick else LIFTING).items():
        yield measure_lifting(name, lifting, 1 if quick else 2)
    for name, attention in (QUICK_ATTENTION if quick else ATTENTION).items():
        yield measure_attention(name, attention, 1 if quick else 2)


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
