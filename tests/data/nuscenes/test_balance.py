"""Class-balanced sampling: every class as often, the same for the same seed, and what it does to the feed of a training."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.data.nuscenes.balance import balanced_positions
from frustum.data.nuscenes.section import NuScenesData
from frustum.engine.feed import TrainingFeed
from frustum.engine.overrides import apply
from frustum.errors import DataError
from frustum.recipes.finding import get_recipe
from frustum.types.classes import DETECTION_CLASSES


def table(rows: list[list[int]], classes: int) -> np.ndarray:
    return np.array([[k in row for k in range(classes)] for row in rows])


def test_rare_classes_come_as_often():
    has = table([[0]] * 90 + [[0, 1]] * 8 + [[2]] * 2 + [[]] * 20, 4)  # nobody has the fourth
    drawn = balanced_positions(has, seed=0)
    assert len(drawn) == (98 + 8 + 2) // 3 * 3
    each = len(drawn) // 3
    assert all(has[part, k].all() for k, part in enumerate(drawn.reshape(3, each)))
    assert has[drawn].any(1).all()
    assert set(drawn[2 * each :]) == {98, 99}


def test_the_seed_decides():
    has = np.random.default_rng(0).random((50, 10)) < 0.3
    first, again, other = (balanced_positions(has, seed).tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_without_any_box():
    with pytest.raises(DataError, match=r"none of the 5 training keyframes has a box.*class_balanced=false"):
        balanced_positions(np.zeros((5, 10), bool), 0)


def test_counts_by_class_are_those_of_the_boxes(street_root):
    database = NuScenesData(root=str(street_root)).open()
    tokens = database.tokens("train")
    counts = database.class_counts(tokens)
    assert counts.shape == (len(tokens), 10)
    assert counts.sum() == database.count_boxes(tokens) > 0
    for token, row in zip(tokens, counts, strict=True):
        boxes = database.sample(token, occupancy=False).boxes
        seen = [n for n, lidar, radar in zip(boxes.names, boxes.num_lidar_pts, boxes.num_radar_pts, strict=True) if lidar + radar > 0]
        assert row.tolist() == [seen.count(name) for name in DETECTION_CLASSES]
    assert database.class_counts([]).shape == (0, 10)


def test_a_setting_of_the_data(street_root):
    words = [f"data.root={street_root}", "data.image_size=64,96", "train.batch_size=1", "train.accumulate=1", "train.num_workers=0"]
    recipe = apply(get_recipe("bevdet-r50"), words)
    plain, balanced = (recipe.data.model_copy(update={"class_balanced": is_on}) for is_on in (False, True))
    database = plain.open()
    assert plain.training_tokens(database, 0) == list(database.tokens("train"))
    tokens = balanced.training_tokens(database, 0)
    has = database.class_counts(database.tokens("train")) > 0
    assert len(tokens) == has.sum() // has.any(0).sum() * has.any(0).sum()
    assert set(tokens) <= set(database.tokens("train"))
    feed = TrainingFeed(recipe.model_copy(update={"data": balanced}), database)
    given = [batch.tokens[0] for _ in range(len(tokens)) for batch in feed.next_batches()]
    assert sorted(given) == sorted(tokens), "an epoch is what was drawn, in another order"
