"""nuScenes detection evaluation of one detector on a whole validation set, beside the plain formulation, in one run on one machine.

    python benchmarks/speed/detection.py --json detection.json

A made-up detector: 6,019 samples with 300 boxes each in a submission file of about 530 MB, which is read, checked, matched and scored. The
plain formulation decodes the same JSON and then goes through the boxes one by one in Python, as one would write it down first; it is timed
on a share of the samples, checked to give the same figures on them, and extrapolated in proportion to their number. Figures are seconds of
CPU time of one process (one thread). True boxes are in memory on both sides.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numba
import numpy as np

from frustum.types.boxes import DetectionBoxes
from frustum.data.nuscenes.detection_results import read_detections, write_detections
from frustum.metrics.detection import NuScenesDetection
from frustum.metrics.detection_rules import DetectionRules, Surroundings

RULES = DetectionRules()
EGO = np.zeros(2)


def make_sample(rng: np.random.Generator, num_pred: int, num_true: int = 40) -> tuple[DetectionBoxes, DetectionBoxes]:
    """Predictions and truth of one sample: the first predictions are near true boxes, the others anywhere within 60 m."""
    near = min(num_true, num_pred)

    def boxes(num: int, score: np.ndarray) -> DetectionBoxes:
        half = rng.uniform(-np.pi, np.pi, num) / 2
        return DetectionBoxes(
            labels=rng.choice(10, num, p=[0.4, 0.08, 0.02, 0.02, 0.03, 0.1, 0.02, 0.03, 0.2, 0.1]),
            centres=np.concatenate([rng.uniform(-60, 60, (num, 2)), rng.uniform(-1, 2, (num, 1))], 1).round(3),
            sizes=rng.uniform(0.5, 5, (num, 3)).round(3),
            rotations=np.stack([np.cos(half), np.zeros(num), np.zeros(num), np.sin(half)], 1),
            velocities=rng.normal(0, 3, (num, 2)).round(3),
            attributes=rng.integers(-1, 8, num),
            scores=score,
            num_points=rng.integers(0, 20, num),
        )

    truth, pred = boxes(num_true, np.full(num_true, -1.0)), boxes(num_pred, rng.beta(1, 6, num_pred).round(4))
    pred.labels[:near] = truth.labels[:near]
    pred.centres[:near] = (truth.centres[:near] + rng.normal(0, 0.7, (near, 3))).round(3)
    pred.scores[:near] = rng.beta(3, 2, near).round(4)
    pred.num_points[:] = -1
    return pred, truth


# ---- the plain formulation: boxes as dictionaries, one after the other ---------------------------------------------------------------


def plain_boxes(token: str, boxes: DetectionBoxes) -> list[dict[str, Any]]:
    """True boxes as a submission would hold them."""
    return [
        {
            "sample_token": token,
            "translation": boxes.centres[i].tolist(),
            "size": boxes.sizes[i, [1, 0, 2]].tolist(),  # width first, as in the file
            "rotation": boxes.rotations[i].tolist(),
            "velocity": boxes.velocities[i].tolist(),
            "detection_name": boxes.names[i],
            "attribute_name": boxes.attribute_names[i],
            "num_pts": int(boxes.num_points[i]),
        }
        for i in range(len(boxes))
    ]


def plain_kept(boxes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that count."""
    reach = dict(RULES.ranges)
    near = [b for b in boxes if math.hypot(*(c - e for c, e in zip(b["translation"][:2], EGO, strict=True))) < reach[b["detection_name"]]]
    return [b for b in near if b.get("num_pts", -1) != 0]


def plain_yaw(box: dict[str, Any]) -> float:
    w, x, y, z = box["rotation"]
    return math.atan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))


def plain_errors(pred: dict[str, Any], true: dict[str, Any]) -> list[float]:
    """The five errors of one pair."""
    common = math.prod(map(min, pred["size"], true["size"]))
    period = math.pi if true["detection_name"] in RULES.half_turn else 2 * math.pi
    known = true["attribute_name"] != ""
    return [
        math.dist(pred["translation"][:2], true["translation"][:2]),
        1 - common / (math.prod(pred["size"]) + math.prod(true["size"]) - common),
        abs((plain_yaw(true) - plain_yaw(pred) + period / 2) % period - period / 2),
        math.dist(pred["velocity"], true["velocity"]),
        float(pred["attribute_name"] != true["attribute_name"]) if known else math.nan,
    ]


def plain_curve(truth: dict[str, list], pred: list, name: str, threshold: float) -> tuple[float, list[float]]:
    """Average precision and the five errors of one class at one distance."""
    num_true = sum(box["detection_name"] == name for boxes in truth.values() for box in boxes)
    mine = [box for box in pred if box["detection_name"] == name]
    order = sorted(range(len(mine)), key=lambda i: (mine[i]["detection_score"], i), reverse=True)
    taken: set[tuple[str, int]] = set()
    hits, scores, errors = [], [], []
    for i in order:
        box, best, chosen = mine[i], math.inf, -1
        for g, true in enumerate(truth[box["sample_token"]]):
            if true["detection_name"] == name and (box["sample_token"], g) not in taken:
                distance = math.dist(box["translation"][:2], true["translation"][:2])
                if distance < best:
                    best, chosen = distance, g
        hits.append(best < threshold)
        scores.append(box["detection_score"])
        if hits[-1]:
            taken.add((box["sample_token"], chosen))
            errors.append([box["detection_score"], *plain_errors(box, truth[box["sample_token"]][chosen])])
    if not num_true or not errors:
        return 0.0, [1.0] * 5
    recalls, found = np.linspace(0, 1, 101), np.cumsum(hits)
    precision = np.interp(recalls, found / num_true, found / np.arange(1, len(hits) + 1), right=0)
    confidence = np.interp(recalls, found / num_true, scores, right=0)
    last, columns, means = int(np.nonzero(confidence)[0][-1]), np.array(errors), []
    for k in range(1, 6):
        known = ~np.isnan(columns[:, k])
        running = np.nancumsum(columns[:, k]) / np.maximum(np.cumsum(known), 1) if known.any() else np.ones(len(known))
        curve = np.interp(confidence[::-1], columns[::-1, 0], running[::-1])[::-1]
        means.append(float(curve[11 : last + 1].mean()) if last >= 11 else 1.0)
    return float(np.maximum(precision[11:] - 0.1, 0).mean()) / 0.9, means


