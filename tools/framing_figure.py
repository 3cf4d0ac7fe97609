"""Draw which rows of three cameras' images a network reads, and where the horizon lies in them: the picture of docs/your_own_cameras.md.

python tools/framing_figure.py [--scene street-000-0003] [--time 2] [--out docs/pictures/framing.jpg]

Three level cameras of a rig, 16:9, 4:3 and portrait, film one moment of the street world. Generated data only, so it may be published.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from frustum.data.framing import framing
from frustum.data.sample import CameraFrame
from frustum.data.source import AugmentConfig
from frustum.geometry import pose
from frustum.worlds.street.generate import scene_number
from frustum.worlds.street.render import SceneRenderer
from frustum.worlds.street.scene import build_scene

CAMERAS = {"16:9": (900, 1600), "4:3": (960, 1280), "portrait": (1280, 960)}  # (height, width) in pixels
FOCAL, MOUNTED = 1000.0, (1.5, 0.0, 1.5)  # pixels; metres in the ego frame
NETWORK = (256, 704)  # (height, width) of the image that flashocc-r50-m0 reads
READ, BOTTOM, HORIZON, TEXT, PAPER = (60, 210, 120), (255, 140, 60), (255, 90, 230), (60, 68, 84), (250, 251, 253)
_AHEAD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # camera axes in the ego frame


def camera_of(name: str, size: tuple[int, int]) -> CameraFrame:
    """A level camera of an imported rig whose images have (height, width) `size`."""
    intrinsics = np.array([[FOCAL, 0, size[1] / 2], [0, FOCAL, size[0] / 2], [0, 0, 1]])
    cam2ego = pose(_AHEAD, np.array(MOUNTED))
    return CameraFrame(name, Path(name), 0.0, intrinsics, cam2ego, np.eye(4), size, is_own_rig=True)


def panel(camera: CameraFrame, renderer: SceneRenderer, ego2global: np.ndarray, time: float, height: int) -> Image.Image:
    """The image of a camera, `height` pixels high, with the rows that are read and the horizon; below it what the network is given."""
    scale = height / camera.size[0]
    size = (height, round(camera.size[1] * scale))
    matrix = np.diag([scale, scale, 1.0]) @ camera.intrinsics
    shot = Image.fromarray(renderer.camera(matrix, ego2global @ camera.cam2ego, size, time).image)
    placed, bottom = (framing(camera, AugmentConfig(window=window), NETWORK) for window in ("horizon", "bottom"))
    top, end = (round(row * scale) for row in placed.rows)
    dim = Image.blend(shot, Image.new("RGB", shot.size, (0, 0, 0)), 0.55)
    dim.paste(shot.crop((0, top, size[1], end)), (0, top))
    pen, font = ImageDraw.Draw(dim), ImageFont.load_default(15)
    pen.rectangle((0, top, size[1] - 1, end - 1), outline=READ, width=2)
    low, high = (round(row * scale) for row in bottom.rows)
    for row in range(low, high, 12):  # dashed, at both sides
        for column in (5, size[1] - 7):
            pen.line((column, row, column, min(row + 7, high)), fill=BOTTOM, width=3)
    horizon = round((placed.horizon or 0.0) * scale)
    pen.line((0, horizon, size[1], horizon), fill=HORIZON, width=2)
    labels = (
        (14, end - 20, "ls", READ, f"read: rows {placed.rows[0]} to {placed.rows[1]}"),
        (14, horizon - 6, "ls", HORIZON, f"horizon: row {placed.horizon:.0f}"),
        (size[1] - 14, high - 6, "rs", BOTTOM, f"bottom: {bottom.rows[0]} to {bottom.rows[1]}"),
    )
    for x, y, anchor, colour, words in labels:
        pen.text((x, y), words, colour, font, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))
    title = f"{camera.channel}, {camera.size[1]} x {camera.size[0]}"
    views = [(f"given to the network: horizon {100 * (placed.share or 0):.0f} % of the way down", READ, shot.crop((0, top, size[1], end)))]
    seen = "above it" if (bottom.share or 0) < 0 else f"{100 * (bottom.share or 0):.0f} % of the way down"
    views.append((f"if the bottom were kept: horizon {seen}", BOTTOM, shot.crop((0, low, size[1], high))))
    head, small = 24, 400  # rows of a title, columns of what the network is given
    strips = [view.resize((small, round(small * view.height / view.width)), Image.Resampling.LANCZOS) for _, _, view in views]
    width = max(size[1], small)
    sheet = Image.new("RGB", (width, head + height + sum(strip.height + head + 6 for strip in strips)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((2, 2), title, TEXT, ImageFont.load_default(17))
    sheet.paste(dim, (0, head))
    row = head + height
    for (words, colour, _), strip in zip(views, strips, strict=True):
        pen.rectangle((0, row + 9, 10, row + 19), fill=colour)
        pen.text((16, row + 5), words, TEXT, font)
        sheet.paste(strip, (0, row + head + 2))
        row += strip.height + head + 6
    return sheet


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scene", default="street-000-0003", help="of the street world: street-SEED-NUMBER")
    parser.add_argument("--time", type=float, default=2.0, help="seconds from its start")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/framing.jpg"))
    args = parser.parse_args()
    scene = build_scene(args.scene, scene_number(args.scene)[1])
    renderer, ego2global = SceneRenderer(scene), scene.ego.pose(args.time)
    panels = [panel(camera_of(name, size), renderer, ego2global, args.time, 360) for name, size in CAMERAS.items()]
    gap = 14
    sheet = Image.new("RGB", (sum(p.width + gap for p in panels) - gap, max(p.height for p in panels)), PAPER)
    left = 0
    for one in panels:
        sheet.paste(one, (left, 0))
        left += one.width + gap
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, quality=80, optimize=True)
    print(f"{args.out}: {sheet.width} x {sheet.height}, {args.out.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
