"""One sample of a nuScenes detection evaluation: which boxes count, which prediction takes which true box, how far off it is.

A prediction matches within its own sample only, so all of this is done when a sample is added; what remains for the end is to sort by
score over all samples.
"""

from __future__ import annotations

import numba
import numpy as np

from frustum.geometry import points_in_boxes
from frustum.metrics.detection_rules import DetectionRules, Surroundings
from frustum.types.boxes import DetectionBoxes


def eligible(boxes: DetectionBoxes, rules: DetectionRules, around: Surroundings, drop_empty: bool) -> np.ndarray:
    """Which boxes count, bool (M,): nearer to the ego vehicle than the range of their class, no two-wheeler whose centre lies in a bicycle
    rack, and with `drop_empty` (for the truth) at least one sensor point inside."""
    offset = boxes.centres[:, :2] - np.asarray(around.ego)[:2]
    labels = boxes.labels
    keep = np.sqrt((offset**2).sum(1)) < np.array([reach for _, reach in rules.ranges])[labels]
    if drop_empty:
        keep &= boxes.num_points != 0
    if len(around.rack_poses):
        wheels = np.flatnonzero(keep & rules.labels_of(rules.rack_classes)[labels])
        keep[wheels] = ~points_in_boxes(boxes.centres[wheels], around.rack_poses, around.rack_sizes).any(1)
    return keep


def match(pred: DetectionBoxes, truth: DetectionBoxes, thresholds: tuple[float, ...]) -> np.ndarray:
    """For each prediction and threshold the true box that it takes, int32 (M, T), -1 for none.

    By descending score, of equal scores the later one first, each prediction considers the nearest true box of its class that is not yet
    taken at that threshold (of equally near ones the first), and takes it if it is nearer than the threshold.
    """
    order = np.argsort(pred.scores, kind="stable")[::-1]
    places = [(np.ascontiguousarray(b.centres[:, :2], np.float64), np.asarray(b.labels, np.int64)) for b in (pred, truth)]
    return _match(order, *places[0], *places[1], np.asarray(thresholds, np.float64))


@numba.njit(nogil=True, cache=True)
def _match(order, pred_xy, pred_labels, true_xy, true_labels, thresholds):
    num_true, num_thresholds = len(true_labels), len(thresholds)
    partner = np.full((len(order), num_thresholds), -1, np.int32)
    taken = np.zeros((num_thresholds, num_true), np.bool_)
    nearest = np.empty(num_thresholds, np.float64)
    for i in order:
        nearest[:] = np.inf
        for g in range(num_true):
            if true_labels[g] == pred_labels[i]:
                dx, dy = pred_xy[i, 0] - true_xy[g, 0], pred_xy[i, 1] - true_xy[g, 1]
                distance = np.sqrt(dx * dx + dy * dy)
                for t in range(num_thresholds):
                    if distance < nearest[t] and not taken[t, g]:
                        nearest[t] = distance
                        partner[i, t] = g
        for t in range(num_thresholds):
            if nearest[t] < thresholds[t]:
                taken[t, partner[i, t]] = True
            else:
                partner[i, t] = -1
    return partner


def true_positive_errors(pred: DetectionBoxes, truth: DetectionBoxes, i: np.ndarray, g: np.ndarray, rules: DetectionRules) -> np.ndarray:
    """The five errors (N, 5), in the order of ERRORS, of N predictions `i` that took the true boxes `g`.

    Metres between centres seen from above; 1 - IoU of the sizes once centres and headings are aligned; radians between headings (within a
    half turn for `rules.half_turn`); m/s between velocities, NaN where one is unknown; 0 or 1 for the attribute, NaN where the true box
    does not have one.
    """
    offset = pred.centres[i, :2] - truth.centres[g, :2]
    size, true_size = pred.sizes[i], truth.sizes[g]
    common = np.minimum(size, true_size).prod(1)
    period = np.where(rules.labels_of(rules.half_turn)[truth.labels[g]], np.pi, 2 * np.pi)
    turn = (truth.yaws[g] - pred.yaws[i] + period / 2) % period - period / 2
    drift = pred.velocities[i] - truth.velocities[g]
    attribute = np.where(truth.attributes[g] < 0, np.nan, pred.attributes[i] != truth.attributes[g])
    scale = 1 - common / (size.prod(1) + true_size.prod(1) - common)
    return np.stack([np.sqrt((offset**2).sum(1)), scale, np.abs(turn), np.sqrt((drift**2).sum(1)), attribute], 1)
