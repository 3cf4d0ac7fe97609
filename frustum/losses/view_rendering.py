"""Losses of what is rendered at labelled points of images: depth, class, and where along a ray the light ends.

Published: the scale-invariant logarithm of expected depth (SILog; Eigen et al., 2014) and a cross-entropy of rendered logits, as RenderOcc
and GSRender have them. SILog says where light ends in the mean, and is content with half of it in front of the hit. `hit` instead asks for
the light that ends in a window about the hit (a generalised cross-entropy; Zhang and Sabuncu, 2018), and for none in front of it.

Shape letters: * any dimensions of points, K classes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor

from frustum.config import Config
from frustum.geometry.transforms import send, without_autocast
from frustum.ops.floored_log import floored_log
from frustum.types.classes import IGNORE

# Points per class in the training split of nuScenes-lidarseg, in the order of Occ3D's classes (RenderOcc's table).
RENDEROCC_FREQUENCIES: tuple[int, ...] = (
    1163161, 2309034, 188743, 2997643, 20317180, 852476, 243808, 2457947, 497017, 2731022, 7224789, 214411435, 5565043, 63191967,
    76098082, 128860031, 141625221,
)  # fmt: skip
_FAINT = 1e-7


class ViewLoss(Config):
    """Weights of the losses of rendered points; the default is RenderOcc's.

    Attributes:
        depth: `silog` as published, or `hit`.
        depth_weight, class_weight: of the two.
        focus: of SILog, how much of the mean of the logarithms' difference is forgiven.
        normalise: divide rendered logits by alpha before the cross-entropy.
        alpha_weight: of -log alpha at points, which `silog` of an expected depth that is not normalised asks for only weakly.
        window, flat_window: metres of depth to either side of a point that `hit` takes for the hit; of points of flat classes, which rays
            reach at a flat angle.
        window_share: these are at least this share of the depth: the farther a point is, the less sure of it an image can be.
        power: of `hit`: 1 is the light that misses the window, towards 0 it becomes -log of what does not.
        free_weight: of `hit`, of -log of the light that gets through to the window.
        sparsity: weight of the mean opacity of all voxels.
        moving_weight: factor on points of moving classes in adjacent keyframes, which may be elsewhere by then.
    """

    depth: Literal["silog", "hit"] = "silog"
    depth_weight: NonNegativeFloat = 1.0
    class_weight: NonNegativeFloat = 1.0
    focus: float = Field(0.85, ge=0, le=1)
    normalise: bool = False
    alpha_weight: NonNegativeFloat = 0.0
    window: PositiveFloat = 0.4
    flat_window: PositiveFloat = 1.0
    window_share: NonNegativeFloat = 0.0
    power: float = Field(0.4, gt=0, le=1)
    free_weight: NonNegativeFloat = 0.0
    sparsity: NonNegativeFloat = 0.0
    moving_weight: NonNegativeFloat = 1.0

    @model_validator(mode="after")
    def _is_used(self) -> ViewLoss:
        if self.free_weight and self.depth != "hit":
            raise ValueError(
                "free_weight asks for light in front of a point, which depth=hit alone looks at: set depth=hit or free_weight=0"
            )
        of_hit = ("window", "flat_window", "window_share", "power")
        changed = [name for name in of_hit if getattr(self, name) != type(self).model_fields[name].default]
        if self.depth != "hit" and changed:
            raise ValueError(f"depth={self.depth} has no {' and no '.join(changed)}: set depth=hit, or these to their defaults first")
        return self


class Points(NamedTuple):
    """Labelled points, and what is rendered there.

    Attributes:
        depth: (*) true metres, 0 for padding.
        classes: (*) uint8 ids, IGNORE where unknown.
        is_inside: (*) bool, whether the point lies where something can be rendered; else only free space is learned from it.
        weight: (*) of each in all losses.
        logits: (*, K) sum of weights times logits.
        rendered_depth: (*) sum of weights times metres.
        alpha: (*)
        before: (*, 2) light that ends before the window and before its end; (*, 0) if that is not asked for.
    """

    depth: Tensor
    classes: Tensor
    is_inside: Tensor
    weight: Tensor
    logits: Tensor
    rendered_depth: Tensor
    alpha: Tensor
    before: Tensor


def silog(rendered: Tensor, depth: Tensor, counts: Tensor, focus: float = 0.85) -> Tensor:
    """sqrt(mean(d^2) - focus * mean(d)^2) with d = log(rendered + 1e-7) - log(depth), over points (*) where `counts` (*) is above 0.

    With weights other than 0 and 1, means are weighted.
    """
    weight = counts / counts.sum().clamp(min=_FAINT)
    d = torch.where(counts > 0, (rendered.float() + _FAINT).clamp(min=_FAINT).log() - depth.clamp(min=_FAINT).log(), 0)
    mean, squares = (weight * d).sum(), (weight * d * d).sum()
    root = (squares - focus * mean * mean).clamp(min=1e-12).sqrt()  # at 0 the root has no gradient
    return torch.where(counts.sum() > 0, root, 0)


def view_losses(
    points: Points, settings: ViewLoss, class_weight: Tensor | None = None, depth_weight: Tensor | None = None, prefix: str = ""
) -> dict[str, Tensor]:
    """`depth`, and where they have a weight `class`, `alpha` and `free`, weighted; 0 where no point counts.

    Args:
        points: what is rendered.
        settings: weights.
        class_weight: (K,) of classes in the cross-entropy; None for 1.
        depth_weight: (K,) of points of each class in the others; points without a known class weigh 1.
        prefix: in front of the names.
    """
    with without_autocast(points.logits):
        losses = _losses(points._replace(logits=points.logits.float()), settings, class_weight, depth_weight)
    return {f"{prefix}{name}": value for name, value in losses.items()}


def _losses(points: Points, settings: ViewLoss, class_weight: Tensor | None, depth_weight: Tensor | None) -> dict[str, Tensor]:
    is_known = points.classes != IGNORE
    ids = points.classes.long().masked_fill(~is_known, 0)
    of_class = torch.ones_like(points.depth) if depth_weight is None else torch.where(is_known, send(depth_weight, ids.device)[ids], 1)
    counts = points.weight * of_class * (points.depth > 0)
    hits = counts * points.is_inside

    def mean(values: Tensor, over: Tensor) -> Tensor:
        return (values * over).sum() / over.sum().clamp(min=_FAINT)

    losses = {}
    if settings.depth == "silog":
        losses["depth"] = settings.depth_weight * silog(points.rendered_depth, points.depth, hits, settings.focus)
    else:
        start, end = points.before.unbind(-1)
        hit = (end - start).clamp(min=0)
        losses["depth"] = settings.depth_weight * mean(_missed(hit, settings.power), hits)
        if settings.free_weight:
            losses["free"] = settings.free_weight * mean(-floored_log(1 - start, 1e-3), counts)
    if settings.alpha_weight:
        losses["alpha"] = settings.alpha_weight * mean(-floored_log(points.alpha, 1e-3), hits)
    if settings.class_weight:
        logits = points.logits
        if settings.normalise:
            logits = logits / points.alpha[..., None].clamp(min=1e-3)
        each = F.cross_entropy(logits.movedim(-1, 1), ids, reduction="none")
        rows = points.weight * (hits > 0) * is_known
        rows = rows if class_weight is None else rows * send(class_weight, ids.device)[ids]
        losses["class"] = settings.class_weight * mean(each, rows)
    return losses


def _missed(hit: Tensor, power: float) -> Tensor:
    """(1 - hit ** power) / power; below 1e-3 a straight line, so that a ray that sees nothing learns, too."""
    least = 1e-3
    line = least**power + power * least ** (power - 1) * (hit - least)
    return (1 - torch.where(hit > least, hit.clamp(min=least) ** power, line)) / power


def renderocc_class_weights() -> Tensor:
    """RenderOcc's class weights (17,), float32: 1 / ln(frequency + 0.001)."""
    return 1 / torch.log(torch.tensor(RENDEROCC_FREQUENCIES, dtype=torch.float64) + 0.001).float()


