"""Draw what OccFeat learned without a label, in two scenes: the picture of docs/methods/occfeat.md (after the paper's figure 5).

python tools/volume_figure.py RUN [--keyframes 2 40] [--out docs/pictures/occfeat.jpg]

Colours are the first three principal components of the features of voxels, by one projection for all scenes, so that the same colour means
the same in both. On the right voxels that hold LiDAR points, in these colours where they were predicted. Publish generated data only.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from frustum.engine.feed import evaluation_batches
from frustum.engine.predictors import NetworkPredictor
from frustum.engine.recipe import Recipe
from frustum.engine.run import load_run
from frustum.errors import FrustumError
from frustum.geometry import VoxelGrid
from frustum.tasks.volume import VolumeTask
from frustum.types.layers import VoxelLayer
from frustum.viewer.voxels import render_voxels
from frustum.weights.loading import load

PAPER, INK, HEAD, GAP = (250, 251, 253), (60, 68, 84), 26, 10


def draw(run: Path, keyframes: list[int], width: int = 1400) -> Image.Image:
    """A row for each keyframe of the validation split: the three cameras ahead, predicted voxels, voxels with LiDAR points."""
    recipe: Recipe = load_run(run).recipe
    source, network = recipe.data.open(), load(run)
    every = source.tokens(recipe.data.val_split)
    tokens = [every[number % len(every)] for number in keyframes]
    predictor, rows = NetworkPredictor(network, recipe.runtime, data=recipe.data), []
    side = (width - 2 * GAP) // 3
    for token, batch in zip(tokens, evaluation_batches(recipe, source, tokens), strict=True):
        part = predictor(batch)[0].volume
        if part is None:
            raise FrustumError(f"{run} predicts no volume: train it with model.occupancy_weight above 0.")
        layers = VolumeTask.layers(part) + VolumeTask.truth_layers(VolumeTask().truth(source, token), part)
        images = [Image.fromarray(image) for _, image in recipe.data.show(source, token)[:3]]
        views = [Image.fromarray(render_voxels(_near(layer), (side, side))) for layer in layers if isinstance(layer, VoxelLayer)]
        rows.append((_column(images, side), *views))
    titles = ("cameras ahead", "predicted from them, without a label", "LiDAR")
    sheet = Image.new("RGB", (width, len(rows) * (side + HEAD + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for r, row in enumerate(rows):
        for c, (title, image) in enumerate(zip(titles, row, strict=True)):
            x, y = c * (side + GAP), r * (side + HEAD + GAP)
            pen.text((x + 2, y + 4), title, INK, ImageFont.load_default(17))
            sheet.paste(image, (x, y + HEAD))
    return sheet


def _near(layer: VoxelLayer, reach: float = 36.0) -> VoxelLayer:
    """The voxels within some metres of the vehicle along x and y."""
    grid, kept = layer.grid, []
    for low, cell, count in zip(grid.lower[:2], grid.cell[:2], grid.shape[:2], strict=True):
        skipped = max(0, round((-reach - low) / cell))
        kept.append(slice(skipped, count - skipped))
    lower, upper = (
        [edge + sign * s.start * cell for edge, s, cell in zip(edges, kept, grid.cell, strict=False)]
        for edges, sign in ((grid.lower, 1), (grid.upper, -1))
    )
    cut = VoxelGrid(lower=(*lower, grid.lower[2]), upper=(*upper, grid.upper[2]), cell=grid.cell)
    return replace(layer, labels=layer.labels[kept[0], kept[1]], grid=cut)


def _column(images: list[Image.Image], side: int) -> Image.Image:
    """Images below each other, in a square."""
    tall = (side - GAP * (len(images) - 1)) // len(images)
    found = Image.new("RGB", (side, side), PAPER)
    for i, image in enumerate(images):
        across = min(side, round(image.width * tall / image.height))
        down = round(image.height * across / image.width)
        found.paste(image.resize((across, down), Image.Resampling.LANCZOS), ((side - across) // 2, i * (tall + GAP) + (tall - down) // 2))
    return found


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run of an occfeat recipe")
    parser.add_argument("--keyframes", type=int, nargs="+", default=[2, 42], help="numbers in the validation split")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/occfeat.jpg"))
    args = parser.parse_args()
    sheet = draw(args.run, args.keyframes)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, quality=84, optimize=True)
    print(f"{args.out}: {sheet.width} x {sheet.height}, {args.out.stat().st_size // 1024} kB")


if __name__ == "__main__":
    try:
        main()
    except FrustumError as error:
        raise SystemExit(str(error)) from None
