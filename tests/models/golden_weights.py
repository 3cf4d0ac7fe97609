"""The inputs of FlashOCC's golden numbers, made from names alone: weights, a six-camera rig, images, crafted labels and depth maps.

Every array is `default_rng(crc32(name)).standard_normal(shape)`, scaled so that activations stay near one.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from frustum.types.batch import Batch

_GAINS = (
    r"^img_neck\.",
    r"^img_view_transformer\.depth_net\.weight$",
    r"^img_view_transformer\.depth_net\.depth_conv\.4\.weight$",
    r"^occ_head\.predicter\.2\.weight$",
)
_CLOSING = (
    r"^img_backbone\.layer\d+\.\d+\.bn3\.|^(img_bev_encoder_backbone|pre_process_net)\.layers\.\d+\.\d+\.bn2\.|depth_conv\.[012]\.bn2\."
)


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """One entry of a state dict."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    draw = rng(key).standard_normal(shape)
    leaf = key.rpartition(".")[2]
    if leaf == "running_var":
        value = 1 + 0.1 * np.abs(draw)
    elif leaf in ("running_mean", "bias"):
        value = 0.1 * draw
    elif len(shape) == 1:  # a norm; quieter where it closes a residual branch
        value = (1 + 0.1 * draw) * (0.25 if re.search(_CLOSING, key) else 1.0)
    else:
        value = draw * np.sqrt(2.0 / np.prod(shape[1:])) * (0.5 if any(re.search(p, key) for p in _GAINS) else 1.0)
    return torch.from_numpy(value.astype(np.float32))


def state_dict(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {key: weight(key, tuple(shape)) for key, shape in shapes.items()}


_YAW = (55.0, 0.0, -55.0, 110.0, 180.0, -110.0)
_FOCAL = (1270.0, 1266.0, 1262.0, 1258.0, 810.0, 1260.0)
_PLACE = ((1.52, 0.49, 1.51), (1.70, 0.02, 1.51), (1.55, -0.49, 1.50), (1.04, 0.48, 1.57), (0.03, 0.00, 1.57), (1.01, -0.48, 1.56))


def rig(frames: int = 1) -> dict[str, np.ndarray]:
    """float32 calibration of the six cameras: intrinsics, cam2ego, image_aug, and ego2global (of every frame if there are several).

    Each frame lies 2.5 m and 2 degrees behind the one before it in the list.
    """

    def about_z(a: float) -> np.ndarray:
        return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1.0]])

    def about_y(a: float) -> np.ndarray:
        return np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])

    camera_axes = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
    cam2ego, intrinsics = np.tile(np.eye(4), (6, 1, 1)), np.zeros((6, 3, 3))
    for c in range(6):
        cam2ego[c, :3, :3] = about_z(np.deg2rad(_YAW[c])) @ about_y(np.deg2rad(0.6 + 0.1 * c)) @ camera_axes
        cam2ego[c, :3, 3] = _PLACE[c]
        intrinsics[c] = [[_FOCAL[c], 0, 816.0 + c], [0, _FOCAL[c], 491.0 - c], [0, 0, 1]]
    poses = np.tile(np.eye(4), (frames, 6, 1, 1))
    for f in range(frames):
        poses[f, :, :3, :3], poses[f, :, :3, 3] = about_z(np.deg2rad(30.0 - 2.0 * f)), (600.0 - 2.5 * f, 1600.0 - 0.2 * f, 0.0)
    aug = np.tile(np.array([[0.44, 0, 0], [0, 0.44, -140], [0, 0, 1]]), (6, 1, 1))
    arrays = {"intrinsics": intrinsics, "cam2ego": cam2ego, "ego2global": poses[0] if frames == 1 else poses[None], "image_aug": aug}
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def batch(frames: int = 1) -> Batch:
    """The keyframe that the golden outputs belong to, and its past."""
    images = np.stack([rng(f"input.imgs.{f}").standard_normal((6, 3, 256, 704)).astype(np.float32) for f in range(frames)])
    return Batch.from_arrays(images[None], bev_aug=np.eye(3, dtype=np.float32), **rig(frames))


def strided(tensor: Tensor, slices: str) -> np.ndarray:
    """The part of a tensor that the golden file stores; `slices` as its meta.json writes them."""
    parts = re.findall(r"slice\((\w+), \w+, (\w+)\)", slices)
    return tensor.float().numpy()[tuple(slice(None, None, None if step == "None" else int(step)) for _, step in parts)]


def crafted_occupancy() -> tuple[Tensor, Tensor, Tensor]:
    """Logits (1, 200, 200, 16, 18), labels and camera mask (1, 200, 200, 16)."""
    shape = (1, 200, 200, 16)
    logits = rng("crafted.occ_logits").standard_normal((*shape, 18)).astype(np.float32)
    free = rng("crafted.occ_gt.free").random(shape) < 0.7
    labels = np.where(free, 17, rng("crafted.occ_gt").integers(0, 18, shape)).astype(np.uint8)
    mask = rng("crafted.mask").random(shape) < 0.3
    return torch.from_numpy(logits), torch.from_numpy(labels), torch.from_numpy(mask)


def crafted_depth(bins: int) -> tuple[Tensor, Tensor]:
    """Sparse depth maps (6, 256, 704) and probabilities (6, bins, 16, 44)."""
    draw, count = rng("crafted.depth"), 9000
    depth = np.zeros((6, 256, 704), np.float32)
    metres = draw.uniform(0.5, 60, count).astype(np.float32)  # drawn before the places
    place = draw.integers(0, 6, count), draw.integers(0, 256, count), draw.integers(0, 704, count)
    depth[place] = metres
    name = {44: "crafted.depth_pred", 88: "crafted.depth_pred88"}[bins]
    logits = rng(name).standard_normal((6, bins, 16, 44)).astype(np.float32)
    return torch.from_numpy(depth), torch.from_numpy(logits).softmax(1)


def golden(shared: Path, name: str) -> Path:
    return shared / "golden" / "flashocc" / name
