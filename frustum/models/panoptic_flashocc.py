"""Panoptic-FlashOcc (Yu et al., 2024, arXiv:2406.10527): FlashOCC that separates objects by class-aware centres.

each frame: images -> ResNet -> CustomFPN -> camera-aware LiftSplat (-> one residual block, if there are several frames)
all frames: maps aligned by the ego motion (nn/temporal.py) and joined -> CustomResNet + FpnLss over the map
       -> channel-to-height -> voxel logits
       -> centre head -> peaks per class; every voxel of an object class takes the number of the nearest centre of its class

What it adds to FlashOCC: a depth net that reads the calibration, past keyframes, a loss on all voxels without a camera mask, centres.
Module names are those of the published checkpoints.
Shape letters: B batch, N cameras, M = B * N images, h w feature map, C channels, D depth bins, F past frames, K classes, X Y Z voxels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from frustum.data.labels.boxes import BoxLabels
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.geometry.grids import Rounding
from frustum.losses.centres import centre_losses, centre_targets
from frustum.losses.occupancy import ClassBalance, flashocc_class_weights
from frustum.losses.volume import affinity_losses, distance_weight, focal_loss, lovasz_softmax
from frustum.models.flashocc import depth_losses, occupancy_labels
from frustum.nn.bev import CustomResNet, FpnLss, MapGrid
from frustum.nn.centre_head import CentreHead
from frustum.nn.depth_net import DepthNet, camera_vector
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.encoders.resnet import ResNet
from frustum.nn.fpn import CustomFPN
from frustum.nn.instances import InstanceConfig, panoptic_predictions, upgraded_instances
from frustum.nn.lift_splat import LiftSplat, Sampling, Splat, VoxelRounding, rounding_of
from frustum.nn.occupancy_head import ChannelToHeight, occupancy_predictions
from frustum.nn.temporal import History, HistoryConfig, upgraded_history
from frustum.nn.temporal_state import Previous, TemporalState
from frustum.nn.temporal_stream import StreamedForward
from frustum.ops.bev_pool import Backend
from frustum.types.batch import Batch
from frustum.types.classes import DETECTION_CLASSES, IGNORE, OCC3D_CLASSES
from frustum.types.contract import ClassNames, Label, ModelConfig, Reads
from frustum.types.frame import Frame
from frustum.types.predictions import Prediction


class PanopticFlashOccConfig(ModelConfig):
    """Settings of PanopticFlashOcc.

    Attributes:
        resnet: 18, 34, 50 or 101.
        pretrained: start the encoder from the weights of a package (true, ResNet-50) or of a torchvision or timm file (its path).
        neck_channels: channels of the image features, and inside the depth net.
        history: past keyframes, none by default.
        depth_bins: D candidate depths.
        grid: the labelled voxels, in the ego frame of the keyframe; even numbers of cells along x and y.
        lift_channels: C, channels of the pooled map.
        bev_channels: channels of the map that the heads read.
        instances: separate objects; null makes it a semantic network without the centre head.
        voxel_rounding: how a point finds its cell, see `FlashOccConfig`; also how centres find theirs.
        sampling: where in the image a feature stands, see `nn.lift_splat.feature_pixels`; `corners` as published.
        class_names: the K classes; the last one is free space.
        camera_mask: train on voxels that a camera observed only; published is on all.
        class_balance: weigh the classes of the focal loss by FlashOCC's frequency table.
        depth_loss: weight of the depth supervision; 0 needs no depth maps.
        pool: backend of the pooling.
    """

    image_multiple: ClassVar[int] = 32

    resnet: int = 50
    pretrained: Pretrained = False
    neck_channels: PositiveInt = 256
    history: HistoryConfig = HistoryConfig()
    depth_bins: DepthBins = DepthBins(start=1, stop=45, step=1)
    grid: MapGrid = VoxelGrid.occ3d()
    lift_channels: PositiveInt = 64
    bev_channels: PositiveInt = 128
    instances: InstanceConfig | None = InstanceConfig()
    voxel_rounding: VoxelRounding = "floor"
    sampling: Sampling = "corners"
    class_names: ClassNames = OCC3D_CLASSES
    camera_mask: bool = False
    class_balance: ClassBalance = True
    depth_loss: NonNegativeFloat = 1.0
    pool: Backend = "auto"

    @classmethod
    def upgraded(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Settings of the first version, which had those of history and instances side by side with all others."""
        return upgraded_instances(upgraded_history(stored))

    def reads(self) -> Reads:
        """The past keyframes that are joined."""
        return Reads(past=self.history.frames)

    def learns_from(self) -> tuple[Label[Any], ...]:
        """Occupancy, and depth and boxes where they have a weight."""
        return occupancy_labels(self.grid, self.class_names, self.depth_loss) + instance_labels(self.instances)

    def build(self) -> PanopticFlashOcc:
        """The network with random weights."""
        return PanopticFlashOcc(self)


