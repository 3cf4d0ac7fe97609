"""The loader: the same batches from any number of workers and ranks, exact resumption, the cache, empty splits."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from frustum.data import loader as loader_module
from frustum.data.labels.boxes import BoxLabels
from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.data.loader import EpochBatches, SampleDataset, build_loader
from frustum.data.nuscenes.reader import NuScenes
from frustum.data.nuscenes.section import NuScenesData
from frustum.data.pipeline import RigPipeline
from frustum.data.source import AugmentConfig
from frustum.errors import ConfigError, DataError, FrustumWarning
from frustum.geometry import VoxelGrid
from frustum.types.batch import Batch
from frustum.types.contract import Label, Reads
from tests.data.toy import VERSION, toy_database


def pipe(*labels: Label[Any], past: int = 0, training: bool = False) -> RigPipeline:
    return RigPipeline(NuScenesData(image_size=(24, 48)), Reads(past=past), labels, AugmentConfig(), training)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SampleDataset:
    reader = NuScenes(toy_database(tmp_path_factory.mktemp("loader"), 3, 3), VERSION)
    return SampleDataset(reader, reader.tokens(), pipe(training=True), seed=3)


def content(batches: Any) -> list[tuple[list[str], float, float]]:
    """What identifies a batch: tokens, pixels, augmentation."""
    return [(b.tokens, float(b.images.sum()), float(b.rig.image_aug.sum() + b.bev_aug.sum())) for b in batches]


def at(loader: DataLoader[Batch], epoch: int, start: int = 0) -> DataLoader[Batch]:
    """The loader, at a position in the data."""
    assert isinstance(loader.batch_sampler, EpochBatches)
    loader.batch_sampler.go_to(epoch, start)
    return loader


def epoch_of(dataset: SampleDataset, epoch: int, **options: Any) -> list[tuple[list[str], float, float]]:
    return content(at(build_loader(dataset, 2, shuffle=True, seed=5, **options), epoch))


def test_batches_depend_on_seed_epoch_and_index_only(dataset: SampleDataset) -> None:
    first = epoch_of(dataset, 0)
    assert len(first) == 4  # nine samples, incomplete batch left out
    assert first == epoch_of(dataset, 0) == epoch_of(dataset, 0, num_workers=2)
    second = epoch_of(dataset, 1)
    assert second != first
    assert [b[0] for b in second] != [b[0] for b in first]
    assert content(build_loader(dataset, 2, shuffle=True, seed=6)) != first


def test_samples_do_not_depend_on_their_batch(dataset: SampleDataset) -> None:
    torch.testing.assert_close(dataset[(4, 2)]["images"], dataset[(4, 2)]["images"], rtol=0, atol=0)
    assert not torch.equal(dataset[(4, 2)]["images"], dataset[(5, 2)]["images"])
    assert torch.equal(dataset[2]["images"], dataset[(0, 2)]["images"])
    other = SampleDataset(dataset.source, dataset.tokens, dataset.pipeline, seed=4)
    assert not torch.equal(other[(4, 2)]["images"], dataset[(4, 2)]["images"])


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 2), (2, 0), (2, 2)])
@pytest.mark.parametrize("done", [1, 3])
def test_resume_in_mid_epoch(dataset: SampleDataset, before: int, after: int, done: int) -> None:
    whole = epoch_of(dataset, 2)
    iterator = iter(at(build_loader(dataset, 2, shuffle=True, seed=5, num_workers=before), 2))
    taken = content(next(iterator) for _ in range(done))
    resumed = build_loader(dataset, 2, shuffle=True, seed=5, num_workers=after)
    assert taken + content(at(resumed, 2, done)) == whole
    assert content(at(resumed, 3)) == epoch_of(dataset, 3)


def test_positions_before_and_after_an_epoch(dataset: SampleDataset) -> None:
    loader = build_loader(dataset, 2, shuffle=True, seed=5)
    whole = content(loader)
    assert content(loader) == whole  # the same epoch again
    assert content(at(loader, 0, 4)) == []  # this epoch is done
    assert len(content(at(loader, 1))) == 4
    one = iter(at(loader, 0))
    first = next(one)
    at(loader, 1)
    assert content([first, *one]) == whole  # an iteration stays in the epoch that it began in


def test_ranks_together_see_what_one_process_accumulates(dataset: SampleDataset) -> None:
    one = epoch_of(dataset, 1)
    ranks = [epoch_of(dataset, 1, rank=r, world_size=2) for r in range(2)]
    assert [batch for step in zip(*ranks, strict=True) for batch in step] == one


def test_evaluation_covers_everything_once(dataset: SampleDataset) -> None:
    for world in (1, 2, 3, 7):
        seen = []
        for rank in range(world):
            loader = build_loader(dataset, 2, rank=rank, world_size=world)
            tokens = [t for b in loader for t in b.tokens]
            assert len(loader) == -(-len(tokens) // 2)
            seen += tokens
        assert sorted(seen) == sorted(dataset.tokens)
    assert [t for b in build_loader(dataset, 4) for t in b.tokens] == dataset.tokens


def test_every_batch_is_a_batch(dataset: SampleDataset) -> None:
    batch = next(iter(build_loader(dataset, 3, num_workers=1)))
    assert isinstance(batch, Batch)
    assert batch.images.shape == (3, 1, 2, 3, 24, 48)
    assert batch.rig.image_size == (24, 48)


def vars_of(value: Any) -> dict[str, Any]:
    """The tensors of a label."""
    return {"value": value} if isinstance(value, torch.Tensor) else {k: v for k, v in vars(value).items() if v is not None}


@pytest.mark.parametrize("moving", [False, True])
def test_the_cache_changes_nothing_and_reads_once(dataset: SampleDataset, monkeypatch: pytest.MonkeyPatch, moving: bool) -> None:
    pipeline = pipe(OccupancyLabels(VoxelGrid.occ3d()), DepthLabels(), BoxLabels(), training=moving)
    plain = SampleDataset(dataset.source, dataset.tokens, pipeline)
    cached = SampleDataset(dataset.source, dataset.tokens, pipeline, cache="memory")
    items = [cached[(0, i)] for i in range(len(cached))]
    monkeypatch.setattr(NuScenes, "sample", lambda *_, **__: pytest.fail("read again"))
    again = [cached[(0, i)] for i in range(len(cached))]
    monkeypatch.undo()
    for a, b, c in zip(items, again, [plain[(0, i)] for i in range(len(plain))], strict=True):
        for name, value in a.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, b[name])
                assert torch.equal(value, c[name])
        for kind, value in pipeline.collate([a]).labels.items():
            for other in (b, c):
                torch.testing.assert_close(vars_of(value), vars_of(pipeline.collate([other]).labels[kind]), rtol=0, atol=0)
    assert items[0]["labels"][0] is not None
    assert items[-1]["labels"][0] is None  # the last scene has no labels


def test_the_cache_keeps_to_its_limit(dataset: SampleDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    size = dataset.pipeline.load(dataset.source, dataset.tokens[0]).num_bytes
    monkeypatch.setattr(loader_module, "CACHE_BYTES", 3 * size)
    limited = SampleDataset(dataset.source, dataset.tokens, dataset.pipeline, cache="memory")
    for i in range(len(limited)):
        limited[i]
    assert len(limited._cache) == 3
    assert not dataset._cache


def test_too_few_samples_are_explained(dataset: SampleDataset) -> None:
    with pytest.raises(DataError, match="split is empty"):
        build_loader(SampleDataset(dataset.source, [], dataset.pipeline), 2)
    with pytest.raises(ConfigError, match=r"smaller train.batch_size"):
        build_loader(dataset, 5, shuffle=True, world_size=2)
    with pytest.raises(ConfigError, match="must have batch_size >= 1"):
        EpochBatches(9, 2, rank=2, world_size=2)


def test_orders_are_permutations_and_differ() -> None:
    batches = EpochBatches(50, 5, shuffle=True, seed=1)
    orders = []
    for epoch in range(3):
        batches.go_to(epoch)
        orders.append([i for batch in batches for _, i in batch])
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] == list(np.random.default_rng([1, 0]).permutation(50))


def _opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the images that are decoded from now on."""
    paths, decode = [], RigPipeline._decode
    monkeypatch.setattr(RigPipeline, "_decode", lambda self, frame, *more: (paths.append(frame.path), decode(self, frame, *more))[1])
    return paths


