"""FlashOCC with stereo over time (M2, and M3 with a Swin transformer): keyframe and one past keyframe, each matched with the previous one.

each frame: images -> image network -> depth net, which reads how well each depth explains the previous frame (nn/stereo.py) -> LiftSplat
            -> one residual block
all frames: maps aligned (nn/temporal.py) and joined, oldest first -> CustomResNet + FpnLss -> channel-to-height -> voxel logits

The oldest frame of a batch serves the matching only. Module names are those of the published checkpoints.
Shape letters: B batch, N cameras, M = B * N images, h w feature map, C channels, D depth bins, F past frames, K classes, X Y Z voxels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor, nn

from frustum.geometry import CameraRig, VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.geometry.transforms import send
from frustum.losses.occupancy import ClassBalance, flashocc_class_weights
from frustum.models.flashocc import flashocc_losses, occupancy_labels
from frustum.models.view_rendering import RenderLoss, render_losses, render_memory
from frustum.nn.bev import CustomResNet, FpnLss, MapGrid, ResidualStages
from frustum.nn.depth_net import camera_vector
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.encoders.resnet import ResNet
from frustum.nn.encoders.swin import SwinConfig, SwinTransformer
from frustum.nn.fpn import CustomFPN
from frustum.nn.lift_splat import LiftSplat, Sampling, Splat, VoxelRounding, rounding_of
from frustum.nn.occupancy_head import ChannelToHeight, occupancy_predictions
from frustum.nn.stereo import StereoDepthNet, matching
from frustum.nn.temporal import History, HistoryConfig, upgraded_history
from frustum.nn.temporal_state import Previous, TemporalState
from frustum.nn.temporal_stream import StreamedForward
from frustum.nn.voxel import BasicBlock3D, CustomResNet3D, LssFpn3D, VoxelHead, as_voxels
from frustum.ops.bev_pool import Backend
from frustum.types.batch import Batch
from frustum.types.classes import OCC3D_CLASSES
from frustum.types.contract import ClassNames, Label, Memory, ModelConfig, Reads
from frustum.types.frame import Frame
from frustum.types.predictions import Prediction


class FlashOccStereoConfig(ModelConfig):
    """Settings of FlashOccStereo.

    Attributes:
        resnet: 18, 34, 50 or 101.
        swin: a Swin transformer in place of the ResNet (M3), with a neck of its own.
        pretrained: start the encoder from the weights of a package (true, ResNet-50) or of a torchvision or timm file (its path).
        neck_channels: channels of the image features.
        history: at least one past keyframe; one more is read for the matching.
        depth_bins: D candidate depths.
        grid: the labelled voxels, in the ego frame of the keyframe; even numbers of cells along x and y.
        lift_channels: C, channels of the pooled map or voxels.
        bev_channels: channels of the map, or of the voxels, that the head reads.
        voxels: features for voxels and 3D convolutions instead of a map: BEVDet's stereo occupancy network, which RenderOcc trains.
        voxel_rounding: how a point finds its cell, see `FlashOccConfig`.
        sampling: where in the image a feature stands, see `nn.lift_splat.feature_pixels`; `corners` as published.
        class_names: the K classes; the last one is free space.
        camera_mask: train on voxels that a camera observed only.
        class_balance: weigh classes by FlashOCC's frequency table of Occ3D-nuScenes; needs its 18 classes.
        depth_loss: weight of the depth supervision; 0 needs no depth maps.
        render: learn from 2D labels by rendering, too (docs/methods/gsrender.md).
        pool: backend of the pooling.
    """

    image_multiple: ClassVar[int] = 32

    resnet: int = 50
    swin: SwinConfig | None = None
    pretrained: Pretrained = False
    neck_channels: PositiveInt = 256
    history: HistoryConfig = HistoryConfig(frames=1)
    depth_bins: DepthBins = DepthBins(start=1, stop=45, step=0.5, spacing="sid")
    grid: MapGrid = VoxelGrid.occ3d()
    lift_channels: PositiveInt = 80
    bev_channels: PositiveInt = 256
    voxels: bool = False
    voxel_rounding: VoxelRounding = "floor"
    sampling: Sampling = "corners"
    class_names: ClassNames = OCC3D_CLASSES
    camera_mask: bool = True
    class_balance: ClassBalance = False
    depth_loss: NonNegativeFloat = 0.05
    render: RenderLoss | None = None
    pool: Backend = "auto"

    @model_validator(mode="after")
    def _fits_together(self) -> FlashOccStereoConfig:
        if self.swin is not None and self.pretrained:
            raise ValueError("model.pretrained fills a ResNet; start model.swin from a checkpoint (frustum train --init FILE)")
        if not self.history.frames:
            raise ValueError("stereo over time joins at least one past keyframe; set model.history.frames=1 or more")
        return self

    @classmethod
    def upgraded(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Settings of the first version, which had `history`, `align` and `train_align` side by side."""
        return upgraded_history(stored)

    def reads(self) -> Reads:
        """One past keyframe more than are joined."""
        return Reads(past=self.history.frames + 1)

    def learns_from(self) -> tuple[Label[Any], ...]:
        """Occupancy, and depth where it has a weight."""
        return occupancy_labels(self.grid, self.class_names, self.depth_loss, self.render)

    def memory(self, batch_size: int, device: str) -> Memory | None:
        """What `render` needs; nothing is known without it."""
        return render_memory(self.render, self.grid, self.class_names, batch_size)

    def build(self) -> FlashOccStereo:
        """The network with random weights."""
        return FlashOccStereo(self)


