"""Lift-Splat-Shoot (Philion and Fidler, ECCV 2020, arXiv:2008.05711), the classical network for maps from above.

images -> EfficientNet -> depth and context of each feature -> Splat -> residual network over the map -> classes

It learns depth from the map alone. Written anew from the paper and from facts about its code; weights of that code are not read.
Shape letters: B batch, N cameras, M = B * N images, D depth bins, C channels, h w feature map, K classes, X Y Z cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from frustum.data.labels.map_classes import MapLabels
from frustum.geometry import VoxelGrid
from frustum.geometry.depth import DepthBins
from frustum.models.bev_segmentation import MapLoss, Maps, check_maps, map_losses, map_predictions, start_at_share
from frustum.nn.conv import ConvNorm
from frustum.nn.encoders.efficientnet import EfficientNetLite0
from frustum.nn.encoders.efficientnet_b import EfficientNetB
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.encoders.resnet import BasicBlock, resnet_stage
from frustum.nn.lift_splat import LiftSplat, Splat
from frustum.ops.bev_pool import Backend
from frustum.types.batch import Batch
from frustum.types.contract import Label, ModelConfig
from frustum.types.frame import keyframe_of
from frustum.types.predictions import Prediction


class LssSegConfig(ModelConfig):
    """Settings of LssSeg.

    Attributes:
        encoder: EfficientNet-B0, features at stride 16; or -Lite0, at stride 8.
        pretrained: weights that it starts from: a package's (true, Lite0 alone) or a file's.
        frozen_blocks: blocks of EfficientNet-Lite0 that are not trained.
        image_channels: channels of the image features.
        depth_bins: D candidate depths.
        channels: C, of the pooled map.
        map_channels: of the three stages over the map; four times the first are what it is joined to.
        grid: cells of the map, whatever lies between its lowest and highest.
        fine: cells of the predicted map along each side of a cell of the grid.
        maps: which maps.
        positive_weight: of cells that a class fills, in the cross-entropy.
        pool: backend of the pooling.
    """

    image_multiple: ClassVar[int] = 32

    encoder: Literal["efficientnet_b0", "efficientnet_lite0"] = "efficientnet_b0"
    pretrained: Pretrained = False
    frozen_blocks: NonNegativeInt = 0
    image_channels: PositiveInt = 512
    depth_bins: DepthBins = DepthBins(start=4, stop=45, step=1)
    channels: PositiveInt = 64
    map_channels: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256)
    grid: VoxelGrid = VoxelGrid(lower=(-50, -50, -10), upper=(50, 50, 10), cell=(0.5, 0.5, 20))
    fine: PositiveInt = 1
    maps: Maps = Maps()
    positive_weight: PositiveFloat = 2.13
    pool: Backend = "auto"

    @model_validator(mode="after")
    def _is_around_the_vehicle(self) -> LssSegConfig:
        if self.maps.rule == "simplebev":
            raise ValueError("Lift-Splat pools around the vehicle, but rule 'simplebev' is the frame of a camera; set model.maps.rule=lss")
        return self

    @property
    def loss(self) -> MapLoss:
        """The cross-entropy alone."""
        return MapLoss(positive_weight=self.positive_weight, instances=False, learned_weights=False)

    def learns_from(self) -> tuple[MapLabels]:
        """Map labels. Raises ConfigError where the network's map is not that of the labels."""
        return check_maps(self.grid, self.fine, self.maps, self.loss)

    def build(self) -> LssSeg:
        """The network; only the encoder may start from trained weights."""
        return LssSeg(self)


class LssSeg(nn.Module):
    """`forward` returns, in the augmented frame of the map,

    depth: (M, D, h, w) probability of each depth bin
    bev: (B, 2 * C', Y, X) what the last layer reads, C' the channels of the first stage over the map
    map_logits: (B, K, fine * Y, fine * X)
    """

    head_names = ("head",)

    def __init__(self, config: LssSegConfig):
        super().__init__()
        self.map_channels, self.map_grid = 2 * config.map_channels[0], config.grid
        self.config = config
        self.encoder: nn.Module
        if config.encoder == "efficientnet_b0":
            self.encoder = EfficientNetB("b0", (10, 15), config.pretrained)
        else:
            self.encoder = EfficientNetLite0((4, 10), frozen_blocks=config.frozen_blocks, pretrained=config.pretrained)
        self.neck = Joined(sum(self.encoder.out_channels), config.image_channels)  # type: ignore[arg-type]
        splat = Splat(config.grid.collapsed_z(), config.depth_bins, sampling="corners", backend=config.pool)
        self.lift = LiftSplat(config.image_channels, config.channels, splat)
        a, b, c = config.map_channels
        self.enter = ConvNorm(config.channels, a, 7, stride=2)
        self.stages = nn.ModuleList([resnet_stage(BasicBlock, *widths) for widths in ((a, a, 2, 1), (a, b, 2, 2), (b, c, 2, 2))])
        self.up1, self.up2 = Joined(a + c, 4 * a), ConvNorm(4 * a, 2 * a)
        self.head = nn.Conv2d(2 * a, len(config.maps.class_names) * config.fine**2, 1)

    def prepare(self, statistics: Mapping[type[Label[Any]], Mapping[str, np.ndarray]]) -> None:
        """Begin at how frequent the classes are."""
        start_at_share(self.head, statistics, self.config.positive_weight)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        found = self.to_map(batch)
        logits = F.pixel_shuffle(self.head(found["bev"]).float(), self.config.fine)
        return {"depth": found["depth"], "bev": found["bev"].float(), "map_logits": logits}

    def to_map(self, batch: Batch) -> dict[str, Tensor]:
        """`depth` and `bev`."""
        frame = keyframe_of(batch)
        fine, coarse = self.encoder(frame.images.flatten(0, 1))
        pooled, depth = self.lift(self.neck(fine, coarse), frame)  # (B, C, Y, X)
        x = first = self.enter(pooled)
        for i, stage in enumerate(self.stages):
            x = stage(x)
            first = x if i == 0 else first
        x = self.up1(first, x)
        bev = self.up2(F.interpolate(x, size=pooled.shape[-2:], mode="bilinear", align_corners=True))
        return {"depth": depth, "bev": bev}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`map`."""
        return map_losses(outputs, batch, self.config.loss, {})

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The maps."""
        return map_predictions(outputs, batch, self.config.grid, self.config.maps)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`, the image encoder."""
        return {"encoder": list(self.encoder.parameters())}


class Joined(nn.Module):
    """A map and a coarser one, stretched over it, through two 3x3 convolutions."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Sequential(ConvNorm(in_channels, out_channels), ConvNorm(out_channels, out_channels))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(M, c, h, w) and (M, c', *, *) -> (M, out_channels, h, w)."""
        stretched = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=True)
        return self.conv(torch.cat([fine, stretched], 1))
