"""Images as bad weather, bad light and failing cameras make them: the eight corruptions of nuScenes-C (RoboBEV, Xie et al. 2023).

Written anew, and from memory, after the parameters that ImageNet-C (Hendrycks and Dietterich 2019; package `imagecorruptions`) and 3D
Common Corruptions (Kar et al. 2022) published. Kinds and strengths are meant to be theirs; pixels are not equal to theirs, and figures not
comparable with published ones.

A corruption works on the photograph before it is resized for the network, as weather and sensors do: noise that is added to a shrunk image
is another one. nuScenes-C gave the package's lengths (length of motion blur, size of flakes) to images of 900 x 1600 pixels; here they are
scaled with the root of the image's area, so that those images get the published lengths and all others look alike, only smaller.

Every draw is a function of a seed, the corruption's name, the camera and the image file's name: the same in any order, batch or process,
and wherever an image is read, as the keyframe or as the past of another. The level is no part of it: harder levels show the same draw.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from frustum.data.corruption_names import OF_RIGS, Corruption
from frustum.errors import ConfigError

_REFERENCE = math.sqrt(900 * 1600)  # pixels: root of the area of the images that the published lengths were used on


class Snow(NamedTuple):
    """Mean and spread of the noise that flakes come from, their size in pixels, the noise that is one, length and sigma of their trace in
    pixels, and how much of the image keeps its colours."""

    mean: float
    spread: float
    size: float
    threshold: float
    length: float
    sigma: float
    kept: float


# by level: easy, mid, hard
BRIGHTNESS = (0.2, 0.4, 0.5)  # severities 2, 4, 5: added to the value (HSV)
DARK = ((0.5, 250, 0.012), (0.4, 120, 0.018), (0.3, 50, 0.026))  # 2, 3, 4: brightest value, photons of white, sigma of the read-out noise
FOG = ((2.0, 2.0), (2.5, 1.5), (3.0, 1.4))  # 2, 4, 5: thickness, and how fast small structures fade
MOTION_BLUR = ((15, 5), (15, 12), (20, 15))  # 2, 4, 5: half the length and sigma in pixels
SNOW = (Snow(0.1, 0.3, 3, 0.5, 10, 4, 0.8), Snow(0.2, 0.3, 2, 0.5, 12, 4, 0.7), Snow(0.55, 0.3, 4, 0.9, 12, 8, 0.7))  # 1, 2, 3
COLOUR_BITS = (5, 4, 3)  # 1, 2, 3: bits that are left of each channel
LOST = (2 / 6, 4 / 6, 5 / 6)  # 2, 4, 5 of six cameras


@dataclass(frozen=True)
class Corrupter:
    """A corruption of all images of an evaluation.

    Attributes:
        corruption: which one, and its level.
        seed: of the draws.
    """

    corruption: Corruption
    seed: int = 0

    def __call__(self, image: Image.Image, file: str, camera: str = "", cameras: Collection[str] = ()) -> Image.Image:
        """A corrupted RGB image of the same size.

        Args:
            image: the photograph.
            file: name of its file, or another name that no other image of this camera has.
            camera, cameras: which one took it, and all of the rig.

        Raises:
            ConfigError: a rig of one camera, or none, where cameras are to fail.
        """
        name, level = self.corruption
        if name == "camera_crash":
            return _black(image) if camera in self.crashed(cameras) else image
        rng = self._draws(f"{camera}/{file}")
        if name == "frame_lost":
            return _black(image) if rng.random() < LOST[level - 1] else image
        pixels = np.asarray(image.convert("RGB"))
        return Image.fromarray(_CHANGES[name](pixels, level - 1, rng))

    def crashed(self, cameras: Collection[str]) -> set[str]:
        """The cameras of a rig that stay black: the same share of them as of nuScenes' six, at least one and not all; those of a level are
        also among those of the harder ones. Raises ConfigError for fewer than two cameras.
        """
        if len(cameras) < 2:
            raise ConfigError(f"{self.corruption} needs a rig of several cameras, not {len(cameras)}: one of them must stay.")
        count = round(LOST[self.corruption.level - 1] * len(cameras))
        order = sorted(cameras, key=lambda camera: (self._draws(camera).random(), camera))
        return set(order[: min(max(count, 1), len(cameras) - 1)])

    def _draws(self, of: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(self.corruption.name.encode()), zlib.crc32(of.encode())])


def corrupted(pipeline: Any, corruption: Corruption) -> Any:
    """A pipeline (`data.source.Pipeline`) of an evaluation whose images are corrupted.

    Raises:
        ConfigError: cameras are to fail, but the samples are single images; or the pipeline does not have a field `corrupter`.
    """
    if not hasattr(pipeline, "corrupter"):
        raise ConfigError(f"{type(pipeline).__name__} cannot corrupt images: it has no field `corrupter`. Leave out eval.corruption.")
    return replace(pipeline, corrupter=Corrupter(corruption))


def refuse_failing_cameras(corrupter: Corrupter | None) -> None:
    """Raise ConfigError for a corruption in which cameras of a rig fail."""
    if corrupter is not None and corrupter.corruption.name in OF_RIGS:
        raise ConfigError(f"{corrupter.corruption} makes cameras of a rig fail, but these are single images. Choose another corruption.")


def _black(image: Image.Image) -> Image.Image:
    return Image.new("RGB", image.size)


def _scale(pixels: np.ndarray) -> float:
    """Pixels of this image that one pixel of the published lengths is."""
    return math.sqrt(pixels.shape[0] * pixels.shape[1]) / _REFERENCE


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Values 0..1 as uint8; those outside are clipped. `values` is overwritten."""
    values *= np.float32(255)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def _to_floats(pixels: np.ndarray) -> np.ndarray:
    return pixels * np.float32(1 / 255)


