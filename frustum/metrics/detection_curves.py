"""From sorted matches to average precision and the errors of true positives, on nuScenes' grid of 101 recalls."""

from __future__ import annotations

import numpy as np

RECALLS = np.linspace(0, 1, 101)


def precision_curve(hits: np.ndarray, num_true: int) -> np.ndarray:
    """Precision (101,) over RECALLS, interpolated; 0 above the highest recall, and everywhere without a hit or a true box.

    Args:
        hits: bool (P,), whether each prediction is a true positive, by descending score.
        num_true: number of true boxes.
    """
    return confidence_curve(hits, np.cumsum(hits) / np.arange(1, len(hits) + 1), num_true)


def confidence_curve(hits: np.ndarray, scores: np.ndarray, num_true: int) -> np.ndarray:
    """Score (101,) that goes with each of RECALLS, 0 above the highest; `hits` and `scores` (P,) by descending score."""
    if not num_true or not hits.any():
        return np.zeros(len(RECALLS))
    return np.interp(RECALLS, np.cumsum(hits) / float(num_true), scores, right=0)


def error_curve(errors: np.ndarray, scores: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Running mean (101,) of an error over the recalls of `confidence`; 1 without a true positive.

    Args:
        errors, scores: (N,) of the true positives, by descending score. Errors may be NaN: not defined for that pair.
        confidence: (101,) from `confidence_curve`.
    """
    if not len(errors):
        return np.ones(len(RECALLS))
    return np.interp(confidence[::-1], scores[::-1], running_mean(errors)[::-1])[::-1]


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the entries up to each position (N,) that are not NaN; 0 before the first of them, 1 everywhere if there is none."""
    known = ~np.isnan(values)
    if not known.any():
        return np.ones(len(values))
    count = np.cumsum(known)
    return np.divide(np.nancumsum(values), count, out=np.zeros(len(values)), where=count > 0)


def average_precision(precision: np.ndarray, min_recall: float, min_precision: float) -> float:
    """Normalised area under a precision curve (101,), above the two minima."""
    above = np.maximum(precision[first_bin(min_recall) :] - min_precision, 0)
    return float(above.mean()) / (1 - min_precision)


def mean_error(curve: np.ndarray, confidence: np.ndarray, min_recall: float) -> float:
    """Mean of an error curve (101,) from the minimal to the highest recall that is reached; 1 when that is not above the minimum."""
    reached = np.flatnonzero(confidence)
    first, last = first_bin(min_recall), int(reached[-1]) if len(reached) else 0
    return float(curve[first : last + 1].mean()) if last >= first else 1.0


def first_bin(min_recall: float) -> int:
    """The first of RECALLS that counts: the one after `min_recall`."""
    return round(100 * min_recall) + 1
