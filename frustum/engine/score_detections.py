"""Score a detection submission, whoever made it, with the true boxes of a database; no model is needed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from frustum.data.nuscenes.detection_results import DetectionResults
from frustum.data.nuscenes.detection_truth import detection_truth
from frustum.data.nuscenes.reader import NuScenes
from frustum.engine.eval_report import Table, percent
from frustum.engine.progress import progress_bar
from frustum.errors import DataError
from frustum.metrics.detection import NuScenesDetection
from frustum.metrics.detection_rules import ERRORS, Surroundings
from frustum.version import __version__

SHORT = {"trans_err": "ATE", "scale_err": "ASE", "orient_err": "AOE", "vel_err": "AVE", "attr_err": "AAE"}
UNITS = {"trans_err": "m", "scale_err": "1 - IoU", "orient_err": "rad", "vel_err": "m/s", "attr_err": "1 - accuracy"}

PROTOCOL = {
    "mean_ap": "nuScenes detection_cvpr_2019: mean over ten classes and distances of 0.5, 1, 2 and 4 m, above recall and precision 0.1",
    "tp_errors": "mean over classes of the errors of matches within 2 m; a class without a match counts 1 and stays in the mean",
    "nd_score": "(5 mAP + the sum of max(0, 1 - error) over the five errors) / 10",
    "filters": "boxes nearer than 50 m (pedestrians and cycles 40 m, barriers and cones 30 m); true boxes with a LiDAR or radar point; "
    "no cycles inside bicycle racks",
}


@dataclass(frozen=True)
class DetectionReport:
    """One submission on one split. `metrics` as `NuScenesDetection.compute`, `counts` as its `counts`."""

    name: str
    split: str
    samples: int
    meta: dict[str, Any]
    metrics: dict[str, Any]
    counts: dict[str, dict[str, int]]
    seconds: float

    def numbers(self) -> dict[str, Any]:
        """JSON values, with the protocol of every figure."""
        about = {"kind": "detection", "name": self.name, "split": self.split, "samples": self.samples, "meta": self.meta}
        made = {"seconds": round(self.seconds, 3), "frustum": __version__}
        return about | made | {"metrics": self.metrics, "counts": self.counts, "protocol": PROTOCOL}

    def table(self) -> Table:
        """mAP, NDS and the five mean errors."""
        errors = self.metrics["tp_errors"]
        columns = ["mAP", "NDS", *(f"m{SHORT[e]} ({UNITS[e]})" for e in ERRORS)]
        row = [percent(self.metrics["mean_ap"]), percent(self.metrics["nd_score"]), *(_number(errors[e]) for e in ERRORS)]
        return Table(
            f"{self.name} on {self.split}, {self.samples} samples (mAP and NDS in percent)", ["", *columns], [["all classes", *row]]
        )

    def class_table(self) -> Table:
        """AP at every distance and in the mean, the errors, and how many boxes counted, by class."""
        aps, errors = self.metrics["label_aps"], self.metrics["label_tp_errors"]
        columns = ["class", "AP", *(f"@{t} m" for t in next(iter(aps.values()))), *(SHORT[e] for e in ERRORS), "true boxes", "predicted"]
        rows = [
            [
                name,
                percent(self.metrics["mean_dist_aps"][name]),
                *(percent(ap) for ap in aps[name].values()),
                *(_number(errors[name][e]) for e in ERRORS),
                str(count["true"]),
                str(count["predicted"]),
            ]
            for name, count in self.counts.items()
        ]
        return Table(f"{self.name} per class (AP in percent)", columns, rows)


def score_detections(results: DetectionResults, database: NuScenes, split: str, *, name: str, progress: bool = True) -> DetectionReport:
    """nuScenes' detection metrics of a submission.

    Args:
        results: exactly the keyframes of the split.
        database: the opened data set, with annotations.
        split: split, scene or `all`.
        name: what the detector is called in the report.

    Raises:
        DataError: keyframes of the split are missing, others are there, or the split has no annotated box.
    """
    began = time.monotonic()
    tokens = database.tokens(split)
    require_same(tokens, results, split, name)
    metric = NuScenesDetection(order=list(results.boxes))
    num_true = 0
    with progress_bar(f"score {name}", len(tokens), show=progress, unit="samples") as bar:
        for token, boxes in results.boxes.items():
            truth = detection_truth(database, token)
            num_true += len(truth.boxes)
            metric.add(token, boxes, truth.boxes, Surroundings(truth.ego2global[:3, 3], truth.rack_poses, truth.rack_sizes))
            bar.advance()
    if not num_true:
        raise DataError(
            f"the split {split!r} of {database.root} has no annotated box of the ten classes, so there is nothing to compare with."
        )
    return DetectionReport(name, split, len(tokens), results.meta, metric.compute(), metric.counts(), time.monotonic() - began)


def require_same(tokens: list[str], results: DetectionResults, split: str, name: str) -> None:
    """Raise DataError unless a submission holds the keyframes of a split and no others."""
    wanted = set(tokens)
    missing, extra = [t for t in tokens if t not in results.boxes], [t for t in results.boxes if t not in wanted]
    if missing or extra:
        parts = [f"lacks {len(missing)} of its {len(tokens)} samples ({_some(missing)})"] if missing else []
        parts += [f"holds {len(extra)} that are not in it ({_some(extra)})"] if extra else []
        raise DataError(
            f"{name} does not fit the split {split!r}: it {' and '.join(parts)}. nuScenes wants every sample of the split and no other; "
            "one without detections is an empty list. Choose the split with --split."
        )


def _some(tokens: list[str]) -> str:
    return ", ".join(tokens[:3]) + (", ..." if tokens[3:] else "")


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.4f}"
