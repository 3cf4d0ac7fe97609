"""The Cityscapes label table."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.data.images.cityscapes import CATEGORY_NAMES, CATEGORY_OF_CLASS, CLASS_NAMES, EVALUATED, LABELS, train_ids


def test_the_table_is_consistent():
    assert [label.id for label in LABELS] == list(range(34))
    assert [label.train_id for label in EVALUATED] == list(range(19))
    assert len(set(CLASS_NAMES)) == 19
    assert {x.category for x in LABELS} == {*CATEGORY_NAMES, "void"}
    names = {x.name: x for x in LABELS}
    assert (names["road"].train_id, names["train"].train_id, names["bicycle"].train_id) == (0, 16, 18)
    assert [CATEGORY_NAMES[CATEGORY_OF_CLASS[CLASS_NAMES.index(n)]] for n in ("wall", "pole", "rider")] == [
        "construction",
        "object",
        "human",
    ]


def test_ids_to_training_ids():
    assert train_ids(np.array([[7, 33], [-1, 0]])).tolist() == [[0, 18], [255, 255]]
    assert train_ids(np.array([7, 300, 263, 34, 255])).tolist() == [0, 255, 255, 255, 255]
    assert train_ids(np.array([26, 31], np.uint8)).dtype == np.uint8


@pytest.mark.data
def test_ids_equal_the_official_table(shared):
    with np.load(shared / "golden" / "metrics" / "dense2d.npz") as golden:
        np.testing.assert_array_equal(train_ids(np.arange(256)), golden["id_to_trainid"])
