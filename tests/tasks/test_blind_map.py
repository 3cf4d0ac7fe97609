"""The most likely map: frequencies by hand, the best threshold, and that it is scored like a network."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.data.labels.map_classes import MapLabels
from frustum.data.nuscenes.reader import NuScenes
from frustum.errors import DataError
from frustum.tasks.bev_map import BevMapTask
from frustum.tasks.blind_map import LikelyMap, best_threshold


def test_the_threshold_has_the_highest_iou_by_trying_all():
    draw = np.random.default_rng(0)
    share, weight = draw.random((6, 7)) ** 3, draw.integers(1, 9, (6, 7)).astype(float)

    def iou(threshold: float) -> float:
        called = share > threshold
        hit = (share * weight)[called].sum()
        return hit / (weight[called].sum() + (share * weight)[~called].sum())

    best = max(iou(t) for t in [-1, *share.ravel()])
    assert iou(best_threshold(share, weight)) == pytest.approx(best)


def test_a_class_that_is_always_there_is_found(street_root):
    source = NuScenes(street_root)
    names = ("vehicle", "drivable_area")
    task = BevMapTask(source.tokens("val"))
    likely = LikelyMap.fit(source, "train", MapLabels(names))
    for token in source.tokens("val"):
        task.add(token, likely.answer(token).bev_map, task.truth(source, token))
    found = task.compute()["class_iou"]
    assert 0.2 < found["drivable_area"] < 1, "the vehicle stands on a road"
    assert found["vehicle"] < 0.5
    assert likely.num_frames == 6
    (again,) = task.baselines(source, "train")
    np.testing.assert_array_equal(again.answer("a").bev_map.logits, likely.part.logits)


def test_a_split_without_keyframes_is_refused(street_root):
    class Empty:
        def tokens(self, split):
            return []

    with pytest.raises(DataError, match="the split 'train' has no keyframes to learn the most likely map from"):
        LikelyMap.fit(Empty(), "train", MapLabels())
