from __future__ import annotations

import contextlib
import json
import shutil
import warnings

import numpy as np
import pytest
import torch

from frustum.data.labels.boxes import BoxLabels
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.engine.evaluate import evaluate
from frustum.engine.feed import TrainingFeed, build_pipeline, evaluation_batches
from frustum.engine.overrides import apply
from frustum.engine.predict import predict
from frustum.errors import ConfigError, DataError, FrustumWarning, TrainingError
from frustum.geometry import VoxelGrid
from frustum.recipes.finding import get_recipe
from frustum.types.contract import Label, Reads
from tests.engine import toy


class OverTime(toy.ToyConfig):
    past: int = 0

    def reads(self) -> Reads:
        return Reads(past=self.past)


class Detector(toy.ToyConfig):
    def learns_from(self) -> tuple[Label, ...]:
        return (OccupancyLabels(self.grid), BoxLabels(without="model.heads=occupancy"))


def tokens(feed: TrainingFeed, steps: int) -> list[list[str]]:
    return [[token for batch in feed.next_batches() for token in batch.tokens] for _ in range(steps)]


def feed(root, rank=0, world=1, **train):
    recipe = toy.recipe(root, **train)
    return TrainingFeed(recipe, recipe.data.open(), rank, world)


def test_an_epoch_shows_every_keyframe_once_in_an_order_of_its_own(toy_root):
    seen = tokens(feed(toy_root), 16)
    first, second = [t for step in seen[:8] for t in step], [t for step in seen[8:] for t in step]
    assert sorted(first) == sorted(second) == sorted(toy.recipe(toy_root).data.open().tokens("train"))
    assert first != second


def test_two_processes_see_in_a_step_what_one_sees_in_two_micro_steps(toy_root):
    one = tokens(feed(toy_root, accumulate=2), 6)
    zero, other = tokens(feed(toy_root, 0, 2), 6), tokens(feed(toy_root, 1, 2), 6)
    assert one == [a + b for a, b in zip(zero, other, strict=True)]


@pytest.mark.parametrize(("workers", "again"), [(0, 0), (1, 0), (0, 1)])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5])
def test_a_restored_position_continues_exactly(toy_root, workers, again, steps):
    whole = feed(toy_root, accumulate=3, num_workers=workers)
    assert whole.steps_per_epoch == 2  # 8 keyframes: two steps of three, two left over
    tokens(whole, steps)
    resumed = feed(toy_root, accumulate=3, num_workers=again)
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
    other = TrainingFeed(recipe, recipe.data.open())
    with pytest.raises(TrainingError, match="other keyframes"):
        other.load_state_dict(before.state_dict())


def test_too_few_keyframes_for_a_batch_are_a_config_error(toy_root):
    with pytest.raises(ConfigError, match="batch"):
        feed(toy_root, batch_size=9)


def test_a_share_of_labels_that_hides_none_of_what_is_learned_from(street_root):
    words = [f"data.root={street_root}", "data.image_size=64,176", "data.labelled_share=0.5"]
    recipe = apply(get_recipe("renderocc-mini"), words)
    with pytest.raises(
        ConfigError, match=r"learns from 2D labels and depth maps alone, .*those of all keyframes\. Leave data\.labelled_share=1, or set"
    ):
        TrainingFeed(recipe, recipe.data.open())
    recipe = apply(recipe, ["data.labelled_only=true"])
    TrainingFeed(recipe, recipe.data.open())
    recipe = apply(get_recipe("flashocc-mini-render"), [*words[:2], "data.labelled_share=0.5"])
    TrainingFeed(recipe, recipe.data.open())


def test_labels_that_cannot_be_learned_from_stop_before_training(toy_root, street_root):
    recipe = toy.recipe(toy_root).model_copy(update={"model": Detector()})
    with pytest.raises(DataError, match=r"none of the 8 training keyframes .*train without: model\.heads=occupancy$"):
        TrainingFeed(recipe, recipe.data.open())
    street = apply(recipe, [f"data.root={street_root}", "data.image_size=96,256", f"model.grid={VoxelGrid.occ3d().model_dump_json()}"])
    (batch,) = TrainingFeed(street, street.data.open()).next_batches()
    assert set(batch.labels) == {OccupancyLabels, BoxLabels}


@contextlib.contextmanager
def notes():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", FrustumWarning)
        yield (words := [])
    words += [str(w.message) for w in found if issubclass(w.category, FrustumWarning)]


