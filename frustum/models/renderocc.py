"""RenderOcc (Pan et al., 2023, arXiv:2309.09502): occupancy from 2D labels, by volume rendering of a density along the rays of the labels.

images -> an occupancy network of ours (models/occupancy_trunk.py) -> 1 + K numbers a voxel -> class and depth at labelled points

The baseline of GSRender: rays of labelled points of the keyframe, and of adjacent keyframes through the keyframe's volume, are rendered
from a density and logits of K classes for each voxel. Three renderers: `traversal` is exact for voxels of constant density; `march` takes
samples at equal steps of a field that is linear between voxels; `reference` is RenderOcc's own, its contracted depth included
(ops/voxel_march.py).

Shape letters: B batch, V views (the keyframe first), N cameras, M = B * N images, P points, D depth bins, h w feature map, K classes
without free space, X Y Z voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator
from torch import Tensor, nn

from frustum.config import TAUGHT
from frustum.data.labels.view_points import Views
from frustum.data.labels.views import ViewLabels, ViewTruth
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.losses.view_rendering import Points, ViewLoss, distortion, ray_entropy, view_losses
from frustum.models.flashocc import FlashOccConfig
from frustum.models.occupancy_trunk import Trunk
from frustum.models.view_rendering import (
    NEVER_DRAWN,
    ClassWeights,
    PointWeights,
    Rendered,
    as_points,
    moving_ids,
    of_views,
    read_voxels,
    render_images,
    trace_views,
    view_labels,
    windows,
)
from frustum.ops.voxel_march import ACT_SHIFT, Samples, march_reference, voxel_march
from frustum.ops.voxel_render import RayColours
from frustum.types.batch import Batch
from frustum.types.contract import Label, Memory, ModelConfig, Reads
from frustum.types.predictions import Prediction

_RADIUS = 39.0  # of `reference`, metres
_ALL_POINTS = 16_000  # of a keyframe's scan that its cameras see, nuScenes: rather too few


class RenderOccConfig(ModelConfig):
    """Settings of RenderOcc.

    Attributes:
        trunk: the network that gives the numbers of each voxel, with its grid and its class names.
        views: which 2D labels; RenderOcc draws 38,400 points of seven keyframes.
        renderer: see the module.
        step: of `march`, metres between samples; of `reference`, cells.
        loss: weights; `reference` has no `moving_weight`, as it never draws what moves (`views.moving_weight`).
        adjacent_loss: weight of the losses of adjacent keyframes; with `reference` all points are in one loss, as it draws them.
        class_weights: of points of each class in the losses.
        density_bias: added to the number in front of the softplus that makes it a density; at the start, light must come through.
        entropy, distortion: weights of two losses of `reference`.
        threshold: a voxel is occupied if its opacity is above; with `reference`, if its density is.
        shown_width: pixels of the views that are predicted beside the voxels, class and depth rendered; 0 for none.
    """

    held: ClassVar[str] = "trunk."

    trunk: Trunk = Trunk(flashocc=FlashOccConfig())
    views: Annotated[Views, TAUGHT] = Views(adjacent=(-3, -2, -1, 1, 2, 3), points=38400, adjacent_weight=0.3, moving_weight=0)
    renderer: Literal["traversal", "march", "reference"] = "traversal"
    step: PositiveFloat = 0.2
    loss: ViewLoss = ViewLoss()
    adjacent_loss: PositiveFloat = 1.0
    class_weights: ClassWeights = ClassWeights()
    density_bias: float = -4.0
    entropy: NonNegativeFloat = 0.0
    distortion: NonNegativeFloat = 0.0
    threshold: NonNegativeFloat = 0.05
    shown_width: NonNegativeInt = 176

    @model_validator(mode="after")
    def _fits_together(self) -> RenderOccConfig:
        if self.renderer != "traversal" and self.loss.depth == "hit":
            raise ValueError("loss.depth=hit asks for light before a depth, which renderer=traversal alone gives")
        if self.renderer != "reference" and (self.entropy or self.distortion):
            raise ValueError("entropy and distortion are losses of the samples of renderer=reference")
        if self.renderer == "reference" and self.adjacent_loss != 1:
            raise ValueError(
                "renderer=reference makes one loss of all points: leave adjacent_loss=1, and set views.adjacent_weight, which says how "
                "often points of adjacent keyframes are drawn"
            )
        if not self.views.adjacent and self.adjacent_loss != 1:
            raise ValueError("without adjacent keyframes there is nothing to weigh: leave adjacent_loss=1, or set views.adjacent=-1,1")
        if self.views.adjacent and self.views.moving_weight == 0 and self.loss.moving_weight not in (0, 1):
            raise ValueError(NEVER_DRAWN.format(weight=self.loss.moving_weight))
        if self.renderer != "reference" and self.threshold >= 1:
            raise ValueError(f"threshold is an opacity, below 1, got {self.threshold}; only that of renderer=reference is a density")
        return self

    @property
    def image_multiple(self) -> int:  # type: ignore[override]
        """That of the trunk."""
        return self.trunk.config.image_multiple

    def reads(self) -> Reads:
        """What the trunk reads."""
        return self.trunk.config.reads()

    def learns_from(self) -> tuple[Label[Any], ...]:
        """2D labels, and depth where the trunk's depth loss has a weight."""
        return (view_labels(self.views, self.trunk.class_names), *self.trunk.learns_depth())

    def memory(self, batch_size: int, device: str) -> Memory:
        """Numbers and density of all voxels; with a renderer that takes samples along rays, these for half of the points that are drawn.

        A sample may have fewer points than are drawn. What the network says at the samples is left out: how many see light is not known.
        """
        grid, width = self.trunk.config.grid, 1 + len(self.trunk.class_names)
        length = {"traversal": 0.0, "march": 80.0 / self.step, "reference": grid.shape[0] / self.step}[self.renderer]
        each = {
            f"{width} numbers of {grid.num_cells:,} voxels and their gradients": 2 * width * grid.num_cells,
            "density": 3 * grid.num_cells,
            "samples along the rays": 4 * int(length) * ((self.views.points or _ALL_POINTS) // 2),
        }
        parts = {what: 4 * batch_size * count for what, count in each.items()} | {"features of the trunk": self.trunk.memory(batch_size)}
        return Memory(parts, (f"views.points={(self.views.points or _ALL_POINTS) // 4 or 1}", f"step={2 * self.step:g}"))

    def build(self) -> RenderOcc:
        """The network with random weights; only an image encoder may start from trained ones."""
        return RenderOcc(self)


class RenderOcc(nn.Module):
    """Occupancy that was learned by volume rendering.

    `forward` returns
        depth: (M, D, h, w) of the trunk, probability of each depth bin
        numbers: (B, X, Y, Z, 1 + K)
    """

    not_maps = ("numbers",)

    def __init__(self, config: RenderOccConfig):
        super().__init__()
        self.config = config
        self.grid, self.class_names = config.trunk.config.grid, config.trunk.class_names
        self.trunk: Any = config.trunk.build(1 + len(self.class_names))
        self.weights = PointWeights(config.class_weights, len(self.class_names))

    def prepare(self, statistics: Mapping[type[Label[Any]], Mapping[str, np.ndarray]]) -> None:
        """Weigh the classes by how frequent they are in the labels."""
        self.weights.prepare(statistics)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        outputs = self.trunk(batch)
        return {"depth": outputs["depth"], "numbers": outputs["occ_logits"]}

    def field(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Density (B, X, Y, Z) and logits (B, X, Y, Z, K): 1/m, but with `reference`, whose densities are for a step of half a cell."""
        number, logits = numbers.float().split([1, len(self.class_names)], -1)
        density = F.softplus(number[..., 0] + self.config.density_bias)
        return density if self.config.renderer == "reference" else density / self.grid.cell[0], logits

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`depth` and `class` of the keyframe's views, the same under `adjacent.`, `lift.depth`, and others where they have a weight.

        As RenderOcc has it, `reference` makes one loss of all points of a sample, those beyond the grid, too, and takes the mean over
        the samples.

        Raises:
            DataError: the batch has no 2D labels; a grid that `reference` cannot render.
        """
        config, truth = self.config, batch.need(ViewLabels)
        density, logits = self.field(outputs["numbers"])
        samples: list[tuple[Samples, int]] = []
        rendered = trace_views(density, logits, self.grid, truth, windows(truth, config.loss, self.class_names), self._march(samples))
        if config.renderer == "reference":
            losses = self._joint(rendered, truth)
        else:
            losses = self._losses(rendered, truth, slice(0, 1), "", 1.0)
        if config.renderer != "reference" and truth.depth.shape[1] > 1 and config.adjacent_loss:
            adjacent = self._losses(rendered, truth, slice(1, None), "adjacent.", config.loss.moving_weight)
            losses |= {name: config.adjacent_loss * value for name, value in adjacent.items()}
        if config.loss.sparsity:
            losses["sparsity"] = config.loss.sparsity * self._opacity(self._per_metre(density)).mean()
        if config.entropy:
            losses["entropy"] = config.entropy * ray_entropy(rendered.alpha[truth.is_point])
        if config.distortion:
            each = [distortion(s.weights, s.t / (1 + s.t), s.rays, count, 1 / max(1, len(s.t))) for s, count in samples]
            losses["distortion"] = config.distortion * torch.stack(each).mean()
        return losses | config.trunk.depth_losses(outputs, batch)

    def _joint(self, rendered: Rendered, truth: ViewTruth) -> dict[str, Tensor]:
        """One loss of all points of each sample, whose mean counts; space beyond the grid is contracted into it."""
        points = as_points(rendered, truth, self.grid)._replace(is_inside=truth.is_point)
        weights = self.weights.of_class, self.weights.of_depth
        each = [view_losses(Points(*(x[b] for x in points)), self.config.loss, *weights) for b in range(len(truth.depth))]
        return {name: torch.stack([losses[name] for losses in each]).mean() for name in each[0]}

    def _losses(self, rendered: Rendered, truth: ViewTruth, views: slice, prefix: str, moving_weight: float) -> dict[str, Tensor]:
        config, some = self.config, Rendered(*(x[:, views] for x in rendered))
        points = as_points(some, of_views(truth, views), self.grid, moving_ids(config.views, self.class_names), moving_weight)
        return view_losses(points, config.loss, self.weights.of_class, self.weights.of_depth, prefix)

    def _march(self, samples: list[tuple[Samples, int]]) -> Any:
        """The renderer of `trace_views`; that of `reference` keeps its samples, and how many rays they are of."""
        config = self.config
        if config.renderer == "traversal":
            return None
        if config.renderer == "march":
            return partial(voxel_march, step=config.step)

        def march(density: Tensor, logits: Tensor, grid: VoxelGrid, origins: Tensor, directions: Tensor) -> RayColours:
            if not (grid.upper[0] > _RADIUS and grid.upper[0] == grid.upper[1] == -grid.lower[0] == -grid.lower[1]):
                raise DataError(f"renderer=reference needs a grid that is symmetric and wider than {_RADIUS} m; take renderer=march.")
            found, kept = march_reference(density, logits, grid, origins, directions, step=config.step, radius=_RADIUS)
            samples.append((kept, len(origins)))
            return found

        return march

    def _per_metre(self, density: Tensor) -> Tensor:
        """Density of `field` in 1/m."""
        return F.softplus(density + ACT_SHIFT) / self.grid.cell[0] if self.config.renderer == "reference" else density

    def _opacity(self, density: Tensor) -> Tensor:
        """Of a voxel that is crossed straight, by its density in 1/m."""
        return -torch.expm1(-density * self.grid.cell[0])

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """Voxels above the threshold, with their most likely class; and what the cameras see of the field.

        Views of `reference` are those of the exact traversal.
        """
        density, logits = self.field(outputs["numbers"])
        shown = density if self.config.renderer == "reference" else self._opacity(density)
        voxels = read_voxels(shown, logits, self.config.threshold, self.grid, self.class_names, self.config.views.has_classes)
        density = self._per_metre(density)  # depth as `reference` has it is not in metres
        march = partial(voxel_march, step=self.config.step) if self.config.renderer == "march" else None
        render = partial(trace_views, density, logits, self.grid, march=march)
        views = render_images(render, batch, self.config.shown_width, self.grid, self.class_names, self.config.views.has_classes)
        return [Prediction(token, occupancy, views=seen) for token, occupancy, seen in zip(batch.tokens, voxels, views, strict=True)]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`, the image encoder."""
        return self.trunk.parameter_groups()
