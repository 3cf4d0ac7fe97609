"""Occupancy labels: the class of every voxel, and which voxels were observed (Occ3D)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from frustum.data.augment import Draw
from frustum.data.sample import Occupancy
from frustum.data.source import as_rig_source, labelled
from frustum.errors import DataError, ShapeError
from frustum.geometry import VoxelGrid
from frustum.types.arrays import Array, as_tensor
from frustum.types.classes import IGNORE, OCC3D_CLASSES
from frustum.types.contract import Label, Shapes


@dataclass(frozen=True)
class OccupancyTruth:
    """Labels of B samples.

    Attributes:
        semantics: (B, X, Y, Z) uint8 class ids, IGNORE where unknown.
        mask_camera, mask_lidar: (B, X, Y, Z) bool, True where a camera or the LiDAR observed the voxel.
        instances: (B, X, Y, Z) uint8 (int32 with more than 255 objects), 0 for none; None if they were not read.
    """

    semantics: Tensor
    mask_camera: Tensor
    mask_lidar: Tensor
    instances: Tensor | None = None

    @classmethod
    def from_arrays(cls, semantics: Array, mask_camera: Array, mask_lidar: Array | None = None) -> OccupancyTruth:
        """From plain arrays (X, Y, Z) or (B, X, Y, Z); masks broadcast over B. Without a LiDAR mask all voxels count as observed by it.

        Raises:
            ShapeError: the voxels differ or a shape has another number of dimensions.
            DataError: semantics hold something else than class ids, masks something else than 0 and 1.
        """
        labels = _volumes(semantics, "semantics")
        if labels.is_floating_point() or ((labels < 0) | (labels > 255)).any():
            raise DataError(f"semantics must hold integer class ids from 0 to 255, got {labels.dtype}.")
        masks = {"mask_camera": mask_camera, "mask_lidar": np.ones(labels.shape, bool) if mask_lidar is None else mask_lidar}
        found = {}
        for name, value in masks.items():
            mask = _volumes(value, name)
            if mask.dtype != torch.bool and ((mask != 0) & (mask != 1)).any():
                raise DataError(f"{name} must hold 0 and 1 or bools, got other values.")
            if mask.shape[1:] != labels.shape[1:] or len(mask) not in (1, len(labels)):
                raise ShapeError(f"{name} has {tuple(mask.shape)} voxels, but semantics has {tuple(labels.shape)}.")
            found[name] = mask.bool().expand_as(labels)
        return cls(labels.to(torch.uint8), **found)


class _Found(NamedTuple):
    semantics: np.ndarray  # (X, Y, Z) uint8
    masks: tuple[np.ndarray, np.ndarray]  # LiDAR and camera mask as packed bits
    instances: np.ndarray | None


@dataclass(frozen=True)
class OccupancyLabels(Label[OccupancyTruth]):
    """Labels over the voxels of `grid`; with `instances` also the instance of each voxel, where the data set has them."""

    grid: VoxelGrid
    instances: bool = False
    class_names: tuple[str, ...] = OCC3D_CLASSES

    can_be_hidden: ClassVar[bool] = True
    what: ClassVar[str] = "occupancy labels"
    advice: ClassVar[str] = "Use a data set that has gts/ files, or Batch.from_arrays(..., labels={OccupancyLabels: ...})."

    def read(self, source: Any, token: str, fixed: Draw | None = None) -> _Found | None:
        """See `Label.read`; of a sample whose labels are hidden, nothing is observed. Raises DataError for labels of another shape, or a
        damaged file."""
        rigs = as_rig_source(source, self.what)
        labels = rigs.sample(token, with_boxes=False, occupancy="instances" if self.instances else True).occupancy
        if labels is None and not labelled(source, [token]):
            unknown, nothing = np.full(self.grid.shape, IGNORE, np.uint8), np.zeros(self.grid.shape, np.uint8)
            labels = Occupancy(unknown, nothing, nothing, nothing if self.instances else None)
        if labels is None:
            return None
        self._check(labels, token)
        masks = (np.packbits(labels.mask_lidar), np.packbits(labels.mask_camera))
        return _Found(labels.semantics, masks, labels.instances if self.instances else None)

    def apply(self, found: _Found, draw: Draw) -> Occupancy:
        """The labels in the augmented frame."""
        lidar, camera = (np.unpackbits(m, count=self.grid.num_cells).reshape(self.grid.shape) for m in found.masks)
        return draw.bev.labels(Occupancy(found.semantics, lidar, camera, found.instances), self.grid)

    def collate(self, moved: Sequence[Occupancy | None]) -> OccupancyTruth | None:
        """A keyframe without labels among labelled ones gets ignored semantics and empty masks."""
        known = next((labels for labels in moved if labels is not None), None)
        if known is None:
            return None

        def stack(name: str, fill: int = 0) -> Tensor:
            like = getattr(known, name)
            return torch.from_numpy(np.stack([np.full_like(like, fill) if labels is None else getattr(labels, name) for labels in moved]))

        instances = None if any(labels is not None and labels.instances is None for labels in moved) else stack("instances")
        return OccupancyTruth(stack("semantics", IGNORE), stack("mask_camera").bool(), stack("mask_lidar").bool(), instances)

    def example(self, rng: np.random.Generator, shapes: Shapes) -> OccupancyTruth:
        """Voxels of random classes, four fifths of them free."""
        size, free = (shapes.batch, *self.grid.shape), len(self.class_names) - 1
        semantics = np.where(rng.random(size) < 0.8, free, rng.integers(0, free, size)).astype(np.uint8)
        masks = [torch.from_numpy(rng.random(size) < share) for share in (0.6, 0.8)]
        return OccupancyTruth(torch.from_numpy(semantics), *masks)

    def require(self, source: Any, tokens: Sequence[str]) -> None:
        """Raise DataError if the first labelled keyframe's labels have another shape than the grid."""
        for token in labelled(source, tokens)[:1]:
            self.read(source, token)

    def statistics(self, source: Any, tokens: Sequence[str]) -> dict[str, np.ndarray]:
        """`counts` (Z, K) int64: voxels of each class at each height, inside the camera mask. Raises DataError for missing labels."""
        counts = np.zeros((self.grid.shape[2], len(self.class_names)), np.int64)
        tokens = labelled(source, tokens)
        for token, labels in zip(tokens, occupancy_of(source, tokens), strict=True):
            self._check(labels, token)
            counts += class_counts(labels.semantics, labels.mask_camera > 0, counts.shape[1])
        return {"counts": counts}

    def described(self, source: Any, tokens: Sequence[str], statistics: Mapping[str, np.ndarray]) -> str:
        """Class of the voxels, and of how many keyframes, where those of others are hidden."""
        what, shown = f"class{' and instance' * self.instances} of each voxel", len(labelled(source, tokens))
        some = f" of {shown:,} of {len(tokens):,} keyframes, hidden in the others by data.labelled_share" if shown < len(tokens) else ""
        return f"3D labels{some} ({what})"

    def _check(self, labels: Occupancy, token: str) -> None:
        if labels.semantics.shape != self.grid.shape:
            raise DataError(
                f"the labels of keyframe {token} have shape {labels.semantics.shape}, but the recipe's grid has {self.grid.shape} "
                f"cells. Set the recipe's grid to the labels' one, or regenerate the labels."
            )


