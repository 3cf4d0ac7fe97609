"""The inputs of SimpleBEV's golden numbers, made from names alone: weights and images; calibrations are read.

Every array is a draw of `default_rng(crc32(name))`, as golden/simplebev/recipe.md says. The numbers are synthetic: a part of those of the
reference implementation lies in tests/data/simplebev.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frustum.data.labels.map_classes import MapTruth
from frustum.geometry import VoxelGrid
from frustum.models.bev_segmentation import Maps
from frustum.models.simplebev import SimpleBevConfig
from frustum.nn.image_features import Encoder
from frustum.types.batch import Batch

DATA = Path(__file__).parents[1] / "data" / "simplebev"
ENCODERS: dict[str, Encoder] = {"res50": "resnet50", "res101": "resnet101", "effb0": "efficientnet_b0", "effb4": "efficientnet_b4"}
GRID = VoxelGrid(lower=(-50, -50, -6), upper=(50, 50, 4), cell=(2.5, 100 / 48, 1.25))


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """One entry of a state dict."""
    if not shape:
        return torch.zeros(shape, dtype=torch.int64 if key.endswith("num_batches_tracked") else torch.float32)
    draw = rng(key).standard_normal(shape)
    if key.endswith("running_var"):
        value = 1 + 0.1 * np.abs(draw)
    elif key.endswith(("running_mean", "bias")):
        value = 0.1 * draw
    else:
        value = 1 + 0.1 * draw if len(shape) == 1 else draw * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))


def state_dict(keys: dict[str, list[int]]) -> dict[str, Tensor]:
    return {key: weight(key, tuple(shape)) for key, shape in keys.items()}


def config(encoder: str, **changes: Any) -> SimpleBevConfig:
    """The small network of the numbers: 40 x 48 columns, in the frame of camera 0."""
    settings = {"sampling": "reference", "feature_head": True, "grid": GRID, "maps": Maps(rule="simplebev", reference=0)}
    return SimpleBevConfig(encoder=ENCODERS[encoder], **settings | changes)


def batch(stored: Any) -> Batch:
    """Two samples of three cameras with images of 96 x 160."""
    images = (rng("simplebev/small/img").random((2, 3, 3, 96, 160)) - 0.5).astype(np.float32)
    assert zlib.crc32(images.tobytes()) == int(stored["img_crc"])
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    normalised = (torch.from_numpy(images) + 0.5 - mean) / std
    return Batch.from_arrays(normalised, stored["pix_T_cams"][..., :3, :3].astype(float), stored["cam0_T_camXs"].astype(float))


def network(encoder: str, keys: dict[str, list[int]], **changes: Any) -> torch.nn.Module:
    model = config(encoder, **changes).build().eval()
    model.load_state_dict(state_dict(keys))
    return model


def own_axes(maps: Tensor) -> np.ndarray:
    """Maps (*, Y, X) of the house in SimpleBEV's rows (forward) and columns (to the right)."""
    return maps.flip(-2).transpose(-1, -2).numpy()


def drawn() -> MapTruth:
    """The labels of the numbers, in the house's axes."""
    with np.load(DATA / "labels.npz") as stored:
        instances = np.ascontiguousarray(stored["seg_instance"].astype(np.int32).T[::-1])
        counts = np.ascontiguousarray(np.unpackbits(stored["valid"]).reshape(200, 200).astype(bool).T[::-1])
        places = stored["lrt_cam"][0, :, 3:].reshape(-1, 4, 4)[:, :3, 3].astype(np.float64)  # x right, y down, z forward
    column, row = (np.round((places[:, axis] + 50) / 0.5 - 0.5).astype(np.int32) for axis in (0, 2))
    cells = torch.from_numpy(np.stack([199 - column, row], -1))
    found = torch.from_numpy(instances)[None]
    yes = torch.ones(1, dtype=torch.bool)
    return MapTruth((found > 0)[:, None], torch.from_numpy(counts)[None, None], found, [cells], [1], yes)
