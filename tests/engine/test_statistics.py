"""Statistics of the training labels: what they count, and when a kept result is taken."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.data.labels.occupancy import OccupancyLabels
from frustum.data.occ3d.label_files import read_labels
from frustum.engine.overrides import apply
from frustum.engine.statistics import STATISTICS, label_statistics
from frustum.errors import DataError
from tests.engine import toy


def plain_counts(source, tokens) -> np.ndarray:
    counts = np.zeros((toy.Z, toy.K), np.int64)
    for token in tokens:
        labels = read_labels(source.labels_path(source.scene(token).name, token))
        for x, y, z in np.argwhere(labels.mask_camera):
            counts[z, labels.semantics[x, y, z]] += 1
    return counts


def test_counts_equal_a_plain_count(toy_root):
    recipe = toy.recipe(toy_root)
    source = recipe.data.open()
    tokens = source.tokens("train")
    found = label_statistics(recipe, source)
    assert set(found) == {OccupancyLabels}
    assert set(found[OccupancyLabels]) == {"counts"}
    np.testing.assert_array_equal(found[OccupancyLabels]["counts"], plain_counts(source, tokens))
    some = label_statistics(recipe, source, max_samples=3)
    np.testing.assert_array_equal(some[OccupancyLabels]["counts"], plain_counts(source, [tokens[0], tokens[4], tokens[7]]))


def test_a_kept_result_is_taken_if_it_is_of_the_same_samples_and_labels(toy_root, tmp_path, monkeypatch):
    recipe = toy.recipe(toy_root)
    source = recipe.data.open()
    first = label_statistics(recipe, source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [STATISTICS]
    read: list[str] = []
    count = OccupancyLabels.statistics
    monkeypatch.setattr(OccupancyLabels, "statistics", lambda self, source, tokens: (read.extend(tokens), count(self, source, tokens))[1])
    again = label_statistics(recipe, source, tmp_path)
    np.testing.assert_array_equal(again[OccupancyLabels]["counts"], first[OccupancyLabels]["counts"])
    assert read == []

    everything = apply(recipe, ["data.train_split=all"])
    other = label_statistics(everything, source, tmp_path)
    assert read == source.tokens("all")
    np.testing.assert_array_equal(other[OccupancyLabels]["counts"], plain_counts(source, source.tokens("all")))
    read.clear()
    tokens = source.tokens("all")
    monkeypatch.setattr(source, "tokens", lambda split: [tokens[0], *reversed(tokens[1:-2]), tokens[-1], tokens[-1]])
    label_statistics(everything, source, tmp_path)  # as many, with the same first and last one
    assert len(read) == len(tokens)


def test_a_result_of_other_labels_is_not_taken(toy_root, tmp_path, monkeypatch):
    recipe = toy.recipe(toy_root)
    source = recipe.data.open()
    label_statistics(recipe, source, tmp_path)
    monkeypatch.setattr(toy.ToyConfig, "learns_from", lambda self: (OccupancyLabels(self.grid, class_names=("others", "free")),))
    assert label_statistics(recipe, source, tmp_path)[OccupancyLabels]["counts"].shape == (toy.Z, 2)


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_damaged_result_is_made_anew(toy_root, tmp_path, content):
    recipe = toy.recipe(toy_root)
    source = recipe.data.open()
    first = label_statistics(recipe, source, tmp_path)
    file = tmp_path / STATISTICS
    file.write_bytes(file.read_bytes()[:-200] if content is None else content)
    again = label_statistics(recipe, source, tmp_path)
    np.testing.assert_array_equal(again[OccupancyLabels]["counts"], first[OccupancyLabels]["counts"])
    np.testing.assert_array_equal(label_statistics(recipe, source, tmp_path)[OccupancyLabels]["counts"], first[OccupancyLabels]["counts"])


def test_what_a_network_that_learns_nothing_gets(toy_root, tmp_path, monkeypatch):
    monkeypatch.setattr(toy.ToyConfig, "learns_from", lambda self: ())
    recipe = toy.recipe(toy_root)
    assert label_statistics(recipe, recipe.data.open(), tmp_path) == {}


def test_no_samples_and_missing_labels_are_explained(toy_root, tmp_path):
    recipe = toy.recipe(toy_root)
    source = recipe.data.open()
    source.tokens = lambda split: []
    with pytest.raises(DataError, match="the split 'train' has no samples"):
        label_statistics(recipe, source)
    bare = toy.recipe(toy.write_database(tmp_path / "bare", labels=False))
    with pytest.raises(DataError, match="has no occupancy labels"):
        label_statistics(bare, bare.data.open())


def test_few_labels_are_found_among_many_samples(toy_root):
    """Evenly spread samples could all be hidden ones."""
    recipe = apply(toy.recipe(toy_root), ["data.labelled_by=keyframe", "data.labelled_share=0.25"])
    for seed in range(6):
        source = apply(recipe, [f"data.labelled_seed={seed}"]).data.open()
        shown = [token for token in source.tokens("train") if not source.hides_labels(token)]
        assert len(shown) == 2
        counts = label_statistics(recipe, source, max_samples=3)[OccupancyLabels]["counts"]
        np.testing.assert_array_equal(counts, plain_counts(source, shown))
