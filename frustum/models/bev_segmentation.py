"""What networks have in common that segment a map seen from above: which map, the heads, the losses and the prediction.

Feature maps of networks may have any axes; what `forward` returns has those of the house: rows along y (left), columns along x (forward).
Offsets are counted to the right and forward, as SimpleBEV does.
Shape letters: B batch, C channels, K classes, Y X cells of the map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator
from torch import Tensor, nn

from frustum.config import TRAVELS, Config
from frustum.data.labels.bev_map import BevConvention
from frustum.data.labels.lidar_points import LidarPoints
from frustum.data.labels.map_classes import CAMERA_AXES, MAP_GRID, OBJECTS, MapLabels
from frustum.errors import ConfigError
from frustum.geometry import VoxelGrid
from frustum.losses.maps import cell_cross_entropy, centre_loss, centre_targets, offset_loss
from frustum.nn.instance_norm import InstanceNorm
from frustum.types.batch import Batch
from frustum.types.contract import Label, Reads
from frustum.types.predictions import PredictedMap, Prediction

HEADS = {"segmentation_head": "map_logits", "instance_offset_head": "offset", "instance_center_head": "centre"}
"""The heads by the names that SimpleBEV's files have, and what they are called in the outputs."""
LOSS_WEIGHTS = ("ce_weight", "center_weight", "offset_weight")
"""The learned weights of the losses, by the names that they have there."""


class Maps(Config):
    """Which maps a network learns and predicts.

    Attributes:
        class_names: `vehicle`, `pedestrian`, or layers of the map (docs/methods/bev_segmentation.md).
        rule: the published rule by which objects are drawn and cells count; "simplebev" puts the map in the frame of a camera.
        min_visibility: cells of less visible objects do not count in training, 1 to 4; 0: all count; None: as the rule has it.
        reference: under "simplebev" the camera in whose frame the map is: the place of CAM_FRONT among `data.cameras`.
        draw_reference: in training, the frame of another camera for each sample, any but the first, as SimpleBEV does.
    """

    class_names: Annotated[tuple[str, ...], Field(min_length=1)] = ("vehicle",)
    rule: Annotated[BevConvention, TRAVELS] = "lss"
    min_visibility: Annotated[int, Field(ge=0, le=4)] | None = None
    reference: NonNegativeInt = 1
    draw_reference: bool = False

    @model_validator(mode="after")
    def _is_possible(self) -> Maps:
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError(f"class names must differ, got {', '.join(self.class_names)}")
        if self.rule == "simplebev" and (layers := [name for name in self.class_names if name not in OBJECTS]):
            raise ValueError(
                f"{', '.join(layers)}: roads are flat and rule 'simplebev' is the frame of a camera; set model.maps.rule=lss (or pointbev)"
            )
        return self

    def reads(self) -> Reads:
        """The keyframe, and where CAM_FRONT must be in it."""
        return Reads(front=self.reference if self.rule == "simplebev" else -1)

    def labels(self) -> MapLabels:
        """The labels."""
        return MapLabels(self.class_names, self.rule, self.min_visibility, self.reference, self.draw_reference)

    def map2ego(self, batch: Batch, training: bool) -> Tensor:
        """(B, 4, 4) float64: the frame of the map, before its augmentation, to the ego frame; in training that of the labels."""
        cam2ego = batch.rig.cam2ego[:, 0].cpu().double()  # (B, N, 4, 4)
        if self.rule != "simplebev":
            return torch.eye(4, dtype=torch.float64).expand(len(batch), 4, 4)
        found = [batch.labels[kind].references for kind in (MapLabels, LidarPoints) if training and kind in batch.labels]
        chosen = found[0] if found else [min(self.reference, cam2ego.shape[1] - 1)] * len(batch)
        return cam2ego[torch.arange(len(batch)), torch.tensor(chosen)] @ torch.from_numpy(CAMERA_AXES)


class MapLoss(Config):
    """How a network learns from maps.

    Attributes:
        positive_weight: of cells that a class fills, in the cross-entropy.
        instances: also learn where the centres of the objects of the first class are.
        doubled_offsets: offsets to centres are twice as large, as in SimpleBEV's published files.
        learned_weights: balance the losses by weights that are learned; else the cross-entropy alone counts, or all with weight 1.
        average: divide the sum of the losses by their number (PointBeV).
    """

    positive_weight: PositiveFloat = 2.13
    instances: bool = True
    doubled_offsets: Annotated[bool, TRAVELS] = False
    learned_weights: bool = True
    average: bool = False


def check_maps(grid: VoxelGrid, fine: int, maps: Maps, loss: MapLoss) -> tuple[MapLabels]:
    """The labels of a network whose map has `fine` times the cells of `grid` along each side.

    Raises ConfigError unless that map is the labels' one, and the first class has instances where these are learned.
    """
    found, needed = tuple(fine * cells for cells in grid.shape[:2]), MAP_GRID.shape[:2]
    if found != needed or (grid.lower[:2], grid.upper[:2]) != (MAP_GRID.lower[:2], MAP_GRID.upper[:2]):
        x, y = (f"{low:g} to {high:g} m" for low, high in zip(grid.lower[:2], grid.upper[:2], strict=True))
        raise ConfigError(
            f"labels of maps have {needed[0]} x {needed[1]} cells of 0.5 m from -50 to 50 m, but this network's map has {found[0]} x "
            f"{found[1]}, x {x}, y {y}. Set model.grid to that range, in cells of 0.5 m times model.fine ({fine})."
        )
    if loss.instances and maps.class_names[0] not in OBJECTS:
        raise ConfigError(
            f"centres of objects are those of the first class, but {maps.class_names[0]} has no objects. Put vehicle first in "
            "model.maps.class_names, or set model.loss.instances=false."
        )
    return (maps.labels(),)


