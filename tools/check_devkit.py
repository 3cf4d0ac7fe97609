"""Open a database that frustum wrote with the official nuscenes-devkit: list samples, render boxes, evaluate the truth as a prediction.

Runs in an environment of its own (`make check-devkit`), because the devkit needs numpy < 2; it imports nothing of frustum.

    python tools/check_devkit.py ROOT [--version v1.0-trainval] [--split street_val] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
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


def main() -> int:
    """Run the check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--version", default="v1.0-trainval")
    parser.add_argument(
        "--split", default="street_val", help="a custom split: the devkit never looks up its predefined names in splits.json"
    )
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
    submission = args.out / "results.json"
    submission.write_text(json.dumps(truth_as_prediction(nusc, scenes)))
    evaluation = DetectionEval(
        nusc, config_factory("detection_cvpr_2019"), str(submission), args.split, str(args.out / "detection"), verbose=True
    )
    metrics, _ = evaluation.evaluate()
    summary = metrics.serialize()
    present = {box.detection_name for boxes in evaluation.gt_boxes.boxes.values() for box in boxes}
    aps = {name: round(ap, 4) for name, ap in summary["mean_dist_aps"].items() if name in present}
    print("average precision of the truth, classes that occur:", aps)
    failed = wrong > 0 or not aps or min(aps.values()) < 0.999
    print("devkit check", "FAILED" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
