"""The parts of tools/gpu_check.py: each is a function that yields tables, and figures by name for the goals.

A part gets its device as a `Gpu` (gpu_device.py). A new method adds its part here and an entry in PARTS.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tools.gpu_device import Gpu, Run, noted

ROOT = Path(__file__).resolve().parents[1]
SMALL = {  # where the settings of the image encoder are
    **dict.fromkeys(("flashocc-tiny", "bevdet-occ-tiny", "panoptic-flashocc-mini", "ultimatedo-mini", "ppe3d-mini"), "model"),
    "renderocc-mini": "model.trunk.flashocc_tiny",
}
LARGE = {"M0": "flashocc-r50-m0", "M1": "flashocc-r50", "panoptic-tiny": "panoptic-flashocc-tiny"}


# ---- parts: each yields tables, and figures by name for the goals ---------------------------------------------------------------


def run_tests(run: Run) -> Iterator[Any]:
    """The tests marked gpu: kernels against their torch twins, determinism, training steps against the CPU, waits inside forward."""
    from frustum.benchmark import Table

    marked = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]
    words = [sys.executable, "-u", "-m", "pytest", "-m", "gpu", "-v", "-p", "no:cacheprovider", "--durations=5", *map(str, marked)]
    rows: list[tuple] = []
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if match := re.match(r"(\S+)::(\S+) (PASSED|FAILED|SKIPPED|ERROR|XFAIL)", line):
                rows.append((f"{Path(match[1]).stem}: {match[2]}", match[3]))
                yield Table("Tests marked gpu", ("test", "result"), list(rows))
    if process.returncode or not any(result == "PASSED" for _, result in rows):
        failed = [name for name, result in rows if result in ("FAILED", "ERROR")]
        raise RuntimeError(f"pytest ended with code {process.returncode}; failed: {', '.join(failed) or 'none, but none passed'}")


def run_training(run: Run) -> Iterator[Any]:
    """Training steps of the small recipes in bfloat16 on a generated batch: the loss falls, nothing waits inside forward."""
    from frustum.benchmark import Table

    rows: list[tuple] = []
    failed = []
    for name, encoder in SMALL.items():
        steps = 50 if name == "flashocc-tiny" else 8
        stepper, batch, recipe = trainer(run.gpu, name, [f"{encoder}.pretrained=false", "optim.warmup_steps=0"], 2, steps)
        run.gpu.reset_memory()
        losses, seconds = [], []
        for _ in range(steps):
            start = time.perf_counter()
            losses.append(stepper.step([batch] * recipe.train.accumulate).loss)
            run.gpu.wait()
            seconds.append(time.perf_counter() - start)
        there = batch.to(stepper.accelerator.device)
        waits = {}
        with stepper.accelerator.autocast():
            waits["forward"] = run.gpu.count_waits(lambda n=stepper.network, b=there: n(b))
            outputs = stepper.network(there)
            waits["loss"] = run.gpu.count_waits(lambda n=stepper.network, o=outputs, b=there: n.loss(o, b))
        middle = 1e3 * sorted(seconds)[len(seconds) // 2]
        rows.append((name, steps, losses[0], losses[-1], middle, waits["forward"], waits["loss"], run.gpu.memory()))
        if waits["forward"]:
            failed.append(f"{name} waits {waits['forward']} times inside forward")
        if not losses[-1] < losses[0]:
            failed.append(f"the loss of {name} does not fall: {losses[0]:.3f} to {losses[-1]:.3f}")
    yield Table(
        "Training of the small recipes in bfloat16, one generated batch of two samples",
        ("recipe", "steps", "first loss", "last loss", "ms a step", "waits in forward", "waits in loss", "memory, GiB"),
        rows,
        "Each sample has a pooling plan of its own, known after the first step. A wait is one of the host for the GPU.",
    )
    if failed:
        raise RuntimeError("; ".join(failed))


def trainer(gpu: Gpu, name: str, overrides: list[str], samples: int, steps: int) -> tuple[Any, Any, Any]:
    """What trains a recipe in bfloat16, a generated batch on the CPU, and the recipe."""
    import torch

    from frustum.engine.overrides import apply
    from frustum.engine.runtime import make_accelerator
    from frustum.engine.step import Stepper
    from frustum.recipes.finding import get_recipe

    recipe = apply(get_recipe(name), [*overrides, f"runtime.device={gpu.name}", f"runtime.precision={gpu.precision}"])
    torch.manual_seed(0)
    stepper = Stepper(recipe, recipe.model.build(), make_accelerator(recipe.runtime, recipe.train.accumulate), steps, steps)
    return stepper, generated(recipe, samples), recipe


def generated(recipe: Any, samples: int) -> Any:
    """A batch of what a recipe's network reads and learns from: nuScenes' six cameras, which see noise."""
    import numpy as np
    import torch

    from frustum.types.batch import Batch
    from frustum.types.contract import Shapes
    from frustum.worlds.street.rigs import StreetRig

    cameras, size = StreetRig.nuscenes().cameras, recipe.data.image_size
    intrinsics, cam2ego = (np.stack(m) for m in ([c.fitted(*size)[0] for c in cameras], [c.cam2ego.sensor2ego for c in cameras]))
    images = torch.randn(samples, len(cameras), 3, *size, generator=torch.Generator().manual_seed(0))
    shapes, rng = Shapes(samples, len(cameras), size), np.random.default_rng(0)
    return Batch.from_arrays(images, intrinsics, cam2ego, labels={type(k): k.example(rng, shapes) for k in recipe.model.learns_from()})


def run_pooling(run: Run) -> Iterator[Any]:
    """bev_pool of M0 and M1, forward and with gradients: index_add, torch and Triton, called and as a CUDA graph."""
    import torch

    from benchmarks.speed import bev_pool as speed
    from frustum.benchmark import Table, take_turns
    from frustum.geometry.depth import DepthBins
    from frustum.nn.lift_splat import Splat
    from frustum.ops.bev_pool import bev_pool, default_backend
    from frustum.ops.pool_plan import PoolPlan
    from frustum.types.frame import Frame

    device, eye = torch.device(run.gpu.name), torch.eye(4, dtype=torch.float64)[None]
    cases = speed.QUICK if run.gpu.small else {"M0": speed.CASES["flashocc-r50-m0"], "M1": speed.CASES["flashocc-r50"]}
    failed: list[str] = []
    for name, (image, size, step, channels, grid) in cases.items():
        frame = Frame(torch.empty(1, 0), speed.six_cameras(image), eye, eye, torch.ones(1, dtype=torch.bool))
        points = Splat(grid, DepthBins(step=step)).points(frame, size, device)
        plan, exact = PoolPlan.create(points, grid), PoolPlan.create(points.cpu(), grid).to(device)
        inputs = torch.rand(*plan.frustum, device=device), torch.randn(plan.frustum[0], channels, *size, device=device)
        depth, features = (tensor.requires_grad_() for tensor in inputs)
        ways: dict[str, Callable[[Any, Any], Any]] = {speed.PLAIN: lambda d, f, p=exact: speed.lift_index_add(d, f, p)}
        for backend in dict.fromkeys(("torch", default_backend(device))):
            ways[f"bev_pool, {backend}"] = lambda d, f, p=plan, b=backend: bev_pool(d, f, p, b)
        truth = speed.lift_index_add(depth.detach().double(), features.detach().double(), exact)
        calls: dict[tuple[str, str], Callable[[], Any]] = {("plan", ""): lambda p=points, g=grid: PoolPlan.create(p, g)}
        errors = {}
        for way, call in ways.items():
            with torch.no_grad():
                pooled = call(depth, features)
                flat = pooled if pooled.dim() == 2 else pooled.permute(0, 3, 4, 2, 1).reshape(-1, channels)
                errors[way] = float((flat - truth).abs().max())
            calls[way, "forward"] = torch.no_grad()(partial(call, depth, features))
            calls[way, "both"] = partial(with_gradients, call, depth, features, torch.randn_like(pooled))
        times = {k: 1e3 * t.median for k, t in take_turns(calls, 15, 2, run.gpu.timed_calls).items()}

        def table(times: dict[tuple[str, str], float] = times, ways: Any = ways, errors: Any = errors, name: str = name) -> Table:
            kinds = ("forward", "both", "forward, graph", "both, graph")
            rows: list[tuple] = [(way, *(times.get((way, kind)) for kind in kinds), errors[way]) for way in ways]
            rows.append(("making the plan", times["plan", ""], None, None, None, None))
            return Table(
                f"bev_pool, {name}, float32",
                ("way", "forward, ms", "forward + backward, ms", "forward as a graph, ms", "both as a graph, ms", "largest error"),
                rows,  # type: ignore[arg-type]
                f"Medians of 15 rounds of {run.gpu.timed_calls} calls. A CUDA graph holds nothing of the host. Error: against float64.",
            )

        yield table()
        graphs = {}
        for (way, kind), job in calls.items():
            with noted(failed, f"bev_pool {name}, {way}, {kind}, as a graph"):
                if kind:
                    graphs[way, f"{kind}, graph"] = run.gpu.graph(job)
        times |= {k: 1e3 * t.median for k, t in take_turns(graphs, 15, 2, run.gpu.timed_calls).items()}
        yield table()
        fastest = list(ways)[-1]
        for kind, words in (("forward", "forward"), ("both", "forward + backward")):
            found = [times[key] for key in ((fastest, kind), (fastest, f"{kind}, graph")) if key in times]
            yield {f"bev_pool {name}, {words}, ms": min(found)}
    if failed:
        raise RuntimeError("; ".join(failed))


def with_gradients(call: Callable[[Any, Any], Any], depth: Any, features: Any, cotangent: Any) -> Any:
    """A formulation of the pooling, and the gradients of its inputs."""
    import torch

    return torch.autograd.grad(call(depth, features), (depth, features), cotangent)


def half_weights(network: Any) -> Any:
    """The network with the weights in bfloat16 that autocast would cast in every call; those of heat maps compute in float32."""
    import torch
    from torch import nn

    from frustum.nn.centre_head import CentreHead

    heads = [module for module in network.modules() if isinstance(module, CentreHead)]
    islands = {branch[-1] for head in heads for branch in head.task_heads[0].values()}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module not in islands:
            module.to(torch.bfloat16)
    return network


def run_forward(run: Run) -> Iterator[Any]:
    """The whole forward of M0, M1 and panoptic-tiny at batch 1 and 8: float32, bfloat16, as a CUDA graph, compiled; memory."""
    import torch

    from frustum.benchmark import Table, take_turns
    from frustum.engine.overrides import apply
    from frustum.engine.recipe import RuntimeConfig
    from frustum.engine.runtime import place
    from frustum.recipes.finding import get_recipe

    device, is_half = torch.device(run.gpu.name), run.gpu.precision == "bf16"
    torch.backends.cudnn.benchmark = True
    failed: list[str] = []

    def timed(job: Callable[[], Any], repeats: int = 7) -> float:
        return take_turns({"job": job}, repeats, 2, max(1, run.gpu.timed_calls // 4))["job"].median

    @torch.no_grad()
    def call(network: Any, batch: Any, half: bool) -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=half and is_half):
            return network(batch)["occ_logits"]

    cases = [(name, samples) for name in LARGE for samples in ((1, 2) if run.gpu.small else (1, 8))]
    rows: dict[tuple[str, int], list[tuple]] = {case: [] for case in cases}
    recipes = {name: apply(get_recipe(recipe), run.gpu.sizes) for name, recipe in LARGE.items()}
    for name, samples in cases:
        with noted(failed, f"{name}, batch {samples}"):
            torch.manual_seed(0)
            network = place(recipes[name].model.build(), RuntimeConfig(), device).eval()
            batch = generated(recipes[name], samples).to(device)
            plain = call(network, batch, False)
            jobs: dict[str, Callable[[], Any]] = {
                "float32 (convolutions in TF32)": partial(call, network, batch, False),
                "bfloat16": partial(call, network, batch, True),
            }
            for way in ("bfloat16 weights", "bfloat16 weights, CUDA graph"):
                halves = place(recipes[name].model.build(), RuntimeConfig(), device).eval()
                halves.load_state_dict(network.state_dict())
                jobs[way] = partial(call, half_weights(halves) if is_half else halves, batch, True)
            for way, job in jobs.items():
                with noted(failed, f"{name}, batch {samples}, {way}"):
                    is_graph = way.endswith("graph")
                    job = run.gpu.graph(job) if is_graph else job
                    run.gpu.reset_memory()
                    same = float((job().argmax(-1) == plain.argmax(-1)).float().mean())
                    seconds = timed(job)
                    memory = None if is_graph else run.gpu.memory()  # a graph's memory was taken when it was made
                    rows[name, samples].append((way, 1e3 * seconds, samples / seconds, 100 * same, memory))
                    yield table_of(Table, name, samples, recipes[name], rows[name, samples])
            waits = run.gpu.count_waits(jobs["bfloat16"])
            rows[name, samples].append(("times that the host waits in it", waits, None, None, None))
            yield table_of(Table, name, samples, recipes[name], rows[name, samples])
            halved = [row[2] for row in rows[name, samples] if row[0].startswith("bfloat16")]
            if samples == 1 and halved:
                yield {f"{name}, batch 1, half precision, frames/s": max(halved)}
    needed = 60.0
    for name, samples in cases:  # last, because compiling takes longest
        if run.seconds_left < needed:
            yield {f"not measured: {name}, batch {samples}, compiled": "no time was left"}
            continue
        with noted(failed, f"{name}, batch {samples}, compiled"):
            torch._dynamo.reset()
            start = time.perf_counter()
            network = place(recipes[name].model.build(), RuntimeConfig(compile=True), device).eval()
            network, batch = half_weights(network) if is_half else network, generated(recipes[name], samples).to(device)
            call(network, batch, True)
            run.gpu.wait()
            first, seconds = time.perf_counter() - start, timed(partial(call, network, batch, True))
            needed = max(needed, 1.3 * first)
            rows[name, samples].append((f"bfloat16 weights, compiled in {first:.0f} s", 1e3 * seconds, samples / seconds, None, None))
            yield table_of(Table, name, samples, recipes[name], rows[name, samples])
    if failed:
        raise RuntimeError("; ".join(failed))


def table_of(table: Any, name: str, samples: int, recipe: Any, rows: list[tuple]) -> Any:
    """The table of one network; given again with more rows, it replaces the first."""
    height, width = recipe.data.image_size
    return table(
        f"Forward of {name}, batch {samples}, six images of {height}x{width}",
        ("way", "ms", "frames/s", "voxels as float32, %", "memory, GiB"),
        list(rows),
        "Medians of 7 rounds; random weights, channels-last; the rig's pooling plan is known. Memory is that beyond weights and batch.",
    )


def run_rays(run: Run) -> Iterator[Any]:
    """The rays of RayIoU of one frame: numba on the CPU, torch on the CPU and on the GPU."""
    import numpy as np
    import torch

    from benchmarks.speed import rayiou as speed
    from frustum.benchmark import Table, take_turns
    from frustum.geometry import VoxelGrid
    from frustum.metrics.rays import ray_cells, ray_directions
    from frustum.ops.raycast import raycast

    pred, truth, origins = speed.street(0)
    starts, ends, _ = ray_cells(origins, ray_directions(), VoxelGrid.occ3d())
    ends = ends[:, ::40] if run.gpu.small else ends
    volumes = np.stack([pred, truth])
    there = [torch.from_numpy(np.ascontiguousarray(a)).to(run.gpu.name) for a in (volumes, starts, ends)]
    cores = os.cpu_count() or 1
    jobs: dict[str, Callable[[], Any]] = {
        "numba, one thread": lambda: raycast(volumes, starts, ends),
        f"numba, {cores} threads": lambda: raycast(volumes, starts, ends, threads=cores),
        "torch on the CPU": lambda: raycast(volumes, starts, ends, backend="torch"),
        f"torch, {run.gpu.name}": lambda: raycast(*there, backend="torch"),
    }
    first, *others = [job() for job in jobs.values()]
    same = [all(np.array_equal(a, torch.as_tensor(b).cpu().numpy()) for a, b in zip(first, hits, strict=True)) for hits in others]
    times = take_turns(jobs, 5)
    rows = [(way, 1e3 * times[way].median, str(ok)) for way, ok in zip(jobs, [True, *same], strict=True)]
    title = f"RayIoU, one frame: {len(starts)} origins x {ends.shape[-2]} rays x 2 volumes"
    yield Table(title, ("way", "ms", "same hits"), rows, "Medians of 5 rounds in turn.")
    if not all(same):
        raise RuntimeError("the backends disagree")


def run_splatting(run: Run) -> Iterator[Any]:
    """Splatting and exact traversal of a street of voxels, forward and with gradients: gsplat and plain torch beside numba on the CPU."""
    import torch

    from benchmarks.speed import splat as speed
    from frustum.benchmark import Table, take_turns
    from frustum.geometry import VoxelGrid
    from frustum.ops.splat import rasterize
    from frustum.ops.splat_gsplat import why_not
    from frustum.ops.voxel_render import voxel_render

    small = VoxelGrid(lower=(-10, -10, -1), upper=(10, 10, 5.4), cell=(0.4, 0.4, 0.4))
    grid, size = (small, (22, 40)) if run.gpu.small else (VoxelGrid.occ3d(), speed.SIZE)
    there, lenses, splats = torch.device(run.gpu.name), speed.cameras(size), speed.scene(grid)
    without = why_not(there, None)
    cases: tuple[tuple[str, Callable[..., Any], list[Any], tuple[Any, ...], tuple[str, ...]], ...] = (
        ("Splatting", rasterize, splats, (*lenses, size), ("torch",) if without else ("torch", "gsplat")),
        ("Exact traversal", voxel_render, speed.field(grid, splats[2]), (grid, *speed.rays(*lenses, size)), ("torch",)),
    )
    for title, render, tensors, others, backends in cases:
        places = {"numba, CPU": ("numba", torch.device("cpu"))} | {f"{name}, {there}": (name, there) for name in backends}
        jobs, gradients = {}, {}
        for way, (backend, device) in places.items():
            inputs = [t.detach().to(device).requires_grad_() for t in tensors]
            rest = [o.to(device) if isinstance(o, torch.Tensor) else o for o in others]
            for k, job in enumerate((speed.no_grad, speed.both)):
                jobs[way, k] = job(render, inputs, *rest, backend=backend)
            gradients[way] = [g.cpu() for g in jobs[way, 1]()]  # type: ignore[attr-defined]
        times, wanted = take_turns(jobs, 3), gradients["numba, CPU"]
        errors = {
            way: max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True))
            for way, found in gradients.items()
        }
        yield Table(
            f"{title}: {len(splats[0]):,} voxels, six images of {size[0]}x{size[1]}",
            ("way", "forward, ms", "forward + backward, ms", "largest difference of a gradient"),
            [(way, *(1e3 * times[way, k].median for k in (0, 1)), errors[way]) for way in places],
            "Medians of 3 rounds in turn. Difference: from numba, relative to the largest gradient." + (without and f" gsplat {without}."),
        )
        if wrong := [way for way, error in errors.items() if error > 1e-3]:
            raise RuntimeError(f"{title}: the gradients of {', '.join(wrong)} are not those of numba")


def run_loading(run: Run) -> Iterator[Any]:
    """Whether training of M0 waits for its data: what the network takes, against what the loader gives."""
    import torch

    from frustum.benchmark import Table
    from frustum.data.loader import SampleDataset, build_loader
    from frustum.engine.feed import build_pipeline

    samples, cores = 4, os.cpu_count() or 1
    overrides = [*run.gpu.sizes, "train.accumulate=1", f"train.batch_size={samples}"]
    stepper, batch, recipe = trainer(run.gpu, LARGE["M0"], overrides, samples, 100)
    batch = batch.pin_memory() if torch.cuda.is_available() else batch
    run.gpu.reset_memory()
    seconds = []
    for _ in range(2 if run.gpu.small else 12):
        start = time.perf_counter()
        stepper.step([batch])
        run.gpu.wait()
        seconds.append(time.perf_counter() - start)
    eaten = samples / sorted(seconds)[len(seconds) // 2]
    rows: list[tuple] = [(f"training step of M0, bfloat16, batch {samples}", eaten, 1.0, run.gpu.memory())]
    with tempfile.TemporaryDirectory() as folder:
        source = NoiseRig(Path(folder), (180, 320) if run.gpu.small else (900, 1600))
        count = 8 * samples if run.gpu.small else 24 * cores
        dataset = SampleDataset(source, [f"{i}" for i in range(count)], build_pipeline(recipe, training=True), 0)
        given = 0.0
        for workers in dict.fromkeys((0, max(1, cores - 1))):
            loader = iter(build_loader(dataset, samples, True, 0, workers))
            for _ in range(1 + workers):
                next(loader)  # the workers have started, and have not yet filled their queues
            taken, start = 0, time.perf_counter()
            while taken < count and time.perf_counter() - start < 8 and (found := next(loader, None)) is not None:
                taken += len(found)
            given = taken / (time.perf_counter() - start)
            rows.append((f"loader, augmented, {workers} workers", given, given / eaten, None))
    yield Table(
        f"Training of M0 and its data: JPEG of {source.size[1]}x{source.size[0]}, {cores} cores",
        ("what", "samples/s", "x the network", "memory, GiB"),
        rows,
        "The network's step holds copying, optimiser and running average.",
    )
    yield {"loader, samples/s, for each one that training of M0 takes": given / eaten}


class NoiseRig:
    """A data source of nuScenes' six cameras that see smooth noise, with images on disk and random occupancy labels."""

    def __init__(self, root: Path, size: tuple[int, int]):
        import numpy as np
        from PIL import Image

        from frustum.worlds.street.rigs import StreetRig

        self.root, self.size, self.cameras = root, size, StreetRig.nuscenes().cameras
        rng = np.random.default_rng(0)
        for i in range(12):
            coarse = Image.fromarray(rng.integers(0, 255, (size[0] // 12, size[1] // 12, 3), np.uint8)).resize((size[1], size[0]))
            grainy = np.asarray(coarse, np.int16) + rng.integers(-6, 7, (*size, 3))
            Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(root / f"{i}.jpg", quality=90)
        self.labels = rng.integers(0, 18, (200, 200, 16), np.uint8)

    def tokens(self, split: str = "all") -> list[str]:
        """Not needed: the caller chooses."""
        return []

    def neighbours(self, token: str) -> list[str]:
        """Alone."""
        return [token]

    def count_boxes(self, tokens: Any, min_points: int = 1) -> int:
        """None."""
        return 0

    def sample(self, token: str, *, with_boxes: bool = True, occupancy: Any = True, history: int = 0) -> Any:
        """A keyframe whose images are some of the few on disk."""
        import numpy as np

        from frustum.data.sample import CameraFrame, Occupancy, Sample

        frames = []
        for i, camera in enumerate(self.cameras):
            path = self.root / f"{(int(token) + 2 * i) % 12}.jpg"
            matrix = camera.fitted(*self.size)[0]
            frames.append(CameraFrame(camera.name, path, 0.0, matrix, camera.cam2ego.sensor2ego, np.eye(4), self.size))
        seen = np.ones_like(self.labels)
        return Sample(token, "noise", 0.0, np.eye(4), tuple(frames), occupancy=Occupancy(self.labels, seen, seen) if occupancy else None)


class Part(NamedTuple):
    """A part: what runs, and the seconds after which it is ended."""

    run: Callable[[Run], Iterator[Any]]
    seconds: int

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return (self.run.__doc__ or "").splitlines()[0]


PARTS = {
    "tests": Part(run_tests, 75),
    "training": Part(run_training, 50),
    "pooling": Part(run_pooling, 30),
    "forward": Part(run_forward, 130),
    "rays": Part(run_rays, 25),
    "splatting": Part(run_splatting, 45),
    "loading": Part(run_loading, 45),
}
