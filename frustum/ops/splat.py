"""Splatting: the image of 3D Gaussians in cameras, with gradients (Kerbl et al., 2023), for features of any number of channels.

    out[pixel] = sum over Gaussians i, nearest first, of T_i * alpha_i * features_i        T_i = product over j < i of (1 - alpha_j)
    alpha_i = min(0.999, opacity_i * exp(-distance_i ** 2 / 2))        distance in units of the Gaussian's image, widened by 0.3 pixels ** 2

Rules and numbers are those of gsplat 1.5: an alpha below 1/255 counts as 0, and a ray ends before the Gaussian that would bring T to
1e-4 or less. Nothing is divided by alpha, and there is no background. Backends: `torch` (the readable reference, any device), `numba`
(CPU; the same bits for any number of threads) and `gsplat` (GPU, where it is installed; it adds in any order).

Shape letters: * leading dimensions, G Gaussians, N cameras, C channels, P positions, H W image.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from frustum.errors import ConfigError, DataError, FrustumWarning, ShapeError
from frustum.geometry.transforms import send, without_autocast
from frustum.ops import splat_cpu, splat_gsplat, splat_torch

SplatBackend = Literal["auto", "torch", "numba", "gsplat"]
_MANY = 20_000  # Gaussians, from which on the reference is a bad choice


class Splats(NamedTuple):
    """What cameras see; with positions, (P) stands for (H, W).

    Attributes:
        features: (*, N, H, W, C) sum of weights times features.
        depth: (*, N, H, W) sum of weights times depth along the camera's axis, metres; divide by alpha for a mean.
        alpha: (*, N, H, W) sum of weights, 0..1.
        before: (*, N, P, K) sum of weights of the Gaussians nearer than each of the K limits; K = 0 without limits.
    """

    features: Tensor
    depth: Tensor
    alpha: Tensor
    before: Tensor


def rasterize(
    means: Tensor, scales: Tensor, opacities: Tensor, features: Tensor, viewmats: Tensor, intrinsics: Tensor,
    size: tuple[int, int], points: Tensor | None = None, *, quats: Tensor | None = None,
    near: float = 0.1, far: float = 1e10, limits: Tensor | None = None, backend: SplatBackend = "auto",
) -> Splats:  # fmt: skip
    """Render Gaussians into cameras: whole images, or only what is seen at some positions.

    Args:
        means: (*, G, 3) centres, metres.
        scales: (*, G, 3) standard deviations along the Gaussian's axes, metres.
        opacities: (*, G) 0..1; a Gaussian below 1/255 is not seen and gets no gradient.
        features: (*, G, C). They are not checked: one that is not finite spoils what is seen near it.
        viewmats: (*, N, 4, 4) from the frame of the means to the camera (x right, y down, z forward): ego2cam, not cam2ego.
        intrinsics: (*, N, 3, 3) in pixels of the image that is rendered; no skew.
        size: (H, W) of the image.
        points: (*, N, P, 2) places u, v in pixels, where pixel (row i, column j) has its centre at (j + 0.5, i + 0.5): there the result is
            that of the whole image. A place outside the image, or NaN, sees nothing: pad with it.
        quats: (*, G, 4) rotations of the Gaussians (w, x, y, z), of any length but 0; None for axes along those of the frame.
        near, far: metres; a Gaussian is seen if the depth of its centre lies between.
        limits: (*, N, P, K) depths at each of the `points`, metres: how much of the light ends before them (not by gsplat).
        backend: `auto` takes numba on the CPU, gsplat with CUDA where it is installed (of positions it needs centres of pixels, else torch
            is taken), torch elsewhere. Gradients flow to means, scales, opacities, features and quats, not to cameras and points.

    Returns:
        Splats, in float32, or float64 if Gaussians are.

    Raises:
        ShapeError: shapes do not fit together.
        DataError: numbers that are not finite (but of features), a skew, a quaternion of length 0, no space between near and far.
        ConfigError: a backend that cannot compute here.
    """
    _check_shapes(means, scales, opacities, features, viewmats, intrinsics, size, points, quats, limits)
    lead, device = means.shape[:-2], means.device
    chosen = _backend(backend, device, points, limits)
    _check_numbers(means, scales, opacities, viewmats, intrinsics, quats)
    if not 0 <= near < far:  # not if one is NaN
        raise DataError(f"a Gaussian is seen between near and far, 0 <= near < far; got {near:g} and {far:g} metres.")
    if backend == "auto" and chosen == "torch" and means.shape[-2] > _MANY:
        text = f"rasterize takes plain torch for {means.shape[-2]:,} Gaussians on {device}, which is slow; gsplat would be faster, but"
        warnings.warn(FrustumWarning(f"{text} {splat_gsplat.why_not(device, points, limits)}."), stacklevel=2)
    dtype = torch.float32
    for tensor in (means, scales, opacities, features, means if quats is None else quats):
        dtype = torch.promote_types(dtype, tensor.dtype)
    if quats is not None:  # squares of tiny ones would be 0
        quats = quats.to(dtype) / quats.detach().abs().amax(-1, keepdim=True).to(dtype)
    shown = tuple(size) if points is None else tuple(points.shape[-2:-1])
    if points is None:
        points = _centres(size).expand(*viewmats.shape[:-2], -1, -1)
    limits = points[..., :0] if limits is None else limits

    def batches(tensor: Tensor | None) -> list[Any]:
        """An entry for each of the leading dimensions."""
        count = math.prod(lead)
        return [None] * count if tensor is None else list(send(tensor, device, dtype).reshape(count, *tensor.shape[len(lead) :]))

    with without_autocast(means):
        cameras = viewmats.detach(), intrinsics.detach(), points.detach(), limits.detach()
        tensors = map(batches, (means, scales, quats, opacities, features, *cameras))
        found = [_render(chosen, float(near), float(far), size, *entry) for entry in zip(*tensors, strict=True)]
    depth, channels = features.shape[-1], features.shape[-1] + 1 + limits.shape[-1]
    out, alpha = (torch.stack(parts) for parts in zip(*found, strict=True)) if found else [means.new_zeros(0, dtype=dtype)] * 2
    out = out.reshape(*viewmats.shape[:-2], *shown, channels)
    return Splats(out[..., :depth], out[..., depth], alpha.reshape(*viewmats.shape[:-2], *shown), out[..., depth + 1 :])


def _render(
    backend: str, near: float, far: float, size: tuple[int, int], means: Tensor, scales: Tensor, quats: Tensor | None,
    opacities: Tensor, features: Tensor, views: Tensor, intrinsics: Tensor, points: Tensor, limits: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Without leading dimensions: (N, P, C + 1 + K), depth behind the features, and (N, P)."""
    if backend == "torch":
        splats = means, scales, quats, opacities, features
        cameras = zip(views, intrinsics, points, limits, strict=True)
        seen = [splat_torch.render(*splats, *camera, near, far, size) for camera in cameras]
        out, alpha = zip(*seen, strict=True)
        return torch.stack(out), torch.stack(alpha)
    if backend == "numba":
        return splat_cpu.render(means, scales, quats, opacities, features, views, intrinsics, points, limits, near, far, size)
    return splat_gsplat.render(means, scales, quats, opacities, features, views, intrinsics, points, near, far, size)


