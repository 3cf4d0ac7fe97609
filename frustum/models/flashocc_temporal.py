"""FlashOCC over time with a camera-aware depth net: what the published 4D networks share, panoptic and stereo ones.

each frame: images -> image network -> depth net (told the calibration) -> LiftSplat -> one residual block
all frames: maps aligned by the ego motion (nn/temporal.py) and joined -> CustomResNet + FpnLss -> channel-to-height -> voxel logits

Module names are those of the published checkpoints.
Shape letters: B batch, N cameras, M = B * N images, h w feature map, C channels, D depth bins, F past frames, K classes, X Y Z voxels.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import NonNegativeInt
from torch import Tensor

from frustum.config import TRAVELS
from frustum.geometry import CameraRig
from frustum.models.flashocc import FlashOccConfig, LiftSplatOccupancy
from frustum.nn.bev import CustomResNet, FpnLss
from frustum.nn.depth_net import CameraAwareLiftSplat, camera_vector
from frustum.nn.occupancy_head import ChannelToHeight
from frustum.nn.temporal import Align, Before, Frame, TemporalModel


class TemporalConfig(FlashOccConfig):
    """Settings of a network over time: those of FlashOCC, and

    Attributes:
        history: F, past keyframes whose maps are joined with the keyframe's; `data.history` must bring them.
        align: how past maps are brought into the keyframe's ego frame in evaluation and streaming, see nn/temporal.py. `warp` is correct;
            `warp_reference` is what the published figures were most likely measured with.
        train_align: the same in training; `lift` as published.
    """

    history: NonNegativeInt = 0
    align: Annotated[Align, TRAVELS] = "warp"
    train_align: Align = "lift"

    @property
    def frames_before(self) -> int:
        """Past keyframes that the network reads, for `data.history`."""
        return self.history


class TemporalOccupancy(LiftSplatOccupancy, TemporalModel):
    """Occupancy from the keyframe and F past ones; `forward` and `step` come from `nn.temporal.TemporalModel`.

    Outputs are those of the keyframe
        image_features: (M, neck_channels, h, w)
        depth: (M, D, h, w) probability of each depth bin
        pooled: (B, lift_channels, Y, X)
    and of all frames together
        bev: (B, bev_channels, Y, X)
        occ_logits: (B, X, Y, Z, K)
    """

    config: TemporalConfig

    def __init__(self, config: TemporalConfig):
        super().__init__(config, config.grid.collapsed_z())
        c = config.lift_channels
        self.map_grid, self.history = config.grid, config.history
        self.align, self.train_align = config.align, config.train_align
        self.img_view_transformer = CameraAwareLiftSplat(config.neck_channels, c, self.img_view_transformer.splat)
        self.pre_process_net = CustomResNet(c, (c,), (1,), (1,)) if config.history else None
        self.img_bev_encoder_backbone = CustomResNet(c * (1 + config.history), (2 * c, 4 * c, 8 * c))
        self.img_bev_encoder_neck = FpnLss(2 * c + 8 * c, config.bev_channels)
        self.occ_head = ChannelToHeight(config.bev_channels, config.grid.shape[2], len(config.class_names))

    def see(self, frame: Frame, told: Tensor, before: Before | None) -> dict[str, Tensor]:
        """Image features, and depth and context of each pixel; see `TemporalModel.see`."""
        features = self.img_neck(self.img_backbone(frame.images.flatten(0, 1)))
        cameras = camera_vector(frame.rig, told, frame.bev_aug).to(features.device)
        return {"image_features": features, "lifted": self.img_view_transformer.depth_net(features, cameras)}

    def place(self, lifted: Tensor, rig: CameraRig, ego2global: Tensor, bev_aug: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Pooled features, prepared for being joined with those of other frames if there are any; see `TemporalModel.place`."""
        pooled, depth = self.img_view_transformer.spread(lifted, rig, ego2global, bev_aug)
        own = pooled if self.pre_process_net is None else self.pre_process_net(pooled)[0]
        return own, {"depth": depth, "pooled": pooled}

    def read(self, maps: Tensor) -> dict[str, Tensor]:
        """Encoder over the joined maps, and the occupancy head."""
        stages = self.img_bev_encoder_backbone(maps)
        bev = self.img_bev_encoder_neck(stages[0], stages[2])
        return {"bev": bev, "occ_logits": self.occ_head(bev)}
