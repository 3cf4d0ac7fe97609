"""FlashOCC with stereo over time (M2, and M3 with a Swin transformer): keyframe and one past keyframe, each matched with the one before.

each frame: images -> image network -> depth net, shown how well each depth explains the frame before (nn/stereo.py) -> LiftSplat
all frames: maps aligned and joined, oldest first -> CustomResNet + FpnLss -> channel-to-height -> voxel logits

The oldest frame of a batch serves the matching only. Module names are those of the published checkpoints.
Shape letters: B batch, N cameras, M = B * N images, h w feature map, C channels, D depth bins, F past frames, K classes, X Y Z voxels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor, nn

from frustum.geometry import CameraRig
from frustum.geometry.depth import DepthBins
from frustum.models.flashocc import FlashOccConfig
from frustum.models.flashocc_temporal import TemporalConfig, TemporalOccupancy
from frustum.nn.bev import FpnLss
from frustum.nn.depth_net import camera_vector
from frustum.nn.encoders.resnet import ResNet
from frustum.nn.encoders.swin import SwinConfig, SwinTransformer
from frustum.nn.fpn import CustomFPN
from frustum.nn.lift_splat import LiftSplat
from frustum.nn.stereo import StereoDepthNet, matching
from frustum.nn.temporal import Before, Frame


class FlashOccStereoConfig(TemporalConfig):
    """Settings of FlashOccStereo: those of a network over time, and

    Attributes:
        history: F past keyframes whose maps are joined; one more is read for the matching.
        swin: a Swin transformer in place of the ResNet (M3), with a neck of its own.
        depth_loss: weight of the depth supervision; 0 needs no depth maps.
    """

    history: PositiveInt = 1
    depth_bins: DepthBins = DepthBins(start=1, stop=45, step=0.5, spacing="sid")
    lift_channels: PositiveInt = 80
    bev_channels: PositiveInt = 256
    swin: SwinConfig | None = None
    depth_loss: NonNegativeFloat = 0.05

    @model_validator(mode="after")
    def _weights_are_for_the_resnet(self) -> FlashOccStereoConfig:
        if self.swin is not None and self.pretrained:
            raise ValueError(
                "model.pretrained fills a ResNet; start a network with model.swin from a checkpoint (frustum train --init FILE)"
            )
        return self

    @property
    def frames_before(self) -> int:
        """Past keyframes that the network reads, for `data.history`."""
        return self.history + 1

    def build(self) -> FlashOccStereo:  # type: ignore[override]
        """The network with random weights."""
        return FlashOccStereo(self)


class FlashOccStereo(TemporalOccupancy):
    """FlashOCC with stereo over time; `forward` and `step` come from `nn.temporal.TemporalModel`.

    `forward` returns, of the keyframe
        image_features: (M, neck_channels, h, w)
        matching: (M, D, 4 h, 4 w) probability of each depth from the likeness to the frame before
        depth: (M, D, h, w) probability of each depth bin
        pooled: (B, lift_channels, Y, X)
    and of all frames together
        bev: (B, bev_channels, Y, X)
        occ_logits: (B, X, Y, Z, K)
    """

    config: FlashOccStereoConfig
    newest_first = False
    compares_images = True

    def __init__(self, config: FlashOccStereoConfig):
        super().__init__(config)
        neck, lift, splat = config.neck_channels, config.lift_channels, self.img_view_transformer.splat
        self.img_view_transformer = LiftSplat(neck, lift, splat, StereoDepthNet(neck, neck, lift, splat.bins.count))
        self.first_stage = 0 if config.swin else 1

    def image_network(self, config: FlashOccConfig) -> tuple[nn.Module, nn.Module]:
        """Encoder whose first output, at stride 4, is compared over time; neck over the others."""
        assert isinstance(config, FlashOccStereoConfig)
        if config.swin is None:
            resnet = ResNet(config.resnet, outputs=(1, 3, 4), pretrained=config.pretrained)
            return resnet, CustomFPN(resnet.out_channels[1:], config.neck_channels)
        swin = SwinTransformer(config.swin, outputs=(2, 3), raw_outputs=(0,))
        return swin, FpnLss(sum(swin.out_channels[1:]), config.neck_channels, doubles=False)

    def glance(self, frame: Frame) -> Tensor:
        """Features that the next frame is compared with."""
        return self.img_backbone(frame.images.flatten(0, 1), outputs=(self.first_stage,))[0]

    def see(self, frame: Frame, told: Tensor, before: Before | None) -> dict[str, Tensor]:
        """Image features, matching with the frame before, and depth and context of each pixel; see `TemporalModel.see`.

        A frame without a frame before is matched with itself, which tells nothing.
        """
        fine, *coarse = self.img_backbone(frame.images.flatten(0, 1))
        features = self.img_neck(coarse) if self.config.swin is None else self.img_neck(*coarse)
        other, rig = (fine, frame.rig) if before is None else _or_own(before, fine, frame.rig)
        bins, rounded = self.config.depth_bins.values(), self.config.voxel_rounding == "reference"
        likely = matching(fine, other, frame.rig, rig, bins, self.config.sampling, as_reference=rounded)
        cameras = camera_vector(frame.rig, told, frame.bev_aug).to(features.device)
        lifted = self.img_view_transformer.depth_net(features, cameras, likely)
        return {"image_features": features, "matching": likely, "lifted": lifted, "compared": fine.detach()}


def _or_own(before: Before, own: Tensor, rig: CameraRig) -> tuple[Tensor, CameraRig]:
    """Features (M, C, h, w) and rig of the frame before; own ones in the samples where it is missing."""
    there = before.is_present
    if there.all():
        return before.features, before.rig
    images = there.repeat_interleave(rig.num_cameras).to(own.device)[:, None, None, None]
    matrices: dict[str, Any] = {
        name: torch.where(there[:, None, None, None], getattr(before.rig, name), getattr(rig, name))
        for name in ("intrinsics", "cam2ego", "ego2global", "image_aug")
    }
    return torch.where(images, before.features, own.detach()), replace(rig, **matrices)
