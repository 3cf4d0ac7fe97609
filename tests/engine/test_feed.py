from __future__ import annotations

import contextlib
import warnings

import pytest
import torch

from frustum.data.augment import BevTransform
from frustum.data.pipeline import Pipeline
from frustum.engine.feed import TrainingFeed, build_pipeline, evaluation_batches, grid_of, open_database
from frustum.engine.overrides import apply
from frustum.errors import ConfigError, DataError, FrustumWarning, TrainingError
from frustum.geometry import VoxelGrid
from frustum.recipes.finding import get_recipe
from tests.engine import toy


class Reads(toy.ToyConfig):
    reads: int = 0

    @property
    def frames_before(self) -> int:
        return self.reads


def tokens(feed: TrainingFeed, steps: int) -> list[list[str]]:
    return [[token for batch in feed.next_batches() for token in batch.tokens] for _ in range(steps)]


def feed(root, rank=0, world=1, **train):
    recipe = toy.recipe(root, **train)
    return TrainingFeed(recipe, open_database(recipe.data), rank, world)


def test_an_epoch_shows_every_keyframe_once_in_an_order_of_its_own(toy_root):
    seen = tokens(feed(toy_root), 16)
    first, second = [t for step in seen[:8] for t in step], [t for step in seen[8:] for t in step]
    assert sorted(first) == sorted(second) == sorted(open_database(toy.recipe(toy_root).data).tokens("train"))
    assert first != second


def test_two_processes_see_in_a_step_what_one_sees_in_two_micro_steps(toy_root):
    one = tokens(feed(toy_root, accumulate=2), 6)
    zero, other = tokens(feed(toy_root, 0, 2), 6), tokens(feed(toy_root, 1, 2), 6)
    assert one == [a + b for a, b in zip(zero, other, strict=True)]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5])
def test_a_restored_position_continues_exactly(toy_root, workers, steps):
    whole = feed(toy_root, accumulate=3, num_workers=workers)
    assert whole.steps_per_epoch == 2  # 8 keyframes: two steps of three, two left over
    tokens(whole, steps)
    resumed = feed(toy_root, accumulate=3)
    resumed.load_state_dict(whole.state_dict())
    for _ in range(4):
        expected, found = whole.next_batches(), resumed.next_batches()
        for a, b in zip(expected, found, strict=True):
            assert a.tokens == b.tokens
            assert torch.equal(a.images, b.images), "the augmentation must be the same, too"


def test_more_micro_steps_than_an_epoch_has_go_on_in_the_next(toy_root):
    long = feed(toy_root, accumulate=10)
    assert long.steps_per_epoch == 1
    assert len(tokens(long, 1)[0]) == 10
    assert {k: long.state_dict()[k] for k in ("epoch", "batch")} == {"epoch": 1, "batch": 2}


def test_a_split_that_changed_is_not_resumed(toy_root):
    before, recipe = feed(toy_root), apply(toy.recipe(toy_root), ["data.train_split=all"])
    other = TrainingFeed(recipe, open_database(recipe.data))
    with pytest.raises(TrainingError, match="other keyframes"):
        other.load_state_dict(before.state_dict())


def test_too_few_keyframes_for_a_batch_are_a_config_error(toy_root):
    with pytest.raises(ConfigError, match="batch"):
        feed(toy_root, batch_size=9)


def test_learning_from_boxes_needs_boxes(toy_root, street_root):
    recipe = apply(toy.recipe(toy_root), ["data.load_boxes=true"])
    with pytest.raises(DataError, match=r"none of the 8 keyframes of the split 'train'.*train without: data\.load_boxes=false$"):
        TrainingFeed(recipe, open_database(recipe.data))
    panoptic = apply(get_recipe("panoptic-flashocc-mini"), [f"data.root={toy_root}", "data.image_size=96,256"])
    with pytest.raises(DataError, match=r"train without: model\.instances=false data\.load_boxes=false$"):
        TrainingFeed(panoptic, open_database(panoptic.data))
    database = open_database(apply(recipe, [f"data.root={street_root}"]).data)
    TrainingFeed(panoptic, database)
    wanted = database.tokens("train")
    boxes = [Pipeline(image_size=(96, 256), load_boxes=True, min_points=3)._boxes(database.sample(t), BevTransform())[0] for t in wanted]
    assert database.count_boxes(wanted, 3) == sum(map(len, boxes)) > 0
    assert database.count_boxes([]) == 0