class FlashOccStereo(nn.Module):
    """FlashOCC with stereo over time; `step` runs it over a stream.

    `forward` returns, of the keyframe
        image_features: (M, neck_channels, h, w)
        matching: (M, D, 4 h, 4 w) probability of each depth from the likeness to the previous frame
        depth: (M, D, h, w) probability of each depth bin
        pooled: (B, lift_channels, Y, X), or (B, Z * lift_channels, Y, X) with `voxels`
    and of all frames together
        bev: (B, bev_channels, Y, X), or voxels: (B, bev_channels, Z, Y, X)
        occ_logits: (B, X, Y, Z, K); as the trunk of another network (models/occupancy_trunk.py) `numbers` of each voxel in place of K
    """

    class_weight: Tensor | None
    pre_process_net: nn.Module
    img_bev_encoder_backbone: nn.Module
    img_bev_encoder_neck: nn.Module
    occ_head: nn.Module

    def __init__(self, config: FlashOccStereoConfig, numbers: int | None = None):
        super().__init__()
        self.config = config
        neck, c = config.neck_channels, config.lift_channels
        self.img_backbone, self.img_neck, self.first_stage = _image_network(config)
        pooled = config.grid if config.voxels else config.grid.collapsed_z()
        splat = Splat(pooled, config.depth_bins, rounding_of(config.voxel_rounding), config.sampling, config.pool)
        self.img_view_transformer = LiftSplat(neck, c, splat, StereoDepthNet(neck, neck, c, config.depth_bins.count))
        self.history = History(config.history, config.grid, newest_first=False, compares_images=True)
        joined, numbers = c * (1 + config.history.frames), numbers or len(config.class_names)
        if config.voxels:
            self.pre_process_net = ResidualStages(c, (c,), (1,), (1,), BasicBlock3D)
            self.img_bev_encoder_backbone = CustomResNet3D(joined, (c, 2 * c, 4 * c))
            self.img_bev_encoder_neck = LssFpn3D(c + 2 * c + 4 * c, config.bev_channels)
            self.occ_head = VoxelHead(config.bev_channels, numbers)
        else:
            self.pre_process_net = CustomResNet(c, (c,), (1,), (1,))
            self.img_bev_encoder_backbone = CustomResNet(joined, (2 * c, 4 * c, 8 * c))
            self.img_bev_encoder_neck = FpnLss(2 * c + 8 * c, config.bev_channels)
            self.occ_head = ChannelToHeight(config.bev_channels, config.grid.shape[2], numbers)
        self.register_buffer("class_weight", flashocc_class_weights() if config.class_balance else None, persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample, from all its frames; see the class, and `nn.temporal.History` for what is refused."""
        maps, outputs = self.history(batch, self.encode, self.lift_to_bev, self.matching_features, training=self.training)
        return outputs | self.heads(maps)

    @torch.no_grad()
    def step(self, batch: Batch, state: TemporalState | None = None) -> tuple[dict[str, Tensor], TemporalState]:
        """Outputs for the newest frame of a stream, and the state for the next call; see `nn.temporal.History.step`."""
        maps, outputs, state = self.history.step(batch, state, self.encode, self.lift_to_bev, training=self.training)
        return outputs | self.heads(maps), state

    def streamed(self) -> StreamedForward:
        """A `forward` that remembers: keyframes in order cost one step each."""
        return StreamedForward(self, self.history)

    def matching_features(self, frame: Frame) -> Tensor:
        """Features that the next frame is compared with."""
        return self.img_backbone(frame.images.flatten(0, 1), outputs=(self.first_stage,))[0]

    def encode(self, frame: Frame, cam2key: Tensor, previous: Previous | None) -> dict[str, Tensor]:
        """Image features, matching with the previous frame, and depth and context of each pixel; see `nn.temporal.Encode`.

        A frame without a previous one is matched with itself, from which nothing follows.
        """
        fine, *coarse = self.img_backbone(frame.images.flatten(0, 1))
        features = self.img_neck(coarse)
        other, rig = (fine, frame.rig) if previous is None else _previous_or_own(previous, fine, frame.rig)
        bins, rounded = self.config.depth_bins.values(), self.config.voxel_rounding == "reference"
        likely = matching(fine, other, frame.rig, rig, bins, self.config.sampling, as_reference=rounded)
        cameras = camera_vector(frame, cam2key, features.device)
        lifted = self.img_view_transformer.depth_net(features, cameras, likely)
        return {"image_features": features, "matching": likely, "lifted": lifted, "compared": fine.detach()}

    def lift_to_bev(self, lifted: Tensor, frame: Frame) -> tuple[Tensor, dict[str, Tensor]]:
        """Pooled features, prepared for being joined with those of other frames; see `nn.temporal.LiftToBev`."""
        pooled, depth = self.img_view_transformer.splat.lift(lifted, frame)
        outputs = {"depth": depth, "pooled": pooled}
        if not self.config.voxels:
            return self.pre_process_net(pooled)[0], outputs
        volume = self.pre_process_net(as_voxels(pooled, self.config.grid.shape[2]))[0]
        return volume.transpose(1, 2).flatten(1, 2), outputs  # heights and channels together, to be moved as a map

    def heads(self, maps: Tensor) -> dict[str, Tensor]:
        """Encoder over the joined maps, and the occupancy head."""
        if self.config.voxels:  # of each frame (Z * C) -> of each height (frames * C)
            heights, frames = self.config.grid.shape[2], 1 + self.config.history.frames
            maps = maps.unflatten(1, (frames, heights, -1)).transpose(2, 3).flatten(1, 2)
        bev = self.img_bev_encoder_neck(self.img_bev_encoder_backbone(maps))
        return {"voxels" if self.config.voxels else "bev": bev, "occ_logits": self.occ_head(bev)}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`occupancy` cross-entropy, `depth` and those of `render` where configured."""
        config = self.config
        losses = flashocc_losses(outputs, batch, self.class_weight, config.camera_mask, config.depth_loss, config.depth_bins)
        return losses | render_losses(outputs["occ_logits"], batch, config.grid, config.class_names, config.render)

    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The most likely class of every voxel."""
        return occupancy_predictions(outputs["occ_logits"], batch.tokens, self.config.grid, self.config.class_names)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`, the image encoder."""
        return {"encoder": list(self.img_backbone.parameters())}


def _image_network(config: FlashOccStereoConfig) -> tuple[nn.Module, nn.Module, int]:
    """Encoder, whose first output at stride 4 is compared over time, neck over the others, and the stage of the first output."""
    if config.swin is None:
        resnet = ResNet(config.resnet, outputs=(1, 3, 4), pretrained=config.pretrained)
        return resnet, CustomFPN(resnet.out_channels[1:], config.neck_channels), 1
    swin = SwinTransformer(config.swin, outputs=(2, 3), raw_outputs=(0,))
    return swin, FpnLss(sum(swin.out_channels[1:]), config.neck_channels, doubles=False), 0


def _previous_or_own(previous: Previous, own: Tensor, rig: CameraRig) -> tuple[Tensor, CameraRig]:
    """Features (M, C, h, w) and rig of the previous frame; own ones in the samples where it is missing."""
    there = previous.is_present
    if there.all():
        return previous.features, previous.rig
    images = send(there.repeat_interleave(rig.num_cameras), own.device)[:, None, None, None]
    matrices: dict[str, Any] = {
        name: torch.where(there[:, None, None, None], getattr(previous.rig, name), getattr(rig, name))
        for name in ("intrinsics", "cam2ego", "ego2global", "image_aug")
    }
    return torch.where(images, previous.features, own.detach()), replace(rig, **matrices)
