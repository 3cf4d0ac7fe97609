"""What networks may know of the training labels before they start."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.data.labels.occupancy import OccupancyLabels, occupancy_of
from frustum.data.source import spread
from frustum.engine.overrides import apply
from frustum.engine.statistics import label_statistics
from tests.engine import toy


def test_statistics_count_heights_and_are_cached(toy_root, tmp_path, monkeypatch):
    recipe = toy.recipe(toy_root)
    source = recipe.data.open()
    found = label_statistics(recipe, source, cache=tmp_path)[OccupancyLabels]["counts"]
    labels = list(occupancy_of(source, source.tokens("train")))
    for z in range(toy.Z):
        for c in (11, 15, 17):
            assert found[z, c] == sum(int(((l.semantics == c) & (l.mask_camera > 0))[:, :, z].sum()) for l in labels)
    assert found.dtype == np.int64
    monkeypatch.setattr("frustum.data.labels.occupancy.occupancy_of", lambda *a: pytest.fail("read again"))
    assert np.array_equal(label_statistics(recipe, source, cache=tmp_path)[OccupancyLabels]["counts"], found)
    monkeypatch.undo()
    other = label_statistics(apply(recipe, ["data.train_split=val"]), source, cache=tmp_path)[OccupancyLabels]["counts"]
    assert other.sum() < found.sum(), "another split must not take the cached counts"
    (tmp_path / "statistics.npz").write_bytes(b"damaged")
    assert np.array_equal(label_statistics(recipe, source, cache=tmp_path)[OccupancyLabels]["counts"], found)


def test_spread_takes_ends_and_even_steps():
    assert spread(list("abcdefg"), 3) == ["a", "d", "g"]
    assert spread(list("ab"), 3) == ["a", "b"]