class PanopticFlashOcc(nn.Module):
    """Panoptic-FlashOcc with any number of past keyframes; `step` runs it over a stream.

    `forward` returns
        image_features: (M, neck_channels, h, w) of the keyframe
        depth: (M, D, h, w) probability of each depth bin, of the keyframe
        pooled: (B, lift_channels, Y, X) of the keyframe
        bev: (B, bev_channels, Y, X)
        occ_logits: (B, X, Y, Z, K)
    and with instances, for the ten classes of DETECTION_CLASSES,
        heatmap: (B, 10, Y, X) logits of object centres
        reg: (B, 2, Y, X) x and y of the centre relative to its cell, in cells
        height: (B, 1, Y, X) z of the centre in metres
    """

    class_weight: Tensor | None

    def __init__(self, config: PanopticFlashOccConfig):
        super().__init__()
        self.config, self.rounding = config, rounding_of(config.voxel_rounding)
        neck, c, frames = config.neck_channels, config.lift_channels, config.history.frames
        self.img_backbone = ResNet(config.resnet, outputs=(3, 4), pretrained=config.pretrained)
        self.img_neck = CustomFPN(self.img_backbone.out_channels, neck)
        splat = Splat(config.grid.collapsed_z(), config.depth_bins, self.rounding, config.sampling, config.pool)
        self.img_view_transformer = LiftSplat(neck, c, splat, DepthNet(neck, neck, c, config.depth_bins.count))
        self.history = History(config.history, config.grid)
        self.pre_process_net = CustomResNet(c, (c,), (1,), (1,)) if frames else None
        self.img_bev_encoder_backbone = CustomResNet(c * (1 + frames), (2 * c, 4 * c, 8 * c))
        self.img_bev_encoder_neck = FpnLss(2 * c + 8 * c, config.bev_channels)
        self.occ_head = ChannelToHeight(config.bev_channels, config.grid.shape[2], len(config.class_names))
        self.aux_centerness_head = None
        if config.instances is not None:
            head = CentreHead(config.bev_channels, len(DETECTION_CLASSES), idle=("dim", "rot", "vel"))
            self.aux_centerness_head = head if config.instances.centre_loss else head.requires_grad_(False)
        self.register_buffer("class_weight", flashocc_class_weights() if config.class_balance else None, persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample, from all its frames; see the class, and `nn.temporal.History` for what is refused."""
        maps, outputs = self.history(batch, self.encode, self.lift_to_bev, training=self.training)
        return outputs | self.heads(maps)

    @torch.no_grad()
    def step(self, batch: Batch, state: TemporalState | None = None) -> tuple[dict[str, Tensor], TemporalState]:
        """Outputs for the newest frame of a stream, and the state for the next call; see `nn.temporal.History.step`."""
        maps, outputs, state = self.history.step(batch, state, self.encode, self.lift_to_bev, training=self.training)
        return outputs | self.heads(maps), state

    def streamed(self) -> StreamedForward:
        """A `forward` that remembers: keyframes in order cost one step each."""
        return StreamedForward(self, self.history)

    def encode(self, frame: Frame, cam2key: Tensor, previous: Previous | None = None) -> dict[str, Tensor]:
        """Image features, and depth and context of each pixel; see `nn.temporal.Encode`."""
        features = self.img_neck(self.img_backbone(frame.images.flatten(0, 1)))
        cameras = camera_vector(frame, cam2key, features.device)
        return {"image_features": features, "lifted": self.img_view_transformer.depth_net(features, cameras)}

    def lift_to_bev(self, lifted: Tensor, frame: Frame) -> tuple[Tensor, dict[str, Tensor]]:
        """Pooled features, prepared for being joined with those of other frames if there are any; see `nn.temporal.LiftToBev`."""
        pooled, depth = self.img_view_transformer.splat.lift(lifted, frame)
        own = pooled if self.pre_process_net is None else self.pre_process_net(pooled)[0]
        return own, {"depth": depth, "pooled": pooled}

    def heads(self, maps: Tensor) -> dict[str, Tensor]:
        """Encoder over the joined maps, occupancy, and object centres."""
        bev = self.img_bev_encoder_neck(self.img_bev_encoder_backbone(maps))
        outputs = {"bev": bev, "occ_logits": self.occ_head(bev)}
        return outputs if self.aux_centerness_head is None else outputs | self.aux_centerness_head(bev)

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`focal`, `semantic_affinity`, `geometric_affinity`, `lovasz`, and where configured `depth` and `centre_*`."""
        config, truth, logits = self.config, batch.need(OccupancyLabels), outputs["occ_logits"]
        labels = truth.semantics.masked_fill(~truth.mask_camera, IGNORE) if config.camera_mask else truth.semantics
        far = distance_weight(config.grid.shape[:2], logits.device)[..., None]
        semantic, geometric = affinity_losses(logits, labels, free=len(config.class_names) - 1)
        losses = {
            "focal": 100 * focal_loss(logits, labels, self.class_weight, far),
            "semantic_affinity": semantic,
            "geometric_affinity": geometric,
            "lovasz": lovasz_softmax(logits, labels),
        }
        losses |= depth_losses(outputs, batch, config.depth_loss, config.depth_bins)
        return losses | instance_losses(outputs, batch, config.instances, config.grid, self.rounding)

    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The most likely class of every voxel, and its object if the network has the instance part."""
        config = self.config
        found = occupancy_predictions(outputs["occ_logits"], batch.tokens, config.grid, config.class_names)
        return panoptic_predictions(found, outputs, config.instances, config.grid, self.rounding) if config.instances else found

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`, the image encoder."""
        return {"encoder": list(self.img_backbone.parameters())}


def instance_labels(config: InstanceConfig | None) -> tuple[Label[Any], ...]:
    """What the instance part learns from: boxes, where its loss has a weight."""
    return (BoxLabels(without="model.instances=null or model.instances.centre_loss=0"),) if config and config.centre_loss else ()


def instance_losses(
    outputs: dict[str, Tensor], batch: Batch, config: InstanceConfig | None, map_grid: VoxelGrid, rounding: Rounding = "floor"
) -> dict[str, Tensor]:
    """`centre_heat`, `centre_xy` and `centre_z` of a centre head over a map of `map_grid`; `rounding` finds the cell of a true centre.

    Nothing without an instance part or without a weight. Raises DataError if the batch has no boxes.
    """
    if config is None or not config.centre_loss:
        return {}
    truth = batch.need(BoxLabels)
    targets = centre_targets(truth.boxes, truth.classes, map_grid, len(DETECTION_CLASSES), rounding=rounding)
    return centre_losses(outputs, targets, config.centre_loss)
