"""FlashOCC (Yu et al., 2023, arXiv:2311.12058): semantic occupancy from a 2D bird's-eye-view map, without 3D convolution.

images -> ResNet -> CustomFPN -> LiftSplat -> CustomResNet + FpnLss over the map -> channel-to-height -> voxel logits

Module names are those of the published checkpoints. Shape letters: B batch, N cameras, H W image, h w feature map, C channels,
D depth bins, K classes, X Y Z voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.occupancy import OccupancyLabels
from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.losses.depth import depth_bce
from frustum.losses.occupancy import ClassBalance, flashocc_class_weights, masked_cross_entropy
from frustum.models.view_rendering import RenderLoss, render_losses, render_memory, view_labels
from frustum.nn.bev import CustomResNet, FpnLss, MapGrid
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.encoders.resnet import ResNet
from frustum.nn.fpn import CustomFPN
from frustum.nn.lift_splat import LiftSplat, Sampling, Splat, VoxelRounding, rounding_of
from frustum.nn.occupancy_head import ChannelToHeight, occupancy_predictions
from frustum.ops.bev_pool import Backend
from frustum.types.batch import Batch
from frustum.types.classes import OCC3D_CLASSES
from frustum.types.contract import ClassNames, Label, Memory, ModelConfig
from frustum.types.frame import keyframe_of
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
        render: learn from 2D labels by rendering, too (docs/methods/gsrender.md).
        pool: backend of the pooling.
    """

    image_multiple: ClassVar[int] = 32

    resnet: int = 50
    pretrained: Pretrained = False
    neck_channels: PositiveInt = 256
    depth_bins: DepthBins = DepthBins(start=1, stop=45, step=1)
    grid: MapGrid = VoxelGrid.occ3d()
    lift_channels: PositiveInt = 64
    bev_channels: PositiveInt = 128
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

    def build(self) -> FlashOcc:
        """The network with random weights."""
        return FlashOcc(self)


class FlashOcc(nn.Module):
    """Single-frame FlashOCC.

    `forward` returns
        image_features: (B * N, neck_channels, h, w)
        depth: (B * N, D, h, w) probability of each depth bin
        pooled: (B, lift_channels, Y, X)
        bev: (B, bev_channels, Y, X)
        occ_logits: (B, X, Y, Z, K); as the trunk of another network (models/occupancy_trunk.py) `numbers` of each voxel in place of K
    """

    head_names = ("occ_head", "class_weight")
    class_weight: Tensor | None

    def __init__(self, config: FlashOccConfig, numbers: int | None = None):
        super().__init__()
        self.config = config
        self.map_channels, self.map_grid = config.bev_channels, config.grid.collapsed_z()
        c, rounding = config.lift_channels, rounding_of(config.voxel_rounding)
        self.img_backbone = ResNet(config.resnet, outputs=(3, 4), pretrained=config.pretrained)
        self.img_neck = CustomFPN(self.img_backbone.out_channels, config.neck_channels)
        splat = Splat(config.grid.collapsed_z(), config.depth_bins, rounding, config.sampling, config.pool)
        self.img_view_transformer = LiftSplat(config.neck_channels, c, splat)
        self.img_bev_encoder_backbone = CustomResNet(c, (2 * c, 4 * c, 8 * c))
        self.img_bev_encoder_neck = FpnLss(2 * c + 8 * c, config.bev_channels)
        self.occ_head = ChannelToHeight(config.bev_channels, config.grid.shape[2], numbers or len(config.class_names))
        self.register_buffer("class_weight", flashocc_class_weights() if config.class_balance else None, persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        found = self.to_map(batch)
        return found | {"occ_logits": self.occ_head(found["bev"])}

    def to_map(self, batch: Batch) -> dict[str, Tensor]:
        """All but the last."""
        frame = keyframe_of(batch)
        features = self.img_neck(self.img_backbone(frame.images.flatten(0, 1)))
        pooled, depth = self.img_view_transformer(features, frame)
        bev = self.img_bev_encoder_neck(self.img_bev_encoder_backbone(pooled))
        return {"image_features": features, "depth": depth, "pooled": pooled, "bev": bev}

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


def occupancy_labels(
    grid: VoxelGrid, class_names: tuple[str, ...], depth_loss: float, render: RenderLoss | None = None
) -> tuple[Label[Any], ...]:
    """What FlashOCC and its relatives learn from: occupancy, depth where it has a weight, and 2D labels with `render`."""
    depth = (DepthLabels(without="model.depth_loss=0"),) if depth_loss else ()
    views = () if render is None else (view_labels(render.views, class_names[:-1]),)
    return (OccupancyLabels(grid, class_names=class_names), *depth, *views)


def flashocc_losses(
    outputs: dict[str, Tensor], batch: Batch, class_weight: Tensor | None, camera_mask: bool, depth_loss: float, bins: DepthBins
) -> dict[str, Tensor]:
    """`occupancy` cross-entropy of `occ_logits`, over observed voxels with `camera_mask`, and `depth` with the weight `depth_loss`.

    Raises:
        DataError: the batch has no occupancy labels, or no depth maps where they have a weight.
    """
    truth = batch.need(OccupancyLabels)
    mask = truth.mask_camera if camera_mask else None
    losses = {"occupancy": masked_cross_entropy(outputs["occ_logits"], truth.semantics, mask, class_weight)}
    return losses | depth_losses(outputs, batch, depth_loss, bins)


def depth_losses(
    outputs: dict[str, Tensor], batch: Batch, weight: float, bins: DepthBins, loss: Callable[..., Tensor] = depth_bce
) -> dict[str, Tensor]:
    """`depth` by BEVDepth's or another loss; empty without a weight. Raises DataError if the batch has no depth maps."""
    return {"depth": weight * loss(outputs["depth"], batch.need(DepthLabels).flatten(0, 1), bins)} if weight else {}