def test_keyframes_share_the_images_of_their_past(dataset: SampleDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = dataset.tokens[:3]  # one scene, two cameras
    pipeline = pipe(past=2)
    paths = _opened(monkeypatch)
    in_order = SampleDataset(dataset.source, tokens, pipeline)
    items = [in_order[i] for i in range(3)]
    assert len(paths) == len(set(paths)) == 6  # each once, though nine frames of two cameras are shown
    assert len(in_order._images) == 6  # those of the last keyframe and its past, no more
    paths.clear()
    training = SampleDataset(dataset.source, tokens, pipe(past=2, training=True))
    _ = [training[i] for i in range(3)]
    assert len(paths) == 2 + 4 + 6  # in random order there is nothing to keep
    paths.clear()
    cached = SampleDataset(dataset.source, tokens, pipeline, cache="memory")
    again = [[cached[i] for i in range(3)] for _ in range(2)]
    assert len(paths) == 6
    assert cached._room == loader_module.CACHE_BYTES - 6 * 24 * 48 * 3  # an image that three keyframes show is kept, and counted, once
    for first, second, plain in zip(*again, items, strict=True):
        assert torch.equal(first["images"], plain["images"])
        assert torch.equal(second["images"], plain["images"])


def test_at_most_one_process_per_core(dataset: SampleDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "count_cores", lambda: 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch has nothing to say
        assert build_loader(dataset, 1, num_workers=2).num_workers == 2
    with pytest.warns(FrustumWarning, match="2 loading processes instead of 5: one per core"):
        assert build_loader(dataset, 1, num_workers=5).num_workers == 2
