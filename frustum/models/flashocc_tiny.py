"""FlashOCC small enough to learn a city in minutes on two CPU cores: the same idea with cheaper parts.

images -> SmallTrunk (EfficientNet-Lite0, pooled in Z/2 height bins) -> 2D U-Net -> pixel shuffle to full resolution
       -> channel-to-height -> voxel logits

What differs from FlashOCC and why: see nn/small_trunk.py; and the map at half the label resolution (the head's last step doubles it).
Shape letters: B batch, N cameras, M = B * N images, H W image, h w feature map, C channels, D depth bins, K classes, X Y Z voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from frustum.data.labels.occupancy import OccupancyLabels, OccupancyTruth
from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.losses.depth import depth_cross_entropy
from frustum.losses.occupancy import draw_columns, occupancy_losses
from frustum.models.flashocc import depth_losses, occupancy_labels
from frustum.models.view_rendering import RenderLoss, render_losses, render_memory
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.occupancy_head import occupancy_predictions, start_at_prior
from frustum.nn.small_trunk import RENAMED, EvenGrid, SmallTrunk, doubled
from frustum.nn.unet import UNet
from frustum.ops.bev_pool import Backend
from frustum.types.batch import Batch
from frustum.types.classes import FLAT_CLASSES, OCC3D_CLASSES
from frustum.types.contract import ClassNames, Label, Memory, ModelConfig
from frustum.types.frame import keyframe_of
from frustum.types.predictions import Prediction


class FlashOccTinyConfig(ModelConfig):
    """Settings of FlashOccTiny.

    Attributes:
        pretrained: start the encoder from ImageNet weights: those of the package (true, extra `pretrained`), or of a timm file (its path).
        frozen_blocks: blocks of the encoder that are not trained, 0 to 11.
        neck_channels: channels of the image features.
        depth_bins: D candidate depths.
        grid: the labelled voxels, in the ego frame of the keyframe; even numbers along each axis.
        lift_channels: C, context channels per height bin.
        bev_channels: width of the U-Net at its finest level.
        voxel_channels: channels of a full-resolution cell before its heights and classes are read out.
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
    bev_channels: PositiveInt = 32
    voxel_channels: PositiveInt = 32
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

    def build(self) -> FlashOccTiny:
        """The network; only the encoder may start from trained weights."""
        return FlashOccTiny(self)


class FlashOccTiny(nn.Module):
    """Single-frame occupancy for small machines.

    `forward` returns
        depth: (B * N, D, h, w) probability of each depth bin, stride 8
        bev: (B, 2 * bev_channels, Y / 2, X / 2)
        occ_logits: (B, X, Y, Z, K); as the trunk of another network (models/occupancy_trunk.py) `numbers` of each voxel in place of K
    In training on a CPU, when the batch has labels and without `render`, the last is replaced by what the loss needs, for a
    fraction of the work:
        columns: (n,) int64 drawn columns, index into the flattened (B, Y, X)
        column_share: (n,) how many columns each one stands for
        column_logits: (n, Z, K)
    """

    head_names = ("refine", "head", "class_weight")
    all_outputs = False

    def __init__(self, config: FlashOccTinyConfig, numbers: int | None = None):
        super().__init__()
        self.config = config
        self.map_channels, self.map_grid = 2 * config.bev_channels, config.grid.scaled(2, 2).collapsed_z()
        heights, classes, self.numbers = config.grid.shape[2], len(config.class_names), numbers or len(config.class_names)
        self.trunk = SmallTrunk(
            config.grid, config.depth_bins, config.neck_channels, config.lift_channels, config.pretrained, config.frozen_blocks, config.pool
        )
        self.bev_net = UNet(self.trunk.out_channels, config.bev_channels)
        self.refine = nn.Conv2d(2 * config.bev_channels, 4 * config.voxel_channels, 1)
        self.head = nn.Linear(config.voxel_channels, heights * self.numbers)
        self.class_weight = nn.Buffer(torch.ones(classes))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def prepare(self, statistics: Mapping[type[Label[Any]], Mapping[str, np.ndarray]]) -> None:
        """Start from the statistics of the labels: class weights, and the weighted log prior of each height as the last bias."""
        start_at_prior(self.head, self.class_weight, statistics[OccupancyLabels]["counts"], self.config.class_weight_power)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        found = self.to_map(batch)
        cells = doubled(self.refine(found["bev"])).relu()  # (B, Y, X, c)
        needs_all = self.all_outputs or not self.training or self.config.render is not None
        labels, free = None if needs_all else batch.labels.get(OccupancyLabels), len(self.config.class_names) - 1
        return found | voxel_outputs(cells, self.logits, labels, self.config.free_columns, free)

    def to_map(self, batch: Batch) -> dict[str, Tensor]:
        """`depth` and `bev`."""
        pooled, depth = self.trunk(keyframe_of(batch))
        return {"depth": depth, "bev": self.bev_net(pooled)}

    def logits(self, cells: Tensor) -> Tensor:
        """Cells (*, voxel_channels) at full resolution -> (*, Z, K)."""
        return self.head(cells).unflatten(-1, (-1, self.numbers))

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


