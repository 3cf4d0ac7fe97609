"""FlashOCC (Yu et al., 2023, arXiv:2311.12058): semantic occupancy from a 2D bird's-eye-view map, without 3D convolution.

images -> ResNet -> CustomFPN -> LiftSplat -> CustomResNet + FpnLss over the map -> channel-to-height -> voxel logits

Module names are those of the published checkpoints. Shape letters: B batch, N cameras, H W image, h w feature map, C channels,
D depth bins, K classes, X Y Z voxels.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor, nn

from frustum.config import TRAVELS
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.geometry.grids import Rounding
from frustum.losses.depth import depth_bce
from frustum.losses.occupancy import flashocc_class_weights, masked_cross_entropy
from frustum.nn.bev import CustomResNet, FpnLss
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.encoders.resnet import ResNet
from frustum.nn.fpn import CustomFPN
from frustum.nn.lift_splat import LiftSplat, Sampling, Splat
from frustum.nn.occupancy_head import ChannelToHeight
from frustum.ops.bev_pool import Backend
from frustum.types.batch import Batch
from frustum.types.classes import OCC3D_CLASSES
from frustum.types.contract import ClassNames, ModelConfig
from frustum.types.predictions import Prediction


class FlashOccConfig(ModelConfig):
    """Settings of FlashOcc.

    Attributes:
        resnet: 18, 34, 50 or 101.
        pretrained: start the encoder from the weights of a package (true, ResNet-50) or of a torchvision or timm file (its path).
        neck_channels: channels of the image features.
        depth_bins: D candidate depths.
        grid: the labelled voxels, in the ego frame of the keyframe; even numbers of cells along x and y.
        lift_channels: C, channels of the pooled map.
        bev_channels: channels of the map that the head reads (128 in M0, 256 in M1).
        voxel_rounding: how a point finds its cell. `floor` is correct; `reference` rounds towards zero as the published code does, which
            pools points up to one cell below the grid (z from -7.4 m: a third of all points of M0) and which published weights expect.
        sampling: where in the image a feature stands, see `nn.lift_splat.feature_pixels`; `corners` as published.
        class_names: the K classes; the last one is free space.
        camera_mask: train on voxels that a camera observed only.
        class_balance: weigh classes by FlashOCC's frequency table of Occ3D-nuScenes; needs its 18 classes.
        depth_loss: weight of the depth supervision; 0 needs no depth maps.
        pool: backend of the pooling.
    """

    image_multiple: ClassVar[int] = 32
    map_multiple: ClassVar[int] = 2  # the map is halved, and doubled again at the end

    resnet: int = 50
    pretrained: Pretrained = False
    neck_channels: PositiveInt = 256
    depth_bins: DepthBins = DepthBins(start=1, stop=45, step=1)
    grid: VoxelGrid = VoxelGrid.occ3d()
    lift_channels: PositiveInt = 64
    bev_channels: PositiveInt = 128
    voxel_rounding: Annotated[Literal["floor", "reference"], TRAVELS] = "floor"
    sampling: Annotated[Sampling, TRAVELS] = "corners"
    class_names: ClassNames = OCC3D_CLASSES
    camera_mask: bool = True
    class_balance: bool = False
    depth_loss: NonNegativeFloat = 0.0
    pool: Backend = "auto"

    @model_validator(mode="after")
    def _balance_fits_the_classes(self) -> FlashOccConfig:
        if self.class_balance and self.class_names != OCC3D_CLASSES:
            raise ValueError("the frequency table is that of Occ3D's 18 classes; set model.class_balance=false for other class_names")
        return self

    @model_validator(mode="after")
    def _map_can_be_halved(self) -> FlashOccConfig:
        x, y, _ = self.grid.shape
        if x % self.map_multiple or y % self.map_multiple:
            raise ValueError(
                f"this network needs a grid whose cells along x and y are multiples of {self.map_multiple}, got {x} x {y}; set model.grid"
            )
        return self

    def build(self) -> FlashOcc:
        """The network with random weights."""
        return FlashOcc(self)


class LiftSplatOccupancy(nn.Module):
    """What FlashOCC and the network that it replaces share: images to pooled features, the loss, the decoding.

    Args:
        config: the settings.
        pooled_grid: cells to pool into.
    """

    class_weight: Tensor | None

    def __init__(self, config: FlashOccConfig, pooled_grid: VoxelGrid):
        super().__init__()
        self.config = config
        rounding: Rounding = "truncate" if config.voxel_rounding == "reference" else "floor"
        self.img_backbone, self.img_neck = self.image_network(config)
        splat = Splat(pooled_grid, config.depth_bins, rounding, config.sampling, config.pool)
        self.img_view_transformer = LiftSplat(config.neck_channels, config.lift_channels, splat)
        weights = flashocc_class_weights() if config.class_balance else None
        self.register_buffer("class_weight", weights, persistent=False)

    def image_network(self, config: FlashOccConfig) -> tuple[nn.Module, nn.Module]:
        """Encoder, and neck to `neck_channels` at stride 16."""
        backbone = ResNet(config.resnet, outputs=(3, 4), pretrained=config.pretrained)
        return backbone, CustomFPN(backbone.out_channels, config.neck_channels)

    def lift(self, batch: Batch) -> dict[str, Tensor]:
        """`image_features`, `depth` and `pooled` (B, Z * lift_channels, Y, X), Z that of the pooled grid, for each keyframe."""
        images = batch.images[:, 0].flatten(0, 1)  # (B*N, 3, H, W)
        features = self.img_neck(self.img_backbone(images))
        pooled, depth = self.img_view_transformer(features, batch.rig[:, 0], batch.key_ego2global, batch.bev_aug)
        return {"image_features": features, "depth": depth, "pooled": pooled}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`occupancy` cross-entropy, and `depth` where configured; needs semantics, and mask_camera or depth if they are used."""
        config = self.config
        if batch.semantics is None or (config.camera_mask and batch.mask_camera is None):
            raise DataError("this model's loss needs occupancy labels with a camera mask in the batch; use a data set that has gts/ files.")
        mask = batch.mask_camera if config.camera_mask else None
        losses = self.occupancy_loss(outputs["occ_logits"], batch.semantics, mask)
        if config.depth_loss:
            if batch.depth is None:
                raise DataError("depth supervision needs depth maps; set data.load_depth=true or model.depth_loss=0.")
            losses["depth"] = config.depth_loss * depth_bce(outputs["depth"], batch.depth.flatten(0, 1), config.depth_bins)
        return losses

    def occupancy_loss(self, logits: Tensor, labels: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """The part of the loss that looks at voxels: `occupancy`, from (B, X, Y, Z, K) logits, labels and the mask (None: all count)."""
        return {"occupancy": masked_cross_entropy(logits, labels, mask, self.class_weight)}

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The most likely class of every voxel."""
        semantics = outputs["occ_logits"].argmax(-1).to(torch.uint8)
        return [Prediction(token, s, self.config.grid, self.config.class_names) for token, s in zip(batch.tokens, semantics, strict=True)]


class FlashOcc(LiftSplatOccupancy):
    """Single-frame FlashOCC.

    `forward` returns
        image_features: (B * N, neck_channels, h, w)
        depth: (B * N, D, h, w) probability of each depth bin
        pooled: (B, lift_channels, Y, X)
        bev: (B, bev_channels, Y, X)
        occ_logits: (B, X, Y, Z, K)
    """

    def __init__(self, config: FlashOccConfig):
        super().__init__(config, config.grid.collapsed_z())
        c = config.lift_channels
        self.img_bev_encoder_backbone = CustomResNet(c, (2 * c, 4 * c, 8 * c))
        self.img_bev_encoder_neck = FpnLss(2 * c + 8 * c, config.bev_channels)
        self.occ_head = ChannelToHeight(config.bev_channels, config.grid.shape[2], len(config.class_names))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        outputs = self.lift(batch)
        stages = self.img_bev_encoder_backbone(outputs["pooled"])
        bev = self.img_bev_encoder_neck(stages[0], stages[2])
        return {**outputs, "bev": bev, "occ_logits": self.occ_head(bev)}
