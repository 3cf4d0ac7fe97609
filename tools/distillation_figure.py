"""Draw what distillation compares, on one image: the picture of docs/methods/cwd.md.

python tools/distillation_figure.py TEACHER STUDENT [--image 20] [--shown car] [--out docs/pictures/cwd.jpg]

Above: the photograph, its labels, and what both networks predict. Below, of one class: the teacher's channel as a distribution over all
places at two temperatures and the student's, which CWD draws to it; and the probability of the class at each place, which KD compares.
Publish generated data only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from frustum.data.images.labelled import LabelledImages
from frustum.engine.feed import evaluation_batches
from frustum.engine.recipe import Recipe
from frustum.engine.trained import open_trained
from frustum.errors import ConfigError, FrustumError, nearest_names
from frustum.types.classes import IGNORE
from frustum.types.layers import Legend

PAPER, INK, HEAD, GAP = (250, 251, 253), (60, 68, 84), 26, 10
HOT, COLD = np.array([20, 60, 140.0]), np.array([246, 247, 250.0])


def draw(teacher: Path, student: Path, number: int, shown: str, width: int = 1400) -> Image.Image:
    """Two rows of four pictures."""
    recipe, large = open_trained(teacher)
    source = recipe.data.open()
    if not isinstance(source, LabelledImages) or shown not in source.class_names:
        names = getattr(source, "class_names", ())
        raise ConfigError(f"{teacher} does not label pixels as {shown!r}: {nearest_names(shown, names)}")
    tokens = source.tokens(recipe.data.val_split)
    token, legend, index = tokens[number % len(tokens)], Legend.of(source.class_names), source.class_names.index(shown)
    photograph, truth = recipe.data.show(source, token)[0][1], source.labels(token)
    logits = [_logits(recipe, large, source, token), _logits(*open_trained(student), source, token)]
    ours, theirs = (
        [(f"{name}, over places, tau {tau}", _heat((maps[index] / tau).flatten().softmax(0).view_as(maps[index]))) for tau in taus]
        for name, maps, taus in (("teacher", logits[0], (1, 4)), ("student", logits[1], (4,)))
    )
    at_each = [("teacher, over classes (KD)", _heat(logits[0].softmax(0)[index]))]
    rows = [
        [
            ("photograph", photograph),
            ("labels", _coloured(truth, legend)),
            *((name, _coloured(maps.argmax(0).numpy(), legend)) for name, maps in zip(("teacher", "student"), logits, strict=True)),
        ],
        [(f"{shown}: {title}", picture) for title, picture in (*ours, *theirs, *at_each)],
    ]
    across = (width - 3 * GAP) // 4
    down = round(across * photograph.shape[0] / photograph.shape[1])
    sheet = Image.new("RGB", (width, len(rows) * (down + HEAD + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for r, row in enumerate(rows):
        for c, (title, picture) in enumerate(row):
            x, y = c * (across + GAP), r * (down + HEAD + GAP)
            pen.text((x + 2, y + 4), title, INK, ImageFont.load_default(16))
            smooth = Image.Resampling.LANCZOS if title == "photograph" else Image.Resampling.NEAREST
            sheet.paste(Image.fromarray(picture).resize((across, down), smooth), (x, y + HEAD))
    return sheet


@torch.no_grad()
def _logits(recipe: Recipe, network: nn.Module, source: LabelledImages, token: str) -> Tensor:
    """(K, h, w)."""
    return network(next(evaluation_batches(recipe, source, [token])))["logits"][0]


def _coloured(labels: np.ndarray | None, legend: Legend) -> np.ndarray:
    """(H, W, 3) uint8; white where there is no label."""
    if labels is None:
        raise FrustumError("the image has no label map: choose another --image.")
    colours = np.full((256, 3), 255, np.uint8)
    colours[: len(legend.names)] = legend.colours
    return colours[np.where(labels == IGNORE, 255, labels)]


def _heat(share: Tensor) -> np.ndarray:
    """(h, w) shares as colours, the largest one darkest; a square root shows small ones, too."""
    strength = (share / share.max()).sqrt().numpy()[..., None]
    return (COLD + (HOT - COLD) * strength).round().astype(np.uint8)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("teacher", type=Path, help="a finished run of a network that labels pixels")
    parser.add_argument("student", type=Path, help="another one on the same data")
    parser.add_argument("--image", type=int, default=20, help="number in the validation split")
    parser.add_argument("--shown", default="car", help="the class of the second row")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/cwd.jpg"))
    args = parser.parse_args()
    sheet = draw(args.teacher, args.student, args.image, args.shown)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, quality=84, optimize=True)
    print(f"{args.out}: {sheet.width} x {sheet.height}, {args.out.stat().st_size // 1024} kB")


if __name__ == "__main__":
    try:
        main()
    except FrustumError as error:
        raise SystemExit(str(error)) from None