@pytest.mark.parametrize("training", [True, False])
def test_a_past_that_no_scene_has_is_noted(toy_root, training):
    """The toy's scenes have four keyframes."""

    def noted(past: int) -> list[str]:
        recipe = toy.recipe(toy_root).model_copy(update={"model": OverTime(past=past)})
        source = recipe.data.open()
        with notes() as found:
            if training:
                TrainingFeed(recipe, source)
            else:
                evaluation_batches(recipe, source, source.tokens("val"))
        return found

    assert noted(0) == noted(3) == []
    (line,) = noted(4)
    assert line.startswith("no keyframe has a full past: the network reads 4 past keyframes, but the longest scene here has 4 in all.")


def test_the_past_that_the_network_reads_is_loaded(toy_root):
    recipe = toy.recipe(toy_root).model_copy(update={"model": OverTime(past=2)})
    source = recipe.data.open()
    (batch,) = TrainingFeed(recipe, source).next_batches()
    assert batch.images.shape[1] == 3
    (last,) = list(evaluation_batches(recipe, source, source.tokens("val")[3:]))
    assert last.is_present.tolist() == [[True, True, True]]


def test_evaluation_is_in_order_and_not_augmented(toy_root):
    recipe = apply(toy.recipe(toy_root), ["eval.batch_size=3"])
    database = recipe.data.open()
    wanted = database.tokens("val")
    batches = [list(evaluation_batches(recipe, database, wanted)) for _ in range(2)]
    assert [t for batch in batches[0] for t in batch.tokens] == wanted
    assert [len(batch) for batch in batches[0]] == [3, 1]
    for a, b in zip(*batches, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.bev_aug, torch.eye(4, dtype=torch.float64).expand(len(a), 4, 4))


def test_the_pipeline_follows_the_recipe(toy_root):
    words = ["data.channel_order=bgr", "augment.bev_flip_x=1", "augment.colour_jitter=0", "data.map_frame=camera0"]
    recipe = apply(toy.recipe(toy_root), words).model_copy(update={"model": Detector()})
    source, plain = recipe.data.open(), apply(toy.recipe(toy_root), ["data.channel_order=rgb"])
    token = source.tokens("val")[2]

    def batch(recipe, training):
        pipeline = build_pipeline(recipe, training)
        return pipeline.collate([pipeline(source, token, np.random.default_rng(0))])

    training, evaluation = batch(recipe, True), batch(recipe, False)
    assert set(training.labels) == set(evaluation.labels) == {OccupancyLabels, BoxLabels}
    assert training.bev_aug[0, 0, 0] == -1
    assert evaluation.bev_aug[0, 0, 0] == 1
    assert build_pipeline(recipe, True).training
    assert not build_pipeline(recipe, False).training
    mean, std = (torch.tensor(v)[:, None, None] for v in (recipe.data.mean, recipe.data.std))
    rgb = batch(plain, False).images * std + mean
    torch.testing.assert_close(evaluation.images * std + mean, rgb.flip(3))
    for recipe_, batch_ in ((recipe, evaluation), (recipe, training), (plain, batch(plain, True))):
        first = source.sample(token).cameras[0].ego2global if recipe_.data.map_frame == "camera0" else source.sample(token).ego2global
        assert batch_.key_ego2global[0].tolist() == first.tolist()


def test_evaluation_cuts_off_the_middle_of_the_range(toy_root):
    recipe = apply(toy.recipe(toy_root), ["augment.crop_h=0.1,0.3", "data.image_size=8,32"])
    source = recipe.data.open()
    (batch,) = evaluation_batches(recipe, source, source.tokens("val")[:1])
    assert batch.rig.image_aug[0, 0, 0, 1, 2] == -(int(0.8 * 16) - 8)
    assert recipe.augment.moves_pixels


def test_labels_are_not_read_for_predictions(toy_root, monkeypatch):
    recipe = toy.recipe(toy_root)
    source = recipe.data.open()
    (batch,) = list(evaluation_batches(recipe, source, source.tokens("val")[:1], labels=True))
    assert batch.need(OccupancyLabels).semantics.shape == (1, *toy.GRID.shape)
    monkeypatch.setattr("frustum.data.nuscenes.reader.read_labels", lambda *a, **k: pytest.fail("labels were read"))
    (batch,) = list(evaluation_batches(recipe, source, source.tokens("val")[:1]))
    assert batch.labels == {}