def voxel_outputs(
    cells: Tensor, read: Callable[[Tensor], Tensor], labels: OccupancyTruth | None, free_columns: int, free: int
) -> dict[str, Tensor]:
    """Logits of all voxels, or in training on a CPU, of those columns that `draw_columns` chooses, for a fraction of the work.

    Args:
        cells: (B, Y, X, *) features at full resolution.
        read: the last layers, features (n, *) -> logits (n, Z, K).
        labels: in training, what decides which columns are drawn.
        free_columns: columns without an occupied voxel to draw at most, for each sample.
        free: id of free space.

    Returns:
        `occ_logits` (B, X, Y, Z, K); or `columns` (n,), index into the flattened (B, Y, X), `column_share` (n,), and `column_logits`
        (n, Z, K).
    """
    if labels is None or cells.device.type != "cpu":  # a GPU takes all columns rather than tell the host how many were drawn
        return {"occ_logits": read(cells).transpose(1, 2)}
    semantics, mask = labels.semantics.transpose(1, 2), labels.mask_camera.transpose(1, 2)
    columns, share = draw_columns(semantics, mask, free, free_columns * len(cells))
    return {"columns": columns, "column_share": share, "column_logits": read(cells.flatten(0, 2)[columns])}


def column_losses(
    outputs: dict[str, Tensor], batch: Batch, class_weight: Tensor, class_names: tuple[str, ...], occupied: float, standing: float
) -> dict[str, Tensor]:
    """`occupancy`, `occupied_iou` and `standing_iou`, see `occupancy_losses`, of what `voxel_outputs` returned.

    Args:
        outputs: of the network.
        batch: with occupancy labels. Raises DataError without.
        class_weight: (K,).
        class_names: the K classes, the last one is free space.
        occupied, standing: factors on the second and the third.
    """
    truth, share = batch.need(OccupancyLabels), outputs.get("column_share", 1.0)
    labels, mask = (t.transpose(1, 2).flatten(0, 2) for t in (truth.semantics, truth.mask_camera))  # (B*Y*X, Z)
    if "occ_logits" in outputs:
        logits = outputs["occ_logits"].transpose(1, 2).flatten(0, 2)
    else:
        columns, logits = outputs["columns"], outputs["column_logits"]
        labels, mask = labels[columns], mask[columns]
    flat = tuple(i for i, name in enumerate(class_names) if name in FLAT_CLASSES)
    cross_entropy, occupied_iou, standing_iou = occupancy_losses(logits, labels, mask, class_weight, len(class_names) - 1, share, flat)
    return {"occupancy": cross_entropy, "occupied_iou": occupied * occupied_iou, "standing_iou": standing * standing_iou}
