"""A network in the manner of BEVFormer (Li et al., 2022, arXiv:2203.17270) that segments a map, without time (as in PointBeV, 2024).

images -> ImageFeatures -> L layers of learned queries, one for each cell: among each other, then to the images, then an MLP -> heads

A query looks at other cells, and at the images where points above its cell project to, at a few places of its own near these
(deformable attention). Of each camera only the queries that it sees are computed; what several cameras say is averaged.
Shape letters: B batch, N cameras, M = B * N images, C channels, Q = Y * X queries, P queries that a camera sees, Z heights, S places of
a query in a map, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from frustum.data.labels.map_classes import MapLabels
from frustum.geometry import VoxelGrid
from frustum.geometry.transforms import send
from frustum.models.bev_segmentation import (
    LOSS_WEIGHTS,
    MapLoss,
    Maps,
    check_maps,
    loss_weights,
    map_heads,
    map_losses,
    map_predictions,
    read_heads,
    start_at_share,
)
from frustum.nn.encoders.pretrained import Pretrained
from frustum.nn.image_features import Encoder, ImageFeatures
from frustum.nn.lift_sample import in_ego_frame
from frustum.nn.rig_memory import RigMemory
from frustum.ops.deform_attention import deform_attention
from frustum.types.batch import Batch
from frustum.types.contract import Label, ModelConfig, Reads
from frustum.types.frame import Frame, keyframe_of
from frustum.types.predictions import Prediction


class BevFormerSegConfig(ModelConfig):
    """Settings of BevFormerSeg.

    Attributes:
        encoder, pretrained, frozen_blocks: see `SimpleBevConfig`.
        channels: C.
        layers: L.
        heads: of both attentions.
        places: S, of a query in the map and in an image, there shared out evenly over the heights.
        hidden: width of the MLP.
        dropout: of what attention adds.
        grid: a query for each of its columns; the middles of its heights are the points that look into the images.
        fine: cells of the predicted map along each side of a cell of the grid.
        maps: which maps.
        loss: how they are learned.
    """

    image_multiple: ClassVar[int] = 16

    encoder: Encoder = "efficientnet_b4"
    pretrained: Pretrained = False
    frozen_blocks: NonNegativeInt = 0
    channels: PositiveInt = 128
    layers: PositiveInt = 6
    heads: PositiveInt = 4
    places: PositiveInt = 8
    hidden: PositiveInt = 1028
    dropout: float = Field(0.1, ge=0, lt=1)
    grid: VoxelGrid = VoxelGrid(lower=(-50, -50, -4), upper=(50, 50, 6), cell=(0.5, 0.5, 1.25))
    fine: PositiveInt = 1
    maps: Maps = Maps(rule="pointbev")
    loss: MapLoss = MapLoss(average=True)

    @model_validator(mode="after")
    def _divides(self) -> BevFormerSegConfig:
        if self.channels % self.heads:
            raise ValueError(f"{self.channels} channels do not divide into {self.heads} heads; set model.channels or model.heads")
        if self.places % self.grid.shape[2]:
            raise ValueError(
                f"{self.places} places of a query do not divide among {self.grid.shape[2]} heights; set model.places to a multiple, or "
                "model.grid to fewer heights"
            )
        return self

    def reads(self) -> Reads:
        """See `Maps.reads`."""
        return self.maps.reads()

    def learns_from(self) -> tuple[MapLabels]:
        """Map labels. Raises ConfigError where the network's map is not that of the labels."""
        return check_maps(self.grid, self.fine, self.maps, self.loss)

    def build(self) -> BevFormerSeg:
        """The network; only the encoder may start from trained weights."""
        return BevFormerSeg(self)


class Seen(NamedTuple):
    """What one camera sees.

    Attributes:
        queries: (P,) int64, those of which it sees a point at any height.
        points: (P, Z, 2) where in the image their points lie, from 0 to 1 across it; beyond that they are not seen.
    """

    queries: Tensor
    points: Tensor


class Sight(NamedTuple):
    """What all cameras see: that of each of the M images, and the number of cameras (B, Q, 1) that see a query, at least 1."""

    seen: list[Seen]
    cameras: Tensor


