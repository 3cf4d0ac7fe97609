"""Panoptic-FlashOcc small enough for two CPU cores: FlashOccTiny with the centre head, grouping and history of Panoptic-FlashOcc.

each frame: images -> SmallTrunk, as FlashOccTiny (-> one convolution, if there are several frames)
all frames: maps aligned by the ego motion and joined -> FlashOccTiny's U-Net -> voxel logits
            its map at half resolution -> centre head -> peaks per class -> voxels grouped by class

Losses on voxels are FlashOccTiny's; without history, what the centre head adds in training and in time is all that differs from it.
Shape letters: B batch, N cameras, M = B * N images, h w feature map, D depth bins, F past frames, K classes, X Y Z voxels.
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
from frustum.models.panoptic_flashocc import instance_labels, instance_losses
from frustum.nn.centre_head import CentreHead
from frustum.nn.conv import ConvNorm
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.instances import InstanceConfig, panoptic_predictions, upgraded_instances
from frustum.nn.occupancy_head import occupancy_predictions, start_at_prior
from frustum.nn.small_trunk import RENAMED, EvenGrid, SmallTrunk, doubled
from frustum.nn.temporal import History, HistoryConfig, upgraded_history
from frustum.nn.temporal_state import Previous, TemporalState
from frustum.nn.temporal_stream import StreamedForward
from frustum.nn.unet import UNet
from frustum.ops.bev_pool import Backend
from frustum.types.batch import Batch
from frustum.types.classes import DETECTION_CLASSES, OCC3D_CLASSES
from frustum.types.contract import ClassNames, Label, ModelConfig, Reads
from frustum.types.frame import Frame
from frustum.types.predictions import Prediction


class PanopticFlashOccMiniConfig(ModelConfig):
    """Settings of PanopticFlashOccMini.

    Attributes:
        pretrained: start the encoder from ImageNet weights: those of the package (true, extra `pretrained`), or of a timm file (its path).
        frozen_blocks: blocks of the encoder that are not trained, 0 to 11.
        neck_channels: channels of the image features.
        history: past keyframes, none by default; trained with the alignment that it is evaluated with.
        depth_bins: D candidate depths.
        grid: the labelled voxels, in the ego frame of the keyframe; even numbers along each axis.
        lift_channels: C, context channels per height bin.
        bev_channels: width of the U-Net at its finest level, and of the maps that are joined.
        voxel_channels: channels of a full-resolution cell before its heights and classes are read out.
        instances: separate objects; null makes it a semantic network without the centre head. FlashOccTiny's losses of voxels are far
            smaller than the published ones; with a `centre_loss` of 1, centres are learned at the cost of voxels.
        centre_channels: width of the centre head.
        class_names: the K classes; the last one is free space.
        class_weight_power: classes weigh (frequency / frequency of free) ** -power.
        free_columns: columns of observed free space drawn per sample in training; columns with anything occupied are all used.
        occupied_iou_loss, standing_iou_loss: weights of the soft IoU of occupied space, and of what is in no flat class.
        depth_loss: weight of the depth supervision; 0 needs no depth maps.
        pool: backend of the pooling.
    """

    image_multiple: ClassVar[int] = 16
    renamed: ClassVar[dict[str, str]] = RENAMED

    pretrained: Pretrained = True
    frozen_blocks: int = Field(5, ge=0, le=11)
    neck_channels: PositiveInt = 64
    history: HistoryConfig = HistoryConfig(train_align=None)
    depth_bins: DepthBins = DepthBins(start=1, stop=45, step=1)
    grid: EvenGrid = VoxelGrid.occ3d()
    lift_channels: PositiveInt = 16
    bev_channels: PositiveInt = 32
    voxel_channels: PositiveInt = 32
    instances: InstanceConfig | None = InstanceConfig(centre_loss=0.2)
    centre_channels: PositiveInt = 32
    class_names: ClassNames = OCC3D_CLASSES
    class_weight_power: NonNegativeFloat = 0.35
    free_columns: PositiveInt = 3000
    occupied_iou_loss: NonNegativeFloat = 1.0
    standing_iou_loss: NonNegativeFloat = 1.0
    depth_loss: NonNegativeFloat = 0.3
    pool: Backend = "auto"

    @classmethod
    def upgraded(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Settings of the first version, which had those of history and instances side by side, and one `align` for all."""
        found = upgraded_instances(upgraded_history(stored))
        history = found.get("history")
        return found | {"history": {"train_align": None} | history} if isinstance(history, dict) else found

    def reads(self) -> Reads:
        """The past keyframes that are joined."""
        return Reads(past=self.history.frames)

    def learns_from(self) -> tuple[Label[Any], ...]:
        """Occupancy, and depth and boxes where they have a weight."""
        return occupancy_labels(self.grid, self.class_names, self.depth_loss) + instance_labels(self.instances)

    def build(self) -> PanopticFlashOccMini:
        """The network; only the encoder may start from trained weights."""
        return PanopticFlashOccMini(self)


