"""Batches in a reproducible order: the same with any number of workers or ranks, resumable within an epoch.

The order of epoch e is a function of (seed, e), the augmentation of sample i of (seed, e, i). So the whole state of a loader is two
integers, the epoch and the number of batches that were given out.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from frustum.data.source import Loaded, Pipeline, Source
from frustum.errors import ConfigError, DataError, FrustumWarning
from frustum.ops.threads import count_cores
from frustum.types.batch import Batch

Item = tuple[int, int]
"""Epoch and position in the list of tokens."""

CACHE_BYTES = 4 << 30
"""Memory that the cache of one dataset may take."""


class SampleDataset(Dataset[dict[str, Any]]):
    """Samples through a pipeline.

    Args:
        source: an opened data set.
        tokens: samples, e.g. `source.tokens("train")`.
        pipeline: reading, augmentation, normalisation.
        seed: of the augmentation.
        cache: `memory` keeps decoded samples up to CACHE_BYTES, images that they share only once; each worker process has its
            own cache, so use it with num_workers=0. Without it, evaluation of samples that share images keeps those of the last one, which
            the next one mostly shares.
    """

    def __init__(
        self, source: Source, tokens: Sequence[str], pipeline: Pipeline, seed: int = 0, cache: Literal["none", "memory"] = "none"
    ) -> None:
        self.source, self.tokens, self.pipeline, self.seed = source, list(tokens), pipeline, seed
        self._room = CACHE_BYTES if cache == "memory" else 0
        self._cache: dict[int, Loaded] = {}
        self._images: dict[Path, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, item: int | Item) -> dict[str, Any]:
        """Network input of the sample at a position, augmented for an epoch (0 if not given)."""
        epoch, index = item if isinstance(item, tuple) else (0, int(item))
        rng = np.random.default_rng([self.seed, epoch, index]) if self.pipeline.training else None
        return self.pipeline.apply(self._loaded(index), rng)

    def _loaded(self, index: int) -> Loaded:
        if index in self._cache:
            return self._cache[index]
        images = dict(self._images)
        loaded = self.pipeline.load(self.source, self.tokens[index], images)
        size = loaded.num_bytes - sum(self._images[path].nbytes for path in loaded.images.keys() & self._images.keys())
        if self._room and self._room >= size:
            self._room -= size
            self._cache[index], self._images = loaded, images
        elif not self.pipeline.training and not self._cache:
            self._images = loaded.images
        return loaded


class EpochBatches(Sampler[list[Item]]):
    """Batches of (epoch, position) for one rank.

    The batches of an epoch are numbered over all ranks; rank r takes numbers r, r + world_size, ... So R ranks read in one step what one
    process reads in R accumulated steps. With `shuffle`, incomplete batches and those that not every rank would get are left out.
    """

    def __init__(self, num_samples: int, batch_size: int, shuffle: bool = False, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ConfigError(f"batch_size {batch_size}, rank {rank} of {world_size} must have batch_size >= 1 and 0 <= rank < world_size.")
        if num_samples == 0:
            raise DataError("there are no samples to load: the split is empty. See `frustum data status ROOT`.")
        if shuffle and num_samples < batch_size * world_size:
            raise ConfigError(f"{num_samples} samples do not fill {world_size} batch(es) of {batch_size}. Set a smaller train.batch_size.")
        self.num_samples, self.batch_size, self.shuffle, self.seed = num_samples, batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start = 0, 0  # where iterations begin; a DataLoader with workers begins one twice, so that none may change it

    def __len__(self) -> int:
        full, rest = divmod(self.num_samples, self.batch_size)
        if self.shuffle:
            return full // self.world_size
        return (full + bool(rest) - self.rank + self.world_size - 1) // self.world_size

    def __iter__(self) -> Iterator[list[Item]]:
        epoch, size = self.epoch, self.batch_size  # `go_to` chooses the epoch of later iterations
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.num_samples) if self.shuffle else np.arange(self.num_samples)
        firsts = ((number * self.world_size + self.rank) * size for number in range(self.start, len(self)))
        return ([(epoch, int(i)) for i in order[first : first + size]] for first in firsts)

    def go_to(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch of the iterations that begin from now on, and the number of its batches to skip."""
        self.epoch, self.start = epoch, start


def _leave_signals_to_the_main_process(worker: int) -> None:
    """Ctrl-C reaches the whole process group; a worker that died of it would keep the main process from saving its state."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def build_loader(
    dataset: SampleDataset, batch_size: int, shuffle: bool = False, seed: int = 0, num_workers: int = 0, rank: int = 0, world_size: int = 1
) -> DataLoader[Batch]:
    """A loader of `Batch` objects; its `batch_sampler` is an `EpochBatches`, where the position in the data is chosen.

    Args:
        dataset: the samples.
        batch_size: samples per batch and rank.
        shuffle: a new order each epoch (`EpochBatches.go_to`), without incomplete batches and uneven shares.
        seed: of the order.
        num_workers: loading processes, at most one per core; 0 loads in this one.
        rank, world_size: which share of the batches this process gets.

    Raises:
        DataError: there are no samples.
        ConfigError: fewer samples than one step needs.
    """
    batches = EpochBatches(len(dataset), batch_size, shuffle, seed, rank, world_size)
    cores = count_cores()
    if num_workers > cores:
        warnings.warn(
            f"{cores} loading processes instead of {num_workers}: one per core. Set train.num_workers.", FrustumWarning, stacklevel=2
        )
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # torch names a loader's type after samples, but what comes out are batches
        batch_sampler=batches,
        collate_fn=dataset.pipeline.collate,
        num_workers=min(num_workers, cores),
        worker_init_fn=_leave_signals_to_the_main_process,
        generator=torch.Generator().manual_seed(seed),  # its own, so that starting an epoch draws nothing from the global one
        pin_memory=torch.cuda.is_available(),
    )