def plain(file: Path, truth: dict[str, list[dict[str, Any]]]) -> tuple[float, float]:
    """mAP and NDS of a submission file."""
    given = json.loads(file.read_text())["results"]
    kept = {token: plain_kept(boxes) for token, boxes in truth.items()}
    pred = [box for boxes in given.values() for box in plain_kept(boxes)]
    aps, errors = [], []
    for name in RULES.classes:
        rows = {t: plain_curve(kept, pred, name, t) for t in RULES.thresholds}
        aps.append(np.mean([ap for ap, _ in rows.values()]))
        measured = [RULES.is_measured(name, e) for e in ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")]
        errors.append([e if ok else math.nan for e, ok in zip(rows[RULES.error_threshold][1], measured, strict=True)])
    scores = np.maximum(0, 1 - np.nanmean(errors, 0))
    return float(np.mean(aps)), float((5 * np.mean(aps) + scores.sum()) / 10)


# ---- the comparison ------------------------------------------------------------------------------------------------------------------


def score(pred: dict[str, DetectionBoxes], truth: dict[str, DetectionBoxes]) -> dict[str, Any]:
    """Ours, from boxes in memory."""
    metric = NuScenesDetection(order=list(pred))
    for token, boxes in pred.items():
        metric.add(token, boxes, truth[token], Surroundings(EGO))
    return metric.compute()


def cpu(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU time, and the result."""
    began = time.process_time()
    result = run()
    return time.process_time() - began, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=6019)
    parser.add_argument("--boxes", type=int, default=300)
    parser.add_argument("--plain", type=int, default=100, help="samples that the plain formulation gets")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats: does it run? The figures mean little")
    options = parser.parse_args()
    if options.quick:
        options.samples, options.plain, options.repeats = 60, 4, 1

    rng = np.random.default_rng(0)
    made = {f"sample-{i:05d}": make_sample(rng, options.boxes) for i in range(options.samples)}
    truth = {token: boxes for token, (_, boxes) in made.items()}
    part = list(made)[: options.plain]
    score({part[0]: made[part[0]][0]}, truth)  # compiles
    with tempfile.TemporaryDirectory(prefix="frustum-detection-") as folder:
        whole, some = Path(folder) / "whole.json", Path(folder) / "some.json"
        writing, _ = cpu(lambda: write_detections(whole, ((token, boxes) for token, (boxes, _) in made.items())))
        write_detections(some, {token: made[token][0] for token in part})
        megabytes = whole.stat().st_size / 1e6
        made.clear()
        plain_truth = {token: plain_boxes(token, truth[token]) for token in part}
        rows: dict[str, list[float]] = {"read and check the file": [], "match and score": [], "plain": []}
        for _ in range(options.repeats):
            seconds, given = cpu(lambda: read_detections(whole))
            rows["read and check the file"].append(seconds)
            seconds, figures = cpu(lambda given=given: score(given.boxes, truth))
            rows["match and score"].append(seconds)
            seconds, expected = cpu(lambda: plain(some, plain_truth))
            rows["plain"].append(seconds * options.samples / len(part))
        ours = score(read_detections(some).boxes, truth)
    assert np.allclose(expected, (ours["mean_ap"], ours["nd_score"]), atol=1e-9, rtol=0), "the plain formulation disagrees"

    medians = {name: statistics.median(seconds) for name, seconds in rows.items()}
    total = medians["read and check the file"] + medians["match and score"]
    print(
        f"detection: {options.samples} samples x {options.boxes} boxes, file of {megabytes:.0f} MB; CPU seconds of one thread, "
        f"median of {options.repeats}; {os.cpu_count()} cores, numpy {np.__version__}, numba {numba.__version__}"
    )
    lines = {**medians, "both: file to figures": total}
    plain_seconds = lines.pop("plain")
    for name, seconds in lines.items():
        print(f"  {name:60s} {seconds:8.2f} s")
    name = f"plain, file to figures (extrapolated from {len(part)} samples)"
    print(f"  {name:60s} {plain_seconds:8.2f} s  = {plain_seconds / total:.1f} x both")
    if options.json:
        about = {"benchmark": "detection", "samples": options.samples, "boxes": options.boxes, "megabytes": megabytes}
        machine = {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version(), "numpy": np.__version__}
        seconds_of = {"rows": rows, "median_s": medians, "total_s": total, "write_s": writing, "times_plain": plain_seconds / total}
        about |= {"plain_samples": len(part), "plain_is_extrapolated": True, "mean_ap": figures["mean_ap"], "nd_score": figures["nd_score"]}
        options.json.write_text(json.dumps(about | machine | seconds_of, indent=2) + "\n")


if __name__ == "__main__":
    main()
