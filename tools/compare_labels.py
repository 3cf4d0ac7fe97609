"""Compare the occupancy labels of a data set with another one, or with a single labels.npz, as a Markdown table.

python tools/compare_labels.py data/street --split val --with path/to/labels.npz
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.occ3d.label_files import read_labels
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


def statistics(root: Path, version: str, split: str) -> LabelStatistics:
    """Statistics of all labelled keyframes of a split, or of one labels.npz."""
    if root.suffix == ".npz":
        return LabelStatistics.of([read_labels(root)])
    data = NuScenes(root, version)
    samples = (data.sample(token, with_boxes=False) for token in data.tokens(split))
    return LabelStatistics.of(s.occupancy for s in samples if s.occupancy is not None)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--version", default="v1.0-trainval")
    parser.add_argument("--split", default="val")
    parser.add_argument("--with", dest="other", type=Path, required=True, help="another root, or one labels.npz")
    args = parser.parse_args()
    here, there = statistics(args.root, args.version, args.split), statistics(args.other, args.version, args.split)
    print(
        f"| | {args.root.name} ({here.frames} frames) | {args.other.stem} ({there.frames} frame{'s' * (there.frames > 1)}) |\n|---|---|---|"
    )
    for (name, a), (_, b) in zip(here.rows(), there.rows(), strict=True):
        print(f"| {name} | {a:.2f} | {b:.2f} |")


if __name__ == "__main__":
    main()
