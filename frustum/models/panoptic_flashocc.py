"""Panoptic-FlashOcc (Yu et al., 2024, arXiv:2406.10527): FlashOCC that tells objects apart, by class-aware centres.

images -> ResNet -> CustomFPN -> camera-aware LiftSplat (now, and past keyframes) -> CustomResNet + FpnLss over the map
       -> channel-to-height -> voxel logits
       -> centre head -> peaks per class; every voxel of an object class takes the number of the nearest centre of its class

What it adds to FlashOCC: a depth net that knows the calibration, a loss on all voxels without a camera mask, centres. Module names are
those of the published checkpoints.
Shape letters: B batch, N cameras, h w feature map, C channels, D depth bins, K classes, Q centres, X Y Z voxels.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from frustum.config import TRAVELS
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.geometry.grids import Rounding
from frustum.losses.centres import centre_losses, centre_targets
from frustum.losses.volume import affinity_losses, distance_weight, focal_loss, lovasz_softmax
from frustum.models.flashocc_temporal import TemporalConfig, TemporalOccupancy
from frustum.nn.centre_head import CentreHead, decode_centres
from frustum.ops.nearest_centre import nearest_centre
from frustum.types.batch import Batch
from frustum.types.classes import DETECTION_CLASSES, IGNORE, OBJECT_CLASSES
from frustum.types.contract import ModelConfig
from frustum.types.predictions import PanopticOccupancy, Prediction

# The order in which the reference reads its own heat maps. They were trained in that of DETECTION_CLASSES: four classes are confused.
_REFERENCE_ORDER = (
    "car", "truck", "trailer", "bus", "construction_vehicle", "bicycle", "motorcycle", "pedestrian", "traffic_cone", "barrier",
)  # fmt: skip
_REACH = (61.2, 61.2, 10.0)
"""Metres from the ego vehicle within which a centre counts."""


class InstanceConfig(ModelConfig):
    """Settings of the instance part, whatever the network below it.

    Attributes:
        instances: tell objects apart; off, the network is a semantic one without the centre head.
        label_map: which heat map serves which class of voxels. `fixed` takes that of the same class. `reference` confuses four of eight
            classes as the published code does at inference: bicycles are grouped by the centres of barriers, construction vehicles by
            those of trailers, trailers by those of construction vehicles, pedestrians by those of bicycles.
        least_score: peaks below are no objects.
        most_centres: peaks per sample that are looked at, best first.
        centre_loss: weight of the losses of the centre head, which need boxes; 0 needs none and leaves the head as it is.
    """

    instances: bool = True
    label_map: Annotated[Literal["fixed", "reference"], TRAVELS] = "fixed"
    least_score: float = Field(0.3, ge=0, le=1)
    most_centres: int = Field(500, ge=1, le=32767)
    centre_loss: NonNegativeFloat = 1.0


class PanopticFlashOccConfig(InstanceConfig, TemporalConfig):
    """Settings of PanopticFlashOcc: those of FlashOCC over time and of the instance part, and

    Attributes:
        camera_mask: train on voxels that a camera observed only; published is on all.
        class_balance: weigh the classes of the focal loss by FlashOCC's frequency table.
        depth_loss: weight of the depth supervision; 0 needs no depth maps.
    """

    camera_mask: bool = False
    class_balance: bool = True
    depth_loss: NonNegativeFloat = 1.0

    def build(self) -> PanopticFlashOcc:  # type: ignore[override]
        """The network with random weights."""
        return PanopticFlashOcc(self)


class PanopticFlashOcc(TemporalOccupancy):
    """Panoptic-FlashOcc with any number of past keyframes; `forward` and `step` come from `nn.temporal.TemporalModel`.

    `forward` returns
        image_features: (B * N, neck_channels, h, w) of the keyframe
        depth: (B * N, D, h, w) probability of each depth bin, of the keyframe
        pooled: (B, lift_channels, Y, X) of the keyframe
        bev: (B, bev_channels, Y, X)
        occ_logits: (B, X, Y, Z, K)
    and with instances, for the ten classes of DETECTION_CLASSES,
        heatmap: (B, 10, Y, X) logits of object centres
        reg: (B, 2, Y, X) x and y of the centre relative to its cell, in cells
        height: (B, 1, Y, X) z of the centre in metres
    """

    config: PanopticFlashOccConfig

    def __init__(self, config: PanopticFlashOccConfig):
        super().__init__(config)
        self.aux_centerness_head = None
        if config.instances:
            self.aux_centerness_head = CentreHead(config.bev_channels, len(DETECTION_CLASSES), idle=("dim", "rot", "vel"))
            if not config.centre_loss:
                self.aux_centerness_head.requires_grad_(False)

    def read(self, maps: Tensor) -> dict[str, Tensor]:
        """Occupancy and object centres from the joined maps."""
        outputs = super().read(maps)
        return outputs if self.aux_centerness_head is None else outputs | self.aux_centerness_head(outputs["bev"])

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`focal`, `semantic_affinity`, `geometric_affinity`, `lovasz`, and where configured `depth` and `centre_*`.

        Needs semantics, and mask_camera, depth and boxes where they are used.
        """
        losses = super().loss(outputs, batch)
        return losses | instance_losses(outputs, batch, self.config, self.config.grid, self.rounding)

    def occupancy_loss(self, logits: Tensor, labels: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """The four losses on voxels, see `loss`."""
        if mask is not None:
            labels = labels.masked_fill(~mask, IGNORE)
        far = distance_weight(self.config.grid.shape[:2], logits.device)[..., None]
        semantic, geometric = affinity_losses(logits, labels, free=len(self.config.class_names) - 1)
        return {
            "focal": 100 * focal_loss(logits, labels, self.class_weight, far),
            "semantic_affinity": semantic,
            "geometric_affinity": geometric,
            "lovasz": lovasz_softmax(logits, labels),
        }

    @torch.no_grad()
    def predict(self, outputs: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        """The most likely class of every voxel, and its object (`PanopticOccupancy`) if the network has the instance part."""
        found = super().predict(outputs, batch)
        return panoptic_predictions(found, outputs, self.config, self.config.grid, self.rounding)

    @property
    def rounding(self) -> Rounding:
        """How centres find their cells, in training and after."""
        return "truncate" if self.config.voxel_rounding == "reference" else "floor"


def instance_losses(
    outputs: dict[str, Tensor], batch: Batch, config: InstanceConfig, map_grid: VoxelGrid, rounding: Rounding = "floor"
) -> dict[str, Tensor]:
    """`centre_heat`, `centre_xy` and `centre_z` of a centre head over a map of `map_grid`; `rounding` finds the cell of a true centre.

    Raises:
        DataError: the batch has no boxes.
    """
    if not (config.instances and config.centre_loss):
        return {}
    if batch.boxes is None or batch.box_classes is None:
        raise DataError(
            "object centres are learned from boxes; set data.load_boxes=true, or model.instances=false, or model.centre_loss=0."
        )
    targets = centre_targets(batch.boxes, batch.box_classes, map_grid, len(DETECTION_CLASSES), rounding=rounding)
    return {name: config.centre_loss * loss for name, loss in centre_losses(outputs, targets).items()}


def panoptic_predictions(
    found: list[Prediction], outputs: dict[str, Tensor], config: InstanceConfig, map_grid: VoxelGrid, rounding: Rounding = "floor"
) -> list[Prediction]:
    """Group the voxels of semantic predictions into objects, the whole batch at once.

    Voxels of an object class take the number of the nearest centre of their class, K + its position among the peaks. All other voxels,
    and those of a class without a centre, keep their class id as number. With `label_map=reference`, cones and barriers get 0 where the
    reference takes one for found.

    Args:
        found: one per sample, all with the same grid and classes.
        outputs: of the centre head, over a map of `map_grid`.
        rounding: how a centre finds its voxel.
    """
    grid, names = found[0].grid, found[0].class_names
    if not config.instances or grid is None:
        return found
    semantics = torch.stack([p.semantics for p in found if p.semantics is not None])
    centres = decode_centres(outputs, map_grid, config.most_centres)
    is_found = (centres.scores > config.least_score) & (centres.points.abs() <= centres.points.new_tensor(_REACH)).all(-1)
    serves = torch.tensor(served_classes(config.label_map, names), device=semantics.device)[centres.classes]
    serves = serves.where(is_found, -1)  # (B, Q)
    cells, _ = grid.indices(centres.points, rounding)
    nearest = nearest_centre(semantics, cells, serves).int()  # (B, X, Y, Z)
    instances = torch.where(nearest >= 0, nearest + len(names), semantics)
    for name in ("barrier", "traffic_cone") if config.label_map == "reference" else ():
        if name in names:
            instances[(semantics == names.index(name)) & (nearest >= 0)] = 0
    predictions: list[Prediction] = []
    for i, prediction in enumerate(found):
        size = torch.bincount(instances[i].flatten(), minlength=len(names) + serves.shape[1])
        objects = size[len(names) :].nonzero()[:, 0]
        predictions.append(
            PanopticOccupancy(
                prediction.token, prediction.semantics, grid, names, instances[i],
                instance_ids=objects + len(names),
                instance_classes=serves[i, objects],
                instance_centres=centres.points[i, objects],
                instance_scores=centres.scores[i, objects],
            )
        )  # fmt: skip
    return predictions


def served_classes(label_map: Literal["fixed", "reference"], class_names: tuple[str, ...]) -> list[int]:
    """The id in `class_names` of the voxels that the centres of each heat map collect, -1 for none."""
    names: tuple[str, ...] = tuple(name if name in OBJECT_CLASSES else "" for name in DETECTION_CLASSES)
    if label_map == "reference":
        names = _REFERENCE_ORDER
    return [class_names.index(name) if name in class_names else -1 for name in names]
