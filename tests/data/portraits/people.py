"""A small folder of portraits with a true swap, for tests: faces of random pixels, 16 x 16, whose head is a square."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from frustum.data.portraits.swaps import Swap
from frustum.data.portraits.writer import PortraitWriter

NAME = "id00012-on-id00017"
SIZE = 16


def parts(left: int) -> np.ndarray:
    """Hair, skin below it, eyes, and cloth at the bottom; the head is 8 pixels wide and begins in the column `left`."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[14:] = 16
    mask[3:6, left : left + 8] = 17
    mask[6:12, left : left + 8] = 1
    mask[7, left + 2], mask[7, left + 5] = 5, 4
    return mask


def write_people(root: Path, with_truth: bool = True) -> Path:
    """Two people with two frames each, the second one in `val`, and the first one's head on the second one's first frame."""
    rng, writer = np.random.default_rng(0), PortraitWriter(root)
    places = {"id00012": (2, 3), "id00017": (5, 6)}
    for person, lefts in places.items():
        rows = {}
        for number, left in enumerate(lefts):
            image = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            writer.add_frame(person, "video-0", f"{number:05d}", image, parts(left))
            marks = np.column_stack([left + 8 * rng.random(68), 3 + 9 * rng.random(68)])
            rows[f"{number:05d}"] = {"landmarks": marks.tolist(), "is_visible": [1] * 68, "motion": {}}
        if with_truth:
            writer.add_truth(person, "video-0", rows)
    writer.finish({"train": ["id00012"], "val": ["id00017"]}, {})
    names = ("head", "source", "skin", "region")
    pictures = {name: rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for name in names}
    swap = Swap("id00012/video-0", "id00017/video-0/00000")
    writer.add_swap(NAME, swap, pictures, parts(4))
    writer.finish_swaps({NAME: swap})
    return root
