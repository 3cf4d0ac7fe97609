"""Statistics of the training labels, for networks that start from them (`prepare`); kept in the run folder."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from frustum.data.source import Source, labelled, spread
from frustum.engine.recipe import Recipe
from frustum.errors import DataError
from frustum.files import atomic_path
from frustum.npz import DAMAGED, read_sealed, sealed
from frustum.types.contract import Label

STATISTICS = "statistics.npz"
Statistics = dict[type[Label[Any]], dict[str, np.ndarray]]
"""The arrays of `Label.statistics` by kind of label."""


def label_statistics(
    recipe: Recipe, source: Source, cache: Path | None = None, max_samples: int = 1000, *, kept_only: bool = False
) -> Statistics:
    """The statistics of all labels that the recipe's model learns from, over evenly spread samples of the training split.

    Args:
        recipe: says which split, and by its model which labels.
        source: the opened data set.
        cache: folder where the result is kept, and taken from if it is of the same samples and labels.
        max_samples: the largest number of samples that are read.
        kept_only: read none, but take what is kept; there are no arrays where nothing is.

    Raises:
        DataError: no samples, or a label is missing or damaged.
    """
    split = recipe.data.train_split
    tokens = source.tokens(split)
    if len(tokens) > max_samples:  # of few labels, none may be among evenly spread samples
        tokens = spread(labelled(source, tokens) or tokens, max_samples)
    if not tokens:
        raise DataError(f"the split {split!r} has no samples.")
    labels = recipe.model.learns_from()
    about = "\n".join([hashlib.sha256("\n".join(tokens).encode()).hexdigest(), *(repr(label) for label in labels)])
    file = None if cache is None else cache / STATISTICS
    stored: dict[str, np.ndarray] = {}
    if file is not None:
        with contextlib.suppress(*DAMAGED):  # then it is made again
            stored = read_sealed(file, about)
    if not stored and not kept_only:
        stored = {f"{type(label).__name__}.{name}": array for label in labels for name, array in label.statistics(source, tokens).items()}
        if file is not None:
            with atomic_path(file, ".npz") as temporary:
                np.savez(temporary, **sealed(stored, about))  # type: ignore[arg-type]
    prefixes = {type(label): f"{type(label).__name__}." for label in labels}
    return {kind: {key.removeprefix(own): stored[key] for key in stored if key.startswith(own)} for kind, own in prefixes.items()}