@contextlib.contextmanager
def notes():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", FrustumWarning)
        yield (words := [])
    words += [str(w.message) for w in found if issubclass(w.category, FrustumWarning)]


@pytest.mark.parametrize("training", [True, False])
def test_a_history_that_nobody_reads_or_no_scene_has_is_told(toy_root, training):
    """The toy's scenes have four keyframes."""

    def told(reads: int, *words: str) -> list[str]:
        recipe = apply(toy.recipe(toy_root), words)
        recipe = recipe.model_copy(update={"model": Reads(reads=reads)})
        database = open_database(recipe.data)
        with notes() as found:
            if training:
                TrainingFeed(recipe, database)
            else:
                evaluation_batches(recipe, database, database.tokens("val"))
        return found

    assert told(0) == told(3, "data.history=3") == []
    (line,) = told(1, "data.history=2")
    assert "data.history=2 past keyframes are loaded, but the network reads 1:" in line
    (line,) = told(4, "data.history=4")
    assert line.startswith("no keyframe has a full past: the network reads 4 past keyframes, but the longest scene here has 4 in all.")


def test_evaluation_is_in_order_and_not_augmented(toy_root):
    recipe = apply(toy.recipe(toy_root), ["eval.batch_size=3"])
    database = open_database(recipe.data)
    wanted = database.tokens("val")
    batches = [list(evaluation_batches(recipe, database, wanted)) for _ in range(2)]
    assert [t for batch in batches[0] for t in batch.tokens] == wanted
    assert [len(batch) for batch in batches[0]] == [3, 1]
    for a, b in zip(*batches, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.bev_aug, torch.eye(4, dtype=torch.float64).expand(len(a), 4, 4))


def test_the_pipeline_follows_the_recipe():
    recipe = apply(toy.recipe(), ["data.channel_order=bgr", "data.load_boxes=true", "augment.bev_flip_x=0.25", "data.map_frame=camera0"])
    training, evaluation = build_pipeline(recipe, True), build_pipeline(recipe, False)
    assert training.augment is not None
    assert training.augment.bev_flip_x == 0.25
    assert (training.grid, training.channel_order, training.load_boxes) == (toy.GRID, "bgr", True)
    assert training.map_frame == evaluation.map_frame == "camera0"
    assert build_pipeline(toy.recipe(), True).map_frame == "lidar"
    assert (evaluation.augment, evaluation.load_boxes, evaluation.load_depth) == (None, False, False)


def test_evaluation_cuts_off_the_middle_of_the_range():
    recipe = apply(toy.recipe(), ["augment.crop_h=0.1,0.3"])
    assert build_pipeline(recipe, False).crop_h == pytest.approx(0.2)
    assert build_pipeline(recipe, True).augment.moves_pixels


def test_labels_are_not_read_for_predictions(toy_root, monkeypatch):
    recipe = toy.recipe(toy_root)
    database = open_database(recipe.data)
    monkeypatch.setattr("frustum.data.nuscenes.reader.read_labels", lambda *a, **k: pytest.fail("labels were read"))
    (batch,) = list(evaluation_batches(recipe, database, database.tokens("val")[:1], labels=False))
    assert batch.semantics is None
    assert batch.mask_camera is None


def test_the_grid_is_the_models_or_occ3d():
    assert grid_of(toy.recipe()) == toy.GRID
    from frustum.engine.recipe import ModelConfig

    class Plain(ModelConfig):
        pass

    assert grid_of(toy.recipe().model_copy(update={"model": Plain()})) == VoxelGrid.occ3d()


def test_labels_of_another_grid_are_refused_on_opening(toy_root):
    database = open_database(toy.recipe(toy_root).data, VoxelGrid.occ3d())
    with pytest.raises(DataError, match="shape"):
        database.sample(database.tokens("train")[0])
