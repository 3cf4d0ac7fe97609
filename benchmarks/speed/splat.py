"""Splatting and exact traversal of a voxel scene into six cameras, beside plain torch, and how both grow.

    python benchmarks/speed/splat.py [--quick] [--json FILE]

640,000 voxels of a street as Occ3D has it, of which about 63,000 are not empty, as a trained network leaves them; 18 channels (17 classes
and depth), six images of 160 x 90. Plain torch is the reference: vectorised over pixels and Gaussians, tile by tile, with its
activations computed again in the backward pass, because they would not fit into memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from frustum.benchmark import Table, benchmark_main, peak_rise, take_turns
from frustum.geometry import VoxelGrid, invert, pose, rotation_z
from frustum.ops.splat import rasterize
from frustum.ops.voxel_render import voxel_render

SIZE = (90, 160)
CLASSES = 17
CAMERAS = {0: 1266, 55: 1266, -55: 1266, 110: 1266, -110: 1266, 180: 800}  # yaw in degrees: focal length at a width of 1600


def street(grid: VoxelGrid, seed: int = 0) -> Tensor:
    """Which voxels are occupied (X, Y, Z): ground, the shells of 40 buildings, 40 vehicles; 63,208 on Occ3D's grid."""
    draw = torch.Generator().manual_seed(seed)
    filled = torch.zeros(grid.shape, dtype=torch.bool)
    filled[:, :, 2] = True
    x_cells, y_cells, z_cells = grid.shape
    road = (int(y_cells * 0.42), int(y_cells * 0.58))

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, max(low + 1, high), (), generator=draw))

    for _ in range(44):
        length, width, height = number(12, 30), number(12, 28), number(6, z_cells - 2)
        x, y = number(0, x_cells - length), number(0, y_cells - width)
        if y < road[1] and y + width > road[0]:
            continue
        filled[x : x + length, y : y + width, 2 : 2 + height] = True
        filled[x + 1 : x + length - 1, y + 1 : y + width - 1, 2 : 1 + height] = False
    for _ in range(40):
        x, y = number(0, x_cells - 12), number(*road) - 5
        if abs(x + 6 - x_cells / 2) > 12:  # not where the cameras are
            filled[x : x + 11, y : y + 5, 3:6] = True
    return filled


def cameras(size: tuple[int, int] = SIZE) -> tuple[Tensor, Tensor]:
    """Views (6, 4, 4) from the frame of the ego to each camera, and intrinsics (6, 3, 3)."""
    forward = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    views, lenses = [], []
    for yaw, focal in CAMERAS.items():
        turn = rotation_z(torch.tensor(math.radians(yaw)))
        position = turn @ torch.tensor([1.0, 0, 0]) + torch.tensor([0.5, 0, 1.5])
        views.append(invert(pose(turn @ forward, position)))
        f = focal * size[1] / 1600
        lenses.append(torch.tensor([[f, 0, size[1] / 2], [0, f, size[0] / 2], [0, 0, 1]]))
    return torch.stack(views), torch.stack(lenses)


def scene(grid: VoxelGrid, seed: int = 0, channels: int = CLASSES) -> list[Tensor]:
    """Means, scales, opacities and features of one Gaussian per voxel."""
    draw = torch.Generator().manual_seed(seed)
    filled = street(grid, seed).flatten()
    means = grid.centres().reshape(-1, 3) + 0.05 * (2 * torch.rand(len(filled), 3, generator=draw) - 1)
    scales = 0.17 * (0.8 + 0.4 * torch.rand(len(filled), 3, generator=draw))
    opacities = torch.where(filled, 0.6 + 0.39 * torch.rand(len(filled), generator=draw), 0.003)
    return [means, scales, opacities, torch.randn(len(filled), channels, generator=draw)]


def field(grid: VoxelGrid, opacities: Tensor, seed: int = 0) -> list[Tensor]:
    """Density (X, Y, Z) of voxels with these opacities, where they are rendered, and features (X, Y, Z, CLASSES)."""
    draw = torch.Generator().manual_seed(seed)
    opacity = opacities.reshape(grid.shape)
    density = torch.where(opacity > 1 / 255, -(1 - opacity).log() / grid.cell[0], 0)
    return [density, torch.randn(*grid.shape, CLASSES, generator=draw)]


