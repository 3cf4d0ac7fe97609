"""A made-up folder of images: every pixel's colour says its class and its place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("road", "sky", "car", "tree")
COLOURS = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250], [200, 200, 20]], np.uint8)
SIZE = (48, 80)


def class_map(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W) uint8: large blocks of random classes, none like its neighbours' mirror image."""
    blocks = np.random.default_rng(number).integers(0, len(CLASSES), (size[0] // 8, size[1] // 8), dtype=np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)


def write_folder(root: Path, unlabelled: tuple[str, ...] = ()) -> Path:
    """Six images for training (a few .jpg) and three for validation, with label maps but for those that are named."""
    (root / "images").mkdir(parents=True)
    (root / "classes.json").write_text(json.dumps(CLASSES))
    for split, count in (("train", 6), ("val", 3)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            ids = class_map(10 * count + i)
            Image.fromarray(COLOURS[ids]).save(root / "images" / split / (f"{i:03d}.jpg" if i == 4 else f"{i:03d}.png"))
            if f"{split}-{i:03d}" not in unlabelled:
                Image.fromarray(ids).save(root / "labels" / split / f"{i:03d}.png")
    return root
