"""Where the objects are: nuScenes' detection figures (docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from frustum.data.nuscenes.detection_boxes import boxes_to_ego, boxes_to_global
from frustum.data.nuscenes.detection_results import MAX_BOXES, is_detection_file, read_detections, write_detections
from frustum.data.nuscenes.detection_truth import DetectionTruth, detection_truth
from frustum.data.source import as_rig_source
from frustum.errors import DataError
from frustum.geometry.plausible import DETECTED
from frustum.metrics.detection import NuScenesDetection
from frustum.metrics.detection_rules import Surroundings
from frustum.tasks.blind_boxes import LikelyBoxes, NoBoxes
from frustum.tasks.task import ClassFigures, Figure, Predictor, Progress, Submission, Task, names_from, silent, tensor_from, without_nan
from frustum.types.boxes import DetectionBoxes
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.layers import BoxLayer, Layer, Legend
from frustum.types.predictions import PredictedBoxes, Prediction

if TYPE_CHECKING:
    from typing_extensions import Self

_ERRORS = {
    "trans_err": ("ATE", "m", "distance between the centres of matched boxes, from above"),
    "scale_err": ("ASE", "1 - IoU", "how much matched boxes differ in size"),
    "orient_err": ("AOE", "rad", "difference of the headings of matched boxes"),
    "vel_err": ("AVE", "m/s", "difference of the velocities of matched boxes"),
    "attr_err": ("AAE", "1 - accuracy", "how often the attribute of a matched box is wrong"),
}
_COUNTED = {"true boxes": "true", "found": "found"}


class DetectionFile(Predictor):
    """A nuScenes submission, whoever made it. Raises DataError for a malformed one.

    Attributes:
        tokens: the samples that it holds, in its order.
    """

    def __init__(self, path: Path):
        results = read_detections(path)
        self._boxes, self.tokens = results.boxes, list(results.boxes)
        self.name, self.about = path.stem, {"meta": results.meta}

    def answer(self, token: str) -> Prediction:
        """The boxes of a sample as the file states them, global frame."""
        return Prediction(token, boxes=self._boxes[token])

    def ordered(self, tokens: Sequence[str], split: str) -> list[str]:
        """The samples in the order of the file. Raises DataError unless it holds those of the split and no others."""
        needed = set(tokens)
        missing, extra = [t for t in tokens if t not in self._boxes], [t for t in self.tokens if t not in needed]
        if missing or extra:
            parts = [f"lacks {len(missing)} of its {len(tokens)} samples ({_some(missing)})"] if missing else []
            parts += [f"holds {len(extra)} that are not in it ({_some(extra)})"] if extra else []
            raise DataError(
                f"{self.name} does not fit the split {split!r}: it {' and '.join(parts)}. nuScenes needs every sample of the split and no "
                "other; one without detections is an empty list. Choose the split with --split."
            )
        return list(self.tokens)


class DetectionSubmission(Submission):
    """A nuScenes submission, `detections.json`."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._boxes: dict[str, DetectionBoxes] = {}

    def add(self, token: str, part: PredictedBoxes, sample: Any) -> None:
        """Keep the boxes of a keyframe."""
        self._boxes[token] = submitted(part, sample.ego2global)

    def finish(self) -> None:
        """Write the file. Raises DataError."""
        write_detections(self.folder / "detections.json", self._boxes)