def rays(views: Tensor, lenses: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Origins and directions (6 * H * W, 3) of all pixels, with a depth of 1 along the axis of the camera."""
    v, u = torch.meshgrid(*(torch.arange(n) + 0.5 for n in size), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], -1).flatten(0, 1)
    to_ego = invert(views)
    directions = pixels @ torch.linalg.inv(lenses).mT @ to_ego[:, :3, :3].mT
    return to_ego[:, None, :3, 3].expand_as(directions).flatten(0, 1), directions.flatten(0, 1)


def both(run: Callable[..., Any], tensors: list[Tensor], *arguments: object, **options: object) -> Callable[[], list[Tensor]]:
    """Forward and backward of all results."""

    def job() -> list[Tensor]:
        out = run(*tensors, *arguments, **options)
        return list(torch.autograd.grad(out.features.sum() + out.depth.sum() + out.alpha.sum(), tensors))

    return job


def no_grad(run: Callable[..., Any], tensors: list[Tensor], *arguments: object, **options: object) -> Callable[[], object]:
    def job() -> object:
        with torch.no_grad():
            return run(*tensors, *arguments, **options)

    return job


def compare(
    title: str, jobs: dict[str, tuple[Callable[[], object], Callable[[], list[Tensor]]]], repeats: int, plain_repeats: int
) -> Table:
    """Forward, and with gradients, of ways to the same; the first is plain torch, which takes long."""
    plain, *others = jobs
    rows = []
    wanted: list[Tensor] = []
    quick = {(name, k): jobs[name][k] for name in others for k in (0, 1)}
    times = take_turns(quick, repeats) | take_turns({(plain, k): jobs[plain][k] for k in (0, 1)}, plain_repeats, warm_up=0)
    for name, (_, job) in jobs.items():
        found = job()
        wanted = wanted or found
        error = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True))
        forward, whole = times[name, 0].median, times[name, 1].median
        row = (times[plain, 0].median / forward, 1e3 * whole, times[plain, 1].median / whole, error)
        rows.append((name, 1e3 * forward, *row))
    columns = ("backend", "forward, ms", "x plain", "forward + backward, ms", "x plain", "largest difference of a gradient")
    note = f"Medians of {repeats} rounds in turn ({plain_repeats} of plain torch), {torch.get_num_threads()} thread(s)."
    return Table(title, columns, rows, f"{note} Difference: from plain torch, relative to the largest gradient.")


def growth(grid: VoxelGrid, quick: bool) -> Table:
    """Forward and backward for more Gaussians, pixels and channels."""
    size = (SIZE[0] // 4, SIZE[1] // 4) if quick else SIZE
    filled = int((scene(grid, channels=1)[2] > 0.1).sum())
    cases: dict[str, tuple[float, tuple[int, int], int]] = {}
    for share in (0.125, 0.25, 0.5, 1.0):
        cases[f"{round(share * filled):,} Gaussians"] = (share, size, CLASSES)
    for factor in (0.5, 1, 2, 4):
        cases[f"{factor:g} x {factor:g} the pixels"] = (1.0, (int(size[0] * factor), int(size[1] * factor)), CLASSES)
    for channels in (1, 8, 16, 32, 64):
        cases[f"{channels} channels"] = (1.0, size, channels)
    jobs = {}
    for name, (share, shape, channels) in cases.items():
        tensors = [t[scene(grid, channels=1)[2] > 0.1] for t in scene(grid, channels=channels)]
        few = torch.randperm(filled, generator=torch.Generator().manual_seed(0))[: round(share * filled)]
        jobs[name] = both(rasterize, [t[few].requires_grad_() for t in tensors], *cameras(shape), shape)
    means, scales, opacities, features = scene(grid)
    start = [means, scales, torch.full_like(opacities, 0.018), features]  # as a network begins
    jobs[f"{grid.num_cells:,} Gaussians, all of opacity 0.018"] = both(rasterize, [t.requires_grad_() for t in start], *cameras(size), size)
    times = take_turns(jobs, 1 if quick else 3)
    memory = {name: peak_rise(job)["rise_mib"] for name, job in jobs.items()}
    longest, largest = max(t.median for t in times.values()), max((m for m in memory.values() if m), default=1.0)

    def bar(share: float) -> str:
        return "█" * max(1, round(30 * share))

    rows = [
        (name, 1e3 * times[name].median, bar(times[name].median / longest), m, bar(m / largest) if m is not None else "-")
        for name, m in memory.items()
    ]
    note = (
        f"6 x {size[1]} x {size[0]} pixels, {filled:,} Gaussians and {CLASSES} channels (and depth) where nothing else is said. Memory is "
        "that beyond the Gaussians at its peak, gradients included."
    )
    return Table("How splatting grows, numba, forward + backward", ("case", "ms", "time", "MiB", "memory"), rows, note)


def measure(quick: bool) -> Iterator[Table]:
    grid = VoxelGrid(lower=(-10, -10, -1), upper=(10, 10, 5.4), cell=(0.4, 0.4, 0.4)) if quick else VoxelGrid.occ3d()
    size = (SIZE[0] // 4, SIZE[1] // 4) if quick else SIZE
    repeats = 2 if quick else 7
    views, lenses = cameras(size)
    splats = [t.requires_grad_() for t in scene(grid)]
    shown = int((splats[2] > 1 / 255).sum())
    jobs = {
        backend: tuple(way(rasterize, splats, views, lenses, size, backend=backend) for way in (no_grad, both))
        for backend in ("torch", "numba")
    }
    title = f"Splatting {shown:,} visible Gaussians of {len(splats[0]):,} into 6 x {size[1]} x {size[0]}, {CLASSES} channels and depth, CPU"
    yield compare(title, jobs, repeats, 1)  # type: ignore[arg-type]

    origins, directions = rays(views, lenses, size)
    voxels = [t.requires_grad_() for t in field(grid, splats[2].detach())]
    jobs = {
        backend: tuple(way(voxel_render, voxels, grid, origins, directions, backend=backend) for way in (no_grad, both))
        for backend in ("torch", "numba")
    }
    title = f"Exact traversal of the same voxels by {len(origins):,} rays, {CLASSES} channels and depth, CPU"
    yield compare(title, jobs, repeats, 1)  # type: ignore[arg-type]
    yield growth(grid, quick)


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
