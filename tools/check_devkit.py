"""Open a database that frustum wrote with the official nuscenes-devkit: list samples, render boxes, evaluate the truth as a prediction.

It also evaluates made-up detections, and asks frustum for the figures of the same file: they must be equal. Runs in an environment of its
own (`make check-devkit`), because the devkit needs numpy < 2; it imports nothing of frustum.

    python tools/check_devkit.py ROOT [--version v1.0-trainval] [--split street_val] [--python .venv/bin/python] [--out DIR]
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes
from pyquaternion import Quaternion


def truth_as_prediction(nusc: NuScenes, scenes: list[str]) -> dict:
    """A detection submission that repeats the annotations with score 1 (those that the evaluation counts: with points)."""
    results = {}
    for scene in nusc.scene:
        if scene["name"] not in scenes:
            continue
        token = scene["first_sample_token"]
        while token:
            sample = nusc.get("sample", token)
            boxes = []
            for annotation in (nusc.get("sample_annotation", t) for t in sample["anns"]):
                name = category_to_detection_name(annotation["category_name"])
                if name is None or annotation["num_lidar_pts"] + annotation["num_radar_pts"] == 0:
                    continue
                velocity = nusc.box_velocity(annotation["token"])[:2]
                attributes = [nusc.get("attribute", t)["name"] for t in annotation["attribute_tokens"]]
                boxes.append(
                    {
                        "sample_token": token,
                        "translation": annotation["translation"],
                        "size": annotation["size"],
                        "rotation": annotation["rotation"],
                        "velocity": np.nan_to_num(velocity).tolist(),
                        "detection_name": name,
                        "detection_score": 1.0,
                        "attribute_name": attributes[0] if attributes else "",
                    }
                )
            results[token] = boxes
            token = sample["next"]
    meta = {f"use_{sensor}": sensor == "camera" for sensor in ("camera", "lidar", "radar", "map", "external")}
    return {"meta": meta, "results": results}


def disturbed(truth: dict, seed: int = 0) -> dict:
    """The same submission as a detector of middling quality would give it: boxes that are off, missed, doubled, mistaken, or not there.

    Scores are rounded to one decimal, so that many are equal.
    """
    rng, found = np.random.default_rng(seed), copy.deepcopy(truth)
    names = sorted({box["detection_name"] for boxes in truth["results"].values() for box in boxes})
    attributes = sorted({box["attribute_name"] for boxes in truth["results"].values() for box in boxes})
    for token, boxes in found["results"].items():
        seen = [copy.deepcopy(box) for box in boxes for _ in range(int(rng.choice(3, p=[0.2, 0.6, 0.2])))]
        seen += [copy.deepcopy(box) for box in boxes if rng.random() < 0.3]
        for i, box in enumerate(seen):
            spread = 8.0 if rng.random() < 0.2 else float(rng.choice([0.1, 0.4, 1.0]))
            half = (Quaternion(box["rotation"]).yaw_pitch_roll[0] + rng.normal(0, 0.6)) / 2
            box["translation"] = (np.array(box["translation"]) + rng.normal(0, spread, 3) * [1, 1, 0.1]).tolist()
            box["size"] = (np.array(box["size"]) * rng.uniform(0.6, 1.5, 3)).tolist()
            box["rotation"] = [math.cos(half), 0.0, 0.0, math.sin(half)]
            box["velocity"] = (np.array(box["velocity"]) + rng.normal(0, 0.7, 2)).tolist()
            box["detection_score"] = float(np.round(np.clip(0.9 - 0.08 * spread + rng.normal(0, 0.2), 0, 1), 1 if i % 2 else 6))
            if rng.random() < 0.1:
                box["detection_name"] = str(rng.choice(names))
            if rng.random() < 0.2:
                box["attribute_name"] = str(rng.choice(attributes))
        found["results"][token] = [seen[i] for i in rng.permutation(len(seen))]
    return found


def figures(metrics: dict) -> dict[str, float]:
    """mAP, NDS, the mean errors, and per class the APs and errors: what both summaries hold under the same names."""
    flat = {name: metrics[name] for name in ("mean_ap", "nd_score")}
    flat |= {name: error for name, error in metrics["tp_errors"].items()}
    flat |= {f"{name}, AP at {at} m": ap for name, aps in metrics["label_aps"].items() for at, ap in aps.items()}
    flat |= {f"{name}, {error}": value for name, errors in metrics["label_tp_errors"].items() for error, value in errors.items()}
    return {name: math.nan if value is None else float(value) for name, value in flat.items()}


def differences(devkit: dict[str, float], ours: dict[str, float], tolerance: float = 1e-9) -> list[str]:
    """Where the figures are not the same, in words."""
    lines = [f"{name}: only on one side" for name in devkit.keys() ^ ours.keys()]
    both = [(name, devkit[name], ours[name]) for name in devkit if name in ours]
    return lines + [f"{n}: devkit {a!r}, frustum {b!r}" for n, a, b in both if not (abs(a - b) <= tolerance or (a != a and b != b))]


def main() -> int:
    """Run the check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--version", default="v1.0-trainval")
    parser.add_argument(
        "--split", default="street_val", help="a custom split: the devkit never looks up its predefined names in splits.json"
    )
    parser.add_argument("--python", default=".venv/bin/python", help="of the environment that has frustum")
    parser.add_argument("--out", type=Path, default=Path("runs/check-devkit"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    nusc = NuScenes(version=args.version, dataroot=str(args.root), verbose=True)
    nusc.list_scenes()
    sample = nusc.sample[len(nusc.sample) // 2]
    nusc.list_sample(sample["token"])
    for channel in [c for c in sample["data"] if c.startswith("CAM")][:2]:
        nusc.render_sample_data(sample["data"][channel], out_path=str(args.out / f"{channel}.png"), verbose=False)
    nusc.render_sample_data(sample["data"]["LIDAR_TOP"], out_path=str(args.out / "LIDAR_TOP.png"), underlay_map=False, verbose=False)
    nusc.render_pointcloud_in_image(sample["token"], camera_channel="CAM_FRONT", out_path=str(args.out / "points.png"), verbose=False)
    plt.close("all")
    if getattr(nusc, "lidarseg", []):
        nusc.get_sample_lidarseg_stats(sample["token"])

    # Every annotation holds exactly as many LiDAR points as it says.
    from nuscenes.utils.data_classes import LidarPointCloud
    from nuscenes.utils.geometry_utils import points_in_box

    wrong = 0
    lidar_path, boxes, _ = nusc.get_sample_data(sample["data"]["LIDAR_TOP"])
    points = LidarPointCloud.from_file(lidar_path).points[:3]
    for box in boxes:
        wrong += int(points_in_box(box, points).sum()) != nusc.get("sample_annotation", box.token)["num_lidar_pts"]
    print(f"boxes whose point count differs: {wrong} of {len(boxes)}")

    scenes = json.loads((args.root / args.version / "splits.json").read_text())[args.split]
    truth = truth_as_prediction(nusc, scenes)

    def evaluated(name: str, submission: dict) -> DetectionEval:
        path = args.out / f"{name}.json"
        path.write_text(json.dumps(submission))
        return DetectionEval(nusc, config_factory("detection_cvpr_2019"), str(path), args.split, str(args.out / name), verbose=True)

    evaluation = evaluated("results", truth)
    metrics, _ = evaluation.evaluate()
    summary = metrics.serialize()
    present = {box.detection_name for boxes in evaluation.gt_boxes.boxes.values() for box in boxes}
    aps = {name: round(ap, 4) for name, ap in summary["mean_dist_aps"].items() if name in present}
    print("average precision of the truth, classes that occur:", aps)

    noisy, _ = evaluated("disturbed", disturbed(truth)).evaluate()
    command = [args.python, "-m", "frustum", "eval", "--results", str(args.out / "disturbed.json"), "--data", str(args.root)]
    subprocess.run([*command, "--version", args.version, "--json", str(args.out / "frustum.json")], check=True, stdout=subprocess.DEVNULL)
    ours = json.loads((args.out / "frustum.json").read_text())["results"]["detection"]
    theirs = figures(json.loads(json.dumps(noisy.serialize())))
    other = differences(theirs, figures(ours))
    shown = {name: round(theirs[name], 4) for name in ("mean_ap", "nd_score", *metrics.tp_errors)}
    print(f"made-up detections: {shown}; {len(theirs)} figures, of which frustum finds others for {len(other)}", *other, sep="\n  ")
    failed = wrong > 0 or not aps or min(aps.values()) < 0.999 or bool(other) or not 0.05 < noisy.mean_ap < 0.95
    print("devkit check", "FAILED" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
