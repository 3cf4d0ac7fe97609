"""BEVDetOCC's occupancy part on the rest of `flashocc-tiny`: what the 3D convolutions are worth when nothing else differs.

images -> FlashOccTiny's encoder, lift and pooling -> CustomResNet3D + LssFpn3D over half-resolution voxels
       -> voxel shuffle to full resolution -> two linear layers per voxel -> voxel logits

The 3D network has BEVDetOCC's shape (1, 2 and 4 blocks at strides 1, 2 and 4, widths w, 2w, 4w) at half its width. As in FlashOccTiny the
last step doubles the resolution, and the last bias starts at the prior of each height.
Shape letters: B batch, C channels, K classes, X Y Z voxels.
"""

from __future__ import annotations

from pydantic import PositiveInt
from torch import Tensor, nn

from frustum.models.flashocc_tiny import FlashOccTinyConfig, TinyOccupancy
from frustum.nn.voxel import CustomResNet3D, LinearPerHeight, LssFpn3D, as_voxels
from frustum.types.batch import Batch


class BevDetOccTinyConfig(FlashOccTinyConfig):
    """Settings of BevDetOccTiny: those of FlashOccTiny, with features for voxels instead of a map.

    Attributes:
        bev_channels: width of the 3D network at its finest level, and of the voxels it returns.
        voxel_channels: channels of a full-resolution voxel before its class is read out.
    """

    bev_channels: PositiveInt = 16
    voxel_channels: PositiveInt = 16

    def build(self) -> BevDetOccTiny:  # type: ignore[override]
        """The network; only the encoder may start from trained weights."""
        return BevDetOccTiny(self)


class BevDetOccTiny(TinyOccupancy):
    """Single-frame occupancy with 3D convolutions, for a fair comparison with FlashOccTiny.

    `forward` returns
        depth: (B * N, D, h, w) probability of each depth bin, stride 8
        voxels: (B, bev_channels, Z / 2, Y / 2, X / 2)
        occ_logits: (B, X, Y, Z, K)
    In training mode, when the batch has labels, the last is replaced by what the loss needs, for a fraction of the work:
        columns: (n,) int64 drawn columns, index into the flattened (B, Y, X)
        column_share: (n,) how many columns each one stands for
        column_logits: (n, Z, K)
    """

    def __init__(self, config: BevDetOccTinyConfig):
        super().__init__(config)
        w = config.bev_channels
        self.voxel_net = CustomResNet3D(config.lift_channels, (w, 2 * w, 4 * w))
        self.voxel_neck = LssFpn3D(w + 2 * w + 4 * w, w)
        self.refine = nn.Conv3d(w, 8 * config.voxel_channels, 1)
        self.hidden = nn.Sequential(nn.Linear(config.voxel_channels, 2 * config.voxel_channels), nn.Softplus())
        self.head = LinearPerHeight(2 * config.voxel_channels, config.grid.shape[2], len(config.class_names))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        depth, pooled = self.lift(batch)
        voxels = self.voxel_neck(self.voxel_net(as_voxels(pooled, self.config.grid.shape[2] // 2)))
        cells = self._doubled(self.refine(voxels)).relu()  # (B, Y, X, Z, c)
        return {"depth": depth, "voxels": voxels} | self.read_out(cells, batch)

    def _logits(self, cells: Tensor) -> Tensor:
        return super()._logits(self.hidden(cells))

    def _doubled(self, x: Tensor) -> Tensor:
        """(B, 8 * c, Z / 2, Y / 2, X / 2) -> (B, Y, X, Z, c): a voxel shuffle."""
        x = x.unflatten(1, (2, 2, 2, -1)).permute(0, 6, 2, 7, 3, 5, 1, 4)  # (B, Y/2, 2, X/2, 2, Z/2, 2, c)
        return x.flatten(5, 6).flatten(3, 4).flatten(1, 2)
