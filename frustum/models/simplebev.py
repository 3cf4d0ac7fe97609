"""SimpleBEV (Harley et al., 2022, arXiv:2206.07959): a map from above, lifted from images without a parameter.

images -> ImageFeatures -> LiftSample -> heights side by side, 3x3 convolution -> residual network over the map -> heads

Each voxel takes the mean of the features that its centre projects to, whatever depth they have; the network over the map finds out which
of the voxels along a ray hold something. Modules have the names of the published files (docs/methods/bev_segmentation.md).

Inside, maps have SimpleBEV's axes: rows forward, columns to the right, heights downward. Outputs have those of the house.
Shape letters: B batch, N cameras, M = B * N images, C channels, K classes, X Y Z voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from frustum.data.labels.map_classes import MapLabels
from frustum.geometry import VoxelGrid
from frustum.models.bev_segmentation import (
    HEADS,
    LOSS_WEIGHTS,
    MapLoss,
    Maps,
    check_maps,
    loss_weights,
    map_head,
    map_heads,
    map_losses,
    map_predictions,
    read_heads,
    start_at_share,
)
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.encoders.resnet import BasicBlock, resnet_stage
from frustum.nn.image_features import Encoder, ImageFeatures
from frustum.nn.instance_norm import InstanceNorm
from frustum.nn.lift_sample import FeatureSampling, LiftSample
from frustum.types.batch import Batch
from frustum.types.contract import Label, ModelConfig, Reads
from frustum.types.frame import keyframe_of
from frustum.types.predictions import Prediction


class SimpleBevConfig(ModelConfig):
    """Settings of SimpleBEV.

    Attributes:
        encoder: of the images.
        pretrained: weights that it starts from: a package's (true) or a file's.
        frozen_blocks: blocks of EfficientNet-Lite0 that are not trained.
        channels: C, of image features and map.
        map_channels: of the three stages over the map.
        grid: voxels in the frame of the map; published: 200 x 200 x 8, 6 m below to 4 m above CAM_FRONT.
        fine: cells of the predicted map along each side of a cell of the grid.
        sampling: how voxels find their features (nn/lift_sample.py); published weights need "reference".
        feature_head: have the head that published files have and from which nothing learns.
        maps: which maps.
        loss: how they are learned.
    """

    image_multiple: ClassVar[int] = 16

    encoder: Encoder = "resnet101"
    pretrained: Pretrained = False
    frozen_blocks: NonNegativeInt = 0
    channels: PositiveInt = 128
    map_channels: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256)
    grid: VoxelGrid = VoxelGrid(lower=(-50, -50, -6), upper=(50, 50, 4), cell=(0.5, 0.5, 1.25))
    fine: PositiveInt = 1
    sampling: FeatureSampling = "clean"
    feature_head: bool = False
    maps: Maps = Maps(rule="simplebev")
    loss: MapLoss = MapLoss()

    def reads(self) -> Reads:
        """See `Maps.reads`."""
        return self.maps.reads()

    def learns_from(self) -> tuple[MapLabels]:
        """Map labels. Raises ConfigError where the network's map is not that of the labels."""
        return check_maps(self.grid, self.fine, self.maps, self.loss)

    def build(self) -> SimpleBev:
        """The network; only the encoder may start from trained weights."""
        return SimpleBev(self)