# ---- light and colour -----------------------------------------------------------------------------------------------------------


def _brighten(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """A constant added to the value of HSV, up to 1; hue and saturation stay, so that this is a factor on red, green and blue."""
    values = _to_floats(pixels)
    value = np.maximum(np.maximum(values[..., 0], values[..., 1]), values[..., 2])[..., None]
    more = np.float32(BRIGHTNESS[level])
    return _to_bytes(np.where(value > 0, values * (np.minimum(value + more, 1) / np.maximum(value, 1e-6)), more))


def _darken(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Gamma 2 and a lower brightest value, then photon (Poisson) and read-out (Gaussian) noise."""
    brightest, photons, sigma = DARK[level]
    values = _to_floats(pixels)
    low, high = values.min(), values.max()
    values = np.square((values - low) / max(high - low, np.float32(1e-6))) * np.float32(brightest)
    values = np.minimum(rng.poisson(values * np.float32(photons)).astype(np.float32) / np.float32(photons), 1)
    return _to_bytes(values + rng.standard_normal(values.shape, np.float32) * np.float32(sigma))


def _quantise(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """The highest bits of each channel."""
    return pixels & np.uint8(256 - (1 << (8 - COLOUR_BITS[level])))


# ---- weather --------------------------------------------------------------------------------------------------------------------


def _fog(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Clouds of light are added, and all is scaled down to the image's brightest value."""
    thickness, decay = FOG[level]
    height, width = pixels.shape[:2]
    values = _to_floats(pixels)
    brightest = values.max()
    clouds = plasma(1 << (max(height, width) - 1).bit_length(), decay, rng)[:height, :width, None]
    values += np.float32(thickness) * clouds
    values *= brightest / (brightest + np.float32(thickness))
    return _to_bytes(values)


def plasma(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """(side, side) float32, 0..1: a fractal by the diamond-square algorithm; its edges fit together.

    `side` is a power of two. The step halves each time; the noise shrinks by `decay` squared, as in ImageNet-C's fog.
    """
    field = np.zeros((side, side), np.float32)
    step, noise = side, 100.0

    def wobbly(total: np.ndarray) -> np.ndarray:
        return total / 4 + np.float32(noise * noise) * (2 * rng.random(total.shape, np.float32) - 1)

    while step >= 2:
        half = step // 2
        corners = field[::step, ::step]
        rows = corners + np.roll(corners, -1, 0)
        field[half::step, half::step] = wobbly(rows + np.roll(rows, -1, 1))
        middles = field[half::step, half::step]
        field[::step, half::step] = wobbly(middles + np.roll(middles, 1, 0) + corners + np.roll(corners, -1, 1))
        field[half::step, ::step] = wobbly(middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0))
        step, noise = half, noise / decay
    field -= field.min()
    return field / max(field.max(), np.float32(1e-6))


def _snow(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Falling flakes over an image that is paler than before."""
    flakes = _flakes(pixels.shape[:2], SNOW[level], _scale(pixels), rng)
    values = _to_floats(pixels)
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
    kept = np.float32(SNOW[level].kept)
    values = kept * values + (1 - kept) * np.maximum(values, 1.5 * grey[..., None] + 0.5)
    return _to_bytes(values + (flakes + flakes[::-1, ::-1])[..., None])


def _flakes(size: tuple[int, ...], snow: Snow, scale: float, rng: np.random.Generator) -> np.ndarray:
    """(H, W) float32: noise enlarged to the size of flakes, what exceeds the threshold, drawn out. Flakes smaller than a pixel are made on
    a finer canvas, which is averaged."""
    fine = max(1, math.ceil(1 / (snow.size * scale)))
    height, width = (fine * side for side in size)
    across = snow.size * scale * fine
    noise = rng.standard_normal((math.ceil(height / across) + 1, math.ceil(width / across) + 1), np.float32)
    image = Image.fromarray(np.float32(snow.mean) + np.float32(snow.spread) * noise)
    layer = np.array(image.resize((width, height), Image.Resampling.BILINEAR, (0, 0, width / across, height / across)))
    layer[layer < snow.threshold] = 0
    np.clip(layer, 0, 1, out=layer)
    angle = rng.uniform(-135, -45)
    layer = streak(layer[..., None], snow.length * scale * fine, snow.sigma * scale * fine, angle)[..., 0]
    return layer.reshape(size[0], fine, size[1], fine).mean((1, 3)) if fine > 1 else layer


# ---- motion ---------------------------------------------------------------------------------------------------------------------


def _blur(pixels: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """As if the camera turned during the exposure, within 45 degrees of sideways."""
    radius, sigma = (length * _scale(pixels) for length in MOTION_BLUR[level])
    return _to_bytes(streak(_to_floats(pixels), radius, sigma, rng.uniform(-45, 45)))


def streak(values: np.ndarray, radius: float, sigma: float, degrees: float) -> np.ndarray:
    """Values (H, W, C) float32 blurred along a line to one side: 2 radius + 1 steps of a pixel with Gaussian weights.

    The line goes `degrees` down from the right; beyond the image its edge goes on.
    """
    steps = np.arange(max(2, round(2 * radius) + 1))
    weights = np.exp(-0.5 * np.square(steps / sigma))
    weights = (weights / weights.sum()).astype(np.float32)
    down, right = (np.rint(steps * f(math.radians(degrees))).astype(int) for f in (math.sin, math.cos))
    above, below, left, beyond = max(-down.min(), 0), max(down.max(), 0), max(-right.min(), 0), max(right.max(), 0)
    padded = np.pad(values, ((above, below), (left, beyond), (0, 0)), "edge")
    height, width = values.shape[:2]
    out = np.zeros_like(values)
    for top in range(0, height, 32):  # a band at a time stays in the processor's cache
        band = out[top : top + 32]
        for weight, y, x in zip(weights, down + above + top, right + left, strict=True):
            band += weight * padded[y : y + len(band), x : x + width]
    return out


_CHANGES: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "brightness": _brighten, "dark": _darken, "fog": _fog, "motion_blur": _blur, "snow": _snow, "colour_quant": _quantise,
}  # fmt: skip
