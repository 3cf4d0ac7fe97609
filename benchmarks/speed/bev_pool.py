"""How fast is bev_pool? Torch against numba on FlashOCC's rig, forward and backward, in one run.

    python benchmarks/speed/bev_pool.py [--json FILE] [--repeats 20]

Each case is measured in turn with the other backend, so that a busy machine slows both; figures are medians of the repeats.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numba
import torch

from frustum.geometry import CameraRig, VoxelGrid, rotation_z
from frustum.geometry.depth import DepthBins
from frustum.nn.lift_splat import Splat
from frustum.ops.bev_pool import PoolPlan, bev_pool

CASES = {  # name: (image, features, depth step, channels, grid)
    "flashocc-r50-m0": ((256, 704), (16, 44), 1.0, 64, VoxelGrid.occ3d().collapsed_z()),
    "flashocc-r50": ((256, 704), (16, 44), 0.5, 64, VoxelGrid.occ3d().collapsed_z()),
    "flashocc-tiny": ((96, 256), (12, 32), 1.0, 16, VoxelGrid.occ3d().scaled(2, 2, 2)),
}


def six_cameras(image: tuple[int, int]) -> CameraRig:
    forward = torch.tensor([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]], dtype=torch.float64)
    cam2ego = torch.eye(4, dtype=torch.float64).repeat(6, 1, 1)
    cam2ego[:, :3, :3] = rotation_z(torch.tensor([55.0, 0, -55, 110, 180, -110], dtype=torch.float64).deg2rad()) @ forward
    cam2ego[:, 2, 3] = 1.5
    height, width = image
    focal = 0.8 * width
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    return CameraRig.create(intrinsics.expand(1, 6, 3, 3), cam2ego[None], image)


def measure(name: str, repeats: int) -> dict[str, float]:
    image, size, step, channels, grid = CASES[name]
    splat, eye = Splat(grid, DepthBins(step=step)), torch.eye(4, dtype=torch.float64)[None]
    points = splat.points(six_cameras(image), eye, eye, size)
    plan = PoolPlan.create(points, grid)
    depth = torch.rand(*plan.frustum, requires_grad=True)
    features = torch.randn(plan.frustum[0], channels, *size, requires_grad=True)
    cotangent = torch.randn_like(bev_pool(depth, features, plan))
    jobs: dict[str, Callable[[], object]] = {"plan": lambda: PoolPlan.create(points, grid)}
    for backend in ("torch", "numba"):
        jobs[f"{backend} forward"] = lambda b=backend: bev_pool(depth.detach(), features.detach(), plan, b)
        jobs[f"{backend} forward + backward"] = lambda b=backend: torch.autograd.grad(
            bev_pool(depth, features, plan, b), (depth, features), cotangent
        )
    times: dict[str, list[float]] = {job: [] for job in jobs}
    for repeat in range(repeats + 2):
        for job, call in jobs.items():
            start = time.perf_counter()
            call()
            if repeat >= 2:  # the first two warm up
                times[job].append(time.perf_counter() - start)
    result = {f"{job} ms": round(1e3 * statistics.median(values), 3) for job, values in times.items()}
    for kind in ("forward", "forward + backward"):
        result[f"ratio {kind}"] = round(result[f"torch {kind} ms"] / result[f"numba {kind} ms"], 2)
    return {"points": len(plan.order), "cells": len(plan.occupied), **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    figures = {name: measure(name, arguments.repeats) for name in CASES}
    keys = list(next(iter(figures.values())))
    width = max(map(len, keys))
    print(" " * width, *(f"{name:>16}" for name in figures))
    for key in keys:
        print(f"{key:<{width}}", *(f"{case[key]:>16}" for case in figures.values()))
    if arguments.json:
        machine = {"processor": platform.machine(), "torch threads": torch.get_num_threads(), "numba threads": numba.get_num_threads()}
        arguments.json.write_text(json.dumps({"machine": machine | {"torch": torch.__version__}, "cases": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
