"""Draw the stitched ground of `frustum check` as it is and with three typical faults: the picture of docs/your_own_cameras.md and README.

frustum data world data/empty_street --scenes 2 --val-scenes 0 --frames 1 --size 450x800 scene.density=0
python tools/ground_faults.py data/empty_street [--keyframe 1] [--out docs/pictures/ground_faults.jpg]

Publish pictures of generated data only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from frustum.data.opening import open_root
from frustum.data.sample import Sample
from frustum.errors import DataError, FrustumError
from frustum.geometry import pose, rotation_z
from frustum.viewer.ground_view import ground_picture

YAW = 12.0  # degrees
LEFT, RIGHT, FRONT = "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_FRONT"
RIGHT_COLOUR, WRONG_COLOUR, PAPER = (30, 120, 60), (180, 50, 40), (250, 251, 253)


def mounted(sample: Sample, cam2ego: Mapping[str, np.ndarray]) -> Sample:
    """The keyframe with other poses (4, 4) of some cameras. Raises DataError if the rig lacks one of them."""
    lacking = set(cam2ego) - {camera.channel for camera in sample.cameras}
    if lacking:
        raise DataError(f"the keyframe does not have {', '.join(sorted(lacking))}. Give a data set with the six cameras of nuScenes.")
    return replace(sample, cameras=tuple(replace(c, cam2ego=cam2ego.get(c.channel, c.cam2ego)) for c in sample.cameras))


def in_millimetres(sample: Sample) -> Sample:
    """Translations as a drawing in millimetres has them, read as metres."""
    scale = np.array([[1, 1, 1, 1000], [1, 1, 1, 1000], [1, 1, 1, 1000], [1, 1, 1, 1.0]])
    return mounted(sample, {camera.channel: camera.cam2ego * scale for camera in sample.cameras})


def exchanged(sample: Sample) -> Sample:
    """The poses of the two front cameras at the sides exchanged."""
    poses = {camera.channel: camera.cam2ego for camera in sample.cameras}
    return mounted(sample, {LEFT: poses.get(RIGHT, np.eye(4)), RIGHT: poses.get(LEFT, np.eye(4))})


def turned(sample: Sample) -> Sample:
    """The front camera turned by YAW degrees to the left where it stands."""
    turn = pose(rotation_z(np.radians(YAW)), np.zeros(3))

    def about_itself(cam2ego: np.ndarray) -> np.ndarray:
        result = turn @ cam2ego
        result[:3, 3] = cam2ego[:3, 3]
        return result

    return mounted(sample, {camera.channel: about_itself(camera.cam2ego) for camera in sample.cameras if camera.channel == FRONT})


PANELS: tuple[tuple[str, tuple[int, int, int], Callable[[Sample], Sample]], ...] = (
    ("right: kerbs and lane marks run on", RIGHT_COLOUR, lambda sample: sample),
    (f"wrong: yaw of {FRONT} off by {YAW:g} degrees", WRONG_COLOUR, turned),
    (f"wrong: {LEFT} and _RIGHT swapped", WRONG_COLOUR, exchanged),
    ("wrong: translations in millimetres", WRONG_COLOUR, in_millimetres),
)


def sheet_of(sample: Sample, reach: float = 12.0, side: int = 620) -> Image.Image:
    """Four labelled panels, two by two, of `side` pixels for 2 * `reach` metres."""
    head, gap = 34, 12
    sheet = Image.new("RGB", (2 * side + gap, 2 * (side + head) + gap), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (title, colour, fault) in enumerate(PANELS):
        picture = ground_picture(fault(sample), reach, round(side / (2 * reach)))
        scaled = picture.resize((side, round(side * picture.height / picture.width)), Image.Resampling.LANCZOS)
        x, y = number % 2 * (side + gap), number // 2 * (side + head + gap)
        pen.text((x + 2, y + 5), title, colour, ImageFont.load_default(20))
        sheet.paste(scaled.crop((0, scaled.height - side, side, scaled.height)), (x, y + head))  # the lines below it, if any, stay
    return sheet


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path, help="a data set of nuScenes' six cameras")
    parser.add_argument("--version")
    parser.add_argument("--keyframe", type=int, default=1, help="its number in the data set")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/ground_faults.jpg"))
    args = parser.parse_args()
    source = open_root(args.root, args.version)
    sheet = sheet_of(source.sample(source.tokens()[args.keyframe]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, quality=80, optimize=True)
    print(f"{args.out}: {sheet.width} x {sheet.height}, {args.out.stat().st_size // 1024} kB")


if __name__ == "__main__":
    try:
        main()
    except FrustumError as error:
        raise SystemExit(str(error)) from None
