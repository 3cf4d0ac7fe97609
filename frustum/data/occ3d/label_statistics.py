"""What occupancy labels look like in numbers: for comparing data sets, and for judging a geometric IoU."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from frustum.data.sample import Occupancy
from frustum.types.classes import OCC3D_CLASSES, OCC3D_FREE


@dataclass
class LabelStatistics:
    """Counts over any number of frames; all shares are of the voxels named.

    Attributes:
        frames: number of frames.
        classes: (K,) voxels per class.
        layers: (Z,) occupied voxels per height, relative to the lowest occupied voxels of nothing: plain z index.
        masks: voxels inside the LiDAR mask and the camera mask.
        occupied_in_masks: occupied voxels inside each of them.
    """

    frames: int = 0
    classes: np.ndarray = field(default_factory=lambda: np.zeros(len(OCC3D_CLASSES), np.int64))
    layers: np.ndarray = field(default_factory=lambda: np.zeros(16, np.int64))
    masks: np.ndarray = field(default_factory=lambda: np.zeros(2, np.int64))
    occupied_in_masks: np.ndarray = field(default_factory=lambda: np.zeros(2, np.int64))

    @classmethod
    def of(cls, labels: Iterable[Occupancy]) -> LabelStatistics:
        """Count the given frames."""
        total = cls()
        for frame in labels:
            occupied = frame.semantics < OCC3D_FREE
            total.frames += 1
            total.classes += np.bincount(frame.semantics.ravel(), minlength=256)[: len(OCC3D_CLASSES)]
            layers = occupied.sum((0, 1))
            if len(layers) != len(total.layers):
                total.layers = np.zeros(len(layers), np.int64) if total.frames == 1 else total.layers
            total.layers = total.layers + layers
            for i, mask in enumerate((frame.mask_lidar, frame.mask_camera)):
                total.masks[i] += int((mask > 0).sum())
                total.occupied_in_masks[i] += int((occupied & (mask > 0)).sum())
        return total

    def rows(self) -> list[tuple[str, float]]:
        """(what, value) pairs in a fixed order; shares in percent."""
        voxels = max(1, int(self.classes.sum()))
        occupied = max(1, voxels - int(self.classes[OCC3D_FREE]))
        rows = [("occupied voxels, % of all", 100 * occupied / voxels)]
        for i, name in enumerate(("LiDAR", "camera")):
            rows.append((f"{name} mask, % of all", 100 * self.masks[i] / voxels))
            rows.append((f"occupied inside the {name} mask, %", 100 * self.occupied_in_masks[i] / max(1, self.masks[i])))
        rows += [(f"{name}, % of occupied", 100 * self.classes[i] / occupied) for i, name in enumerate(OCC3D_CLASSES[:OCC3D_FREE])]
        rows += [(f"layer {z}, % of occupied", 100 * count / occupied) for z, count in enumerate(self.layers)]
        return rows
