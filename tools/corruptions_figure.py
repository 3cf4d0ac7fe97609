"""Draw the image of a camera with every corruption, and the rig where cameras fail: the picture of docs/metrics.md.

python tools/corruptions_figure.py data/street [--camera CAM_FRONT] [--level 3] [--out docs/pictures/corruptions.jpg]

Publish pictures of generated data only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from frustum.data.corruption_names import CORRUPTIONS, OF_RIGS, Corruption
from frustum.data.corruptions import Corrupter
from frustum.data.opening import open_root
from frustum.data.sample import Sample
from frustum.errors import FrustumError


def draw(sample: Sample, channel: str, level: int, width: int = 1400) -> Image.Image:
    """A sheet of three columns: the image of a camera as it is and with each corruption; where cameras fail, all of the rig, small."""
    channels = [camera.channel for camera in sample.cameras]
    images = {camera.channel: camera.open() for camera in sample.cameras}
    files = {camera.channel: camera.path.name for camera in sample.cameras}

    def rig(corrupter: Corrupter) -> Image.Image:
        across = -(-len(channels) // 2)
        cell = images[channel].resize((images[channel].width // across, images[channel].height // across)).size
        sheet = Image.new("RGB", (across * cell[0], 2 * cell[1]), (250, 251, 253))
        for i, name in enumerate(channels):
            image = corrupter(images[name], files[name], name, channels).resize(cell, Image.Resampling.LANCZOS)
            sheet.paste(image.crop((0, 0, cell[0] - 4, cell[1] - 4)), (i % across * cell[0], i // across * cell[1]))
        return sheet

    cells = [("as it is", images[channel])]
    for name in CORRUPTIONS:
        corrupter = Corrupter(Corruption(name, level))
        cells.append(
            (str(corrupter.corruption), rig(corrupter) if name in OF_RIGS else corrupter(images[channel], files[channel], channel))
        )
    head, gap = 26, 10
    side = (width - 2 * gap) // 3
    tall = round(side * images[channel].height / images[channel].width)
    sheet = Image.new("RGB", (width, 3 * (tall + head + gap)), (250, 251, 253))
    pen = ImageDraw.Draw(sheet)
    for number, (title, image) in enumerate(cells):
        x, y = number % 3 * (side + gap), number // 3 * (tall + head + gap)
        pen.text((x + 2, y + 4), title, (60, 68, 84), ImageFont.load_default(17))
        image.thumbnail((side, tall), Image.Resampling.LANCZOS)
        sheet.paste(image, (x, y + head))
    return sheet


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path, help="a data set of camera rigs")
    parser.add_argument("--version")
    parser.add_argument("--camera", default="CAM_FRONT")
    parser.add_argument("--keyframe", type=int, default=0, help="its number in the data set")
    parser.add_argument("--level", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/corruptions.jpg"))
    args = parser.parse_args()
    source = open_root(args.root, args.version)
    sheet = draw(source.sample(source.tokens()[args.keyframe]), args.camera, args.level)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, quality=82, optimize=True)
    print(f"{args.out}: {sheet.width} x {sheet.height}, {args.out.stat().st_size // 1024} kB")


if __name__ == "__main__":
    try:
        main()
    except FrustumError as error:
        raise SystemExit(str(error)) from None
