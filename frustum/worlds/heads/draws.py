"""People, scenes and moments from seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from frustum.errors import ConfigError, nearest_names
from frustum.worlds.heads.motion import Motion
from frustum.worlds.heads.person import HATS, Colour, Glasses, HairStyle, Identity, Paint, Shape
from frustum.worlds.heads.scene import BACKDROPS, NECKLINES, Backdrop, Build, Dress, Light, Scene

_SKIN = (
    np.array(  # from light to dark, sRGB
        [
            (236, 194, 168),
            (228, 180, 148),
            (216, 164, 128),
            (200, 146, 108),
            (178, 124, 86),
            (150, 100, 68),
            (120, 79, 55),
            (96, 64, 47),
            (78, 53, 42),
        ]
    )
    / 255.0
)
HAIR_COLOURS: dict[str, Colour] = {
    "black": (0.09, 0.08, 0.08),
    "dark brown": (0.20, 0.13, 0.09),
    "brown": (0.33, 0.21, 0.13),
    "chestnut": (0.42, 0.23, 0.13),
    "auburn": (0.48, 0.20, 0.11),
    "red": (0.66, 0.30, 0.13),
    "dark blond": (0.56, 0.43, 0.27),
    "blond": (0.78, 0.63, 0.39),
    "platinum": (0.90, 0.84, 0.68),
    "grey": (0.56, 0.56, 0.56),
    "white": (0.87, 0.86, 0.84),
    "pink": (0.85, 0.40, 0.60),
    "blue": (0.22, 0.38, 0.66),
}
_HAIR_ODDS = (0.24, 0.20, 0.15, 0.07, 0.05, 0.05, 0.07, 0.07, 0.03, 0.0, 0.0, 0.02, 0.02)
_IRIS: tuple[Colour, ...] = (
    (0.32, 0.19, 0.10),
    (0.22, 0.13, 0.08),
    (0.42, 0.32, 0.16),
    (0.36, 0.46, 0.30),
    (0.36, 0.52, 0.66),
    (0.48, 0.54, 0.58),
)
_IRIS_ODDS = ((0.3, 0.3, 0.12, 0.08, 0.12, 0.08), (0.4, 0.5, 0.07, 0.02, 0.005, 0.005))
_FRAMES: tuple[Colour, ...] = ((0.1, 0.09, 0.09), (0.3, 0.18, 0.1), (0.62, 0.55, 0.4), (0.5, 0.1, 0.1), (0.15, 0.2, 0.4))
_METALS: tuple[Colour, ...] = ((0.9, 0.75, 0.42), (0.8, 0.8, 0.82))
STYLES = ("bald", "buzz", "short", "swept", "bob", "long", "wavy", "curls", "afro", "bun")
_STYLE_ODDS = ((0.08, 0.12, 0.30, 0.22, 0.04, 0.04, 0.05, 0.06, 0.07, 0.02), (0.01, 0.02, 0.07, 0.06, 0.18, 0.24, 0.16, 0.09, 0.07, 0.10))


class Look(NamedTuple):
    """What is asked of a person; None leaves it to the seed.

    Attributes:
        tone: 0 light .. 1 dark skin. age: 0 .. 1. style: one of STYLES. hair: one of HAIR_COLOURS.
        glasses, beard, make_up: whether there are any. hat: "", "beanie", "cap" or "brim".
    """

    tone: float | None = None
    age: float | None = None
    style: str | None = None
    hair: str | None = None
    glasses: bool | None = None
    beard: bool | None = None
    make_up: bool | None = None
    hat: str | None = None


_ANY = Look()


def rgb(numbers: Iterable[float]) -> Colour:
    """Three numbers as a colour or a direction."""
    r, g, b = (float(c) for c in numbers)
    return r, g, b


def skin_colour(tone: float) -> Colour:
    """sRGB of a skin tone, 0 light .. 1 dark."""
    at = np.arange(len(_SKIN)) / (len(_SKIN) - 1)
    return rgb(np.interp(tone, at, _SKIN[:, k]) for k in range(3))


def _shift(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """A colour that is a little different in brightness and in each channel."""
    k = rng.normal(1.0, amount)
    return rgb(np.clip(c * k * rng.normal(1.0, 0.4 * amount), 0.01, 0.98) for c in colour)


def _bright(rng: np.random.Generator, low: float, high: float, strength: float) -> Colour:
    """A random colour: brightness in low .. high, saturation up to `strength`."""
    value, saturation, hue = rng.uniform(low, high), rng.uniform(0.1, 1.0) * strength, rng.uniform(0, 6)
    return rgb(value * (1 - saturation * np.clip(1 - abs((hue - k) % 6 - 3) + 1, 0, 1)) for k in (0, 2, 4))


def _hair_style(rng: np.random.Generator, style: str, seed: int) -> HairStyle:
    part = float(rng.choice([-1, 1]) * rng.uniform(0.5, 4.0))
    fringe = float(rng.random() < 0.4) * rng.uniform(0.6, 1.0)
    recession = float(max(rng.normal(0.0, 0.5), -0.5))
    curl = float(rng.uniform(0.0, 0.25))
    u = rng.uniform
    numbers: dict[str, float] = {
        "bald": {"length": 0.0},
        "buzz": {"length": u(0.5, 1.1), "volume": 0.15},
        "short": {"length": u(3.0, 6.0), "volume": u(0.5, 1.2), "back": u(0.1, 0.5)},
        "swept": {"length": u(6.0, 9.0), "volume": u(0.8, 1.6), "back": u(0.6, 1.0), "fringe": 0.0},
        "bob": {"length": u(17.0, 22.0), "volume": u(0.9, 1.6)},
        "long": {"length": u(30.0, 42.0), "volume": u(0.8, 1.5)},
        "wavy": {"length": u(22.0, 38.0), "volume": u(1.2, 2.0), "curl": u(0.35, 0.6)},
        "curls": {"length": u(6.0, 13.0), "volume": u(1.5, 2.6), "curl": u(0.6, 0.75)},
        "afro": {"length": u(2.5, 6.5), "volume": u(1.0, 2.0), "curl": u(0.92, 1.0), "fringe": 0.0},
        "bun": {"length": 14.0, "volume": 0.5, "bun": 1.0, "fringe": 0.0},
    }[style]
    base = {"part": part, "fringe": fringe, "recession": recession, "curl": curl, "back": 0.2} | numbers
    return HairStyle(**base, seed=seed)  # type: ignore[arg-type]


def draw_identity(seed: int, look: Look = _ANY) -> Identity:
    """A person. The same seed is the same person, whatever is asked of it elsewhere; `look` fixes some of its features.

    Raises:
        ConfigError: an unknown style, hair colour or hat.
    """
    asked = (("style", look.style, STYLES), ("hair colour", look.hair, HAIR_COLOURS), ("hat", look.hat or None, HATS))
    for what, name, known in asked:
        if name is not None and name not in known:
            raise ConfigError(f"there is no {what} {name!r}; {nearest_names(name, known)}")
    rng = np.random.default_rng([seed, 11])
    u, n = rng.uniform, rng.normal
    sturdy = float(np.clip(rng.beta(0.6, 0.6), 0, 1))  # heavier jaw and brows, more often a beard
    tone, age = float(u()), float(rng.beta(1.1, 1.5))
    tone, age = tone if look.tone is None else look.tone, age if look.age is None else look.age

    def about(middle: float, spread: float) -> float:
        return float(middle + spread * np.clip(n(), -2.0, 2.0))

    shape = Shape(
        width=about(1.01, 0.03),
        height=about(1.0, 0.025),
        depth=about(1.0, 0.02),
        face_length=about(0.99 + 0.02 * sturdy, 0.03),
        jaw_width=about(0.96 + 0.10 * sturdy, 0.04),
        chin=about(0.25 * sturdy - 0.1, 0.15),
        cheekbones=about(0.1, 0.15),
        fullness=about(0.05, 0.25),
        brow_ridge=about(0.45 * sturdy - 0.15, 0.1),
        eye_spacing=about(1.0, 0.03),
        eye_width=about(1.02, 0.05),
        eye_height=about(1.1 - 0.15 * sturdy, 0.12),
        eye_tilt=about(0.12, 0.16),
        nose_length=about(1.0, 0.05),
        nose_width=about(0.98 + 0.25 * tone, 0.12),
        nose_height=about(0.97 - 0.15 * tone, 0.12),
        nose_bridge=about(0.0, 0.12),
        mouth_width=about(1.0, 0.07),
        upper_lip=about(0.92 + 0.4 * tone, 0.18),
        lower_lip=about(0.95 + 0.25 * tone, 0.15),
        ears=about(1.0, 0.07),
        brow_thickness=about(0.75 + 0.5 * sturdy, 0.15),
        brow_arch=about(0.12 - 0.2 * sturdy, 0.1),
        brow_height=about(0.1 - 0.15 * sturdy, 0.12),
        age=age,
    )
    skin = _shift(rng, skin_colour(tone), 0.03)
    is_common = np.isin(list(HAIR_COLOURS), ["black", "dark brown", "grey", "white"])
    odds = np.array(_HAIR_ODDS) * np.where(is_common, 1.0, max(1.15 - 1.1 * tone, 0.05))
    name = str(rng.choice(list(HAIR_COLOURS), p=odds / odds.sum()))
    is_grey = u() < 1.6 * (age - 0.5)
    if is_grey:
        name = "white" if u() < age - 0.4 else "grey"
    name = name if look.hair is None else look.hair
    hair = _shift(rng, HAIR_COLOURS[name], 0.03 if name in ("grey", "white") else 0.08)
    style = str(rng.choice(STYLES, p=np.array(_STYLE_ODDS[0]) * sturdy + np.array(_STYLE_ODDS[1]) * (1 - sturdy)))
    drawn = _hair_style(rng, style if look.style is None else look.style, int(rng.integers(1 << 31)))
    if sturdy > 0.5 and age > 0.45 and look.style is None:
        drawn = drawn._replace(recession=drawn.recession + float(u(0, 2.2)), bald=float(u(0, 0.9) if u() < 0.4 else 0.0))
    natural = HAIR_COLOURS["dark brown"] if name in ("pink", "blue", "platinum") else hair
    brow = rgb((0.8 if name in ("white", "grey") else 0.75) * c for c in natural)
    has_beard, has_make_up = u() < 0.55 * (sturdy > 0.5), u() < 0.65 * (sturdy < 0.5)
    has_beard = has_beard if look.beard is None else look.beard
    has_make_up = has_make_up if look.make_up is None else look.make_up
    lip = rgb(np.clip(a * skin[k] + b, 0, 1) for k, (a, b) in enumerate(((0.80, 0.06), (0.52, 0.04), (0.58, 0.04))))
    painted: Colour = [(0.70, 0.10, 0.14), (0.55, 0.10, 0.22), (0.78, 0.32, 0.34), (0.45, 0.08, 0.12), (0.72, 0.28, 0.38)][rng.integers(5)]
    lipstick = float(u(0.4, 1.0)) * has_make_up
    lip = rgb(a + (b - a) * 0.8 * lipstick for a, b in zip(lip, painted, strict=True))
    iris = _IRIS[int(rng.choice(6, p=_IRIS_ODDS[0] if tone < 0.5 else _IRIS_ODDS[1]))]
    stubble = float(u(0.2, 0.9)) * (sturdy > 0.5 and u() < 0.7)
    glasses = Glasses(float(u()), about(1.0, 0.05), float(rng.choice([0.2, 0.28, 0.36]))) if u() < 0.25 else None
    if look.glasses is not None:
        glasses = (glasses or Glasses()) if look.glasses else None
    is_dark = u() < 0.2 and look.glasses is None
    frame, metal = _FRAMES[rng.integers(5)], _METALS[rng.integers(2)]
    hat = str(rng.choice(HATS)) if u() < 0.14 else ""
    hat = hat if look.hat is None else look.hat
    earring = float(rng.choice([0.25, 0.7, 1.3])) if u() < (0.12 if sturdy > 0.5 else 0.45) else 0.0
    paint = Paint(
        skin=skin,
        lip=lip,
        iris=_shift(rng, iris, 0.08),
        brow=brow,
        hair=hair,
        beard=rgb(0.85 * c for c in natural),
        hat=_bright(rng, 0.15, 0.75, 0.8),
        frame=frame,
        metal=metal,
        eyeshadow=rgb(0.6 * s + 0.4 * c for s, c in zip(skin, _bright(rng, 0.2, 0.6, 0.7), strict=True)),
        shadow_strength=float(u(0.1, 0.6)) * has_make_up,
        liner=float(u(0.3, 1.0)) * has_make_up,
        lipstick=lipstick,
        blush=float(u(0.0, 0.8)) * has_make_up,
        freckles=float(u(0.3, 1.0)) * (u() < 0.25) * max(1.0 - 1.6 * tone, 0.0),
        stubble=stubble if look.beard is None or look.beard else 0.0,
        redness=float(u(0.2, 0.9)),
        oil=float(u(0.1, 0.5)),
        has_hair=float(drawn.length > 0),
        lens=float(u(0.75, 0.95)) * (glasses is not None and is_dark),
        seed=float(rng.integers(1000)),
    )
    return Identity(shape, paint, drawn, beard=float(u(0.4, 3.0)) * bool(has_beard), hat=hat, glasses=glasses, earring=earring)


def draw_scene(seed: int, identity: Identity) -> Scene:
    """A scene for a person: the body has its skin."""
    rng = np.random.default_rng([seed, 13])
    u = rng.uniform
    angle, height = float(rng.choice([-1, 1]) * u(0.15, 1.1)), float(u(0.15, 0.75))
    key = np.array([np.sin(angle), height, np.cos(angle)])
    key /= np.linalg.norm(key)
    back = np.array([-np.sign(angle) * 0.8, 0.35, -0.5])
    warm = float(u(-1, 1))
    power, fill = float(u(1.5, 2.6)), float(u(0.22, 0.45))
    rim = float(u(0, 1.2)) * (u() < 0.5)

    def tint(k: float, w: float) -> Colour:
        return k * (1 + 0.10 * w), k, k * (1 - 0.14 * w)

    light = Light(
        key=rgb(key),
        key_colour=tint(power, warm),
        sky=tint(fill, -0.5 * warm),
        ground=tint(0.6 * fill, 0.8),
        rim=rgb(back / np.linalg.norm(back)),
        rim_colour=tint(rim, -warm),
        exposure=float(u(0.34, 0.43)) * 2.1 / (0.8 * power + 0.9 * fill),
    )
    pattern = int(rng.choice(6, p=[0.4, 0.14, 0.1, 0.12, 0.08, 0.16]))
    necklines = ["shirt"] if pattern == 5 else list(NECKLINES)
    first = _bright(rng, 0.12, 0.85, 0.75)
    second = (0.85, 0.85, 0.86) if pattern == 5 else _bright(rng, 0.15, 0.9, 0.7)
    dress = Dress(identity.paint.skin, first, second, identity.paint.metal, pattern, float(u(1.2, 4.0)))
    kind = int(rng.integers(len(BACKDROPS)))
    a = _bright(rng, 0.25, 0.8, 0.45)
    b = rgb(c * u(0.35, 0.75) for c in a)
    third = _bright(rng, 0.7, 1.0, 0.35)
    if kind == 3:
        a, b, third = (0.20, 0.32, 0.14), (0.42, 0.50, 0.26), (0.66, 0.79, 0.93)
    sturdy = float(np.clip((identity.shape.jaw_width - 0.96) / 0.10, 0, 1))
    build = Build(0.86 + 0.17 * sturdy + 0.03 * rng.normal(), 0.86 + 0.14 * sturdy + 0.03 * rng.normal(), float(u(-0.6, 1.0)))
    chain = float(u(2.0, 4.0)) if u() < 0.25 else 0.0
    return Scene(
        light,
        dress,
        build,
        Backdrop(kind, a, b, third, int(rng.integers(1000))),
        str(rng.choice(necklines)),
        chain,
        float(0.2 * rng.normal()),
        float(u(75, 130)),
    )


def draw_motion(seed: int) -> Motion:
    """A moment: a pose and an expression as people have them before a camera."""
    rng = np.random.default_rng([seed, 17])
    n, u = rng.normal, rng.uniform
    speaks, smiles = u() < 0.4, u() < 0.5
    smile = float(u(0.3, 1.0) if smiles else 0.15 * n() - 0.05)
    jaw = float(u(0.1, 0.8) if speaks else (u(0.0, 0.25) * (smile > 0.5)))
    yaw, pitch = float(np.clip(0.38 * n(), -0.9, 0.9)), float(np.clip(0.12 * n(), -0.35, 0.35))
    blink = 1.0 if u() < 0.06 else float(np.clip(0.12 * n(), 0, 0.5))
    return Motion(
        yaw=yaw,
        pitch=pitch,
        roll=float(np.clip(0.10 * n(), -0.3, 0.3)),
        shift_x=float(1.2 * n()),
        shift_y=float(np.clip(0.8 * n(), -1.5, 1.5)),
        scale=float(np.clip(1.0 + 0.06 * n(), 0.85, 1.15)),
        jaw=jaw,
        smile=float(np.clip(smile, -0.5, 1)),
        pucker=float(u(0.3, 1.0) if u() < 0.1 else 0.0),
        frown=float(u(0.2, 1.0) if u() < 0.2 else 0.0),
        brow_raise=float(np.clip(0.3 * n(), -0.5, 1)),
        blink_left=blink,
        blink_right=blink,
        gaze_x=float(np.clip(-0.5 * yaw + 0.15 * n(), -0.5, 0.5)),
        gaze_y=float(np.clip(0.5 * pitch + 0.07 * n(), -0.3, 0.3)),
    )


def draw_clip(seed: int, frames: int, rate: float = 25.0) -> list[Motion]:
    """A talking head: smooth motion, with blinks, glances and speech.

    Args:
        frames: how many moments. rate: of them per second.
    """
    rng = np.random.default_rng([seed, 19])
    start = draw_motion(seed)
    t = np.arange(frames) / rate

    def wander(amount: float, slow: float) -> np.ndarray:
        """A smooth random curve: five waves of periods from `slow` seconds down."""
        periods = slow / np.array([1.0, 1.7, 2.6, 3.7, 5.1])
        phases, sizes = rng.uniform(0, 2 * np.pi, 5), rng.normal(0, 1, 5) / np.array([1, 1.5, 2.2, 3.2, 4.5])
        return amount * (sizes[:, None] * np.sin(2 * np.pi * t / periods[:, None] + phases[:, None])).sum(0)

    def at_times(gap: tuple[float, float], kernel: float) -> np.ndarray:
        """Bumps of height 1 and width `kernel` seconds, `gap` seconds apart."""
        moments, now = [], float(rng.uniform(0, gap[1]))
        while now < (frames + 1) / rate:
            moments.append(now)
            now += float(rng.uniform(*gap))
        return sum((np.exp(-(((t - m) / kernel) ** 2)) for m in moments), np.zeros(frames))

    speech = np.clip(0.35 + wander(0.6, 1.4), 0, 1)
    jaw = np.clip(start.jaw * 0.3 + speech * np.abs(np.sin(2 * np.pi * 2.1 * t + wander(1.2, 0.9))) * 0.55, 0, 1)
    smile, blinks = np.clip(start.smile + wander(0.3, 4.0), -0.5, 1), np.clip(at_times((1.6, 4.5), 0.075) * 1.15, 0, 1)
    yaw, pitch = np.clip(start.yaw + wander(0.22, 4.5), -0.9, 0.9), np.clip(start.pitch + wander(0.08, 3.0), -0.35, 0.35)
    roll = start.roll + wander(0.05, 4.0)
    glance_x, glance_y = wander(0.12, 1.6), wander(0.06, 1.6)
    x, y, scale = start.shift_x + wander(0.4, 6.0), start.shift_y + wander(0.2, 5.0), start.scale * (1 + wander(0.01, 5.0))
    raised, pucker = np.clip(start.brow_raise + wander(0.3, 2.2), -0.5, 1), np.clip(speech * wander(0.35, 0.7), 0, 0.7)
    return [
        replace(
            start,
            yaw=float(yaw[k]),
            pitch=float(pitch[k]),
            roll=float(roll[k]),
            shift_x=float(x[k]),
            shift_y=float(y[k]),
            scale=float(scale[k]),
            jaw=float(jaw[k]),
            smile=float(smile[k]),
            pucker=float(pucker[k]),
            brow_raise=float(raised[k]),
            blink_left=float(blinks[k]),
            blink_right=float(blinks[k]),
            gaze_x=float(np.clip(-0.5 * yaw[k] + glance_x[k], -0.5, 0.5)),
            gaze_y=float(np.clip(0.5 * pitch[k] + glance_y[k], -0.3, 0.3)),
        )
        for k in range(frames)
    ]
