"""BEVDetOCC's occupancy part on the rest of `flashocc-tiny`: what the 3D convolutions are worth when nothing else differs.

images -> SmallTrunk, as FlashOccTiny -> CustomResNet3D + LssFpn3D over half-resolution voxels
       -> voxel shuffle to full resolution -> two linear layers per voxel -> voxel logits

The 3D network has BEVDetOCC's shape (1, 2 and 4 blocks at strides 1, 2 and 4, widths w, 2w, 4w) at half its width. As in FlashOccTiny the
last step doubles the resolution, and the last bias starts at the prior of each height.
Shape letters: B batch, N cameras, h w feature map, C channels, D depth bins, K classes, X Y Z voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from frustum.data.labels.occupancy import OccupancyLabels
from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.losses.depth import depth_cross_entropy
from frustum.models.flashocc import depth_losses, occupancy_labels
from frustum.models.flashocc_tiny import column_losses, voxel_outputs
from frustum.models.view_rendering import RenderLoss, render_losses, render_memory
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.occupancy_head import occupancy_predictions, start_at_prior
from frustum.nn.small_trunk import RENAMED, EvenGrid, SmallTrunk
from frustum.nn.voxel import CustomResNet3D, LinearPerHeight, LssFpn3D, as_voxels
from frustum.ops.bev_pool import Backend
from frustum.types.batch import Batch
from frustum.types.classes import OCC3D_CLASSES
from frustum.types.contract import ClassNames, Label, Memory, ModelConfig
from frustum.types.frame import keyframe_of
from frustum.types.predictions import Prediction


class BevDetOccTinyConfig(ModelConfig):
    """Settings of BevDetOccTiny: those of FlashOccTiny, with features for voxels instead of a map.

    Attributes:
        pretrained: start the encoder from ImageNet weights: those of the package (true, extra `pretrained`), or of a timm file (its path).
        frozen_blocks: blocks of the encoder that are not trained, 0 to 11.
        neck_channels: channels of the image features.
        depth_bins: D candidate depths.
        grid: the labelled voxels, in the ego frame of the keyframe; even numbers along each axis.
        lift_channels: C, context channels per height bin.
        bev_channels: width of the 3D network at its finest level, and of the voxels it returns.
        voxel_channels: channels of a full-resolution voxel before its class is read out.
        class_names: the K classes; the last one is free space.
        class_weight_power: classes weigh (frequency / frequency of free) ** -power.
        free_columns: columns of observed free space drawn per sample in training; columns with anything occupied are all used.
        occupied_iou_loss, standing_iou_loss: weights of the soft IoU of occupied space, and of what is in no flat class.
        depth_loss: weight of the depth supervision; 0 needs no depth maps.
        render: learn from 2D labels by rendering, too (docs/methods/gsrender.md).
        pool: backend of the pooling.
    """

    image_multiple: ClassVar[int] = 16
    renamed: ClassVar[dict[str, str]] = RENAMED

    pretrained: Pretrained = True
    frozen_blocks: int = Field(5, ge=0, le=11)
    neck_channels: PositiveInt = 64
    depth_bins: DepthBins = DepthBins(start=1, stop=45, step=1)
    grid: EvenGrid = VoxelGrid.occ3d()
    lift_channels: PositiveInt = 16
    bev_channels: PositiveInt = 16
    voxel_channels: PositiveInt = 16
    class_names: ClassNames = OCC3D_CLASSES
    class_weight_power: NonNegativeFloat = 0.35
    free_columns: PositiveInt = 3000
    occupied_iou_loss: NonNegativeFloat = 1.0
    standing_iou_loss: NonNegativeFloat = 1.0
    depth_loss: NonNegativeFloat = 0.3
    render: RenderLoss | None = None
    pool: Backend = "auto"

    def learns_from(self) -> tuple[Label[Any], ...]:
        """Occupancy, and depth where it has a weight."""
        return occupancy_labels(self.grid, self.class_names, self.depth_loss, self.render)

    def memory(self, batch_size: int, device: str) -> Memory | None:
        """What `render` needs; nothing is known without it."""
        return render_memory(self.render, self.grid, self.class_names, batch_size)

    def build(self) -> BevDetOccTiny:
        """The network; only the encoder may start from trained weights."""
        return BevDetOccTiny(self)


class BevDetOccTiny(nn.Module):
    """Single-frame occupancy with 3D convolutions, for a fair comparison with FlashOccTiny.

    `forward` returns
        depth: (B * N, D, h, w) probability of each depth bin, stride 8
        voxels: (B, bev_channels, Z / 2, Y / 2, X / 2)
        occ_logits: (B, X, Y, Z, K); as the trunk of another network (models/occupancy_trunk.py) `numbers` of each voxel in place of K
    In training on a CPU, when the batch has labels and without `render`, the last is replaced by what the loss needs, for a
    fraction of the work:
        columns: (n,) int64 drawn columns, index into the flattened (B, Y, X)
        column_share: (n,) how many columns each one stands for
        column_logits: (n, Z, K)
    """

    all_outputs = False

    def __init__(self, config: BevDetOccTinyConfig, numbers: int | None = None):
        super().__init__()
        self.config = config
        w, heights, classes = config.bev_channels, config.grid.shape[2], len(config.class_names)
        self.numbers = numbers or classes
        self.trunk = SmallTrunk(
            config.grid, config.depth_bins, config.neck_channels, config.lift_channels, config.pretrained, config.frozen_blocks, config.pool
        )
        self.voxel_net = CustomResNet3D(config.lift_channels, (w, 2 * w, 4 * w))
        self.voxel_neck = LssFpn3D(w + 2 * w + 4 * w, w)
        self.refine = nn.Conv3d(w, 8 * config.voxel_channels, 1)
        self.hidden = nn.Sequential(nn.Linear(config.voxel_channels, 2 * config.voxel_channels), nn.Softplus())
        self.head = LinearPerHeight(2 * config.voxel_channels, heights, self.numbers)
        self.class_weight = nn.Buffer(torch.ones(classes))

    def prepare(self, statistics: Mapping[type[Label[Any]], Mapping[str, np.ndarray]]) -> None:
        """Start from the statistics of the labels: class weights, and the weighted log prior of each height as the last bias."""
        start_at_prior(self.head, self.class_weight, statistics[OccupancyLabels]["counts"], self.config.class_weight_power)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        pooled, depth = self.trunk(keyframe_of(batch))
        voxels = self.voxel_neck(self.voxel_net(as_voxels(pooled, self.config.grid.shape[2] // 2)))
        cells = doubled(self.refine(voxels)).relu()  # (B, Y, X, Z, c)
        needs_all = self.all_outputs or not self.training or self.config.render is not None
        labels, free = None if needs_all else batch.labels.get(OccupancyLabels), len(self.config.class_names) - 1
        return {"depth": depth, "voxels": voxels} | voxel_outputs(cells, self.logits, labels, self.config.free_columns, free)

    def logits(self, cells: Tensor) -> Tensor:
        """Cells (*, Z, voxel_channels) at full resolution -> (*, Z, K)."""
        return self.head(self.hidden(cells)).unflatten(-1, (-1, self.numbers))

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`occupancy` cross-entropy, `occupied_iou`, `standing_iou`, and `depth` and those of `render` where configured."""
        config = self.config
        losses = column_losses(outputs, batch, self.class_weight, config.class_names, config.occupied_iou_loss, config.standing_iou_loss)
        losses |= depth_losses(outputs, batch, config.depth_loss, config.depth_bins, depth_cross_entropy)
        if config.render is not None:
            losses |= render_losses(outputs["occ_logits"], batch, config.grid, config.class_names, config.render)
        return losses

    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The most likely class of every voxel."""
        return occupancy_predictions(outputs["occ_logits"], batch.tokens, self.config.grid, self.config.class_names)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`, the image encoder."""
        return {"encoder": list(self.trunk.encoder.parameters())}


def doubled(x: Tensor) -> Tensor:
    """(B, 8 * c, Z / 2, Y / 2, X / 2) -> (B, Y, X, Z, c): a voxel shuffle."""
    x = x.unflatten(1, (2, 2, 2, -1)).permute(0, 6, 2, 7, 3, 5, 1, 4)  # (B, Y/2, 2, X/2, 2, Z/2, 2, c)
    return x.flatten(5, 6).flatten(3, 4).flatten(1, 2)