def map_heads(channels: int, num_classes: int, fine: int, instances: bool) -> dict[str, nn.Sequential]:
    """Heads over a map of C channels, by the names of HEADS: K classes, and with `instances` offsets (2) and centres (1)."""
    widths = {"segmentation_head": num_classes} | ({"instance_offset_head": 2, "instance_center_head": 1} if instances else {})
    return {name: map_head(channels, width * fine**2) for name, width in widths.items()}


def map_head(channels: int, out_channels: int) -> nn.Sequential:
    """A 3x3 convolution and a linear layer for each cell."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), InstanceNorm(), nn.ReLU(inplace=True),
        nn.Conv2d(channels, out_channels, 1),
    )  # fmt: skip


def read_heads(heads: Mapping[str, nn.Module], features: Tensor, fine: int) -> dict[str, Tensor]:
    """Outputs of `map_heads` from features (B, C, *, *), float32: `map_logits` (B, K, *, *), and what else there is."""
    found = {HEADS[name]: F.pixel_shuffle(head(features).float(), fine) for name, head in heads.items()}
    return found | ({"centre": found["centre"].sigmoid()} if "centre" in found else {})


@torch.no_grad()
def start_at_share(head: nn.Module, statistics: Mapping[type[Label[Any]], Mapping[str, np.ndarray]], positive_weight: float) -> None:
    """Let the last layer of the head of classes, bias (K * n,), begin at how frequent each is, as the weighted cross-entropy sees it."""
    last = [layer for layer in head.modules() if isinstance(layer, nn.Conv2d)][-1]
    share = torch.from_numpy(statistics[MapLabels]["share"]).float().clamp(1e-3, 1 - 1e-3)
    assert last.bias is not None
    last.bias.copy_((positive_weight * share / (1 - share)).log().repeat_interleave(len(last.bias) // len(share)))


def loss_weights(loss: MapLoss) -> dict[str, nn.Parameter]:
    """The learned weights of the losses, by SimpleBEV's names; empty where none are learned."""
    names = LOSS_WEIGHTS if loss.instances else LOSS_WEIGHTS[:1]
    return {name: nn.Parameter(torch.tensor(0.0)) for name in names} if loss.learned_weights else {}


def map_losses(outputs: dict[str, Tensor], batch: Batch, loss: MapLoss, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`map`, and with instances `centre` and `offset`. Their sum is SimpleBEV's total: with learned weights w

        10 ce / e^w1 + centre / (2 e^w2) + offset / (2 e^w3) + (w1 + w2 + w3) / 2

    Args:
        outputs: `map_logits` (B, K, Y, X), `centre` (B, 1, Y, X), `offset` (B, 2, Y, X).
        batch: with map labels. Raises DataError without.
        loss: the settings.
        weights: of `loss_weights`.
    """
    truth = batch.need(MapLabels)
    terms = {"map": (10.0, "ce_weight", cell_cross_entropy(outputs["map_logits"], truth.classes, truth.counts, loss.positive_weight))}
    if loss.instances:
        targets = centre_targets(truth.instances, truth.centres, loss.doubled_offsets)
        terms["centre"] = 0.5, "center_weight", centre_loss(outputs["centre"], targets.heat, truth.is_labelled)
        terms["offset"] = 0.5, "offset_weight", offset_loss(outputs["offset"], targets, truth.counts[:, :1])
    share = 1 / len(terms) if loss.average else 1.0
    if not loss.learned_weights:
        return {name: share * value for name, (_, _, value) in terms.items()}
    return {
        name: share * (factor * value * (-weights[key].float()).exp() + 0.5 * weights[key].float())
        for name, (factor, key, value) in terms.items()
    }


def map_predictions(outputs: dict[str, Tensor], batch: Batch, grid: VoxelGrid, maps: Maps) -> list[Prediction]:
    """The maps `map_logits` (B, K, Y, X) over the area of `grid`."""
    logits = outputs["map_logits"]
    cells = VoxelGrid(lower=grid.lower, upper=grid.upper, cell=_cell(grid, (logits.shape[-1], logits.shape[-2])))
    parts = [PredictedMap(one, cells, maps.class_names, maps.rule) for one in logits]
    return [Prediction(token, bev_map=part) for token, part in zip(batch.tokens, parts, strict=True)]


def _cell(grid: VoxelGrid, counts: tuple[int, int]) -> tuple[float, float, float]:
    x, y = ((high - low) / count for low, high, count in zip(grid.lower, grid.upper, counts, strict=False))
    return x, y, grid.upper[2] - grid.lower[2]
