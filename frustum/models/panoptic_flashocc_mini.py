"""Panoptic-FlashOcc small enough for two CPU cores: FlashOccTiny with the centre head, grouping and history of Panoptic-FlashOcc.

each frame: images -> FlashOccTiny's encoder, lift and pooling (-> one convolution, if there are several frames)
all frames: maps aligned by the ego motion and joined -> FlashOccTiny's U-Net -> voxel logits
            its map at half resolution -> centre head -> peaks per class -> voxels grouped by class

Losses on voxels are FlashOccTiny's; without history, what the centre head adds in training and in time is all that differs from it.
Shape letters: B batch, N cameras, M = B * N images, h w feature map, D depth bins, F past frames, K classes, X Y Z voxels.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from frustum.config import TRAVELS
from frustum.geometry import CameraRig
from frustum.models.flashocc_tiny import FlashOccTiny, FlashOccTinyConfig
from frustum.models.panoptic_flashocc import InstanceConfig, instance_losses, panoptic_predictions
from frustum.nn.centre_head import CentreHead
from frustum.nn.temporal import Align, Before, Frame, TemporalModel, TemporalState
from frustum.nn.temporal_checks import Frames
from frustum.nn.unet import ConvNorm, UNet
from frustum.types.batch import Batch
from frustum.types.classes import DETECTION_CLASSES
from frustum.types.predictions import Prediction


class PanopticFlashOccMiniConfig(InstanceConfig, FlashOccTinyConfig):
    """Settings of PanopticFlashOccMini: those of FlashOccTiny and of the instance part, and

    Attributes:
        centre_channels: width of the centre head.
        history: F, past keyframes whose maps are joined with the keyframe's; `data.history` must bring them.
        align: how past maps are brought into the keyframe's ego frame, in training too, see nn/temporal.py.
        centre_loss: weight of the losses of the centre head. FlashOccTiny's losses of voxels are far smaller than the published ones; with
            a weight of 1, centres are learned at the cost of voxels.
    """

    centre_channels: PositiveInt = 32
    centre_loss: NonNegativeFloat = 0.2
    history: NonNegativeInt = 0
    align: Annotated[Align, TRAVELS] = "warp"

    @property
    def frames_before(self) -> int:
        """Past keyframes that the network reads, for `data.history`."""
        return self.history

    def build(self) -> PanopticFlashOccMini:  # type: ignore[override]
        """The network; only the encoder may start from trained weights."""
        return PanopticFlashOccMini(self)


class PanopticFlashOccMini(FlashOccTiny, TemporalModel):
    """Panoptic occupancy for small machines, from the keyframe and F past ones; `step` runs it over a stream.

    `forward` returns
        depth: (B * N, D, h, w) probability of each depth bin, stride 8, of the keyframe
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
        width, pooled = config.bev_channels, config.grid.shape[2] // 2 * config.lift_channels
        self.map_grid, self.history = config.grid.scaled(2, 2), config.history
        self.align = self.train_align = config.align
        self.frame_net = ConvNorm(pooled, width) if config.history else None
        if config.history:
            self.bev_net = UNet((1 + config.history) * width, width)
        self.centre_head = None
        if config.instances:
            self.centre_head = CentreHead(2 * width, len(DETECTION_CLASSES), config.centre_channels)
            if not config.centre_loss:
                self.centre_head.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, batch: Batch) -> dict[str, Tensor]:  # type: ignore[override]
        """Outputs for the keyframe of each sample; see the class, and `TemporalModel.forward` for what is refused."""
        outputs = TemporalModel.forward(self, batch)
        return outputs | self.read_out(self.cells_of(outputs["bev"]), batch)

    @torch.no_grad()
    def step(self, batch: Frames, state: TemporalState | None = None) -> tuple[dict[str, Tensor], TemporalState]:
        """Outputs for the newest frame of a stream; see `TemporalModel.step`."""
        outputs, state = super().step(batch, state)
        return outputs | {"occ_logits": self.logits_of(self.cells_of(outputs["bev"]))}, state

    def see(self, frame: Frame, told: Tensor, before: Before | None) -> dict[str, Tensor]:
        """Depth and context of each pixel; see `TemporalModel.see`."""
        return {"lifted": self.look(frame.images, frame.rig)}

    def place(self, lifted: Tensor, rig: CameraRig, ego2global: Tensor, bev_aug: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """One frame's part of the map; see `TemporalModel.place`."""
        depth, pooled = self.spread(lifted, rig, ego2global, bev_aug)
        return pooled if self.frame_net is None else self.frame_net(pooled), {"depth": depth}

    def read(self, maps: Tensor) -> dict[str, Tensor]:
        """The map of all frames, and object centres."""
        bev = self.bev_net(maps)
        return {"bev": bev} | ({} if self.centre_head is None else self.centre_head(bev))

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The losses of FlashOccTiny, and `centre_*`, which need boxes."""
        return super().loss(outputs, batch) | instance_losses(outputs, batch, self.config, self.map_grid)

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The most likely class of every voxel, and its object (`PanopticOccupancy`) if the network has the instance part."""
        return panoptic_predictions(super().predict(outputs, batch), outputs, self.config, self.map_grid)
