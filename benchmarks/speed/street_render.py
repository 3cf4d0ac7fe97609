"""What a keyframe of the street world costs, stage by stage, in one thread: rays per second and milliseconds.

    python benchmarks/speed/street_render.py --json street_render.json
    python benchmarks/speed/street_render.py --size 96 256

Processor time of the calling thread, best of several keyframes, so that other load on the machine disturbs little. Files are not written
here; benchmarks/speed/street_world.py measures complete generation.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from frustum.geometry import VoxelGrid
from frustum.worlds.street.config import SceneConfig
from frustum.worlds.street.lidar import LidarPattern
from frustum.worlds.street.render import SceneRenderer, warm_up
from frustum.worlds.street.rigs import StreetRig
from frustum.worlds.street.scene import build_scene


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    began = time.thread_time()
    result = function()
    return 1e3 * (time.thread_time() - began), result


def measure(seed: int, size: tuple[int, int], repeats: int, neighbours: int) -> dict[str, Any]:
    rig, grid, pattern = StreetRig.nuscenes(), VoxelGrid.occ3d(), LidarPattern.nuscenes()
    build, scene = timed(lambda: build_scene(f"benchmark-{seed}", seed, SceneConfig()))
    compile_seconds = warm_up()
    pack, renderer = timed(lambda: SceneRenderer(scene))
    stages: dict[str, list[float]] = {name: [] for name in ("actors and shadows", "cameras", "lidar", "labels and masks", "visibility")}
    for step in range(repeats + 1):
        moment = 2.0 + 0.5 * step
        ego = scene.ego.pose(moment)
        cameras = [(c.fitted(*size)[0], ego @ c.cam2ego.sensor2ego, size) for c in rig.cameras]
        offsets = [0.0] + [sign * k / 2 for k in range(1, neighbours + 1) for sign in (-1, 1)]
        lidars = [scene.ego.pose(moment + d) @ rig.lidar.sensor2ego for d in offsets]
        names = [c.name for c in rig.cameras]
        actors, _ = timed(lambda m=moment: renderer.stage.set_time(m))
        photograph, shots = timed(lambda m=moment, c=cameras: [renderer.camera(*view, m) for view in c])
        turn, sweep = timed(lambda m=moment, l=lidars: renderer.lidar(l[0], m))
        label, labels = timed(lambda m=moment, e=ego, c=cameras, l=lidars: renderer.occupancy(e, m, grid, c, l))
        views, taken = dict(zip(names, cameras, strict=True)), dict(zip(names, shots, strict=True))
        grade, _ = timed(lambda m=moment, v=views, t=taken: renderer.visibility([a.id for a in scene.actors], m, v, t))
        if step:  # the first keyframe fills caches
            for name, value in zip(stages, (actors, photograph, turn, label, grade), strict=True):
                stages[name].append(value)
    best = {name: round(float(np.min(values)), 2) for name, values in stages.items()}
    camera_rays, beams = len(rig.cameras) * size[0] * size[1], len(pattern.elevations) * pattern.num_azimuths
    occupied = labels.semantics != 17
    return {
        "image_size": list(size),
        "milliseconds": best | {"keyframe": round(sum(best.values()), 2)},
        "once_per_scene_milliseconds": {"build": round(build, 1), "pack": round(pack, 1)},
        "compile_or_load_seconds": round(compile_seconds, 2),
        "million_shaded_camera_rays_per_second": round(camera_rays / best["cameras"] / 1e3, 2),
        "million_lidar_beams_per_second": round(beams / best["lidar"] / 1e3, 2),
        "lidar_points": len(sweep.points),
        "shares": {
            "occupied": round(float(occupied.mean()), 4),
            "mask_lidar": round(float(labels.mask_lidar.mean()), 4),
            "mask_camera": round(float(labels.mask_camera.mean()), 4),
            "occupied_in_mask_camera": round(float(occupied[labels.mask_camera > 0].mean()), 4),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, action="append", metavar=("HEIGHT", "WIDTH"), help="default: 96 256 and 256 704")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--neighbours", type=int, default=4, help="keyframes before and after whose beams are accumulated in the masks")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats: does it run? The figures mean little")
    args = parser.parse_args()
    if args.quick:
        args.size, args.repeats, args.neighbours = args.size or [(64, 192)], 2, 1
    results = [measure(args.seed, tuple(size), args.repeats, args.neighbours) for size in args.size or [(96, 256), (256, 704)]]
    print(f"{'stage (ms, one thread)':28}" + "".join(f"{'x'.join(map(str, r['image_size'])):>12}" for r in results))
    for stage in results[0]["milliseconds"]:
        print(f"{stage:28}" + "".join(f"{r['milliseconds'][stage]:12.1f}" for r in results))
    for row in ("million_shaded_camera_rays_per_second", "million_lidar_beams_per_second"):
        print(f"{row.replace('_', ' ')[:27]:28}" + "".join(f"{r[row]:12.2f}" for r in results))
    print("shares:", results[-1]["shares"])
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
