"""The gsplat backend of `ops.splat`: optional, and never imported where there is no GPU for it."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor


def why_not(device: torch.device, points: Tensor | None, limits: Tensor | None = None) -> str:
    """Why gsplat cannot compute this, "" if it can. Asks for the GPU first: below its surface gsplat fails to import without one."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return f"needs CUDA tensors, got {device}"
    if importlib.util.find_spec("gsplat") is None:
        return "needs the package gsplat: pip install gsplat packaging"
    if limits is not None:
        return "does not know `limits`"
    if points is not None and not bool(((points % 1 == 0.5) | points.isnan().any(-1, keepdim=True)).all()):
        return "renders whole images only, and positions that are no centres of pixels are asked for"
    return ""


def render(
    means: Tensor, scales: Tensor, quats: Tensor | None, opacities: Tensor, features: Tensor,
    views: Tensor, intrinsics: Tensor, points: Tensor, near: float, far: float, size: tuple[int, int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(N, P, C + 1) and (N, P) at centres of pixels, read from whole images. gsplat computes in float32."""
    from gsplat import rasterization

    dtype, (height, width) = means.dtype, size
    if quats is None:
        quats = torch.eye(4).to(means)[0].expand(len(means), 4)
    splats = [t.float() for t in (means, quats, scales, opacities, features, views, intrinsics)]
    images, alphas, _ = rasterization(*splats, width=width, height=height, near_plane=near, far_plane=far, render_mode="RGB+D", packed=True)
    u, v = points.unbind(-1)  # (N, P)
    inside = (u >= 0) & (u <= width) & (v >= 0) & (v <= height)  # not where it is NaN
    pixel = torch.where(inside, v.floor() * width + u.floor(), 0).long()
    out = images.flatten(1, 2).gather(1, pixel[..., None].expand(-1, -1, images.shape[-1]))
    alpha = alphas.flatten(1).gather(1, pixel)
    return torch.where(inside[..., None], out, 0).to(dtype), torch.where(inside, alpha, 0).to(dtype)
