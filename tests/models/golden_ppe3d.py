"""The inputs of 3DPPE's golden numbers, made from names alone: weights, features, depth maps, true boxes; the rig is read.

Every array is a draw of `default_rng(crc32(name))`, see golden/3dppe/recipe.md.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from frustum.data.labels.boxes import TrueBoxes
from frustum.types.batch import Batch


def folder(shared: Path) -> Path:
    return shared / "golden" / "3dppe"


def keys(shared: Path, case: str) -> dict[str, list[int]]:
    return json.loads((folder(shared) / f"keys_{case}.json").read_text())


def info(shared: Path, case: str) -> dict:
    return json.loads((folder(shared) / f"info_{case}.json").read_text())


def draw(name: str, shape: tuple[int, ...], uniform: bool = False) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.random(shape) if uniform else rng.standard_normal(shape)


def weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """One entry of a state dict."""
    leaf = key.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if leaf == "code_weights":
        return torch.tensor([1.0] * 8 + [0.2] * 2)
    if leaf == "project":
        return torch.from_numpy(np.linspace(1, 61.2, shape[0]).astype(np.float32))
    if key.endswith("reference_points.weight"):
        value = draw(key, shape, uniform=True)
    elif leaf in ("running_mean", "bias", "in_proj_bias"):
        value = 0.1 * draw(key, shape)
    elif leaf == "running_var":
        value = 1 + 0.1 * abs(draw(key, shape))
    elif not shape:
        value = 0.5 * draw(key, shape)
    elif len(shape) == 1:
        value = 1 + 0.1 * draw(key, shape)
    else:
        value = draw(key, shape) * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value).astype(np.float32))


def state_dict(shared: Path, case: str, size: tuple[int, int]) -> dict[str, Tensor]:
    """All entries; tied ones have the draw of the first of them, and the norms of calibrations know the rig."""
    tied, misc = info(shared, case)["aliases"], np.load(folder(shared) / "misc.npz")
    state = {key: weight(tied.get(key, key), tuple(shape)) for key, shape in keys(shared, case).items()}
    for key, value in state.items():
        norm, _, leaf = key.rpartition(".")
        if norm.endswith(("depth_net.bn1", "depth_net.bn2")) and leaf in ("running_mean", "running_var"):
            stored = misc[f"rig_{size[0]}x{size[1]}_bn{leaf[8:]}"][: len(value)]
            state[key] = torch.from_numpy(stored.astype(np.float32))
        if "img_neck.lateral_convs" in key and leaf == "weight":
            state[key] = value * 1e-3
    return state


def batch(shared: Path, size: tuple[int, int], images: Tensor | None = None) -> Batch:
    """The rig of six cameras in the frame of the LiDAR, which the fixtures work in; images of zeros by default."""
    misc, name = np.load(folder(shared) / "misc.npz"), f"rig_{size[0]}x{size[1]}"
    cam2frame = np.linalg.inv(misc[f"{name}_ext"])
    given = torch.zeros(1, 6, 3, *size) if images is None else images
    return Batch.from_arrays(given, misc[f"{name}_intr"][:, :3, :3], cam2frame)


def depth_map(height: int, width: int) -> tuple[Tensor, Tensor]:
    """LiDAR depth (6, h, w) in metres and the features (6, h, w) that count in a loss."""
    depth = draw("input.depth_map", (6, height, width), uniform=True) * 70
    mask = draw("input.depth_mask", (6, height, width), uniform=True) > 0.5
    return torch.from_numpy(depth.astype(np.float32)), torch.from_numpy(mask)


def true_boxes() -> TrueBoxes:
    """Twelve boxes, the fourth with an unknown velocity."""
    u, v = draw("gt.u", (12, 7), uniform=True), draw("gt.v", (12, 2))
    height = 0.5 + 2.5 * u[:, 5]
    centre = np.stack([-50 + 100 * u[:, 0], -50 + 100 * u[:, 1], -3 + 4 * u[:, 2] + height / 2], 1)
    size = np.stack([0.5 + 3 * u[:, 3], 0.5 + 5 * u[:, 4], height], 1)
    yaw = -np.pi + 2 * np.pi * u[:, 6:]
    v[3] = np.nan
    boxes = np.concatenate([centre, size, yaw, v], 1).astype(np.float32)
    classes = (draw("gt.label", (12,), uniform=True) * 10).astype(np.int64)
    return TrueBoxes([torch.from_numpy(boxes)], [torch.from_numpy(classes)])
