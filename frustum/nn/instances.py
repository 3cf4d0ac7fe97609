"""Occupied voxels are grouped into objects by the centres of objects: Panoptic-FlashOcc's grouping.

Shape letters: B batch, K classes, Q centres, I objects, X Y Z voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from frustum.config import TRAVELS, Config, into_section
from frustum.geometry import VoxelGrid
from frustum.geometry.grids import Rounding
from frustum.nn.centre_head import decode_centres
from frustum.ops.nearest_centre import nearest_centre
from frustum.types.classes import DETECTION_CLASSES, OBJECT_CLASSES
from frustum.types.predictions import Objects, Prediction

# The order in which the reference reads its own heat maps. They were trained in that of DETECTION_CLASSES: four classes are confused.
_REFERENCE_ORDER = (
    "car", "truck", "trailer", "bus", "construction_vehicle", "bicycle", "motorcycle", "pedestrian", "traffic_cone", "barrier",
)  # fmt: skip
_REACH = (61.2, 61.2, 10.0)
"""Metres from the ego vehicle within which a centre counts."""

LabelMap = Literal["fixed", "reference"]


class InstanceConfig(Config):
    """Settings of the instance part, whatever the network below it.

    Attributes:
        label_map: which heat map serves which class of voxels. `fixed` takes that of the same class. `reference` confuses four of eight
            classes as the published code does at inference: bicycles are grouped by the centres of barriers, construction vehicles by
            those of trailers, trailers by those of construction vehicles, pedestrians by those of bicycles.
        score_threshold: peaks with a lower score are ignored.
        max_centres: peaks per sample that count, best first.
        centre_loss: weight of the losses of the centre head, which need boxes; 0 needs none and leaves the head as it is.
    """

    label_map: Annotated[LabelMap, TRAVELS] = "fixed"
    score_threshold: float = Field(0.3, ge=0, le=1)
    max_centres: int = Field(500, ge=1, le=32767)
    centre_loss: NonNegativeFloat = 1.0


_STORED = {"label_map": "label_map", "least_score": "score_threshold", "most_centres": "max_centres", "centre_loss": "centre_loss"}


def upgraded_instances(stored: dict[str, Any]) -> dict[str, Any]:
    """Settings of a model as the first version stored them, flat, with `instances` as a section or None."""
    is_on = stored.get("instances")
    if not isinstance(is_on, bool):
        return stored
    settings = into_section(stored, "instances", _STORED)
    return settings if is_on else settings | {"instances": None}


def panoptic_predictions(
    found: Sequence[Prediction], outputs: dict[str, Tensor], config: InstanceConfig, map_grid: VoxelGrid, rounding: Rounding = "floor"
) -> list[Prediction]:
    """Group the voxels of semantic predictions into objects, the whole batch at once.

    Voxels of an object class take the number of the nearest centre of their class, K + its position among the peaks. All other voxels,
    and those of a class without a centre, keep their class id as number. With `label_map=reference`, cones and barriers get 0 where the
    reference takes one for found.

    Args:
        found: one per sample, with occupancy, all of the same grid and classes.
        outputs: of the centre head, over a map of `map_grid`.
        config: how centres are read.
        rounding: how a centre finds its voxel.
    """
    parts = [p.occupancy for p in found if p.occupancy is not None]
    grid, names = parts[0].grid, parts[0].class_names
    semantics = torch.stack([part.semantics for part in parts])
    centres = decode_centres(outputs, map_grid, config.max_centres)
    is_found = (centres.scores > config.score_threshold) & (centres.points.abs() <= centres.points.new_tensor(_REACH)).all(-1)
    serves = torch.tensor(served_classes(config.label_map, names), device=semantics.device)[centres.classes]
    serves = serves.where(is_found, -1)  # (B, Q)
    cells, _ = grid.indices(centres.points, rounding)
    nearest = nearest_centre(semantics, cells, serves).int()  # (B, X, Y, Z)
    instances = torch.where(nearest >= 0, nearest + len(names), semantics)
    for name in ("barrier", "traffic_cone") if config.label_map == "reference" else ():
        if name in names:
            instances[(semantics == names.index(name)) & (nearest >= 0)] = 0
    predictions = []
    for i, (prediction, part) in enumerate(zip(found, parts, strict=True)):
        size = torch.bincount(instances[i].flatten(), minlength=len(names) + serves.shape[1])
        ids = size[len(names) :].nonzero()[:, 0]
        objects = Objects(ids + len(names), serves[i, ids], centres.points[i, ids], centres.scores[i, ids])
        predictions.append(replace(prediction, occupancy=replace(part, instances=instances[i], objects=objects)))
    return predictions


def served_classes(label_map: LabelMap, class_names: tuple[str, ...]) -> list[int]:
    """The id in `class_names` of the voxels that the centres of each heat map collect, -1 for none."""
    names: tuple[str, ...] = tuple(name if name in OBJECT_CLASSES else "" for name in DETECTION_CLASSES)
    if label_map == "reference":
        names = _REFERENCE_ORDER
    return [class_names.index(name) if name in class_names else -1 for name in names]