class BevFormerSeg(nn.Module):
    """`forward` returns, in the augmented frame of the map,

    bev: (B, C, Y, X) the queries after the last layer
    map_logits: (B, K, fine * Y, fine * X)
    centre: (B, 1, fine * Y, fine * X) probability, highest at the centres of objects
    offset: (B, 2, fine * Y, fine * X) from the centre of a cell's object to the cell, to the right and forward, in
        cells; twice that with `loss.doubled_offsets`
    """

    head_names = ("heads", *LOSS_WEIGHTS)

    def __init__(self, config: BevFormerSegConfig):
        super().__init__()
        self.map_channels, self.map_grid = config.channels, config.grid
        self.config = config
        x, y, heights = config.grid.shape
        self.encoder = ImageFeatures(config.encoder, config.channels, config.pretrained, config.frozen_blocks)
        self.queries = nn.Parameter(0.1 * torch.randn(y * x, config.channels))  # their position, too
        self.layers = nn.ModuleList([Layer(config, heights) for _ in range(config.layers)])
        self.heads = nn.ModuleDict(map_heads(config.channels, len(config.maps.class_names), config.fine, config.loss.instances))
        for name, weight in loss_weights(config.loss).items():
            self.register_parameter(name, weight)
        self.cells = nn.Buffer(_middles(y, x), persistent=False)
        self.plans: RigMemory[Sight] = RigMemory()

    def prepare(self, statistics: Mapping[type[Label[Any]], Mapping[str, np.ndarray]]) -> None:
        """Begin at how frequent the classes are."""
        start_at_share(self.heads["segmentation_head"], statistics, self.config.loss.positive_weight)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Outputs for the keyframe of each sample; see the class."""
        bev = self.to_map(batch)["bev"]
        return {"bev": bev.float()} | read_heads(dict(self.heads.items()), bev, self.config.fine)

    def to_map(self, batch: Batch) -> dict[str, Tensor]:
        """`bev`."""
        frame, size = keyframe_of(batch), (self.config.grid.shape[1], self.config.grid.shape[0])
        features, map2ego = self.encoder(frame.images.flatten(0, 1)), self.config.maps.map2ego(batch, self.training)  # (M, C, h, w)
        sight = self.sight(frame, map2ego, features.device)
        x = position = self.queries.expand(len(batch), -1, -1)
        for layer in self.layers:
            x = layer(x, position, self.cells, size, features, sight)
        return {"bev": x.mT.unflatten(2, size)}

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

    @torch.no_grad()
    def sight(self, frame: Frame, map2ego: Tensor, device: torch.device) -> Sight:
        """What the frame's cameras see of the queries, from memory where the same rig was there before."""
        rig = frame.rig
        matrices = (rig.image_aug, rig.intrinsics, rig.cam2ego, rig.ego2global, frame.ego2global, frame.bev_aug, map2ego)

        def make() -> Sight:
            seen = [pair for sample in range(len(map2ego)) for pair in self._seen(frame, map2ego, sample)]
            count, cameras = torch.zeros(len(map2ego), len(self.queries)), len(seen) // len(map2ego)
            for m, (queries, _) in enumerate(seen):
                count[m // cameras, queries] += 1
            count = count.clamp(min=1)[..., None]
            return Sight([Seen(send(queries, device), send(points, device)) for queries, points in seen], send(count, device))

        return self.plans.get(matrices, (str(device), rig.image_size, self.config.grid), make)

    def _seen(self, frame: Frame, map2ego: Tensor, sample: int) -> list[Seen]:
        """What each camera of a sample sees, in float64 on the CPU, where geometry lies (see `Batch.to`)."""
        rig, (height, width), heights = frame.rig.to("cpu")[sample : sample + 1], frame.rig.image_size, self.config.grid.shape[2]
        centres = self.config.grid.centres(torch.float64).transpose(0, 1).flatten(0, 2)  # (Q * Z, 3)
        centres = in_ego_frame(centres, frame, map2ego, sample)
        pixels, _, visible = rig.project(centres[None], frame.ego2global[sample : sample + 1].cpu())
        places = pixels[0] / pixels.new_tensor([width, height])
        found = []
        for at, inside in zip(places.unflatten(1, (-1, heights)), visible[0].unflatten(1, (-1, heights)), strict=True):
            queries = inside.any(1).nonzero()[:, 0]
            found.append(Seen(queries, at.where(inside[..., None], -9.0)[queries].float()))  # -9: far beyond the border
        return found


class Layer(nn.Module):
    """Attention among the queries, attention to the images, an MLP; a norm behind each."""

    def __init__(self, config: BevFormerSegConfig, heights: int):
        super().__init__()
        channels = config.channels
        self.among = DeformAttention(channels, config.heads, config.places)
        self.to_images = DeformAttention(channels, config.heads, config.places, heights)
        self.mlp = nn.Sequential(nn.Linear(channels, config.hidden), nn.ReLU(inplace=True), nn.Linear(config.hidden, channels))
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(3)])
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, position: Tensor, cells: Tensor, size: tuple[int, int], features: Tensor, sight: Sight) -> Tensor:
        """x and position (B, Q, C), cells (Q, 1, 2), the map's size, features (M, C, h, w) -> (B, Q, C)."""
        values = self.among.values(x.mT.unflatten(2, size))
        asked = self.among.ask(x + position, size)
        found = deform_attention(values, cells[None, :, None] + asked.offsets, asked.weights)
        x = self.norms[0](x + self.drop(self.among.out(found.to(x.dtype))))
        x = self.norms[1](x + self.drop(self._look(x + position, features, sight)))
        return self.norms[2](x + self.mlp(x))

    def _look(self, queries: Tensor, features: Tensor, sight: Sight) -> Tensor:
        """What the cameras say to queries (B, Q, C), averaged over those that see them."""
        part, size = self.to_images, (features.shape[-2], features.shape[-1])
        values, asked, cameras = part.values(features).split(1), part.ask(queries, size), len(features) // len(queries)
        each = asked.offsets.shape[-2] // sight.seen[0].points.shape[1]  # places for each height
        answers = []
        for b in range(len(queries)):
            total = queries.new_zeros(queries.shape[1:], dtype=torch.float32)
            for m in range(b * cameras, (b + 1) * cameras):
                chosen, points = sight.seen[m]
                near = points.repeat_interleave(each, 1)[:, None] + asked.offsets[b, chosen]  # (P, heads, S, 2)
                total = total.index_add(0, chosen, deform_attention(values[m], near[None], asked.weights[b, chosen][None])[0])
            answers.append(total)
        return part.out((torch.stack(answers) / sight.cameras).to(queries.dtype))


