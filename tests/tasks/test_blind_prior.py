"""The best answer that does not look."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.data.labels.occupancy import occupancy_of
from frustum.engine.evaluate import evaluate
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.tasks.blind_prior import VARIANTS, BlindPrior, count_classes, most_likely
from frustum.tasks.occupancy import OccupancyTask
from frustum.types.classes import OCC3D_CLASSES
from tests.engine import toy


@pytest.fixture
def database(toy_root):
    return toy.recipe(toy_root).data.open()


def test_the_prior_is_the_most_common_answer(database):
    prior = BlindPrior.fit(database, "train", toy.GRID, OCC3D_CLASSES)
    stack = np.stack([l.semantics for l in occupancy_of(database, database.tokens("train"))])
    mask = np.stack([l.mask_camera for l in occupancy_of(database, database.tokens("train"))]) > 0
    votes = np.stack([((stack == c) & mask).sum(0) for c in range(18)], -1)
    expected = np.where(votes.sum(-1) > 0, votes.argmax(-1), 17)
    counts = count_classes(database, database.tokens("train"), toy.GRID, 18)
    assert np.array_equal(counts.reshape(*toy.GRID.shape, 18), votes)
    assert np.array_equal(most_likely(counts, 0.0).reshape(toy.GRID.shape), expected)
    frequency = votes.sum((0, 1, 2)) / votes.sum()
    weight = np.divide(1, np.sqrt(frequency), out=np.zeros(18), where=frequency > 0)
    balanced = np.where(votes.sum(-1) > 0, (votes * weight).argmax(-1), 17)
    assert np.array_equal(most_likely(counts, 0.5).reshape(toy.GRID.shape), balanced)
    assert set(prior.train_miou) == set(VARIANTS)
    best = max(prior.train_miou, key=prior.train_miou.__getitem__)
    assert prior.name == f"blind prior ({best})"
    report = evaluate(toy.recipe(database.root), prior, split="train")
    assert report.name == prior.name
    assert report.note.startswith("answers every frame with the same volume")
    assert report.results["occupancy"]["miou"]["camera"] == pytest.approx(prior.train_miou[best])


def test_labels_that_do_not_fit_are_named(database, tmp_path):
    bare = toy.recipe(toy.write_database(tmp_path / "bare", labels=False)).data.open()
    with pytest.raises(DataError, match="no occupancy labels"):
        BlindPrior.fit(bare, "train", toy.GRID, OCC3D_CLASSES)
    with pytest.raises(DataError, match=r"labels have shape \(10, 10, 4\), but the grid has \(200, 200, 16\)"):
        BlindPrior.fit(database, "train", VoxelGrid.occ3d(), OCC3D_CLASSES)


def test_the_task_fits_it_to_what_it_scored(database):
    task = OccupancyTask(slow=False)
    token = database.tokens("train")[0]
    answer = BlindPrior.fit(database, "train", toy.GRID, OCC3D_CLASSES).answer(token)
    task.add(token, answer.occupancy, task.truth(database, token))
    shown = []
    (prior,) = task.baselines(database, "train", lambda title, tokens: shown.append(title) or tokens)
    np.testing.assert_array_equal(prior.semantics, answer.occupancy.semantics)
    assert (prior.grid, shown) == (toy.GRID, ["blind prior"])