class SimpleBev(nn.Module):
    """`forward` returns, in the augmented frame of the map,

    bev: (B, C, Y, X) what the heads read
    map_logits: (B, K, fine * Y, fine * X)
    centre: (B, 1, fine * Y, fine * X) probability, highest at the centres of objects
    offset: (B, 2, fine * Y, fine * X) from the centre of a cell's object to the cell, to the right and forward, in
        cells; twice that with `loss.doubled_offsets`
    features: (B, C, Y, X) of the feature head, where there is one
    """

    head_names = (*(f"decoder.{name}" for name in (*HEADS, "feat_head")), *LOSS_WEIGHTS)

    def __init__(self, config: SimpleBevConfig):
        super().__init__()
        self.map_channels, self.map_grid = config.channels, config.grid
        self.config, channels = config, config.channels
        self.encoder = ImageFeatures(config.encoder, channels, config.pretrained, config.frozen_blocks)
        self.lift = LiftSample(config.grid, config.sampling, rows_forward=True)
        self.bev_compressor = nn.Sequential(
            nn.Conv2d(channels * config.grid.shape[2], channels, 3, padding=1, bias=False), InstanceNorm(), nn.GELU()
        )
        self.decoder = Decoder(config)
        for name, weight in loss_weights(config.loss).items():
            self.register_parameter(name, weight)

    def prepare(self, statistics: Mapping[type[Label[Any]], Mapping[str, np.ndarray]]) -> None:
        """Begin at how frequent the classes are."""
        start_at_share(self.decoder.get_submodule("segmentation_head"), statistics, self.config.loss.positive_weight)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        bev = self._rows_forward(batch)
        outputs = {"bev": bev.float()} | self.decoder.answers(bev)
        return {name: as_house_map(value) for name, value in outputs.items()}

    def to_map(self, batch: Batch) -> dict[str, Tensor]:
        """`bev`."""
        return {"bev": as_house_map(self._rows_forward(batch))}

    def _rows_forward(self, batch: Batch) -> Tensor:
        """What the heads read, (B, C, rows, columns) in SimpleBEV's axes."""
        frame, map2ego = keyframe_of(batch), self.config.maps.map2ego(batch, self.training)
        features = self.encoder(frame.images.flatten(0, 1))  # (M, C, h, w)
        volume = self.lift(features, frame, map2ego)  # (B, C, Z, X, Y)
        return self.decoder(self.bev_compressor(volume.flatten(1, 2)))

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`map`, and with `loss.instances` `centre` and `offset`."""
        return map_losses(outputs, batch, self.config.loss, dict(self.named_parameters(recurse=False)))

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The maps."""
        return map_predictions(outputs, batch, self.config.grid, self.config.maps)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`encoder`, the image encoder."""
        return {"encoder": list(self.encoder.backbone.parameters())}


def as_house_map(x: Tensor) -> Tensor:
    """(B, *, rows forward, columns to the right) -> (B, *, Y, X)."""
    return x.transpose(2, 3).flip(2)


class Decoder(nn.Module):
    """The network over the map: three residual stages of ResNet-18 at 1/2, 1/4 and 1/8, added back up, and heads (after FIERY)."""

    def __init__(self, config: SimpleBevConfig):
        super().__init__()
        channels, (a, b, c) = config.channels, config.map_channels
        self.fine = config.fine
        self.first_conv = nn.Conv2d(channels, a, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(a)
        self.layer1 = resnet_stage(BasicBlock, a, a, 2, 1)
        self.layer2 = resnet_stage(BasicBlock, a, b, 2, 2)
        self.layer3 = resnet_stage(BasicBlock, b, c, 2, 2)
        self.up3_skip, self.up2_skip, self.up1_skip = Added(c, b), Added(b, a), Added(a, channels)
        if config.feature_head:
            self.feat_head: Any = map_head(channels, channels).requires_grad_(False)
        for name, head in map_heads(channels, len(config.maps.class_names), config.fine, config.loss.instances).items():
            self.add_module(name, head)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, rows, columns) -> likewise, what the heads read."""
        half = self.layer1(self.bn1(self.first_conv(x)).relu())
        quarter = self.layer2(half)
        bev = self.up3_skip(self.layer3(quarter), quarter)
        return self.up1_skip(self.up2_skip(bev, half), x)

    def answers(self, bev: Tensor) -> dict[str, Tensor]:
        """The outputs of `SimpleBev` but `bev`, in these axes."""
        outputs = read_heads({name: self.get_submodule(name) for name in HEADS if hasattr(self, name)}, bev, self.fine)
        return outputs | ({"features": self.feat_head(bev).float()} if hasattr(self, "feat_head") else {})


class Added(nn.Module):
    """A map, stretched over a finer one and brought to its channels, added to it. Sides of the maps need not be even."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.upsample_layer = nn.Sequential(nn.Identity(), convolution, InstanceNorm())  # numbered as in the files

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, in_channels, rows / 2, columns / 2) and (B, out_channels, rows, columns) -> the latter."""
        stretched = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        return self.upsample_layer(stretched) + skip
