"""Compare the occupancy labels of a data set with another one, or with a single labels.npz, as a Markdown table.

python tools/compare_labels.py data/street --split val --with path/to/labels.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.occ3d.label_files import read_labels
from frustum.data.occ3d.label_statistics import LabelStatistics


def statistics(root: Path, version: str, split: str) -> LabelStatistics:
    """Statistics of all labelled keyframes of a split, or of one labels.npz."""
    if root.suffix == ".npz":
        return LabelStatistics.of([read_labels(root, (200, 200, 16))])
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
