"""One of our networks that see the world from above, without its heads: what OccFeat pretrains, and what is taken from it afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor

from frustum.config import Config
from frustum.data.labels.depth import DepthLabels
from frustum.data.labels.lidar_points import LidarPoints
from frustum.losses.depth import depth_bce, depth_cross_entropy
from frustum.models.bevformer_seg import BevFormerSegConfig
from frustum.models.flashocc import FlashOccConfig, depth_losses
from frustum.models.flashocc_tiny import FlashOccTinyConfig
from frustum.models.lss_seg import LssSegConfig
from frustum.models.simplebev import SimpleBevConfig
from frustum.models.ultimatedo import UltimateDoConfig
from frustum.models.ultimatedo_mini import UltimateDoMiniConfig
from frustum.types.batch import Batch
from frustum.types.contract import Label, Reads


class MapNetwork(Config):
    """Which network, by its own settings; exactly one is set. What it says of its heads and their losses is not used."""

    simplebev: SimpleBevConfig | None = None
    bevformer_seg: BevFormerSegConfig | None = None
    lss_seg: LssSegConfig | None = None
    flashocc: FlashOccConfig | None = None
    flashocc_tiny: FlashOccTinyConfig | None = None
    ultimatedo: UltimateDoConfig | None = None
    ultimatedo_mini: UltimateDoMiniConfig | None = None

    @model_validator(mode="after")
    def _one(self) -> MapNetwork:
        chosen = [name for name in MapNetwork.model_fields if getattr(self, name) is not None]
        if len(chosen) != 1:
            names = ", ".join(MapNetwork.model_fields)
            raise ValueError(f"a network is exactly one of {names}, got {' and '.join(chosen) or 'none'}; set others to null")
        return self

    @property
    def chosen(self) -> str:
        """Which of them it is."""
        return next(name for name in MapNetwork.model_fields if getattr(self, name) is not None)

    @property
    def config(self) -> Any:
        """The settings of the network."""
        return getattr(self, self.chosen)

    @property
    def depth_loss(self) -> float:
        """The weight of the network's own depth supervision; 0 for those without one."""
        return getattr(self.config, "depth_loss", 0.0)

    def reads(self) -> Reads:
        """What the network reads."""
        return replace(self.config.reads(), front_setting=f"model.network.{self.chosen}.maps.reference")

    def build(self) -> Any:
        """The network without its heads, with `to_map`, `map_channels` and `map_grid`."""
        network = self.config.build()
        for name in network.head_names:
            parent, _, last = name.rpartition(".")
            if hasattr(network.get_submodule(parent), last):
                delattr(network.get_submodule(parent), last)
        return network

    def map2ego(self, batch: Batch, training: bool) -> Tensor:
        """(B, 4, 4) float64: the frame of the map, before its augmentation, to the ego frame; in training that of the LiDAR labels."""
        if maps := getattr(self.config, "maps", None):
            return maps.map2ego(batch, training)
        return torch.eye(4, dtype=torch.float64).expand(len(batch), 4, 4)

    def learns_points(self, scans: int) -> LidarPoints:
        """LiDAR points, and the camera in whose frame the map is, where a network draws one."""
        maps = getattr(self.config, "maps", None)
        if maps is None or maps.rule != "simplebev":
            return LidarPoints(scans)
        return LidarPoints(scans, maps.reference, maps.draw_reference, self.reads().front_setting)

    def learns_depth(self) -> tuple[Label[Any], ...]:
        """Depth maps, where the network's depth loss has a weight."""
        return (DepthLabels(without=f"model.network.{self.chosen}.depth_loss=0"),) if self.depth_loss else ()

    def depth_losses(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The network's depth loss, called `depth`; empty without a weight."""
        is_small = isinstance(self.config, FlashOccTinyConfig | UltimateDoMiniConfig)
        loss = depth_cross_entropy if is_small else depth_bce
        return depth_losses(outputs, batch, self.depth_loss, self.config.depth_bins, loss) if self.depth_loss else {}
