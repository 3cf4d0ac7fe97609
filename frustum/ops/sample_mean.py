"""Mean over cameras of the image features at the places where voxels project to: what lifting by sampling computes.

    out[voxel] = sum over the cameras that see it of features[camera, place] / their number        (bilinear)

Which camera sees which voxel, and where, depends on calibration alone: a `SamplePlan` holds it. Written out over all cameras and voxels,
with its mask and its count for every channel, this takes gigabytes (SimpleBEV: 6 x 128 x 320,000 numbers, four times). Backends: `torch`,
the readable reference, one camera at a time on any device, and `numba` on the CPU, voxel by voxel. With numba a result has the same bits
for any number of threads.

Shape letters: B batch, N cameras, M = B * N images, C channels, h w feature map, V voxels, P pairs of a camera and a voxel that it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.geometry.transforms import without_autocast
from frustum.ops import bev_pool_numba, sample_mean_numba

SampleBackend = Literal["auto", "torch", "numba"]
_PART = 32  # channels of an image that one thread adds gradients to


@dataclass(frozen=True)
class SamplePlan:
    """What each camera sees of the voxels.

    Attributes:
        voxels: (P,) int64 `b * V + voxel`, those of the first image first; an image has a voxel once.
        places: (P, 2) float32 where in the feature map, x and y as `grid_sample` takes them without aligned corners: -1 and 1 are the
            borders of the map.
        seen: for each of the M images how many of the P are its.
        batch: B.
        cells: V.
    """

    voxels: Tensor
    places: Tensor
    seen: tuple[int, ...]
    batch: int
    cells: int

    @classmethod
    def create(cls, voxels: Sequence[Tensor], places: Sequence[Tensor], batch: int, cells: int) -> SamplePlan:
        """From what each of the M images sees, on the device that needs it.

        Args:
            voxels: (P of the image,) int64 voxels, from 0 to V - 1.
            places: (P of the image, 2), see the class.
            batch: B, which M is a multiple of.
            cells: V.

        Raises:
            ShapeError: there are no images, or more cameras or voxels than the kernels can count.
        """
        if not voxels or len(voxels) != len(places) or len(voxels) % batch or len(voxels) > 255 * batch or batch * cells >= 2**31:
            raise ShapeError(
                "a plan needs the voxels and places of B * N images, at most 255 cameras and less than 2^31 voxels, got those of "
                f"{len(voxels)} and {len(places)} images for B = {batch} and {batch * cells} voxels."
            )
        cameras = len(voxels) // batch
        numbered = torch.cat([cells * (m // cameras) + at for m, at in enumerate(voxels)])
        return cls(numbered, torch.cat(list(places)).float(), tuple(map(len, voxels)), batch, cells)

    @cached_property
    def images(self) -> Tensor:
        """(P,) int32 image of each pair, on the CPU."""
        return torch.arange(len(self.seen), dtype=torch.int32).repeat_interleave(torch.tensor(self.seen))

    @cached_property
    def by_voxel(self) -> tuple[np.ndarray, np.ndarray]:
        """For the kernels, the pairs sorted by voxel, then image: `order` (P,), and where each voxel starts in it (B * V + 1,)."""
        cells = self.voxels.int().numpy()
        order, _, _ = bev_pool_numba.sort_by_cell(cells, self.batch * self.cells)
        return order, np.append(0, np.bincount(cells, minlength=self.batch * self.cells).cumsum())


def sample_mean(features: Tensor, plan: SamplePlan, by_channel: bool = False, backend: SampleBackend = "auto") -> Tensor:
    """Mean of the features that cameras see at each voxel.

    Args:
        features: (M, C, h, w) of the plan's images.
        plan: who sees what.
        by_channel: as SimpleBEV was published: features beyond the border are zero, and a camera counts for a channel where its feature
            is not zero; the sum is divided by 1e-6 more than the count. Otherwise places beyond the border are moved to it, and each
            camera that sees the voxel counts.
        backend: `auto` takes numba on the CPU and torch elsewhere. Gradients flow to the features in both; counts have none.

    Returns:
        (B, C, V), zero at voxels that no camera sees. Half-precision features are added up, and returned, in float32.

    Raises:
        ShapeError: features and plan do not fit together. ConfigError: unknown backend, or numba for tensors that are not on the CPU.
    """
    if features.dim() != 4 or len(features) != len(plan.seen):
        raise ShapeError(f"features must have shape (M, C, h, w) with the plan's {len(plan.seen)} images, got {tuple(features.shape)}.")
    on_cpu = features.device.type == "cpu"
    if backend not in ("auto", "torch", "numba") or (backend == "numba" and not on_cpu):
        raise ConfigError(f"sample_mean has backends auto, torch and (on the CPU) numba, got {backend!r} for {features.device}.")
    with without_autocast(features):
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        if backend == "torch" or not on_cpu or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
            return _torch(features, plan, by_channel)
        return _numba(features, plan, by_channel)


def _torch(features: Tensor, plan: SamplePlan, by_channel: bool) -> Tensor:
    """The reference, one camera at a time."""
    channels, rows = features.shape[1], plan.batch * plan.cells
    total, count = features.new_zeros(channels, rows), features.new_zeros(channels if by_channel else 1, rows)
    padding = "zeros" if by_channel else "border"
    for m, (voxels, places) in enumerate(zip(plan.voxels.split(plan.seen), plan.places.split(plan.seen), strict=True)):
        grid = places.to(features.dtype)[None, None]
        found = F.grid_sample(features[m : m + 1], grid, padding_mode=padding, align_corners=False)[0, :, 0]  # (C, P of the image)
        total.index_add_(1, voxels, found)
        counted = (found.detach() != 0).to(found.dtype) if by_channel else found.new_ones(1, len(voxels))
        count.index_add_(1, voxels, counted)
    mean = total / (1e-6 + count if by_channel else count.clamp(min=1))
    return mean.unflatten(1, (plan.batch, plan.cells)).transpose(0, 1)


@torch.compiler.disable
def _numba(features: Tensor, plan: SamplePlan, by_channel: bool) -> Tensor:
    return _SampleMean.apply(features, plan, by_channel)


class _SampleMean(torch.autograd.Function):
    """Only counts are kept for the gradients."""

    @staticmethod
    def forward(ctx, features: Tensor, plan: SamplePlan, by_channel: bool) -> Tensor:
        rows = features.detach().permute(0, 2, 3, 1).contiguous()
        channels = rows.shape[3]
        out = rows.new_empty(plan.batch, channels, plan.cells)
        counts = torch.zeros(plan.batch * plan.cells, channels if by_channel else 1, dtype=torch.uint8)
        places, images = plan.places.numpy(), plan.images.numpy()
        sample_mean_numba.forward(rows.numpy(), places, images, *plan.by_voxel, not by_channel, by_channel, counts.numpy(), out.numpy())
        ctx.counts, ctx.plan, ctx.by_channel, ctx.shape = counts, plan, by_channel, rows.shape
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        plan = ctx.plan
        grad_rows, parts = grad.new_zeros(ctx.shape), max(1, ctx.shape[3] // _PART)
        firsts = torch.tensor((0, *plan.seen)).cumsum(0)
        arrays = (t.numpy() for t in (grad.contiguous(), plan.places, plan.voxels, firsts))
        sample_mean_numba.backward(*arrays, not ctx.by_channel, ctx.by_channel, ctx.counts.numpy(), parts, grad_rows.numpy())
        return grad_rows.permute(0, 3, 1, 2), None, None
