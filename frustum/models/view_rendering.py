"""Renders what a network says of voxels at the labelled points of images: by splatting Gaussians, by exact traversal, or by marching.

All views of a sample are rendered from one field, in the ego frame of the keyframe; or, with Ray Compensation as GSRender has it, from the
field resampled into the ego frame of an adjacent keyframe.

Shape letters: B batch, V views, N cameras, P points, X Y Z voxels, K classes, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor, nn

from frustum.config import TAUGHT, Config
from frustum.data.labels.view_points import Views
from frustum.data.labels.views import ViewLabels, ViewTruth
from frustum.geometry import VoxelGrid
from frustum.geometry.transforms import send, without_autocast
from frustum.losses.view_rendering import Points, ViewLoss, renderocc_class_weights, view_losses
from frustum.nn.gaussians import Gaussians
from frustum.ops.splat import SplatBackend, rasterize
from frustum.ops.splat_gsplat import why_not
from frustum.ops.voxel_render import RayColours, voxel_render
from frustum.types.batch import Batch
from frustum.types.classes import FLAT_CLASSES, IGNORE
from frustum.types.contract import Memory
from frustum.types.predictions import PredictedOccupancy, PredictedViews
from frustum.types.tensors import moved

_NEAR = 0.5  # metres: a Gaussian closer to a camera would cover its whole image

NEVER_DRAWN = (
    "with views.moving_weight=0 points of moving classes in adjacent keyframes are never drawn, so that their weight in the loss says "
    "nothing: set model.views.moving_weight=1 beside model.loss.moving_weight={weight:g}"
)

Limits = Tensor
"""(B, V, N, P, 2) depths, metres: where the window about a point begins and ends."""


class Rendered(NamedTuple):
    """What is seen at labelled points.

    Attributes:
        logits: (B, V, N, P, K) sum of weights times logits.
        depth: (B, V, N, P) sum of weights times depth along the optical axis, metres.
        alpha: (B, V, N, P)
        before: (B, V, N, P, 2) light that ends before the limits, or (B, V, N, P, 0) without them.
    """

    logits: Tensor
    depth: Tensor
    alpha: Tensor
    before: Tensor


class ClassWeights(Config):
    """How much points of each class weigh.

    Attributes:
        table: `renderocc` weighs classes in the cross-entropy by RenderOcc's table; `counted` by `power` and the training labels.
        power: classes weigh (frequency / mean frequency) ** -power in the cross-entropy, with `counted`.
        depth_power: the same in the losses of depth, with any table.
    """

    table: Literal["renderocc", "counted"] = "renderocc"
    power: NonNegativeFloat = 0.5
    depth_power: NonNegativeFloat = 0.0


class PointWeights(nn.Module):
    """`ClassWeights` as buffers: `of_class` (K,) in the cross-entropy, `of_depth` (K,) in the other losses."""

    def __init__(self, config: ClassWeights, num_classes: int):
        super().__init__()
        self.config = config
        is_published = config.table == "renderocc" and num_classes == len(renderocc_class_weights())
        self.of_class = nn.Buffer(renderocc_class_weights() if is_published else torch.ones(num_classes))
        self.of_depth = nn.Buffer(torch.ones(num_classes))

    def prepare(self, statistics: Mapping[type[Any], Mapping[str, np.ndarray]]) -> None:
        """Take the frequencies of the classes from the labels, where they are asked for."""
        counts = torch.as_tensor(statistics[ViewLabels]["counts"], dtype=torch.float64)
        if not counts.any():  # depth alone
            return
        relative = (counts / counts.mean()).clamp(min=1e-3)
        if self.config.table == "counted":
            self.of_class.copy_((relative**-self.config.power).float())
        self.of_depth.copy_((relative**-self.config.depth_power).float())


class RenderLoss(Config):
    """What an occupancy network learns from 2D labels beside its 3D labels, or where there are none of these.

    Attributes:
        weight: of all losses of rendered points; without any, `render` is null.
        views: which 2D labels.
        loss: weights among them.
    """

    weight: PositiveFloat = 1.0
    views: Annotated[Views, TAUGHT] = Views(points=4000, balance=0.35)
    loss: ViewLoss = ViewLoss(depth="hit", normalise=True, free_weight=0.5)

    @model_validator(mode="after")
    def _is_used(self) -> RenderLoss:
        if self.loss.sparsity:
            raise ValueError("loss.sparsity is for networks that learn from views alone; 3D labels say what is empty: set loss.sparsity=0")
        return self


def render_losses(
    logits: Tensor, batch: Batch, grid: VoxelGrid, class_names: tuple[str, ...], render: RenderLoss | None
) -> dict[str, Tensor]:
    """`render.depth`, `render.class`, ... of an occupancy network's logits; empty without `render`.

    Of a voxel that is crossed straight, the light that goes on is the probability of free space. The losses are means over the views, each
    weighed by how many samples have a point in it: a keyframe that a scene does not have takes nothing from the others.

    Args:
        logits: (B, X, Y, Z, K), free space last.
        batch: with 2D labels. Raises DataError without.
        grid, class_names: of the voxels.
        render: settings.
    """
    if render is None:
        return {}
    truth = batch.need(ViewLabels)
    with without_autocast(logits):
        density = -logits.float().log_softmax(-1)[..., -1] / grid.cell[0]
        rendered = trace_views(density, logits[..., :-1].float(), grid, truth, windows(truth, render.loss, class_names))
    found: dict[str, list[Tensor]] = {}
    shares: list[Tensor] = []
    for v in range(truth.depth.shape[1]):
        view = slice(v, v + 1)
        seen, there = Rendered(*(x[:, view] for x in rendered)), of_views(truth, view)
        moving_weight = 1.0 if v == 0 else render.loss.moving_weight
        points = as_points(seen, there, grid, moving_ids(render.views, class_names), moving_weight)
        shares.append((points.weight > 0).flatten(1).any(1).float().sum())  # samples that this view teaches
        for name, value in view_losses(points, render.loss).items():
            found.setdefault(name, []).append(value)
    share = torch.stack(shares) / torch.stack(shares).sum().clamp(min=1)
    return {f"render.{name}": render.weight * (share * torch.stack(values)).sum() for name, values in found.items()}


def render_memory(render: RenderLoss | None, grid: VoxelGrid, class_names: tuple[str, ...], batch_size: int) -> Memory | None:
    """Logits and density of all voxels, which the rays cross; None without `render`."""
    if render is None:
        return None
    numbers = {
        f"{len(class_names)} logits of {grid.num_cells:,} voxels, their logarithms and gradients": 3 * len(class_names) * grid.num_cells,
        "density": 3 * grid.num_cells,
    }
    return Memory({what: 4 * batch_size * count for what, count in numbers.items()}, ("render=null",))


def view_labels(views: Views, class_names: tuple[str, ...]) -> ViewLabels:
    """The 2D labels that a network learns from."""
    return ViewLabels(views, class_names, without="model.views.source=lidar")


def moving_ids(views: Views, class_names: Sequence[str]) -> tuple[int, ...]:
    """Ids of the classes that may have moved between keyframes."""
    return tuple(i for i, name in enumerate(class_names) if name in views.moving)


@torch.no_grad()
def read_voxels(
    opacity: Tensor, logits: Tensor, threshold: float, grid: VoxelGrid, names: tuple[str, ...], has_classes: bool = True
) -> list[PredictedOccupancy]:
    """Voxels (B, X, Y, Z) whose opacity is above the threshold are occupied, by the class of the highest logit (B, X, Y, Z, K).

    With `has_classes=False` all of them are `others`: a network that was taught depth alone knows no class, whatever its logits are.
    """
    best = logits.argmax(-1) if has_classes else torch.full(opacity.shape, names.index("others"), device=opacity.device)
    labels = torch.where(opacity > threshold, best, len(names)).to(torch.uint8)
    return [PredictedOccupancy(volume, grid, (*names, "free")) for volume in labels]


@torch.no_grad()
def render_images(
    render: Callable[[ViewTruth], Rendered],
    batch: Batch,
    width: int,
    grid: VoxelGrid,
    names: tuple[str, ...],
    has_classes: bool = True,
) -> list[PredictedViews | None]:
    """Class and depth of the keyframe's images as the network was given them, `width` pixels wide; None for a width of 0.

    A pixel has the class of the highest logit and the mean depth of the light, where half of it and more ends; without `has_classes` none
    has a class.
    """
    if not width:
        return [None] * len(batch)
    scale = width / batch.rig.image_size[1]
    height = max(1, round(batch.rig.image_size[0] * scale))
    shrink = torch.diag(torch.tensor([scale, scale, 1.0], dtype=torch.float64))
    with without_autocast(batch.images):
        points, image2view = _every_pixel(batch, shrink, (height, width))
        found = render(moved(points, batch.images.device))
        shape = (*points.depth[:, 0].shape[:2], height, width)
        alpha, depth, best = (x[:, 0].reshape(shape) for x in (found.alpha, found.depth, found.logits.argmax(-1)))
        is_seen = alpha >= 0.5
        labels = torch.where(is_seen & has_classes, best, IGNORE).to(torch.uint8)
        metres = torch.where(is_seen, depth / alpha.clamp(min=0.5), 0)
    rows = zip(labels, metres, (image2view @ points.intrinsics[:, 0].double()).float(), points.cam2ego[:, 0], strict=True)
    return [PredictedViews(*row, names, grid) for row in rows]


def _every_pixel(batch: Batch, shrink: Tensor, size: tuple[int, int]) -> tuple[ViewTruth, Tensor]:
    """A point in the middle of each pixel of views of `size`, in the original images; of unknown class, and a depth of 1.

    Returns:
        The points, and (B, N, 3, 3) from original pixels to those of the views: the network's, shrunk by `shrink` (3, 3).
    """
    rig = batch.rig[:, 0]
    image2view = shrink @ rig.image_aug.double()
    v, u = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) + 0.5 for n in size), indexing="ij")
    middles = torch.stack([u, v, torch.ones_like(u)], -1).flatten(0, 1)
    view2image = torch.linalg.inv(image2view).mT
    pixels = (middles @ view2image)[..., :2].float()[:, None]  # (B, 1, N, P, 2)
    corners = torch.tensor([[u, v, 1.0] for u in (0, size[1]) for v in (0, size[0])], dtype=torch.float64)
    largest = (corners @ view2image)[..., :2].amax(-2)  # as much of the original images as was cut out: their size is not known here
    lead = pixels.shape[:3]
    points = ViewTruth(
        pixels=pixels,
        depth=torch.ones(pixels.shape[:-1]),
        classes=torch.full(pixels.shape[:-1], IGNORE, dtype=torch.uint8),
        intrinsics=rig.intrinsics[:, None].float(),
        cam2ego=(batch.bev_aug[:, None].double() @ rig.cam2key(batch.key_ego2global).double())[:, None].float(),
        view2key=torch.eye(4).expand(len(batch), 1, 4, 4),
        size=(largest.flip(-1) - 1e-3).ceil().long().clamp(min=1)[:, None],  # not one more because of rounding
        is_present=torch.ones(lead[:2], dtype=torch.bool),
    )
    return points, image2view


def splat_views(
    found: Gaussians, truth: ViewTruth, width: int, limits: Limits | None = None, in_key: bool = True, backend: SplatBackend = "auto"
) -> Rendered:
    """Gaussians in the views' cameras, at the labelled points.

    Args:
        found: Gaussians in the ego frame of the keyframe; of the views with `in_key=False`, of which there must be one then.
        truth: where.
        width: pixels of the images that are rendered; Gaussians are at least half a pixel wide. Where gsplat renders, points move to the
            middles of these pixels, which are all that it gives.
        limits: see `Limits`.
        in_key: render in the ego frame of the keyframe.
        backend: of `rasterize`.
    """
    cam2ego = truth.view2key[:, :, None] @ truth.cam2ego if in_key else truth.cam2ego
    scale = width / truth.size[..., 1].to(truth.intrinsics)  # (B, V, N)
    heights = (truth.size[..., 0] * scale - 1e-3).ceil().clamp(min=1)  # a part of a pixel is a pixel, rounding is not
    shrink = torch.stack([scale, scale, torch.ones_like(scale)], -1)
    cameras = torch.linalg.inv(cam2ego).flatten(1, 2), (shrink[..., None] * truth.intrinsics).flatten(1, 2)
    places = (truth.pixels * scale[..., None, None]).flatten(1, 2)
    if backend in ("auto", "gsplat") and not why_not(places.device, None, limits):  # gsplat renders middles of pixels alone
        places = places.floor() + 0.5
    size = int(heights.max()), width
    places = torch.minimum(places, places.new_tensor(size[::-1]))  # by rounding a place at the edge can lie beyond it
    means, scales, opacities, logits = found
    depths = None if limits is None else limits.flatten(1, 2)
    seen = rasterize(means, scales, opacities, logits, *cameras, size, places, near=_NEAR, limits=depths, backend=backend)
    lead = truth.depth.shape[1:3]
    return Rendered(*(x.unflatten(1, lead) for x in (seen.features, seen.depth, seen.alpha, seen.before)))


March = Callable[[Tensor, Tensor, VoxelGrid, Tensor, Tensor], RayColours]
"""Renders rays of one sample by samples along them, as `ops.voxel_march.voxel_march`."""


def trace_views(
    density: Tensor, logits: Tensor, grid: VoxelGrid, truth: ViewTruth, limits: Limits | None = None, march: March | None = None
) -> Rendered:
    """A voxel field along the rays of the labelled points, in the ego frame of the keyframe.

    Args:
        density: (B, X, Y, Z) 1/m.
        logits: (B, X, Y, Z, K).
        grid: where the voxels lie.
        truth: where the rays are.
        limits: see `Limits`; of the exact traversal alone.
        march: sample along the rays instead of the exact traversal.
    """
    origins, directions = (x.flatten(1, 3) for x in truth.rays())
    is_point, lead = truth.is_point.flatten(1), truth.depth.shape[1:]
    rows = []
    for b in range(len(density)):
        kept = is_point[b].nonzero()[:, 0]
        rays = origins[b, kept], directions[b, kept]
        if march is None:
            out = voxel_render(density[b], logits[b], grid, *rays)
        else:
            out = march(density[b], logits[b], grid, *rays)
        parts = [out.features, out.depth[:, None], out.alpha[:, None]]
        none = density.new_zeros(*density[b].shape, 0)  # not an empty part of the logits, which would keep all of them for the gradient
        for limit in () if limits is None else limits[b].flatten(0, 2)[kept].unbind(-1):
            parts.append(voxel_render(density[b], none, grid, *rays, far=limit).alpha[:, None])
        row = torch.cat(parts, 1)
        rows.append(row.new_zeros(is_point.shape[1], row.shape[1]).index_copy(0, kept, row))
    out, k = torch.stack(rows).unflatten(1, lead), logits.shape[-1]
    return Rendered(out[..., :k], out[..., k], out[..., k + 1], out[..., k + 2 :])


def windows(truth: ViewTruth, loss: ViewLoss, class_names: tuple[str, ...]) -> Limits | None:
    """Where the window about each point begins and ends; None for a loss that asks for none."""
    if loss.depth != "hit":
        return None
    table = torch.full((IGNORE + 1,), loss.window)
    for i, name in enumerate(class_names):
        table[i] = loss.flat_window if name in FLAT_CLASSES else loss.window
    half = torch.maximum(send(table, truth.depth.device)[truth.classes.long()], loss.window_share * truth.depth)
    return torch.stack([(truth.depth - half).clamp(min=0), truth.depth + half], -1)


def as_points(
    rendered: Rendered, truth: ViewTruth, grid: VoxelGrid, moving: tuple[int, ...] = (), moving_weight: float = 1.0, in_key: bool = True
) -> Points:
    """What is rendered beside what is true.

    Args:
        rendered, truth: of the same views.
        grid: a point outside it cannot be rendered.
        moving: ids of classes that may have moved since.
        moving_weight: of their points.
        in_key: whether the grid is in the ego frame of the keyframe, or of each view.
    """
    is_inside = _inside(truth, grid, True)
    if not in_key:  # of the adjacent grid nothing is known beyond the keyframe's
        is_inside = is_inside & _inside(truth, grid, False)
    weight = truth.is_point.to(truth.depth)
    if moving_weight != 1 and moving:
        is_moving = torch.isin(truth.classes, send(torch.tensor(moving, dtype=truth.classes.dtype), truth.classes.device))
        weight = torch.where(is_moving, weight * moving_weight, weight)
    return Points(truth.depth, truth.classes, is_inside, weight, rendered.logits, rendered.depth, rendered.alpha, rendered.before)


def _inside(truth: ViewTruth, grid: VoxelGrid, in_key: bool) -> Tensor:
    """Whether the labelled points (B, V, N, P) lie in the grid of the keyframe, or of each view."""
    origins, directions = truth.rays(in_key)
    cells = grid.to_cells(origins + truth.depth[..., None] * directions)
    shape = send(torch.tensor(grid.shape, dtype=cells.dtype), cells.device)
    return ((cells >= 0) & (cells < shape)).all(-1)


def of_views(truth: ViewTruth, views: slice) -> ViewTruth:
    """Some of the views."""
    return ViewTruth(**{name: value[:, views] for name, value in vars(truth).items()})


def resample(field: Tensor, view2key: Tensor, grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """A field brought into the ego frame of an adjacent keyframe: GSRender's Ray Compensation.

    Args:
        field: (B, X, Y, Z, C) in the ego frame of the keyframe.
        view2key: (B, 4, 4) the adjacent ego frame to the keyframe's.
        grid: of both.

    Returns:
        The field at the centres of the adjacent grid (B, X, Y, Z, C), trilinear, and whether these lie within the keyframe's grid
        (B, X, Y, Z), bool.
    """
    centres = grid.centres(field.dtype, field.device)
    moved = torch.einsum("bij,xyzj->bxyzi", view2key[:, :3, :3], centres) + view2key[:, None, None, None, :3, 3]
    cells = grid.to_cells(moved)
    shape = send(torch.tensor(grid.shape, dtype=field.dtype), field.device)
    is_valid = ((cells >= 0) & (cells < shape)).all(-1)
    places = (2 * cells / shape - 1).flip(-1)
    found = F.grid_sample(field.permute(0, 4, 1, 2, 3), places, mode="bilinear", padding_mode="border", align_corners=False)
    return found.permute(0, 2, 3, 4, 1), is_valid
