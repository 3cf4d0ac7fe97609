"""Layers of labelled voxels for tests."""

from __future__ import annotations

import numpy as np

from frustum.geometry import VoxelGrid
from frustum.types.classes import FLAT_CLASSES, OCC3D_CLASSES, OCC3D_COLOURS, OCC3D_FREE
from frustum.types.layers import Legend, VoxelLayer

LEGEND = Legend(OCC3D_CLASSES, OCC3D_COLOURS)
FLAT = tuple(OCC3D_CLASSES.index(name) for name in FLAT_CLASSES)


def layer(
    labels: np.ndarray, mask: np.ndarray | None = None, objects: np.ndarray | None = None, grid: VoxelGrid | None = None
) -> VoxelLayer:
    """Voxels with the classes of Occ3D; without a grid in cells of 0.4 m around the ego vehicle."""
    if grid is None:
        x, y, z = ((np.array(labels.shape) if labels.ndim == 3 else np.ones(3)) * 0.4).tolist()
        grid = VoxelGrid(lower=(-x / 2, -y / 2, -1.0), upper=(x / 2, y / 2, z - 1.0), cell=(0.4, 0.4, 0.4))
    return VoxelLayer(labels, LEGEND, OCC3D_FREE, grid, FLAT, mask, objects)