class DetectionTask(Task):
    """The figures of nuscenes-devkit 1.2.0.

    `compute` gives what `NuScenesDetection.compute` does, with None for errors that are not defined, `counts` by class, and `recall`, the
    share of true boxes with a match within 2 m at any score, in the mean over the classes that occur.
    """

    name = "detection"
    part = "boxes"
    protocol: ClassVar[Mapping[str, str]] = {
        "mean_ap": "nuScenes detection_cvpr_2019: mean over ten classes and distances of 0.5, 1, 2 and 4 m, above recall and precision 0.1",
        "recall": "share of true boxes to which a prediction within 2 m was matched, whatever its score; mean over the classes that occur",
        "tp_errors": "mean over classes of the errors of matches within 2 m; a class without a match counts 1 and stays in the mean",
        "nd_score": "(5 mAP + the sum of max(0, 1 - error) over the five errors) / 10",
        "filters": "boxes nearer than 50 m (pedestrians and cycles 40 m, barriers and cones 30 m); true boxes with a LiDAR or radar point; "
        "no cycles inside bicycle racks",
    }
    accepts = "a nuScenes detection submission (JSON)"
    submission = DetectionSubmission

    def __init__(self, order: Sequence[str] = (), slow: bool = True):
        super().__init__(order, slow)
        self._metric = NuScenesDetection(order=self.order or None)
        self._num_true, self._root = 0, ""

    def truth(self, source: Any, token: str) -> DetectionTruth:
        """See `Task.truth`."""
        self._root = str(as_rig_source(source, "boxes").root)
        return detection_truth(source, token)

    def add(self, token: str, part: PredictedBoxes | DetectionBoxes, truth: DetectionTruth) -> None:
        """See `Task.add`."""
        boxes = part if isinstance(part, DetectionBoxes) else submitted(part, truth.ego2global)
        self._num_true += len(truth.boxes)
        self._metric.add(token, boxes, truth.boxes, Surroundings(truth.ego2global[:3, 3], truth.rack_poses, truth.rack_sizes))

    def merge(self, other: Self) -> Self:
        """See `Task.merge`."""
        self._metric.merge(other._metric)
        self._num_true += other._num_true
        return self

    def compute(self) -> dict[str, Any]:
        """See `Task.compute`, and the class. Raises DataError if there was not a single true box."""
        if not self._num_true:
            samples = f"none of the {len(self._metric)} samples has an annotated box of the ten classes in {self._root}"
            raise DataError(f"{samples}, so there is nothing to compare with.")
        counts = self._metric.counts()
        recalls = [c["found"] / c["true"] for c in counts.values() if c["true"]]
        return without_nan(self._metric.compute()) | {"recall": sum(recalls) / max(1, len(recalls)), "counts": counts}

    @classmethod
    def figures(cls, metrics: Mapping[str, Any]) -> list[Figure]:
        """See `Task.figures`."""
        boxes = "boxes in range"
        means = (
            ("mean_ap", "mAP", "mean over ten classes and distances of 0.5, 1, 2 and 4 m", "how many objects are found, how few invented"),
            ("nd_score", "NDS", "(5 mAP + the sum of max(0, 1 - error)) / 10", "mAP and the five errors in one figure"),
        )  # fmt: skip
        found = [Figure(key, name, metrics[key], "%", boxes, rule, name, meaning, "Detection", True) for key, name, rule, meaning in means]
        rule = "matched within 2 m at any score, mean over classes that occur"
        meaning = "how many objects are found, however many are invented"
        found.append(Figure("recall", "recall", metrics.get("recall"), "%", boxes, rule, "", meaning, "Detection", True))
        rule, group = "matches within 2 m, mean over classes", "Errors of boxes"
        for e, (short, unit, meaning) in _ERRORS.items():
            key, name, value = f"tp_errors.{e}", f"m{short}", metrics["tp_errors"][e]
            found.append(Figure(key, name, value, unit, boxes, rule, name, meaning, group, higher_is_better=False))
        return found

    @classmethod
    def classes(cls, metrics: Mapping[str, Any]) -> ClassFigures:
        """AP at every distance and in the mean, the errors, and how many boxes counted, by class."""
        names = list(metrics["mean_dist_aps"])
        aps, errors, counts = metrics["label_aps"], metrics["label_tp_errors"], metrics["counts"]
        columns = {"AP": metrics["mean_dist_aps"]}
        columns |= {f"@{t} m": {name: aps[name][t] for name in names} for t in aps[names[0]]}
        columns |= {short: {name: errors[name][e] for name in names} for e, (short, *_) in _ERRORS.items()}
        columns |= {title: {name: counts[name].get(key) for name in names} for title, key in _COUNTED.items()}
        means = {"AP": metrics["mean_ap"], **{short: metrics["tp_errors"][e] for e, (short, *_) in _ERRORS.items()}}
        units = {short: unit for short, unit, _ in _ERRORS.values()} | dict.fromkeys(_COUNTED, "count")
        return ClassFigures("AP by class", Legend.of(names), columns, means, units)

    @classmethod
    def notes(cls, metrics: Mapping[str, Any]) -> list[str]:
        """What the figures are, and which boxes count."""
        entries = (("mAP", "mean_ap"), ("recall", "recall"), ("errors", "tp_errors"), ("NDS", "nd_score"), ("counted", "filters"))
        return [f"{name}: {cls.protocol[key]}" for name, key in entries]

    def baselines(self, source: Any, split: str, progress: Progress = silent) -> list[Predictor]:
        """No boxes, and the most likely ones."""
        return [NoBoxes(), LikelyBoxes.fit(source, split, progress)]

    @classmethod
    def recognise(cls, path: Path) -> Predictor | None:
        """A submission, or what `save` wrote. Raises DataError for a malformed one."""
        return DetectionFile(path) if is_detection_file(path) else super().recognise(path)

    @classmethod
    def layers(cls, part: PredictedBoxes | DetectionBoxes) -> list[Layer]:
        """The boxes; none of a submission, whose boxes are not in the ego frame."""
        if isinstance(part, DetectionBoxes):
            return []
        return [BoxLayer(part.boxes.double().numpy(), part.classes.numpy(), Legend.of(part.class_names), part.scores.double().numpy())]

    @classmethod
    def truth_layers(cls, truth: DetectionTruth, part: Any = None) -> list[Layer]:
        """The true boxes."""
        return [BoxLayer(boxes_to_ego(truth.boxes, truth.ego2global), truth.boxes.labels, Legend.of(DETECTION_CLASSES))]

    @classmethod
    def arrays(cls, part: PredictedBoxes) -> dict[str, np.ndarray]:
        """`boxes` float32 (M, 9) of `geometry.BOX_FIELDS` in the ego frame, `classes` (M,) ids, `scores` (M,), `class_names` (K,) text."""
        boxes, scores = (t.float().numpy() for t in (part.boxes, part.scores))
        _require_numbers(boxes, scores)
        return {"boxes": boxes, "classes": part.classes.numpy(), "scores": scores, "class_names": np.array(part.class_names)}

    @classmethod
    def restored(cls, stored: Mapping[str, np.ndarray]) -> PredictedBoxes:
        """The inverse of `arrays`."""
        _require_numbers(stored["boxes"], stored["scores"])
        names, boxes = names_from(stored), tensor_from(stored, "boxes", "f", None, 9)
        classes, scores = tensor_from(stored, "classes", "i", len(boxes)), tensor_from(stored, "scores", "f", len(boxes))
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < len(names):
            raise ValueError(f"a box is of none of the {len(names)} classes")
        return PredictedBoxes(boxes, classes, scores, names)


def _require_numbers(boxes: np.ndarray, scores: np.ndarray) -> None:
    """Raise DataError unless boxes (M, 9) and scores (M,) are numbers of a detection."""
    if not ((np.abs(boxes[:, :7]) <= DETECTED).all() and (np.abs(scores) <= DETECTED).all() and not np.isinf(boxes).any()):
        raise DataError(
            f"a predicted box has a place, size, yaw or score that is not finite, or beyond {DETECTED:,.0f}; only velocities may be NaN."
        )


def submitted(part: PredictedBoxes, ego2global: np.ndarray) -> DetectionBoxes:
    """The boxes of a network as a submission states them: global frame, those with the highest scores if there are too many."""
    names = [part.class_names[i] for i in part.classes.tolist()]
    boxes = boxes_to_global(part.boxes.double().numpy(), names, part.scores.double().numpy(), ego2global)
    return boxes if len(boxes) <= MAX_BOXES else boxes.best(MAX_BOXES)


def _some(tokens: list[str]) -> str:
    return ", ".join(tokens[:3]) + (", ..." if tokens[3:] else "")
