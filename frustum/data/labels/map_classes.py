"""Labels of maps seen from above: objects drawn as the published code bases draw them, roads and lanes, on 200 x 200 cells of 0.5 m.

How each rule draws objects stands in data/labels/bev_map.py; where roads come from, in data/nuscenes/map_patches.py. What was read is
drawn anew for each change of the ego frame, so that turned labels are as sharp as others. Maps are (Y, X): rows towards the left, columns
forward, in the ego frame, or under "simplebev" in that of a camera whose axes are named as the vehicle's (`CAMERA_AXES`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from frustum.data.augment import BevTransform, Draw
from frustum.data.labels.bev_map import BACKGROUND, BevConvention, are_objects, as_map, centre_cells, draw_boxes
from frustum.data.nuscenes.map_patches import NODES, REACH, STEP, origins, read_patch
from frustum.data.sample import Sample
from frustum.data.source import as_rig_source, labelled, spread
from frustum.errors import DataError
from frustum.geometry import VoxelGrid, invert, pose, rotation_z, yaw_of
from frustum.types.contract import Label, Shapes

ObjectClass = Literal["vehicle", "pedestrian"]
OBJECTS: tuple[str, ...] = get_args(ObjectClass)
"""Classes that are drawn from boxes; all others are map layers."""
MAP_GRID = VoxelGrid(lower=(-50.0, -50.0, -10.0), upper=(50.0, 50.0, 10.0), cell=(0.5, 0.5, 20.0))
"""What all published rules cover."""
CAMERA_AXES = pose(np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.zeros(3))
"""(4, 4), x forward, y left, z up to a camera's x right, y down, z forward."""

_SAMPLED = 100  # keyframes that say how frequent classes are
_COUNT_FROM: dict[str, int] = {"lss": 0, "pointbev": 2, "cvt": 2, "simplebev": 2}  # the visibility from which cells count


@dataclass(frozen=True)
class MapTruth:
    """Maps of B samples, rows along y and columns along x of the augmented frame.

    Attributes:
        classes: (B, K, Y, X) bool.
        counts: (B, K, Y, X) bool, where the label is known and visible enough to be learned.
        instances: (B, Y, X) int32, number of the object of the first class, from 1; 0 for none, and where that class is a map layer.
        centres: per sample (M, 2) int32, row and column of the centre of each of them, which may lie outside.
        references: per sample the camera in whose frame the map is; -1 for the ego frame.
        is_labelled: (B,) bool, False where the labels of a sample are hidden.
    """

    classes: Tensor
    counts: Tensor
    instances: Tensor
    centres: list[Tensor]
    references: list[int]
    is_labelled: Tensor


class Objects(NamedTuple):
    """Boxes of one class: box2ego (M, 4, 4), length, width and height (M, 3), visibility (M,)."""

    box2ego: np.ndarray
    size: np.ndarray
    visibility: np.ndarray


class Found(NamedTuple):
    """What is read of a keyframe.

    Attributes:
        objects: by class, in the order in which the classes are named.
        layers: (L, NODES, NODES) of the map layers as packed bits.
        known: (NODES, NODES) likewise, where they are known.
        cam2ego: (N, 4, 4) of the cameras that may be references; empty in the ego frame.
        tilt: (4, 4) ego frame to the one with the heading alone, for "cvt"; else an identity.
        is_hidden: the labels of this keyframe are not learned from.
    """

    objects: tuple[Objects, ...]
    layers: np.ndarray
    known: np.ndarray
    cam2ego: np.ndarray
    tilt: np.ndarray
    is_hidden: bool


class Drawn(NamedTuple):
    """One sample of `MapTruth`."""

    classes: np.ndarray
    counts: np.ndarray
    instances: np.ndarray
    centres: np.ndarray
    reference: int
    is_labelled: bool


def require_front(sample: Sample, reference: int, setting: str = "model.maps.reference") -> None:
    """Raise DataError unless CAM_FRONT is the camera `reference` of a keyframe; `setting` is what chooses that, as it is typed."""
    channels = [camera.channel for camera in sample.cameras]
    if "CAM_FRONT" not in channels or channels.index("CAM_FRONT") != reference:
        place = f"is camera {channels.index('CAM_FRONT')}: set {setting}={channels.index('CAM_FRONT')}" if "CAM_FRONT" in channels else ""
        raise DataError(
            f"'simplebev' maps are in the frame of CAM_FRONT, which should be camera {reference} of keyframe {sample.token}, but "
            f"{place or 'is not there'}. Cameras: {', '.join(channels) or 'none'}. Choose data.cameras with it, or "
            f"{setting.removesuffix('reference')}rule=lss."
        )