class Asked(NamedTuple):
    """Where queries look, as offsets (B, Q, heads, S, 2) in shares of a map, and with which weights (B, Q, heads, S)."""

    offsets: Tensor
    weights: Tensor


class DeformAttention(nn.Module):
    """The layers of deformable attention; what they are given says where queries look from.

    Args:
        channels: C.
        heads: among which the channels are divided.
        places: S.
        heights: points of a query that the places are shared out to.
    """

    def __init__(self, channels: int, heads: int, places: int, heights: int = 1):
        super().__init__()
        self.heads, self.places = heads, places
        self.offset, self.weight = nn.Linear(channels, heads * places * 2), nn.Linear(channels, heads * places)
        self.value, self.out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.value.weight)
        nn.init.xavier_uniform_(self.out.weight)
        for layer in (self.offset, self.weight):  # at first all queries look alike: each head in a direction of its own, ever further
            nn.init.normal_(layer.weight, std=1e-3)
            nn.init.zeros_(layer.bias)
        angle = 2 * math.pi * torch.arange(heads) / heads
        steps = 1 + torch.arange(places) % max(1, places // heights)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        self.offset.bias.data.copy_((direction[:, None] * steps[:, None]).flatten())

    def values(self, maps: Tensor) -> Tensor:
        """(*, C, h, w) -> (*, heads, C / heads, h, w)."""
        return self.value(maps.movedim(1, -1)).movedim(-1, 1).unflatten(1, (self.heads, -1))

    def ask(self, queries: Tensor, size: tuple[int, int]) -> Asked:
        """Queries (B, Q, C) of a map of (h, w) features, in which offsets are counted."""
        u, v = self.offset(queries).float().unflatten(-1, (self.heads, self.places, 2)).unbind(-1)
        offsets = torch.stack([u / size[1], v / size[0]], -1)
        return Asked(offsets, self.weight(queries).float().unflatten(-1, (self.heads, self.places)).softmax(-1))


def _middles(rows: int, columns: int) -> Tensor:
    """(rows * columns, 1, 2): column and row of the middle of each cell, from 0 to 1."""
    y, x = ((torch.arange(count) + 0.5) / count for count in (rows, columns))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)[:, None]
