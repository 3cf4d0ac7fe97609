"""BEVDetOCC: semantic occupancy from voxel features and 3D convolutions, the network that FlashOCC replaces and is compared with.

images -> ResNet -> CustomFPN -> LiftSplat into voxels -> CustomResNet3D + LssFpn3D -> two linear layers per voxel -> voxel logits

Images, lift, loss and decoding are FlashOCC's. Module names are those of FlashOCC's repository, which holds this baseline, too.
The detector it extends is BEVDet (Huang et al., 2021, arXiv:2112.11790).
Shape letters: B batch, N cameras, h w feature map, C channels, D depth bins, K classes, X Y Z voxels.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor

from frustum.geometry.depth import DepthBins
from frustum.models.flashocc import FlashOccConfig, LiftSplatOccupancy
from frustum.nn.voxel import CustomResNet3D, LssFpn3D, VoxelHead, as_voxels
from frustum.types.batch import Batch


class BevDetOccConfig(FlashOccConfig):
    """Settings of BevDetOcc: those of FlashOCC, with features for voxels instead of a map.

    Attributes:
        depth_bins: D candidate depths.
        lift_channels: C, channels of the pooled voxels; the stages of the 3D network have C, 2 * C and 4 * C.
        bev_channels: channels of the voxels that the head reads.
    """

    map_multiple: ClassVar[int] = 1

    depth_bins: DepthBins = DepthBins(start=1, stop=45, step=0.5)
    lift_channels: PositiveInt = 32
    bev_channels: PositiveInt = 32

    def build(self) -> BevDetOcc:  # type: ignore[override]
        """The network with random weights."""
        return BevDetOcc(self)


class BevDetOcc(LiftSplatOccupancy):
    """Single-frame BEVDetOCC.

    `forward` returns
        image_features: (B * N, neck_channels, h, w)
        depth: (B * N, D, h, w) probability of each depth bin
        pooled: (B, Z * lift_channels, Y, X)
        voxels: (B, bev_channels, Z, Y, X)
        occ_logits: (B, X, Y, Z, K)
    """

    def __init__(self, config: BevDetOccConfig):
        super().__init__(config, config.grid)
        c = config.lift_channels
        self.img_bev_encoder_backbone = CustomResNet3D(c, (c, 2 * c, 4 * c))
        self.img_bev_encoder_neck = LssFpn3D(c + 2 * c + 4 * c, config.bev_channels)
        self.occ_head = VoxelHead(config.bev_channels, len(config.class_names))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        outputs = self.lift(batch)
        pooled = as_voxels(outputs["pooled"], self.config.grid.shape[2])
        voxels = self.img_bev_encoder_neck(self.img_bev_encoder_backbone(pooled))
        return {**outputs, "voxels": voxels, "occ_logits": self.occ_head(voxels)}