def class_counts(semantics: np.ndarray, mask: np.ndarray, num_classes: int) -> np.ndarray:
    """(Z, K) int64: voxels of each class at each height, inside the mask (X, Y, Z)."""
    height = semantics.shape[2]
    mask = mask & (semantics < num_classes)
    levels = np.broadcast_to(np.arange(height), mask.shape)[mask]
    return np.bincount(levels * num_classes + semantics[mask], minlength=height * num_classes).reshape(height, num_classes)


def occupancy_of(source: Any, tokens: Sequence[str]) -> Iterator[Occupancy]:
    """The occupancy labels (data/sample.py) of samples, one after the other. Raises DataError for a sample without labels."""
    rigs = as_rig_source(source, OccupancyLabels.what)
    for token in tokens:
        labels = rigs.sample(token, with_boxes=False, occupancy=True).occupancy
        if labels is None:
            raise DataError(f"sample {token} has no occupancy labels; the data set needs a gts folder with a labels.npz for each keyframe.")
        yield labels


def _volumes(value: Array, name: str) -> Tensor:
    labels = as_tensor(value, name)
    labels = labels[None] if labels.dim() == 3 else labels
    if labels.dim() != 4:
        raise ShapeError(f"{name} must have shape (X, Y, Z) or (B, X, Y, Z), got {tuple(labels.shape)}.")
    return labels