class Oracle(Detector):
    def reads(self) -> Reads:
        return Reads(labels=(OccupancyLabels(self.grid),))


def test_labels_that_are_read_to_predict_are_always_there(toy_root):
    recipe = toy.recipe(toy_root).model_copy(update={"model": Oracle()})
    source = recipe.data.open()
    (batch,) = evaluation_batches(recipe, source, source.tokens("val")[:1])
    assert set(batch.labels) == {OccupancyLabels}
    assert set(next(evaluation_batches(recipe, source, source.tokens("val")[:1], labels=True)).labels) == {OccupancyLabels, BoxLabels}
    assert build_pipeline(recipe, training=True).labels == (OccupancyLabels(recipe.model.grid), Detector().learns_from()[1])


@pytest.mark.parametrize("said", ["learns_from", "reads"])
def test_a_kind_of_label_is_named_once(toy_root, monkeypatch, said):
    twice = (BoxLabels(), BoxLabels(min_points=2))
    monkeypatch.setattr(Detector, said, lambda self: twice if said == "learns_from" else Reads(labels=twice))
    with pytest.raises(ConfigError, match=rf"Detector\.{said}\(\).* must name each kind of label once"):
        build_pipeline(toy.recipe(toy_root).model_copy(update={"model": Detector()}), training=True)


def test_labels_of_another_grid_are_refused(toy_root):
    recipe = apply(toy.recipe(toy_root), [f"model.grid={VoxelGrid.occ3d().model_dump_json()}"])
    with pytest.raises(DataError, match=r"shape \(10, 10, 4\), but the recipe's grid has \(200, 200, 16\) cells"):
        TrainingFeed(recipe, recipe.data.open()).next_batches()


def test_training_evaluation_and_prediction_say_what_is_left_out(toy_root, tmp_path):
    """Files that the tables mark as invalid, and the camera that keyframes lack for it, each named once."""
    root = shutil.copytree(toy_root, tmp_path / "toy")
    recipe = toy.recipe(root)
    whole = recipe.data.open()
    wanted = [whole.tokens(split)[-1] for split in ("train", "val")]
    path = root / recipe.data.version / "sample_data.json"
    rows = json.loads(path.read_text())
    seen = set()
    for row in rows:
        if row["sample_token"] in wanted and "CAM" in row["filename"] and row["sample_token"] not in seen:
            row["is_valid"] = False
            seen.add(row["sample_token"])
    path.write_text(json.dumps(rows))
    source, network = recipe.data.open(), recipe.model.build()
    uses = {
        "train": lambda: TrainingFeed(recipe, source),
        "val": lambda: evaluate(recipe, network, source, progress=False),
        "all": lambda: predict(network, recipe, source, source.tokens()[-1:], tmp_path / "out", progress=False),
    }
    for split, use in uses.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FrustumWarning)
            with contextlib.suppress(DataError):  # a network of a fixed number of cameras
                use()
        told = [str(w.message) for w in caught if "is_valid: false" in str(w.message)]
        count = 1 if split == "all" else len(source.tokens(split))
        assert len(told) == 1
        assert told[0].startswith(f"1 files of 1 of {count} keyframes are marked with is_valid: false"), split
        assert any("have no image of CAM" in str(w.message) for w in caught)


@pytest.mark.parametrize(("name", "below"), [("simplebev-b0", "model"), ("occfeat-b0", "model.network.simplebev")])
def test_a_map_in_the_frame_of_another_camera_than_cam_front_is_refused(toy_root, name, below):
    """It would be scored in the frame of CAM_FRONT, and be wrong without a word. A rig without one has none to mix up."""
    data = toy.recipe(toy_root).data
    recipe = get_recipe(name).model_copy(update={"data": data})
    source = data.open()
    first = source.tokens("val")[:1]
    with pytest.raises(
        DataError, match=rf"should be camera 1 .* is camera 0: set {below}\.maps\.reference=0\..* or {below}\.maps\.rule=lss"
    ):
        evaluation_batches(recipe, source, first)
    evaluation_batches(apply(recipe, [f"{below}.maps.reference=0"]), source, first)
    back = data.model_copy(update={"cameras": ("CAM_BACK",)})
    evaluation_batches(recipe.model_copy(update={"data": back}), back.open(), first)
