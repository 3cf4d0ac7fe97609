"""Voxels as 3D Gaussians (GSRender; Sun et al., 2024): numbers of each voxel to a Gaussian, and Gaussians back to voxels.

The head of GSRender gives 7 + K numbers a voxel: shifts of mean (3) and scale (3), opacity, logits of K classes. There is no logit of free
space: a voxel is empty where its opacity is low. Nothing is rotated. The paper does not print activations; ours are settings
(docs/methods/gsrender.md gives their reasons).

Shape letters: B batch, X Y Z voxels, G = X * Y * Z Gaussians, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from frustum.config import Config
from frustum.geometry import VoxelGrid
from frustum.geometry.transforms import send
from frustum.ops.splat_torch import MIN_ALPHA

NUMBERS = 7
"""Of a voxel, in front of its logits."""
_OPACITY = 6
_LEAST, _MOST = 0.125, 1.5  # cells, of a scale that is shifted: 0.05 and 0.6 m of Occ3D's


class GaussianHead(Config):
    """How numbers become Gaussians.

    Attributes:
        scale: standard deviation of a Gaussian in cells, before shifts; 0.43 showed the least error of depth against exact voxels.
        scale_shift: the largest share of it that a predicted shift adds or takes, 0 for no shifts. Not below an eighth of a cell,
            not above one and a half.
        mean_shift: how far a centre moves from the middle of its cell at most, in cells; 0 for no shifts.
        opacity_bias: added to the opacity before the sigmoid: at the start all opacities are about its sigmoid. Above -4, near Gaussians
            hide all others; below -5.5 all are below 1/255, which is not rendered and gets no gradient.
        most: Gaussians of a sample that are rendered at most, the most opaque ones; 0 for all.
    """

    scale: PositiveFloat = 0.43
    scale_shift: float = Field(0.5, ge=0, lt=1)
    mean_shift: float = Field(0.5, ge=0, le=1)
    opacity_bias: float = Field(-4.0, gt=-5.54, le=4)
    most: int = Field(0, ge=0)


class Gaussians(NamedTuple):
    """Gaussians of B samples, in the ego frame of their grid, axes along it.

    Attributes:
        means: (B, G, 3) metres.
        scales: (B, G, 3) metres.
        opacities: (B, G) 0..1.
        logits: (B, G, K).
    """

    means: Tensor
    scales: Tensor
    opacities: Tensor
    logits: Tensor


def to_gaussians(numbers: Tensor, grid: VoxelGrid, head: GaussianHead, is_valid: Tensor | None = None) -> Gaussians:
    """Gaussians of all voxels.

    Args:
        numbers: (B, X, Y, Z, 7 + K), float32.
        grid: where the voxels lie.
        head: settings.
        is_valid: (B, X, Y, Z) bool; others get opacity 0.
    """
    flat, centres = numbers.flatten(1, 3), grid.centres(numbers.dtype, numbers.device).flatten(0, 2)
    found = _decode(flat, centres.expand(len(flat), -1, -1), grid, head)
    return found if is_valid is None else found._replace(opacities=found.opacities * is_valid.flatten(1))


def rendered_gaussians(numbers: Tensor, grid: VoxelGrid, head: GaussianHead, is_valid: Tensor | None = None) -> tuple[Gaussians, Tensor]:
    """What is rendered of `to_gaussians`, in its order: those of opacity 1/255 and more, of these at most `head.most`.

    A network in training makes most voxels fainter than that: what they are not decoded for is time.

    Args:
        numbers: as for `to_gaussians`, in any floating-point type.
        grid, head, is_valid: as for `to_gaussians`.

    Returns:
        The Gaussians (M of each sample; opacity 0 where a sample has fewer), and the opacities of all voxels (B, G).
    """
    flat = numbers.flatten(1, 3)
    with torch.no_grad():
        opaque = _opacities(flat[..., _OPACITY].float(), head)
        opaque = opaque if is_valid is None else opaque * is_valid.flatten(1)
        rows = [(row >= MIN_ALPHA).nonzero()[:, 0] for row in opaque]
        if head.most:
            rows = [i if len(i) <= head.most else i[o[i].topk(head.most).indices.sort().values] for i, o in zip(rows, opaque, strict=True)]
    index = pad_sequence(rows, batch_first=True)  # (B, M)
    picked, opacity = _Pick.apply(flat, index, *rows)
    found = _decode(picked.float(), grid.centres(torch.float32, flat.device).flatten(0, 2)[index], grid, head)
    counts = send(torch.tensor([len(row) for row in rows]), flat.device)
    is_row = torch.arange(index.shape[1], device=flat.device) < counts[:, None]
    opacities = _opacities(opacity.float(), head)
    opacities = opacities if is_valid is None else opacities * is_valid.flatten(1)
    return found._replace(opacities=found.opacities * is_row), opacities


def _decode(flat: Tensor, centres: Tensor, grid: VoxelGrid, head: GaussianHead) -> Gaussians:
    """Gaussians of numbers (B, G, 7 + K) of voxels with these centres (B, G, 3)."""
    shift, stretch, opacity, logits = flat.split([3, 3, 1, flat.shape[-1] - NUMBERS], -1)  # one gradient, not one for each slice
    cell = send(torch.tensor(grid.cell), flat.device, flat.dtype)
    means = centres
    if head.mean_shift:
        means = means + head.mean_shift * cell * shift.tanh()
    scales = (head.scale * cell).expand_as(means)
    if head.scale_shift:
        scales = torch.minimum(torch.maximum(scales * (1 + head.scale_shift * stretch.tanh()), _LEAST * cell), _MOST * cell)
    return Gaussians(means, scales, _opacities(opacity[..., 0], head), logits)


def _opacities(opacity: Tensor, head: GaussianHead) -> Tensor:
    return (opacity + head.opacity_bias).sigmoid()


class _Pick(torch.autograd.Function):
    """Some rows of numbers (B, G, C) and one column of all of them; one gradient, written where it is not 0."""

    @staticmethod
    def forward(ctx, flat, index, *rows):
        ctx.rows, ctx.shape = rows, flat.shape
        return torch.stack([numbers[i] for numbers, i in zip(flat, index, strict=True)]), flat[..., _OPACITY].clone()

    @staticmethod
    def backward(ctx, grad_picked, grad_column):
        grad = grad_picked.new_zeros(ctx.shape)
        for out, picked, row in zip(grad, grad_picked, ctx.rows, strict=True):
            out[row] = picked[: len(row)]
        grad[..., _OPACITY] += grad_column
        return grad, None, *(None for _ in ctx.rows)


def most_opaque(found: Gaussians, most: int) -> Gaussians:
    """The `most` most opaque Gaussians of each sample, in their order; all for 0."""
    if not most or most >= found.opacities.shape[1]:
        return found
    index = found.opacities.detach().topk(most, dim=1, sorted=False).indices.sort(dim=1).values
    return Gaussians(*(t.gather(1, index if t.dim() == 2 else index[..., None].expand(-1, -1, t.shape[2])) for t in found))


def splat_to_voxels(found: Gaussians, grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """What Gaussians of all voxels of a grid add up to at the centres of the voxels.

    A Gaussian counts in its own cell and in the 26 around it.

    Returns:
        Opacity (B, X, Y, Z), at most 1: that of the sum of optical thickness. Logits (B, X, Y, Z, K), a mean weighted by thickness.
    """
    cell = send(torch.tensor(grid.cell), found.means.device, found.means.dtype)
    offset = ((found.means - grid.centres(found.means.dtype, found.means.device).flatten(0, 2)) / cell).unflatten(1, grid.shape)
    spread = (found.scales / cell).unflatten(1, grid.shape)
    thickness = -torch.log1p(-found.opacities.clamp(max=1 - 1e-6)).unflatten(1, grid.shape)
    logits = found.logits.unflatten(1, grid.shape)
    total, sums = torch.zeros_like(thickness), torch.zeros_like(logits)
    for step in torch.cartesian_prod(*[torch.tensor([-1, 0, 1])] * 3).tolist():
        distance = (send(torch.tensor(step), offset.device, offset.dtype) - offset) / spread
        share = thickness * torch.exp(-0.5 * (distance * distance).sum(-1))
        here, there = ((slice(None), *cells) for cells in zip(*map(_overlap, grid.shape, step), strict=True))
        total[there] += share[here]
        sums[there] += share[here][..., None] * logits[here]
    return -torch.expm1(-total), sums / total.clamp(min=1e-9)[..., None]


def _overlap(count: int, step: int) -> tuple[slice, slice]:
    """Cells that have a neighbour at `step`, and these neighbours."""
    return slice(max(0, -step), count - max(0, step)), slice(max(0, step), count + min(0, step))