class PanopticFlashOccMini(nn.Module):
    """Panoptic occupancy for small machines, from the keyframe and F past ones; `step` runs it over a stream.

    `forward` returns
        depth: (B * N, D, h, w) probability of each depth bin, stride 8, of the keyframe
        bev: (B, 2 * bev_channels, Y / 2, X / 2)
        occ_logits: (B, X, Y, Z, K), or in training on a CPU columns, column_share and column_logits, as FlashOccTiny
        columns: (n,) int64 drawn columns, index into the flattened (B, Y, X)
        column_share: (n,) how many columns each one stands for
        column_logits: (n, Z, K)
    and with instances, for the ten classes of DETECTION_CLASSES,
        heatmap: (B, 10, Y / 2, X / 2) logits of object centres
        reg: (B, 2, Y / 2, X / 2) x and y of the centre relative to its cell, in cells
        height: (B, 1, Y / 2, X / 2) z of the centre in metres
    """

    all_outputs = False

    def __init__(self, config: PanopticFlashOccMiniConfig):
        super().__init__()
        self.config, self.map_grid = config, config.grid.scaled(2, 2)
        width, frames, classes = config.bev_channels, config.history.frames, len(config.class_names)
        self.trunk = SmallTrunk(
            config.grid, config.depth_bins, config.neck_channels, config.lift_channels, config.pretrained, config.frozen_blocks, config.pool
        )
        self.history = History(config.history, self.map_grid)
        self.bev_net = UNet((1 + frames) * width if frames else self.trunk.out_channels, width)
        self.refine = nn.Conv2d(2 * width, 4 * config.voxel_channels, 1)
        self.head = nn.Linear(config.voxel_channels, config.grid.shape[2] * classes)
        self.frame_net = ConvNorm(self.trunk.out_channels, width) if frames else None
        self.centre_head = None
        if config.instances is not None:
            centres = CentreHead(2 * width, len(DETECTION_CLASSES), config.centre_channels)
            self.centre_head = centres if config.instances.centre_loss else centres.requires_grad_(False)
        self.class_weight = nn.Buffer(torch.ones(classes))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def prepare(self, statistics: Mapping[type[Label[Any]], Mapping[str, np.ndarray]]) -> None:
        """Start from the statistics of the labels: class weights, and the weighted log prior of each height as the last bias."""
        start_at_prior(self.head, self.class_weight, statistics[OccupancyLabels]["counts"], self.config.class_weight_power)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample, from all its frames; see the class, and `nn.temporal.History` for what is refused."""
        maps, outputs = self.history(batch, self.encode, self.lift_to_bev, training=self.training)
        return outputs | self.heads(maps, batch)

    @torch.no_grad()
    def step(self, batch: Batch, state: TemporalState | None = None) -> tuple[dict[str, Tensor], TemporalState]:
        """Outputs for the newest frame of a stream, and the state for the next call; see `nn.temporal.History.step`."""
        maps, outputs, state = self.history.step(batch, state, self.encode, self.lift_to_bev, training=self.training)
        return outputs | self.heads(maps, batch), state

    def streamed(self) -> StreamedForward:
        """A `forward` that remembers: keyframes in order cost one step each."""
        return StreamedForward(self, self.history)

    def encode(self, frame: Frame, cam2key: Tensor, previous: Previous | None = None) -> dict[str, Tensor]:
        """Depth and context of each pixel; see `nn.temporal.Encode`."""
        return {"lifted": self.trunk.encode(frame)}

    def lift_to_bev(self, lifted: Tensor, frame: Frame) -> tuple[Tensor, dict[str, Tensor]]:
        """One frame's part of the map; see `nn.temporal.LiftToBev`."""
        pooled, depth = self.trunk.lift_to_bev(lifted, frame)
        return pooled if self.frame_net is None else self.frame_net(pooled), {"depth": depth}

    def heads(self, maps: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The map of all frames, object centres, and the class of every voxel, in training of those columns that the loss needs."""
        bev = self.bev_net(maps)
        outputs = {"bev": bev} | ({} if self.centre_head is None else self.centre_head(bev))
        cells = doubled(self.refine(bev)).relu()  # (B, Y, X, c)
        draws, free = self.training and not self.all_outputs, len(self.config.class_names) - 1
        labels = batch.labels.get(OccupancyLabels) if draws else None
        return outputs | voxel_outputs(cells, self.logits, labels, self.config.free_columns, free)

    def logits(self, cells: Tensor) -> Tensor:
        """Cells (*, voxel_channels) at full resolution -> (*, Z, K)."""
        return self.head(cells).unflatten(-1, (-1, len(self.config.class_names)))

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The losses of FlashOccTiny, and `centre_*`, which need boxes."""
        config = self.config
        losses = column_losses(outputs, batch, self.class_weight, config.class_names, config.occupied_iou_loss, config.standing_iou_loss)
        losses |= depth_losses(outputs, batch, config.depth_loss, config.depth_bins, depth_cross_entropy)
        return losses | instance_losses(outputs, batch, config.instances, self.map_grid)

    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The most likely class of every voxel, and its object if the network has the instance part."""
        config = self.config
        found = occupancy_predictions(outputs["occ_logits"], batch.tokens, config.grid, config.class_names)
        return panoptic_predictions(found, outputs, config.instances, self.map_grid) if config.instances else found

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`, the image encoder."""
        return {"encoder": list(self.trunk.encoder.parameters())}
