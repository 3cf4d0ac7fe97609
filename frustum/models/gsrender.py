"""GSRender (Sun et al., 2024, arXiv:2412.14579): occupancy from 2D labels, by splatting one 3D Gaussian for each voxel.

images -> an occupancy network of ours (models/occupancy_trunk.py) -> 7 + K numbers a voxel -> Gaussians -> class and depth at points

Each Gaussian stands at the middle of its voxel, is shifted and scaled by predicted numbers, and has an opacity and logits of the K classes
without free space. It is rendered into the cameras of the keyframe and of an adjacent keyframe, at the points that have 2D labels (class
and depth of LiDAR points), and learns from them alone. Ray Compensation is that adjacent keyframe: its viewpoint sees along other rays.

- `compensation=resample`, as the paper draws it: the numbers are resampled into the adjacent ego frame, decoded to Gaussians there, and
  rendered with the cameras of that frame. Linear layers and interpolation commute, so that resampling the numbers in front of their
  activations is resampling the features in front of the shared last layer.
- `camera`: the keyframe's own Gaussians in the adjacent cameras, which costs no resampling (RenderOcc's auxiliary rays).
- `none`: the keyframe alone.

No code of GSRender is public: what the paper leaves open is a setting (docs/methods/gsrender.md says which, and why).
Shape letters: B batch, V views (the keyframe first), N cameras, M = B * N images, P points, D depth bins, h w feature map, K classes
without free space, X Y Z voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator
from torch import Tensor, nn

from frustum.config import TAUGHT
from frustum.data.labels.view_points import Views
from frustum.data.labels.views import ViewLabels, ViewTruth
from frustum.errors import TrainingError
from frustum.losses.view_rendering import ViewLoss, view_losses
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
    resample,
    splat_views,
    view_labels,
    windows,
)
from frustum.nn.gaussians import NUMBERS, GaussianHead, Gaussians, most_opaque, rendered_gaussians, splat_to_voxels, to_gaussians
from frustum.ops.splat import SplatBackend
from frustum.types.batch import Batch
from frustum.types.contract import Label, Memory, ModelConfig, Reads
from frustum.types.predictions import Prediction


class GsRenderConfig(ModelConfig):
    """Settings of GsRender.

    Attributes:
        trunk: the network that gives the numbers of each voxel, with its grid and its class names.
        head: how numbers become Gaussians.
        views: which 2D labels; `adjacent` and `drawn` are the interval of Ray Compensation.
        compensation: how adjacent keyframes are rendered, see the module.
        loss: weights; `moving_weight` of points of moving classes in adjacent keyframes: 0 drops them, 1 keeps them. They are drawn only
            with `views.moving_weight` above 0.
        adjacent_loss: weight of the losses of adjacent views.
        class_weights: of points of each class in the losses.
        width: pixels of the rendered images; where labels are is not rounded to them.
        threshold: a voxel is occupied if its opacity is above.
        readout: `opacity` of a voxel is that of its Gaussian; `splat` that of all Gaussians near its centre.
        splatting: backend of the rendering.
        shown_width: pixels of the views that are predicted beside the voxels, class and depth rendered; 0 for none.
    """

    held: ClassVar[str] = "trunk."

    trunk: Trunk = Trunk(flashocc=FlashOccConfig())
    head: GaussianHead = GaussianHead()
    views: Annotated[Views, TAUGHT] = Views(adjacent=(-3, -2, -1, 1, 2, 3), drawn=1)
    compensation: Literal["resample", "camera", "none"] = "resample"
    loss: ViewLoss = ViewLoss(moving_weight=0)
    adjacent_loss: PositiveFloat = 1.0
    class_weights: ClassWeights = ClassWeights()
    width: int = Field(400, ge=1, le=8192)
    threshold: float = Field(0.05, ge=0, lt=1)
    readout: Literal["opacity", "splat"] = "opacity"
    splatting: SplatBackend = "auto"
    shown_width: NonNegativeInt = 176

    @model_validator(mode="after")
    def _has_views(self) -> GsRenderConfig:
        if self.compensation != "none" and not self.views.adjacent:
            raise ValueError("compensation needs adjacent keyframes: set model.views.adjacent=-1,1 or model.compensation=none")
        if self.compensation == "resample" and (self.views.drawn or len(self.views.adjacent)) != 1:
            raise ValueError("compensation=resample renders one adjacent keyframe at a time: set model.views.drawn=1")
        if self.compensation == "none" and self.views.adjacent:
            raise ValueError(
                "compensation=none learns from the keyframe alone: set model.views.adjacent=[] model.views.drawn=0 beside it, or "
                "compensation=camera"
            )
        if self.compensation == "none" and self.adjacent_loss != 1:
            raise ValueError(
                "with compensation=none there are no adjacent views to weigh: leave adjacent_loss=1, or set compensation=camera"
            )
        if self.compensation != "none" and self.views.moving_weight == 0 and self.loss.moving_weight:
            raise ValueError(NEVER_DRAWN.format(weight=self.loss.moving_weight))
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
        """Numbers and Gaussians of all voxels, again for an adjacent keyframe where they are resampled, and what a CPU renders from."""
        grid, head, classes = self.trunk.config.grid, self.head, len(self.trunk.class_names)
        width, of_gaussian = NUMBERS + classes, 1 + 6 * bool(head.mean_shift) + 9 * bool(head.scale_shift)
        both = self.compensation != "none"
        is_resampled = both and self.compensation == "resample"
        on_cpu = device == "cpu" and self.splatting in ("auto", "numba")  # keeps variances and logits of its own for each rendering
        rendered = min(head.most or grid.num_cells, grid.num_cells) * ((3 + classes) * (1 + both) if on_cpu else 3)
        each = {
            f"{width} numbers of {grid.num_cells:,} voxels and their gradients": 2 * width * grid.num_cells,
            "Gaussians": of_gaussian * grid.num_cells,
            "numbers and Gaussians of the adjacent keyframe": is_resampled * (width + 3 + of_gaussian) * grid.num_cells,
            "what is rendered": rendered,
        }
        parts = {what: 4 * batch_size * count for what, count in each.items()} | {"features of the trunk": self.trunk.memory(batch_size)}
        fewer = f"head.most={min(head.most or grid.num_cells, grid.num_cells) // 8}"
        return Memory(parts, ("compensation=camera", "compensation=none views.adjacent=[] views.drawn=0", fewer))

    def build(self) -> GsRender:
        """The network with random weights; only an image encoder may start from trained ones."""
        return GsRender(self)


class GsRender(nn.Module):
    """Occupancy that was learned by splatting.

    `forward` returns
        depth: (M, D, h, w) of the trunk, probability of each depth bin
        numbers: (B, X, Y, Z, 7 + K)
    """

    not_maps = ("numbers",)

    def __init__(self, config: GsRenderConfig):
        super().__init__()
        self.config = config
        self.grid, self.class_names = config.trunk.config.grid, config.trunk.class_names
        self.trunk: Any = config.trunk.build(NUMBERS + len(self.class_names))
        self.weights = PointWeights(config.class_weights, len(self.class_names))

    def prepare(self, statistics: Mapping[type[Label[Any]], Mapping[str, np.ndarray]]) -> None:
        """Weigh the classes by how frequent they are in the labels."""
        self.weights.prepare(statistics)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        outputs = self.trunk(batch)
        return {"depth": outputs["depth"], "numbers": outputs["occ_logits"]}

    def gaussians(self, numbers: Tensor) -> Gaussians:
        """All Gaussians of numbers (B, X, Y, Z, 7 + K)."""
        return to_gaussians(numbers.float(), self.grid, self.config.head)

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`depth` and `class` of the keyframe's views, the same under `adjacent.`, `lift.depth`, and others where they have a weight.

        Raises:
            DataError: the batch has no 2D labels.
            TrainingError: no Gaussian is opaque enough to be rendered, so that none would learn.
        """
        config, truth, numbers = self.config, batch.need(ViewLabels), outputs["numbers"]
        found, opacities = rendered_gaussians(numbers, self.grid, config.head)
        if not found.opacities.numel():
            raise TrainingError(
                "no Gaussian has an opacity of 1/255 or more, below which none is rendered and none learns. Begin with more "
                "(model.head.opacity_bias=-4), or lower model.loss.sparsity and model.loss.free_weight, or optim.lr."
            )
        has_near = config.compensation != "none" and truth.depth.shape[1] > 1
        key, near = of_views(truth, slice(0, 1)), of_views(truth, slice(1, None))
        if has_near and config.compensation == "camera":  # the same Gaussians: rendered together, which is one gradient instead of two
            rendered = self._render(found, truth)
            first, others = (Rendered(*(x[:, views] for x in rendered)) for views in (slice(0, 1), slice(1, None)))
        else:
            first = self._render(found, key)
            if has_near:
                field, is_valid = resample(numbers.float(), near.view2key[:, 0], self.grid)
                moved, _ = rendered_gaussians(field, self.grid, config.head, is_valid)
                others = self._render(moved, near, in_key=False)
        losses = self._losses(first, key, "")
        if has_near:
            adjacent = self._losses(others, near, "adjacent.", config.loss.moving_weight, config.compensation == "camera")
            losses |= {name: config.adjacent_loss * value for name, value in adjacent.items()}
        if config.loss.sparsity:
            losses["sparsity"] = config.loss.sparsity * opacities.mean()
        return losses | config.trunk.depth_losses(outputs, batch)

    def _render(self, found: Gaussians, truth: ViewTruth, in_key: bool = True) -> Rendered:
        config, limits = self.config, windows(truth, self.config.loss, self.class_names)
        return splat_views(found, truth, config.width, limits, in_key, config.splatting)

    def _losses(
        self, rendered: Rendered, truth: ViewTruth, prefix: str, moving_weight: float = 1.0, in_key: bool = True
    ) -> dict[str, Tensor]:
        config, names = self.config, self.class_names
        points = as_points(rendered, truth, self.grid, moving_ids(config.views, names), moving_weight, in_key)
        return view_losses(points, config.loss, self.weights.of_class, self.weights.of_depth, prefix)

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """Voxels above the threshold, with their most likely class; and what the cameras see of the Gaussians."""
        found = self.gaussians(outputs["numbers"])
        if self.config.readout == "splat":
            opacity, logits = splat_to_voxels(found, self.grid)
        else:
            opacity, logits = (x.unflatten(1, self.grid.shape) for x in (found.opacities, found.logits))
        voxels = read_voxels(opacity, logits, self.config.threshold, self.grid, self.class_names, self.config.views.has_classes)
        render = partial(splat_views, most_opaque(found, self.config.head.most), width=self.config.width, backend=self.config.splatting)
        views = render_images(render, batch, self.config.shown_width, self.grid, self.class_names, self.config.views.has_classes)
        return [Prediction(token, occupancy, views=seen) for token, occupancy, seen in zip(batch.tokens, voxels, views, strict=True)]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`, the image encoder."""
        return self.trunk.parameter_groups()
