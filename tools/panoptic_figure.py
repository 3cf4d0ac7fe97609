"""Draw the picture of docs/methods/panoptic_flashocc.md: one labelled frame cut into objects in four ways. Generated data only.

python tools/panoptic_figure.py [--root data/street] [--out docs/pictures/panoptic_grouping.jpg]

Classes and centres are those of the labels, so what is wrong in a picture is wrong with the grouping alone.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.claims import grouping
from frustum.data.nuscenes.reader import NuScenes
from frustum.errors import FrustumError
from frustum.geometry import VoxelGrid
from frustum.models.panoptic_flashocc import InstanceConfig
from frustum.tasks.occupancy import true_instances
from frustum.types.classes import OCC3D_CLASSES
from frustum.types.predictions import PredictedOccupancy
from frustum.viewer.objects import paint_objects
from frustum.viewer.voxels import top_view

SHOWN = {
    "centres": "nearest centre of its class",
    "reference_map": "the same, label map as published",
    "components": "connected components",
}


NEAR = VoxelGrid(lower=(-20.0, -20.0, -1.0), upper=(20.0, 20.0, 5.4), cell=(0.4, 0.4, 0.4))
"""What is drawn: 20 m around the ego vehicle."""


def liveliest(database: NuScenes, split: str, every: int) -> str:
    """The keyframe with the most voxels of the classes that the published map confuses."""
    confused = [OCC3D_CLASSES.index(n) for n in ("pedestrian", "bicycle", "trailer", "construction_vehicle")]
    sizes = {}
    for token in database.tokens(split)[::every]:
        labels = database.sample(token, with_boxes=False).occupancy
        counts = np.bincount(labels.semantics[50:150, 50:150].ravel(), minlength=256)[confused]
        sizes[token] = int(np.minimum(counts, 150).sum())
    return max(sizes, key=sizes.__getitem__)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("data/street"))
    parser.add_argument("--split", default="val")
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/panoptic_grouping.jpg"))
    args = parser.parse_args()

    database, grid = NuScenes(args.root), VoxelGrid.occ3d()
    token = liveliest(database, args.split, args.every)
    labels = database.sample(token).occupancy
    is_thing = np.isin(labels.semantics, grouping.THINGS)
    true = np.where(is_thing, true_instances(database, token, labels), 0)
    layer = replace(labels.layer(grid), mask=None)
    truth = replace(layer, objects=true)
    painted_truth = paint_objects(truth)
    outputs = grouping.perfect_outputs(*grouping.true_boxes(database, token), grid)
    found = PredictedOccupancy(torch.from_numpy(labels.semantics), grid, OCC3D_CLASSES)
    volumes = grouping.groupings_of(found, outputs, InstanceConfig(), grid, database)
    panels = [("truth", painted_truth)]
    for name, title in SHOWN.items():
        objects = np.where(is_thing & (volumes[name].numpy() >= len(OCC3D_CLASSES)), volumes[name].numpy(), 0)
        panels.append((title, paint_objects(replace(layer, objects=objects), (truth, painted_truth))))

    side, head, near = 600, 34, slice(50, 150)
    sheet = Image.new("RGB", (2 * side + 12, 2 * (side + head) + 12), (250, 251, 253))
    draw = ImageDraw.Draw(sheet)
    for number, (title, painted) in enumerate(panels):
        x, y = number % 2 * (side + 12), number // 2 * (side + head + 12)
        draw.text((x + 4, y + 7), title, (60, 68, 84), ImageFont.load_default(20))
        picture = top_view(replace(painted, labels=painted.labels[near, near], grid=NEAR), scale=6)
        sheet.paste(Image.fromarray(picture), (x, y + head))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, quality=85, optimize=True)
    print(f"{args.out}: keyframe {token}, {sheet.width} x {sheet.height}, {args.out.stat().st_size // 1024} kB")


if __name__ == "__main__":
    try:
        main()
    except FrustumError as error:
        raise SystemExit(str(error)) from None