def _centres(size: tuple[int, int]) -> Tensor:
    """Centres of all pixels (H * W, 2), row by row."""
    v, u = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) + 0.5 for n in size), indexing="ij")
    return torch.stack([u, v], -1).flatten(0, 1)


_AUTO = "use backend='auto' (in a recipe, splatting=auto)."


def _backend(backend: SplatBackend, device: torch.device, points: Tensor | None, limits: Tensor | None) -> str:
    if backend not in ("auto", "torch", "numba", "gsplat"):
        raise ConfigError(f"unknown backend {backend!r} of rasterize; choose auto, torch, numba or gsplat.")
    if backend == "numba" and device.type != "cpu":
        raise ConfigError(f"the numba backend of rasterize needs CPU tensors, got {device}; {_AUTO}")
    if backend == "gsplat" and (reason := splat_gsplat.why_not(device, points, limits)):
        raise ConfigError(f"the gsplat backend of rasterize {reason}; {_AUTO}")
    if backend != "auto":
        return backend
    if device.type == "cpu":
        return "numba"
    return "torch" if splat_gsplat.why_not(device, points, limits) else "gsplat"


def _check_shapes(
    means: Tensor, scales: Tensor, opacities: Tensor, features: Tensor, viewmats: Tensor, intrinsics: Tensor,
    size: tuple[int, int], points: Tensor | None, quats: Tensor | None, limits: Tensor | None,
) -> None:  # fmt: skip
    if means.dim() < 2 or viewmats.dim() < 3 or features.dim() < 2:
        given = f"{tuple(means.shape)}, {tuple(viewmats.shape)} and {tuple(features.shape)}"
        raise ShapeError(f"rasterize needs means (*, G, 3), viewmats (*, N, 4, 4) and features (*, G, C), got {given}.")
    lead, count, cameras = tuple(means.shape[:-2]), means.shape[-2], viewmats.shape[-3]
    if limits is not None and points is None:
        raise ShapeError(f"limits {tuple(limits.shape)} are depths (*, N, P, K) at points (*, N, P, 2); give points, too.")
    places: int | str = points.shape[-2] if points is not None and points.dim() > 1 else "P"
    needed = [
        ("means", means, (*lead, count, 3)),
        ("scales", scales, (*lead, count, 3)),
        ("opacities", opacities, (*lead, count)),
        ("features", features, (*lead, count, features.shape[-1])),
        ("quats", quats, (*lead, count, 4)),
        ("viewmats", viewmats, (*lead, cameras, 4, 4)),
        ("intrinsics", intrinsics, (*lead, cameras, 3, 3)),
        ("points", points, (*lead, cameras, places, 2)),
        ("limits", limits, (*lead, cameras, places, limits.shape[-1] if limits is not None and limits.dim() else "K")),
    ]
    for name, tensor, shape in needed:
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ShapeError(f"{name} must have shape {shape} for means {tuple(means.shape)}, got {tuple(tensor.shape)}.")
    if len(size) != 2 or min(size) < 1:
        raise ShapeError(f"an image needs size (H, W) of at least one pixel, got {tuple(size)}.")
    if not cameras:
        raise ShapeError(f"rasterize needs at least one camera, got viewmats {tuple(viewmats.shape)}.")


def _check_numbers(means: Tensor, scales: Tensor, opacities: Tensor, viewmats: Tensor, intrinsics: Tensor, quats: Tensor | None) -> None:
    given = {"means": means, "scales": scales, "opacities": opacities, "viewmats": viewmats, "intrinsics": intrinsics, "quats": quats}
    for name, tensor in given.items():
        if tensor is None or tensor.detach().sum().isfinite():  # one pass without a copy for what is almost always true
            continue
        if bad := int((~tensor.isfinite()).sum()):
            raise DataError(f"{name} of rasterize has {bad} number(s) that are not finite.")
    if quats is not None and not quats.any(-1).all():
        raise DataError(f"rasterize got {int((~quats.any(-1)).sum())} quaternion(s) of length 0, which say no rotation.")
    if intrinsics[..., 0, 1].any() or intrinsics[..., 1, 0].any() or not (intrinsics.diagonal(dim1=-2, dim2=-1)[..., :2] > 0).all():
        raise DataError("rasterize needs intrinsics with focal lengths above 0 and without skew; fold no rotation of the image into them.")
