"""nuScenes' detection metrics: mAP over four distances, five errors of the true positives, and NDS (Caesar et al., 2020, section 3.1).

The same figures as nuscenes-devkit 1.2.0, its order of equal scores included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.geometry.plausible import DETECTED
from frustum.metrics import detection_curves as curves
from frustum.metrics.counts import mean_without_nan
from frustum.metrics.detection_matching import eligible, match, true_positive_errors
from frustum.metrics.detection_rules import ERRORS, DetectionRules, Surroundings
from frustum.types.boxes import DetectionBoxes

if TYPE_CHECKING:
    from typing_extensions import Self


class _Outcome(NamedTuple):
    """What is left of a sample: its P predictions that count, in their order, and the number of true boxes per class."""

    labels: np.ndarray  # (P,) uint8
    scores: np.ndarray  # (P,)
    hits: np.ndarray  # (P, T) bool
    errors: np.ndarray  # (N, 5) of the predictions that hit at the error threshold
    num_true: np.ndarray  # (K,) int64


class ClassCurves(NamedTuple):
    """One class over the 101 recalls 0, 0.01 ... 1."""

    precision: dict[float, np.ndarray]  # by threshold
    confidence: np.ndarray  # at the error threshold
    errors: dict[str, np.ndarray]  # by name, at the error threshold


class NuScenesDetection:
    """Collects the outcome of each sample; the figures do not depend on how samples were spread over processes or merged.

    Equal scores are ranked as the devkit does: the later sample first, and within a sample the later box. The order of the
    samples is `order` (officially that of the results file), or without it the order of their tokens.

    Args:
        rules: ranges, thresholds and exceptions; nuScenes' own by default.
        order: all samples that may be added, in their order.
    """

    def __init__(self, rules: DetectionRules | None = None, order: Sequence[str] | None = None):
        self.rules = rules or DetectionRules()
        self.order = None if order is None else tuple(order)
        self._known = None if self.order is None else frozenset(self.order)
        self._outcomes: dict[str, _Outcome] = {}
        self._is_filtered = False  # whether the official filters were applied, to all samples or to none

    def __len__(self) -> int:
        return len(self._outcomes)

    def add(self, sample: str, pred: DetectionBoxes, truth: DetectionBoxes, around: Surroundings | None = None) -> None:
        """Match one sample.

        Args:
            sample: its token.
            pred, truth: boxes in one level frame.
            around: position of the ego vehicle and the bicycle racks; with it the official filters are applied. Without, all boxes count.
                Give it for all samples or for none.

        Raises:
            DataError: the sample was added before or is not in `order`, it is filtered and others are not, too many predictions, a label
                that is not a class, or a number that is not finite (velocities and the scores of the truth may be NaN).
            ShapeError: arrays of different lengths.
        """
        self._require_new(sample)
        self._require_filters(around is not None)
        if len(pred.labels) > self.rules.max_boxes:
            count = f"{len(pred.labels)} predicted boxes, but at most {self.rules.max_boxes} are allowed"
            raise DataError(f"sample {sample} has {count}: keep those with the highest scores.")
        require_boxes(pred, self.rules, f"the predictions of sample {sample}", scored=True)
        require_boxes(truth, self.rules, f"the truth of sample {sample}", scored=False)
        if around is not None:
            pred = pred.select(eligible(pred, self.rules, around, drop_empty=False))
            truth = truth.select(eligible(truth, self.rules, around, drop_empty=True))
        partners = match(pred, truth, self.rules.thresholds)
        chosen = partners[:, self.rules.thresholds.index(self.rules.error_threshold)]
        i = np.flatnonzero(chosen >= 0)
        self._is_filtered = around is not None
        self._outcomes[sample] = _Outcome(
            np.asarray(pred.labels).astype(np.uint8),
            np.array(pred.scores, np.float64),
            partners >= 0,
            true_positive_errors(pred, truth, i, chosen[i], self.rules),
            np.bincount(truth.labels, minlength=len(self.rules.classes)),
        )

    def _require_new(self, sample: str) -> None:
        if sample in self._outcomes:
            raise DataError(f"sample {sample} is added a second time: evaluate every sample once, on one process only.")
        if self._known is not None and sample not in self._known:
            raise DataError(f"sample {sample} is not one of the {len(self._known)} samples of this evaluation.")

    def _require_filters(self, filtered: bool) -> None:
        if self._outcomes and filtered != self._is_filtered:
            fault = "some samples have their surroundings, so that the official filters apply, and others do not"
            raise DataError(f"{fault}: their figures cannot go under one name. Pass around= for every sample, or for none.")

    def merge(self, other: Self) -> Self:
        """Add the samples of `other`. Raises ConfigError for other rules or another order, DataError for a sample that both have
        or where one side is filtered."""
        if type(other) is not type(self) or (self.rules, self.order) != (other.rules, other.order):
            raise ConfigError("cannot merge detection metrics with different rules or another order of samples: evaluate anew.")
        if other._outcomes:
            self._require_filters(other._is_filtered)
            self._is_filtered = other._is_filtered
        for sample in other._outcomes:
            self._require_new(sample)
        self._outcomes.update(other._outcomes)
        return self

    def counts(self) -> dict[str, dict[str, int]]:
        """By class, the number of `true` and `predicted` boxes that counted, after the filters, and how many true ones were `found`.

        A true box is found if a prediction of any score was matched to it within the error threshold.
        """
        num, main = len(self.rules.classes), self.rules.thresholds.index(self.rules.error_threshold)
        counted = np.zeros((3, num), np.int64)
        for o in self._outcomes.values():
            counted += [o.num_true, *(np.bincount(labels, minlength=num) for labels in (o.labels, o.labels[o.hits[:, main]]))]
        columns = ("true", "predicted", "found")
        return {name: dict(zip(columns, counts, strict=True)) for name, counts in zip(self.rules.classes, counted.T.tolist(), strict=True)}

    def curves(self) -> dict[str, ClassCurves]:
        """Precision, confidence and errors over recall, by class."""
        samples = sorted(self._outcomes) if self.order is None else [s for s in self.order if s in self._outcomes]
        classes, thresholds = self.rules.classes, self.rules.thresholds
        num_true = np.zeros(len(classes), np.int64)
        none = _Outcome(np.zeros(0, np.uint8), np.zeros(0), np.zeros((0, len(thresholds)), bool), np.zeros((0, len(ERRORS))), num_true)
        outcomes = [none, *(self._outcomes[sample] for sample in samples)]
        labels, scores, hits, errors = (np.concatenate([outcome[c] for outcome in outcomes]) for c in range(4))
        num_true = np.sum([outcome.num_true for outcome in outcomes], 0)
        main = thresholds.index(self.rules.error_threshold)
        error_labels = labels[hits[:, main]]
        found = {}
        for label, name in enumerate(classes):
            mine, mine_errors = labels == label, errors[error_labels == label]
            rank = np.argsort(scores[mine], kind="stable")[::-1]  # of equal scores the later first
            ranked, ranked_hits = scores[mine][rank], hits[mine][rank]
            hit = ranked_hits[:, main]
            row = np.cumsum(hits[mine][:, main])[rank][hit] - 1
            confidence = curves.confidence_curve(hit, ranked, int(num_true[label]))
            found[name] = ClassCurves(
                {t: curves.precision_curve(ranked_hits[:, k], int(num_true[label])) for k, t in enumerate(thresholds)},
                confidence,
                {e: curves.error_curve(mine_errors[row, k], ranked[hit], confidence) for k, e in enumerate(ERRORS)},
            )
        return found

    def compute(self) -> dict[str, Any]:
        """The figures under the names of the devkit's metrics_summary.json.

        `mean_ap`, `nd_score`, `tp_errors` and `tp_scores` by error, `mean_dist_aps` by class, `label_aps` by class and threshold (as text),
        `label_tp_errors` by class and error, NaN where the error is not defined. A class without true boxes, or without a single match, has
        AP 0 and errors 1, and stays in the means.
        """
        rules, aps, errors = self.rules, {}, {}
        for name, c in self.curves().items():
            aps[name] = {str(float(t)): curves.average_precision(p, rules.min_recall, rules.min_precision) for t, p in c.precision.items()}
            measured = {e: curves.mean_error(c.errors[e], c.confidence, rules.min_recall) for e in ERRORS if rules.is_measured(name, e)}
            errors[name] = dict.fromkeys(ERRORS, float("nan")) | measured
        mean_aps = {name: float(np.mean(list(row.values()))) for name, row in aps.items()}
        mean_ap = float(np.mean(list(mean_aps.values())))
        tp_errors = {e: mean_without_nan(np.array([row[e] for row in errors.values()])) for e in ERRORS}
        tp_scores = {e: max(0.0, 1 - error) for e, error in tp_errors.items()}
        nds = (rules.map_weight * mean_ap + sum(tp_scores.values())) / (rules.map_weight + len(ERRORS))
        return {
            "mean_ap": mean_ap,
            "nd_score": nds,
            "tp_errors": tp_errors,
            "tp_scores": tp_scores,
            "mean_dist_aps": mean_aps,
            "label_aps": aps,
            "label_tp_errors": errors,
        }


def require_boxes(boxes: DetectionBoxes, rules: DetectionRules, what: str, scored: bool) -> None:
    """Raise ShapeError or DataError unless the arrays fit together, labels are classes, and all but velocities is finite."""
    num = len(boxes.labels)
    shapes = {"labels": (num,), "centres": (num, 3), "sizes": (num, 3), "yaws": (num,), "velocities": (num, 2), "attributes": (num,)}
    for name, need in (shapes | {"scores": (num,), "num_points": (num,)}).items():
        got = np.shape(getattr(boxes, name))
        if got != need:
            raise ShapeError(f"{name} of {what} must have shape {need}, got {got}.")
    if num and not 0 <= boxes.labels.min() <= boxes.labels.max() < len(rules.classes):
        raise DataError(f"{what} hold a label that is not one of the {len(rules.classes)} classes {', '.join(rules.classes)}.")
    for name in ("centres", "sizes", "yaws", *(["scores"] if scored else [])):
        if not (np.abs(getattr(boxes, name)) <= DETECTED).all():
            raise DataError(f"{what} hold a box whose {name} are not finite numbers of at most {DETECTED:,.0f}.")
    if num and boxes.sizes.min() <= 0:
        raise DataError(f"{what} hold a box whose size is not positive.")
