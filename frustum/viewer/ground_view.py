"""The ground as all cameras of a rig see it together, from above: kerbs run on from camera to camera where a calibration is right."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from frustum.data.check.rig import mounting_angles
from frustum.data.pixels import ImageTransform
from frustum.data.sample import CameraFrame, Sample
from frustum.errors import DataError
from frustum.geometry import invert
from frustum.viewer.ground import NEAR, VIEW_COLOURS, draw_rings, write

REACH = 20.0  # metres from the ego origin to each border of the picture
BARE = (18, 20, 26)  # ground that no camera sees
SEAM = (255, 240, 120)
_UP = 20.0  # degrees: a camera without ground in view that looks up by more is said to look up


class Stitched(NamedTuple):
    """The ground plane z = 0 of the keyframe's ego frame from above, forward up and left at the left.

    Attributes:
        image: (S, S, 3) uint8 RGB, BARE where no camera looks.
        camera: (S, S) int, position in `sample.cameras` of the one that is shown, -1 for none.
        unseen: why a camera shows no ground, by its position.
    """

    image: np.ndarray
    camera: np.ndarray
    unseen: dict[int, str]


def ground_picture(sample: Sample, reach: float = REACH, scale: int = 20) -> Image.Image:
    """The stitched ground with seams, rings, names of cameras at their bearing and the vehicle; below it, why cameras show no ground.

    Args:
        sample: a keyframe. A camera whose image cannot be read shows no ground.
        reach: metres from the ego origin to each border.
        scale: pixels per metre.
    """
    stitched = stitch(sample, reach, scale)
    side = len(stitched.image)

    def to_panel(points: np.ndarray) -> np.ndarray:
        return (reach - points[:, 1::-1]) * scale

    panel = Image.fromarray(_with_seams(stitched))
    draw = ImageDraw.Draw(panel, "RGBA")
    draw_rings(draw, to_panel, tuple(r for r in (5.0, 10.0, 20.0, 40.0) if r <= reach), opacity=110)
    draw.polygon([tuple(p) for p in to_panel(np.array([[3.0, 0], [-1, 1], [-1, -1]]))], fill=(255, 255, 255), outline=(0, 0, 0))
    places: list[np.ndarray] = []
    for number, camera in enumerate(sample.cameras):
        if number not in stitched.unseen:
            column, row = to_panel(_name_place(sample, camera, reach)[None])[0]
            half = 3.5 * len(camera.channel)
            place = np.array([np.clip(column, half + 4, side - half - 4), np.clip(row, 4, side - 40)])
            while any(abs(place[1] - other[1]) < 16 and abs(place[0] - other[0]) < 2 * half for other in places):
                place = place + (0, 16)  # cameras that look the same way
            places.append(place)
            write(draw, place - (half, 0), camera.channel, VIEW_COLOURS[number % len(VIEW_COLOURS)])
    sheet = Image.new("RGB", (side, side + (8 + 18 * len(stitched.unseen) if stitched.unseen else 0)), (0, 0, 0))
    sheet.paste(panel)
    for line, (number, why) in enumerate(stitched.unseen.items()):
        at = (6, side + 4 + 18 * line)
        write(ImageDraw.Draw(sheet), at, f"{sample.cameras[number].channel} {why}", VIEW_COLOURS[number % len(VIEW_COLOURS)])
    return sheet


def stitch(sample: Sample, reach: float = REACH, scale: int = 20) -> Stitched:
    """Project every camera of a keyframe onto its ground; arguments as in `ground_picture`.

    Where several cameras look, that one is shown to whose optical axis the place is nearest: each has a sector around its bearing.
    """
    side = round(2 * reach * scale)
    along = reach - (np.arange(side, dtype=np.float32) + 0.5) / np.float32(scale)
    x, y = along[:, None], along[None]
    nearest = np.full((side, side), -1.0, np.float32)  # cosine of the angle between the ray and the optical axis
    shown = np.full((side, side), -1, np.int64)
    colours = np.empty((side, side, 3), np.uint8)
    colours[:] = BARE
    unseen: dict[int, str] = {}
    for number, camera in enumerate(sample.cameras):
        key2camera = invert(camera.ego2global @ camera.cam2ego) @ sample.ego2global
        place, pixel = (
            [a * x + b * y + c for a, b, c in matrix[:, [0, 1, 3]].astype(np.float32)]  # z = 0
            for matrix in (key2camera[:3], camera.intrinsics @ key2camera[:3])
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            column, row = pixel[0] / pixel[2], pixel[1] / pixel[2]
            cosine = place[2] / np.sqrt(place[0] ** 2 + place[1] ** 2 + place[2] ** 2)
        height, width = camera.size
        seen = (place[2] > NEAR) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        above = invert(key2camera)[2, 3] > 0  # from below, the ground would be shown through itself
        if not above or not seen.any():
            unseen[number] = f"{_why(sample, camera, reach)}: no ground in view"
            continue
        try:
            image = np.asarray(ImageTransform.fit(camera.size, camera.size).apply(camera.open()))
        except DataError:
            unseen[number] = f"cannot be shown: its image {camera.path.name} cannot be read"
            continue
        seen &= cosine > nearest
        nearest[seen], shown[seen] = cosine[seen], number
        at = np.stack([row[seen], column[seen]]) - 0.5  # pixel centres at whole numbers
        colours[seen] = np.stack([ndimage.map_coordinates(image[..., k], at, order=1, mode="nearest") for k in range(3)], -1)
    return Stitched(colours, shown, unseen)


# ---- parts ------------------------------------------------------------------------------------------------------------------


def _with_seams(stitched: Stitched) -> np.ndarray:
    """The image with a thin line where one camera's ground meets another's."""
    camera, image = stitched.camera, stitched.image.copy()
    seam = np.zeros(camera.shape, bool)
    seam[:, 1:] |= (camera[:, 1:] != camera[:, :-1]) & (np.minimum(camera[:, 1:], camera[:, :-1]) >= 0)
    seam[1:] |= (camera[1:] != camera[:-1]) & (np.minimum(camera[1:], camera[:-1]) >= 0)
    image[seam] = (0.5 * image[seam] + 0.5 * np.array(SEAM)).astype(np.uint8)
    return image


def _name_place(sample: Sample, camera: CameraFrame, reach: float) -> np.ndarray:
    """Where the name of a camera is written: ego (2,), towards the border along its optical axis; at the camera if that is vertical."""
    camera2key = invert(sample.ego2global) @ camera.ego2global @ camera.cam2ego
    axis: np.ndarray = camera2key[:2, 2]
    level = float(np.linalg.norm(axis))
    return np.asarray(0.85 * reach * axis / level if level > 0.05 else camera2key[:2, 3])


def _why(sample: Sample, camera: CameraFrame, reach: float) -> str:
    """What keeps a camera from seeing the ground within `reach`."""
    camera2key = invert(sample.ego2global) @ camera.ego2global @ camera.cam2ego
    elevation, _ = mounting_angles(camera2key)
    height, distance = float(camera2key[2, 3]), float(np.linalg.norm(camera2key[:2, 3]))
    if height <= 0:
        return f"sits {-height:,.1f} m below the ground"
    if height > reach:
        return f"sits {height:,.0f} m above the ground"
    if distance > 1.5 * reach:
        return f"sits {distance:,.0f} m away"
    if elevation > _UP:
        return f"looks {elevation:.0f} degrees up"
    return f"shows nothing within {reach:g} m"