@dataclass(frozen=True)
class MapLabels(Label[MapTruth]):
    """Maps of K classes.

    Attributes:
        class_names: `vehicle`, `pedestrian`, or map layers (`map_layers.LAYERS`). Instances are those of the first.
        rule: how objects are drawn, see data/labels/bev_map.py.
        min_visibility: cells of objects that are less visible do not count, 1 to 4; 0: all count; None: as the rule says.
        reference: under "simplebev", the camera in whose frame the map is: its place in the sample, where CAM_FRONT must be.
        draw_reference: in training, draw another one for each sample, any but the first.
    """

    class_names: tuple[str, ...] = ("vehicle",)
    rule: BevConvention = "lss"
    min_visibility: int | None = None
    reference: int = 1
    draw_reference: bool = False

    can_be_hidden: ClassVar[bool] = True
    what: ClassVar[str] = "map labels"
    advice: ClassVar[str] = "Use a data set with annotations, or batch.with_labels({MapLabels: MapTruth(...)})."

    @property
    def counts_from(self) -> int:
        """The visibility from which cells of an object count; 0 where all do."""
        return _COUNT_FROM[self.rule] if self.min_visibility is None else self.min_visibility

    @property
    def layers(self) -> tuple[str, ...]:
        """The classes that are map layers."""
        return tuple(name for name in self.class_names if name not in OBJECTS)

    def read(self, source: Any, token: str, fixed: Draw | None = None) -> Found:
        """See `Label.read`. Raises DataError for what the data set does not have: boxes, a map, or the camera of the rule."""
        kinds = [name for name in self.class_names if name in OBJECTS]
        sample = as_rig_source(source, self.what).sample(token, with_boxes=bool(kinds), occupancy=False)
        objects = []
        for kind in kinds:
            chosen = are_objects(sample, kind, self.rule)  # type: ignore[arg-type]
            boxes = sample.boxes
            assert boxes is not None
            objects.append(Objects(boxes.box2ego[chosen], boxes.boxes[chosen, 3:6], boxes.visibility[chosen]))
        cam2ego, tilt, is_hidden = np.zeros((0, 4, 4)), np.eye(4), not labelled(source, [token])
        if self.rule == "simplebev":
            require_front(sample, self.reference)
            cam2ego = np.stack([camera.cam2ego for camera in sample.cameras])
        elif self.rule == "cvt":
            flat = pose(rotation_z(yaw_of(sample.ego2global[:3, :3])), sample.ego2global[:3, 3])
            tilt = invert(flat) @ sample.ego2global
        masks, known = np.zeros((0, NODES, NODES), bool), np.zeros((NODES, NODES), bool)
        if self.layers and not is_hidden:
            masks, known, _ = read_patch(source, token, self.layers)
        return Found(tuple(objects), np.packbits(masks), np.packbits(known), cam2ego, tilt, is_hidden)

    def apply(self, found: Found, draw: Draw) -> Drawn:
        """The maps in the augmented frame, and in that of a drawn camera where one is drawn."""
        reference = self.reference if self.rule == "simplebev" else -1
        if reference >= 0 and self.draw_reference and draw.seed is not None:
            reference = int(np.random.default_rng(draw.seed).integers(min(1, len(found.cam2ego) - 1), len(found.cam2ego)))
        return self.draw(found, draw.bev, reference)

    def draw(self, found: Found, bev: BevTransform, reference: int) -> Drawn:
        """The maps in the frame of a camera, or with a reference of -1 in the ego frame, changed by `bev`."""
        shape = MAP_GRID.shape[1], MAP_GRID.shape[0]
        classes, counts = (np.zeros((len(self.class_names), *shape), bool) for _ in range(2))
        instances, centres = np.zeros(shape, np.int32), np.zeros((0, 2), np.int32)
        ego2drawn = bev.matrix() @ found.tilt
        if reference >= 0:  # the ego axes of the camera are augmented, and its own are drawn in
            ego2drawn = CAMERA_AXES @ bev.matrix() @ invert(found.cam2ego[reference] @ CAMERA_AXES)
        if not found.is_hidden:
            objects, layers = iter(found.objects), iter(self._sampled(found, bev) if self.layers else ())
            for i, name in enumerate(self.class_names):
                if name not in OBJECTS:
                    classes[i], counts[i] = next(layers)
                    continue
                box2ego, size, visibility = next(objects)
                label = draw_boxes(ego2drawn @ box2ego, size, visibility, self.rule)
                classes[i] = as_map(label.mask, self.rule)
                counts[i] = as_map((label.visibility == BACKGROUND) | (label.visibility >= self.counts_from), self.rule)
                if i == 0:
                    instances = np.ascontiguousarray(as_map(label.instances, self.rule))
                    centres = centre_cells((ego2drawn @ box2ego)[:, :3, 3], self.rule)
        return Drawn(classes, counts, instances, centres, reference, not found.is_hidden)

    def _sampled(self, found: Found, bev: BevTransform) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each layer at the middle of the cells, and where it is known."""
        count = len(self.layers)
        masks = np.unpackbits(found.layers, count=count * NODES**2).reshape(count, NODES, NODES).astype(bool)
        known = np.unpackbits(found.known, count=NODES**2).reshape(NODES, NODES).astype(bool)
        first = -49.5 if self.rule == "cvt" else -50.0  # the middle of the first cell, by the rounding of the rule
        steps = first + 0.5 * np.arange(MAP_GRID.shape[0])
        x, y = np.meshgrid(steps, steps, indexing="xy")
        inverse = np.linalg.inv(bev.matrix()[:2, :2])
        nodes = [np.round((a * x + b * y + REACH) / STEP).astype(np.int64) for a, b in inverse]
        inside = np.logical_and.reduce([(n >= 0) & (n < NODES) for n in nodes])
        column, row = (np.where(inside, n, 0) for n in nodes)
        is_known = known[row, column] & inside
        return [(mask[row, column] & is_known, is_known) for mask in masks]

    def collate(self, moved: Sequence[Drawn | None]) -> MapTruth | None:
        """None where a sample has no labels; one whose labels are hidden is there, and nothing in it counts."""
        rows = [drawn for drawn in moved if drawn is not None]
        if len(rows) < len(moved) or not rows:
            return None
        classes, counts, instances = (torch.from_numpy(np.stack([row[i] for row in rows])) for i in range(3))
        centres = [torch.from_numpy(np.ascontiguousarray(row.centres)) for row in rows]
        is_labelled = torch.tensor([row.is_labelled for row in rows])
        return MapTruth(classes, counts, instances, centres, [row.reference for row in rows], is_labelled)

    def example(self, rng: np.random.Generator, shapes: Shapes) -> MapTruth:
        """Four boxes around the vehicle, the second barely visible; and a road along x for each map layer."""
        rows = []
        for _ in range(shapes.batch):
            place = np.eye(4)[None].repeat(4, 0)
            place[:, :3, :3] = rotation_z(rng.uniform(-np.pi, np.pi, 4))
            place[:, :2, 3] = rng.uniform(-30, 30, (4, 2))
            objects = Objects(place, rng.uniform(3, 12, (4, 3)), np.array([4, 1, 3, 2]))
            masks, known = np.zeros((len(self.layers), NODES, NODES), bool), np.ones((NODES, NODES), bool)
            masks[:, NODES // 2 - 20 : NODES // 2 + 20] = True
            several = tuple(objects for name in self.class_names if name in OBJECTS)
            cam2ego = CAMERA_AXES.T[None].repeat(shapes.cameras, 0)
            found = Found(several, np.packbits(masks), np.packbits(known), cam2ego, np.eye(4), False)
            rows.append(self.draw(found, BevTransform(), min(self.reference, shapes.cameras - 1) if self.rule == "simplebev" else -1))
        truth = self.collate(rows)
        assert truth is not None
        return truth

    def statistics(self, source: Any, tokens: Sequence[str]) -> dict[str, np.ndarray]:
        """`share` (K,) float64: of the cells that count, those that each class fills; from at most 100 keyframes."""
        filled, counted = np.zeros(len(self.class_names)), np.zeros(len(self.class_names))
        for token in spread(labelled(source, tokens), _SAMPLED):
            drawn = self.draw(self.read(source, token), BevTransform(), self.reference if self.rule == "simplebev" else -1)
            filled += (drawn.classes & drawn.counts).sum((1, 2))
            counted += drawn.counts.sum((1, 2))
        return {"share": filled / np.maximum(counted, 1)}

    def described(self, source: Any, tokens: Sequence[str], statistics: Mapping[str, np.ndarray]) -> str:
        """Which classes, by which rule, from how many keyframes, and where roads come from."""
        shown = labelled(source, tokens)
        some = (
            f" of {len(shown):,} of {len(tokens):,} keyframes, hidden in the others by data.labelled_share"
            if len(shown) < len(tokens)
            else ""
        )
        roads = f", roads from {' and '.join(origins(source, shown, self.layers))}" if self.layers and shown else ""
        visible = f"visibility {self.counts_from} and more" if self.counts_from > 1 else "any visibility"
        return f"maps of {', '.join(self.class_names)}{some} (rule {self.rule!r}, objects of {visible}{roads})"

    def require(self, source: Any, tokens: Sequence[str]) -> None:
        """Raise DataError if no labelled keyframe has a box of an object class, a location does not have a map layer, or what the rule
        needs is not there.
        """
        shown = labelled(source, tokens)
        for token in shown[:1]:
            self.read(source, token)
        if self.layers:
            origins(source, shown, self.layers)
        rigs = as_rig_source(source, self.what)
        for kind in self.class_names if tokens else ():
            samples = (rigs.sample(token, with_boxes=True, occupancy=False) for token in shown)
            if kind in OBJECTS and not any(are_objects(sample, kind, self.rule).any() for sample in samples):  # type: ignore[arg-type]
                raise DataError(
                    f"this recipe learns where each {kind} is, but none of the {len(shown)} labelled training keyframes in {source.root} "
                    "has a box of one (sample_annotation.json). Add annotations, raise data.labelled_share, or choose other "
                    "model.maps.class_names."
                )
