"""One of our occupancy networks as the trunk of another: its last layer gives other numbers of each voxel than logits of classes.

So a head for volume rendering sits on any volume or map of ours: on FlashOCC's two-dimensional trunk, on BEVDet's voxels, on their small
forms, on stereo over time.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor, nn

from frustum.config import Config
from frustum.data.labels.depth import DepthLabels
from frustum.losses.depth import depth_bce, depth_cross_entropy
from frustum.models.bevdet_occ import BevDetOcc, BevDetOccConfig
from frustum.models.bevdet_occ_tiny import BevDetOccTiny, BevDetOccTinyConfig
from frustum.models.flashocc import FlashOcc, FlashOccConfig, depth_losses
from frustum.models.flashocc_stereo import FlashOccStereo, FlashOccStereoConfig
from frustum.models.flashocc_tiny import FlashOccTiny, FlashOccTinyConfig
from frustum.types.batch import Batch
from frustum.types.contract import Label

_NETWORKS: dict[str, Any] = {
    "flashocc": FlashOcc,
    "flashocc_tiny": FlashOccTiny,
    "flashocc_stereo": FlashOccStereo,
    "bevdet_occ": BevDetOcc,
    "bevdet_occ_tiny": BevDetOccTiny,
}


class Trunk(Config):
    """Which network, by its own settings; exactly one is set. What it says of its occupancy losses is not used."""

    flashocc: FlashOccConfig | None = None
    flashocc_tiny: FlashOccTinyConfig | None = None
    flashocc_stereo: FlashOccStereoConfig | None = None
    bevdet_occ: BevDetOccConfig | None = None
    bevdet_occ_tiny: BevDetOccTinyConfig | None = None

    @model_validator(mode="after")
    def _one(self) -> Trunk:
        chosen = [name for name in _NETWORKS if getattr(self, name) is not None]
        if len(chosen) != 1:
            raise ValueError(f"a trunk is exactly one of {', '.join(_NETWORKS)}, got {' and '.join(chosen) or 'none'}; set others to null")
        if getattr(self.config, "render", None) is not None:
            raise ValueError("a trunk gives numbers alone, its losses are not used: the model around it renders; leave its `render` out")
        return self

    @property
    def config(self) -> Any:
        """The settings of the network."""
        return next(config for name in _NETWORKS if (config := getattr(self, name)) is not None)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Without free space, the last one."""
        return self.config.class_names[:-1]

    def memory(self, batch_size: int) -> int:
        """Bytes of the pooled features and of those that the last layer reads, which a training step keeps.

        At half precision, and without the image encoder, whose images are not known here: rather too few.
        """
        config, (x, y, z) = self.config, self.config.grid.shape
        heights = z if isinstance(config, BevDetOccConfig | BevDetOccTinyConfig) or getattr(config, "voxels", False) else 1
        if isinstance(config, FlashOccTinyConfig | BevDetOccTinyConfig):  # half a grid is pooled
            numbers = config.lift_channels * x * y * z // 8 + config.voxel_channels * x * y * heights
        else:
            numbers = (config.lift_channels + config.bev_channels) * x * y * heights
        return 2 * batch_size * numbers

    def build(self, numbers: int) -> nn.Module:
        """The network with `numbers` of each voxel: `occ_logits` (B, X, Y, Z, numbers) of its outputs. Its last layer begins near 0."""
        name = next(name for name in _NETWORKS if getattr(self, name) is not None)
        network = _NETWORKS[name](self.config, numbers)
        with torch.no_grad():
            last = last_layer(network)
            last.weight.mul_(0.1)
            last.bias.zero_()
        return network

    def learns_depth(self) -> tuple[Label[Any], ...]:
        """Depth maps, where the trunk's depth loss has a weight."""
        return (DepthLabels(without="model.trunk.NETWORK.depth_loss=0"),) if self.config.depth_loss else ()

    def depth_losses(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The trunk's depth loss, called `lift.depth`; empty without a weight."""
        config, is_small = self.config, isinstance(self.config, FlashOccTinyConfig | BevDetOccTinyConfig)
        loss = depth_cross_entropy if is_small else depth_bce
        return {f"lift.{name}": v for name, v in depth_losses(outputs, batch, config.depth_loss, config.depth_bins, loss).items()}


def last_layer(network: Any) -> Any:
    """The layer whose `bias` and `weight` give the numbers of a voxel, of each height or of all."""
    return network.head if hasattr(network, "head") else network.occ_head.predicter[-1]
