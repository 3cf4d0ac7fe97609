"""How fast the street world is made: complete keyframes per second on disk, and rays per second of its two casters.

    make benchmark
    python benchmarks/speed/street_world.py --json street_world.json

A keyframe is six images, one LiDAR turn with point labels, boxes, occupancy with both masks and instances, and tables, written to disk.
Kernels are compiled before the clock starts; building scenes and starting worker processes counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from frustum.worlds.street.config import SceneConfig
from frustum.worlds.street.generate import generate
from frustum.worlds.street.render import SceneRenderer
from frustum.worlds.street.rigs import StreetRig
from frustum.worlds.street.scene import build_scene
from frustum.worlds.street.world_config import WorldConfig

SIZES = {"demo": (96, 256), "nuScenes": (256, 704)}


def keyframes(size: tuple[int, int], scenes: int, frames: int, workers: int) -> dict[str, Any]:
    """Generate a world in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        config = WorldConfig(train_scenes=scenes, val_scenes=0, frames=frames, image_size=size)
        report = generate(config, Path(folder), workers)
        written = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return {
        "image_size": size,
        "keyframes": report.keyframes,
        "seconds": round(report.seconds, 2),
        "keyframes_per_second": round(report.rate, 2),
        "megabytes": round(written / 1e6, 1),
    }


def rays(repeats: int = 5) -> dict[str, float]:
    """Shaded camera rays and LiDAR beams per second in one process, best of several."""
    scene, rig = build_scene("benchmark", 0, SceneConfig(duration=2.0)), StreetRig.nuscenes()
    renderer, size = SceneRenderer(scene), SIZES["nuScenes"]
    best = {"camera": 0.0, "lidar": 0.0}
    for step in range(repeats + 1):  # the first one compiles
        moment = 0.1 * step
        ego = scene.ego.pose(moment)
        began = time.perf_counter()
        for camera in rig.cameras:
            renderer.camera(camera.fitted(*size)[0], ego @ camera.cam2ego.sensor2ego, size, moment)
        middle = time.perf_counter()
        renderer.lidar(ego @ rig.lidar.sensor2ego, moment)
        end = time.perf_counter()
        if step:
            best["camera"] = max(best["camera"], len(rig.cameras) * size[0] * size[1] / (middle - began))
            best["lidar"] = max(best["lidar"], 32 * 1090 / (end - middle))
    return {"shaded_camera_rays_per_second": round(best["camera"]), "lidar_beams_per_second": round(best["lidar"])}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--frames", type=int, default=40, help="keyframes per scene; nuScenes has 40")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats: does it run? The figures mean little")
    args = parser.parse_args()
    if args.quick:
        args.scenes, args.frames = 1, 2

    figures: dict[str, Any] = {"machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", "workers": args.workers}
    figures |= rays()
    for name, size in SIZES.items():
        figures[name] = keyframes(size, args.scenes, args.frames, args.workers)
        print(f"{name}: {figures[name]['keyframes_per_second']} keyframes/s at {size[0]} x {size[1]}, {figures[name]['megabytes']} MB")
    camera, lidar = (figures[f"{name}_per_second"] / 1e6 for name in ("shaded_camera_rays", "lidar_beams"))
    print(f"{camera:.1f} M shaded camera rays/s, {lidar:.1f} M LiDAR beams/s")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
