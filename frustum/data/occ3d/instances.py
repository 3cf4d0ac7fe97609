"""Instances of an occupancy frame from its boxes: the rule behind the published panoptic labels (SparseOcc, gen_instance_info.py)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frustum.errors import ShapeError
from frustum.geometry import VoxelGrid
from frustum.ops.box_points import in_box
from frustum.types.classes import DETECTION_CLASSES, OCC3D_CLASSES, OCC3D_FREE

MARGIN = 0.8
"""Metres by which boxes grow, in all, along each side for voxels that no box contains."""


def instances_from_boxes(
    semantics: np.ndarray, box2ego: np.ndarray, size: np.ndarray, names: Sequence[str], grid: VoxelGrid | None = None
) -> np.ndarray:
    """Instance numbers of a labelled frame.

    In the order of the boxes, a box takes the voxels of its own class whose centre is in it (faces included) and that no earlier box
    took; boxes that take a voxel are numbered 1, 2, ... Then each class outside the ten detection classes, which do not have boxes,
    gets one number. Voxels of the ten classes in no box go to the nearest centre among the boxes of their class that contain
    them when enlarged by MARGIN, and stay 0 if there is none.

    Args:
        semantics: (X, Y, Z) Occ3D class ids.
        box2ego: (M, 4, 4) poses of the boxes.
        size: (M, 3) length, width, height in metres.
        names: M detection classes; boxes of another name are left out.
        grid: the voxels; Occ3D's by default.

    Returns:
        (X, Y, Z) uint8; 0 = free or nobody's. Numbers beyond 255 become 0, as the file format has no room for them.

    Raises:
        ShapeError: shapes do not fit together.
    """
    grid = grid or VoxelGrid.occ3d()
    if semantics.shape != grid.shape or box2ego.shape != (len(names), 4, 4) or size.shape != (len(names), 3):
        raise ShapeError(
            f"instances need semantics {grid.shape}, box2ego (M, 4, 4) and size (M, 3) for M = {len(names)} names, "
            f"got {semantics.shape}, {box2ego.shape} and {size.shape}."
        )
    labels = semantics.ravel()
    ids = np.zeros(labels.shape, np.int64)
    voxels = {name: _voxels(semantics, name, grid) for name in DETECTION_CLASSES}
    number = np.zeros(len(names), np.int64)  # of each box
    for m, name in enumerate(names):
        if name in voxels:
            where, centres = voxels[name]
            mine = where[in_box(centres, box2ego[m], size[m]) & (ids[where] == 0)]
            if mine.size:
                ids[mine] = number[m] = number.max() + 1
    count = int(number.max(initial=0))
    for label, name in enumerate(OCC3D_CLASSES):
        if name not in voxels and label != OCC3D_FREE and (labels == label).any():
            count += 1
            ids[labels == label] = count
    for name, (where, centres) in voxels.items():
        left = ids[where] == 0
        nearest = np.full(np.count_nonzero(left), np.inf)
        for row in np.flatnonzero((np.array(names) == name) & (number > 0)):
            distance = np.linalg.norm(centres[left] - box2ego[row, :3, 3], axis=1)
            nearer = in_box(centres[left], box2ego[row], size[row] + MARGIN) & (distance < nearest)
            nearest[nearer] = distance[nearer]
            ids[where[left][nearer]] = number[row]
    return np.where(ids < 256, ids, 0).astype(np.uint8).reshape(semantics.shape)


def _voxels(semantics: np.ndarray, name: str, grid: VoxelGrid) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices (N,) of the voxels of a class, and their centres (N, 3) in metres."""
    where = np.flatnonzero(semantics == OCC3D_CLASSES.index(name))
    cells = np.stack(np.unravel_index(where, semantics.shape), 1)
    return where, np.array(grid.lower) + (cells + 0.5) * np.array(grid.cell)
