"""Panoptic-FlashOcc small enough for two CPU cores: FlashOccTiny with the centre head and grouping of Panoptic-FlashOcc.

images -> FlashOccTiny -> voxel logits
          its map at half resolution -> centre head -> peaks per class -> voxels grouped by class

Losses on voxels are FlashOccTiny's; what the centre head adds, in training and in time, is all that differs.
Shape letters: B batch, N cameras, h w feature map, D depth bins, K classes, X Y Z voxels.
"""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor

from frustum.data.classes import DETECTION_CLASSES
from frustum.data.types import Batch, Prediction
from frustum.models.flashocc_tiny import FlashOccTiny, FlashOccTinyConfig
from frustum.models.panoptic_flashocc import InstanceConfig, instance_losses, panoptic_predictions
from frustum.nn.centre_head import CentreHead


class PanopticFlashOccMiniConfig(InstanceConfig, FlashOccTinyConfig):
    """Settings of PanopticFlashOccMini: those of FlashOccTiny and of the instance part, and

    Attributes:
        centre_channels: width of the centre head.
    """

    centre_channels: PositiveInt = 32

    def build(self) -> PanopticFlashOccMini:  # type: ignore[override]
        """The network; only the encoder may start from trained weights."""
        return PanopticFlashOccMini(self)


class PanopticFlashOccMini(FlashOccTiny):
    """Single-frame panoptic occupancy for small machines.

    `forward` returns
        depth: (B * N, D, h, w) probability of each depth bin, stride 8
        bev: (B, 2 * bev_channels, Y / 2, X / 2)
        occ_logits: (B, X, Y, Z, K), or in training columns, column_share and column_logits, as FlashOccTiny
        columns: (n,) int64 drawn columns, index into the flattened (B, Y, X)
        column_share: (n,) how many columns each one stands for
        column_logits: (n, Z, K)
    and with instances, for the ten classes of DETECTION_CLASSES,
        heatmap: (B, 10, Y / 2, X / 2) logits of object centres
        reg: (B, 2, Y / 2, X / 2) x and y of the centre relative to its cell, in cells
        height: (B, 1, Y / 2, X / 2) z of the centre in metres
    """

    config: PanopticFlashOccMiniConfig

    def __init__(self, config: PanopticFlashOccMiniConfig):
        super().__init__(config)
        self.map_grid = config.grid.scaled(2, 2)
        self.centre_head = CentreHead(2 * config.bev_channels, len(DETECTION_CLASSES), config.centre_channels) if config.instances else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        outputs = super().forward(batch)
        return outputs if self.centre_head is None else outputs | self.centre_head(outputs["bev"])

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The losses of FlashOccTiny, and `centre_*`, which need boxes."""
        return super().loss(outputs, batch) | instance_losses(outputs, batch, self.config, self.map_grid)

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The most likely class of every voxel, and its object (`PanopticOccupancy`) if the network has the instance part."""
        return panoptic_predictions(super().predict(outputs, batch), outputs, self.config, self.map_grid)
