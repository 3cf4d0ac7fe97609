"""Swap heads between a photograph and a generated portrait, with the networks of frustum: the picture of docs/methods/heser.md.

python tools/head_photograph.py astronaut.png [--box 100,0,350,250] [--out docs/pictures/heser_photograph.jpg]

astronaut.png is NASA's portrait of Eileen Collins, public domain, in the folder skimage/data of the package scikit-image.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from frustum.cli.swapping import swap_heads
from frustum.weights.shipped import shipped
from frustum.worlds.heads.generate import HeadsConfig, generate_heads

SIDE, BAR = 256, 22
PEOPLE = HeadsConfig(identities=3, clips=1, frames=1, size=SIDE, seed=77, swaps=0, train_swaps=0)


def panels(photograph: Path, folder: Path) -> dict[str, Image.Image]:
    """The photograph, a generated portrait, and the head of each on the other; `folder` gets files."""
    generate_heads(PEOPLE, folder / "heads", workers=1)
    drawn = sorted((folder / "heads" / "img").glob("*/*/*.png"))[-1]
    networks = {name: str(shipped(name)) for name in ("aligner", "blender", "parser")}
    pairs = {"its head, swapped": (photograph, drawn), "the other way round": (drawn, photograph)}
    made = {title: swap_heads([source], target, folder / f"{title}.png", networks)[0] for title, (source, target) in pairs.items()}
    return {title: Image.open(path).convert("RGB") for title, path in ({"photograph": photograph, "generated": drawn} | made).items()}


def sheet_of(shown: dict[str, Image.Image]) -> Image.Image:
    """Panels side by side below their titles."""
    sheet = Image.new("RGB", (SIDE * len(shown), SIDE + BAR), "white")
    for i, (title, image) in enumerate(shown.items()):
        sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (SIDE * i, BAR))
        ImageDraw.Draw(sheet).text((SIDE * i + 6, 3), title, "black", ImageFont.load_default(13))
    return sheet


def main(words: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--box", default="100,0,350,250", help="left, top, right, bottom of a square of the photograph")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/heser_photograph.jpg"))
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "photograph.png"
        Image.open(options.photograph).convert("RGB").crop(tuple(int(x) for x in options.box.split(","))).save(cut)
        sheet_of(panels(cut, Path(folder))).save(options.out, quality=88)
    print(f"{options.out} is written")


if __name__ == "__main__":
    main()