def ray_entropy(alpha: Tensor) -> Tensor:
    """RenderOcc's: whether rays (R,) end or do not, mean of the binary entropy of what is left of the light."""
    left = (1 - alpha).clamp(1e-6, 1 - 1e-6)
    return -(left * left.log() + (1 - left) * (1 - left).log()).mean()


def distortion(weights: Tensor, s: Tensor, rays: Tensor, count: int, interval: float) -> Tensor:
    """Mip-NeRF 360's distortion loss (Barron et al., 2022) of samples (n,), as RenderOcc computes it; mean over `count` rays.

    Args:
        weights: (n,)
        s: (n,) places of the samples, ascending along each ray.
        rays: (n,) int64 the ray of each sample, ascending.
        count: rays.
        interval: length of a sample in units of s.
    """
    first = torch.searchsorted(rays, torch.arange(count, device=rays.device))
    starts = first[rays]
    wide = weights.dtype if weights.device.type == "mps" else torch.float64
    totals, moments = (torch.cat([x.new_zeros(1), x.cumsum(0)]) for x in (weights.to(wide), (weights * s).to(wide)))
    index = torch.arange(len(weights), device=weights.device)
    before, moment = totals[index] - totals[starts], moments[index] - moments[starts]  # of the samples in front on the same ray
    pairs = 2 * weights * (s * before - moment)
    return ((pairs + interval / 3 * weights * weights).sum() / max(1, count)).to(weights)
