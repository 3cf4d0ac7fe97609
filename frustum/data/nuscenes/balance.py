"""Class-balanced sampling (CBGS; Zhu et al., 2019, arXiv:1908.09492): keyframes with rare classes come more often."""

from __future__ import annotations

import numpy as np

from frustum.errors import DataError


def balanced_positions(has_class: np.ndarray, seed: int) -> np.ndarray:
    """Positions of samples, drawn so that every class brings as many of them.

    For every class that occurs at all, the same number of samples is drawn, with replacement, from those that hold it; together they are as
    many as there are pairs of a sample and a class in it. A sample without any class is never drawn.

    Args:
        has_class: (N, K) bool, whether sample n holds an object of class k.
        seed: of the draw.

    Returns:
        (n,) int64.

    Raises:
        DataError: no sample holds any class.
    """
    counts = has_class.sum(0)
    present = np.flatnonzero(counts)
    if not len(present):
        raise DataError(
            f"data.class_balanced repeats keyframes by the classes of their boxes, but none of the {len(has_class)} training keyframes has "
            "a box of a detection class. Set data.class_balanced=false."
        )
    rng, each = np.random.default_rng([seed, 0xCB65]), max(1, int(counts.sum()) // len(present))
    return np.concatenate([rng.choice(np.flatnonzero(has_class[:, k]), each) for k in present])
