"""Where image features lie in space and how such places are encoded: PETR (Liu et al., ECCV 2022) and 3DPPE (Shu et al., ICCV 2023).

    depth of each pixel -> pixel_points -> normalise_points -> inverse_sigmoid -> sine_encoding -> MLP                (3DPPE)
    the same candidates for all -> pixel_points -> normalise_points -> inverse_sigmoid -> depth_major -> MLP          (PETR, camera rays)

Everything is computed in float32 at least, under autocast too: half precision cannot tell neighbouring pixels apart.
Shape letters: B batch, N cameras, D depths, h w feature map.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.geometry.transforms import send
from frustum.nn.rig_memory import RigMemory
from frustum.types.frame import Frame

Bounds = tuple[float, float, float, float, float, float]
"""Of a box in space: least x, y, z, then greatest x, y, z, in metres."""
Spacing = Literal["lid", "ud", "inclusive"]

_TEMPERATURE = 10000.0
_NEAREST = 1e-5  # metres
_SHORTEST, _LONGEST = 12.0, 100.0  # metres

_known: RigMemory[Tensor] = RigMemory()  # so that nothing is copied to a GPU for a rig that was there before


# ---- from pixels to points ------------------------------------------------------------------------------------------------------


def candidate_depths(
    count: int, spacing: Spacing, start: float = 1.0, stop: float = 61.2, device: torch.device | str | None = None
) -> Tensor:
    """D = `count` depths (D,) between `start` and `stop`, float32 metres.

    `lid`: steps grow linearly (PETR's camera rays). `ud`: equal steps. Both end before `stop`. `inclusive`: equal steps, from `start` to
    `stop` itself (the bins of 3DPPE's depth net).

    Raises:
        ConfigError: another spacing, or fewer than two depths.
    """
    if count < 2 or spacing not in ("lid", "ud", "inclusive"):
        raise ConfigError(f"depths need a count of at least 2 and the spacing lid, ud or inclusive, got {count} and {spacing!r}.")
    if spacing == "inclusive":
        return torch.linspace(start, stop, count, device=device)
    index = torch.arange(count, dtype=torch.float32, device=device)
    if spacing == "ud":
        return start + (stop - start) / count * index
    return start + (stop - start) / (count * (count + 1)) * index * (index + 1)


def image_to_map(frame: Frame, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, N, 3, 4): takes (u * d, v * d, d, 1) of pixel (u, v) of the network's image at depth d to the augmented ego frame of `frame`.

    Multiplied and inverted in float64 where the rig lies, then sent to `device` (None: it stays) as `dtype`.
    """
    rig = frame.rig
    if device is None or (device := torch.device(device)) == rig.intrinsics.device:
        cam2map = frame.bev_aug[:, None].double() @ rig.cam2key(frame.ego2global).double()
        to_camera = torch.linalg.inv(rig.image_aug.double() @ rig.intrinsics.double())
        return torch.cat([cam2map[..., :3, :3] @ to_camera, cam2map[..., :3, 3:]], -1).to(dtype)

    def make() -> Tensor:
        with torch.inference_mode(False):  # what is kept may be needed for gradients later
            return send(image_to_map(frame, dtype=torch.float64), device, dtype)

    matrices = (rig.image_aug, rig.intrinsics, rig.cam2ego, rig.ego2global, frame.ego2global, frame.bev_aug)
    return _known.get(matrices, (str(device), dtype), make)


def pixel_points(depth: Tensor, frame: Frame) -> Tensor:
    """Points (B, N, *, h, w, 3), metres in the augmented ego frame, of the features of a map at `depth` (B, N, *, h, w), with a gradient.

    A feature stands at the top-left corner of its cell: u = column * W / w, without half a cell, as published weights expect. Depths may
    be regressed ones, so that 0 and negative ones occur: pixels are multiplied by 1e-5 m at least, which puts these points on the line
    through the image's top-left corner, as in the reference.
    To follow all rays to the same depths, expand those: `depths.view(-1, 1, 1).expand(B, N, D, h, w)`. `frame._replace(ego2global=...)`
    gives the points of a past frame in the map of the keyframe.

    Raises:
        ShapeError: the depths are not of the cameras of the frame.
    """
    cameras = tuple(frame.rig.intrinsics.shape[:2])
    if depth.dim() < 4 or tuple(depth.shape[:2]) != cameras:
        raise ShapeError(f"depth must have shape (B, N, *, h, w) with (B, N) = {cameras}, got {tuple(depth.shape)}.")
    depth = _wide(depth)[..., None]
    matrix = image_to_map(frame, depth.device, depth.dtype).view(*cameras, *[1] * (depth.dim() - 3), 3, 4)
    sides = zip(frame.rig.image_size, depth.shape[-3:-1], strict=True)
    v, u = (torch.arange(count, dtype=depth.dtype, device=depth.device) * size / count for size, count in sides)
    across = u[:, None] * matrix[..., 0] + v[:, None, None] * matrix[..., 1]  # (B, N, 1, h, w, 3)
    # products of single numbers: a matrix product would be rounded to TF32 or bf16 where that is allowed
    return depth.clamp(min=_NEAREST) * across + depth * matrix[..., 2] + matrix[..., 3]


def normalise_points(points: Tensor, bounds: Bounds) -> Tensor:
    """Points (*, 3) in metres as shares of a box in space: 0 and 1 at its sides, less and more outside."""
    axes = zip(_wide(points).unbind(-1), bounds[:3], bounds[3:], strict=True)
    return torch.stack([(value - low) / (high - low) for value, low, high in axes], -1)


def depth_major(points: Tensor) -> Tensor:
    """Points of rays (B, N, D, h, w, 3) as the channels (B * N, 3 * D, h, w) of PETR: x, y, z of the first depth, then of the next."""
    return points.movedim(-1, 3).flatten(2, 3).flatten(0, 1)


# ---- encodings ------------------------------------------------------------------------------------------------------------------


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logits (*) of probabilities (*), which are cut to 0..1; with the default `eps` from -11.5129 to 11.5129."""
    x = _wide(x).clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def sine_encoding(points: Tensor, features: int = 128) -> Tensor:
    """Sines and cosines (*, 3 * features) of points (*, 3) in units of a whole turn: PETR's `pos2posemb3d`.

    Per axis sine and cosine alternate, from the shortest wave to one of 10,000 turns; the axes are in the order y, x, z.
    """
    angles = _angles(points, features)  # (*, 3, features / 2)
    axes = torch.stack([angles.sin(), angles.cos()], -1).flatten(-2).unbind(-2)
    return torch.cat([axes[1], axes[0], axes[2]], -1)


def metric_encoding(points: Tensor, features: int = 128) -> Tensor:
    """Sines and cosines (*, 3 * features) of points (*, 3) in metres; waves from 12 to 100 m. Ours."""
    points = _wide(points)
    index = torch.arange(features // 2, dtype=points.dtype, device=points.device)
    angles = (points * (2 * math.pi / _SHORTEST))[..., None] / (_LONGEST / _SHORTEST) ** (2 * index / features)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-3)


def view_encoding(padding: Tensor, features: int = 128) -> Tensor:
    """Sines and cosines (B, N, 3 * features, h, w) of camera, row and column, in this order: mmdet's `SinePositionalEncoding3D` in PETR.

    Features are counted along each axis as shares of those that are not padding. Unlike in `sine_encoding`, the sines of an axis come
    first, then its cosines: published weights expect that.

    Args:
        padding: (B, N, h, w) bool, True where there is no image.
        features: per axis.
    """
    inside = (padding == 0).float()
    axes = []
    for axis in (1, 2, 3):
        count = inside.cumsum(axis)
        angles = _angles(count / (count.narrow(axis, -1, 1) + 1e-6), features)  # (B, N, h, w, features / 2)
        axes += [angles.sin(), angles.cos()]
    return torch.cat(axes, -1).movedim(-1, 2)


def _angles(turns: Tensor, features: int) -> Tensor:
    """Radians (*, features / 2) at which (*) turns are looked at."""
    turns = _wide(turns)
    index = torch.arange(features // 2, dtype=turns.dtype, device=turns.device)
    return (turns * (2 * math.pi))[..., None] / _TEMPERATURE ** (2 * index / features)


def _wide(x: Tensor) -> Tensor:
    """In float32, or float64 if it is that."""
    return x if x.dtype == torch.float64 else x.float()
