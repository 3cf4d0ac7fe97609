"""bev_pool: our backends beside the usual torch formulations, forward and with gradients, on FlashOCC's rigs.

    python benchmarks/speed/bev_pool.py [--quick] [--json FILE]

The formulations get what depends on calibration alone (which point lies in which cell, sorted) ready made, as bev_pool does; what making
it costs is a row of its own. Runs on the GPU where there is one, else on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from frustum.benchmark import Table, benchmark_main, take_turns
from frustum.geometry import CameraRig, VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.nn.lift_splat import Splat
from frustum.ops.bev_pool import PoolPlan, bev_pool, default_backend
from frustum.types.frame import Frame
from frustum.worlds.street.rigs import StreetRig

CASES = {  # name: (image, features, depth step, channels, grid)
    "flashocc-r50-m0": ((256, 704), (16, 44), 1.0, 64, VoxelGrid.occ3d().collapsed_z()),
    "flashocc-r50": ((256, 704), (16, 44), 0.5, 64, VoxelGrid.occ3d().collapsed_z()),
    "flashocc-tiny": ((96, 256), (12, 32), 1.0, 16, VoxelGrid.occ3d().scaled(2, 2, 2)),
}
QUICK = {"quick": ((96, 256), (6, 16), 2.0, 8, VoxelGrid.occ3d().scaled(4, 4, 4))}
PLAIN = "lift, index_add"


def six_cameras(image: tuple[int, int]) -> CameraRig:
    """nuScenes' rig."""
    cameras = StreetRig.nuscenes().cameras
    matrices = [c.fitted(*image)[0] for c in cameras], [c.cam2ego.sensor2ego for c in cameras]
    intrinsics, cam2ego = (torch.from_numpy(np.stack(m))[None] for m in matrices)
    return CameraRig.create(intrinsics, cam2ego, image)


def lifted(depth: Tensor, features: Tensor) -> Tensor:
    """The volume that the formulations of Lift-Splat-Shoot begin with: (P, C), all points, inside the grid or not."""
    return (depth[:, :, None] * features[:, None]).permute(0, 1, 3, 4, 2).reshape(-1, features.shape[1])


def empty(points: Tensor, plan: PoolPlan) -> Tensor:
    x, y, z = plan.shape
    return points.new_zeros(plan.batch * x * y * z, points.shape[1])


def lift_index_add(depth: Tensor, features: Tensor, plan: PoolPlan) -> Tensor:
    points = lifted(depth, features)[plan.order.long()]
    return empty(points, plan).index_add(0, plan.kept_cells, points)


def lift_scatter_add(depth: Tensor, features: Tensor, plan: PoolPlan) -> Tensor:
    points = lifted(depth, features)[plan.order.long()]
    return empty(points, plan).scatter_add(0, plan.kept_cells[:, None].expand_as(points), points)


class SortedCumsum(torch.autograd.Function):
    """Sums of runs as differences of a running sum, the trick of Lift-Splat-Shoot (Philion and Fidler, 2020, section 4.2)."""

    @staticmethod
    def forward(ctx, points: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(starts)
        ends = points.cumsum(0)[starts[1:] - 1]
        return torch.cat([ends[:1], ends[1:] - ends[:-1]])

    @staticmethod
    def backward(ctx, grad: Tensor):
        (starts,) = ctx.saved_tensors
        return grad.repeat_interleave(starts.diff(), 0), None


def lift_sorted_cumsum(depth: Tensor, features: Tensor, plan: PoolPlan) -> Tensor:
    points = lifted(depth, features)[plan.order.long()]
    return empty(points, plan).index_copy(0, plan.occupied.long(), SortedCumsum.apply(points, plan.starts.long()))


def intervals(depth: Tensor, features: Tensor, plan: PoolPlan) -> Tensor:
    """BEVPoolv2's sums over sorted intervals, without a lifted volume, in plain torch."""
    rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    points = rows[plan.pixels.long()] * depth.flatten()[plan.order.long()][:, None]
    sums = torch.segment_reduce(points, "sum", lengths=plan.starts.diff().long(), axis=0, unsafe=True)
    return empty(points, plan).index_copy(0, plan.occupied.long(), sums)


FORMULATIONS = {
    PLAIN: lift_index_add,
    "lift, scatter_add": lift_scatter_add,
    "lift, sorted cumsum (Lift-Splat-Shoot)": lift_sorted_cumsum,
    "sorted intervals, segment_reduce (BEVPoolv2)": intervals,
}


def measure_case(name: str, case: tuple, repeats: int) -> Table:
    image, size, step, channels, grid = case
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    eye = torch.eye(4, dtype=torch.float64)[None]
    frame = Frame(torch.empty(1, 0), six_cameras(image), eye, eye, torch.ones(1, dtype=torch.bool))
    points = Splat(grid, DepthBins(step=step)).points(frame, size, device)
    plan, ours = PoolPlan.create(points.cpu(), grid).to(device), PoolPlan.create(points, grid)  # on a GPU, ours holds points outside, too
    depth = torch.rand(*plan.frustum, device=device, requires_grad=True)
    features = torch.randn(plan.frustum[0], channels, *size, device=device, requires_grad=True)
    fast = default_backend(device)
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {n: lambda d, f, call=call: call(d, f, plan) for n, call in FORMULATIONS.items()}
    for backend in dict.fromkeys(("torch", fast)):
        ways[f"bev_pool, backend {backend}"] = lambda d, f, b=backend: bev_pool(d, f, ours, b).permute(0, 3, 4, 2, 1).reshape(-1, channels)

    exact = lift_index_add(depth.detach().double(), features.detach().double(), plan)
    cotangent = torch.randn(exact.shape, device=device)
    with torch.no_grad():
        error = {way: float((call(depth, features) - exact).abs().max()) for way, call in ways.items()}

    def forward(call: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
        return torch.no_grad()(lambda: call(depth, features))

    def both(call: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(call(depth, features), (depth, features), cotangent)

    jobs = {(way, kind.__name__): kind(call) for way, call in ways.items() for kind in (forward, both)}
    calls = 20 if device.type == "cuda" else 1  # a GPU works them off without pause, as inside a network
    times = take_turns(jobs | {("plan", "create"): lambda: PoolPlan.create(points, grid)}, repeats, 2, calls)
    once, twice = ({way: times[way, kind] for way in ways} for kind in ("forward", "both"))
    rows = [
        (
            way, 1e3 * once[way].median, once[PLAIN].median / once[way].median,
            1e3 * twice[way].median, twice[PLAIN].median / twice[way].median, error[way],
        )
        for way in ways
    ]  # fmt: skip
    rows.append(("making the plan, once per rig", 1e3 * times["plan", "create"].median, None, None, None, None))
    kept, cells = len(plan.order), len(plan.occupied)
    return Table(
        f"bev_pool, {name}: {len(plan.cells):,} points, {kept:,} inside, {cells:,} cells, {channels} channels, {device.type}",
        ("formulation", "forward, ms", "x plain", "forward + backward, ms", "x plain", "largest error"),
        rows,
        f"Medians of {repeats} rounds in turn. Error: against float64 sums; a cell holds up to {int(plan.starts.diff().max())} points.",
    )


def measure(quick: bool) -> Iterator[Table]:
    for name, case in (QUICK if quick else CASES).items():
        yield measure_case(name, case, 3 if quick else 15)


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
