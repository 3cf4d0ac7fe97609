"""BEVDetOCC: semantic occupancy from voxel features and 3D convolutions, the network that FlashOCC replaces and is compared with.

images -> ResNet -> CustomFPN -> LiftSplat into voxels -> CustomResNet3D + LssFpn3D -> two linear layers per voxel -> voxel logits

Images, lift, loss and decoding are FlashOCC's. Module names are those of FlashOCC's repository, which holds this baseline, too.
The detector it extends is BEVDet (Huang et al., 2021, arXiv:2112.11790).
Shape letters: B batch, N cameras, h w feature map, C channels, D depth bins, K classes, X Y Z voxels.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.losses.occupancy import ClassBalance, flashocc_class_weights
from frustum.models.flashocc import flashocc_losses, occupancy_labels
from frustum.models.view_rendering import RenderLoss, render_losses, render_memory
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.encoders.resnet import ResNet
from frustum.nn.fpn import CustomFPN
from frustum.nn.lift_splat import LiftSplat, Sampling, Splat, VoxelRounding, rounding_of
from frustum.nn.occupancy_head import occupancy_predictions
from frustum.nn.voxel import CustomResNet3D, LssFpn3D, VoxelHead, as_voxels
from frustum.ops.bev_pool import Backend
from frustum.types.batch import Batch
from frustum.types.classes import OCC3D_CLASSES
from frustum.types.contract import ClassNames, Label, Memory, ModelConfig
from frustum.types.frame import keyframe_of
from frustum.types.predictions import Prediction


class BevDetOccConfig(ModelConfig):
    """Settings of BevDetOcc: those of FlashOCC, with features for voxels instead of a map.

    Attributes:
        resnet: 18, 34, 50 or 101.
        pretrained: start the encoder from the weights of a package (true, ResNet-50) or of a torchvision or timm file (its path).
        neck_channels: channels of the image features.
        depth_bins: D candidate depths.
        grid: the labelled voxels, in the ego frame of the keyframe.
        lift_channels: C, channels of the pooled voxels; the stages of the 3D network have C, 2 * C and 4 * C.
        bev_channels: channels of the voxels that the head reads.
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
    pretrained: Pretrained = False
    neck_channels: PositiveInt = 256
    depth_bins: DepthBins = DepthBins(start=1, stop=45, step=0.5)
    grid: VoxelGrid = VoxelGrid.occ3d()
    lift_channels: PositiveInt = 32
    bev_channels: PositiveInt = 32
    voxel_rounding: VoxelRounding = "floor"
    sampling: Sampling = "corners"
    class_names: ClassNames = OCC3D_CLASSES
    camera_mask: bool = True
    class_balance: ClassBalance = False
    depth_loss: NonNegativeFloat = 0.0
    render: RenderLoss | None = None
    pool: Backend = "auto"

    def learns_from(self) -> tuple[Label[Any], ...]:
        """Occupancy, and depth where it has a weight."""
        return occupancy_labels(self.grid, self.class_names, self.depth_loss, self.render)

    def memory(self, batch_size: int, device: str) -> Memory | None:
        """What `render` needs; nothing is known without it."""
        return render_memory(self.render, self.grid, self.class_names, batch_size)

    def build(self) -> BevDetOcc:
        """The network with random weights."""
        return BevDetOcc(self)


class BevDetOcc(nn.Module):
    """Single-frame BEVDetOCC.

    `forward` returns
        image_features: (B * N, neck_channels, h, w)
        depth: (B * N, D, h, w) probability of each depth bin
        pooled: (B, Z * lift_channels, Y, X)
        voxels: (B, bev_channels, Z, Y, X)
        occ_logits: (B, X, Y, Z, K); as the trunk of another network (models/occupancy_trunk.py) `numbers` of each voxel in place of K
    """

    class_weight: Tensor | None

    def __init__(self, config: BevDetOccConfig, numbers: int | None = None):
        super().__init__()
        self.config = config
        c = config.lift_channels
        self.img_backbone = ResNet(config.resnet, outputs=(3, 4), pretrained=config.pretrained)
        self.img_neck = CustomFPN(self.img_backbone.out_channels, config.neck_channels)
        splat = Splat(config.grid, config.depth_bins, rounding_of(config.voxel_rounding), config.sampling, config.pool)
        self.img_view_transformer = LiftSplat(config.neck_channels, c, splat)
        self.img_bev_encoder_backbone = CustomResNet3D(c, (c, 2 * c, 4 * c))
        self.img_bev_encoder_neck = LssFpn3D(c + 2 * c + 4 * c, config.bev_channels)
        self.occ_head = VoxelHead(config.bev_channels, numbers or len(config.class_names))
        self.register_buffer("class_weight", flashocc_class_weights() if config.class_balance else None, persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        frame = keyframe_of(batch)
        features = self.img_neck(self.img_backbone(frame.images.flatten(0, 1)))
        pooled, depth = self.img_view_transformer(features, frame)
        volume = as_voxels(pooled, self.config.grid.shape[2])
        voxels = self.img_bev_encoder_neck(self.img_bev_encoder_backbone(volume))
        return {"image_features": features, "depth": depth, "pooled": pooled, "voxels": voxels, "occ_logits": self.occ_head(voxels)}

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
